"""Speaker verification: cosine scores, equal error rate (EER), minDCF, DET curves and reports. Rates are fractions."""

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
P_TARGETS = (P_TARGET, 0.01)  # prior probabilities of a target trial in VoxCeleb's and in NIST's minDCF
CHUNK = 1_000_000  # numbers of a matrix that are processed at once, which limits the memory
Report = dict[str, Any]


def cosine_scores(vectors: np.ndarray, trials: Trials) -> np.ndarray:
    """Return the cosine similarity of the two embeddings of each trial, (N,).

    Args:
        vectors: The embeddings (M, d) in the order of trials.names.
        trials: The trials.

    Raises:
        InputError: An embedding has no direction, because it is zero or not finite.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    size = max(1, CHUNK // max(1, vectors.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.concatenate([np.linalg.norm(vectors[part], axis=1) for part in slices(len(vectors), size)])
    bad = ~(np.isfinite(norms) & (norms > 0))
    if bad.any():
        name = trials.names[int(bad.argmax())]
        raise InputError(
            f"{name} has a vector of length {norms[bad.argmax()]:g}; expected a vector that is finite and not zero"
        )
    scores = np.empty(len(trials))
    with bar(len(trials), "scores", "trials") as progress:
        for part in slices(len(trials), size):
            enrol, test = (vectors[side[part]] / norms[side[part], None] for side in (trials.enrol, trials.test))
            scores[part] = np.einsum("nd,nd->n", enrol, test)
            progress.update(len(enrol))
    return scores


def eer(scores: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the equal error rate (EER), a number from 0 to 1.

    It is 0 if all target scores exceed all non-target scores, and 1 if they lie below them. Trials with equal scores are
    accepted or rejected together. The EER is interpolated linearly between the points of the ROC curve.

    Args:
        scores: The score of each trial, (N,).
        target: Whether each trial is a target trial, (N,), bool.
        weights: The weight of each trial, (N,), or None for equal weights.
    """
    return float(crossing(*rates(scores, target, weights)[1:])[0])


def eer_threshold(scores: np.ndarray, target: np.ndarray) -> float:
    """Return the threshold at which both error rates are equal, interpolated linearly.

    Args:
        scores: The score of each trial, (N,). Trials with scores of at least the threshold are accepted.
        target: Whether each trial is a target trial, (N,), bool.
    """
    return _equal_point(*rates(scores, target))[1]


def _equal_point(thresholds: np.ndarray, miss: np.ndarray, false_alarm: np.ndarray) -> tuple[float, float]:
    """Return the equal error rate and its threshold from the output of `rates`."""
    rate, position = crossing(miss, false_alarm)
    return float(rate), float(np.interp(float(position), np.arange(len(thresholds)), thresholds))


def min_dcf(
    scores: np.ndarray, target: np.ndarray, p_target: float = 0.05, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """Return NIST's minimum detection cost (minDCF).

    The unit is the cost of a system without scores, which accepts all trials or rejects all trials, whichever is cheaper.

    Args:
        scores: The score of each trial, (N,).
        target: Whether each trial is a target trial, (N,), bool.
        p_target: The prior probability of a target trial.
        c_miss: The cost of a miss.
        c_fa: The cost of a false alarm.
    """
    return _least_cost(*rates(scores, target)[1:], p_target, c_miss, c_fa)


def _least_cost(
    miss: np.ndarray, false_alarm: np.ndarray, p_target: float, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """Return the cost of `min_dcf` from the rates at all thresholds, (K,)."""
    cost = c_miss * p_target * miss + c_fa * (1 - p_target) * false_alarm
    return float(cost.min() / min(c_miss * p_target, c_fa * (1 - p_target)))


def det_points(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of a detection error trade-off curve: false alarm rates and miss rates, (K,) each.

    Args:
        scores: The score of each trial, (N,).
        target: Whether each trial is a target trial, (N,), bool.
    """
    _, miss, false_alarm = rates(scores, target)
    return false_alarm, miss


def fold(rate: Any) -> Any:
    """Return min(e, 1 − e) for an EER e, a number or an array.

    A code with an EER over 50 % also reveals the speaker, since its scores can be inverted.
    """
    return np.minimum(rate, 1 - rate)


def interval(draws: np.ndarray, level: float = 0.95) -> list[float] | None:
    """Return the central interval [low, high] of bootstrap draws.

    Args:
        draws: The draws, (replicates,). Draws that are nan are ignored.
        level: The probability of the interval.

    Returns:
        The interval, or None without draws.
    """
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

    The report has the EERs and the minimum detection costs of both kinds of embedding. Dynamic EERs are folded (`fold`).
    `plain` is the EER of the dynamic embeddings, `centred` the EER of the embeddings minus `dynamic_mean`, and `eer` is the
    smaller of both. `min_dcf` is the cost at a prior of 0.05; `min_dcf_at` has the cost at each prior in `p_targets`.

    Args:
        static: The static embeddings, (M, d).
        dynamic: The dynamic embeddings, (M, e). If None, `dynamic`, `gap` and `gap_interval` are None.
        trials: The trials.
        dynamic_mean: The mean dynamic embedding of training speakers, (e,), or None without dynamic embeddings.
        synthetic: Whether the speech is synthetic.
        replicates: The number of bootstrap draws; 0 for no intervals.
        seed: The seed of the draws.
        p_targets: Prior probabilities of a target trial.

    Returns:
        The report, and the scores (N,) by kind: `static`, `dynamic_plain` and `dynamic_centred`.
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
    """Return the report of `report` from scores.

    Args:
        scores: The scores (N,) by kind: `static`, and either both of `dynamic_plain` and `dynamic_centred` or none of them.
        trials: The trials.
        draws: The bootstrap draws from `code_draws`, or {} for no intervals.
        synthetic: Whether the speech is synthetic.
        p_targets: Prior probabilities of a target trial.
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
        kind: _summary(scores[f"dynamic_{kind}"], trials.target, dynamic_draws, p_targets)
        for kind in ("plain", "centred")
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
    """Return bootstrap draws of the `static` EER and, if there are dynamic scores, of the `dynamic` EER.

    In each draw, the dynamic EER is the smaller of the folded EERs of `dynamic_plain` and `dynamic_centred`.

    Args:
        scores: The scores (N,) by kind, as in `report_codes`.
        trials: The trials.
        replicates: The number of draws.
        seed: The seed of the draws.

    Returns:
        The draws (replicates,) by code.
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
    """Return the report of the scores of any system.

    Args:
        scores: The score of each trial, (N,).
        trials: The trials, or None if their names are unknown. Without trials the report has no interval.
        target: Whether each trial is a target trial, (N,), bool.
        replicates: The number of bootstrap draws.
        p_targets: Prior probabilities of a target trial.
    """
    draws = np.zeros(0)
    if trials is not None:
        draws = bootstrap_eers(scores, trials, speakers_of(trials), replicates)
    return {"trials": len(target), "target_trials": int(target.sum()), **_summary(scores, target, draws, p_targets)}


def _summary(scores: np.ndarray, target: np.ndarray, draws: np.ndarray, p_targets: Sequence[float]) -> Report:
    curves = rates(scores, target)
    rate, threshold = _equal_point(*curves)
    costs = {p_target: _least_cost(*curves[1:], p_target) for p_target in (P_TARGET, *p_targets)}
    return {
        "eer": rate,
        "interval": interval(draws),
        "min_dcf": costs[P_TARGET],
        "min_dcf_at": {str(p_target): costs[p_target] for p_target in p_targets},
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
