"""Decoding of audio files: blocks of all channels at the file's own rate, checked."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from rwae_audio.data.containers import KINDS, Part, advice, audio_start
from rwae_audio.data.extra_formats import MAX_HEAD, demuxer_of, open_extra
from rwae_audio.data.mpeg import complaints
from rwae_audio.data.streams import parts_of
from rwae_audio.files import InputError

MIN_RATE, MAX_RATE, MAX_CHANNELS = 8000, 192000, 64
MPEG = ("MP3", "MPEG")
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "NIST", *MPEG)  # libsndfile's names of KINDS
SEEKABLE = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")  # how the codings begin in which every sample can be found
BLOCK = 1 << 20  # values (samples × channels) that are read or written at once
MAX_SAMPLES = 1 << 35  # two days at 192 kHz; libsndfile says more of FLAC without a length
FLAC_HEAD, FLAC_BUFFER = b"fLaC\0\0\0\x22", 1 << 16  # how every FLAC file begins; what a decoder may read ahead


@dataclass(frozen=True)
class Stream:
    """An open file.

    Attributes:
        rate: its sample rate in Hz.
        channels: the number of its channels.
        frames: the number of samples of each channel, or None where only decoding tells.
        blocks: the samples (n, channels), float32; they raise InputError for what is wrong with them.
    """

    rate: int
    channels: int
    frames: int | None
    blocks: Iterator[np.ndarray]


class _Straight(soundfile.SoundFile):
    """A sound file that is read straight on.

    SoundFile.read seeks after each block of a file that it calls seekable. There the decoders of MP3 and Ogg start anew,
    without the bytes before.
    """

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def open_stream(path: Path, start: float = 0.0) -> Iterator[Stream]:
    """A regular file within the limits, to be read from `start` seconds on.

    The format is told from the bytes alone: by the name libsndfile would take any text for headerless audio (.raw, .au).
    Whatever goes wrong with it, here or in the block, is an InputError.
    """
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(MAX_HEAD)
            if not head:
                raise InputError(f"{path} is empty; expected {KINDS}")
            demuxer = demuxer_of(head)
            if head.startswith(b"ID3"):
                file.seek(audio_start(file))
                demuxer = demuxer_of(file.read(MAX_HEAD))
            with _open_extra(path, file, demuxer, start) if demuxer else _open_parts(path, file, start) as stream:
                yield stream
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise InputError(f"{path} cannot be read as audio ({reason}); expected {KINDS}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); expected {KINDS}") from error


@contextlib.contextmanager
def _open_extra(path: Path, file: io.FileIO, demuxer: str, start: float) -> Iterator[Stream]:
    """A file that PyAV decodes."""
    with open_extra(path, file, demuxer) as (rate, channels, blocks):
        _check_limits(path, rate, channels)
        yield Stream(rate, channels, None, _from(round(start * rate), _checked(path, rate, blocks)))


@contextlib.contextmanager
def _open_parts(path: Path, file: io.FileIO, start: float) -> Iterator[Stream]:
    """A file that libsndfile decodes, as one stream or several after one another."""
    parts = parts_of(path, file)
    with _open_part(path, file, parts[0]) as sound:
        rate, channels, frames = sound.samplerate, sound.channels, None
        begun, first = 0, round(start * rate)
        _check_limits(path, rate, channels)
        if len(parts) == 1:
            frames = _length(sound, parts[0])
        if first and sound.format not in MPEG and sound.subtype.startswith(SEEKABLE):
            begun, first = sound.seek(min(first, sound.frames)), 0
        blocks = _checked(path, rate, _blocks_of_parts(path, file, parts, sound, begun))
        yield Stream(rate, channels, frames, _from(first, blocks))


def _blocks_of_parts(
    path: Path, file: io.FileIO, parts: list[Part], first: soundfile.SoundFile, begun: int
) -> Iterator[np.ndarray]:
    yield from _blocks_of_part(path, first, parts[0], begun)
    if first.format == "FLAC":
        _refuse_joined_flac(path, file)
    for part in parts[1:]:
        with _open_part(path, file, part) as sound:
            given, wanted = (f"{s.samplerate} Hz, {s.channels} channels" for s in (sound, first))
            if given != wanted:
                raise InputError(f"{path} changes to {given} in the middle; expected {wanted} to the end")
            yield from _blocks_of_part(path, sound, part)


def _open_part(path: Path, file: io.FileIO, part: Part) -> soundfile.SoundFile:
    if part.source is None:
        file.seek(0)
    source = file.fileno() if part.source is None else part.source
    sound = _decoded(path, part, part.loud, functools.partial(_Straight, source, closefd=False))
    if sound.format not in FORMATS:
        raise InputError(f"{path} is {sound.format} audio; expected {KINDS}")
    if sound.format in MPEG and part.source is None:
        raise InputError(f"{path} has bytes before its first MPEG frame; expected a frame or a tag")
    if sound.frames >= MAX_SAMPLES:
        raise InputError(f"{path} does not say its length, as FLAC written to a pipe; expected a FLAC file that does")
    return sound


def _length(sound: soundfile.SoundFile, part: Part) -> int:
    """The samples of a stream: as the checks of its container say, or else as libsndfile does."""
    return sound.frames if part.most is None else part.most


def _blocks_of_part(path: Path, sound: soundfile.SoundFile, part: Part, begun: int = 0) -> Iterator[np.ndarray]:
    """Blocks (n, channels) of one stream from sample `begun` on. Raises InputError when fewer come than its header says."""
    wanted, mpeg = _length(sound, part), sound.format in MPEG
    count, size = begun, BLOCK // sound.channels
    while count < wanted:
        read = functools.partial(sound.read, min(size, wanted - count), dtype="float32", always_2d=True)
        samples = _decoded(path, part, mpeg, read)
        if not len(samples):
            break
        count += len(samples)
        yield samples
    least = round(part.least * sound.samplerate)
    if count < (least if mpeg else max(wanted, least)):  # the length of MPEG may be an estimate
        raise InputError(f"{path} is cut short: {count} samples; its header says {max(wanted, least)}")


def _decoded(path: Path, part: Part, loud: bool, decode: Callable[[], Any]) -> Any:
    """What libsndfile gives. Raises InputError when its decoder complains on stderr: then sound is lost."""
    with complaints() if loud else contextlib.nullcontext(lambda: False) as complained:
        result = decode()
    if part.source is not None and part.source.error is not None:
        raise part.source.error
    if complained():
        how = f"{advice(path)} writes what can be read"
        raise InputError(f"{path} is damaged: its MPEG frames cannot all be decoded; {how}")
    return result


def _refuse_joined_flac(path: Path, file: io.FileIO) -> None:
    """Raises InputError for a FLAC file after the one that has been decoded from `file`: libsndfile reads the first."""
    file.seek(max(4, file.tell() - FLAC_BUFFER))
    if FLAC_HEAD in file.read():
        raise InputError(f"{path} is several FLAC files joined; expected one")


def _from(first: int, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks without the first samples."""
    for samples in blocks:
        if first < len(samples):
            yield samples[first:]
        first = max(0, first - len(samples))


def _check_limits(path: Path, rate: int, channels: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"{path} has a sample rate of {rate} Hz; expected {MIN_RATE} to {MAX_RATE}")
    if channels > MAX_CHANNELS:
        raise InputError(f"{path} has {channels} channels; expected at most {MAX_CHANNELS}")


def _checked(path: Path, rate: int, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks as they are. Raises InputError for a sample that is not finite, and when there are none."""
    count = 0
    for samples in blocks:
        if not np.isfinite(samples).all():
            bad = (count + int((~np.isfinite(samples)).any(axis=1).argmax())) / rate
            raise InputError(
                f"{path} holds a NaN or infinite sample (the first at {bad:.3f} s); expected finite samples"
            )
        count += len(samples)
        yield samples
    if count == 0:
        raise InputError(f"{path} holds no samples; expected audio")
