"""Random perturbations of log-mels: stretched axes, shuffled frames, equalisers, noise, reverberation, bandwidth.

They change the voice, the content or the recording channel of training speech. All random numbers are drawn for the
global batch, so a sequence is perturbed in the same way in any process. B sequences, T or S frames.
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
from rwae_audio.distributed import on_all

NARROWEST = 3400.0  # lowest upper edge of a narrowed band in Hz, that of telephone speech
COLOUR = 0.5  # largest standard deviation of a microphone's response over the bins, in nats
NOISE = (10.0, 40.0)  # range of the speech-to-noise ratio in dB
LEVEL_STEP = 12  # frames between two random levels of a noise, which is interpolated between them
REVERBERATION = 0.6  # longest reverberation time (the decay by 60 dB) in seconds
DIRECT = (-3.0, 12.0)  # range of the ratio of direct to reverberant sound in dB
TAIL = 24  # frames of reverberation after a frame


def warp_mels(frames: Tensor, limit: float, generator: torch.Generator) -> Tensor:
    """Stretch the mel axis of each sequence by a random factor.

    Args:
        frames: Log-mels, (B, T, n_mels).
        limit: The factor is drawn from 1 − limit to 1 + limit.
        generator: The generator of the factors.
    """
    factor = _factors(frames, limit, generator).to(frames.device)
    return _interpolated(frames, torch.arange(frames.shape[-1], device=frames.device) * factor)


def warp_frequencies(frames: Tensor, limit: float, generator: torch.Generator, mel: MelConfig) -> Tensor:
    """Stretch the frequency axis in Hz of each sequence by a random factor, as another length of the vocal tract does.

    Above the highest bin its value is repeated.

    Args:
        frames: Log-mels, (B, T, n_mels).
        limit: The factor is drawn from 1 − limit to 1 + limit.
        generator: The generator of the factors.
        mel: The settings of the log-mels.
    """
    return stretched(frames, _factors(frames, limit, generator)[:, 0], mel)


def stretched(frames: Tensor, factors: Tensor, mel: MelConfig) -> Tensor:
    """Stretch the frequency axis in Hz of each sequence (B, T, n_mels) by its factor (B,); see `warp_frequencies`."""
    positions = torch.from_numpy(bin_positions(bin_centres(mel) * factors.double().numpy()[:, None], mel))
    return _interpolated(frames, positions.to(frames.device, frames.dtype))


def warp_time(frames: Tensor, limit: float, generator: torch.Generator) -> Tensor:
    """Stretch the time axis of each sequence about its middle by a random factor.

    Beyond the ends the first and the last frame are repeated.

    Args:
        frames: Log-mels, (B, T, n_mels).
        limit: The factor is drawn from 1 − limit to 1 + limit.
        generator: The generator of the factors.
    """
    factor = _factors(frames, limit, generator).to(frames.device)
    middle = (frames.shape[1] - 1) / 2
    positions = (torch.arange(frames.shape[1], device=frames.device) - middle) * factor + middle
    return _interpolated(frames.transpose(1, 2), positions).transpose(1, 2)


def _factors(frames: Tensor, limit: float, generator: torch.Generator) -> Tensor:
    """Draw a factor from 1 − limit to 1 + limit for each sequence, (B, 1), on the CPU."""
    return 1 + limit * (2 * on_all((len(frames), 1), lambda shape: torch.rand(shape, generator=generator)) - 1)


def _interpolated(frames: Tensor, positions: Tensor) -> Tensor:
    """Interpolate frames (B, T, n) linearly along the last axis, at the positions (B, n) of each sequence."""
    size = frames.shape[-1]
    positions = positions.clamp(0, size - 1)
    low = positions.floor().long().clamp(max=size - 2)
    weight = (positions - low)[:, None]
    low = low[:, None].expand(frames.shape)
    return frames.gather(2, low) * (1 - weight) + frames.gather(2, low + 1) * weight


def equalised(log_mels: Tensor, deviation: float, generator: torch.Generator, curves: int = 6) -> Tensor:
    """Add a smooth random curve over the mel axis to each sequence: a random gain and equaliser.

    The curve is a random sum of the first cosines over the mel axis, of which the constant one is the gain.

    Args:
        log_mels: Log-mels, (B, S, n_mels).
        deviation: Standard deviation of the curve over the bins, in the unit of the log-mels (nats if not normalised).
        generator: The generator of the curves.
        curves: Number of cosines.
    """
    if not deviation:
        return log_mels
    weights = _normal((len(log_mels), curves), generator, log_mels)
    size = log_mels.shape[-1]
    bins = (torch.arange(size, device=log_mels.device) + 0.5) * math.pi / size
    basis = torch.cos(torch.arange(curves, device=log_mels.device)[:, None] * bins)
    return log_mels + (weights @ basis * deviation / basis.square().sum(0).mean() ** 0.5)[:, None]


def shuffled(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Shuffle the frames of each sequence (B, S, n_mels), which changes the content and not the voice."""
    order = on_all(frames.shape[:2], lambda shape: torch.rand(shape, generator=generator)).argsort(1).to(frames.device)
    return frames.gather(1, order[..., None].expand_as(frames))


# ---- perturbations of the recording channel, for log-mels (B, S, n_mels) that are not normalised


def narrowed(log_mels: Tensor, generator: torch.Generator, mel: MelConfig) -> Tensor:
    """Remove the frequencies above a random edge, as telephones and codecs do.

    The edge is drawn uniformly over the bins, from NARROWEST to above the highest bin, so some sequences stay unchanged.
    """
    lowest, highest = float(bin_positions(np.array(NARROWEST), mel)), mel.n_mels * 1.15
    edge = lowest + (highest - lowest) * _uniform(log_mels, generator)
    above = torch.arange(mel.n_mels, device=log_mels.device) - edge
    return (log_mels - 6 * above.clamp_min(0)[:, None]).clamp_min(math.log(mel.floor))


def recoloured(log_mels: Tensor, generator: torch.Generator, mel: MelConfig) -> Tensor:
    """Apply the response of another microphone: a random gain and equaliser with a random standard deviation."""
    deviation = COLOUR * _uniform(log_mels, generator)
    return log_mels + deviation[..., None] * equalised(torch.zeros_like(log_mels), 1.0, generator)


def with_noise(log_mels: Tensor, generator: torch.Generator, mel: MelConfig) -> Tensor:
    """Add background noise with a random spectrum.

    The speech-to-noise ratio is drawn from NOISE, for speech at its nominal level. The level of the noise varies over time
    in half of the sequences. The powers of speech and noise are added.
    """
    ratio = NOISE[0] + (NOISE[1] - NOISE[0]) * _uniform(log_mels, generator)
    level = (NOMINAL - ratio) * math.log(10) / 10  # natural logarithm of the noise's power
    white = _white_noise(mel).to(log_mels.device) + mel.power / 2 * level
    spectrum = equalised(torch.zeros_like(log_mels), 0.5 * mel.power, generator)
    levels = on_all(
        (len(log_mels), 1 + log_mels.shape[1] // LEVEL_STEP, 1), lambda shape: torch.randn(shape, generator=generator)
    )
    variation = F.interpolate(levels.transpose(1, 2), log_mels.shape[1], mode="linear").transpose(1, 2)
    variation = variation.to(log_mels.device) * (_uniform(log_mels, generator) < 0.5)[..., None] * 0.5 * mel.power
    fluctuation = _normal(log_mels.shape, generator, log_mels) * _noise_deviation(mel).to(log_mels.device)
    return _power_sum(log_mels, white[:, None] + spectrum + variation + fluctuation, mel)


def reverberated(log_mels: Tensor, generator: torch.Generator, mel: MelConfig) -> Tensor:
    """Add the reverberation of a small room without a change of the overall level.

    The reverberation time is drawn from 0 to REVERBERATION. The ratio of direct to reverberant sound is drawn from DIRECT.
    """
    seconds = (REVERBERATION * _uniform(log_mels, generator)).clamp_min(1e-3)
    ratio = DIRECT[0] + (DIRECT[1] - DIRECT[0]) * _uniform(log_mels, generator)
    delays = torch.arange(1, TAIL + 1, device=log_mels.device) * mel.hop_length / mel.sample_rate
    tail = 10 ** (-6 * delays / seconds)
    tail = tail / tail.sum(1, keepdim=True).clamp_min(1e-20) * 10 ** (-ratio / 10)
    # a reverberation time under a frame has no effect
    tail = torch.where(seconds < mel.hop_length / mel.sample_rate, torch.zeros(()).to(tail), tail)
    kernel = torch.cat([tail.flip(1), torch.ones_like(tail[:, :1])], dim=1)
    kernel = kernel / kernel.sum(1, keepdim=True)
    powers = (log_mels * (2 / mel.power)).exp().permute(2, 0, 1)
    padded = F.pad(powers, (TAIL, 0), mode="replicate")
    reverberant = F.conv1d(padded, kernel[:, None], groups=len(log_mels)).permute(1, 2, 0)
    return (reverberant.clamp_min(1e-20).log() * (mel.power / 2)).clamp_min(math.log(mel.floor))


CHANNELS = {"reverberation": reverberated, "equaliser": recoloured, "noise": with_noise, "bandwidth": narrowed}


def channelled(log_mels: Tensor, names: Sequence[str], generator: torch.Generator, mel: MelConfig) -> Tensor:
    """Apply perturbations of the channel one after another, each to a random half of the sequences.

    Args:
        log_mels: Log-mels, not normalised, (B, S, n_mels).
        names: Names in CHANNELS.
        generator: The generator of all random numbers.
        mel: The settings of the log-mels.
    """
    for name in names:
        chosen = (_uniform(log_mels, generator) < 0.5)[..., None]
        log_mels = torch.where(chosen, CHANNELS[name](log_mels, generator, mel), log_mels)
    return log_mels


@functools.lru_cache(maxsize=8)
def _white_noise(mel: MelConfig) -> Tensor:
    """Return the mean log-mels (n_mels,) of white noise with variance 1."""
    window = torch.hann_window(mel.win_length).square().sum().log()
    return mel_filters(mel).sum(0).log() + mel.power / 2 * window


@functools.lru_cache(maxsize=8)
def _noise_deviation(mel: MelConfig) -> Tensor:
    """Return the standard deviation (n_mels,) over frames of white noise's log-mels, smaller for wider filters."""
    filters = mel_filters(mel)
    bins = (filters.sum(0).square() / filters.square().sum(0) / 1.5).clamp_min(1)  # / 1.5: the window correlates bins
    return 0.6 * mel.power / bins.sqrt()


def _power_sum(first: Tensor, second: Tensor, mel: MelConfig) -> Tensor:
    """Return the log-mels of the sum of two uncorrelated sounds, given those of each."""
    return torch.logaddexp(first * (2 / mel.power), second * (2 / mel.power)) * (mel.power / 2)


def _uniform(log_mels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a number from 0 to 1 for each sequence, (B, 1), on the device of the log-mels."""
    return on_all((len(log_mels), 1), lambda shape: torch.rand(shape, generator=generator)).to(log_mels.device)


def _normal(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw standard normal numbers of the shape (B, ...), on the device of `like`."""
    return on_all(tuple(shape), lambda whole: torch.randn(whole, generator=generator)).to(like.device)
