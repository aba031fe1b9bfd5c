"""One reading of a recording: it is decoded once, and gives its level, its log-mels and its F0."""

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
    """A recording as a converter takes it in.

    Attributes:
        mel: The settings of the log-mels.
        level: The level of the recording as it was read.
        source_rate: The sample rate of the file in Hz, or of the waveform.
        notes: What a user should be told of the file, a line each.
    """

    def __init__(
        self, blocks: Blocks, mel: MelConfig, name: str, source_rate: int, notes: tuple[str, ...] = ()
    ) -> None:
        """Measure a recording whose samples come at the rate of `mel`. Raises InputError where it is under one window."""
        self.mel, self.source_rate, self.notes = mel, source_rate, notes
        self._speech = measured(blocks, mel.sample_rate)
        self.level: Level = self._speech.level
        if self.level.count < mel.shortest:
            duration, shortest = (1000 * n / mel.sample_rate for n in (self.level.count, mel.shortest))
            raise InputError(f"{name} is {duration:.0f} ms long; expected at least {shortest:.0f} ms")

    def samples(self) -> Iterator[np.ndarray]:
        """Yield the samples as they were read, (n,) at a time."""
        return iter(self._speech.read())

    def log_mels(self) -> Iterator[Tensor]:
        """Yield the log-mels, (n, n_mels) at a time."""
        return self._speech.log_mels(self.mel)

    @functools.cached_property
    def track(self) -> Track:
        """The track of SwiftF0."""
        return tracked(self._speech.blocks(), self.mel.sample_rate)

    @property
    def register(self) -> Register | None:
        """The register of the voice, or None where there is none."""
        return register_of(self.track)

    @property
    def f0(self) -> Tensor:
        """The F0 contour in Hz at the log-mels, 0 without a voice, (T,)."""
        return torch.from_numpy(contour(self.track, self.level.count, self.mel)).float()


def read_file(path: str | Path, mel: MelConfig, silence: bool = False) -> Reading:
    """Read a recording of any length.

    Its samples wait in a temporary file, so that it is decoded once.

    Raises:
        InputError: For whatever is wrong with the file, for a recording under one analysis window, and for a silent one
            unless `silence` allows it.
    """
    recording = open_audio(path, mel.sample_rate)
    waiting = _waiting(recording.blocks())
    return _audible(Reading(waiting, mel, str(path), recording.source_rate, recording.notes), str(path), silence)


def read_waveform(
    samples: np.ndarray | Tensor, sample_rate: int, mel: MelConfig, name: str, silence: bool = False
) -> Reading:
    """Read a waveform (N,) of one channel, floats or integers, at `sample_rate` Hz; another rate than the model's is resampled.

    Raises:
        InputError: When it is no waveform (`level.waveform` says which are taken), at a rate that is not supported, under one
            analysis window, or silent and `silence` does not allow it. The message calls it `name`.
    """
    if not isinstance(sample_rate, int) or not MIN_RATE <= sample_rate <= MAX_RATE:
        raise InputError(f"sample_rate is {sample_rate}; expected {MIN_RATE} to {MAX_RATE} Hz")
    array = resample(waveform(samples, name), sample_rate, mel.sample_rate)
    return _audible(Reading(lambda: [array], mel, name, sample_rate), name, silence)


def _audible(reading: Reading, name: str, silence: bool) -> Reading:
    if reading.level.silent and not silence:
        raise InputError(f"{name} is silent; expected speech")
    return reading


def _waiting(blocks: Iterable[np.ndarray]) -> Blocks:
    """Return blocks that can be read again, of samples (n,) that are written into a temporary file without a name."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the samples)
    for block in blocks:
        file.write(np.asarray(block, dtype=np.float32).tobytes())
    file.flush()
    count = file.tell() // 4
    samples = np.memmap(file, dtype=np.float32, mode="r", shape=(count,)) if count else np.zeros(0, dtype=np.float32)
    return lambda: (np.array(samples[i : i + BLOCK]) for i in range(0, count, BLOCK))
