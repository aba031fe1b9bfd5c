"""A static encoder's other way to read frames: convolutions over time, pooled by attention, as speaker recognition has it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.posterior import Standardise, frame_mask


class Convolutions(nn.Module):
    """Frames (B, S, n_mels) → states (B, ⌈S / stride⌉, width), each of the 17 frames around it at a stride of 2.

    The first layers of Snyder et al., "X-vectors: robust DNN embeddings for speaker recognition", ICASSP 2018.
    """

    def __init__(self, n_mels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        shapes = [(n_mels, 5, stride, 1), (width, 3, 1, 1), (width, 3, 1, 2), (width, 1, 1, 1)]
        self.layers = nn.ModuleList(
            nn.Conv1d(inputs, width, kernel, step, padding=kernel // 2 * dilation, dilation=dilation)
            for inputs, kernel, step, dilation in shapes
        )
        self.norms = nn.ModuleList(Standardise(width) for _ in shapes)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """lengths (B,) of the frames; what stands in the padding is neither read nor of use."""
        states = frames * frame_mask(lengths, frames)
        kept = None if lengths is None else (lengths + self.stride - 1) // self.stride
        for layer, norm in zip(self.layers, self.norms, strict=True):
            states = F.relu(layer(states.transpose(1, 2))).transpose(1, 2)
            states = norm(states.flatten(0, 1)).view_as(states) * frame_mask(kept, states)
        return states


class AttentivePooling(nn.Module):
    """States (B, S, width) → (B, 2 · width), standardised: each channel's mean and deviation over time, weighted.

    Okabe, Koshinaka, Shinoda, "Attentive statistics pooling for deep speaker embedding", Interspeech 2018, with weights
    of a channel's own (Desplanques et al., "ECAPA-TDNN", Interspeech 2020).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # a constant added to a channel's scores changes no weight, so they have no bias
        self.score = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, width, bias=False))
        self.norm = Standardise(2 * width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        weight = self.score(states).masked_fill(mask == 0, -torch.inf).softmax(1)
        mean = (weight * states).sum(1)
        variance = (weight * states.square()).sum(1) - mean.square()
        return self.norm(torch.cat([mean, variance.clamp_min(1e-5).sqrt()], dim=-1))
