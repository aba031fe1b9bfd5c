"""Miss and false alarm rates of scores at all thresholds, and the point where both are equal. Rates are fractions."""

from __future__ import annotations

import numpy as np


def rates(
    scores: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the miss and false alarm rates at all thresholds.

    Args:
        scores: The score of each trial, (N,).
        target: Whether each trial is a target trial, (N,), bool.
        weights: The weight of each trial, (..., N), or None for equal weights.

    Returns:
        The thresholds (K,), which are the distinct scores in rising order; the miss rates and the false alarm rates, both
        (..., K + 1). Column k has the rates if trials with scores below threshold k are rejected. The last column has the
        rates if all trials are rejected.
    """
    scores, target = np.asarray(scores, dtype=np.float64), np.asarray(target, dtype=bool)
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    last = run_ends(ordered) - 1
    counts = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
    curves = []
    for mask in (target, ~target):
        below = np.cumsum((counts * mask)[..., order], axis=-1)[..., last]
        below = np.concatenate([np.zeros((*below.shape[:-1], 1)), below], axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            curves.append(below / below[..., -1:])
    return ordered[last], curves[0], 1 - curves[1]


def run_ends(ordered: np.ndarray) -> np.ndarray:
    """Return the index (K,) after the last element of each run of equal scores, for rising scores (N,)."""
    return np.append(np.flatnonzero(ordered[1:] > ordered[:-1]) + 1, len(ordered))


def crossing(miss: np.ndarray, false_alarm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the point at which the miss rate and the false alarm rate are equal, interpolated linearly.

    Args:
        miss: The miss rates along rising thresholds, (..., K + 1), from `rates`.
        false_alarm: The false alarm rates, (..., K + 1).

    Returns:
        The equal error rate (...,), nan if a rate is nan, and its fractional column (...,).
    """
    after = np.argmax(miss >= false_alarm, axis=-1)  # at least 1: in the first column miss is 0 and false_alarm is 1
    take = lambda curve, column: np.take_along_axis(curve, column[..., None], -1)[..., 0]  # noqa: E731
    m0, m1, f0, f1 = take(miss, after - 1), take(miss, after), take(false_alarm, after - 1), take(false_alarm, after)
    share = (f0 - m0) / ((f0 - m0) + (m1 - f1))
    return m0 + share * (m1 - m0), after - 1 + share
