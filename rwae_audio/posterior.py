"""A code: the switches that shape it, its Gaussian posterior, and the noise a draw is made with.

The bricks of rwae_audio.model. Knows shapes, not losses. B sequences, T frames.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist

from rwae_audio.settings import Settings, at_least, between

if TYPE_CHECKING:
    from rwae_audio.actions import Action

PosteriorKind = Literal["fixed", "learned"]


@dataclass(frozen=True)
class ModelConfig(Settings):
    """Sizes, and every choice that the paper leaves open.

    static_from      where the static code's frames lie: the training `segment`, or `another` window of the same utterance,
                     `static_window` frames long; the encoder reads every `static_stride`-th of them. Or the segment's
                     first `frame`, as a feature, alone: the dynamic code is read off what is left of the others' features
                     without it (DBSE)
    embedding_window    an utterance's static vector is the mean of its codes over windows of so many frames, or of as many
                     as in training (0)
    static_network   `recurrent`: an LSTM (the paper's); `residual`: blocks of convolutions, as in ECAPA-TDNN
    static_pooling   the code is read off the LSTM's `last` state, the `mean` and `deviation` of its states over time, or
                     the same under weights that it learns (`attentive`)
    dynamic_norm     what is taken from each mel bin of the dynamic encoder's input: nothing, its `mean` over the
                     sequence, or mean and deviation (`instance` norm)
    *_posterior      `fixed` (variance `*_variance`) or `learned` (starts at `*_variance`)
    dynamic_offset_variance    variance of a noise that all frames of a sequence share, on top of each frame's own: what
                     is constant over time could else be averaged out of the frames' noise, and the voice is constant
    standardise      batch-standardise the means of z^m, so that a fixed posterior variance bounds what they can carry:
                     (dynamic_dim / 2) · ln(1 + 1 / dynamic_variance) nats a frame
    feedback         the dynamic posterior sees z^m_{t-1} (the paper's q) or only x_{≤t}
    dynamic_sees_static    the dynamic posterior is q(z^m | z^c, x): z^c stands beside each of its frames (Li & Mandt's
                     full q). Where it is a whole utterance that is encoded, z^c is the utterance's mean
    dynamic_look_ahead    how many frames after its own a code is read off as well
    dynamic_per      z^m is one code a `frame`, or one a `segment` that all its frames share, read off the last state
    decoder          `recurrent`: an LSTM over [z^c, z^m_t] (the paper's figure); `frame`: frame by frame (its formula);
                     `convolutional`: ConvNeXt blocks over the codes, each of which z^c modulates
    actions          how many actions there are, one a sequence (0: none): a code a beside z^c and z^m_t
    """

    table: ClassVar[str] = "model"
    n_mels: int = at_least(1, 80)
    static_dim: int = at_least(1, 16)
    dynamic_dim: int = at_least(1, 8)
    static_hidden: int = at_least(1, 128)
    dynamic_hidden: int = at_least(1, 128)
    prior_hidden: int = at_least(1, 128)
    decoder_hidden: int = at_least(1, 128)
    static_from: Literal["segment", "another", "frame"] = "another"
    static_window: int = at_least(1, 60)
    static_stride: int = at_least(1, 2)
    embedding_window: int = at_least(0, 0)
    static_network: Literal["recurrent", "residual"] = "recurrent"
    static_pooling: Literal["last", "mean-deviation", "attentive"] = "mean-deviation"
    static_posterior: PosteriorKind = "fixed"
    static_variance: float = between(0, 100, 0.25, open_low=True)
    dynamic_norm: Literal["none", "mean", "instance"] = "mean"
    dynamic_posterior: PosteriorKind = "fixed"
    dynamic_variance: float = between(0, 100, 0.25, open_low=True)
    dynamic_offset_variance: float = between(0, 100, 8.0)
    standardise: bool = True
    feedback: bool = False
    dynamic_sees_static: bool = False
    dynamic_look_ahead: int = at_least(0, 0)
    dynamic_per: Literal["frame", "segment"] = "frame"
    decoder: Literal["recurrent", "frame", "convolutional"] = "recurrent"
    actions: int = at_least(0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.actions == 1:
            raise ValueError("[model] actions is 1; expected 0 (none), or 2 or more")
        if self.static_network == "residual":
            if self.static_pooling == "last":
                raise ValueError('[model] static_pooling is "last"; a residual static_network needs another')
            if self.static_hidden % 4:
                raise ValueError(
                    f"[model] static_hidden is {self.static_hidden}; expected a multiple of 4 for residual blocks"
                )
            if self.static_from == "frame":
                raise ValueError('[model] static_network is "residual"; a code from a "frame" needs a recurrent one')
        if self.feedback and self.dynamic_per == "segment":
            raise ValueError('[model] feedback is true; expected false, as a code a "segment" has none before it')
        if self.static_from == "frame" and self.dynamic_norm != "none":  # the subtraction would be undone by another
            raise ValueError(
                f'[model] dynamic_norm is "{self.dynamic_norm}"; expected "none" where static_from is "frame"'
            )
        if self.dynamic_look_ahead and self.by_segment:
            raise ValueError(
                f"[model] dynamic_look_ahead is {self.dynamic_look_ahead}; expected 0, as these codes see whole segments"
            )

    @property
    def by_segment(self) -> bool:
        """Is z^m_t another where its segment begins elsewhere? Then recordings are encoded in segments as in training."""
        return self.dynamic_per == "segment" or self.static_from == "frame"


class Posterior(NamedTuple):
    """A diagonal Gaussian and a draw from it, each (..., d). Without a generator the draw is the mean."""

    mean: Tensor
    variance: Tensor
    sample: Tensor


class Output(NamedTuple):
    """What one pass gives: static (B, static_dim), dynamic (B, T, dynamic_dim), reconstruction (B, T, n_mels).

    second: the static code of another window of the same utterances, where one was given; action: of a model with
    actions. For objectives that need it, the trainer adds the static encoder's window (B, S, n_mels), None where it is
    the frames themselves, which of the training utterances each row is of, (B,), and for actions what each sounds like,
    (B, d), by `word_shape`, and, at the start, the cluster of such shapes that it is in, (B,).
    """

    static: Posterior
    dynamic: Posterior
    reconstruction: Tensor
    second: Posterior | None = None
    action: Action | None = None
    static_frames: Tensor | None = None
    utterances: Tensor | None = None
    shapes: Tensor | None = None
    clusters: Tensor | None = None


def frame_mask(lengths: Tensor | None, frames: Tensor) -> Tensor:
    """(B, T, 1) in the frames' dtype: 1 inside each sequence, 0 in its padding. `lengths` (B,), or None for no padding."""
    steps = torch.arange(frames.shape[1], device=frames.device)
    if lengths is None:
        return torch.ones(frames.shape[0], frames.shape[1], 1, dtype=frames.dtype, device=frames.device)
    return (steps < lengths[:, None]).to(frames.dtype)[..., None]


def mean_deviation(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over time, each (B, d), of values (B, T, d) inside the mask (B, T, 1)."""
    values, mask = in_float32(values), in_float32(mask)
    count = mask.sum(1)
    mean = (values * mask).sum(1) / count
    variance = ((values - mean[:, None]) ** 2 * mask).sum(1) / count
    return mean, (variance + 1e-5).sqrt()


def last_state(states: Tensor, lengths: Tensor | None) -> Tensor:
    """The last one, (B, hidden), of each sequence of states (B, T, hidden)."""
    if lengths is None:
        return states[:, -1]
    return states[torch.arange(len(states), device=states.device), lengths - 1]


class Network(nn.Module):
    """A network whose passes run in the context that `autocast` makes, and whose results are float32 in any case.

    The trainer sets `autocast` for training in bfloat16. Without it passes run in the precision of the weights.
    """

    autocast: Callable[[], contextlib.AbstractContextManager] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` in the context."""
        if self.autocast is None:
            return super().__call__(*args, **kwargs)
        with self.autocast():
            return in_float32(super().__call__(*args, **kwargs))


def run_in_bf16(model: nn.Module, device: torch.device, on: bool) -> None:
    """Let the passes of all networks in a model run in bfloat16 by autocast, or in the precision of their weights."""
    for network in model.modules():
        if isinstance(network, Network):
            network.autocast = functools.partial(torch.autocast, device.type, torch.bfloat16) if on else None


def in_float32(values: Any) -> Any:
    """Return a tensor, or a (named) tuple of tensors, with 16-bit numbers as float32 and all else as it is."""
    if isinstance(values, Tensor):
        return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
    if isinstance(values, tuple):
        parts = [in_float32(value) for value in values]
        return type(values)(*parts) if hasattr(values, "_fields") else tuple(parts)
    return values


def full_precision(values: Tensor) -> contextlib.AbstractContextManager:
    """Return a context in which autocast is off on the device of `values`: statistics and codes are float32."""
    return torch.autocast(values.device.type, enabled=False)


class GaussianHead(nn.Module):
    """States (..., hidden) → a Posterior (..., d) of one of the two kinds, computed in float32."""

    def __init__(self, hidden: int, dim: int, kind: PosteriorKind, variance: float) -> None:
        super().__init__()
        self.kind, self.start = kind, variance
        self.mean = nn.Linear(hidden, dim)
        if kind == "learned":
            self.log_variance = nn.Linear(hidden, dim)
            nn.init.zeros_(self.log_variance.weight)
            nn.init.constant_(self.log_variance.bias, float(torch.tensor(variance).log()))

    def forward(self, states: Tensor, generator: torch.Generator | None, norm: nn.Module | None = None) -> Posterior:
        with full_precision(states):
            return self._posterior(in_float32(states), generator, norm)

    def _posterior(self, states: Tensor, generator: torch.Generator | None, norm: nn.Module | None) -> Posterior:
        mean = self.mean(states)
        if norm is not None:
            mean = norm(mean.flatten(0, -2)).view_as(mean)
        fixed = self.kind == "fixed"
        variance = torch.full_like(mean, self.start) if fixed else self.log_variance(states).clamp(-10, 5).exp()
        if generator is None:
            return Posterior(mean, variance, mean)
        return Posterior(mean, variance, mean + variance.sqrt() * normal(mean.shape, generator, mean))


def normal(shape: torch.Size | tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers in the dtype (at least float32) and on the device of `like`.

    They are drawn on the CPU, so that devices agree, and in float32 for 16-bit numbers, so that precisions do.

    shape (B, ...): this process's rows. All processes draw the global batch's noise and take their own of it.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    return on_all(shape, lambda whole: torch.randn(whole, generator=generator, dtype=dtype)).to(like.device)


def on_all(shape: torch.Size | tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
    """This process's rows, (B, ...), of what `draw` gives for the rows of all processes."""
    world, rank = processes()
    drawn = draw((world * shape[0], *shape[1:]))
    return drawn[rank * shape[0] : (rank + 1) * shape[0]]


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
