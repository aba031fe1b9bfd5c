"""Bootstrap over speakers: the distribution of the EER under random draws of a trial list's speakers.

A list of millions of trials is sorted once and cut into stretches of some thousands. The weight of a stretch in many draws
is a product of sparse matrices of its pairs of speakers. The weights tell in which stretch the rates of a draw cross, and
only its trials are weighted one by one. The EERs equal those of `rates` with `bootstrap_weights`, to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rwae_audio.evaluation.rates import crossing, run_ends
from rwae_audio.evaluation.trials import Trials
from rwae_audio.progress import bar

REPLICATES = 1000
LENGTH = 4096  # trials in a stretch; up to about twice as many where scores are equal
COPIES = 4_000_000  # numbers of copies that are drawn at once


class Pairs(NamedTuple):
    """Trials of one kind, counted by their two speakers.

    Attributes:
        speakers: The enrolled speakers, (P,).
        counts: The number of trials of each with each tested speaker, or with nobody, a sparse (P, S + 1).
    """

    speakers: np.ndarray
    counts: Any


class Stretch(NamedTuple):
    """Trials (n,) with consecutive scores.

    Attributes:
        enrol: The number of the enrolled speaker, (n,).
        test: The number of the speaker whose copies multiply the weight, (n,): in a target trial nobody, S.
        target: Whether it is a target trial, (n,).
        ends: The position after each run of equal scores, (K,).
        kinds: The numbers of target and of non-target trials.
    """

    enrol: np.ndarray
    test: np.ndarray
    target: np.ndarray
    ends: np.ndarray
    kinds: tuple[Pairs, Pairs]


def draw_counts(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of `count` speakers is drawn, with replacement, in some draws of as many: (draws, count)."""
    return rng.multinomial(count, np.full(count, 1 / count), size=draws)


def bootstrap_weights(trials: Trials, speakers: np.ndarray, replicates: int, seed: int = 0) -> np.ndarray:
    """Return the weight of each trial in each bootstrap draw of speakers, (replicates, N).

    Speakers are drawn with replacement, n_s copies of speaker s. A target trial of s counts n_s times, a non-target trial
    of s and t n_s · n_t times. Trials between two copies of one speaker are left out.

    Args:
        trials: The trials, N of them.
        speakers: The number of each name's speaker, (M,).
        replicates: The number of draws.
        seed: The seed of the draws.
    """
    copies = np.concatenate(list(_draws(speakers, replicates, seed))).astype(np.int64)
    enrol, test = _speaker_pairs(trials, speakers)
    return copies[:, enrol] * copies[:, test]


def bootstrap_eers(
    scores: np.ndarray, trials: Trials, speakers: np.ndarray, replicates: int = REPLICATES, seed: int = 0
) -> np.ndarray:
    """Return the EERs (replicates,) under bootstrap draws of speakers, nan for draws that lack a kind of trial.

    A seed draws the same speakers for every system. The arguments are those of `bootstrap_weights`, with the score of each
    trial, (N,).
    """
    stretches = list(_stretches(scores, trials, speakers))
    eers = []
    with bar(replicates, "bootstrap", "draws") as progress:
        for copies in _draws(speakers, replicates, seed):
            eers.append(_eers(stretches, copies))
            progress.update(len(copies))
    return np.concatenate(eers)


def _draws(speakers: np.ndarray, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the number of copies of each speaker in some draws, (draws, S + 1); the last column, nobody, is 1."""
    count, rng = int(speakers.max()) + 1, np.random.default_rng(seed)
    size = max(1, min(100, COPIES // count))
    for i in range(0, replicates, size):
        copies = np.ones((min(size, replicates - i), count + 1))
        copies[:, :-1] = draw_counts(count, len(copies), rng)
        yield copies


def _speaker_pairs(trials: Trials, speakers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two speakers (N,) whose copies are multiplied to the weight of each trial; nobody has the number S."""
    enrol, test = speakers[trials.enrol], speakers[trials.test]
    return enrol, np.where(trials.target, int(speakers.max()) + 1, test)


def _stretches(scores: np.ndarray, trials: Trials, speakers: np.ndarray) -> Iterator[Stretch]:
    """Yield the sorted trials in stretches cut at ends of runs; a run of more than LENGTH trials is its own stretch."""
    order = np.argsort(scores, kind="stable")
    ends = run_ends(np.asarray(scores)[order])
    long = np.flatnonzero(np.diff(ends, prepend=0) > LENGTH)
    near = (
        np.searchsorted(ends, np.arange(LENGTH, len(order), LENGTH), "right") - 1
    )  # the last run before each position
    cuts = np.unique(np.concatenate([near, long, long - 1, [len(ends) - 1]]))
    cuts = cuts[cuts >= 0]
    enrol, test = (side[order].astype(np.int32) for side in _speaker_pairs(trials, speakers))
    target, count, first = np.asarray(trials.target, dtype=bool)[order], int(speakers.max()) + 1, 0
    for cut, runs in zip(ends[cuts], np.split(ends, cuts[:-1] + 1), strict=True):
        columns = enrol[first:cut], test[first:cut], target[first:cut]
        kinds = _pairs(*columns[:2], columns[2], count), _pairs(*columns[:2], ~columns[2], count)
        yield Stretch(*columns, runs - first, kinds)
        first = int(cut)


def _pairs(enrol: np.ndarray, test: np.ndarray, kind: np.ndarray, count: int) -> Pairs:
    """Count the trials of a kind by their two speakers (n,), among `count` speakers and nobody."""
    from scipy.sparse import csr_array

    counts = csr_array((np.ones(int(kind.sum())), (enrol[kind], test[kind])), shape=(count, count + 1))
    present = np.flatnonzero(np.diff(counts.indptr))
    return Pairs(present, counts[present])


def _eers(stretches: Sequence[Stretch], copies: np.ndarray) -> np.ndarray:
    """Return the EERs (draws,) under some draws of speakers (draws, S + 1)."""
    by_speaker = np.ascontiguousarray(copies.T)
    weights = np.array([[_weight(kind, by_speaker) for kind in stretch.kinds] for stretch in stretches])
    below = np.cumsum([np.zeros_like(weights[0]), *weights], axis=0).transpose(1, 2, 0)  # (kinds, draws, stretches + 1)
    total = below[..., -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = below / total
    meet = np.argmax(shares[0] >= 1 - shares[1], axis=-1) - 1  # the stretch in which the rates of a draw cross
    meet[(total == 0).any((0, 2))] = -1
    eers = np.full(len(copies), np.nan)
    for at in np.unique(meet[meet >= 0]):
        rows = np.flatnonzero(meet == at)
        alone = len(stretches[at].ends) == 1
        inside = weights[at][:, rows, None] if alone else _weights_below(stretches[at], copies[rows])
        before = below[:, rows, at, None]
        curves = np.concatenate([before, before + inside], axis=-1) / total[:, rows]
        eers[rows] = crossing(curves[0], 1 - curves[1])[0]
    return eers


def _weight(pairs: Pairs, copies: np.ndarray) -> np.ndarray:
    """Return the weight of the trials of a kind in each draw, (draws,), from the copies (S + 1, draws)."""
    return np.einsum("sd,sd->d", copies[pairs.speakers], pairs.counts @ copies)


def _weights_below(stretch: Stretch, copies: np.ndarray) -> np.ndarray:
    """Return the weights of target and non-target trials up to the end of each run, (2, draws, K)."""
    weights = copies[:, stretch.enrol] * copies[:, stretch.test]
    kinds = stretch.target, ~stretch.target
    return np.stack([np.cumsum(weights * kind, axis=-1)[:, stretch.ends - 1] for kind in kinds])
