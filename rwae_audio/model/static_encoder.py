"""The static encoder q(z^c | x), which reads the voice off a window of frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rwae_audio.model.config import ModelConfig
from rwae_audio.model.layers import AttentivePooling, ResidualConvolutions
from rwae_audio.model.posterior import GaussianHead, Network, Posterior, frame_mask, last_state, mean_deviation


class StaticEncoder(Network):
    """The encoder q(z^c | x_{1:S}): an LSTM over every `static_stride`-th frame, or convolutions, pooled over time."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.static_hidden
        if config.static_network == "residual":
            self.convolutions = ResidualConvolutions(config.n_mels, hidden, config.static_stride)
            hidden = self.convolutions.width
            self.attention = AttentivePooling(hidden)
        else:
            self.lstm = nn.LSTM(config.n_mels, hidden, batch_first=True)
        pooled = hidden * (1 if config.static_network == "recurrent-last" else 2)
        self.head = GaussianHead(pooled, config.static_dim, config.posterior, config.static_variance)

    def forward(self, frames: Tensor, generator: torch.Generator | None, lengths: Tensor | None = None) -> Posterior:
        """Return z^c of frames (B, S, n_mels), padded on the right where `lengths` (B,) says so."""
        stride = self.config.static_stride
        strided = None if lengths is None else (lengths + stride - 1) // stride
        if self.config.static_network == "residual":
            states = self.convolutions(frames, lengths)
        else:
            states, _ = self.lstm(frames[:, ::stride])
        return self.head(self._pooled(states, strided), generator)

    def _pooled(self, states: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the input of the head, (B, hidden) or twice as wide, from states (B, S, hidden) and lengths (B,)."""
        if self.config.static_network == "recurrent-last":
            return last_state(states, lengths)
        if self.config.static_network == "residual":
            return self.attention(states, None if lengths is None else frame_mask(lengths, states))
        return torch.cat(mean_deviation(states, frame_mask(lengths, states)), dim=-1)


class FrameFeatures(Network):
    """The features h_{1:T} of all frames, by an LSTM of both directions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(config.n_mels, config.static_hidden, batch_first=True, bidirectional=True)
        self.project = nn.Linear(2 * config.static_hidden, config.static_hidden)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return h (B, T, static_hidden) of frames (B, T, n_mels), padded on the right where `lengths` (B,) says so."""
        if lengths is None:
            return self.project(self.lstm(frames)[0])
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=frames.shape[1])
        return self.project(states)


class FrameStaticEncoder(Network):
    """The encoder q(z^c | h_1), which reads z^c off the first frame's features, the backward half of which has seen all frames.

    Berman, Naiman, Arbiv, Fadlon, Azencot: "Sequential Disentanglement by Extracting Static Information From A Single
    Sequence Element", ICML 2024, arXiv 2406.18131; the layers are those of their published speech model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.static_hidden
        self.features = FrameFeatures(config)
        self.first = nn.Linear(hidden, hidden)
        self.head = GaussianHead(hidden, config.static_dim, config.posterior, config.static_variance)

    def forward(self, frames: Tensor, generator: torch.Generator | None, lengths: Tensor | None = None) -> Posterior:
        """Return z^c (B, static_dim) of frames (B, T, n_mels)."""
        return self.head(torch.tanh(self.first(self.features(frames, lengths)[:, 0])), generator)
