"""Bootstrap over speakers: the distribution of the EER under random draws of a trial list's speakers.

Each draw gives every trial a weight, and the EER of a draw is that of the weighted trials. To be fast for millions of
trials, the trials are sorted by their scores once and cut into stretches of some thousands.

1. The total weight of a stretch in many draws is a product of sparse matrices, indexed by pairs of speakers.
2. These totals show in which stretch the two error rates of a draw are equal.
3. Only the trials of this stretch are weighted one by one.

The EERs are equal to those of `rates` with `bootstrap_weights`, to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rwae_audio.evaluation.rates import crossing, run_ends
from rwae_audio.evaluation.trials import Trials
from rwae_audio.progress import bar

REPLICATES = 1000
LENGTH = 4096  # trials in a stretch; up to about twice as many if scores are equal
COPIES = 4_000_000  # random numbers that are drawn at once


class Pairs(NamedTuple):
    """The numbers of target or non-target trials by pair of speakers.

    Attributes:
        speakers: The numbers of the enrolled speakers, (P,).
        counts: The number of trials of each enrolled speaker with each tested speaker, a sparse matrix (P, S + 1). The last
            column has the target trials (see `_speaker_pairs`).
    """

    speakers: np.ndarray
    counts: Any


class Stretch(NamedTuple):
    """A stretch of n trials with consecutive scores.

    Attributes:
        enrol: The number of the enrolled speaker of each trial, (n,).
        test: The number of the tested speaker of each non-target trial, and S for a target trial, (n,).
        target: Whether each trial is a target trial, (n,).
        ends: The index after each run of equal scores, (K,).
        kinds: The target trials and the non-target trials, counted by pair of speakers.
    """

    enrol: np.ndarray
    test: np.ndarray
    target: np.ndarray
    ends: np.ndarray
    kinds: tuple[Pairs, Pairs]


def draw_counts(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return the number of copies of each speaker in bootstrap draws, (draws, count).

    Args:
        count: The number of speakers. Each draw takes as many speakers, with replacement.
        draws: The number of draws.
        rng: The random numbers.
    """
    return rng.multinomial(count, np.full(count, 1 / count), size=draws)


def bootstrap_weights(trials: Trials, speakers: np.ndarray, replicates: int, seed: int = 0) -> np.ndarray:
    """Return the weight of each trial in each bootstrap draw of speakers, (replicates, N).

    Speakers are drawn with replacement, and n_s is the number of copies of speaker s. The weight of a target trial of s is
    n_s. The weight of a non-target trial of s and t is n_s · n_t. There are no trials between two copies of one speaker.

    Args:
        trials: The trials, N of them.
        speakers: The number of the speaker of each utterance, (M,), from `speakers_of`.
        replicates: The number of draws.
        seed: The seed of the draws.
    """
    copies = np.concatenate(list(_draws(speakers, replicates, seed))).astype(np.int64)
    enrol, test = _speaker_pairs(trials, speakers)
    return copies[:, enrol] * copies[:, test]


def bootstrap_eers(
    scores: np.ndarray, trials: Trials, speakers: np.ndarray, replicates: int = REPLICATES, seed: int = 0
) -> np.ndarray:
    """Return the EER in each bootstrap draw of speakers, (replicates,), nan for draws without target or non-target trials.

    Args:
        scores: The score of each trial, (N,).
        trials: The trials.
        speakers: The number of the speaker of each utterance, (M,), from `speakers_of`.
        replicates: The number of draws.
        seed: The seed of the draws. With one seed, all systems get the same draws of speakers.
    """
    stretches = list(_stretches(scores, trials, speakers))
    eers = []
    with bar(replicates, "bootstrap", "draws") as progress:
        for copies in _draws(speakers, replicates, seed):
            eers.append(_eers(stretches, copies))
            progress.update(len(copies))
    return np.concatenate(eers)


def _draws(speakers: np.ndarray, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the number of copies of each speaker in some draws, (draws, S + 1); the last column is 1."""
    count, rng = int(speakers.max()) + 1, np.random.default_rng(seed)
    size = max(1, min(100, COPIES // count))
    for i in range(0, replicates, size):
        copies = np.ones((min(size, replicates - i), count + 1))
        copies[:, :-1] = draw_counts(count, len(copies), rng)
        yield copies


def _speaker_pairs(trials: Trials, speakers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two speakers of each trial, (N,) each, whose numbers of copies are multiplied to the weight of the trial.

    The second speaker of a target trial is S, a number beyond the speakers whose number of copies is always 1.
    """
    enrol, test = speakers[trials.enrol], speakers[trials.test]
    return enrol, np.where(trials.target, int(speakers.max()) + 1, test)


def _stretches(scores: np.ndarray, trials: Trials, speakers: np.ndarray) -> Iterator[Stretch]:
    """Yield the trials in stretches, sorted by score.

    A run of equal scores is never divided. A run of more than LENGTH trials is a stretch of its own.
    """
    order = np.argsort(scores, kind="stable")
    ends = run_ends(np.asarray(scores)[order])
    long_runs = np.flatnonzero(np.diff(ends, prepend=0) > LENGTH)
    regular = np.searchsorted(ends, np.arange(LENGTH, len(order), LENGTH), "right") - 1  # cuts every LENGTH trials
    cuts = np.unique(np.concatenate([regular, long_runs, long_runs - 1, [len(ends) - 1]]))
    cuts = cuts[cuts >= 0]
    enrol, test = (side[order].astype(np.int32) for side in _speaker_pairs(trials, speakers))
    target, count, first = np.asarray(trials.target, dtype=bool)[order], int(speakers.max()) + 1, 0
    for cut, runs in zip(ends[cuts], np.split(ends, cuts[:-1] + 1), strict=True):
        columns = enrol[first:cut], test[first:cut], target[first:cut]
        kinds = _pairs(*columns[:2], columns[2], count), _pairs(*columns[:2], ~columns[2], count)
        yield Stretch(*columns, runs - first, kinds)
        first = int(cut)


def _pairs(enrol: np.ndarray, test: np.ndarray, kind: np.ndarray, count: int) -> Pairs:
    """Count the trials for which `kind` (n,) is true, by their two speakers (n,) from `_speaker_pairs`."""
    from scipy.sparse import csr_array

    counts = csr_array((np.ones(int(kind.sum())), (enrol[kind], test[kind])), shape=(count, count + 1))
    present = np.flatnonzero(np.diff(counts.indptr))
    return Pairs(present, counts[present])


def _eers(stretches: Sequence[Stretch], copies: np.ndarray) -> np.ndarray:
    """Return the EER in each draw, (draws,), from the number of copies of each speaker, (draws, S + 1)."""
    by_speaker = np.ascontiguousarray(copies.T)
    weights = np.array([[_weight(kind, by_speaker) for kind in stretch.kinds] for stretch in stretches])
    below = np.cumsum([np.zeros_like(weights[0]), *weights], axis=0).transpose(1, 2, 0)  # (kinds, draws, stretches + 1)
    total = below[..., -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = below / total
    crossings = np.argmax(shares[0] >= 1 - shares[1], axis=-1) - 1  # the stretch with equal rates in each draw
    crossings[(total == 0).any((0, 2))] = -1
    eers = np.full(len(copies), np.nan)
    for index in np.unique(crossings[crossings >= 0]):
        rows = np.flatnonzero(crossings == index)
        single_run = len(stretches[index].ends) == 1
        inside = weights[index][:, rows, None] if single_run else _weights_below(stretches[index], copies[rows])
        before = below[:, rows, index, None]
        curves = np.concatenate([before, before + inside], axis=-1) / total[:, rows]
        eers[rows] = crossing(curves[0], 1 - curves[1])[0]
    return eers


def _weight(pairs: Pairs, copies: np.ndarray) -> np.ndarray:
    """Return the total weight of counted trials in each draw, (draws,), from the numbers of copies, (S + 1, draws)."""
    return np.einsum("sd,sd->d", copies[pairs.speakers], pairs.counts @ copies)


def _weights_below(stretch: Stretch, copies: np.ndarray) -> np.ndarray:
    """Return the weights of target and non-target trials, summed to the end of each run of a stretch: (2, draws, K)."""
    weights = copies[:, stretch.enrol] * copies[:, stretch.test]
    masks = stretch.target, ~stretch.target
    return np.stack([np.cumsum(weights * mask, axis=-1)[:, stretch.ends - 1] for mask in masks])
