"""The front end of every recording: a high-pass filter, and a gain that brings speech to one level.

Training, scoring and conversion all take their waveforms from here, so that volume, offset and rumble do not reach the
codes. A recording is read twice: once to measure its level, once to bring it to NOMINAL.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rwae_audio.data.features import MelConfig, log_mel_chunks
from rwae_audio.data.torch_audio import torchaudio
from rwae_audio.files import InputError

NOMINAL = -26.0  # dB below full scale: the level that ITU-T P.56 speech material customarily has
CUTOFF = 60.0  # Hz of the high-pass: no voice has its pitch below it
QUALITIES = (0.5412, 1.3066)  # of the two sections that make a Butterworth filter of order 4
MEMORY = 0.25  # seconds after which the response of the filter has decayed to 1e-9
GATE_BLOCK = 0.05  # seconds over which the power of speech is averaged
GATE = 10.0  # dB below the mean of the louder blocks, under which a block is a pause
SILENT = 1e-4  # a peak under this (-80 dBFS) is silence
FAR_BEYOND = 10.0  # a peak over this was written at another scale, such as that of 16-bit integers

Blocks = Callable[[], Iterable[np.ndarray]]  # returns a recording's samples from the start, in blocks (n,)


@dataclass(frozen=True)
class Level:
    """The level of one recording, after the high-pass.

    Attributes:
        count: Number of samples.
        peak: Largest magnitude.
        active: RMS of the speech, without its pauses.
    """

    count: int
    peak: float
    active: float

    @property
    def silent(self) -> bool:
        """Whether the recording is silent."""
        return self.peak < SILENT

    @property
    def gain(self) -> float:
        """The factor that brings the speech to NOMINAL; 1.0 for silence."""
        return 1.0 if self.silent else 10 ** (NOMINAL / 20) / self.active


def high_passed(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Remove an offset and rumble from a waveform.

    Args:
        blocks: Samples in blocks (n,).
        sample_rate: Sample rate in Hz.

    Yields:
        Equally many samples, float32. They depend on the division into blocks by at most 1e-7 of full scale.
    """
    sections = [high_pass_section(sample_rate, quality) for quality in QUALITIES]
    before = None
    for block in blocks:
        samples = torch.as_tensor(block).double()
        if not len(samples):
            continue
        if before is None:  # as if the first sample had always been there: an offset leaves no step
            before = samples[:1].expand(round(MEMORY * sample_rate))
        filtered = torch.cat([before, samples])
        start, before = len(before), filtered[-len(before) :]
        for poles, zeros in sections:
            filtered = torchaudio().functional.lfilter(filtered, poles, zeros, clamp=False)
        yield filtered[start:].float().numpy()


def high_pass_section(sample_rate: int, quality: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the coefficients (3,) of poles and of zeros of a second-order high-pass at CUTOFF.

    They are those of `torchaudio.functional.highpass_biquad`, which would clip its output to ±1.
    """
    angle = 2 * math.pi * CUTOFF / sample_rate
    cosine, alpha = math.cos(angle), math.sin(angle) / (2 * quality)
    poles = torch.tensor([1 + alpha, -2 * cosine, 1 - alpha], dtype=torch.float64)
    zeros = torch.tensor([0.5, -1.0, 0.5], dtype=torch.float64) * (1 + cosine)
    return poles, zeros


class LevelMeter:
    """A meter for the level of a waveform that comes in blocks from `high_passed`.

    It keeps eight bytes for every GATE_BLOCK seconds.
    """

    def __init__(self, sample_rate: int) -> None:
        self.size = round(GATE_BLOCK * sample_rate)
        self.count, self.peak = 0, 0.0
        self.powers = array("d")  # grows as one: small arrays that are kept one by one pin freed memory between them
        self.rest = np.zeros(0, dtype=np.float32)

    def add(self, block: np.ndarray) -> None:
        """Add the next samples (n,) of the waveform."""
        self.count += len(block)
        self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
        samples = np.concatenate([self.rest, block])
        full = len(samples) - len(samples) % self.size
        self.powers.extend(np.square(samples[:full], dtype=np.float64).reshape(-1, self.size).mean(1))
        self.rest = samples[full:]

    @property
    def level(self) -> Level:
        """The level of all samples so far."""
        rest = [np.square(self.rest, dtype=np.float64).mean(keepdims=True)] if len(self.rest) else []
        powers = np.concatenate([np.array(self.powers), *rest])
        return Level(self.count, self.peak, math.sqrt(active_power(powers)) if len(powers) else 0.0)


def active_power(powers: np.ndarray) -> float:
    """Return the mean power of speech without its pauses.

    A block is a pause if it lies more than GATE dB below the mean of the other blocks, as in ITU-R BS.1770. There is no
    absolute threshold, so that a recording has the same pauses at any level.

    Args:
        powers: Mean power of each block, (n,).
    """
    active = powers
    while True:
        louder = active[active >= active.mean() * 10 ** (-GATE / 10)]
        if len(louder) == len(active):
            return float(active.mean())
        active = louder


def active_level(samples: np.ndarray, sample_rate: int) -> float:
    """Return the RMS of speech in a waveform (N,) without the high-pass, e.g. of the output of a vocoder."""
    meter = LevelMeter(sample_rate)
    meter.add(samples)
    return meter.level.active


@dataclass(frozen=True)
class Speech:
    """A recording at the level that every network hears.

    Attributes:
        read: Returns the unchanged samples from the start, once for each pass.
        sample_rate: Sample rate in Hz.
        level: The level before the gain.
    """

    read: Blocks
    sample_rate: int
    level: Level

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the high-passed samples at NOMINAL in blocks (n,), float32."""
        gain = np.float32(self.level.gain)
        for block in high_passed(self.read(), self.sample_rate):
            yield block * gain

    def log_mels(self, mel: MelConfig) -> Iterator[Tensor]:
        """Yield the log-mels in chunks (n, n_mels). Raises InputError for a recording under one analysis window."""
        return log_mel_chunks(self.blocks(), mel)


def measured(read: Blocks, sample_rate: int) -> Speech:
    """Measure the level of a recording that can be read several times, and return it as speech."""
    meter = LevelMeter(sample_rate)
    for block in high_passed(read(), sample_rate):
        meter.add(block)
    return Speech(read, sample_rate, meter.level)


def speech_of(samples: np.ndarray, sample_rate: int) -> Speech:
    """Measure the level of a waveform (N,) in memory, and return it as speech."""
    return measured(lambda: [samples], sample_rate)


def levelled(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return a waveform (N,) high-passed and at NOMINAL, float32."""
    return np.concatenate([*speech_of(samples, sample_rate).blocks()])


def waveform(samples: np.ndarray | Tensor, name: str) -> np.ndarray:
    """Return samples as one channel (N,), float32, full scale ±1.

    Args:
        samples: Floats, or 8, 16 or 32-bit integers, which are scaled by their range; (N,), (1, N) or (N, 1).
        name: The name of the samples in messages.

    Raises:
        InputError: Another type or shape, no samples, or NaN or infinite samples.
    """
    array = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else np.asarray(samples)
    if array.ndim == 2 and min(array.shape) == 1:
        array = array.reshape(-1)
    if array.ndim != 1 or not array.size:
        raise InputError(f"{name} has shape {array.shape}; expected one channel of samples, (N,)")
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128) / 128
    if array.dtype in (np.int8, np.int16, np.int32):
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    if array.dtype.kind != "f":
        raise InputError(f"{name} has samples of type {array.dtype}; expected floats, or integers of 8, 16 or 32 bits")
    wrong = ~np.isfinite(array)
    if wrong.any():
        raise InputError(f"{name} has {array[wrong.argmax()]} at sample {wrong.argmax()}; expected finite samples")
    return array.astype(np.float32)
