"""The Disentangled Recurrent Wasserstein Autoencoder: one static code a sequence, one dynamic code a frame.

Han, Min, Han, Li, Zhang: "Disentangled Recurrent Wasserstein Autoencoder", ICLR 2021, arXiv 2101.07496.

    p(x_{1:T}, z) = p(z^c) · ∏_t p_ψ(z^m_t | z^m_{<t}) · p_θ(x_t | z^c, z^m_t)
    q(z | x_{1:T}) = q_φ(z^c | x_{1:T}) · ∏_t q_φ(z^m_t | z^m_{<t}, x_{≤t})

Knows shapes, not losses. B sequences, T frames; frames are normalised log-mels (B, T, n_mels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

PosteriorKind = Literal["deterministic", "fixed", "learned"]


@dataclass(frozen=True)
class ModelConfig:
    """Sizes, and every choice that the paper leaves open.

    static_from      where the static code's frames lie: the training `segment`, a `longer` window around it, or
                     `another` window of the same utterance, `static_window` frames long; the encoder reads every
                     `static_stride`-th of them
    static_network   `recurrent`: an LSTM (the paper's); `convolutional`: convolutions over time, as in x-vectors
    static_pooling   the code is read off the LSTM's `last` state, the `mean` and `deviation` of its states over time, or
                     the same under weights that it learns (`attentive`)
    dynamic_norm     what is taken from each mel bin of the dynamic encoder's input: nothing, its `mean` over the
                     sequence, or mean and deviation (`instance` norm)
    static_prior     `gaussian`: N(0, I); `sphere`: uniform on the sphere of radius √static_dim, on which the code then
                     lies: what the cosine of two codes, by which voices are compared, takes for granted
    *_posterior      `deterministic` (variance 0), `fixed` (variance `*_variance`) or `learned` (starts at `*_variance`)
    dynamic_offset_variance    variance of a noise that all frames of a sequence share, on top of each frame's own: what
                     is constant over time could else be averaged out of the frames' noise, and the voice is constant
    standardise      batch-standardise the means of z^m, so that a fixed posterior variance bounds what they can carry:
                     (dynamic_dim / 2) · ln(1 + 1 / dynamic_variance) nats a frame
    feedback         the dynamic posterior sees z^m_{t-1} (the paper's q) or only x_{≤t}
    decoder          `recurrent`: an LSTM over [z^c, z^m_t] (the paper's figure); `frame`: frame by frame (its formula)
    """

    n_mels: int = 80
    static_dim: int = 16
    dynamic_dim: int = 8
    static_hidden: int = 128
    dynamic_hidden: int = 128
    prior_hidden: int = 128
    decoder_hidden: int = 128
    static_from: Literal["segment", "longer", "another"] = "another"
    static_window: int = 60
    static_stride: int = 2
    static_network: Literal["recurrent", "convolutional"] = "recurrent"
    static_pooling: Literal["last", "mean-deviation", "attentive"] = "mean-deviation"
    static_prior: Literal["gaussian", "sphere"] = "gaussian"
    static_posterior: PosteriorKind = "fixed"
    static_variance: float = 0.25
    dynamic_norm: Literal["none", "mean", "instance"] = "mean"
    dynamic_posterior: PosteriorKind = "fixed"
    dynamic_variance: float = 0.25
    dynamic_offset_variance: float = 8.0
    standardise: bool = True
    feedback: bool = False
    decoder: Literal["recurrent", "frame"] = "recurrent"

    def __post_init__(self) -> None:
        for name in [
            "n_mels",
            "static_dim",
            "dynamic_dim",
            "static_hidden",
            "dynamic_hidden",
            "prior_hidden",
            "decoder_hidden",
            "static_window",
            "static_stride",
        ]:
            if getattr(self, name) < 1:
                raise ValueError(f"[model] {name} is {getattr(self, name)}; expected 1 or more")
        for name in ("static_variance", "dynamic_variance"):
            if not 0 < getattr(self, name) < 100:
                raise ValueError(f"[model] {name} is {getattr(self, name)}; expected between 0 and 100")
        if not 0 <= self.dynamic_offset_variance < 100:
            raise ValueError(f"[model] dynamic_offset_variance is {self.dynamic_offset_variance}; expected 0 to 100")
        if self.static_network == "convolutional" and self.static_pooling == "last":
            raise ValueError('[model] static_pooling is "last"; a convolutional static_network needs another')


class Posterior(NamedTuple):
    """A diagonal Gaussian and a draw from it, each (..., d). Without a generator the draw is the mean."""

    mean: Tensor
    variance: Tensor
    sample: Tensor


class Output(NamedTuple):
    """What one pass gives: static (B, static_dim), dynamic (B, T, dynamic_dim), reconstruction (B, T, n_mels).

    second: the static code of another window of the same utterances, where one was given.
    """

    static: Posterior
    dynamic: Posterior
    reconstruction: Tensor
    second: Posterior | None = None


def frame_mask(lengths: Tensor | None, frames: Tensor) -> Tensor:
    """(B, T, 1) in the frames' dtype: 1 inside each sequence, 0 in its padding. `lengths` (B,), or None for no padding."""
    steps = torch.arange(frames.shape[1], device=frames.device)
    if lengths is None:
        return torch.ones(frames.shape[0], frames.shape[1], 1, dtype=frames.dtype, device=frames.device)
    return (steps < lengths[:, None]).to(frames.dtype)[..., None]


def mean_deviation(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over time, each (B, d), of values (B, T, d) inside the mask (B, T, 1)."""
    count = mask.sum(1)
    mean = (values * mask).sum(1) / count
    variance = ((values - mean[:, None]) ** 2 * mask).sum(1) / count
    return mean, (variance + 1e-5).sqrt()


class GaussianHead(nn.Module):
    """States (..., hidden) → a Posterior (..., d) of one of the three kinds."""

    def __init__(self, hidden: int, dim: int, kind: PosteriorKind, variance: float) -> None:
        super().__init__()
        self.kind, self.start = kind, variance
        self.mean = nn.Linear(hidden, dim)
        if kind == "learned":
            self.log_variance = nn.Linear(hidden, dim)
            nn.init.zeros_(self.log_variance.weight)
            nn.init.constant_(self.log_variance.bias, float(torch.tensor(variance).log()))

    def forward(self, states: Tensor, generator: torch.Generator | None, norm: nn.Module | None = None) -> Posterior:
        mean = self.mean(states)
        if norm is not None:
            mean = norm(mean.flatten(0, -2)).view_as(mean)
        if self.kind == "deterministic":
            return Posterior(mean, torch.zeros_like(mean), mean)
        fixed = self.kind == "fixed"
        variance = torch.full_like(mean, self.start) if fixed else self.log_variance(states).clamp(-10, 5).exp()
        if generator is None:
            return Posterior(mean, variance, mean)
        return Posterior(mean, variance, mean + variance.sqrt() * normal(mean.shape, generator, mean))


def normal(shape: torch.Size | tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers in the dtype and on the device of `like`, drawn on the CPU so that devices agree.

    shape (B, ...): this process's rows. All processes draw the global batch's noise and take their own of it.
    """
    world, rank = processes()
    drawn = torch.randn((world * shape[0], *shape[1:]), generator=generator, dtype=like.dtype)
    return drawn[rank * shape[0] : (rank + 1) * shape[0]].to(like.device)


def on_sphere(codes: Tensor) -> Tensor:
    """codes (..., d), each scaled to length √d, at which its components have a variance of 1."""
    return F.normalize(codes, dim=-1) * codes.shape[-1] ** 0.5


def processes() -> tuple[int, int]:
    """How many processes train together, each on its rows of the global batch, and which of them this one is."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_world_size(), dist.get_rank()) if together else (1, 0)


class Standardise(nn.BatchNorm1d):
    """Rows (N, d) → mean 0 and variance 1 in each column: over the rows of all processes in training, by the running
    statistics otherwise. nn.BatchNorm1d without weights, to which it leaves whatever one process can do alone."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, dim: int) -> None:
        super().__init__(dim, affine=False, momentum=0.01)

    def forward(self, rows: Tensor) -> Tensor:
        world, _ = processes()
        if world == 1 or not self.training:
            return super().forward(rows)
        from torch.distributed.nn.functional import all_reduce

        mean = all_reduce(rows.mean(0)) / world
        variance = all_reduce((rows - mean).square().mean(0)) / world
        count = world * len(rows)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return (rows - mean) / (variance + self.eps).sqrt()


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
        self.score = nn.Sequential(
            nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, width, bias=False)
        )  # up to a constant
        self.norm = Standardise(2 * width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        weight = self.score(states).masked_fill(mask == 0, -torch.inf).softmax(1)
        mean = (weight * states).sum(1)
        variance = (weight * states.square()).sum(1) - mean.square()
        return self.norm(torch.cat([mean, variance.clamp_min(1e-5).sqrt()], dim=-1))


class StaticEncoder(nn.Module):
    """q(z^c | x_{1:S}): an LSTM over every `static_stride`-th frame of the window, or convolutions, pooled over time."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.static_hidden
        if config.static_network == "recurrent":
            self.lstm = nn.LSTM(config.n_mels, hidden, batch_first=True)
        else:
            self.convolutions = Convolutions(config.n_mels, hidden, config.static_stride)
        if config.static_pooling == "attentive":
            self.attention = AttentivePooling(hidden)
        pooled = hidden * (1 if config.static_pooling == "last" else 2)
        self.head = GaussianHead(pooled, config.static_dim, config.static_posterior, config.static_variance)

    def forward(self, frames: Tensor, generator: torch.Generator | None, lengths: Tensor | None = None) -> Posterior:
        """frames (B, S, n_mels), padded on the right where `lengths` (B,) says so → z^c, (B, static_dim)."""
        stride = self.config.static_stride
        kept = None if lengths is None else (lengths + stride - 1) // stride
        if self.config.static_network == "recurrent":
            states, (last, _) = self.lstm(frames[:, ::stride])
        else:
            states, last = self.convolutions(frames, lengths), None
        posterior = self.head(self._pooled(states, last, kept), generator)
        if self.config.static_prior == "gaussian":
            return posterior
        return Posterior(on_sphere(posterior.mean), posterior.variance, on_sphere(posterior.sample))

    def _pooled(self, states: Tensor, last: Tensor | None, lengths: Tensor | None) -> Tensor:
        """States (B, S, hidden), the LSTM's last ones (1, B, hidden) → what the code is read off."""
        if self.config.static_pooling == "attentive":
            return self.attention(states, frame_mask(lengths, states))
        if self.config.static_pooling == "mean-deviation":
            return torch.cat(mean_deviation(states, frame_mask(lengths, states)), dim=-1)
        if lengths is None:
            assert last is not None
            return last[0]
        return states[torch.arange(len(states), device=states.device), lengths - 1]


class DynamicEncoder(nn.Module):
    """q(z^m_t | z^m_{<t}, x_{≤t}): an LSTM over the frames and a second one over its states (and z^m_{t-1})."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.dynamic_hidden
        self.frames_lstm = nn.LSTM(config.n_mels, hidden, batch_first=True)
        self.codes_lstm = nn.LSTM(hidden + config.dynamic_dim * config.feedback, hidden, batch_first=True)
        self.head = GaussianHead(hidden, config.dynamic_dim, config.dynamic_posterior, config.dynamic_variance)
        self.norm = Standardise(config.dynamic_dim) if config.standardise else None

    def forward(self, frames: Tensor, generator: torch.Generator | None, lengths: Tensor | None = None) -> Posterior:
        """frames (B, T, n_mels) → z^m, (B, T, dynamic_dim); what stands in the padding is to be ignored."""
        if self.config.dynamic_norm != "none":
            mean, deviation = mean_deviation(frames, frame_mask(lengths, frames))
            frames = frames - mean[:, None]
            if self.config.dynamic_norm == "instance":
                frames = frames / deviation[:, None]
        states, _ = self.frames_lstm(frames)
        offset = self._offset(len(states), generator, states)
        if not self.config.feedback:
            return self._shifted(self.head(self.codes_lstm(states)[0], generator, self.norm), offset)
        posteriors, memory = [], None
        previous = states.new_zeros(len(states), 1, self.config.dynamic_dim)
        for t in range(states.shape[1]):
            state, memory = self.codes_lstm(torch.cat([states[:, t : t + 1], previous], dim=-1), memory)
            posteriors.append(self._shifted(self.head(state, generator, self.norm), offset))
            previous = posteriors[-1].sample
        return Posterior(*(torch.cat(parts, dim=1) for parts in zip(*posteriors, strict=True)))

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


class DynamicPrior(nn.Module):
    """p_ψ(z^m_t | z^m_{<t}): an LSTM that emits a diagonal Gaussian a step; the first step follows a zero code."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim = config.dynamic_dim
        self.lstm = nn.LSTM(config.dynamic_dim, config.prior_hidden, batch_first=True)
        self.head = nn.Linear(config.prior_hidden, 2 * config.dynamic_dim)

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """codes (B, T, d) → mean and variance (B, T, d) of each step given the codes before it."""
        history = F.pad(codes, (0, 0, 1, 0))[:, :-1]
        return self._gaussian(self.lstm(history)[0])

    def step(self, previous: Tensor, memory: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, tuple]:
        """previous (B, d), the LSTM's memory → mean and variance (B, d) of the next code, and the new memory."""
        state, memory = self.lstm(previous[:, None], memory)
        mean, variance = self._gaussian(state[:, 0])
        return mean, variance, memory

    def rollout(self, count: int, steps: int, generator: torch.Generator) -> Tensor:
        """Codes (count, steps, d) drawn from the prior on its own samples, for this process alone."""
        code = self.head.weight.new_zeros(count, self.dim)
        codes, memory = [], None
        for _ in range(steps):
            mean, variance, memory = self.step(code, memory)
            code = mean + variance.sqrt() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(
                mean.device
            )
            codes.append(code)
        return torch.stack(codes, dim=1)

    def _gaussian(self, states: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.head(states).chunk(2, dim=-1)
        return mean, log_variance.clamp(-10, 5).exp()


class Decoder(nn.Module):
    """G(z^c, z^m_t): an LSTM over the codes whose state drives the frame, or the same two layers frame by frame."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inputs, hidden = config.static_dim + config.dynamic_dim, config.decoder_hidden
        self.recurrent = config.decoder == "recurrent"
        if self.recurrent:
            self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
            self.frame: nn.Module = nn.Linear(hidden, config.n_mels)
        else:
            self.frame = nn.Sequential(
                nn.Linear(inputs, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, config.n_mels),
            )

    def forward(self, static: Tensor, dynamic: Tensor) -> Tensor:
        """static (B, static_dim), dynamic (B, T, dynamic_dim) → frames (B, T, n_mels)."""
        codes = torch.cat([static[:, None].expand(-1, dynamic.shape[1], -1), dynamic], dim=-1)
        return self.frame(self.lstm(codes)[0] if self.recurrent else codes)


class RWAE(nn.Module):
    """The four networks, put together."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.static_encoder = StaticEncoder(config)
        self.dynamic_encoder = DynamicEncoder(config)
        self.prior = DynamicPrior(config)
        self.decoder = Decoder(config)

    def forward(
        self,
        frames: Tensor,
        static_frames: Tensor | None = None,
        generator: torch.Generator | None = None,
        lengths: Tensor | None = None,
        dynamic_frames: Tensor | None = None,
        second_frames: Tensor | None = None,
    ) -> Output:
        """Encode, draw (means without a generator) and decode.

        frames (B, T, n_mels), padded on the right where `lengths` (B,) says so. static_frames (B, S, n_mels) is the
        static encoder's window of the same utterances, the frames themselves when None; dynamic_frames (B, T, n_mels)
        what the dynamic encoder sees instead of the frames (a perturbed copy); second_frames (B, S, n_mels) a second
        window for the static encoder, whose code nothing is decoded from.
        """
        if static_frames is None:
            static = self.static_encoder(frames, generator, lengths)
        else:
            static = self.static_encoder(static_frames, generator)
        dynamic = self.dynamic_encoder(frames if dynamic_frames is None else dynamic_frames, generator, lengths)
        second = None if second_frames is None else self.static_encoder(second_frames, generator)
        return Output(static, dynamic, self.decoder(static.sample, dynamic.sample), second)

    @property
    def static_frames(self) -> int | None:
        """The length of the static encoder's window, or None where it is the training segment itself."""
        return None if self.config.static_from == "segment" else self.config.static_window


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
