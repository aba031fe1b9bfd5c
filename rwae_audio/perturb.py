"""Frames that say the same in another voice, or nothing in the same one. Sequence i of the global batch is perturbed alike
in whichever process it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rwae_audio.distributed import local, world_size
from rwae_audio.features import MelConfig, bin_centres, bin_positions


def warp_mels(frames: Tensor, limit: float, noise: torch.Generator) -> Tensor:
    """frames (B, T, n_mels) with each sequence's mel axis stretched by a factor in 1 ± limit, linearly interpolated."""
    factor = _factors(frames, limit, noise).to(frames.device)
    return _at(frames, torch.arange(frames.shape[-1], device=frames.device) * factor)


def warp_frequencies(frames: Tensor, limit: float, noise: torch.Generator, mel: MelConfig) -> Tensor:
    """frames (B, T, n_mels) with each sequence's frequency axis, in Hz, stretched by a factor in 1 ± limit, as another
    length of the vocal tract does it; above what was there the last bin goes on."""
    factor = _factors(frames, limit, noise).double().numpy()
    position = torch.from_numpy(bin_positions(bin_centres(mel) * factor, mel))
    return _at(frames, position.to(frames.device, frames.dtype))


def warp_time(frames: Tensor, limit: float, noise: torch.Generator) -> Tensor:
    """frames (B, T, n_mels) with each sequence's time axis stretched about its middle by a factor in 1 ± limit; beyond its
    ends the first and the last frame go on."""
    factor = _factors(frames, limit, noise).to(frames.device)
    middle = (frames.shape[1] - 1) / 2
    position = (torch.arange(frames.shape[1], device=frames.device) - middle) * factor + middle
    return _at(frames.transpose(1, 2), position).transpose(1, 2)


def _factors(frames: Tensor, limit: float, noise: torch.Generator) -> Tensor:
    """A factor (B, 1) in 1 ± limit for each sequence of this process."""
    whole = len(frames) * world_size()  # sequence i of the global batch has its factor wherever it is
    return 1 + limit * (2 * torch.rand(whole, 1, generator=noise)[local(whole)] - 1)


def _at(frames: Tensor, position: Tensor) -> Tensor:
    """frames (B, T, n_mels) read at each sequence's positions (B, n_mels) on the axis of bins, linearly interpolated."""
    size = frames.shape[-1]
    position = position.clamp(0, size - 1)
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
