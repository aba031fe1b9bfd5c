"""Decoding of audio files to checked blocks of samples, with all channels and at the sample rate of the file."""

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

from rwae_audio.data.containers import KINDS, Part, audio_start, ffmpeg_command
from rwae_audio.data.extra_formats import MAX_HEAD, demuxer_of, open_extra
from rwae_audio.data.mpeg import stderr_messages
from rwae_audio.data.streams import parts_of
from rwae_audio.files import InputError

MIN_RATE, MAX_RATE, MAX_CHANNELS = 8000, 192000, 64
MPEG = ("MP3", "MPEG")
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "NIST", *MPEG)  # libsndfile's names of KINDS
SEEKABLE = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")  # prefixes of the codings that can be decoded from any sample on
BLOCK = 1 << 20  # values (samples × channels) in a block
MAX_SAMPLES = 1 << 35  # two days at 192 kHz; libsndfile reports a larger number for FLAC without a length
FLAC_HEAD, FLAC_BUFFER = b"fLaC\0\0\0\x22", 1 << 16  # first bytes of a FLAC file; bytes that the decoder reads ahead


@dataclass(frozen=True)
class Stream:
    """An audio file that is open for decoding.

    Attributes:
        rate: Sample rate in Hz.
        channels: Number of channels.
        length: Number of samples of each channel, or None if it is unknown before decoding.
        blocks: The samples in blocks (n, channels), float32. Iteration raises InputError for a damaged file.
    """

    rate: int
    channels: int
    length: int | None
    blocks: Iterator[np.ndarray]


class _SequentialFile(soundfile.SoundFile):
    """A sound file that is read without seeking.

    SoundFile.read seeks after each block of a seekable file. A seek restarts the decoders of MP3 and Ogg, which then miss
    earlier bytes that they need.
    """

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def open_stream(path: Path, start: float = 0.0) -> Iterator[Stream]:
    """Open a file for decoding. The format is recognised by the bytes, not by the suffix.

    By the suffix (.raw, .au) libsndfile would decode any text as audio without a header.

    Args:
        path: The file, a regular one.
        start: The start of the samples, in seconds.

    Raises:
        InputError: The file cannot be decoded. It is also raised inside the block.
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
        yield Stream(rate, channels, None, _skip(round(start * rate), _checked(path, rate, blocks)))


@contextlib.contextmanager
def _open_parts(path: Path, file: io.FileIO, start: float) -> Iterator[Stream]:
    """Open a file that libsndfile decodes, with one stream or several streams one after another."""
    parts = parts_of(path, file)
    with _open_part(path, file, parts[0]) as sound:
        rate, channels, length = sound.samplerate, sound.channels, None
        begin, skipped = 0, round(start * rate)
        _check_limits(path, rate, channels)
        if len(parts) == 1:
            length = _length(sound, parts[0])
        if skipped and sound.format not in MPEG and sound.subtype.startswith(SEEKABLE):
            begin, skipped = sound.seek(min(skipped, sound.frames)), 0
        blocks = _checked(path, rate, _blocks_of_parts(path, file, parts, sound, begin))
        yield Stream(rate, channels, length, _skip(skipped, blocks))


def _blocks_of_parts(
    path: Path, file: io.FileIO, parts: list[Part], first: soundfile.SoundFile, begin: int
) -> Iterator[np.ndarray]:
    """Yield the blocks (n, channels) of all streams, the first of which is open as `first`, from its sample `begin` on."""
    yield from _blocks_of_part(path, first, parts[0], begin)
    if first.format == "FLAC":
        _refuse_joined_flac(path, file)
    for part in parts[1:]:
        with _open_part(path, file, part) as sound:
            layout, first_layout = (f"{s.samplerate} Hz, {s.channels} channels" for s in (sound, first))
            if layout != first_layout:
                raise InputError(f"{path} changes to {layout} in the middle; expected {first_layout} to the end")
            yield from _blocks_of_part(path, sound, part)


def _open_part(path: Path, file: io.FileIO, part: Part) -> soundfile.SoundFile:
    """Open a stream with libsndfile. Raises InputError for a stream in another format or without a length."""
    if part.source is None:
        file.seek(0)
    source = file.fileno() if part.source is None else part.source
    sound = _decoded(path, part, part.may_be_mpeg, functools.partial(_SequentialFile, source, closefd=False))
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
    return sound.frames if part.max_samples is None else part.max_samples


def _blocks_of_part(path: Path, sound: soundfile.SoundFile, part: Part, begin: int = 0) -> Iterator[np.ndarray]:
    """Yield the blocks (n, channels) of a stream from sample `begin` on.

    Raises InputError if there are fewer samples than the header declares.
    """
    length, mpeg = _length(sound, part), sound.format in MPEG
    count, size = begin, BLOCK // sound.channels
    while count < length:
        read = functools.partial(sound.read, min(size, length - count), dtype="float32", always_2d=True)
        samples = _decoded(path, part, mpeg, read)
        if not len(samples):
            break
        count += len(samples)
        yield samples
    minimum = round(part.min_seconds * sound.samplerate)
    if count < (minimum if mpeg else max(length, minimum)):  # the length of MPEG may be an estimate
        raise InputError(f"{path} is cut short: {count} samples; its header says {max(length, minimum)}")


def _decoded(path: Path, part: Part, mpeg: bool, decode: Callable[[], Any]) -> Any:
    """Call the decoder and return its result.

    Args:
        path: The name of the file in messages.
        part: The stream.
        mpeg: Whether the decoder may be that of MPEG, which reports lost sound on stderr alone.
        decode: The call of the decoder.

    Raises:
        InputError: The decoder reports lost sound.
    """
    with stderr_messages() if mpeg else contextlib.nullcontext(lambda: False) as has_messages:
        result = decode()
    if part.source is not None and part.source.error is not None:
        raise part.source.error
    if has_messages():
        repair = f"{ffmpeg_command(path)} recovers the readable part"
        raise InputError(f"{path} is damaged: its MPEG frames cannot all be decoded; {repair}")
    return result


def _refuse_joined_flac(path: Path, file: io.FileIO) -> None:
    """Raise InputError if another FLAC file follows the one that was decoded, as libsndfile reads only the first."""
    file.seek(max(4, file.tell() - FLAC_BUFFER))
    if FLAC_HEAD in file.read():
        raise InputError(f"{path} is several FLAC files joined; expected one")


def _skip(count: int, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the blocks without the first `count` samples."""
    for samples in blocks:
        if count < len(samples):
            yield samples[count:]
        count = max(0, count - len(samples))


def _check_limits(path: Path, rate: int, channels: int) -> None:
    """Raise InputError for a sample rate or a number of channels outside the limits."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"{path} has a sample rate of {rate} Hz; expected {MIN_RATE} to {MAX_RATE}")
    if channels > MAX_CHANNELS:
        raise InputError(f"{path} has {channels} channels; expected at most {MAX_CHANNELS}")


def _checked(path: Path, rate: int, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the blocks unchanged. Raises InputError for a sample that is not finite, and when there are no samples."""
    count = 0
    for samples in blocks:
        if not np.isfinite(samples).all():
            time = (count + int((~np.isfinite(samples)).any(axis=1).argmax())) / rate
            raise InputError(
                f"{path} holds a NaN or infinite sample (the first at {time:.3f} s); expected finite samples"
            )
        count += len(samples)
        yield samples
    if count == 0:
        raise InputError(f"{path} holds no samples; expected audio")
