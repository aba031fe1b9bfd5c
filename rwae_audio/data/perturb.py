"""Perturbations of log-mels that change the voice, the words or the channel of speech.

Sequence i of the global batch gets the same perturbation in whichever process it is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.data.features import MelConfig, bin_centres, bin_positions, mel_filters
from rwae_audio.data.level import NOMINAL
from rwae_audio.distributed import local, world_size

NARROWEST = 3400.0  # Hz, the upper edge of telephone speech
COLOUR = 0.5  # nats, the largest standard deviation of a microphone's response over the bins
NOISE = (10.0, 40.0)  # dB between speech and noise
SWELL = 12  # frames over which the level of a background changes
REVERBERATION = 0.6  # seconds until a sound has fallen by 60 dB, at most
DIRECT = (-3.0, 12.0)  # dB between the direct sound and its reverberation
TAIL = 24  # frames over which reverberation decays


def warp_mels(frames: Tensor, limit: float, noise: torch.Generator) -> Tensor:
    """Stretch the mel axis of each sequence of frames (B, T, n_mels) by a random factor in 1 ± limit."""
    factor = _factors(frames, limit, noise).to(frames.device)
    return _at(frames, torch.arange(frames.shape[-1], device=frames.device) * factor)


def warp_frequencies(frames: Tensor, limit: float, noise: torch.Generator, mel: MelConfig) -> Tensor:
    """Stretch the frequency axis, in Hz, of each sequence of frames (B, T, n_mels) by a random factor in 1 ± limit.

    The effect is that of a vocal tract of another length. Above the highest bin its value is repeated.
    """
    factor = _factors(frames, limit, noise).double().numpy()
    position = torch.from_numpy(bin_positions(bin_centres(mel) * factor, mel))
    return _at(frames, position.to(frames.device, frames.dtype))


def warp_time(frames: Tensor, limit: float, noise: torch.Generator) -> Tensor:
    """Stretch the time axis of each sequence of frames (B, T, n_mels) about its middle by a random factor in 1 ± limit.

    Beyond the ends the first and the last frame are repeated.
    """
    factor = _factors(frames, limit, noise).to(frames.device)
    middle = (frames.shape[1] - 1) / 2
    position = (torch.arange(frames.shape[1], device=frames.device) - middle) * factor + middle
    return _at(frames.transpose(1, 2), position).transpose(1, 2)


def _factors(frames: Tensor, limit: float, noise: torch.Generator) -> Tensor:
    """Draw a factor (B, 1) in 1 ± limit for each sequence of this process."""
    total = len(frames) * world_size()  # drawn for the global batch, so that sequence i has one factor in any process
    return 1 + limit * (2 * torch.rand(total, 1, generator=noise)[local(total)] - 1)


def _at(frames: Tensor, position: Tensor) -> Tensor:
    """Interpolate frames (B, T, n_mels) linearly at each sequence's positions (B, n_mels) on the last axis."""
    size = frames.shape[-1]
    position = position.clamp(0, size - 1)
    low = position.floor().long().clamp(max=size - 2)
    weight = (position - low)[:, None]
    low = low[:, None].expand(frames.shape)
    return frames.gather(2, low) * (1 - weight) + frames.gather(2, low + 1) * weight


def equalised(log_mels: Tensor, deviation: float, noise: torch.Generator, curves: int = 6) -> Tensor:
    """Apply a random channel to each sequence of log-mels (B, S, n_mels).

    The channel is a sum of the first cosines over the mel axis, the constant (a gain) among them.

    Args:
        log_mels: Log-mels (B, S, n_mels).
        deviation: Standard deviation of the channel over the bins, in nats.
        noise: The generator of the channels.
        curves: Number of cosines.
    """
    if not deviation:
        return log_mels
    total = len(log_mels) * world_size()
    weights = torch.randn(total, curves, generator=noise)[local(total)].to(log_mels.device)
    size = log_mels.shape[-1]
    bins = (torch.arange(size, device=log_mels.device) + 0.5) * math.pi / size
    basis = torch.cos(torch.arange(curves, device=log_mels.device)[:, None] * bins)
    return log_mels + (weights @ basis * deviation / basis.square().sum(0).mean() ** 0.5)[:, None]


def shuffled(frames: Tensor, noise: torch.Generator) -> Tensor:
    """Shuffle the frames of each sequence (B, S, n_mels): the voice remains, the words do not."""
    total = len(frames) * world_size()
    order = torch.rand(total, frames.shape[1], generator=noise)[local(total)].argsort(1).to(frames.device)
    return frames.gather(1, order[..., None].expand_as(frames))


# ---- channel perturbations of raw log-mels (B, S, n_mels), drawn for each sequence


def narrowed(log_mels: Tensor, noise: torch.Generator, mel: MelConfig) -> Tensor:
    """Remove everything above a random frequency, as telephones and codecs do.

    The edge is drawn uniformly over the bins, from NARROWEST to beyond the highest bin: some sequences stay unchanged.
    """
    lowest, highest = float(bin_positions(np.array(NARROWEST), mel)), mel.n_mels * 1.15
    edge = lowest + (highest - lowest) * _uniform(log_mels, noise)
    above = torch.arange(mel.n_mels, device=log_mels.device) - edge
    return (log_mels - 6 * above.clamp_min(0)[:, None]).clamp_min(math.log(mel.floor))


def recoloured(log_mels: Tensor, noise: torch.Generator, mel: MelConfig) -> Tensor:
    """Apply another microphone: a random gain and a smooth random equaliser, of a random strength."""
    strength = COLOUR * _uniform(log_mels, noise)
    return log_mels + strength[..., None] * (equalised(torch.zeros_like(log_mels), 1.0, noise))


def with_noise(log_mels: Tensor, noise: torch.Generator, mel: MelConfig) -> Tensor:
    """Add background noise of a random colour and, for half of the sequences, of a changing level.

    Powers add up. The speech-to-noise ratio is drawn from NOISE, in dB; speech is at its nominal level.
    """
    ratio = NOISE[0] + (NOISE[1] - NOISE[0]) * _uniform(log_mels, noise)
    level = (NOMINAL - ratio) * math.log(10) / 10  # ln of the noise's power
    white = _white_noise(mel).to(log_mels.device) + mel.power / 2 * level
    colour = equalised(torch.zeros_like(log_mels), 0.5 * mel.power, noise)
    swell = torch.randn(_rows(log_mels), 1 + log_mels.shape[1] // SWELL, 1, generator=noise)[_own_rows(log_mels)]
    swell = F.interpolate(swell.transpose(1, 2), log_mels.shape[1], mode="linear").transpose(1, 2)
    swell = swell.to(log_mels.device) * (_uniform(log_mels, noise) < 0.5)[..., None] * 0.5 * mel.power
    flicker = torch.randn(_rows(log_mels), *log_mels.shape[1:], generator=noise)[_own_rows(log_mels)]
    hiss = white[:, None] + colour + swell + flicker.to(log_mels.device) * _flicker(mel).to(log_mels.device)
    return _power_sum(log_mels, hiss, mel)


def reverberated(log_mels: Tensor, noise: torch.Generator, mel: MelConfig) -> Tensor:
    """Add the reverberation of a small room, without a change of the overall level.

    The reverberation time is drawn from 0 to REVERBERATION seconds. The ratio of direct to reverberant sound is drawn from
    DIRECT, in dB.
    """
    seconds = (REVERBERATION * _uniform(log_mels, noise)).clamp_min(1e-3)
    direct = DIRECT[0] + (DIRECT[1] - DIRECT[0]) * _uniform(log_mels, noise)
    steps = torch.arange(1, TAIL + 1, device=log_mels.device) * mel.hop_length / mel.sample_rate
    tail = 10 ** (-6 * steps / seconds)
    tail = tail / tail.sum(1, keepdim=True).clamp_min(1e-20) * 10 ** (-direct / 10)
    tail = torch.where(seconds < mel.hop_length / mel.sample_rate, torch.zeros(()).to(tail), tail)  # under a frame
    kernel = torch.cat([tail.flip(1), torch.ones_like(tail[:, :1])], dim=1)
    kernel = kernel / kernel.sum(1, keepdim=True)
    powers = (log_mels * (2 / mel.power)).exp().permute(2, 0, 1)
    padded = F.pad(powers, (TAIL, 0), mode="replicate")
    rung = F.conv1d(padded, kernel[:, None], groups=len(log_mels)).permute(1, 2, 0)
    return (rung.clamp_min(1e-20).log() * (mel.power / 2)).clamp_min(math.log(mel.floor))


CHANNELS = {"reverberation": reverberated, "equaliser": recoloured, "noise": with_noise, "bandwidth": narrowed}


def channelled(log_mels: Tensor, names: Sequence[str], noise: torch.Generator, mel: MelConfig) -> Tensor:
    """Apply the named channel perturbations to log-mels (B, S, n_mels), each to a random half of the sequences."""
    for name in names:
        chosen = (_uniform(log_mels, noise) < 0.5)[..., None]
        log_mels = torch.where(chosen, CHANNELS[name](log_mels, noise, mel), log_mels)
    return log_mels


@functools.lru_cache(maxsize=8)
def _white_noise(mel: MelConfig) -> Tensor:
    """Return the log-mels (n_mels,) of white noise of variance 1."""
    window = torch.hann_window(mel.win_length).square().sum().log()
    return mel_filters(mel).sum(0).log() + mel.power / 2 * window


@functools.lru_cache(maxsize=8)
def _flicker(mel: MelConfig) -> Tensor:
    """Return the standard deviation (n_mels,) of white noise's log-mels over frames; wide filters average more."""
    filters = mel_filters(mel)
    bins = (filters.sum(0).square() / filters.square().sum(0) / 1.5).clamp_min(1)  # neighbours overlap by the window
    return 0.6 * mel.power / bins.sqrt()


def _power_sum(first: Tensor, second: Tensor, mel: MelConfig) -> Tensor:
    """Return the log-mels of the sum of two uncorrelated sounds."""
    return torch.logaddexp(first * (2 / mel.power), second * (2 / mel.power)) * (mel.power / 2)


def _uniform(log_mels: Tensor, noise: torch.Generator) -> Tensor:
    """Draw a number (B, 1) from 0 to 1 for each sequence of this process."""
    return torch.rand(_rows(log_mels), 1, generator=noise)[_own_rows(log_mels)].to(log_mels.device)


def _rows(log_mels: Tensor) -> int:
    return len(log_mels) * world_size()


def _own_rows(log_mels: Tensor) -> slice:
    return local(_rows(log_mels))
