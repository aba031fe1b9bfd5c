"""The Disentangled Recurrent Wasserstein Autoencoder: one static code a sequence, one dynamic code a frame.

Han, Min, Han, Li, Zhang: "Disentangled Recurrent Wasserstein Autoencoder", ICLR 2021, arXiv 2101.07496.

    p(x_{1:T}, z) = p(z^c) · ∏_t p_ψ(z^m_t | z^m_{<t}) · p_θ(x_t | z^c, z^m_t)
    q(z | x_{1:T}) = q_φ(z^c | x_{1:T}) · ∏_t q_φ(z^m_t | z^m_{<t}, x_{≤t})

Knows shapes, not losses. B sequences, T frames; frames are normalised log-mels (B, T, n_mels).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rwae_audio.actions import Action, ActionEncoder, one_hot
from rwae_audio.convolutions import (
    AttentivePooling,
    ConvNeXtBlock,
    ResidualConvolutions,
    over_time,
)
from rwae_audio.posterior import (
    GaussianHead,
    ModelConfig,
    Network,
    Output,
    Posterior,
    Standardise,
    frame_mask,
    full_precision,
    in_float32,
    last_state,
    mean_deviation,
    normal,
)

__all__ = ["RWAE", "Action", "ModelConfig", "Output", "Posterior", "Sample", "Standardise", "normal", "parameters"]


Memory = tuple[Any, Any, Any]  # the dynamic encoder's: the states of its two LSTMs, and the last code drawn


class StaticEncoder(Network):
    """q(z^c | x_{1:S}): an LSTM over every `static_stride`-th frame of the window, or convolutions, pooled over time."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.static_hidden
        if config.static_network == "recurrent":
            self.lstm = nn.LSTM(config.n_mels, hidden, batch_first=True)
        else:
            self.convolutions = ResidualConvolutions(config.n_mels, hidden, config.static_stride)
            hidden = self.convolutions.width
        if config.static_pooling == "attentive":
            self.attention = AttentivePooling(hidden)
        pooled = hidden * (1 if config.static_pooling == "last" else 2)
        self.head = GaussianHead(pooled, config.static_dim, config.static_posterior, config.static_variance)

    def forward(self, frames: Tensor, generator: torch.Generator | None, lengths: Tensor | None = None) -> Posterior:
        """frames (B, S, n_mels), padded on the right where `lengths` (B,) says so → z^c, (B, static_dim)."""
        stride = self.config.static_stride
        kept = None if lengths is None else (lengths + stride - 1) // stride
        if self.config.static_network == "recurrent":
            states, _ = self.lstm(frames[:, ::stride])
        else:
            states = self.convolutions(frames, lengths)
        return self.head(self._pooled(states, kept), generator)

    def _pooled(self, states: Tensor, lengths: Tensor | None) -> Tensor:
        """States (B, S, hidden), lengths (B,) → what the code is read off, (B, hidden) or twice as wide."""
        if self.config.static_pooling == "last":
            return last_state(states, lengths)
        if self.config.static_pooling == "attentive":
            return self.attention(states, None if lengths is None else frame_mask(lengths, states))
        return torch.cat(mean_deviation(states, frame_mask(lengths, states)), dim=-1)


class FrameFeatures(Network):
    """Features h_{1:T} of all frames, by an LSTM of both directions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(config.n_mels, config.static_hidden, batch_first=True, bidirectional=True)
        self.project = nn.Linear(2 * config.static_hidden, config.static_hidden)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """frames (B, T, n_mels), padded on the right where `lengths` (B,) says so → h, (B, T, static_hidden)."""
        if lengths is None:
            return self.project(self.lstm(frames)[0])
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=frames.shape[1])
        return self.project(states)


class FrameStaticEncoder(Network):
    """q(z^c | h_1): z^c is read off the first frame's features alone, whose backward half has seen the other frames.

    Berman, Naiman, Arbiv, Fadlon, Azencot: "Sequential Disentanglement by Extracting Static Information From A Single
    Sequence Element", ICML 2024, arXiv 2406.18131; the layers are those of their published speech model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.static_hidden
        self.features = FrameFeatures(config)
        self.first = nn.Linear(hidden, hidden)
        self.head = GaussianHead(hidden, config.static_dim, config.static_posterior, config.static_variance)

    def forward(self, frames: Tensor, generator: torch.Generator | None, lengths: Tensor | None = None) -> Posterior:
        """frames (B, T, n_mels) → z^c, (B, static_dim)."""
        return self.head(torch.tanh(self.first(self.features(frames, lengths)[:, 0])), generator)


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
        self.head = GaussianHead(hidden, config.dynamic_dim, config.dynamic_posterior, config.dynamic_variance)
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


class DynamicPrior(Network):
    """p_ψ(z^m_t | z^m_{<t}[, a]): an LSTM that emits a diagonal Gaussian a step; the first step follows a zero code.

    action (B, A), in a model with actions: stands beside each code.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim = config.dynamic_dim
        self.lstm = nn.LSTM(config.dynamic_dim + config.actions, config.prior_hidden, batch_first=True)
        self.head = nn.Linear(config.prior_hidden, 2 * config.dynamic_dim)

    def forward(self, codes: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """codes (B, T, d) → mean and variance (B, T, d) of each step given the codes before it."""
        history = F.pad(codes, (0, 0, 1, 0))[:, :-1]
        return self._gaussian(self.lstm(beside(history, action))[0])

    def step(
        self, previous: Tensor, memory: tuple[Tensor, Tensor] | None, action: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple]:
        """previous (B, d), the LSTM's memory → mean and variance (B, d) of the next code, and the new memory."""
        state, memory = self.lstm(beside(previous[:, None], action), memory)
        mean, variance = self._gaussian(state[:, 0])
        return mean, variance, memory

    def rollout(self, count: int, steps: int, generator: torch.Generator, action: Tensor | None = None) -> Tensor:
        """Codes (count, steps, d) drawn from the prior on its own samples, for this process alone."""
        code = self.head.weight.new_zeros(count, self.dim)
        codes, memory = [], None
        for _ in range(steps):
            mean, variance, memory = self.step(code, memory, action)
            code = mean + variance.sqrt() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(
                mean.device
            )
            codes.append(code)
        return torch.stack(codes, dim=1)

    def _gaussian(self, states: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(states):
            mean, log_variance = self.head(in_float32(states)).chunk(2, dim=-1)
        return mean, log_variance.clamp(-10, 5).exp()


def beside(codes: Tensor, constant: Tensor | None) -> Tensor:
    """codes (B, T, d), each with its sequence's constant (B, e) after it: (B, T, d + e)."""
    if constant is None:
        return codes
    return torch.cat([codes, constant[:, None].expand(-1, codes.shape[1], -1)], dim=-1)


class Decoder(Network):
    """G(z^c, z^m_t[, a]): an LSTM over the codes whose state drives the frame, the same two layers frame by frame, or
    ConvNeXt blocks over the codes, `context` frames of which are heard on either side of one."""

    KERNEL = 7
    BLOCKS = 5

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inputs, hidden = config.static_dim + config.dynamic_dim + config.actions, config.decoder_hidden
        self.kind, self.context = config.decoder, 0
        if self.kind == "convolutional":
            self.first = nn.Conv1d(inputs, hidden, self.KERNEL, padding=self.KERNEL // 2)
            self.blocks = nn.ModuleList(
                ConvNeXtBlock(hidden, self.KERNEL, 3, 1.0 / self.BLOCKS, config.static_dim) for _ in range(self.BLOCKS)
            )
            self.frame: nn.Module = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, config.n_mels))
            self.context = (self.BLOCKS + 1) * (self.KERNEL // 2)
        elif self.kind == "recurrent":
            self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
            self.frame = nn.Linear(hidden, config.n_mels)
        else:
            self.frame = nn.Sequential(
                nn.Linear(inputs, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, config.n_mels),
            )

    def forward(self, static: Tensor, dynamic: Tensor, action: Tensor | None = None) -> Tensor:
        """static (B, static_dim), dynamic (B, T, dynamic_dim), action (B, A) → frames (B, T, n_mels)."""
        return self.advance(static, dynamic, action=action)[0]

    def advance(
        self, static: Tensor, dynamic: Tensor, memory: Any = None, action: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """`forward` of codes that go on where `memory` (the LSTM's states) stands, and the memory after them; convolutions
        know none: their first and last `context` frames are other ones in the middle of a sequence."""
        codes = torch.cat([static[:, None].expand(-1, dynamic.shape[1], -1), beside(dynamic, action)], dim=-1)
        if self.kind == "recurrent":
            codes, memory = self.lstm(codes, memory)
        elif self.kind == "convolutional":
            codes = over_time(self.first, codes)
            for block in self.blocks:
                codes = block(codes, static)
        return self.frame(codes), memory


class Sample(NamedTuple):
    """Sequences from the priors: frames (n, T, n_mels), normalised, of static (n, static_dim), dynamic (n, T, dynamic_dim)
    and action (n, A), None in a model without."""

    frames: Tensor
    static: Tensor
    dynamic: Tensor
    action: Tensor | None


class RWAE(nn.Module):
    """The four networks, put together, and a fifth where there are actions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.static_encoder = FrameStaticEncoder(config) if config.static_from == "frame" else StaticEncoder(config)
        self.dynamic_encoder = DynamicEncoder(config)
        self.prior = DynamicPrior(config)
        self.decoder = Decoder(config)
        self.action_encoder = ActionEncoder(config) if config.actions else None

    def forward(
        self,
        frames: Tensor,
        static_frames: Tensor | None = None,
        generator: torch.Generator | None = None,
        lengths: Tensor | None = None,
        dynamic_frames: Tensor | None = None,
        second_frames: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Output:
        """Encode, draw (means without a generator) and decode.

        frames (B, T, n_mels), padded on the right where `lengths` (B,) says so. static_frames (B, S, n_mels) is the
        static encoder's window of the same utterances, the frames themselves when None; dynamic_frames (B, T, n_mels)
        what the dynamic encoder sees instead of the frames (a perturbed copy); second_frames (B, S, n_mels) a second
        window for the static encoder, whose code nothing is decoded from. temperature: of the draw of an action. What a
        convolutional decoder makes of the last `context` frames before a padding hangs on what stands there.
        """
        if static_frames is None:
            static = self.static_encoder(frames, generator, lengths)
        else:
            static = self.static_encoder(static_frames, generator)
        heard = frames if dynamic_frames is None else dynamic_frames
        dynamic = self.encode_dynamic(heard, static.sample, generator, lengths)
        second = None if second_frames is None else self.static_encoder(second_frames, generator)
        action = None
        if self.action_encoder is not None:
            action = self.action_encoder(dynamic.sample, generator, lengths, temperature)
        decoded = self.decoder(static.sample, dynamic.sample, None if action is None else action.sample)
        return Output(static, dynamic, decoded, second, action)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        frames: int,
        generator: torch.Generator,
        static: Tensor | None = None,
        actions: Tensor | None = None,
    ) -> Sample:
        """Return n sequences of `frames` frames from the priors.

        z^c ~ N(0, I), or `static` (n, static_dim); a ~ Cat(1/A), or `actions` (n,), numbers from 0; z^m from the prior on
        its own samples.

        Raises ValueError for actions that the model does not have.
        """
        like, count = self.prior.head.weight, self.config.actions
        if actions is not None and (not count or int(actions.min()) < 0 or int(actions.max()) >= count):
            raise ValueError(
                f"actions are {actions.tolist()}; expected numbers from 0 to {count - 1}, of a model with any"
            )
        if static is None:
            static = torch.randn((n, self.config.static_dim), generator=generator).to(like)
        if count and actions is None:
            actions = torch.randint(count, (n,), generator=generator)
        action = None if actions is None else one_hot(actions, count).to(like)
        dynamic = self.prior.rollout(n, frames, generator, action)
        return Sample(self.decoder(static, dynamic, action), static, dynamic, action)

    def encode_dynamic(
        self, frames: Tensor, static: Tensor, generator: torch.Generator | None, lengths: Tensor | None = None
    ) -> Posterior:
        """frames (B, T, n_mels), and z^c (B, static_dim) for an encoder that sees it → z^m, (B, T, dynamic_dim).

        Where z^c is the first frame's, the encoder sees h_t − h_1 instead of the frames.
        """
        if isinstance(self.static_encoder, FrameStaticEncoder):
            features = self.static_encoder.features(frames, lengths)
            frames = features - features[:, :1]
        return self.dynamic_encoder(frames, generator, lengths, static)

    @property
    def static_frames(self) -> int | None:
        """The length of the static encoder's window, or None where it is the training segment itself."""
        return None if self.config.static_from in ("segment", "frame") else self.config.static_window

    def embedding_frames(self, segment: int) -> int:
        """The length of the windows that a recording's static code is the mean over; segment: that of training."""
        return self.config.embedding_window or self.static_frames or segment


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
