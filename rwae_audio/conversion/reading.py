"""Recordings as a converter needs them: an audio file is decoded once, for its level, its log-mels and its F0."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rwae_audio.conversion.pitch import Register, Track, contour, register_of, tracked
from rwae_audio.data.audio import open_audio, resample
from rwae_audio.data.decoding import BLOCK, MAX_RATE, MIN_RATE
from rwae_audio.data.features import MelConfig
from rwae_audio.data.level import Blocks, Level, measured, waveform
from rwae_audio.files import InputError


class Reading:
    """A recording with its level, its log-mels and its F0.

    Attributes:
        mel: The settings of the log-mels.
        level: The level of the recording before any gain.
        source_rate: The sample rate of the file or of the waveform in Hz.
        notes: Messages for the user about the file.
    """

    def __init__(
        self, blocks: Blocks, mel: MelConfig, name: str, source_rate: int, notes: tuple[str, ...] = ()
    ) -> None:
        """Measure the level of a recording.

        Args:
            blocks: A function that returns the samples from the start, in blocks (n,), at the sample rate of `mel`.
            mel: The settings of the log-mels.
            name: The name of the recording in messages.
            source_rate: The sample rate of the file or of the waveform in Hz.
            notes: Messages for the user about the file.

        Raises:
            InputError: The recording is shorter than an analysis window.
        """
        self.mel, self.source_rate, self.notes = mel, source_rate, notes
        self._speech = measured(blocks, mel.sample_rate)
        self.level: Level = self._speech.level
        if self.level.count < mel.shortest:
            duration, shortest = (1000 * n / mel.sample_rate for n in (self.level.count, mel.shortest))
            raise InputError(f"{name} is {duration:.0f} ms long; expected at least {shortest:.0f} ms")

    def samples(self) -> Iterator[np.ndarray]:
        """Yield the samples without any gain, (n,) at a time."""
        return iter(self._speech.read())

    def speech(self) -> Iterator[np.ndarray]:
        """Yield the samples after the front end, at the nominal level, (n,) at a time."""
        return self._speech.blocks()

    def log_mels(self) -> Iterator[Tensor]:
        """Yield the log-mels in chunks (n, n_mels)."""
        return self._speech.log_mels(self.mel)

    @functools.cached_property
    def track(self) -> Track:
        """The output of SwiftF0."""
        return tracked(self._speech.blocks(), self.mel.sample_rate)

    @property
    def register(self) -> Register | None:
        """The pitch range of the voice, or None if there are too few voiced frames."""
        return register_of(self.track)

    @property
    def f0(self) -> Tensor:
        """F0 in Hz at the frames of the log-mels, 0 in unvoiced frames, (T,)."""
        return torch.from_numpy(contour(self.track, self.level.count, self.mel)).float()


def read_file(path: str | Path, mel: MelConfig, silence: bool = False) -> Reading:
    """Read an audio file of any length. Decoded samples are stored in a temporary file, not in memory.

    Args:
        path: The audio file.
        mel: The settings of the log-mels.
        silence: Whether the recording may be silent.

    Raises:
        InputError: The file cannot be decoded, or the recording is shorter than an analysis window or silent.
    """
    recording = open_audio(path, mel.sample_rate)
    blocks = _stored(recording.blocks())
    return _audible(Reading(blocks, mel, str(path), recording.source_rate, recording.notes), str(path), silence)


def read_waveform(
    samples: np.ndarray | Tensor, sample_rate: int, mel: MelConfig, name: str, silence: bool = False
) -> Reading:
    """Read a waveform in memory, and resample it if necessary.

    Args:
        samples: The samples of one channel, floats or integers, in one of the shapes that `level.waveform` accepts.
        sample_rate: The sample rate in Hz.
        mel: The settings of the log-mels.
        name: The name of the waveform in messages.
        silence: Whether the waveform may be silent.

    Raises:
        InputError: The samples have another shape or type, the sample rate is not supported, or the waveform is shorter
            than an analysis window or silent.
    """
    if not isinstance(sample_rate, int) or not MIN_RATE <= sample_rate <= MAX_RATE:
        raise InputError(f"sample_rate is {sample_rate}; expected {MIN_RATE} to {MAX_RATE} Hz")
    array = resample(waveform(samples, name), sample_rate, mel.sample_rate)
    return _audible(Reading(lambda: [array], mel, name, sample_rate), name, silence)


def _audible(reading: Reading, name: str, silence: bool) -> Reading:
    """Return a recording. Raises InputError if it is silent and `silence` is false."""
    if reading.level.silent and not silence:
        raise InputError(f"{name} is silent; expected speech")
    return reading


def _stored(blocks: Iterable[np.ndarray]) -> Blocks:
    """Write samples in blocks (n,) to a temporary file, and return a function that reads them from the start."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed when the samples are no longer used)
    for block in blocks:
        file.write(np.asarray(block, dtype=np.float32).tobytes())
    file.flush()
    count = file.tell() // 4
    samples = np.memmap(file, dtype=np.float32, mode="r", shape=(count,)) if count else np.zeros(0, dtype=np.float32)
    return lambda: (np.array(samples[i : i + BLOCK]) for i in range(0, count, BLOCK))
