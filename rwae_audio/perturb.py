"""Frames that say the same in another voice, or nothing in the same one. Sequence i of the global batch is perturbed alike
in whichever process it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rwae_audio.distributed import local, world_size


def warp_mels(frames: Tensor, limit: float, noise: torch.Generator) -> Tensor:
    """frames (B, T, n_mels) with each sequence's mel axis stretched by a factor in 1 ± limit, linearly interpolated."""
    size = frames.shape[-1]
    whole = len(frames) * world_size()  # sequence i of the global batch has its factor wherever it is
    factor = 1 + limit * (2 * torch.rand(whole, 1, generator=noise)[local(whole)] - 1).to(frames.device)
    position = (torch.arange(size, device=frames.device) * factor).clamp(max=size - 1)
    low = position.floor().long().clamp(max=size - 2)
    weight = (position - low)[:, None]
    low = low[:, None].expand(frames.shape)
    return frames.gather(2, low) * (1 - weight) + frames.gather(2, low + 1) * weight


def equalised(log_mels: Tensor, deviation: float, noise: torch.Generator, curves: int = 6) -> Tensor:
    """log_mels (B, S, n_mels) of each sequence through another channel: a gain and the first cosines over the mel axis,
    drawn anew, so that the bins' levels have this standard deviation, in nats."""
    if not deviation:
        return log_mels
    whole = len(log_mels) * world_size()
    weights = torch.randn(whole, curves, generator=noise)[local(whole)].to(log_mels.device)
    size = log_mels.shape[-1]
    bins = (torch.arange(size, device=log_mels.device) + 0.5) * math.pi / size
    basis = torch.cos(torch.arange(curves, device=log_mels.device)[:, None] * bins)
    return log_mels + (weights @ basis * deviation / basis.square().sum(0).mean() ** 0.5)[:, None]


def shuffled(frames: Tensor, noise: torch.Generator) -> Tensor:
    """frames (B, S, n_mels) with each sequence's in an order of its own: who speaks is left, what is said is not."""
    whole = len(frames) * world_size()
    order = torch.rand(whole, frames.shape[1], generator=noise)[local(whole)].argsort(1).to(frames.device)
    return frames.gather(1, order[..., None].expand_as(frames))
