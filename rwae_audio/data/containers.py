"""Helpers for checks of audio files: a view of a part of a file, tags before the audio, lengths that a header leaves open."""

from __future__ import annotations

import bisect
import io
import itertools
import shlex
from dataclasses import dataclass
from pathlib import Path

KINDS = "WAV, FLAC, Ogg, MP3 or NIST SPHERE audio"


def ffmpeg_command(path: Path) -> str:
    """Return the ffmpeg command, in backquotes, that converts a file to WAV."""
    return f"`ffmpeg -i {shlex.quote(str(path))} {shlex.quote(str(path.with_suffix('.wav')))}`"


class Pieces:
    """A read-only file composed of byte strings and ranges of another file.

    libsndfile calls its methods from C, where an exception would be printed and lost.

    Args:
        file: The other file.
        pieces: The byte strings and the ranges (start, end) of the other file, in their order.

    Attributes:
        error: The last error of the other file, or None.
    """

    def __init__(self, file: io.FileIO, pieces: list[bytes | tuple[int, int]]) -> None:
        lengths = [len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces]
        self.file, self.pieces = file, pieces
        self.starts = [0, *itertools.accumulate(lengths)]
        self.position = 0
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.starts[-1]}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, count: int) -> bytes:
        try:
            return self._read(count)
        except OSError as error:
            self.error = error
            return b""

    def _read(self, count: int) -> bytes:
        parts = []
        while count > 0 and 0 <= self.position < self.starts[-1]:
            index = bisect.bisect_right(self.starts, self.position) - 1
            offset, piece = self.position - self.starts[index], self.pieces[index]
            if isinstance(piece, bytes):
                part = piece[offset : offset + count]
            else:
                self.file.seek(piece[0] + offset)
                part = self.file.read(min(count, piece[1] - piece[0] - offset))
            if not part:  # the file has become shorter since it was opened
                break
            parts.append(part)
            self.position += len(part)
            count -= len(part)
        return b"".join(parts)


@dataclass(frozen=True)
class Part:
    """A stream that libsndfile decodes.

    Attributes:
        source: The bytes of the stream, or None for the whole file.
        min_seconds: The shortest duration of the decoded sound, in seconds, if nothing is lost.
        max_samples: The number of samples after which decoding stops, or None.
        may_be_mpeg: Whether libsndfile may use its MPEG decoder, which reports errors on the C library's stderr.
    """

    source: Pieces | None = None
    min_seconds: float = 0.0
    max_samples: int | None = None
    may_be_mpeg: bool = False


def id3_length(head: bytes) -> int:
    """Return the length in bytes of the ID3v2 tag with the header `head` (10 bytes), or 0 without a tag."""
    if len(head) < 10 or not head.startswith(b"ID3") or max(head[6:10]) > 127:
        return 0
    return 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(head[6:10])) + 10 * bool(head[5] & 0x10)


def audio_start(file: io.FileIO) -> int:
    """Return the position after ID3 tags and their padding with zeros, of which at most a megabyte is skipped."""
    position, length = 0, 1
    while length:
        file.seek(position)
        block = file.read(4096)
        if not block.strip(b"\0"):
            block += file.read(1 << 20)
        rest = block.lstrip(b"\0")
        length = id3_length(rest[:10])
        position += len(block) - len(rest) + length
    return position


def is_placeholder(length: int) -> bool:
    """Return whether a length is a placeholder, as programs that write to a pipe use: 0, or about 2 or 4 GiB."""
    return length == 0 or abs(length - (1 << 31)) <= 1 << 16 or length >= (1 << 32) - (1 << 16)
