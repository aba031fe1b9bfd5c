"""Audio files in and out. A file is read whole or refused in one line."""

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

SILENT = 1e-6  # a channel's power as a share of the loudest one's, under which it counts as silent (-60 dB)
CANCELLED = 0.1  # the power of the sum of channels, as a share of what it would be if they were uncorrelated


@dataclass(frozen=True)
class Audio:
    """Samples of a recording.

    Attributes:
        samples: (N,), float32, one channel, at `sample_rate` Hz.
        source_rate: the file's sample rate in Hz.
        channels: the file's number of channels.
        notes: what a user should be told of this file, a line each.
    """

    samples: np.ndarray
    sample_rate: int
    source_rate: int
    channels: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """A file whose header is fine. It is not kept open.

    Attributes:
        sample_rate: the rate in Hz at which it is read.
        source_rate: the file's sample rate in Hz.
        channels: the file's number of channels.
        used: the channels, from 0, that are averaged.
        notes: what a user should be told of this file, a line each.
    """

    path: Path
    sample_rate: int
    source_rate: int
    channels: int
    used: tuple[int, ...] = (0,)
    notes: tuple[str, ...] = ()

    def blocks(self) -> Iterator[np.ndarray]:
        """Its samples from the start, float32, (n,) at a time: what read_audio gives, in memory that does not grow with
        the file. Raises InputError as read_audio does, for what is wrong further on when it comes to that."""
        with open_stream(self.path) as stream:
            blocks = map(functools.partial(_average, used=self.used), stream.blocks)
            same = self.source_rate == self.sample_rate
            yield from blocks if same else resampled_blocks(blocks, self.source_rate, self.sample_rate)


def load_audio(path: str | Path, sample_rate: int = 16000, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """The samples (N,) of a file, float32, its channels averaged, resampled to `sample_rate` Hz. Raises InputError.

    start, end: the stretch that is read, in seconds, as in read_audio.
    """
    return read_audio(path, sample_rate, start, end).samples


def read_audio(path: str | Path, sample_rate: int = 16000, start: float = 0.0, end: float | None = None) -> Audio:
    """Read a WAV, FLAC, Ogg (Vorbis, Opus), MP3 or SPHERE file of 8 to 192 kHz and up to 64 channels.

    The optional PyAV (`pip install 'rwae-audio[formats]'`) adds M4A, AAC, WebM, AIFF, CAF, AU, WMA and AMR. Channels are
    averaged, but for silent ones; of channels that cancel each other the loudest is read. Another rate is resampled (soxr).

    start, end: the stretch that is read, in seconds; the end is the file's when None. What lies after the stretch is not
    checked, nor what lies before it in WAV, FLAC and SPHERE.

    Raises:
        InputError: the file is missing, not a regular file, not audio, empty, cut short, damaged, holds NaN or infinite
            samples, or is outside these limits.
    """
    if start or end is not None:
        return _read_stretch(_regular(path), sample_rate, start, end)
    recording = open_audio(path, sample_rate)
    samples = np.concatenate([*recording.blocks()])
    return Audio(samples, sample_rate, recording.source_rate, recording.channels, recording.notes)


def _read_stretch(path: Path, sample_rate: int, start: float, end: float | None) -> Audio:
    with open_stream(path, start) as stream:
        rate, channels, blocks = stream.rate, stream.channels, []
        wanted = math.inf if end is None else round(end * rate) - round(start * rate)
        for samples in stream.blocks if wanted > 0 else ():
            blocks.append(samples if len(samples) < wanted else samples[: int(wanted)])
            wanted -= len(samples)
            if wanted <= 0:
                break
    if not blocks:
        stretch = f"from {start:g} s on" if end is None else f"from {start:g} s to {end:g} s"
        raise InputError(f"{path} holds no samples {stretch}; expected a stretch of the recording")
    used, notes = _choose(channels, blocks)
    mono = [_average(samples, used) for samples in blocks]
    samples = np.concatenate([*(mono if rate == sample_rate else resampled_blocks(mono, rate, sample_rate))])
    return Audio(samples, sample_rate, rate, channels, notes)


def duration(path: str | Path) -> float:
    """The seconds of a file: as its header says, or else by decoding it. Raises InputError as open_audio does."""
    with open_stream(_regular(path)) as stream:
        frames = sum(map(len, stream.blocks)) if stream.frames is None else stream.frames
        return frames / stream.rate


def open_audio(path: str | Path, sample_rate: int = 16000) -> Recording:
    """A recording to be read in blocks at `sample_rate` Hz.

    A file of several channels is read once, to tell which of them to average. Raises InputError for a header that
    read_audio refuses.
    """
    path = _regular(path)
    with open_stream(path) as stream:
        used, notes = _choose(stream.channels, stream.blocks)
        return Recording(path, sample_rate, stream.rate, stream.channels, used, notes)


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Resample a waveform (N,) from `rate` to `wanted` Hz: ⌈N · wanted / rate⌉ samples, by soxr."""
    return samples if rate == wanted else np.concatenate([*resampled_blocks([samples], rate, wanted)])


def write_audio(path: str | Path, samples: np.ndarray, sample_rate: int) -> float:
    """Write samples (N,) as 16-bit WAV (or FLAC, by the suffix), whole or not at all; returns the gain applied.

    Nothing is clipped: a peak over 1 is scaled to 0.999, and the factor returned (1.0 otherwise). Raises InputError.
    """
    return write_blocks(path, [samples], sample_rate)


def write_blocks(
    path: str | Path, blocks: Iterable[np.ndarray], sample_rate: int, loudness: float | None = None
) -> float:
    """write_audio of samples that come in blocks (n,), in memory that does not grow with them.

    loudness: the RMS of speech (level.py) that the whole is brought to first. Since the gain is known only after the last
    sample, all of them wait as float32 in a file without a name beside `path`.
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
                temporary.open("w+b") as file,  # libsndfile takes no name that is not UTF-8
                soundfile.SoundFile(file, "w", sample_rate, 1, subtype="PCM_16", format=kind) as sound,
            ):
                while data := waiting.read(4 * BLOCK):
                    sound.write(np.frombuffer(data, dtype=np.float32) * np.float64(level * gain))
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"cannot write {path} ({error}); expected room and permission to write it") from error
    return gain


def _regular(path: str | Path) -> Path:
    """The path, if it names a regular file: a device or a pipe is never opened."""
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


def _average(samples: np.ndarray, used: tuple[int, ...]) -> np.ndarray:
    """(n, channels) → (n,), the mean of the channels that are used."""
    if len(used) == 1:
        return samples[:, used[0]].copy()
    return (samples if len(used) == samples.shape[1] else samples[:, used]).mean(axis=1)


def _choose(channels: int, blocks: Iterable[np.ndarray]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The channels to average, and what to say of the others, from the power of each and of their sum."""
    if channels == 1:
        return (0,), ()
    powers, together = np.zeros(channels), 0.0
    for samples in blocks:
        powers += np.square(samples, dtype=np.float64).sum(axis=0)
        together += float(np.square(samples.sum(axis=1, dtype=np.float64)).sum())
    used = [int(i) for i in np.flatnonzero(powers > SILENT * powers.max())]
    if not used:  # silence on every channel
        return tuple(range(channels)), ()
    loudest = int(powers.argmax())
    if together < CANCELLED * powers[used].sum():
        names = ", ".join(str(i + 1) for i in used[:-1]) + f" and {used[-1] + 1}"
        which = "the louder one" if len(used) == 2 else "the loudest"
        note = f"channels {names} cancel each other; channel {loudest + 1}, {which}, is read"
        return (loudest,), (note,)
    silent = [str(i + 1) for i in range(channels) if i not in used]
    if not silent:
        return tuple(used), ()
    note = f"channel {silent[0]} is silent" if len(silent) == 1 else f"channels {', '.join(silent)} are silent"
    return tuple(used), (f"{note} and left out of the average",)


def resampled_blocks(blocks: Iterable[np.ndarray], rate: int, wanted: int) -> Iterator[np.ndarray]:
    """Resample blocks (n,) from `rate` to `wanted` Hz: ⌈N · wanted / rate⌉ samples in all, the same as in one piece."""
    import soxr

    stream, came, went = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ"), 0, 0
    for block in blocks:
        came += len(block)
        out = stream.resample_chunk(block)
        went += len(out)
        yield out
    rest = np.zeros(-(-came * wanted // rate) - went, dtype=np.float32)
    out = stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)[: len(rest)]
    rest[: len(out)] = out
    yield rest
