"""Audio files in and out: the only file that opens audio. Whatever is wrong with one is said in one line."""

from __future__ import annotations

import io
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from rwae_audio.files import InputError, whole_file

MIN_RATE, MAX_RATE, MAX_CHANNELS = 8000, 192000, 64
KINDS = "WAV, FLAC, Ogg, MP3 or NIST SPHERE audio"
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "NIST")  # libsndfile's names of KINDS
UNKNOWN = (0, 0x7FFFF000, 0xFFFFFFFF)  # lengths that writers to a pipe (SoX the second) leave in a RIFF header
MAX_SAMPLES = 1 << 35  # two days at 192 kHz; libsndfile says more of FLAC without a length


@dataclass(frozen=True)
class Audio:
    """samples (N,), float32, one channel, at `sample_rate` Hz; the file had `source_rate` Hz and `channels`."""

    samples: np.ndarray
    sample_rate: int
    source_rate: int
    channels: int


def load_audio(path: str | Path, sample_rate: int = 16000) -> np.ndarray:
    """The samples (N,) of a file, float32, its channels averaged, resampled to `sample_rate` Hz. Raises InputError."""
    return read_audio(path, sample_rate).samples


def read_audio(path: str | Path, sample_rate: int = 16000) -> Audio:
    """A WAV, FLAC, Ogg (Vorbis, Opus), MP3 or SPHERE file of 8 to 192 kHz and up to 64 channels.

    Channels are averaged; another rate is resampled (soxr). Raises InputError when the file is missing, not a regular
    file, not audio, empty, cut short, holds NaN or infinite samples, or is outside these limits.
    """
    path = _regular(path)
    try:
        with path.open("rb", buffering=0) as file:
            samples, rate = _decoded(path, _whole(path, file))
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{path} cannot be read as audio ({error.error_string.rstrip('.')}); expected {KINDS}"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected {KINDS}") from error
    channels = samples.shape[1]
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).any(axis=1).argmax())
        raise InputError(
            f"{path} holds a NaN or infinite sample (the first at {bad / rate:.3f} s); expected finite samples"
        )
    mono = samples[:, 0] if channels == 1 else samples.mean(axis=1)
    if rate != sample_rate:
        import librosa

        mono = librosa.resample(mono, orig_sr=rate, target_sr=sample_rate)
    return Audio(np.ascontiguousarray(mono, dtype=np.float32), sample_rate, rate, channels)


def write_audio(path: str | Path, samples: np.ndarray, sample_rate: int) -> float:
    """Write samples (N,) as 16-bit WAV (or FLAC, by the suffix), whole or not at all; returns the gain applied.

    Nothing is clipped: a peak over 1 is scaled to 0.999, and the factor returned (1.0 otherwise). Raises InputError.
    """
    path = Path(path)
    if path.suffix.lower() not in (".wav", ".flac"):
        raise InputError(f"cannot write {path}: the suffix is {path.suffix or 'missing'!r}; expected .wav or .flac")
    samples = np.asarray(samples, dtype=np.float64)
    peak = float(np.abs(samples).max(initial=0.0))
    gain = 0.999 / peak if peak > 1 else 1.0
    try:
        with whole_file(path) as temporary:
            soundfile.write(temporary, samples * gain, sample_rate, subtype="PCM_16", format=path.suffix[1:].upper())
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


def _decoded(path: Path, source: io.FileIO | io.BytesIO) -> tuple[np.ndarray, int]:
    """The samples (N, channels), float32, and their rate; libsndfile has to tell the format from the bytes alone.

    By the name it would take any text for headerless audio (.raw, .au) and let its MP3 decoder write on stderr.
    """
    source.seek(0)
    handle = source if isinstance(source, io.BytesIO) else source.fileno()
    with soundfile.SoundFile(handle, closefd=False) as sound:
        rate, channels = sound.samplerate, sound.channels
        if sound.format not in FORMATS:
            raise InputError(f"{path} is {sound.format} audio; expected {KINDS}")
        if not MIN_RATE <= rate <= MAX_RATE:
            raise InputError(f"{path} has a sample rate of {rate} Hz; expected {MIN_RATE} to {MAX_RATE}")
        if channels > MAX_CHANNELS:
            raise InputError(f"{path} has {channels} channels; expected at most {MAX_CHANNELS}")
        if sound.frames >= MAX_SAMPLES:
            raise InputError(
                f"{path} does not say its length, as FLAC written to a pipe; expected a FLAC file that does"
            )
        samples = sound.read(dtype="float32", always_2d=True)
        if len(samples) < sound.frames and sound.format != "MP3":  # MP3's is an estimate
            raise InputError(f"{path} is cut short: {len(samples)} samples; its header says {sound.frames}")
    if len(samples) == 0:
        raise InputError(f"{path} holds no samples; expected audio")
    return samples, rate


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
