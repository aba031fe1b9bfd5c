"""Speaker verification: cosine scores, EER, minDCF, DET curves, bootstrap intervals and tables. Rates are fractions."""

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
CHUNK = 1_000_000  # numbers that are multiplied at once
Report = dict[str, Any]


def cosine_scores(vectors: np.ndarray, trials: Trials) -> np.ndarray:
    """Return the cosine of the two embeddings of each trial, (N,).

    Args:
        vectors: The embeddings (M, d) in the order of trials.names.
        trials: The trials.

    Raises:
        InputError: An embedding is zero or not finite, so that it has no direction.
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
    """Return the equal error rate in [0, 1]: 0 if all target scores exceed all others, 1 if all lie below them.

    Equal scores count together. The crossing is interpolated linearly between ROC points.

    Args:
        scores: The score of each trial, (N,).
        target: Whether it is a target trial, (N,).
        weights: The weight of each trial, (N,), or None for 1.
    """
    return float(crossing(*rates(scores, target, weights)[1:])[0])


def eer_threshold(scores: np.ndarray, target: np.ndarray) -> float:
    """Return the threshold with equal rates, interpolated; a trial is accepted from this score on."""
    return _equal(*rates(scores, target))[1]


def _equal(thresholds: np.ndarray, miss: np.ndarray, false_alarm: np.ndarray) -> tuple[float, float]:
    """Return the equal error rate and its threshold from the output of `rates`."""
    rate, position = crossing(miss, false_alarm)
    return float(rate), float(np.interp(float(position), np.arange(len(thresholds)), thresholds))


def min_dcf(
    scores: np.ndarray, target: np.ndarray, p_target: float = 0.05, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """Return NIST's minimum detection cost, relative to the cheaper of accepting or rejecting all trials.

    Args:
        scores: The score of each trial, (N,).
        target: Whether it is a target trial, (N,).
        p_target: The prior probability of a target trial.
        c_miss: The cost of a miss.
        c_fa: The cost of a false alarm.
    """
    return _least_cost(*rates(scores, target)[1:], p_target, c_miss, c_fa)


def _least_cost(
    miss: np.ndarray, false_alarm: np.ndarray, p_target: float, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """Return the cost of `min_dcf` from the rates along the thresholds (K,)."""
    cost = c_miss * p_target * miss + c_fa * (1 - p_target) * false_alarm
    return float(cost.min() / min(c_miss * p_target, c_fa * (1 - p_target)))


def det_points(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the false alarm and miss rates (K,) along the thresholds."""
    _, miss, false_alarm = rates(scores, target)
    return false_alarm, miss


def fold(rate: Any) -> Any:
    """Return min(e, 1 − e) of a number or an array: an inverted score leaks the speaker equally."""
    return np.minimum(rate, 1 - rate)


def interval(draws: np.ndarray, level: float = 0.95) -> list[float] | None:
    """Return the central interval of bootstrap draws with the probability `level`, [low, high]; None without draws."""
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
    """Return the report of static and dynamic embeddings for eer.json, and the scores of each kind.

    Dynamic EERs are folded. `plain` is that of the embeddings, `centred` that minus `dynamic_mean`, and `eer` the smaller
    of both. `min_dcf` is at a prior of 0.05; `min_dcf_at` maps each of `p_targets`, as text, to the cost at that prior.

    Args:
        static: The static embeddings, (M, d).
        dynamic: The dynamic embeddings, (M, e). If None, `dynamic`, `gap` and `gap_interval` are None.
        trials: The trials.
        dynamic_mean: The mean dynamic embedding of training speakers, (e,), or None without dynamic embeddings.
        synthetic: Whether the speech is synthetic.
        replicates: The number of bootstrap draws; 0 for no intervals.
        seed: The seed of the draws.
        p_targets: Prior probabilities of a target trial.
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
    """Return the report of scores by kind: `static`, and `dynamic_plain` with `dynamic_centred` or neither.

    The other arguments are those of `report`; `draws` are those of `code_draws`, or {} for no intervals.
    """
    none = np.zeros(0)
    result: Report = {
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
        return result
    dynamic_draws = draws.get("dynamic", none)
    summaries = {
        k: _summary(scores[f"dynamic_{k}"], trials.target, dynamic_draws, p_targets) for k in ("plain", "centred")
    }
    folded = {kind: float(fold(summary["eer"])) for kind, summary in summaries.items()}
    smaller = min(folded, key=lambda kind: folded[kind])
    costs = {key: summaries[smaller][key] for key in ("interval", "min_dcf", "min_dcf_at")}
    result["dynamic"] = {"eer": folded[smaller], **folded, **costs}
    result["gap"] = folded[smaller] - result["static"]["eer"]
    result["gap_interval"] = interval(draws["dynamic"] - draws["static"]) if draws else None
    return result


def code_draws(
    scores: Mapping[str, np.ndarray], trials: Trials, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return bootstrap draws (replicates,) of the `static` and, if there are such scores, the `dynamic` EER.

    The dynamic EER is folded, and the smaller of plain and centred in each draw.
    """
    speakers = speakers_of(trials)
    eers = {kind: bootstrap_eers(values, trials, speakers, replicates, seed) for kind, values in scores.items()}
    draws = {"static": eers["static"]}
    if "dynamic_plain" in eers:
        draws["dynamic"] = np.minimum(fold(eers["dynamic_plain"]), fold(eers["dynamic_centred"]))
    return draws


def report_scores(
    scores: np.ndarray,
    trials: Trials | None,
    target: np.ndarray,
    replicates: int = REPLICATES,
    p_targets: Sequence[float] = P_TARGETS,
) -> Report:
    """Return the report of the scores of any system; without trials there is no interval."""
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
