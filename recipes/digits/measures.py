"""The measures of a model of spoken digits, by the judges: content, voice, clusters, and the quality of samples.

Each measure has bootstrap draws. Speakers are drawn for measures of test recordings (content, voice, clusters). Samples are
drawn for measures of samples from the priors (inception score, entropies, Fréchet distance).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from judge import Judges, late, rounds
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rwae_audio.evaluation.bootstrap import draw_counts
from rwae_audio.inference.bundle import Bundle
from rwae_audio.inference.generation import Codes, codes_of_all, decoded, inferred, new_voices, new_words
from rwae_audio.objectives.divergences import entropy
from rwae_audio.randomness import generator

if TYPE_CHECKING:
    from train import Digits

REPLICATES = 200  # bootstrap draws
SAMPLES = 6000  # the smallest number of samples for a measure


class Measured(NamedTuple):
    """A measure and its bootstrap draws (REPLICATES,)."""

    value: float
    draws: list[float]


def measure(
    bundle: Bundle, digits: Digits, judged: Judges, count: int = SAMPLES, split: str = "test"
) -> dict[str, Measured]:
    """Return all measures of a model by name.

    Measures with the suffix `_inferred` are those of the same samples, decoded with the action that is inferred from z^m
    instead of the drawn action.

    Args:
        bundle: The model.
        digits: The corpus.
        judged: The judges.
        count: The smallest number of samples for a measure.
        split: The split of the test speakers.
    """
    model, mel, seed = bundle.model, bundle.config.mel, bundle.config.train.seed
    test = rows_of(digits, lambda u: u.split == split)
    every = rounds(digits.store.utterances)
    later = rows_of(digits, lambda u: u.split == split and late(u, every))
    raw = torch.from_numpy(digits.store.frames.reshape(digits.frames.shape).astype(np.float32))
    codes = codes_of_all(model, digits.normaliser, mel, raw[test])
    is_late = torch.tensor([int(row) in set(later.tolist()) for row in test])
    times, late_times = -(-count // len(test)), -(-count // len(later))

    words = labels(digits, test, judged.words, "text").repeat_interleave(times)
    word_opinions = judged.digit.opinion(new_voices(model, codes.repeated(times), generator(seed, "new voices")))[
        0
    ].argmax(-1)
    late_codes = Codes(*(None if part is None else part[is_late] for part in codes))  # type: ignore[arg-type]
    late_speakers = labels(digits, later, judged.speakers, "speaker").repeat_interleave(late_times)
    voice_opinions = judged.speaker.opinion(
        new_words(model, late_codes.repeated(late_times), generator(seed, "new words"))
    )[0].argmax(-1)
    speakers = labels(digits, test, judged.speakers, "speaker")
    measures = {
        "content_accuracy": by_speaker((word_opinions == words).double(), speakers.repeat_interleave(times)),
        "voice_accuracy": by_speaker((voice_opinions == late_speakers).double(), late_speakers),
    }

    real = judged.digit.opinion(digits.frames[test])[1].double().numpy()
    sample = model.sample(count, mel.segment, generator(seed, "from the priors"))
    measures |= unconditional(judged, sample.frames, real, "")
    if model.action_encoder is not None:
        again = Codes(sample.static, sample.dynamic, inferred(model, sample.dynamic))
        measures |= unconditional(judged, decoded(model, again), real, "_inferred")
        assert codes.action is not None
        measures |= clusters(
            codes.action.argmax(-1).numpy(), labels(digits, test, judged.words, "text").numpy(), speakers
        )
    return measures


def reference(digits: Digits, judged: Judges) -> dict[str, float]:
    """Return the measures of real test speech: the judges' accuracies, the entropies and the Fréchet distance.

    The distance is that between equal numbers of recordings of training and of test speakers.
    """
    test, train = rows_of(digits, lambda u: u.split == "test"), rows_of(digits, lambda u: u.split == "train")
    chosen = train[torch.randperm(len(train), generator=generator(0, "reference"))[: len(test)]]
    probabilities, features = judged.digit.opinion(digits.frames[test])
    _, train_features = judged.digit.opinion(digits.frames[chosen])
    score, conditional, marginal = inception(probabilities)
    return {
        "digit_judge_accuracy": judged.digit_accuracy,
        "speaker_judge_accuracy": judged.speaker_accuracy,
        "inception_score": score,
        "h_y_given_x": conditional,
        "h_y": marginal,
        "frechet": frechet(train_features.double().numpy(), features.double().numpy()),
    }


def rows_of(digits: Digits, condition: Any) -> Tensor:
    """Return the indices (N,) of the utterances for which the function `condition` is true."""
    return torch.tensor([i for i, u in enumerate(digits.store.utterances) if condition(u)])


def labels(digits: Digits, rows: Tensor, names: tuple[str, ...], field: str) -> Tensor:
    """Return the class of each utterance, (N,).

    Args:
        digits: The corpus.
        rows: The indices of the utterances, (N,).
        names: The name of each class.
        field: The attribute of an utterance that has the name, "text" or "speaker".
    """
    return torch.tensor([names.index(getattr(digits.store.utterances[int(row)], field)) for row in rows])


def by_speaker(correct: Tensor, speakers: Tensor) -> Measured:
    """Return an accuracy with bootstrap draws of speakers.

    Args:
        correct: 1 for correct and 0 for wrong decisions, (N,).
        speakers: The number of the speaker of each decision, (N,).
    """
    means = np.array([float(correct[speakers == speaker].mean()) for speaker in speakers.unique()])
    counts = draw_counts(len(means), REPLICATES, np.random.default_rng(0))
    return Measured(float(correct.mean()), (counts @ means / len(means)).tolist())


def inception(probabilities: Tensor) -> tuple[float, float, float]:
    """Return the inception score exp E KL(p(y|x) ‖ p(y)), and the entropies H(y|x) and H(y) in nats.

    Args:
        probabilities: The probabilities p(y|x) of a judge, (N, classes).
    """
    conditional, marginal = (
        float(entropy(probabilities.double()).mean()),
        float(entropy(probabilities.double().mean(0))),
    )
    return math.exp(marginal - conditional), conditional, marginal


def unconditional(judged: Judges, frames: Tensor, real: np.ndarray, suffix: str) -> dict[str, Measured]:
    """Return the measures of samples from the priors, by the digit judge.

    The Fréchet distance is that to real speech. It is computed for M samples at a time and averaged.

    Args:
        judged: The judges.
        frames: The samples, normalised log-mels (N, T, n_mels).
        real: The features of real speech, (M, d).
        suffix: The suffix of the names of the measures.
    """
    probabilities, features = judged.digit.opinion(frames)
    rng, count = np.random.default_rng(0), len(frames)
    draws = [inception(probabilities[torch.from_numpy(rng.integers(count, size=count))]) for _ in range(REPLICATES)]
    named = zip(
        ("inception_score", "h_y_given_x", "h_y"), inception(probabilities), zip(*draws, strict=True), strict=True
    )
    measures = {f"{name}{suffix}": Measured(value, list(values)) for name, value, values in named}
    usable = count // len(real) * len(real)
    parts = features[:usable].double().numpy().reshape(-1, *real.shape)
    distances = np.array([frechet(part, real) for part in parts])
    values = distances[rng.integers(len(parts), size=(REPLICATES, len(parts)))].mean(1)
    return measures | {f"frechet{suffix}": Measured(float(distances.mean()), values.tolist())}


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Fréchet distance ‖μ1 − μ2‖² + tr(Σ1 + Σ2 − 2 (Σ1 Σ2)^½) of two sets of features.

    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NeurIPS 2017.

    Args:
        first: The first set of features, (N, d).
        second: The second set of features, (M, d).
    """
    first_covariance, second_covariance = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = sqrtm(first_covariance @ second_covariance)
    gap = first.mean(0) - second.mean(0)
    return float(gap @ gap + np.trace(first_covariance + second_covariance - 2 * np.real(root)))


def clusters(assigned: np.ndarray, words: np.ndarray, speakers: Tensor) -> dict[str, Measured]:
    """Return the accuracy of clusters, and their normalised mutual information with the words.

    The accuracy is that of the best one-to-one assignment of clusters to words. The bootstrap draws speakers.

    Args:
        assigned: The number of the cluster of each utterance, (N,).
        words: The number of the word of each utterance, (N,).
        speakers: The number of the speaker of each utterance, (N,).
    """
    from sklearn.metrics import normalized_mutual_info_score

    size = max(int(assigned.max()), int(words.max())) + 1
    table = np.zeros((size, size))
    np.add.at(table, (assigned, words), 1)
    clusters_in_order, best_words = linear_sum_assignment(-table)
    word_of = dict(zip(clusters_in_order.tolist(), best_words.tolist(), strict=True))
    correct = [float(word_of[int(cluster)] == word) for cluster, word in zip(assigned, words, strict=True)]
    distinct, numbers = np.unique(speakers.numpy(), return_inverse=True)
    counts = draw_counts(len(distinct), REPLICATES, np.random.default_rng(0))
    samples = (np.repeat(np.arange(len(numbers)), copies[numbers]) for copies in counts)
    draws = [float(normalized_mutual_info_score(words[rows], assigned[rows])) for rows in samples]
    return {
        "cluster_accuracy": by_speaker(torch.tensor(correct, dtype=torch.float64), speakers),
        "nmi": Measured(float(normalized_mutual_info_score(words, assigned)), draws),
    }
