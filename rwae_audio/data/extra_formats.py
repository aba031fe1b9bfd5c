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
from rwae_audio.data.containers import KINDS, ffmpeg_command
from rwae_audio.files import InputError

MAX_HEAD = 16  # bytes at the start of a file by which the format is recognised
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
SLACK = 0.25  # seconds by which the sound may be shorter than the duration in the header, which includes padding


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

    FFmpeg gets the bytes and the format, never the name, which it could interpret as a network address.

    Args:
        path: The name of the file in messages.
        file: The open file.
        demuxer: FFmpeg's name of the format, as `demuxer_of` returns it.

    Yields:
        The sample rate in Hz, the number of channels, and the blocks (n, channels), float32.

    Raises:
        InputError: PyAV is not installed, or the file is cut short or cannot be decoded.
    """
    av = _pyav(path, demuxer)
    unknown_length = check_boxes(path, file, demuxer)
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
            seconds = _seconds(container, stream) if demuxer in TIMED and not unknown_length else 0.0
            blocks = _blocks(path, itertools.chain([first], frames), seconds, av.error.FFmpegError)
            yield first.sample_rate, len(first.layout.channels), blocks
    except av.error.FFmpegError as error:
        message = f"{path} is {NAMES[demuxer]} audio that cannot be decoded ({_reason(error)}); expected a whole file"
        raise InputError(message) from error


def _pyav(path: Path, demuxer: str) -> Any:
    """Return the module `av`. Raises InputError, with two ways to read the file, if it is not installed."""
    try:
        import av
    except ImportError:
        raise InputError(
            f"{path} is {NAMES[demuxer]} audio; expected {KINDS}. `pip install 'rwae-audio[formats]'` adds this format, "
            f"and {ffmpeg_command(path)} converts the file to WAV"
        ) from None
    return av


class _Reader:
    """A view of a file for PyAV that PyAV cannot close. It raises no exceptions, as PyAV would print them.

    Args:
        file: The open file.
    """

    def __init__(self, file: io.FileIO) -> None:
        self.read, self.tell, self.file = file.read, file.tell, file

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, OverflowError):  # a damaged file can refer to a position before its start
            return -1


def _reason(error: Exception) -> str:
    """Return the reason in an error of FFmpeg."""
    return getattr(error, "strerror", None) or str(error)


def _seconds(container: Any, stream: Any) -> float:
    """Return the duration in seconds from the header, or 0 if the header has none."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else 0.0


def _blocks(path: Path, frames: Iterator[Any], seconds: float, failure: type[Exception]) -> Iterator[np.ndarray]:
    """Yield the samples of PyAV frames in blocks (n, channels) of about BLOCK samples.

    Args:
        path: The name of the file in messages.
        frames: The frames.
        seconds: The duration in the header, or 0 if it is unknown.
        failure: The class of FFmpeg's errors.

    Raises:
        InputError: The sound is damaged or shorter than `seconds`.
    """
    waiting: list[np.ndarray] = []
    count, total, layout = 0, 0, None
    try:
        for frame in frames:
            layout = layout or (frame.sample_rate, len(frame.layout.channels))
            if layout != (frame.sample_rate, len(frame.layout.channels)):
                raise InputError(f"{path} changes its sample rate or channels in the middle; expected one of each")
            if frame.is_corrupt:
                raise InputError(f"{path} is damaged at {total / layout[0]:.3f} s; expected a whole file")
            waiting.append(_samples(path, frame))
            count, total = count + frame.samples, total + frame.samples
            if count >= BLOCK:
                yield np.concatenate(waiting)
                waiting, count = [], 0
    except failure as error:
        raise InputError(f"{path} cannot be decoded to its end ({_reason(error)}); expected a whole file") from error
    if layout and total / layout[0] < seconds - SLACK:
        raise InputError(f"{path} is cut short: {total / layout[0]:.2f} s of sound; its header says {seconds:.2f} s")
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
