"""The action code a: a categorical code of a whole sequence, with its encoder and its draw.

In speech an action is a word, such as a digit. Training knows the number of actions, but not which sequence has which.
This is the weak supervision of Han et al. 2021, section 3.4. B sequences, T frames, A actions.
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

WIDTH = 64  # channels of the encoder's layers
STRETCHES = 8  # equal stretches over which the encoder averages a sequence of any length


class Action(NamedTuple):
    """The posterior q(a | z^m_{1:T}) of the action, and a draw from it.

    Attributes:
        logits: The logits of the categorical, (B, A).
        sample: A relaxed draw, (B, A); the likeliest action, one-hot, if the encoder was run without a generator.
    """

    logits: Tensor
    sample: Tensor


class ActionEncoder(Network):
    """The encoder q(a | z^m_{1:T}): convolutions over the dynamic codes minus their mean over time.

    Args:
        config: The settings of the model.

    Attributes:
        temperature: The temperature of the relaxed draw. The objective sets it in each update.
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
        """Return the posterior of the action.

        Args:
            codes: z^m, (B, T, dynamic_dim), padded on the right.
            generator: The generator of the draw; None to take the likeliest action.
            lengths: The number of frames of each sequence, (B,), or None without padding.
        """
        parts = [codes] if lengths is None else [code[None, :n] for code, n in zip(codes, lengths, strict=True)]
        logits = torch.cat([self._logits(part) for part in parts])
        if generator is None:
            return Action(logits, one_hot(logits.argmax(-1), logits.shape[-1]).to(logits))
        return Action(logits, gumbel_softmax(logits, self.temperature, generator))

    def _logits(self, codes: Tensor) -> Tensor:
        codes = codes - codes.mean(1, keepdim=True)
        return self.head(self.convolutions(codes.transpose(1, 2)).flatten(1))


def one_hot(actions: Tensor, count: int) -> Tensor:
    """Return indices (...,) from 0 as one-hot vectors (..., count), float32."""
    return F.one_hot(actions, count).float()


def gumbel_softmax(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Draw relaxed one-hot vectors (B, A) from categoricals with logits (B, A), by the Gumbel-softmax.

    They approach one-hot vectors as the temperature falls to 0. Jang, Gu, Poole, "Categorical Reparameterization with
    Gumbel-Softmax", ICLR 2017; Maddison, Mnih, Teh, ICLR 2017.
    """
    exponential = on_all(logits.shape, lambda shape: torch.empty(shape).exponential_(generator=generator))
    gumbel = -exponential.clamp_min(1e-20).log().to(logits)
    return ((logits + gumbel) / temperature).softmax(-1)


def word_shape(frames: Tensor, steps: int = 20, cepstra: int = 13) -> Tensor:
    """Return a description of each word's sound that depends little on the speaker, (B, steps · cepstra).

    It is the cepstra of `steps` frames, interpolated between the first and the last loud frame. Each cepstrum is
    standardised over these frames. The level of a frame is its mean over the bins. A frame is loud if its level lies in the
    upper 45 % of the range between an utterance's lowest and highest level.

    Args:
        frames: Unnormalised log-mels, (B, T, n_mels).
        steps: Number of interpolated frames.
        cepstra: Number of cepstra, from the constant one on.
    """
    level = frames.mean(-1)
    low, high = level.amin(1, keepdim=True), level.amax(1, keepdim=True)
    loud = level >= high - 0.45 * (high - low)
    size = frames.shape[1]
    first = (loud.int().argmax(1) - 1).clamp_min(0)
    last = (size - loud.flip(1).int().argmax(1)).clamp_max(size - 1)
    position = first[:, None] + (last - first)[:, None] * torch.linspace(0, 1, steps, device=frames.device)
    left = position.floor().long().clamp(max=size - 2)
    weight = (position - left)[..., None].to(frames)
    left = left[..., None].expand(-1, -1, frames.shape[-1])
    interpolated = frames.gather(1, left) * (1 - weight) + frames.gather(1, left + 1) * weight
    shape = interpolated @ cosines(frames.shape[-1], cepstra).to(frames)
    shape = (shape - shape.mean(1, keepdim=True)) / (shape.std(1, keepdim=True, correction=0) + 1e-6)
    return shape.flatten(1)


def cosines(size: int, count: int) -> Tensor:
    """Return the first `count` vectors of the orthonormal DCT-II, (size, count)."""
    angles = (torch.arange(size) + 0.5)[:, None] * torch.arange(count) * math.pi / size
    basis = angles.cos() * (2 / size) ** 0.5
    basis[:, 0] /= 2**0.5
    return basis
