"""The front end of all recordings: a high-pass filter, and a gain that brings the speech to a nominal level.

Training, scoring and conversion all use it, so volume, DC offset and rumble do not affect the codes. A recording is read
twice: first to measure its level, then to apply the gain.
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

NOMINAL = -26.0  # nominal level of speech in dBFS, as is customary for ITU-T P.56 material
CUTOFF = 60.0  # cutoff frequency of the high-pass in Hz, below the pitch of any voice
QUALITIES = (0.5412, 1.3066)  # quality factors of the two sections of a Butterworth filter of order 4
MEMORY = 0.25  # seconds after which the response of the filter has decayed to 1e-9
GATE_BLOCK = 0.05  # length of a block in seconds, over which the power of speech is averaged
GATE = 10.0  # dB below the mean power of the louder blocks, under which a block is a pause
SILENT = 1e-4  # peak (−80 dBFS) under which a recording is silent
FAR_BEYOND = 10.0  # peak over which samples have another scale, such as that of 16-bit integers

Blocks = Callable[[], Iterable[np.ndarray]]  # returns the samples of a recording from the start, in blocks (n,)


@dataclass(frozen=True)
class Level:
    """The level of a recording after the high-pass.

    Attributes:
        count: Number of samples.
        peak: Largest magnitude of a sample.
        active: RMS of the speech without its pauses.
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
        """The factor that brings the speech to the nominal level; 1.0 for silence."""
        return 1.0 if self.silent else 10 ** (NOMINAL / 20) / self.active


def high_passed(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Remove DC offset and rumble from a waveform.

    Args:
        blocks: The samples, in blocks (n,).
        sample_rate: Sample rate in Hz.

    Yields:
        The filtered samples, in blocks of the same lengths, float32. The division into blocks changes them by at most 1e-7
        of full scale.
    """
    sections = [high_pass_section(sample_rate, quality) for quality in QUALITIES]
    before = None
    for block in blocks:
        samples = torch.as_tensor(block).double()
        if not len(samples):
            continue
        if before is None:  # the first sample is repeated before the start, so that an offset makes no step there
            before = samples[:1].expand(round(MEMORY * sample_rate))
        filtered = torch.cat([before, samples])
        start, before = len(before), filtered[-len(before) :]
        for poles, zeros in sections:
            filtered = torchaudio().functional.lfilter(filtered, poles, zeros, clamp=False)
        yield filtered[start:].float().numpy()


def high_pass_section(sample_rate: int, quality: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the coefficients of a second-order high-pass at CUTOFF: those of the poles (3,) and of the zeros (3,).

    `torchaudio.functional.highpass_biquad` has the same coefficients, but clips its output to ±1.

    Args:
        sample_rate: Sample rate in Hz.
        quality: Quality factor.
    """
    angle = 2 * math.pi * CUTOFF / sample_rate
    cosine, alpha = math.cos(angle), math.sin(angle) / (2 * quality)
    poles = torch.tensor([1 + alpha, -2 * cosine, 1 - alpha], dtype=torch.float64)
    zeros = torch.tensor([0.5, -1.0, 0.5], dtype=torch.float64) * (1 + cosine)
    return poles, zeros


class LevelMeter:
    """A meter for the level of a waveform that comes in blocks. It stores eight bytes for every GATE_BLOCK seconds.

    Args:
        sample_rate: Sample rate in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.size = round(GATE_BLOCK * sample_rate)
        self.count, self.peak = 0, 0.0
        self.powers = array("d")  # a single growing array: many small ones would fragment the memory
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

    A block is a pause if its power is more than GATE dB below the mean of the other blocks, as in ITU-R BS.1770. There is
    no absolute threshold, so the pauses of a recording do not depend on its volume.

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
    """Return the RMS of the speech in a waveform (N,), such as a vocoder's output, without the high-pass."""
    meter = LevelMeter(sample_rate)
    meter.add(samples)
    return meter.level.active


@dataclass(frozen=True)
class Speech:
    """A recording with the high-pass and the gain of the front end.

    Attributes:
        read: Returns the samples of the recording from the start, in blocks (n,). Each call starts a new pass.
        sample_rate: Sample rate in Hz.
        level: The level before the gain.
    """

    read: Blocks
    sample_rate: int
    level: Level

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the filtered samples at the nominal level, in blocks (n,), float32."""
        gain = np.float32(self.level.gain)
        for block in high_passed(self.read(), self.sample_rate):
            yield block * gain

    def log_mels(self, mel: MelConfig) -> Iterator[Tensor]:
        """Yield the log-mels, in chunks (n, n_mels). Raises InputError for less than one analysis window."""
        return log_mel_chunks(self.blocks(), mel)


def measured(read: Blocks, sample_rate: int) -> Speech:
    """Measure the level of a recording and return it as speech.

    Args:
        read: Returns the samples of the recording from the start, in blocks (n,).
        sample_rate: Sample rate in Hz.
    """
    meter = LevelMeter(sample_rate)
    for block in high_passed(read(), sample_rate):
        meter.add(block)
    return Speech(read, sample_rate, meter.level)


def speech_of(samples: np.ndarray, sample_rate: int) -> Speech:
    """Measure the level of a waveform (N,) and return it as speech. `sample_rate` is in Hz."""
    return measured(lambda: [samples], sample_rate)


def levelled(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return a waveform (N,), float32, after the front end. `sample_rate` is in Hz."""
    return np.concatenate([*speech_of(samples, sample_rate).blocks()])


def waveform(samples: np.ndarray | Tensor, name: str) -> np.ndarray:
    """Convert samples to a waveform (N,), float32, with full scale ±1.

    Args:
        samples: Floats, or integers of 8, 16 or 32 bits, which are divided by their full scale; (N,), (1, N) or (N, 1).
        name: The name of the samples in messages.

    Raises:
        InputError: The type or shape is another, there are no samples, or a sample is not finite.
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
