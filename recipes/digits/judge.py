"""The judges of the recipe: two classifiers, of the spoken digit and of the speaker, with which models are evaluated.

They are trained with labels on real recordings alone, independently of the models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.data.corpora import Utterance
from rwae_audio.data.features import MelConfig
from rwae_audio.data.perturb import warp_frequencies, warp_time
from rwae_audio.randomness import generator


def late(utterance: Utterance, rounds: int) -> bool:
    """Return whether an utterance belongs to the second half of all rounds, on which the speaker judge is not trained."""
    return 2 * (utterance.round or 0) > rounds + 1


def rounds(utterances: Sequence[Utterance]) -> int:
    """Return the number of rounds. In each round, a speaker says every word once."""
    return max(u.round or 0 for u in utterances)


class Judge(nn.Module):
    """A convolutional classifier of normalised log-mels, (B, T, n_mels)."""

    def __init__(self, n_mels: int, classes: int, hidden: int = 96) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(n_mels, hidden, 5, stride=2, padding=2),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 5, stride=2, padding=2),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 3, padding=1),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(4),
            nn.Flatten(),
            nn.Dropout(0.3),
        )
        self.project = nn.Sequential(nn.Linear(4 * hidden, 64), nn.ReLU())
        self.head = nn.Linear(64, classes)

    def features(self, frames: Tensor) -> Tensor:
        """Return the input of the last layer, (B, 64), for normalised log-mels (B, T, n_mels)."""
        return self.project(self.convolutions(frames.transpose(1, 2)))

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits (B, classes) for normalised log-mels (B, T, n_mels)."""
        return self.head(self.features(frames))

    @torch.no_grad()
    def opinion(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities (N, classes) and the features (N, 64) for normalised log-mels (N, T, n_mels)."""
        features = torch.cat([self.features(part) for part in frames.split(500)])
        return self.head(features).softmax(-1), features


def fit(frames: Tensor, labels: Tensor, mel: MelConfig, warp: float, seed: int = 0, epochs: int = 60) -> Judge:
    """Train a judge.

    Its input is shifted in time by up to 3 frames. Half of the inputs are blurred, as the output of a decoder is.

    Args:
        frames: Normalised log-mels, (N, T, n_mels).
        labels: The classes, integers from 0, (N,).
        mel: The settings of the log-mels.
        warp: The largest relative stretching in frequency. Unless it is 0, inputs are stretched in time by up to 15 % too.
        seed: The seed of the initial weights and of the batches.
        epochs: The number of passes over the data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(frames.shape[-1], int(labels.max()) + 1)
        optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.01)
        steps = epochs * (len(frames) // 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        for step in range(steps):
            draw = generator(seed, "judge", step)
            rows = torch.randint(len(frames), (64,), generator=draw)
            inputs = perturbed(frames[rows], mel, warp, draw)
            loss = F.cross_entropy(judge(inputs), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge.eval()


def perturbed(frames: Tensor, mel: MelConfig, warp: float, draw: torch.Generator) -> Tensor:
    """Return frames (B, T, n_mels) after the random changes that `fit` describes."""
    if warp:
        frames = warp_time(warp_frequencies(frames, warp, draw, mel), 0.15, draw)
    shift = int(torch.randint(-3, 4, (1,), generator=draw))
    frames = frames.roll(shift, 1)
    if float(torch.rand(1, generator=draw)) < 0.5:
        size = 3 + 2 * int(torch.randint(3, (1,), generator=draw))
        frames = F.avg_pool1d(frames, size, 1, size // 2, count_include_pad=False)  # over the bins
    return frames + 0.1 * torch.randn(frames.shape, generator=draw)


@dataclass(frozen=True)
class Judges:
    """Both judges.

    Attributes:
        digit: The classifier of the digit.
        speaker: The classifier of the speaker.
        words: The word of each class of the digit judge.
        speakers: The speaker of each class of the speaker judge.
        digit_accuracy: The accuracy of the digit judge on recordings that it is not trained on.
        speaker_accuracy: The accuracy of the speaker judge on recordings that it is not trained on.
    """

    digit: Judge
    speaker: Judge
    words: tuple[str, ...]
    speakers: tuple[str, ...]
    digit_accuracy: float
    speaker_accuracy: float


def judges(
    frames: Tensor, utterances: Sequence[Utterance], mel: MelConfig, seed: int = 0, split: str = "test"
) -> Judges:
    """Train both judges.

    The digit judge is trained on the training speakers. The speaker judge is trained on the first half of the rounds of the
    speakers of `split`, and tested on the other half.

    Args:
        frames: Normalised log-mels of all utterances, (U, T, n_mels).
        utterances: The utterances.
        mel: The settings of the log-mels.
        seed: The seed of the judges.
        split: The split whose speakers the speaker judge distinguishes.
    """
    words = tuple(sorted({u.text or "" for u in utterances}))
    speakers = tuple(sorted({u.speaker for u in utterances if u.split == split}))
    word = torch.tensor([words.index(u.text or "") for u in utterances])
    speaker = torch.tensor([speakers.index(u.speaker) if u.split == split else -1 for u in utterances])
    training = torch.tensor([u.split == "train" for u in utterances])
    later = torch.tensor([late(u, rounds(utterances)) for u in utterances])
    early = (speaker >= 0) & ~later
    digit_judge = fit(frames[training], word[training], mel, 0.2, seed)
    speaker_judge = fit(frames[early], speaker[early], mel, 0.0, seed, epochs=60)

    def accuracy(judge: Judge, rows: Tensor, labels: Tensor) -> float:
        return float((judge.opinion(frames[rows])[0].argmax(-1) == labels[rows]).double().mean())

    accuracies = accuracy(digit_judge, speaker >= 0, word), accuracy(speaker_judge, (speaker >= 0) & later, speaker)
    return Judges(digit_judge, speaker_judge, words, speakers, *accuracies)
