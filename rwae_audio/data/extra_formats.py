"""Decoding of M4A, AAC, WebM, AIFF, CAF, AU, WMA and AMR by PyAV (the optional extra `formats`)."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rwae_audio.data.boxes import check_boxes
from rwae_audio.data.containers import KINDS, advice
from rwae_audio.files import InputError

MAX_HEAD = 16  # bytes by which the format is recognised
BLOCK = 1 << 16  # samples in a block
NAMES = {  # FFmpeg's name of each format → its common name
    "mov": "MP4 (M4A)",
    "matroska": "WebM (Matroska)",
    "aiff": "AIFF",
    "caf": "CAF",
    "au": "AU",
    "asf": "WMA",
    "aac": "AAC",
    "amr": "AMR",
}
TIMED = ("mov", "matroska", "aiff", "caf", "au", "asf")  # formats with the duration in the header
SLACK = 0.25  # seconds by which the sound may be shorter than the header says: encoders pad


def demuxer_of(head: bytes) -> str | None:
    """Return FFmpeg's name of the format of a file with the first bytes `head`, or None if it is not in NAMES."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    for magic, name in {
        b"\x1aE\xdf\xa3": "matroska",
        b"caff": "caf",
        b".snd": "au",
        bytes.fromhex("3026b2758e66cf11"): "asf",
        b"#!AMR": "amr",
    }.items():
        if head.startswith(magic):
            return name
    return None


@contextlib.contextmanager
def open_extra(path: Path, file: io.FileIO, demuxer: str) -> Iterator[tuple[int, int, Iterator[np.ndarray]]]:
    """Decode an open file with PyAV.

    FFmpeg gets the bytes and the format, never the name, which it could take for a network address.

    Yields:
        The sample rate in Hz, the number of channels, and the blocks (n, channels), float32.

    Raises:
        InputError: PyAV is not installed, or the file is cut short or cannot be decoded.
    """
    av = _pyav(path, demuxer)
    endless = check_boxes(path, file, demuxer)
    file.seek(0)
    try:
        with av.open(_Reader(file), format=demuxer, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise InputError(f"{path} is {NAMES[demuxer]} without sound; expected audio")
            stream = container.streams.audio[0]
            frames = container.decode(stream)
            first = next(frames, None)
            if first is None:
                raise InputError(f"{path} holds no samples; expected audio")
            seconds = _seconds(container, stream) if demuxer in TIMED and not endless else 0.0
            sound = _blocks(path, itertools.chain([first], frames), seconds, av.error.FFmpegError)
            yield first.sample_rate, len(first.layout.channels), sound
    except av.error.FFmpegError as error:
        raise _undecodable(path, demuxer, error) from error


def _pyav(path: Path, demuxer: str) -> Any:
    try:
        import av
    except ImportError:
        raise InputError(
            f"{path} is {NAMES[demuxer]} audio; expected {KINDS}. `pip install 'rwae-audio[formats]'` reads it, and "
            f"{advice(path)} makes WAV of it"
        ) from None
    return av


class _Reader:
    """A view of a file for PyAV, which must not close it, and which prints every exception that it raises."""

    def __init__(self, file: io.FileIO) -> None:
        self.read, self.tell, self.file = file.read, file.tell, file

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, OverflowError):  # a damaged file points to before its beginning
            return -1


def _undecodable(path: Path, demuxer: str, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"{path} is {NAMES[demuxer]} audio that cannot be decoded ({reason}); expected a whole file")


def _seconds(container: Any, stream: Any) -> float:
    """Return the duration in seconds from the header, or 0 if the header has none."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else 0.0


def _blocks(path: Path, frames: Iterator[Any], seconds: float, failure: type[Exception]) -> Iterator[np.ndarray]:
    """Yield blocks of about BLOCK samples. Raises InputError for sound that is damaged or shorter than `seconds`."""
    waiting: list[np.ndarray] = []
    count, total, form = 0, 0, None
    try:
        for frame in frames:
            form = form or (frame.sample_rate, len(frame.layout.channels))
            if form != (frame.sample_rate, len(frame.layout.channels)):
                raise InputError(f"{path} changes its sample rate or channels in the middle; expected one of each")
            if frame.is_corrupt:
                raise InputError(f"{path} is damaged at {total / form[0]:.3f} s; expected a whole file")
            waiting.append(_samples(path, frame))
            count, total = count + frame.samples, total + frame.samples
            if count >= BLOCK:
                yield np.concatenate(waiting)
                waiting, count = [], 0
    except failure as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be decoded to its end ({reason}); expected a whole file") from error
    if form and total / form[0] < seconds - SLACK:
        raise InputError(f"{path} is cut short: {total / form[0]:.2f} s of sound; its header says {seconds:.2f} s")
    if waiting:
        yield np.concatenate(waiting)


def _samples(path: Path, frame: Any) -> np.ndarray:
    """Return the samples (n, channels), float32, of a PyAV frame of floats or integers, planar or packed."""
    values = frame.to_ndarray()
    channels = len(frame.layout.channels)
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype.kind not in "iu":
        raise InputError(f"{path} has samples of kind {frame.format.name}; expected floats or integers")
    scale = 2.0 ** (8 * values.dtype.itemsize - 1)
    offset = scale if values.dtype.kind == "u" else 0.0
    return ((values.astype(np.float64) - offset) / scale).astype(np.float32)
