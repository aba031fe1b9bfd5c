"""Data-parallel training: several processes share a global batch, with the result of a single process.

Each process has its rows of the batch. The training loss is the mean of the processes' losses, so `mean_gradients`
averages the gradients after the backward pass. A loss that compares rows with each other, such as an MMD, is computed on
gathered rows. In a single process the functions on tensors return their input unchanged.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from rwae_audio.files import InputError

TIMEOUT = timedelta(hours=2)  # longest wait for the first process, which builds the frame store and computes scores


def start() -> None:
    """Join the group of processes if torchrun or accelerate has launched several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from accelerate import PartialState

        on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
        PartialState(cpu=on_cpu or not torch.cuda.is_available(), timeout=TIMEOUT)


def leave() -> None:
    """Leave the group of processes. This process then works alone."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the index of this process, from 0. Only process 0 writes files and prints."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def barrier() -> None:
    """Wait until all processes have reached this call."""
    if world_size() > 1:
        dist.barrier()


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
    """Run the block in the first process before the other processes, which then read the files that it has written."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


def from_first(make: Callable[[], Any]) -> Any:
    """Call a function in the first process alone, and return its result in all processes."""
    if world_size() == 1:
        return make()
    values = [make() if rank() == 0 else None]
    dist.broadcast_object_list(values)
    return values[0]


def local(size: int) -> slice:
    """Return the rows of this process in a global batch.

    Args:
        size: The number of rows of the global batch.

    Raises:
        InputError: The rows cannot be divided equally among the processes.
    """
    count, rest = divmod(size, world_size())
    if rest:
        raise InputError(
            f"a batch of {size} cannot be divided among {world_size()} processes; expected a multiple of {world_size()}"
        )
    return slice(rank() * count, (rank() + 1) * count)


def on_all(shape: torch.Size | tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
    """Draw random numbers for the rows of all processes, and return those of this process.

    Args:
        shape: The shape (B, ...) of this process's rows.
        draw: Draws a tensor of a given shape, from a generator that is in the same state in all processes.
    """
    count = shape[0]
    return draw((world_size() * count, *shape[1:]))[rank() * count : (rank() + 1) * count]


class _Gather(torch.autograd.Function):
    """An all-gather with gradients. The gradient of a row is the sum of its gradients in all processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
        dist.all_gather_into_tensor(gathered, rows.contiguous())
        return gathered

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        own = gradient.new_empty(len(gradient) // world_size(), *gradient.shape[1:])
        dist.reduce_scatter_tensor(own, gradient.contiguous())
        return own


def gather(rows: Tensor) -> Tensor:
    """Return the rows of all processes in the order of the global batch, (B / processes, ...) → (B, ...), with gradients."""
    return rows if world_size() == 1 else _Gather.apply(rows)


def average(values: Tensor) -> Tensor:
    """Return the mean over processes of tensors of one shape."""
    return values if world_size() == 1 else gather(values[None]).mean(0)


def average_numbers(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Return the mean over processes of each number.

    Args:
        values: The numbers of this process, by name.
        device: A device on which the processes can communicate.
    """
    if world_size() == 1:
        return dict(values)
    means = average(torch.tensor(list(values.values()), dtype=torch.float64, device=device))
    return dict(zip(values, means.tolist(), strict=True))


def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradient of each parameter by its mean over processes, in a single all-reduce."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, (flat / world_size()).split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
