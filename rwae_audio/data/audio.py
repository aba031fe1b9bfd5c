"""Reading and writing of audio files. A damaged file raises an error and is never read in part."""

from __future__ import annotations

import functools
import math
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from rwae_audio.data.containers import KINDS
from rwae_audio.data.decoding import BLOCK, open_stream
from rwae_audio.data.level import LevelMeter
from rwae_audio.files import InputError, whole_file

SILENT = 1e-6  # share of the loudest channel's power (−60 dB) under which a channel is silent
CANCELLED = 0.1  # share of the sum of the channels' powers; they cancel each other if their sum has less power


@dataclass(frozen=True)
class Audio:
    """The samples of a recording.

    Attributes:
        samples: One channel, (N,), float32.
        sample_rate: Sample rate of `samples` in Hz.
        source_rate: Sample rate of the file in Hz.
        channels: Number of channels of the file.
        notes: Remarks on the file for the user, a line each.
    """

    samples: np.ndarray
    sample_rate: int
    source_rate: int
    channels: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """A recording with a valid header, which can be read in blocks. The file is open only while it is read.

    Attributes:
        path: The file.
        sample_rate: Sample rate in Hz of the blocks.
        source_rate: Sample rate of the file in Hz.
        channels: Number of channels of the file.
        used: The indices of the channels that are averaged.
        notes: Remarks on the file for the user, a line each.
    """

    path: Path
    sample_rate: int
    source_rate: int
    channels: int
    used: tuple[int, ...] = (0,)
    notes: tuple[str, ...] = ()

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the samples from the start, in blocks (n,), float32, in memory that does not grow with the file.

        Raises InputError as `read_audio` does, at the block that is damaged.
        """
        with open_stream(self.path) as stream:
            blocks: Iterator[np.ndarray] = map(functools.partial(_average_channels, used=self.used), stream.blocks)
            if self.source_rate != self.sample_rate:
                blocks = resampled_blocks(blocks, self.source_rate, self.sample_rate)
            yield from blocks


def load_audio(path: str | Path, sample_rate: int = 16000, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """Return the samples (N,), float32, of a recording as one channel.

    Args:
        path: The file, in a format of `read_audio`.
        sample_rate: Sample rate of the result in Hz.
        start: Start of the stretch to read, in seconds.
        end: End of the stretch in seconds, or None for the end of the file.

    Raises:
        InputError: The file cannot be read, as in `read_audio`.
    """
    return read_audio(path, sample_rate, start, end).samples


def read_audio(path: str | Path, sample_rate: int = 16000, start: float = 0.0, end: float | None = None) -> Audio:
    """Read a WAV, FLAC, Ogg (Vorbis, Opus), MP3 or SPHERE file of 8 to 192 kHz and up to 64 channels.

    The optional PyAV (`pip install 'rwae-audio[formats]'`) adds M4A, AAC, WebM, AIFF, CAF, AU, WMA and AMR. The channels
    that are not silent are averaged. If they cancel each other, the loudest channel is read instead.

    Args:
        path: The file.
        sample_rate: Sample rate of the result in Hz (resampled by soxr).
        start: Start of the stretch to read, in seconds. Earlier parts of WAV, FLAC and SPHERE are not checked.
        end: End of the stretch in seconds, or None for the end of the file. Later parts are not checked.

    Raises:
        InputError: The file is missing, not a regular file, not audio, empty, cut short or damaged, a sample is not
            finite, or the sample rate or number of channels is outside these limits.
    """
    if start or end is not None:
        return _read_stretch(_regular_file(path), sample_rate, start, end)
    recording = open_audio(path, sample_rate)
    samples = np.concatenate([*recording.blocks()])
    return Audio(samples, sample_rate, recording.source_rate, recording.channels, recording.notes)


def _read_stretch(path: Path, sample_rate: int, start: float, end: float | None) -> Audio:
    """Read a stretch of a recording, as `read_audio` does."""
    with open_stream(path, start) as stream:
        rate, channels, blocks = stream.rate, stream.channels, []
        remaining = math.inf if end is None else round(end * rate) - round(start * rate)
        for samples in stream.blocks if remaining > 0 else ():
            blocks.append(samples if len(samples) < remaining else samples[: int(remaining)])
            remaining -= len(samples)
            if remaining <= 0:
                break
    if not blocks:
        stretch = f"from {start:g} s on" if end is None else f"from {start:g} s to {end:g} s"
        raise InputError(f"{path} holds no samples {stretch}; expected a stretch of the recording")
    used, notes = _choose_channels(channels, blocks)
    mono = [_average_channels(samples, used) for samples in blocks]
    samples = np.concatenate([*(mono if rate == sample_rate else resampled_blocks(mono, rate, sample_rate))])
    return Audio(samples, sample_rate, rate, channels, notes)


def duration(path: str | Path) -> float:
    """Return the duration of a recording in seconds, from its header or else by decoding it.

    Raises InputError if the file cannot be read, as in `read_audio`.
    """
    with open_stream(_regular_file(path)) as stream:
        length = sum(map(len, stream.blocks)) if stream.length is None else stream.length
        return length / stream.rate


def open_audio(path: str | Path, sample_rate: int = 16000) -> Recording:
    """Open a recording that is to be read in blocks.

    A file with several channels is read once here, to decide which of them are averaged.

    Args:
        path: The file.
        sample_rate: Sample rate of the blocks in Hz.

    Raises:
        InputError: The header is invalid or outside the limits of `read_audio`.
    """
    path = _regular_file(path)
    with open_stream(path) as stream:
        used, notes = _choose_channels(stream.channels, stream.blocks)
        return Recording(path, sample_rate, stream.rate, stream.channels, used, notes)


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Resample a waveform (N,) from `rate` to `new_rate`, in Hz, with soxr. The result has ⌈N · new_rate / rate⌉ samples."""
    return samples if rate == new_rate else np.concatenate([*resampled_blocks([samples], rate, new_rate)])


def write_audio(path: str | Path, samples: np.ndarray, sample_rate: int) -> float:
    """Write a waveform as 16-bit WAV or FLAC, whole or not at all.

    A waveform with a peak over 1 is scaled to a peak of 0.999 instead of clipped.

    Args:
        path: The file, with the suffix .wav or .flac.
        samples: The samples, (N,), full scale ±1.
        sample_rate: Sample rate in Hz.

    Returns:
        The gain of that scaling, 1.0 without it.

    Raises:
        InputError: The file cannot be written.
    """
    return write_blocks(path, [samples], sample_rate)


def write_blocks(
    path: str | Path, blocks: Iterable[np.ndarray], sample_rate: int, loudness: float | None = None
) -> float:
    """Write a waveform that comes in blocks, as `write_audio` does, in memory that does not grow with it.

    The gain is known only after the last block. Until then the samples are stored in an unnamed temporary file.

    Args:
        path: The file, with the suffix .wav or .flac.
        blocks: The samples, in blocks (n,), full scale ±1.
        sample_rate: Sample rate in Hz.
        loudness: The RMS of the speech (level.py) to which the samples are scaled first, or None for no such scaling.

    Returns:
        The gain against clipping, as in `write_audio`.

    Raises:
        InputError: The file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".wav", ".flac"):
        raise InputError(f"cannot write {path}: the suffix is {path.suffix or 'missing'!r}; expected .wav or .flac")
    try:
        with whole_file(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as waiting:
            meter = LevelMeter(sample_rate)
            for block in blocks:
                block = np.asarray(block, dtype=np.float32)
                waiting.write(block.tobytes())
                meter.add(block)
            peak, active = meter.level.peak, meter.level.active
            level = 1.0 if loudness is None else loudness / max(active, 1e-8)
            gain = 0.999 / (level * peak) if level * peak > 1 else 1.0
            waiting.seek(0)
            kind = path.suffix[1:].upper()
            with (
                temporary.open("w+b") as file,  # libsndfile accepts only names in UTF-8
                soundfile.SoundFile(file, "w", sample_rate, 1, subtype="PCM_16", format=kind) as sound,
            ):
                while data := waiting.read(4 * BLOCK):
                    sound.write(np.frombuffer(data, dtype=np.float32) * np.float64(level * gain))
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"cannot write {path} ({error}); expected room and permission to write it") from error
    return gain


def _regular_file(path: str | Path) -> Path:
    """Return the path of a regular file. Raises InputError for other paths; a device or a pipe is never opened."""
    path = Path(path)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected {KINDS}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise InputError(f"{str(path)!r} cannot be opened ({error}); expected {KINDS}") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a folder; expected {KINDS}")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is not a regular file; expected {KINDS}")
    return path


def _average_channels(samples: np.ndarray, used: tuple[int, ...]) -> np.ndarray:
    """Return the mean (n,) of the channels with the indices `used`, given samples (n, channels)."""
    if len(used) == 1:
        return samples[:, used[0]].copy()
    return (samples if len(used) == samples.shape[1] else samples[:, used]).mean(axis=1)


def _choose_channels(channels: int, blocks: Iterable[np.ndarray]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Choose the channels to average, by their powers and the power of their sum.

    Args:
        channels: Number of channels.
        blocks: The samples, in blocks (n, channels).

    Returns:
        The indices of the channels, and notes on the channels that are left out.
    """
    if channels == 1:
        return (0,), ()
    powers, power_of_sum = np.zeros(channels), 0.0
    for samples in blocks:
        powers += np.square(samples, dtype=np.float64).sum(axis=0)
        power_of_sum += float(np.square(samples.sum(axis=1, dtype=np.float64)).sum())
    used = [int(i) for i in np.flatnonzero(powers > SILENT * powers.max())]
    if not used:  # silence on every channel
        return tuple(range(channels)), ()
    loudest = int(powers.argmax())
    if power_of_sum < CANCELLED * powers[used].sum():
        names = ", ".join(str(i + 1) for i in used[:-1]) + f" and {used[-1] + 1}"
        which = "the louder one" if len(used) == 2 else "the loudest"
        note = f"channels {names} cancel each other; channel {loudest + 1}, {which}, is read"
        return (loudest,), (note,)
    silent = [str(i + 1) for i in range(channels) if i not in used]
    if not silent:
        return tuple(used), ()
    note = f"channel {silent[0]} is silent" if len(silent) == 1 else f"channels {', '.join(silent)} are silent"
    return tuple(used), (f"{note} and left out of the average",)


def resampled_blocks(blocks: Iterable[np.ndarray], rate: int, new_rate: int) -> Iterator[np.ndarray]:
    """Resample a waveform that comes in blocks (n,). The result has the samples of `resample`.

    Args:
        blocks: The samples, in blocks (n,).
        rate: Sample rate of the blocks in Hz.
        new_rate: Sample rate of the result in Hz.
    """
    import soxr

    stream, count_in, count_out = soxr.ResampleStream(rate, new_rate, 1, dtype="float32", quality="HQ"), 0, 0
    for block in blocks:
        count_in += len(block)
        out = stream.resample_chunk(block)
        count_out += len(out)
        yield out
    rest = np.zeros(-(-count_in * new_rate // rate) - count_out, dtype=np.float32)
    out = stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)[: len(rest)]
    rest[: len(out)] = out
    yield rest
