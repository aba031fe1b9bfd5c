"""Check of Ogg files before decoding: every page must be whole and in order. Logical streams are decoded one by one."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rwae_audio.data.containers import Part, Pieces
from rwae_audio.files import InputError

AUDIO = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")  # the first bytes of a logical stream with sound
FIRST, LAST = 2, 4  # flags of a logical stream's first and last page
SLACK = 0.05  # seconds that a decoder may drop at either end
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Logical:
    """A logical stream.

    Attributes:
        audio: Whether the stream has sound.
        rate: The rate in granules (samples) a second, or 0 if unknown.
        ranges: The byte ranges of the pages, those of adjacent pages merged.
        sequence: The number of the next page.
        first: The granule position after the first page with samples, or None.
        last: The granule position after the last page.
        unfinished: Whether a packet continues after the last page.
        page: The last page.
    """

    audio: bool
    rate: int
    ranges: list[tuple[int, int]] = field(default_factory=list)
    sequence: int = 0
    first: int | None = None
    last: int = 0
    unfinished: bool = False
    page: bytes = b""

    def add(self, start: int, end: int) -> None:
        """Add the page in the byte range from `start` to `end`."""
        if self.ranges and self.ranges[-1][1] == start:
            start = self.ranges.pop()[0]
        self.ranges.append((start, end))


def ogg_parts(path: Path, file: io.FileIO, start: int, size: int) -> list[Part]:
    """Return the logical streams with sound in an Ogg file, in their order.

    Args:
        path: The name of the file in messages.
        file: The open file.
        start: The position of the first page, in bytes.
        size: The length of the file in bytes.

    Raises:
        InputError: A page is damaged or missing, the file ends inside a page or a packet, or two streams with sound
            overlap.
    """
    active: dict[int, _Logical] = {}
    sounds: list[_Logical] = []
    with open(file.fileno(), "rb", buffering=1 << 18, closefd=False) as reader:
        reader.seek(start)
        position = start
        while position < size:
            page = _page(path, reader, position)
            flags, granule, serial, sequence = struct.unpack("<BqII", page[5:22])
            if flags & FIRST:
                active[serial] = _new_stream(page, sequence)
                sounds += [active[serial]] if active[serial].audio else []
            elif serial not in active or sequence != active[serial].sequence:
                raise InputError(f"{path} lacks Ogg pages before byte {position}; expected all of them, in order")
            stream = active[serial]
            stream.sequence = (sequence + 1) & 0xFFFFFFFF
            stream.add(position, position + len(page))
            stream.page = page
            stream.unfinished = page[26 + page[26]] == 255 if page[26] else stream.unfinished
            if granule > 0:
                stream.first = granule if stream.first is None else stream.first
                stream.last = granule
            position += len(page)
    return _parts(path, file, sounds)


def _page(path: Path, reader: BinaryIO, position: int) -> bytes:
    """Read the page at `position`. Raises InputError unless it is whole."""
    head = reader.read(27)
    if not b"OggS".startswith(head[:4]):
        raise InputError(f"{path} has no Ogg page at byte {position}; expected pages to the end")
    table = reader.read(head[26]) if len(head) == 27 else b""
    body = reader.read(sum(table))
    if len(head) < 27 or len(table) < head[26] or len(body) < sum(table):
        raise InputError(f"{path} is cut short in the Ogg page at byte {position}; expected whole pages to the end")
    page = head + table + body
    if _checksum(page) != page[22:26]:
        raise InputError(f"{path} is damaged in the Ogg page at byte {position}; expected the checksum in its header")
    return page


def _checksum(page: bytes) -> bytes:
    """Return Ogg's CRC-32 of a page.

    It is computed by zlib's CRC-32, which has the opposite order of bits, another initial value and a final inversion.
    """
    blank = page[:22] + bytes(4) + page[26:]
    register = zlib.crc32(blank.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return struct.pack("<I", int(f"{register:032b}"[::-1], 2))


def _new_stream(page: bytes, sequence: int) -> _Logical:
    """Return the logical stream that begins with this page."""
    body, rate = page[27 + page[26] :], 0
    if body.startswith(b"OpusHead"):
        rate = 48000
    elif body.startswith(b"\x01vorbis") and len(body) >= 16:
        rate = struct.unpack("<I", body[12:16])[0]
    return _Logical(body.startswith(AUDIO), rate, sequence=sequence)


def _with_end_flag(stream: _Logical) -> list[bytes | tuple[int, int]]:
    """Return the pages of a stream, the last one flagged as the end. Without the flag decoders drop samples."""
    page = stream.page
    if page[5] & LAST:
        return [*stream.ranges]
    *before, (start, end) = stream.ranges
    page = page[:5] + bytes([page[5] | LAST]) + page[6:]
    return [*before, (start, end - len(page)), page[:22] + _checksum(page) + page[26:]]


def _parts(path: Path, file: io.FileIO, sounds: list[_Logical]) -> list[Part]:
    """Return the parts of streams with sound. Raises InputError if there is none, two overlap or one is cut short."""
    if not sounds:
        raise InputError(f"{path} is Ogg without sound; expected Vorbis or Opus")
    parts, end = [], 0
    for stream in sounds:
        if stream.ranges[0][0] < end:
            raise InputError(f"{path} has streams with sound at the same time; expected one after another")
        if stream.unfinished:
            raise InputError(f"{path} is cut short: its last Ogg packet is incomplete; expected all of it")
        end = stream.ranges[-1][1]
        min_seconds = (stream.last - (stream.first or 0)) / stream.rate - SLACK if stream.rate else 0.0
        parts.append(Part(Pieces(file, _with_end_flag(stream)), min_seconds))
    return parts
