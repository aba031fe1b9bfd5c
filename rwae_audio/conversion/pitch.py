"""Waveform → F0 contour at the log-mels' frames, and a contour moved into another voice's register.

The tracker is SwiftF0: Nieradzik, "SwiftF0: fast and accurate monophonic pitch detection", 2025, arXiv 2508.18440.
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

LOWEST, HIGHEST = 60.0, 500.0  # Hz
RATE, HOP = 16000, 256  # SwiftF0 reads samples at this rate, and has a frame every HOP samples
CONTEXT = 16  # SwiftF0's frames on either side that a frame's F0 depends on: 11 before it and 10 after it
VOICED = 0.5  # the least confidence of a voiced frame
GAIN = np.float32(2)  # SwiftF0 depends on the level: speech at NOMINAL is given to it at -20 dB
SPREAD = 6.0  # how many times as wide, or as narrow, a contour may become
QUIET = 12.0  # dB under the louder voiced frames, from where on a frame says nothing of the register
QUARTILES = 1.349  # standard deviations between the quartiles of a normal distribution
HEARD = 50  # voiced frames that a voice's deviation is taken from, at least


class Register(NamedTuple):
    """The pitch range of a voice: its number of voiced frames, and a robust mean and deviation of ln F0 (Hz)."""

    frames: int
    mean: float
    deviation: float


class Track(NamedTuple):
    """The output of SwiftF0 for a recording, a value every HOP samples at RATE.

    Attributes:
        f0: F0 in Hz, 0 in frames without a voice, (M,).
        level: Level in dB, (M,).
    """

    f0: np.ndarray
    level: np.ndarray


def fundamental(samples: np.ndarray, config: MelConfig) -> np.ndarray:
    """Return the F0 contour of a waveform.

    Args:
        samples: (N,), at the rate of `config`, of any level.
        config: The settings of the log-mels; the sample rate and the hop are used.

    Returns:
        F0 in Hz, 0 in frames without a voice: (1 + N // hop_length,). Frame t is centred on sample t · hop_length.
    """
    speech = speech_of(samples, config.sample_rate)
    return contour(tracked(speech.blocks(), config.sample_rate), len(samples), config)


def tracked(blocks: Iterable[np.ndarray], sample_rate: int) -> Track:
    """Return the track of a waveform that comes in blocks (n,).

    The blocks are those of `level.Speech`, since the tracker depends on the level. An hour has 225,000 rows.
    """
    rows = array("d")  # grows as one: small arrays that are kept one by one pin freed memory between them
    for part in _tracked(blocks, sample_rate):
        rows.extend(part.ravel())
    return Track(*np.array(rows).reshape(-1, 2).T)


def contour(track: Track, count: int, config: MelConfig) -> np.ndarray:
    """Return the F0 contour at the log-mels' frames, (1 + count // hop_length,), of a waveform of `count` samples."""
    step = config.hop_length * RATE / (HOP * config.sample_rate)  # from one frame to the next, in frames of SwiftF0
    return _between(track.f0, np.arange(1 + count // config.hop_length) * step)


def _between(contour: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the values of a contour (T,) at fractional positions (m,), which are cut off at its end.

    A position is voiced if its nearest frame is; ln F0 is interpolated between two voiced frames.
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
    """Yield SwiftF0's frames (m, 2) for samples at `rate` in blocks (n,): F0 in Hz, 0 without a voice, and level in dB.

    N samples at RATE have 1 + N // HOP frames.
    """
    samples = (np.asarray(block, dtype=np.float32) for block in blocks)
    rows = _rows(samples if rate == RATE else resampled_blocks(samples, rate, RATE))
    return (
        part.numpy()
        for part in in_context(lambda part: torch.from_numpy(_swift(part.flatten().numpy())), rows, CONTEXT)
    )


def _rows(blocks: Iterable[np.ndarray]) -> Iterator[Tensor]:
    """Yield samples that come in blocks (n,) as rows (m, HOP), with zeros after the last one: 1 + N // HOP rows in all."""
    rest = np.zeros(0, dtype=np.float32)
    for block in blocks:
        samples = np.concatenate([rest, block])
        whole = len(samples) - len(samples) % HOP
        yield torch.from_numpy(samples[:whole]).view(-1, HOP)
        rest = samples[whole:]
    yield torch.from_numpy(np.pad(rest, (0, HOP - len(rest))))[None]


def _swift(samples: np.ndarray) -> np.ndarray:
    """Return the frames (N // HOP, 2) of samples (N,) at RATE: F0 in Hz, 0 without a voice, and level in dB."""
    contour = _detector().detect(GAIN * samples, RATE, LOWEST, HIGHEST)
    f0 = np.where(contour.confidence >= VOICED, contour.pitch_hz, 0.0)
    return np.stack([f0, contour.loudness_db], axis=1)


@functools.lru_cache(maxsize=1)
def _detector() -> SwiftF0:
    """Return the network, which is loaded once, for one thread."""
    import onnxruntime
    from swift_f0 import SwiftF0

    onnxruntime.set_default_logger_severity(3)  # errors alone
    return SwiftF0(threads=1, spin=False)


def register_of(track: Track) -> Register | None:
    """Return the register of a recording, from its loud voiced frames.

    Hum, noise and other talkers change quiet frames first. So a frame of 16 ms counts if it is at most QUIET under the
    level of the louder half of all voiced frames. Returns None where fewer than two frames count.
    """
    voiced = track.f0 > 0
    f0, levels = track.f0[voiced], track.level[voiced]
    if not len(f0):
        return None
    louder = 10 ** (np.sort(levels)[len(levels) // 2 :] / 10)
    return register([f0[levels > 10 * np.log10(louder.mean()) - QUIET]])


def register(contours: Iterable[np.ndarray]) -> Register | None:
    """Return the register of a voice, from the parts (n,) of its contours: F0 in Hz, 0 in frames without a voice.

    The mean is the median, and the deviation comes from the quartiles, so that a few wrong frames do not move them.
    Returns None where fewer than two frames have a voice.
    """
    voiced = [f0[f0 > 0].astype(np.float32) for f0 in contours]
    logs = np.log(np.concatenate([*voiced, np.zeros(0, dtype=np.float32)]).astype(np.float64))
    if len(logs) < 2:
        return None
    low, middle, high = np.quantile(logs, [0.25, 0.5, 0.75])
    return Register(len(logs), float(middle), float(high - low) / QUARTILES)


def pooled(registers: Iterable[Register]) -> Register | None:
    """Return the register of all recordings together, each weighted by its voiced frames; None for fewer than two."""
    known = np.array([*registers]).reshape(-1, 3)
    count = known[:, 0].sum()
    if count < 2:
        return None
    mean = float(known[:, 0] @ known[:, 1] / count)
    squares = known[:, 2] ** 2 + (known[:, 1] - mean) ** 2
    return Register(int(count), mean, math.sqrt(float(known[:, 0] @ squares / count)))


def moved(f0: np.ndarray, own: Register, other: Register) -> np.ndarray:
    """Move a contour F0 (T,) of a voice with the register `own` into the register `other`.

    ln F0 gets the other's mean and deviation, and F0 stays between LOWEST and HIGHEST; 0 stays 0. The deviation grows
    by SPREAD at most, since a flat voice's trembling is no melody. It stays where the other has under HEARD frames.
    """
    wider = other.deviation / max(own.deviation, 1e-3) if other.frames >= HEARD else 1.0
    logs = (np.log(np.maximum(f0, 1)) - own.mean) * np.clip(wider, 1 / SPREAD, SPREAD) + other.mean
    return np.where(f0 > 0, np.exp(logs).clip(LOWEST, HIGHEST), 0.0)
