"""Miss and false alarm rates of scores, and the point where the two cross. Rates are fractions."""

from __future__ import annotations

import numpy as np


def rates(
    scores: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the miss and false alarm rates at all thresholds.

    Args:
        scores: The score of each trial, (N,).
        target: Whether it is a target trial, (N,).
        weights: The weight of each trial, (..., N), or None for 1.

    Returns:
        The distinct scores as rising thresholds (K,), and both rates (..., K + 1) when all below each is rejected. The
        last column rejects everything.
    """
    scores, target = np.asarray(scores, dtype=np.float64), np.asarray(target, dtype=bool)
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    last = run_ends(ordered) - 1
    counts = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
    curves = []
    for kind in (target, ~target):
        below = np.cumsum((counts * kind)[..., order], axis=-1)[..., last]
        below = np.concatenate([np.zeros((*below.shape[:-1], 1)), below], axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            curves.append(below / below[..., -1:])
    return ordered[last], curves[0], 1 - curves[1]


def run_ends(ordered: np.ndarray) -> np.ndarray:
    """Return the position (K,) after the last of each run of equal scores, in rising scores (N,)."""
    return np.append(np.flatnonzero(ordered[1:] > ordered[:-1]) + 1, len(ordered))


def crossing(miss: np.ndarray, false_alarm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rate at the crossing and its position in columns, interpolated linearly; nan where a rate is nan."""
    after = np.argmax(miss >= false_alarm, axis=-1)  # miss rises from 0 and false alarms fall to 0: never the first
    take = lambda curve, at: np.take_along_axis(curve, at[..., None], -1)[..., 0]  # noqa: E731
    m0, m1, f0, f1 = take(miss, after - 1), take(miss, after), take(false_alarm, after - 1), take(false_alarm, after)
    share = (f0 - m0) / ((f0 - m0) + (m1 - f1))
    return m0 + share * (m1 - m0), after - 1 + share
