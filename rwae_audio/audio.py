"""Audio files in and out: the only file that opens audio. Whatever is wrong with one is said in one line."""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
import struct
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from rwae_audio.files import InputError, whole_file

MIN_RATE, MAX_RATE, MAX_CHANNELS = 8000, 192000, 64
KINDS = "WAV, FLAC, Ogg, MP3 or NIST SPHERE audio"
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "NIST")  # libsndfile's names of KINDS
UNKNOWN = (0, 0x7FFFF000, 0xFFFFFFFF)  # lengths that writers to a pipe (SoX the second) leave in a RIFF header
BLOCK = 1 << 20  # values (samples × channels) that are read or written at once
MAX_SAMPLES = 1 << 35  # two days at 192 kHz; libsndfile says more of FLAC without a length


@dataclass(frozen=True)
class Audio:
    """samples (N,), float32, one channel, at `sample_rate` Hz; the file had `source_rate` Hz and `channels`."""

    samples: np.ndarray
    sample_rate: int
    source_rate: int
    channels: int


def load_audio(path: str | Path, sample_rate: int = 16000, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """The samples (N,) of a file, float32, its channels averaged, resampled to `sample_rate` Hz. Raises InputError.

    start, end: the stretch that is read, in seconds, as read_audio has it.
    """
    return read_audio(path, sample_rate, start, end).samples


def read_audio(path: str | Path, sample_rate: int = 16000, start: float = 0.0, end: float | None = None) -> Audio:
    """A WAV, FLAC, Ogg (Vorbis, Opus), MP3 or SPHERE file of 8 to 192 kHz and up to 64 channels.

    Channels are averaged; another rate is resampled (soxr). Raises InputError when the file is missing, not a regular
    file, not audio, empty, cut short, holds NaN or infinite samples, or is outside these limits.

    start, end: the stretch that is read, in seconds; the end is the file's when None. Only the stretch is decoded, and
    what lies outside it is not checked.
    """
    if start or end is not None:
        return _read_stretch(_regular(path), sample_rate, start, end)
    recording = open_audio(path, sample_rate)
    return Audio(np.concatenate([*recording.blocks()]), sample_rate, recording.source_rate, recording.channels)


def duration(path: str | Path) -> float:
    """The seconds of a file, as its header has them. Raises InputError for a header that read_audio refuses."""
    path = _regular(path)
    with _opened(path) as sound:
        return sound.frames / sound.samplerate


def _read_stretch(path: Path, sample_rate: int, start: float, end: float | None) -> Audio:
    with _opened(path) as sound:
        rate = sound.samplerate
        first = min(round(start * rate), sound.frames)
        last = sound.frames if end is None else min(round(end * rate), sound.frames)
        sound.seek(first)
        samples = sound.read(last - first, dtype="float32", always_2d=True)
        if not len(samples) or not np.isfinite(samples).all():
            fault = "NaN or infinite samples" if len(samples) else "no samples"
            raise InputError(f"{path} holds {fault} from {start:g} s on; expected finite samples there")
        mono = [samples.mean(axis=1) if sound.channels > 1 else samples[:, 0]]
        blocks = mono if rate == sample_rate else _resampled(mono, rate, sample_rate)
        return Audio(np.concatenate([*blocks]), sample_rate, rate, sound.channels)


@dataclass(frozen=True)
class Recording:
    """A file whose header is fine: `source_rate` Hz, `channels`. It is not kept open."""

    path: Path
    sample_rate: int
    source_rate: int
    channels: int

    def blocks(self) -> Iterator[np.ndarray]:
        """Its samples from the start, float32, (n,) at a time: what read_audio gives, in memory that does not grow with
        the file. Raises InputError as read_audio does, for what is wrong further on when it comes to that."""
        with _opened(self.path) as sound:
            blocks = _mono(self.path, sound)
            if self.source_rate != self.sample_rate:
                blocks = _resampled(blocks, self.source_rate, self.sample_rate)
            yield from blocks


def open_audio(path: str | Path, sample_rate: int = 16000) -> Recording:
    """A recording to be read in blocks at `sample_rate` Hz. Raises InputError for a header that read_audio refuses."""
    path = _regular(path)
    with _opened(path) as sound:
        return Recording(path, sample_rate, sound.samplerate, sound.channels)


def write_audio(path: str | Path, samples: np.ndarray, sample_rate: int) -> float:
    """Write samples (N,) as 16-bit WAV (or FLAC, by the suffix), whole or not at all; returns the gain applied.

    Nothing is clipped: a peak over 1 is scaled to 0.999, and the factor returned (1.0 otherwise). Raises InputError.
    """
    return write_blocks(path, [samples], sample_rate)


def write_blocks(
    path: str | Path, blocks: Iterable[np.ndarray], sample_rate: int, loudness: float | None = None
) -> float:
    """write_audio of samples that come in blocks (n,), in memory that does not grow with them.

    loudness: the RMS that the whole is brought to first. Since the gain is known once the last sample is, they wait
    as float32 in a file without a name beside `path`.
    """
    path = Path(path)
    if path.suffix.lower() not in (".wav", ".flac"):
        raise InputError(f"cannot write {path}: the suffix is {path.suffix or 'missing'!r}; expected .wav or .flac")
    try:
        with whole_file(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as waiting:
            count, peak, power = 0, 0.0, 0.0
            for block in blocks:
                block = np.asarray(block, dtype=np.float32)
                waiting.write(block.tobytes())
                count, peak = count + len(block), max(peak, float(np.abs(block).max(initial=0.0)))
                power += float(np.square(block, dtype=np.float64).sum())
            level = 1.0 if loudness is None else loudness / max(math.sqrt(power / max(count, 1)), 1e-8)
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


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """The file within the limits; whatever goes wrong with it, here or in the block, is an InputError.

    libsndfile has to tell the format from the bytes alone: by the name it would take any text for headerless audio
    (.raw, .au) and let its MP3 decoder write on stderr.
    """
    try:
        with path.open("rb", buffering=0) as file:
            source = _whole(path, file)
            source.seek(0)
            handle = source if isinstance(source, io.BytesIO) else source.fileno()
            with soundfile.SoundFile(handle, closefd=False) as sound:
                _check(path, sound)
                yield sound
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{path} cannot be read as audio ({error.error_string.rstrip('.')}); expected {KINDS}"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected {KINDS}") from error


def _check(path: Path, sound: soundfile.SoundFile) -> None:
    rate = sound.samplerate
    if sound.format not in FORMATS:
        raise InputError(f"{path} is {sound.format} audio; expected {KINDS}")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"{path} has a sample rate of {rate} Hz; expected {MIN_RATE} to {MAX_RATE}")
    if sound.channels > MAX_CHANNELS:
        raise InputError(f"{path} has {sound.channels} channels; expected at most {MAX_CHANNELS}")
    if sound.frames >= MAX_SAMPLES:
        raise InputError(f"{path} does not say its length, as FLAC written to a pipe; expected a FLAC file that does")


def _mono(path: Path, sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Blocks (n,), float32, of an open file at its own rate, its channels averaged."""
    count, size = 0, BLOCK // sound.channels
    while len(samples := sound.read(size, dtype="float32", always_2d=True)):
        if not np.isfinite(samples).all():
            bad = (count + int((~np.isfinite(samples)).any(axis=1).argmax())) / sound.samplerate
            raise InputError(
                f"{path} holds a NaN or infinite sample (the first at {bad:.3f} s); expected finite samples"
            )
        count += len(samples)
        yield samples[:, 0].copy() if sound.channels == 1 else samples.mean(axis=1)
    if count < sound.frames and sound.format != "MP3":  # MP3's is an estimate
        raise InputError(f"{path} is cut short: {count} samples; its header says {sound.frames}")
    if count == 0:
        raise InputError(f"{path} holds no samples; expected audio")


def _resampled(blocks: Iterable[np.ndarray], rate: int, wanted: int) -> Iterator[np.ndarray]:
    """Blocks (n,) at `rate` → blocks at `wanted` Hz, ⌈N · wanted / rate⌉ samples in all; the same as in one piece."""
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


def _whole(path: Path, file: io.FileIO) -> io.FileIO | io.BytesIO:
    """The file itself, or a copy that libsndfile understands. It reads what there is of a SPHERE or RIFF file that was
    cut short; here that is an error."""
    head = file.read(12)
    if not head:
        raise InputError(f"{path} is empty; expected {KINDS}")
    size = os.fstat(file.fileno()).st_size
    if head.startswith(b"NIST"):
        _check_sphere(path, file, size)
    elif head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        return _checked_riff(path, file, size)
    return file


def _check_sphere(path: Path, file: io.FileIO, size: int) -> None:
    """NIST SPHERE: `NIST_1A`, the header's size, lines `name -type value`, `end_head`."""
    file.seek(0)
    first = file.read(16)
    length = int(first[8:16]) if first[8:16].strip().isdigit() else 0
    if length < len(first):
        raise InputError(f"{path} has a SPHERE header without its size; expected a line such as 1024 after NIST_1A")
    header = first + file.read(length - 16)
    if len(header) < length or b"end_head" not in header:
        raise InputError(f"{path} has a SPHERE header of {len(header)} bytes without its end; expected {length} bytes")
    fields = {}
    for line in header.decode("latin-1").split("end_head")[0].splitlines()[2:]:
        name, _, rest = line.partition(" ")
        fields[name] = rest.partition(" ")[2].strip()
    coding = fields.get("sample_coding", "pcm")
    if coding not in ("pcm", "ulaw", "mu-law", "alaw"):
        raise InputError(
            f"{path} is SPHERE coded as {coding}; expected pcm (decode it with sph2pipe or w_decode first)"
        )
    try:
        promised = (
            int(fields["sample_count"]) * int(fields.get("channel_count", 1)) * int(fields.get("sample_n_bytes", 2))
        )
    except (KeyError, ValueError):
        raise InputError(f"{path} has a SPHERE header without sample_count; expected one") from None
    if size - length < promised:
        raise InputError(f"{path} is cut short: {size - length} bytes of samples; its SPHERE header says {promised}")


def _checked_riff(path: Path, file: io.FileIO, size: int) -> io.FileIO | io.BytesIO:
    """RIFF: walk the chunks to `data`, whose length may be unknown; RF64 has it in `ds64`."""
    place, long_length = 12, 0
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        there = size - place - 8
        if name == b"ds64" and there >= 16:
            long_length = struct.unpack("<8xQ", file.read(16))[0]
        if name == b"data":
            promised = long_length if length == 0xFFFFFFFF else 0 if length in UNKNOWN else length
            if promised > there:
                raise InputError(f"{path} is cut short: {there} bytes of samples; its RIFF header says {promised}")
            file.seek(4)
            end = struct.unpack("<I", file.read(4))[0] + 8
            if length == 0 and (end - 8 in UNKNOWN or end < size):  # samples that the header does not know of
                file.seek(0)
                copy = io.BytesIO(file.read())
                copy.getbuffer()[place + 4 : place + 8] = b"\xff" * 4
                return copy
            return file
        place += 8 + length + length % 2
    return file
