"""The dynamic encoder q(z^m_t | z^m_{<t}, x_{≤t}), which computes a code of the content for each frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.model.config import ModelConfig
from rwae_audio.model.posterior import (
    GaussianHead,
    Network,
    Posterior,
    Standardise,
    append_vector,
    frame_mask,
    last_state,
    mean_deviation,
    normal,
)


class DynamicEncoder(Network):
    """The encoder q(z^m_t | z^m_{<t}, x_{≤t}): an LSTM over the frames, and a second LSTM over the first one's states.

    Settings change the encoder as follows. With `feedback` the second LSTM also reads z^m_{t-1}. With
    `dynamic_look_ahead` L the posterior is q(z^m_t | z^m_{<t}, x_{≤t+L}): the second LSTM is L frames behind the first.
    With `dynamic_sees_static` z^c is appended to each frame. With `dynamic_per` "segment" the last state alone gives one
    posterior and one draw, which all frames share.

    Args:
        config: The settings of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.dynamic_hidden
        inputs = config.static_hidden if config.static_from == "frame" else config.n_mels
        self.frames_lstm = nn.LSTM(inputs + config.static_dim * config.dynamic_sees_static, hidden, batch_first=True)
        self.codes_lstm = nn.LSTM(hidden + config.dynamic_dim * config.feedback, hidden, batch_first=True)
        self.head = GaussianHead(hidden, config.dynamic_dim, config.posterior, config.dynamic_variance)
        self.norm = Standardise(config.dynamic_dim) if config.posterior == "fixed" else None

    def forward(
        self,
        frames: Tensor,
        generator: torch.Generator | None,
        lengths: Tensor | None = None,
        static: Tensor | None = None,
    ) -> Posterior:
        """Return the posterior of z^m.

        Args:
            frames: Normalised log-mels (B, T, n_mels), padded on the right. If `static_from` is "frame", they are
                differences of features, (B, T, static_hidden).
            generator: The generator of the draws; None to take the means.
            lengths: The number of frames of each sequence, (B,), or None without padding.
            static: z^c, (B, static_dim); ignored without `dynamic_sees_static`.

        Returns:
            The posterior, each part (B, T, dynamic_dim). Codes of the padding are meaningless.
        """
        config = self.config
        if config.dynamic_norm != "none":
            mean, deviation = mean_deviation(frames, frame_mask(lengths, frames))
            frames = frames - mean[:, None]
            frames = frames / deviation[:, None] if config.dynamic_norm == "instance" else frames
        if config.dynamic_look_ahead:
            frames = frames if lengths is None else frames * frame_mask(lengths, frames)
            frames = F.pad(frames, (0, 0, 0, config.dynamic_look_ahead))
        if config.dynamic_sees_static:
            assert static is not None
            frames = append_vector(frames, static)
        states = self.frames_lstm(frames)[0][:, config.dynamic_look_ahead :]
        offset = self._offset(len(states), generator, states)
        if config.feedback:
            return self._with_feedback(states, generator, offset)
        states = self.codes_lstm(states)[0]
        if config.dynamic_per == "frame":
            return self._shifted(self.head(states, generator, self.norm), offset)
        shared = self._shifted(self.head(last_state(states, lengths)[:, None], generator, self.norm), offset)
        return Posterior(*(part.expand(-1, states.shape[1], -1) for part in shared))

    def _with_feedback(self, states: Tensor, generator: torch.Generator | None, offset: Tensor | None) -> Posterior:
        """Return the posterior of states (B, T, dynamic_hidden), frame by frame: each frame reads the draw before it."""
        posteriors, memory = [], None
        previous = states.new_zeros(len(states), 1, self.config.dynamic_dim)
        for t in range(states.shape[1]):
            state, memory = self.codes_lstm(torch.cat([states[:, t : t + 1], previous], dim=-1), memory)
            posteriors.append(self._shifted(self.head(state, generator, self.norm), offset))
            previous = posteriors[-1].sample
        return Posterior(*(torch.cat(parts, dim=1) for parts in zip(*posteriors, strict=True)))

    def _offset(self, count: int, generator: torch.Generator | None, like: Tensor) -> Tensor | None:
        """Return the noise (count, 1, dynamic_dim) that all frames of a sequence share, or None without such noise."""
        variance = self.config.dynamic_offset_variance
        if not variance or generator is None:
            return None
        return variance**0.5 * normal((count, 1, self.config.dynamic_dim), generator, like)

    def _shifted(self, posterior: Posterior, offset: Tensor | None) -> Posterior:
        """Return the posterior with the offset added to its draw, and the offset's variance to its variance."""
        if offset is None:
            return posterior
        variance = posterior.variance + self.config.dynamic_offset_variance
        return Posterior(posterior.mean, variance, posterior.sample + offset)
