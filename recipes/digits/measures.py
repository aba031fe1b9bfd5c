"""Measures of a model of spoken digits by the judges, with bootstrap draws.

The bootstrap is over test speakers for measures of their recordings (content, voice, clusters). It is over samples for
measures of speech from the priors (inception score, entropies, Fréchet distance).
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

REPLICATES = 200
SAMPLES = 6000  # for each measure, at least


class Measured(NamedTuple):
    """A measure and its bootstrap draws (REPLICATES,)."""

    value: float
    draws: list[float]


def measure(
    bundle: Bundle, digits: Digits, judged: Judges, count: int = SAMPLES, split: str = "test"
) -> dict[str, Measured]:
    """Return all measures of a bundle on the speakers of `split`, by name.

    Those named `…_inferred` are of the same samples with the action inferred from z^m instead of the drawn one.
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

    The distance is between equally many recordings of training and of test speakers.
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
    """Return the rows (N,) of the utterances for which `condition` holds."""
    return torch.tensor([i for i, u in enumerate(digits.store.utterances) if condition(u)])


def labels(digits: Digits, rows: Tensor, names: tuple[str, ...], field: str) -> Tensor:
    """Return the index (N,) of each row's text or speaker, by `field`, among the names."""
    return torch.tensor([names.index(getattr(digits.store.utterances[int(row)], field)) for row in rows])


def by_speaker(right: Tensor, speakers: Tensor) -> Measured:
    """Return the mean of right (N,), with bootstrap draws of speakers (N,)."""
    everyone = speakers.unique()
    means = np.array([float(right[speakers == s].mean()) for s in everyone])
    counts = draw_counts(len(means), REPLICATES, np.random.default_rng(0))
    return Measured(float(right.mean()), (counts @ means / len(means)).tolist())


def inception(probabilities: Tensor) -> tuple[float, float, float]:
    """Return exp E KL(p(y|x) ‖ p(y)), H(y|x) and H(y), in nats, of a judge's probabilities (N, classes)."""
    conditional, marginal = (
        float(entropy(probabilities.double()).mean()),
        float(entropy(probabilities.double().mean(0))),
    )
    return math.exp(marginal - conditional), conditional, marginal


def unconditional(judged: Judges, frames: Tensor, real: np.ndarray, suffix: str) -> dict[str, Measured]:
    """Return the digit judge's measures of normalised samples (N, T, n_mels), with `suffix` in their names.

    The Fréchet distance is to the features (M, d) of real speech, for M samples at a time.
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
    """Return the Fréchet distance ‖μ1 − μ2‖² + tr(Σ1 + Σ2 − 2 (Σ1 Σ2)^½) of features (N, d) and (M, d).

    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NeurIPS 2017.
    """
    first_covariance, second_covariance = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = sqrtm(first_covariance @ second_covariance)
    gap = first.mean(0) - second.mean(0)
    return float(gap @ gap + np.trace(first_covariance + second_covariance - 2 * np.real(root)))


def clusters(assigned: np.ndarray, words: np.ndarray, speakers: Tensor) -> dict[str, Measured]:
    """Return the accuracy of clusters (N,) and their normalised mutual information with the words (N,).

    The accuracy is under the best one-to-one assignment of clusters to words. The draws are of speakers (N,).
    """
    from sklearn.metrics import normalized_mutual_info_score

    size = max(int(assigned.max()), int(words.max())) + 1
    table = np.zeros((size, size))
    np.add.at(table, (assigned, words), 1)
    rows, columns = linear_sum_assignment(-table)
    name = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    right = torch.tensor([float(name[int(a)] == y) for a, y in zip(assigned, words, strict=True)], dtype=torch.float64)
    everyone, numbers = np.unique(speakers.numpy(), return_inverse=True)
    counts = draw_counts(len(everyone), REPLICATES, np.random.default_rng(0))
    chosen = (np.repeat(np.arange(len(numbers)), copies[numbers]) for copies in counts)
    draws = [float(normalized_mutual_info_score(words[rows], assigned[rows])) for rows in chosen]
    return {
        "cluster_accuracy": by_speaker(right, speakers),
        "nmi": Measured(float(normalized_mutual_info_score(words, assigned)), draws),
    }
