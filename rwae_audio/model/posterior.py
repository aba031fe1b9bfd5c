"""The Gaussian posterior of a code with the draw from it, and the helpers that all networks share.

The helpers are masks and statistics over time, float32 and bfloat16 contexts, normal noise, and a batch norm without
weights. B sequences, T frames.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rwae_audio.devices import in_float32
from rwae_audio.distributed import on_all, world_size
from rwae_audio.model.config import PosteriorKind

if TYPE_CHECKING:
    from rwae_audio.model.actions import Action


class Posterior(NamedTuple):
    """A diagonal Gaussian and a draw from it.

    Attributes:
        mean: The mean, (..., d).
        variance: The variance of each dimension, (..., d).
        sample: The draw, (..., d); the mean if the network was run without a generator.
    """

    mean: Tensor
    variance: Tensor
    sample: Tensor


class Output(NamedTuple):
    """The codes and the reconstruction of one pass through the model, with further inputs of the objectives.

    Attributes:
        static: The posterior of z^c, (B, static_dim).
        dynamic: The posterior of z^m, (B, T, dynamic_dim).
        reconstruction: Decoded frames, (B, T, n_mels).
        second: The static posterior of a second window of the same utterances, (B, static_dim), or None.
        action: The action of each sequence, or None in a model without actions.
        static_frames: The static encoder's window, (B, S, n_mels); None if it is the segment. The trainer adds it.
        utterances: The index of each sequence's training utterance, (B,). The trainer adds it.
        raw_frames: The segments as unperturbed, unnormalised log-mels, (B, T, n_mels). The trainer adds them.
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
    """Return the mask (B, T, 1) of frames (B, T, d): 1 inside each sequence and 0 in its padding, in the frames' dtype.

    Args:
        lengths: The number of frames of each sequence, (B,), or None without padding.
        frames: The frames, (B, T, d).
    """
    steps = torch.arange(frames.shape[1], device=frames.device)
    if lengths is None:
        return torch.ones(frames.shape[0], frames.shape[1], 1, dtype=frames.dtype, device=frames.device)
    return (steps < lengths[:, None]).to(frames.dtype)[..., None]


def mean_deviation(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation over time, each (B, d), of values (B, T, d) in the mask (B, T, 1)."""
    values, mask = in_float32(values), in_float32(mask)
    count = mask.sum(1)
    mean = (values * mask).sum(1) / count
    variance = ((values - mean[:, None]) ** 2 * mask).sum(1) / count
    return mean, (variance + 1e-5).sqrt()


def last_state(states: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the last state (B, hidden) of each sequence of states (B, T, hidden), with lengths (B,) if they are padded."""
    if lengths is None:
        return states[:, -1]
    return states[torch.arange(len(states), device=states.device), lengths - 1]


def append_vector(sequence: Tensor, vector: Tensor | None) -> Tensor:
    """Append a vector (B, e) to each step of a sequence (B, T, d), which gives (B, T, d + e); None appends nothing."""
    if vector is None:
        return sequence
    return torch.cat([sequence, vector[:, None].expand(-1, sequence.shape[1], -1)], dim=-1)


class Network(nn.Module):
    """The base of the four networks, which can run in bfloat16. Its results are float32 in any case.

    Attributes:
        autocast: Returns the context of each pass. The trainer sets it for training in bfloat16. None for passes in the
            precision of the weights.
    """

    autocast: Callable[[], contextlib.AbstractContextManager] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` in the context of `autocast`."""
        if self.autocast is None:
            return super().__call__(*args, **kwargs)
        with self.autocast():
            return in_float32(super().__call__(*args, **kwargs))


def run_in_bf16(model: nn.Module, device: torch.device, on: bool) -> None:
    """Set whether the networks of a model run in bfloat16, by autocast, or in the precision of their weights.

    Args:
        model: The model, or any module that contains networks.
        device: The device of the model.
        on: Whether they run in bfloat16.
    """
    for network in model.modules():
        if isinstance(network, Network):
            network.autocast = functools.partial(torch.autocast, device.type, torch.bfloat16) if on else None


def full_precision(values: Tensor) -> contextlib.AbstractContextManager:
    """Return a context without autocast on the device of `values`, for statistics and codes in float32."""
    return torch.autocast(values.device.type, enabled=False)


class GaussianHead(nn.Module):
    """A layer from states (..., hidden) to a Posterior (..., d), computed in float32.

    Args:
        hidden: Dimensions of the states.
        dim: Dimensions of the code, d.
        kind: "fixed" for a constant variance, "learned" for one that depends on the states.
        variance: The variance; the initial one if it is learned.
    """

    def __init__(self, hidden: int, dim: int, kind: PosteriorKind, variance: float) -> None:
        super().__init__()
        self.kind, self.start = kind, variance
        self.mean = nn.Linear(hidden, dim)
        if kind == "learned":
            self.log_variance = nn.Linear(hidden, dim)
            nn.init.zeros_(self.log_variance.weight)
            nn.init.constant_(self.log_variance.bias, float(torch.tensor(variance).log()))

    def forward(self, states: Tensor, generator: torch.Generator | None, norm: nn.Module | None = None) -> Posterior:
        """Return the posterior of states.

        Args:
            states: (..., hidden).
            generator: The generator of the draw; None to take the mean.
            norm: The normalisation of the means, a module for rows (N, d), or None.
        """
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
    """Draw standard normal numbers that do not depend on the device, the precision or the number of processes.

    They are drawn on the CPU, in float32 if `like` has 16 bits. Each process draws those of the global batch and takes
    its own rows.

    Args:
        shape: The shape (B, ...) of this process's rows.
        generator: The generator, in the same state in all processes.
        like: A tensor on the device of the result, whose dtype the result has if it is float32 or float64.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    return on_all(shape, lambda whole: torch.randn(whole, generator=generator, dtype=dtype)).to(like.device)


class Standardise(nn.BatchNorm1d):
    """A batch norm without weights, which gives each column of rows (N, d) mean 0 and variance 1.

    In training the statistics are those of the rows of all processes; in evaluation they are the running ones.

    Args:
        dim: The number of columns, d.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, dim: int) -> None:
        super().__init__(dim, affine=False, momentum=0.01)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the standardised rows (N, d), with N rows in this process."""
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
