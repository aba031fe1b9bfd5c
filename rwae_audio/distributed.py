"""Several processes that train as one: each has its rows of the global batch, and every sum is what one would have got.

The loss that is trained on is the mean over processes of each one's own: `mean_gradients` after the backward pass. What
is a mean over rows needs nothing else. What compares rows with each other (an MMD) is computed on gathered rows.
Without other processes everything here returns what it is given, so that one process has the bits it always had.
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

PATIENCE = timedelta(hours=2)  # how long the others wait while the first process builds a store or looks at its scores


def start() -> None:
    """Join the other processes, where torchrun or accelerate has launched several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from accelerate import PartialState

        on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
        PartialState(cpu=on_cpu or not torch.cuda.is_available(), timeout=PATIENCE)


def leave() -> None:
    """Part from the other processes: from here on each is alone."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0: the first one writes and speaks."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def barrier() -> None:
    """Wait until all are here."""
    if world_size() > 1:
        dist.barrier()


@contextlib.contextmanager
def first_one_first() -> Iterator[None]:
    """The first process goes through the block before the others do: it builds what they find built."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


def from_first(make: Callable[[], Any]) -> Any:
    """What `make` returns in the first process, in all of them; the others do not call it."""
    if world_size() == 1:
        return make()
    made = [make() if rank() == 0 else None]
    dist.broadcast_object_list(made)
    return made[0]


def local(size: int) -> slice:
    """This process's rows of a global batch of `size`. Raises InputError unless all get as many."""
    count, rest = divmod(size, world_size())
    if rest:
        raise InputError(
            f"a batch of {size} cannot be split over {world_size()} processes; expected a multiple of that"
        )
    return slice(rank() * count, (rank() + 1) * count)


def on_all(shape: torch.Size | tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
    """Return this process's rows, (B, ...), of what `draw` gives for the rows of all processes."""
    count = shape[0]
    return draw((world_size() * count, *shape[1:]))[rank() * count : (rank() + 1) * count]


class _Gather(torch.autograd.Function):
    """Backward: each process's rows get the sum of the gradients that all processes have for them."""

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
    """(B / processes, ...) → (B, ...): the rows of all processes, in the order of the global batch, with gradients."""
    return rows if world_size() == 1 else _Gather.apply(rows)


def average(values: Tensor) -> Tensor:
    """The mean over processes of tensors of one shape."""
    return values if world_size() == 1 else gather(values[None]).mean(0)


def average_numbers(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """The mean over processes of each number; `device`: one that the processes can talk on."""
    if world_size() == 1:
        return dict(values)
    means = average(torch.tensor(list(values.values()), dtype=torch.float64, device=device))
    return dict(zip(values, means.tolist(), strict=True))


def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes, in one message."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, (flat / world_size()).split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
