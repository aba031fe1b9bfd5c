"""What a model of spoken digits can do, by the judges: each measure with draws of a bootstrap.

Over the test speakers where the measure starts from their recordings (content, voice, clusters), over the samples where
it does not (inception score, entropies, Fréchet distance).
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
SAMPLES = 6000  # of each kind, at least 5,000


class Measured(NamedTuple):
    """A measure and its bootstrap draws (REPLICATES,)."""

    value: float
    draws: list[float]


def measure(
    bundle: Bundle, digits: Digits, judged: Judges, count: int = SAMPLES, split: str = "test"
) -> dict[str, Measured]:
    """All measures of a bundle on the speakers of `split`, by name.

    `…_inferred`: of the same samples, with a read off their z^m instead of the a that they were drawn for.
    """
    model, mel, seed = bundle.model, bundle.config.mel, bundle.config.train.seed
    test = rows_of(digits, lambda u: u.split == split)
    every = rounds(digits.store.utterances)
    later = rows_of(digits, lambda u: u.split == split and late(u, every))
    raw = torch.from_numpy(digits.store.frames.reshape(digits.frames.shape).copy())
    codes = codes_of_all(model, digits.normaliser, mel, raw[test])
    kept = torch.tensor([int(row) in set(later.tolist()) for row in test])
    times, late_times = -(-count // len(test)), -(-count // len(later))

    words = labels(digits, test, judged.words, "text").repeat_interleave(times)
    said = judged.digit.opinion(new_voices(model, codes.repeated(times), generator(seed, "new voices")))[0].argmax(-1)
    of_late = Codes(*(None if part is None else part[kept] for part in codes))  # type: ignore[arg-type]
    who = labels(digits, later, judged.speakers, "speaker").repeat_interleave(late_times)
    heard = judged.speaker.opinion(new_words(model, of_late.repeated(late_times), generator(seed, "new words")))[
        0
    ].argmax(-1)
    speakers = labels(digits, test, judged.speakers, "speaker")
    found = {
        "content_accuracy": by_speaker((said == words).double(), speakers.repeat_interleave(times)),
        "voice_accuracy": by_speaker((heard == who).double(), who),
    }

    real = judged.digit.opinion(digits.frames[test])[1].double().numpy()
    sample = model.sample(count, mel.segment, generator(seed, "from the priors"))
    found |= unconditional(judged, sample.frames, real, "")
    if model.action_encoder is not None:
        again = Codes(sample.static, sample.dynamic, inferred(model, sample.dynamic))
        found |= unconditional(judged, decoded(model, again), real, "_inferred")
        assert codes.action is not None
        found |= clusters(codes.action.argmax(-1).numpy(), labels(digits, test, judged.words, "text").numpy(), speakers)
    return found


def reference(digits: Digits, judged: Judges) -> dict[str, float]:
    """The same of real test speech: the judges' accuracies, the entropies, and the Fréchet distance between as many
    recordings of training and of test speakers."""
    test, train = rows_of(digits, lambda u: u.split == "test"), rows_of(digits, lambda u: u.split == "train")
    chosen = train[torch.randperm(len(train), generator=generator(0, "reference"))[: len(test)]]
    probabilities, features = judged.digit.opinion(digits.frames[test])
    _, others = judged.digit.opinion(digits.frames[chosen])
    score, given, marginal = inception(probabilities)
    return {
        "digit_judge_accuracy": judged.digit_accuracy,
        "speaker_judge_accuracy": judged.speaker_accuracy,
        "inception_score": score,
        "h_y_given_x": given,
        "h_y": marginal,
        "frechet": frechet(others.double().numpy(), features.double().numpy()),
    }


def rows_of(digits: Digits, wanted: Any) -> Tensor:
    """The rows (N,) of the utterances that are wanted."""
    return torch.tensor([i for i, u in enumerate(digits.store.utterances) if wanted(u)])


def labels(digits: Digits, rows: Tensor, names: tuple[str, ...], what: str) -> Tensor:
    """Each row's place, (N,), of its text or speaker among the names."""
    return torch.tensor([names.index(getattr(digits.store.utterances[int(row)], what)) for row in rows])


def by_speaker(right: Tensor, speakers: Tensor) -> Measured:
    """Return the mean of right (N,), with draws of speakers (N,)."""
    means = np.array([float(right[speakers == s].mean()) for s in speakers.unique()])
    counts = draw_counts(len(means), REPLICATES, np.random.default_rng(0))
    return Measured(float(right.mean()), (counts @ means / len(means)).tolist())


def inception(probabilities: Tensor) -> tuple[float, float, float]:
    """exp E KL(p(y|x) ‖ p(y)), H(y|x) and H(y), nats, of a judge's probabilities (N, classes)."""
    given, marginal = float(entropy(probabilities.double()).mean()), float(entropy(probabilities.double().mean(0)))
    return math.exp(marginal - given), given, marginal


def unconditional(judged: Judges, frames: Tensor, real: np.ndarray, suffix: str) -> dict[str, Measured]:
    """Of samples (N, T, n_mels), normalised: what the digit judge makes of them, and how far their features are from `real`
    ones (M, d), M at a time."""
    probabilities, features = judged.digit.opinion(frames)
    rng, count = np.random.default_rng(0), len(frames)
    draws = [inception(probabilities[torch.from_numpy(rng.integers(count, size=count))]) for _ in range(REPLICATES)]
    named = zip(
        ("inception_score", "h_y_given_x", "h_y"), inception(probabilities), zip(*draws, strict=True), strict=True
    )
    found = {f"{name}{suffix}": Measured(value, list(drawn)) for name, value, drawn in named}
    whole = count // len(real) * len(real)
    parts = features[:whole].double().numpy().reshape(-1, *real.shape)
    distances = np.array([frechet(part, real) for part in parts])
    drawn = distances[rng.integers(len(parts), size=(REPLICATES, len(parts)))].mean(1)
    return found | {f"frechet{suffix}": Measured(float(distances.mean()), drawn.tolist())}


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """‖μ1 − μ2‖² + tr(Σ1 + Σ2 − 2 (Σ1 Σ2)^½) of features (N, d), (M, d). Heusel et al., "GANs trained by a two time-scale
    update rule converge to a local Nash equilibrium", NeurIPS 2017."""
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = sqrtm(one @ two)
    gap = first.mean(0) - second.mean(0)
    return float(gap @ gap + np.trace(one + two - 2 * np.real(root)))


def clusters(found: np.ndarray, words: np.ndarray, speakers: Tensor) -> dict[str, Measured]:
    """Accuracy under the best one-to-one naming of the clusters found (N,), and normalised mutual information with the
    words (N,); draws of speakers (N,)."""
    from sklearn.metrics import normalized_mutual_info_score

    size = max(int(found.max()), int(words.max())) + 1
    table = np.zeros((size, size))
    np.add.at(table, (found, words), 1)
    rows, columns = linear_sum_assignment(-table)
    name = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    right = torch.tensor([float(name[int(a)] == y) for a, y in zip(found, words, strict=True)], dtype=torch.float64)
    everyone, of = np.unique(speakers.numpy(), return_inverse=True)
    counts = draw_counts(len(everyone), REPLICATES, np.random.default_rng(0))
    chosen = (np.repeat(np.arange(len(of)), copies[of]) for copies in counts)
    draws = [float(normalized_mutual_info_score(words[rows], found[rows])) for rows in chosen]
    return {
        "cluster_accuracy": by_speaker(right, speakers),
        "nmi": Measured(float(normalized_mutual_info_score(words, found)), draws),
    }
