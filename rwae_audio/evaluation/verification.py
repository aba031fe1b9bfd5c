"""Scores → EER, minDCF, DET, intervals: the speaker benchmark's arithmetic. Rates are fractions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rwae_audio.evaluation.bootstrap import REPLICATES, bootstrap_eers
from rwae_audio.evaluation.rates import crossing, rates
from rwae_audio.evaluation.scores import read_scores, write_scores
from rwae_audio.evaluation.trials import (
    Trials,
    all_pairs,
    match_names,
    read_trials,
    restrict,
    speakers_of,
    write_trials,
)
from rwae_audio.files import InputError
from rwae_audio.progress import bar, slices

P_TARGET = 0.05
P_TARGETS = (P_TARGET, 0.01)  # prior probabilities of a target trial: VoxCeleb's and NIST's
CHUNK = 1_000_000  # numbers of vectors that are multiplied at once
Report = dict[str, Any]


def cosine_scores(vectors: np.ndarray, trials: Trials) -> np.ndarray:
    """Cosine of the two vectors of each trial, (N,), from vectors (M, d) in the order of trials.names.

    Raises InputError for a vector that is zero or not finite: it has no direction, and a score of 0 would be a lie.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    size = max(1, CHUNK // max(1, vectors.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.concatenate([np.linalg.norm(vectors[part], axis=1) for part in slices(len(vectors), size)])
    bad = ~(np.isfinite(norms) & (norms > 0))
    if bad.any():
        name = trials.names[int(bad.argmax())]
        raise InputError(f"{name} has a vector of length {norms[bad.argmax()]:g}; expected one with a direction")
    scores = np.empty(len(trials))
    with bar(len(trials), "scores", "trials") as progress:
        for part in slices(len(trials), size):
            enrol, test = (vectors[side[part]] / norms[side[part], None] for side in (trials.enrol, trials.test))
            scores[part] = np.einsum("nd,nd->n", enrol, test)
            progress.update(len(enrol))
    return scores


def eer(scores: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Equal error rate in [0, 1], not folded: 0 when all targets score above all others, 1 the other way round.

    Found by sorting; ties count together; the crossing is interpolated linearly between ROC points.
    """
    return float(crossing(*rates(scores, target, weights)[1:])[0])


def eer_threshold(scores: np.ndarray, target: np.ndarray) -> float:
    """The score at which the two rates are equal (interpolated): accept what scores at least this."""
    return _equal(*rates(scores, target))[1]


def _equal(thresholds: np.ndarray, miss: np.ndarray, false_alarm: np.ndarray) -> tuple[float, float]:
    """Return the equal error rate and its threshold, of what `rates` gives."""
    rate, position = crossing(miss, false_alarm)
    return float(rate), float(np.interp(float(position), np.arange(len(thresholds)), thresholds))


def min_dcf(
    scores: np.ndarray, target: np.ndarray, p_target: float = 0.05, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """Least detection cost over all thresholds, as a share of the better of accepting or rejecting everything (NIST)."""
    return _least_cost(*rates(scores, target)[1:], p_target, c_miss, c_fa)


def _least_cost(
    miss: np.ndarray, false_alarm: np.ndarray, p_target: float, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """Return what `min_dcf` says, of the rates along the thresholds (K,)."""
    cost = c_miss * p_target * miss + c_fa * (1 - p_target) * false_alarm
    return float(cost.min() / min(c_miss * p_target, c_fa * (1 - p_target)))


def det_points(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False alarm and miss rates (K,) along the thresholds."""
    _, miss, false_alarm = rates(scores, target)
    return false_alarm, miss


def fold(rate: Any) -> Any:
    """min(e, 1 − e): an inverted score is the same leak. A number or an array."""
    return np.minimum(rate, 1 - rate)


def interval(draws: np.ndarray, level: float = 0.95) -> list[float] | None:
    """The middle `level` of bootstrap draws, [low, high]; None without draws."""
    if not len(draws) or np.isnan(draws).all():
        return None
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def report(
    static: np.ndarray,
    dynamic: np.ndarray | None,
    trials: Trials,
    dynamic_mean: np.ndarray | None,
    *,
    synthetic: bool,
    replicates: int = REPLICATES,
    seed: int = 0,
    p_targets: Sequence[float] = P_TARGETS,
) -> tuple[Report, dict[str, np.ndarray]]:
    """What eer.json says of static (M, d) and dynamic (M, e) vectors, and the scores behind it.

    Dynamic EERs are folded; `centred`: after subtracting dynamic_mean (e,); `eer` is the smaller of the two. Without
    dynamic vectors `dynamic`, `gap` and `gap_interval` are None. No replicates, no intervals. `min_dcf` is at a prior of
    0.05; `min_dcf_at` maps each of p_targets, as text, to the cost at that prior.
    """
    scores = {"static": cosine_scores(static, trials)}
    if dynamic is not None and dynamic_mean is not None:
        scores["dynamic_plain"] = cosine_scores(dynamic, trials)
        scores["dynamic_centred"] = cosine_scores(np.asarray(dynamic) - dynamic_mean, trials)
    draws = code_draws(scores, trials, replicates, seed) if replicates else {}
    return report_codes(scores, trials, draws, synthetic=synthetic, p_targets=p_targets), scores


def report_codes(
    scores: Mapping[str, np.ndarray],
    trials: Trials,
    draws: Mapping[str, np.ndarray],
    *,
    synthetic: bool,
    p_targets: Sequence[float] = P_TARGETS,
) -> Report:
    """What `report` says, of scores by kind (`static`, and `dynamic_plain` and `dynamic_centred` or neither) and of
    what code_draws makes of them, or no draws and no intervals."""
    none = np.zeros(0)
    said: Report = {
        "trials": len(trials),
        "target_trials": int(trials.target.sum()),
        "speakers": int(speakers_of(trials).max()) + 1,
        "static": _summary(scores["static"], trials.target, draws.get("static", none), p_targets),
        "dynamic": None,
        "gap": None,
        "gap_interval": None,
        "synthetic": synthetic,
    }
    if "dynamic_plain" not in scores:
        return said
    drawn = draws.get("dynamic", none)
    of = {k: _summary(scores[f"dynamic_{k}"], trials.target, drawn, p_targets) for k in ("plain", "centred")}
    folded = {kind: float(fold(summary["eer"])) for kind, summary in of.items()}
    smaller = min(folded, key=lambda kind: folded[kind])
    costs = {key: of[smaller][key] for key in ("interval", "min_dcf", "min_dcf_at")}
    said["dynamic"] = {"eer": folded[smaller], **folded, **costs}
    said["gap"] = folded[smaller] - said["static"]["eer"]
    said["gap_interval"] = interval(draws["dynamic"] - draws["static"]) if draws else None
    return said


def code_draws(
    scores: Mapping[str, np.ndarray], trials: Trials, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, np.ndarray]:
    """Bootstrap draws (replicates,) of the `static` EER, and of the `dynamic` one where there are such scores: folded,
    and the smaller of plain and centred in each draw."""
    speakers = speakers_of(trials)
    found = {kind: bootstrap_eers(values, trials, speakers, replicates, seed) for kind, values in scores.items()}
    draws = {"static": found["static"]}
    if "dynamic_plain" in found:
        draws["dynamic"] = np.minimum(fold(found["dynamic_plain"]), fold(found["dynamic_centred"]))
    return draws


def report_scores(
    scores: np.ndarray,
    trials: Trials | None,
    target: np.ndarray,
    replicates: int = REPLICATES,
    p_targets: Sequence[float] = P_TARGETS,
) -> Report:
    """The same for the scores of any system; without trials (names unknown) there is no interval."""
    draws = np.zeros(0)
    if trials is not None:
        draws = bootstrap_eers(scores, trials, speakers_of(trials), replicates)
    return {"trials": len(target), "target_trials": int(target.sum()), **_summary(scores, target, draws, p_targets)}


def _summary(scores: np.ndarray, target: np.ndarray, draws: np.ndarray, p_targets: Sequence[float]) -> Report:
    curves = rates(scores, target)
    rate, threshold = _equal(*curves)
    at = {p_target: _least_cost(*curves[1:], p_target) for p_target in (P_TARGET, *p_targets)}
    return {
        "eer": rate,
        "interval": interval(draws),
        "min_dcf": at[P_TARGET],
        "min_dcf_at": {str(p_target): at[p_target] for p_target in p_targets},
        "threshold": threshold,
    }


__all__ = [
    "InputError",
    "Trials",
    "all_pairs",
    "bootstrap_eers",
    "cosine_scores",
    "det_points",
    "eer",
    "match_names",
    "min_dcf",
    "read_scores",
    "read_trials",
    "report",
    "restrict",
    "speakers_of",
    "write_scores",
    "write_trials",
]
