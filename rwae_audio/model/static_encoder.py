"""The static encoder q(z^c | x), which computes the code of the voice from a window of frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rwae_audio.model.config import ModelConfig
from rwae_audio.model.layers import AttentivePooling, ResidualConvolutions, padding_mask, strided_lengths
from rwae_audio.model.posterior import GaussianHead, Network, Posterior, frame_mask, last_state, mean_deviation


class StaticEncoder(Network):
    """The encoder q(z^c | x_{1:S}): frame layers, pooling over time, and a Gaussian head.

    The frame layers are an LSTM over every `static_stride`-th frame, or the convolutions of ECAPA-TDNN.

    Args:
        config: The settings of the model.
    """

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
        """Return the posterior of z^c.

        Args:
            frames: Normalised log-mels (B, S, n_mels), padded on the right.
            generator: The generator of the draw; None to take the mean.
            lengths: The number of frames of each sequence, (B,), or None without padding.

        Returns:
            The posterior, each part (B, static_dim).
        """
        if self.config.static_network == "residual":
            states = self.convolutions(frames, lengths)
        else:
            states, _ = self.lstm(frames[:, :: self.config.static_stride])
        return self.head(self._pooled(states, strided_lengths(lengths, self.config.static_stride)), generator)

    def _pooled(self, states: Tensor, lengths: Tensor | None) -> Tensor:
        """Pool states (B, S, hidden) of sequences with these lengths (B,) into the head's input, (B, pooled)."""
        if self.config.static_network == "recurrent-last":
            return last_state(states, lengths)
        if self.config.static_network == "residual":
            return self.attention(states, padding_mask(lengths, states))
        return torch.cat(mean_deviation(states, frame_mask(lengths, states)), dim=-1)


class FrameFeatures(Network):
    """A bidirectional LSTM that computes a feature h_t of each frame x_t.

    Args:
        config: The settings of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(config.n_mels, config.static_hidden, batch_first=True, bidirectional=True)
        self.project = nn.Linear(2 * config.static_hidden, config.static_hidden)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the features (B, T, static_hidden) of frames (B, T, n_mels), with lengths (B,) if they are padded."""
        if lengths is None:
            return self.project(self.lstm(frames)[0])
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=frames.shape[1])
        return self.project(states)


class FrameStaticEncoder(Network):
    """The encoder q(z^c | h_1) of DBSE, which computes z^c from the feature of the first frame alone.

    The backward half of that feature depends on all frames. The layers are those of the published speech model of
    Berman, Naiman, Arbiv, Fadlon, Azencot, "Sequential Disentanglement by Extracting Static Information From A Single
    Sequence Element", ICML 2024, arXiv 2406.18131.

    Args:
        config: The settings of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.static_hidden
        self.features = FrameFeatures(config)
        self.first = nn.Linear(hidden, hidden)
        self.head = GaussianHead(hidden, config.static_dim, config.posterior, config.static_variance)

    def forward(self, frames: Tensor, generator: torch.Generator | None, lengths: Tensor | None = None) -> Posterior:
        """Return the posterior of z^c as `StaticEncoder.forward` does, with frames (B, T, n_mels)."""
        return self.head(torch.tanh(self.first(self.features(frames, lengths)[:, 0])), generator)
