"""Pitch: the F0 contour of a waveform, the register (pitch range) of a voice, and the change of a contour's register.

The F0 tracker is SwiftF0: Nieradzik, "SwiftF0: fast and accurate monophonic pitch detection", 2025, arXiv 2508.18440.
"""

from __future__ import annotations

import functools
import math
from array import array
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rwae_audio.data.audio import resampled_blocks
from rwae_audio.data.features import MelConfig
from rwae_audio.data.level import speech_of
from rwae_audio.inference.streaming import in_context

if TYPE_CHECKING:
    from swift_f0 import SwiftF0

LOWEST, HIGHEST = 60.0, 500.0  # Hz, the range of F0
RATE, HOP = 16000, 256  # Hz and samples: SwiftF0's sample rate and hop
CONTEXT = 16  # frames before and after a frame on which SwiftF0's result may depend; it uses 11 before and 10 after
VOICED = 0.5  # the smallest confidence of a voiced frame
GAIN = np.float32(2)  # the gain before SwiftF0, whose result depends on the level: from NOMINAL to -20 dB
MAX_FACTOR = 6.0  # the largest factor by which the deviation of a contour grows or shrinks
QUIET = 12.0  # dB below the louder voiced frames; frames below this level are not used for the register
QUARTILES = 1.349  # the distance between the quartiles of a normal distribution, in standard deviations
MIN_FRAMES = 50  # the smallest number of voiced frames from which a deviation is estimated


class Register(NamedTuple):
    """The register of a voice, which is its pitch range.

    Attributes:
        frames: The number of voiced frames from which it is estimated.
        mean: A robust estimate of the mean of ln F0, F0 in Hz.
        deviation: A robust estimate of the standard deviation of ln F0.
    """

    frames: int
    mean: float
    deviation: float


class Track(NamedTuple):
    """The output of SwiftF0 for a recording: M frames, one every HOP samples at RATE.

    Attributes:
        f0: F0 in Hz, 0 in unvoiced frames, (M,).
        level: The level of each frame in dB, (M,).
    """

    f0: np.ndarray
    level: np.ndarray


def fundamental(samples: np.ndarray, config: MelConfig) -> np.ndarray:
    """Return the F0 contour of a waveform at the frames of its log-mels.

    Args:
        samples: The waveform, (N,), at any level.
        config: The settings of the log-mels, of which the sample rate and the hop are used.

    Returns:
        F0 in Hz, 0 in unvoiced frames, (1 + N // hop_length,). Frame t is centred on sample t · hop_length.
    """
    speech = speech_of(samples, config.sample_rate)
    return contour(tracked(speech.blocks(), config.sample_rate), len(samples), config)


def tracked(blocks: Iterable[np.ndarray], sample_rate: int) -> Track:
    """Run SwiftF0 over a waveform.

    Args:
        blocks: The waveform in blocks (n,), from `level.Speech.blocks`, since SwiftF0 depends on the level.
        sample_rate: The sample rate of the waveform in Hz.
    """
    rows = array("d")  # one growing array: many small arrays would keep the freed memory between them in use
    for part in _tracked(blocks, sample_rate):
        rows.extend(part.ravel())
    return Track(*np.array(rows).reshape(-1, 2).T)


def contour(track: Track, count: int, config: MelConfig) -> np.ndarray:
    """Return the F0 contour at the frames of log-mels.

    Args:
        track: The output of SwiftF0.
        count: The number of samples of the waveform.
        config: The settings of the log-mels.

    Returns:
        F0 in Hz, 0 in unvoiced frames, (1 + count // hop_length,).
    """
    step = config.hop_length * RATE / (HOP * config.sample_rate)  # the hop of the log-mels in frames of SwiftF0
    return _between(track.f0, np.arange(1 + count // config.hop_length) * step)


def _between(contour: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the values of a contour (T,) at fractional positions (m,), which are limited to its ends.

    A position is voiced if the nearest frame is voiced. Between two voiced frames, ln F0 is interpolated linearly.
    """
    positions = positions.clip(0, len(contour) - 1)
    before = positions.astype(int)
    after = np.minimum(before + 1, len(contour) - 1)
    weight = positions - before
    nearest = np.where(weight < 0.5, contour[before], contour[after])
    both = (contour[before] > 0) & (contour[after] > 0) & (weight > 0)
    low, high = np.where(both, contour[before], 1), np.where(both, contour[after], 1)
    return np.where(both, low ** (1 - weight) * high**weight, nearest)


def _tracked(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Yield SwiftF0's frames (m, 2), which are F0 in Hz and level in dB, for samples at `rate` in blocks (n,).

    N samples at RATE have 1 + N // HOP frames.
    """
    samples = (np.asarray(block, dtype=np.float32) for block in blocks)
    rows = _rows(samples if rate == RATE else resampled_blocks(samples, rate, RATE))
    return (
        part.numpy()
        for part in in_context(lambda part: torch.from_numpy(_swift(part.flatten().numpy())), rows, CONTEXT)
    )


def _rows(blocks: Iterable[np.ndarray]) -> Iterator[Tensor]:
    """Yield N samples in blocks (n,) as rows (m, HOP), 1 + N // HOP in all; the last row is padded with zeros."""
    remainder = np.zeros(0, dtype=np.float32)
    for block in blocks:
        samples = np.concatenate([remainder, block])
        complete = len(samples) - len(samples) % HOP
        yield torch.from_numpy(samples[:complete]).view(-1, HOP)
        remainder = samples[complete:]
    yield torch.from_numpy(np.pad(remainder, (0, HOP - len(remainder))))[None]


def _swift(samples: np.ndarray) -> np.ndarray:
    """Return the frames (N // HOP, 2) of samples (N,) at RATE: F0 in Hz, 0 in unvoiced frames, and level in dB."""
    contour = _detector().detect(GAIN * samples, RATE, LOWEST, HIGHEST)
    f0 = np.where(contour.confidence >= VOICED, contour.pitch_hz, 0.0)
    return np.stack([f0, contour.loudness_db], axis=1)


@functools.lru_cache(maxsize=1)
def _detector() -> SwiftF0:
    """Return SwiftF0, which is loaded once and runs on one thread."""
    import onnxruntime
    from swift_f0 import SwiftF0

    onnxruntime.set_default_logger_severity(3)  # no warnings
    return SwiftF0(threads=1, spin=False)


def register_of(track: Track) -> Register | None:
    """Return the register of a recording, or None if it has fewer than two loud voiced frames.

    Loud frames are at most QUIET below the mean level of the louder half of all voiced frames. Quiet frames are not used,
    since hum, noise and other talkers disturb them most.
    """
    voiced = track.f0 > 0
    f0, levels = track.f0[voiced], track.level[voiced]
    if not len(f0):
        return None
    louder = 10 ** (np.sort(levels)[len(levels) // 2 :] / 10)
    return register([f0[levels > 10 * np.log10(louder.mean()) - QUIET]])


def register(contours: Iterable[np.ndarray]) -> Register | None:
    """Return the register of a voice, or None if fewer than two frames are voiced.

    The mean is estimated by the median, and the deviation from the quartiles. Both are robust against a few wrong frames.

    Args:
        contours: F0 in Hz, 0 in unvoiced frames, (n,) for each recording.
    """
    voiced = [f0[f0 > 0].astype(np.float32) for f0 in contours]
    logs = np.log(np.concatenate([*voiced, np.zeros(0, dtype=np.float32)]).astype(np.float64))
    if len(logs) < 2:
        return None
    low, middle, high = np.quantile(logs, [0.25, 0.5, 0.75])
    return Register(len(logs), float(middle), float(high - low) / QUARTILES)


def pooled(registers: Iterable[Register]) -> Register | None:
    """Return the register of several recordings together, or None if they have fewer than two voiced frames.

    Each recording is weighted by its number of voiced frames.
    """
    frames, means, deviations = np.array([*registers]).reshape(-1, 3).T
    count = frames.sum()
    if count < 2:
        return None
    mean = float(frames @ means / count)
    squares = deviations**2 + (means - mean) ** 2
    return Register(int(count), mean, math.sqrt(float(frames @ squares / count)))


def moved(f0: np.ndarray, own: Register, other: Register) -> np.ndarray:
    """Return a contour that is moved from one register to another, (T,).

    ln F0 gets the mean and the deviation of the other register. The deviation changes by a factor of at most MAX_FACTOR, since
    small variations of a monotonous voice must not become a melody. It does not change if the other register comes from
    fewer than MIN_FRAMES frames. Voiced frames are limited to LOWEST … HIGHEST, and unvoiced frames stay unvoiced.

    Args:
        f0: F0 in Hz, 0 in unvoiced frames, (T,).
        own: The register of the contour.
        other: The new register.
    """
    factor = other.deviation / max(own.deviation, 1e-3) if other.frames >= MIN_FRAMES else 1.0
    logs = (np.log(np.maximum(f0, 1)) - own.mean) * np.clip(factor, 1 / MAX_FACTOR, MAX_FACTOR) + other.mean
    return np.where(f0 > 0, np.exp(logs).clip(LOWEST, HIGHEST), 0.0)
