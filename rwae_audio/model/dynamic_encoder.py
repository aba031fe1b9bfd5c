"""q(z^m_t | z^m_{<t}, x_{≤t}): what is said, a code a frame."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.model.config import ModelConfig
from rwae_audio.model.posterior import (
    GaussianHead,
    Network,
    Posterior,
    Standardise,
    frame_mask,
    last_state,
    mean_deviation,
    normal,
)

Memory = tuple[Any, Any, Any]  # the dynamic encoder's: the states of its two LSTMs, and the last code drawn


class DynamicEncoder(Network):
    """q(z^m_t | z^m_{<t}, x_{≤t}): an LSTM over the frames and a second one over its states (and z^m_{t-1}).

    With `dynamic_look_ahead` L it is q(z^m_t | z^m_{<t}, x_{≤t+L}): the second LSTM is L frames behind the first one.
    With `dynamic_sees_static`, z^c stands beside each frame. With `dynamic_per` segment, the last state alone gives one
    posterior and one draw, which all frames share.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.dynamic_hidden
        inputs = config.static_hidden if config.static_from == "frame" else config.n_mels
        self.frames_lstm = nn.LSTM(inputs + config.static_dim * config.dynamic_sees_static, hidden, batch_first=True)
        self.codes_lstm = nn.LSTM(hidden + config.dynamic_dim * config.feedback, hidden, batch_first=True)
        self.head = GaussianHead(hidden, config.dynamic_dim, config.posterior, config.dynamic_variance)
        self.norm = Standardise(config.dynamic_dim) if config.standardise else None

    def forward(
        self,
        frames: Tensor,
        generator: torch.Generator | None,
        lengths: Tensor | None = None,
        static: Tensor | None = None,
    ) -> Posterior:
        """frames (B, T, n_mels), or features as wide as these → z^m, (B, T, dynamic_dim); what stands in the padding is to be
        ignored.

        static (B, static_dim): z^c, which only an encoder with `dynamic_sees_static` looks at.
        """
        if self.config.dynamic_norm != "none":
            frames = self.normed(frames, *mean_deviation(frames, frame_mask(lengths, frames)))
        if self.config.dynamic_look_ahead:
            heard = frames if lengths is None else frames * frame_mask(lengths, frames)
            frames = F.pad(heard, (0, 0, 0, self.config.dynamic_look_ahead))
        return self.advance(frames, generator, lengths, static)[0]

    def normed(self, frames: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """frames (B, T, n_mels) without what `dynamic_norm` takes of their sequences' mean and deviation, (B, n_mels)."""
        if self.config.dynamic_norm == "none":
            return frames
        frames = frames - mean[:, None]
        return frames / deviation[:, None] if self.config.dynamic_norm == "instance" else frames

    def advance(
        self,
        frames: Tensor,
        generator: torch.Generator | None,
        lengths: Tensor | None = None,
        static: Tensor | None = None,
        memory: Memory | None = None,
    ) -> tuple[Posterior, Memory]:
        """`forward` of normed frames (B, T, n_mels) that go on where `memory` stands, and the memory after them: a long
        sequence in parts. Codes are `dynamic_look_ahead` behind: the first part, longer than that, gives so many fewer, and
        as many frames of zeros end the last one."""
        if self.config.dynamic_sees_static:
            assert static is not None
            frames = torch.cat([frames, static[:, None].expand(-1, frames.shape[1], -1)], dim=-1)
        of_frames, of_codes, previous = memory or (None, None, None)
        states, of_frames = self.frames_lstm(frames, of_frames)
        if memory is None:
            states = states[:, self.config.dynamic_look_ahead :]
        offset = self._offset(len(states), generator, states)
        if not self.config.feedback:
            states, of_codes = self.codes_lstm(states, of_codes)
            if self.config.dynamic_per == "frame":
                return self._shifted(self.head(states, generator, self.norm), offset), (of_frames, of_codes, None)
            one = self._shifted(self.head(last_state(states, lengths)[:, None], generator, self.norm), offset)
            return Posterior(*(part.expand(-1, states.shape[1], -1) for part in one)), (of_frames, of_codes, None)
        posteriors = []
        if previous is None:
            previous = states.new_zeros(len(states), 1, self.config.dynamic_dim)
        for t in range(states.shape[1]):
            state, of_codes = self.codes_lstm(torch.cat([states[:, t : t + 1], previous], dim=-1), of_codes)
            posteriors.append(self._shifted(self.head(state, generator, self.norm), offset))
            previous = posteriors[-1].sample
        whole = Posterior(*(torch.cat(parts, dim=1) for parts in zip(*posteriors, strict=True)))
        return whole, (of_frames, of_codes, previous)

    def _offset(self, count: int, generator: torch.Generator | None, like: Tensor) -> Tensor | None:
        """The noise (count, 1, dynamic_dim) that all frames of a sequence share, if there is any."""
        variance = self.config.dynamic_offset_variance
        if not variance or generator is None:
            return None
        return variance**0.5 * normal((count, 1, self.config.dynamic_dim), generator, like)

    def _shifted(self, posterior: Posterior, offset: Tensor | None) -> Posterior:
        if offset is None:
            return posterior
        variance = posterior.variance + self.config.dynamic_offset_variance
        return Posterior(posterior.mean, variance, posterior.sample + offset)
