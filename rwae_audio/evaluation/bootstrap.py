"""Bootstrap over speakers: the EERs that other draws of a list's speakers would have had.

A list of millions of trials is sorted once and cut into stretches of some thousands. What a stretch weighs in many draws is
a product of sparse matrices of its pairs of speakers. It tells in which stretch the rates of a draw cross, and only there are
trials looked at one by one. The EERs are those of `rates` with `bootstrap_weights`, to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rwae_audio.evaluation.rates import crossing, run_ends
from rwae_audio.evaluation.trials import Trials
from rwae_audio.progress import bar

REPLICATES = 1000
LENGTH = 4096  # trials in a stretch, to about twice as many where scores are equal
COPIES = 4_000_000  # copies of speakers counted at once


class Pairs(NamedTuple):
    """Trials of one kind, counted by their two speakers.

    Attributes:
        speakers: Those that enrol, (P,).
        counts: Sparse, (P, S + 1): the trials of each against each speaker, or against nobody.
    """

    speakers: np.ndarray
    counts: Any


class Stretch(NamedTuple):
    """Trials (n,) whose scores follow each other.

    Attributes:
        one: The number of the speaker that enrols, (n,).
        other: That of the speaker whose copies multiply the weight, (n,): nobody's, S, in a target trial.
        target: Is it one speaker? (n,)
        ends: The place after each run of equal scores, (K,).
        kinds: The target and the other trials, counted.
    """

    one: np.ndarray
    other: np.ndarray
    target: np.ndarray
    ends: np.ndarray
    kinds: tuple[Pairs, Pairs]


def draw_counts(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of `count` speakers is drawn, with replacement, in some draws of as many: (draws, count)."""
    return rng.multinomial(count, np.full(count, 1 / count), size=draws)


def bootstrap_weights(trials: Trials, speakers: np.ndarray, replicates: int, seed: int = 0) -> np.ndarray:
    """Return how often each trial counts in each bootstrap draw of speakers, (replicates, N).

    Speakers are drawn with replacement, n_s copies of speaker s: a target trial of s counts n_s times, a non-target
    trial of s and t n_s · n_t times; what two copies of one speaker would make of each other is left out.
    """
    drawn = np.concatenate(list(_drawn(speakers, replicates, seed))).astype(np.int64)
    one, other = _multiplied(trials, speakers)
    return drawn[:, one] * drawn[:, other]


def bootstrap_eers(
    scores: np.ndarray, trials: Trials, speakers: np.ndarray, replicates: int = REPLICATES, seed: int = 0
) -> np.ndarray:
    """Return EERs (replicates,) under bootstrap draws of speakers; a seed draws the same speakers for every system.

    Draws without target or without non-target trials are nan.
    """
    stretches = list(_stretches(scores, trials, speakers))
    eers = []
    with bar(replicates, "bootstrap", "draws") as progress:
        for drawn in _drawn(speakers, replicates, seed):
            eers.append(_eers(stretches, drawn))
            progress.update(len(drawn))
    return np.concatenate(eers)


def _drawn(speakers: np.ndarray, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how many copies of each speaker are in some draws, and of nobody, who is there once: (draws, S + 1)."""
    count, rng = int(speakers.max()) + 1, np.random.default_rng(seed)
    size = max(1, min(100, COPIES // count))
    for i in range(0, replicates, size):
        drawn = np.ones((min(size, replicates - i), count + 1))
        drawn[:, :-1] = draw_counts(count, len(drawn), rng)
        yield drawn


def _multiplied(trials: Trials, speakers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two speakers (N,) whose copies make up the weight of each trial; nobody's number is S."""
    one, other = speakers[trials.enrol], speakers[trials.test]
    return one, np.where(trials.target, int(speakers.max()) + 1, other)


def _stretches(scores: np.ndarray, trials: Trials, speakers: np.ndarray) -> Iterator[Stretch]:
    """Cut the trials, in the order of their scores, where a run ends. A run of more than LENGTH trials stands alone."""
    order = np.argsort(scores, kind="stable")
    ends = run_ends(np.asarray(scores)[order])
    long = np.flatnonzero(np.diff(ends, prepend=0) > LENGTH)
    near = np.searchsorted(ends, np.arange(LENGTH, len(order), LENGTH), "right") - 1  # the last run before each place
    cuts = np.unique(np.concatenate([near, long, long - 1, [len(ends) - 1]]))
    cuts = cuts[cuts >= 0]
    one, other = (side[order].astype(np.int32) for side in _multiplied(trials, speakers))
    target, count, first = np.asarray(trials.target, dtype=bool)[order], int(speakers.max()) + 1, 0
    for cut, runs in zip(ends[cuts], np.split(ends, cuts[:-1] + 1), strict=True):
        mine = one[first:cut], other[first:cut], target[first:cut]
        kinds = _pairs(*mine[:2], mine[2], count), _pairs(*mine[:2], ~mine[2], count)
        yield Stretch(*mine, runs - first, kinds)
        first = int(cut)


def _pairs(one: np.ndarray, other: np.ndarray, kind: np.ndarray, count: int) -> Pairs:
    """Count trials of a kind, of n, by the two speakers (n,) of each, `count` speakers and nobody."""
    from scipy.sparse import csr_array

    counts = csr_array((np.ones(int(kind.sum())), (one[kind], other[kind])), shape=(count, count + 1))
    there = np.flatnonzero(np.diff(counts.indptr))
    return Pairs(there, counts[there])


def _eers(stretches: Sequence[Stretch], drawn: np.ndarray) -> np.ndarray:
    """Return the EERs (draws,) under some draws of speakers (draws, S + 1)."""
    copies = np.ascontiguousarray(drawn.T)
    weights = np.array([[_weight(kind, copies) for kind in stretch.kinds] for stretch in stretches])
    below = np.cumsum([np.zeros_like(weights[0]), *weights], axis=0).transpose(1, 2, 0)  # (kinds, draws, stretches + 1)
    total = below[..., -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = below / total
    meet = np.argmax(shares[0] >= 1 - shares[1], axis=-1) - 1  # the stretch in which the rates of a draw cross
    meet[(total == 0).any((0, 2))] = -1
    eers = np.full(len(drawn), np.nan)
    for at in np.unique(meet[meet >= 0]):
        mine = np.flatnonzero(meet == at)
        alone = len(stretches[at].ends) == 1
        inside = weights[at][:, mine, None] if alone else _weights_below(stretches[at], drawn[mine])
        before = below[:, mine, at, None]
        curves = np.concatenate([before, before + inside], axis=-1) / total[:, mine]
        eers[mine] = crossing(curves[0], 1 - curves[1])[0]
    return eers


def _weight(pairs: Pairs, copies: np.ndarray) -> np.ndarray:
    """Return how much trials of one kind weigh in each draw, (draws,), from the copies (S + 1, draws)."""
    return np.einsum("sd,sd->d", copies[pairs.speakers], pairs.counts @ copies)


def _weights_below(stretch: Stretch, drawn: np.ndarray) -> np.ndarray:
    """Return how much the targets and the others weigh up to the end of each run, (2, draws, K)."""
    weights = drawn[:, stretch.one] * drawn[:, stretch.other]
    kinds = stretch.target, ~stretch.target
    return np.stack([np.cumsum(weights * kind, axis=-1)[:, stretch.ends - 1] for kind in kinds])
