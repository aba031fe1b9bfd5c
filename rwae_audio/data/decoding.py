"""Decoding of audio files into checked blocks of all channels, at the sample rate of the file."""

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
SEEKABLE = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")  # prefixes of the codings in which any sample can be sought
BLOCK = 1 << 20  # values (samples × channels) in a block
MAX_SAMPLES = 1 << 35  # two days at 192 kHz; libsndfile reports more for FLAC without a length
FLAC_HEAD, FLAC_BUFFER = b"fLaC\0\0\0\x22", 1 << 16  # the first bytes of FLAC; how far a decoder reads ahead


@dataclass(frozen=True)
class Stream:
    """An audio file that is open for decoding.

    Attributes:
        rate: Sample rate in Hz.
        channels: Number of channels.
        length: Number of samples of each channel, or None if only decoding tells.
        blocks: The samples (n, channels), float32. Iteration raises InputError for a damaged file.
    """

    rate: int
    channels: int
    length: int | None
    blocks: Iterator[np.ndarray]


class _Straight(soundfile.SoundFile):
    """A sound file that is read sequentially.

    SoundFile.read seeks after each block of a seekable file. That restarts the decoders of MP3 and Ogg, which then lack
    the bytes before.
    """

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def open_stream(path: Path, start: float = 0.0) -> Iterator[Stream]:
    """Open a regular file for decoding from `start` seconds on.

    The format is recognised by the bytes alone: by the suffix, libsndfile would take any text for headerless audio (.raw,
    .au). A file that cannot be decoded raises InputError, here or in the block.
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
    """Open a file that PyAV decodes."""
    with open_extra(path, file, demuxer) as (rate, channels, blocks):
        _check_limits(path, rate, channels)
        yield Stream(rate, channels, None, _from(round(start * rate), _checked(path, rate, blocks)))


@contextlib.contextmanager
def _open_parts(path: Path, file: io.FileIO, start: float) -> Iterator[Stream]:
    """Open a file that libsndfile decodes: one stream, or several after one another."""
    parts = parts_of(path, file)
    with _open_part(path, file, parts[0]) as sound:
        rate, channels, length = sound.samplerate, sound.channels, None
        begin, first = 0, round(start * rate)
        _check_limits(path, rate, channels)
        if len(parts) == 1:
            length = _length(sound, parts[0])
        if first and sound.format not in MPEG and sound.subtype.startswith(SEEKABLE):
            begin, first = sound.seek(min(first, sound.frames)), 0
        blocks = _checked(path, rate, _blocks_of_parts(path, file, parts, sound, begin))
        yield Stream(rate, channels, length, _from(first, blocks))


def _blocks_of_parts(
    path: Path, file: io.FileIO, parts: list[Part], first: soundfile.SoundFile, begin: int
) -> Iterator[np.ndarray]:
    yield from _blocks_of_part(path, first, parts[0], begin)
    if first.format == "FLAC":
        _refuse_joined_flac(path, file)
    for part in parts[1:]:
        with _open_part(path, file, part) as sound:
            form, first_form = (f"{s.samplerate} Hz, {s.channels} channels" for s in (sound, first))
            if form != first_form:
                raise InputError(f"{path} changes to {form} in the middle; expected {first_form} to the end")
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
        raise InputError(
            f"{path} is FLAC without its length, as written to a pipe; expected a FLAC file with its length"
        )
    return sound


def _length(sound: soundfile.SoundFile, part: Part) -> int:
    """Return the number of samples of a stream, from the checks of its container or else from libsndfile."""
    return sound.frames if part.most is None else part.most


def _blocks_of_part(path: Path, sound: soundfile.SoundFile, part: Part, begin: int = 0) -> Iterator[np.ndarray]:
    """Yield blocks (n, channels) of a stream from sample `begin` on. Raises InputError for fewer than its header says."""
    length, mpeg = _length(sound, part), sound.format in MPEG
    count, size = begin, BLOCK // sound.channels
    while count < length:
        read = functools.partial(sound.read, min(size, length - count), dtype="float32", always_2d=True)
        samples = _decoded(path, part, mpeg, read)
        if not len(samples):
            break
        count += len(samples)
        yield samples
    least = round(part.least * sound.samplerate)
    if count < (least if mpeg else max(length, least)):  # the length of MPEG may be an estimate
        raise InputError(f"{path} is cut short: {count} samples; its header says {max(length, least)}")


def _decoded(path: Path, part: Part, loud: bool, decode: Callable[[], Any]) -> Any:
    """Return what `decode` returns. Raises InputError when the decoder reports lost sound on stderr."""
    with complaints() if loud else contextlib.nullcontext(lambda: False) as complained:
        result = decode()
    if part.source is not None and part.source.error is not None:
        raise part.source.error
    if complained():
        repair = f"{advice(path)} writes what can be read"
        raise InputError(f"{path} is damaged: its MPEG frames cannot all be decoded; {repair}")
    return result


def _refuse_joined_flac(path: Path, file: io.FileIO) -> None:
    """Raise InputError if another FLAC file follows the one decoded from `file`: libsndfile reads the first alone."""
    file.seek(max(4, file.tell() - FLAC_BUFFER))
    if FLAC_HEAD in file.read():
        raise InputError(f"{path} is several FLAC files joined; expected one")


def _from(first: int, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the blocks without the first samples."""
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
    """Yield the blocks unchanged. Raises InputError for a sample that is not finite, and when there are no samples."""
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
