"""Check of MPEG audio (MP3): the frame headers are read, and the samples counted, before anything is decoded."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import platform
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rwae_audio.data.containers import Part, Pieces, advice, id3_length
from rwae_audio.files import InputError

# sample rates by the two version bits (MPEG-2.5, invalid, 2, 1); kbit/s by (whether it is MPEG-1, layer)
RATES: tuple[tuple[int, ...], ...] = ((11025, 12000, 8000), (), (22050, 24000, 16000), (44100, 48000, 32000))
BITRATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
SLACK = 3  # MPEG frames that a decoder may drop at either end
WINDOW = 1 << 20  # bytes that are read at once
UNBUFFERED = 2  # _IONBF of <stdio.h>


@dataclass(frozen=True)
class Frame:
    """The header of an MPEG frame: `length` in bytes, `samples` per channel, and the offset `xing` of a Xing header."""

    length: int
    samples: int
    rate: int
    channels: int
    layer: int
    xing: int


@dataclass
class _Link:
    """The MPEG frames that one encoder wrote: `promised` is the number in their Xing header, `trimmed` is in samples."""

    frame: Frame
    word: bytes
    promised: int | None = None
    trimmed: int = 0
    tag: tuple[int, int] | None = None  # the byte range of the frame with the Xing header
    ranges: list[tuple[int, int]] = field(default_factory=list)
    count: int = 0

    def add(self, start: int, end: int) -> None:
        self.count += 1
        if self.ranges and self.ranges[-1][1] == start:
            start = self.ranges.pop()[0]
        self.ranges.append((start, end))


@functools.lru_cache(maxsize=4096)
def read_header(word: bytes) -> Frame | None:
    """Parse the header of an MPEG frame, 4 bytes. Returns None for other bytes and for the free format (no bit rate)."""
    if len(word) < 4 or word[0] != 0xFF or word[1] & 0xE0 != 0xE0:
        return None
    version, layer = word[1] >> 3 & 3, 4 - (word[1] >> 1 & 3)
    bitrate, rate, padding = word[2] >> 4, word[2] >> 2 & 3, word[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    first = version == 3
    hertz, bits = RATES[version][rate], 1000 * BITRATES[first, layer][bitrate]
    samples = 384 if layer == 1 else 1152 if layer == 2 or first else 576
    length = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    channels = 1 if word[3] >> 6 == 3 else 2
    side = (17 if channels == 1 else 32) if first else (9 if channels == 1 else 17)
    return Frame(length, samples, hertz, channels, layer, 4 + side)


def is_mpeg(head: bytes) -> bool:
    """Return whether bytes begin as an MPEG frame does. With layer bits of 0 they are AAC."""
    return len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 6 != 0


def mpeg_parts(path: Path, file: io.FileIO, start: int, size: int) -> list[Part]:
    """Return the streams of an MP3 file, each with a header that states its length; joined files have several.

    Args:
        path: The name of the file in messages.
        file: The open file.
        start: The position of the first MPEG frame, in bytes.
        size: The position after the last one.

    Raises:
        InputError: There are bytes that are neither MPEG frames nor tags, a frame is cut short, frames are missing by the
            Xing header, or the sample rate or number of channels changes.
    """
    links: list[_Link] = []
    window, base, place = b"", start, start
    while place < size:
        if place + 256 > base + len(window):
            file.seek(place)
            window, base = file.read(WINDOW), place
        head = window[place - base : place - base + 256]
        frame = read_header(head[:4])
        if frame is None:
            length = _tag_length(file, place, head)
            if not length and not head.strip(b"\0") and _only_zeros(file, place):
                break
            if not length:
                raise InputError(f"{path} has no MPEG frame at byte {place}; {advice(path)} writes what can be read")
            place += length
            continue
        if place + frame.length > size:
            raise InputError(f"{path} is cut short: its last MPEG frame has {size - place} of {frame.length} bytes")
        if links:
            _check_same(path, links[0].frame, frame, place)
        _add(links, frame, head, place)
        place += frame.length
    return [_part(path, file, link) for link in links]


def _tag_length(file: io.FileIO, place: int, head: bytes) -> int:
    """Return the length in bytes of the tag (ID3, APE, Lyrics3) at `place`, or 0 without a tag."""
    if head.startswith(b"TAG"):
        return 227 if head.startswith(b"TAG+") else 128
    if head.startswith(b"APETAGEX") and len(head) >= 32:
        return 32 + struct.unpack("<I", head[12:16])[0] if head[23] & 0x20 else 32  # a footer alone has no such bit
    if head.startswith(b"LYRICSBEGIN"):
        file.seek(place)
        text = file.read(WINDOW)
        return max(text.find(end) + len(end) if end in text else 0 for end in (b"LYRICS200", b"LYRICSEND"))
    return id3_length(head[:10])


def _only_zeros(file: io.FileIO, place: int) -> bool:
    file.seek(place)
    return all(not block.strip(b"\0") for block in iter(lambda: file.read(WINDOW), b""))


def _check_same(path: Path, first: Frame, frame: Frame, place: int) -> None:
    first_form, form = (f"{f.rate} Hz, {f.channels} channels, layer {f.layer}" for f in (first, frame))
    if form != first_form:
        raise InputError(f"{path} changes to {form} at byte {place}; expected {first_form} as before")


def _add(links: list[_Link], frame: Frame, head: bytes, place: int) -> None:
    """Add the frame at `place` to the last link, or begin another with it."""
    end = place + frame.length
    tag = _length_header(frame, head)
    if tag is not None:
        links.append(_Link(frame, head[:4], tag[0] or None, tag[1], (place, end)))
        return
    if not links or (links[-1].promised == links[-1].count and not _needs_earlier_bytes(frame, head)):
        links.append(_Link(frame, head[:4]))
    links[-1].add(place, end)


def _needs_earlier_bytes(frame: Frame, head: bytes) -> bool:
    """Return whether the frame needs bytes of earlier ones; the first that an encoder writes does not."""
    side = head[4 if head[1] & 1 else 6 :]
    return frame.layer == 3 and len(side) > 1 and bool(side[0] or (head[1] & 8 and side[1] & 0x80))


def _length_header(frame: Frame, head: bytes) -> tuple[int, int] | None:
    """Read a Xing, Info or VBRI header: (MPEG frames or 0, samples of delay and padding), or None without one."""
    if frame.layer != 3:
        return None
    if head[36:40] == b"VBRI" and len(head) >= 54:
        return struct.unpack(">I", head[50:54])[0], 0
    for place in (frame.xing, frame.xing + 2):  # a checksum may stand before
        if head[place : place + 4] in (b"Xing", b"Info") and len(head) >= place + 8:
            flags = struct.unpack(">I", head[place + 4 : place + 8])[0]
            after = place + 8
            frames = struct.unpack(">I", head[after : after + 4])[0] if flags & 1 and len(head) >= after + 4 else 0
            after += 4 * bool(flags & 1) + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
            gaps = head[after + 21 : after + 24] if head[after : after + 1] != b"\0" else b""
            both = int.from_bytes(gaps, "big") if len(gaps) == 3 else 0
            return frames, (both >> 12) + (both & 0xFFF)
    return None


def _part(path: Path, file: io.FileIO, link: _Link) -> Part:
    frame, promised = link.frame, link.promised
    if promised is not None and link.count < promised - 1:
        raise InputError(f"{path} is cut short: {link.count} MPEG frames; its header says {promised}")
    exact = link.tag is not None and promised is not None and link.count <= promised
    begin: list[bytes | tuple[int, int]] = [link.tag if exact and link.tag else _info(link)]
    pieces = [*(begin if frame.layer == 3 else []), *link.ranges]
    samples = (link.count - SLACK) * frame.samples - (link.trimmed if exact else 0)
    return Part(Pieces(file, pieces), samples / frame.rate, loud=True)


def _info(link: _Link) -> bytes:
    """Return an MPEG frame with an Info header that states how many follow; without one, libsndfile guesses."""
    word = bytearray(link.word)
    word[1] |= 1  # without a checksum
    word[2] = word[2] & 0x0D | 0x90  # a bit rate that makes the frame long enough
    frame = read_header(bytes(word))
    assert frame is not None
    text = b"Info" + struct.pack(">II", 1, link.count)
    return (bytes(word) + bytes(frame.xing - 4) + text).ljust(frame.length, b"\0")


# ---- messages that libsndfile's decoder writes on stderr


_LOCK = threading.Lock()


@functools.cache
def _c_library() -> tuple[ctypes.CDLL, ctypes.c_void_p, int] | None:
    """Return the C library, its variable `stderr` and a stream in memory, or None where `stderr` cannot be replaced."""
    if platform.libc_ver()[0] != "glibc" and sys.platform != "darwin":
        return None
    library = ctypes.CDLL(None)
    library.fmemopen.restype = ctypes.c_void_p
    library.fmemopen.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    library.ftell.restype = ctypes.c_long
    for name in ("ftell", "ferror", "rewind"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t]
    stream = library.fmemopen(None, 4096, b"w+")
    if stream:
        library.setvbuf(stream, None, UNBUFFERED, 0)
    variable = ctypes.c_void_p.in_dll(library, "__stderrp" if sys.platform == "darwin" else "stderr")
    return (library, variable, stream) if stream else None


@contextlib.contextmanager
def complaints() -> Iterator[Callable[[], bool]]:
    """Redirect what C code writes on `stderr` to memory.

    The C library's variable is replaced, not the file descriptor, so that Python's own output is printed as usual.

    Yields:
        A function that tells, after the block, whether anything was written.
    """
    redirection = _c_library()
    if redirection is None:
        yield lambda: False
        return
    library, variable, stream = redirection
    written = False
    with _LOCK:
        library.rewind(stream)
        before, variable.value = variable.value, stream
        try:
            yield lambda: written
        finally:
            variable.value = before
            written = library.ftell(stream) > 0 or library.ferror(stream) != 0  # ferror: more than the stream can hold
