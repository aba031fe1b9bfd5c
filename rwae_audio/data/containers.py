"""Helpers of the audio format checks: a file view for the decoder, tags before the audio, unknown lengths."""

from __future__ import annotations

import bisect
import io
import itertools
import shlex
from dataclasses import dataclass
from pathlib import Path

KINDS = "WAV, FLAC, Ogg, MP3 or NIST SPHERE audio"


def advice(path: Path) -> str:
    """Return the ffmpeg command that converts a file to WAV."""
    return f"`ffmpeg -i {shlex.quote(str(path))} {shlex.quote(str(path.with_suffix('.wav')))}`"


class Pieces:
    """A read-only file composed of byte strings and (start, end) ranges of another file.

    libsndfile calls its methods from C, where an exception would be printed and lost. It is kept in `error` instead.
    """

    def __init__(self, file: io.FileIO, pieces: list[bytes | tuple[int, int]]) -> None:
        lengths = [len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces]
        self.file, self.pieces = file, pieces
        self.starts = [0, *itertools.accumulate(lengths)]
        self.place = 0
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.starts[-1]}[whence]
        return self.place

    def tell(self) -> int:
        return self.place

    def read(self, count: int) -> bytes:
        try:
            return self._read(count)
        except OSError as error:
            self.error = error
            return b""

    def _read(self, count: int) -> bytes:
        parts = []
        while count > 0 and 0 <= self.place < self.starts[-1]:
            index = bisect.bisect_right(self.starts, self.place) - 1
            offset, piece = self.place - self.starts[index], self.pieces[index]
            if isinstance(piece, bytes):
                part = piece[offset : offset + count]
            else:
                self.file.seek(piece[0] + offset)
                part = self.file.read(min(count, piece[1] - piece[0] - offset))
            if not part:  # the file has become shorter since it was opened
                break
            parts.append(part)
            self.place += len(part)
            count -= len(part)
        return b"".join(parts)


@dataclass(frozen=True)
class Part:
    """A stream that libsndfile decodes.

    Attributes:
        source: Its bytes, or None for the whole file.
        least: The shortest duration, in seconds, that a decoder without losses yields.
        most: The number of samples after which decoding stops, or None.
        loud: Whether the decoder may be that of MPEG, which reports errors on the C library's stderr.
    """

    source: Pieces | None = None
    least: float = 0.0
    most: int | None = None
    loud: bool = False


def id3_length(head: bytes) -> int:
    """Return the length in bytes of the ID3v2 tag with the header `head` (10 bytes), or 0 without a tag."""
    if len(head) < 10 or not head.startswith(b"ID3") or max(head[6:10]) > 127:
        return 0
    return 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(head[6:10])) + 10 * bool(head[5] & 0x10)


def audio_start(file: io.FileIO) -> int:
    """Return the position after ID3 tags and the zeros that pad them (at most a megabyte of zeros is skipped)."""
    place, length = 0, 1
    while length:
        file.seek(place)
        block = file.read(4096)
        if not block.strip(b"\0"):
            block += file.read(1 << 20)
        rest = block.lstrip(b"\0")
        length = id3_length(rest[:10])
        place += len(block) - len(rest) + length
    return place


def is_placeholder(length: int) -> bool:
    """Return whether a length is a placeholder that programs write into a pipe: 0, or about 2 or 4 GiB."""
    return length == 0 or abs(length - (1 << 31)) <= 1 << 16 or length >= (1 << 32) - (1 << 16)
