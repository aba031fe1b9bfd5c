"""A categorical code a of the action of a whole sequence (in speech: the word), of which only the number is known.

This is the weak supervision of Han et al. 2021, section 3.4.

Knows shapes, not losses. B sequences, T frames, A actions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.distributed import on_all
from rwae_audio.model.config import ModelConfig
from rwae_audio.model.posterior import Network

WIDTH = 64  # channels of its layers
STRETCHES = 8  # that a sequence of any length is averaged into before its action is read off


class Action(NamedTuple):
    """The logits (B, A) of q(a | z^m_{1:T}) and a draw (B, A): one-hot without a generator, else relaxed."""

    logits: Tensor
    sample: Tensor


class ActionEncoder(Network):
    """The encoder q(a | z^m_{1:T}): convolutions over the codes minus their mean over time.

    The objective sets `temperature`, that of the draw.
    """

    temperature = 1.0

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = WIDTH
        self.convolutions = nn.Sequential(
            nn.Conv1d(config.dynamic_dim, hidden, 5, stride=2, padding=2),
            nn.GroupNorm(1, hidden),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 5, stride=2, padding=2),
            nn.GroupNorm(1, hidden),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(STRETCHES),
        )
        self.head = nn.Sequential(nn.Linear(STRETCHES * hidden, hidden), nn.ReLU(), nn.Linear(hidden, config.actions))

    def forward(self, codes: Tensor, generator: torch.Generator | None, lengths: Tensor | None = None) -> Action:
        """Return the action of codes z^m (B, T, dynamic_dim), padded on the right where `lengths` (B,) says so."""
        parts = [codes] if lengths is None else [code[None, :n] for code, n in zip(codes, lengths, strict=True)]
        logits = torch.cat([self._logits(part) for part in parts])
        if generator is None:
            return Action(logits, one_hot(logits.argmax(-1), logits.shape[-1]).to(logits))
        return Action(logits, gumbel_softmax(logits, self.temperature, generator))

    def _logits(self, codes: Tensor) -> Tensor:
        codes = codes - codes.mean(1, keepdim=True)
        return self.head(self.convolutions(codes.transpose(1, 2)).flatten(1))


def one_hot(actions: Tensor, count: int) -> Tensor:
    """Return numbers (...,) from 0 as vectors (..., count), float32."""
    return F.one_hot(actions, count).float()


def gumbel_softmax(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """A relaxed draw (B, A) from the categoricals with these logits, nearer to one-hot the lower the temperature.

    Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017; Maddison, Mnih, Teh, ICLR 2017.
    """
    exponential = on_all(logits.shape, lambda shape: torch.empty(shape).exponential_(generator=generator))
    gumbel = -exponential.clamp_min(1e-20).log().to(logits)
    return ((logits + gumbel) / temperature).softmax(-1)


def word_shape(frames: Tensor, steps: int = 20, cepstra: int = 13) -> Tensor:
    """Return the sound of each word, whoever says it, (B, steps · cepstra), from raw log-mels (B, T, n_mels).

    It is the first cepstra of `steps` interpolated frames between the first and the last loud one, each cepstrum minus its mean
    and over its deviation. A frame is loud above 0.55 of the way from an utterance's lowest to its highest mean.
    """
    energy = frames.mean(-1)
    low, high = energy.amin(1, keepdim=True), energy.amax(1, keepdim=True)
    loud = energy >= high - 0.45 * (high - low)
    size = frames.shape[1]
    first = (loud.int().argmax(1) - 1).clamp_min(0)
    last = (size - loud.flip(1).int().argmax(1)).clamp_max(size - 1)
    position = first[:, None] + (last - first)[:, None] * torch.linspace(0, 1, steps, device=frames.device)
    left = position.floor().long().clamp(max=size - 2)
    weight = (position - left)[..., None].to(frames)
    left = left[..., None].expand(-1, -1, frames.shape[-1])
    read = frames.gather(1, left) * (1 - weight) + frames.gather(1, left + 1) * weight
    shape = read @ cosines(frames.shape[-1], cepstra).to(frames)
    shape = (shape - shape.mean(1, keepdim=True)) / (shape.std(1, keepdim=True, correction=0) + 1e-6)
    return shape.flatten(1)


def cosines(size: int, count: int) -> Tensor:
    """Return the first `count` vectors of the orthonormal DCT-II, (size, count)."""
    angles = (torch.arange(size) + 0.5)[:, None] * torch.arange(count) * math.pi / size
    basis = angles.cos() * (2 / size) ** 0.5
    basis[:, 0] /= 2**0.5
    return basis
