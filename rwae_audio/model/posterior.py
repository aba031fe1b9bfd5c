"""A Gaussian code and the draw from it, and what the networks share. B sequences, T frames."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rwae_audio.distributed import on_all, world_size
from rwae_audio.model.config import PosteriorKind

if TYPE_CHECKING:
    from rwae_audio.model.actions import Action


class Posterior(NamedTuple):
    """A diagonal Gaussian and a draw from it, each (..., d). Without a generator the draw is the mean."""

    mean: Tensor
    variance: Tensor
    sample: Tensor


class Output(NamedTuple):
    """The codes and the reconstruction of one pass, and what the trainer adds for objectives that need it.

    Attributes:
        static: The posterior of z^c, (B, static_dim).
        dynamic: The posterior of z^m, (B, T, dynamic_dim).
        reconstruction: Decoded frames, (B, T, n_mels).
        second: The static posterior of another window of the same utterances, where one was given.
        action: The action of each sequence, in a model with actions.
        static_frames: The static encoder's window, (B, S, n_mels); None where it is the frames themselves. By the trainer.
        utterances: The training utterance of each row, (B,). By the trainer.
        raw_frames: The raw log-mels of the segment as they were drawn, (B, T, n_mels). By the trainer.
    """

    static: Posterior
    dynamic: Posterior
    reconstruction: Tensor
    second: Posterior | None = None
    action: Action | None = None
    static_frames: Tensor | None = None
    utterances: Tensor | None = None
    raw_frames: Tensor | None = None


def frame_mask(lengths: Tensor | None, frames: Tensor) -> Tensor:
    """Return 1 inside each sequence and 0 in its padding, (B, T, 1), in the frames' dtype.

    lengths: (B,), or None for no padding.
    """
    steps = torch.arange(frames.shape[1], device=frames.device)
    if lengths is None:
        return torch.ones(frames.shape[0], frames.shape[1], 1, dtype=frames.dtype, device=frames.device)
    return (steps < lengths[:, None]).to(frames.dtype)[..., None]


def mean_deviation(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over time, each (B, d), of values (B, T, d) inside the mask (B, T, 1)."""
    values, mask = in_float32(values), in_float32(mask)
    count = mask.sum(1)
    mean = (values * mask).sum(1) / count
    variance = ((values - mean[:, None]) ** 2 * mask).sum(1) / count
    return mean, (variance + 1e-5).sqrt()


def last_state(states: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the last state (B, hidden) of each sequence of states (B, T, hidden)."""
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
    """A map from states (..., hidden) to a Posterior (..., d) of one of the two kinds, computed in float32."""

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
    """Return standard normal numbers in the dtype (at least float32) and on the device of `like`.

    They are drawn on the CPU, so that devices agree, and in float32 for 16-bit numbers, so that precisions do.

    shape (B, ...): this process's rows. All processes draw the global batch's noise and take their own of it.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    return on_all(shape, lambda whole: torch.randn(whole, generator=generator, dtype=dtype)).to(like.device)


class Standardise(nn.BatchNorm1d):
    """A batch norm without weights: rows (N, d) get mean 0 and variance 1 in each column.

    In training the statistics are those of the rows of all processes, otherwise the running ones.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, dim: int) -> None:
        super().__init__(dim, affine=False, momentum=0.01)

    def forward(self, rows: Tensor) -> Tensor:
        world = world_size()
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
