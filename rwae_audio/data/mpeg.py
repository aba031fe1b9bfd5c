"""Check of MPEG audio (MP3) before decoding: all frame headers are read and the samples are counted.

The second part of the file detects the messages that libsndfile's MPEG decoder writes on stderr.
"""

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

from rwae_audio.data.containers import Part, Pieces, ffmpeg_command, id3_length
from rwae_audio.files import InputError

# sample rates in Hz by the version bits (MPEG-2.5, invalid, 2, 1); bit rates in kbit/s by (version is MPEG-1, layer)
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
UNBUFFERED = 2  # the constant _IONBF of <stdio.h>


@dataclass(frozen=True)
class Frame:
    """The header of an MPEG frame.

    Attributes:
        length: The length of the frame in bytes.
        samples: The number of samples of each channel.
        rate: The sample rate in Hz.
        channels: The number of channels.
        layer: The layer, 1 to 3.
        xing: The offset of a Xing header in the frame, in bytes.
    """

    length: int
    samples: int
    rate: int
    channels: int
    layer: int
    xing: int


@dataclass
class _Link:
    """The MPEG frames of one encoding. A file of joined encodings has several links.

    Attributes:
        frame: The header of the first frame.
        word: The bytes of that header.
        declared: The number of frames in the Xing header, or None without a Xing header.
        trimmed: The number of samples that the Xing header declares as delay and padding.
        tag: The byte range of the frame with the Xing header, or None.
        ranges: The byte ranges of the frames, those of adjacent frames merged.
        count: The number of frames.
    """

    frame: Frame
    word: bytes
    declared: int | None = None
    trimmed: int = 0
    tag: tuple[int, int] | None = None
    ranges: list[tuple[int, int]] = field(default_factory=list)
    count: int = 0

    def add(self, start: int, end: int) -> None:
        """Add the frame in the byte range from `start` to `end`."""
        self.count += 1
        if self.ranges and self.ranges[-1][1] == start:
            start = self.ranges.pop()[0]
        self.ranges.append((start, end))


@functools.lru_cache(maxsize=4096)
def read_header(word: bytes) -> Frame | None:
    """Parse the header of an MPEG frame, 4 bytes. Returns None for other bytes and for frames without a bit rate."""
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
    """Return whether bytes begin like an MPEG frame. (With layer bits of 0 they are AAC.)"""
    return len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 6 != 0


def mpeg_parts(path: Path, file: io.FileIO, start: int, size: int) -> list[Part]:
    """Return the streams of an MP3 file, one for each encoding. Each gets a header with its length.

    Args:
        path: The name of the file in messages.
        file: The open file.
        start: The position of the first MPEG frame, in bytes.
        size: The position after the last one.

    Raises:
        InputError: Bytes are neither MPEG frames nor tags, a frame is cut short, there are fewer frames than the Xing
            header declares, or the sample rate or the number of channels changes.
    """
    links: list[_Link] = []
    window, base, position = b"", start, start
    while position < size:
        if position + 256 > base + len(window):
            file.seek(position)
            window, base = file.read(WINDOW), position
        head = window[position - base : position - base + 256]
        frame = read_header(head[:4])
        if frame is None:
            length = _tag_length(file, position, head)
            if not length and not head.strip(b"\0") and _only_zeros(file, position):
                break
            if not length:
                raise InputError(
                    f"{path} has no MPEG frame at byte {position}; {ffmpeg_command(path)} recovers the readable part"
                )
            position += length
            continue
        if position + frame.length > size:
            raise InputError(f"{path} is cut short: its last MPEG frame has {size - position} of {frame.length} bytes")
        if links:
            _check_same(path, links[0].frame, frame, position)
        _add(links, frame, head, position)
        position += frame.length
    return [_part(path, file, link) for link in links]


def _tag_length(file: io.FileIO, position: int, head: bytes) -> int:
    """Return the length in bytes of the tag (ID3, APE, Lyrics3) at `position`, or 0 without a tag."""
    if head.startswith(b"TAG"):
        return 227 if head.startswith(b"TAG+") else 128
    if head.startswith(b"APETAGEX") and len(head) >= 32:
        return (
            32 + struct.unpack("<I", head[12:16])[0] if head[23] & 0x20 else 32
        )  # the bit marks a header, not a footer
    if head.startswith(b"LYRICSBEGIN"):
        file.seek(position)
        text = file.read(WINDOW)
        return max(text.find(end) + len(end) if end in text else 0 for end in (b"LYRICS200", b"LYRICSEND"))
    return id3_length(head[:10])


def _only_zeros(file: io.FileIO, position: int) -> bool:
    """Return whether all bytes from a position on are zero."""
    file.seek(position)
    return all(not block.strip(b"\0") for block in iter(lambda: file.read(WINDOW), b""))


def _check_same(path: Path, first: Frame, frame: Frame, position: int) -> None:
    """Raise InputError if a frame differs from the first one in sample rate, number of channels or layer."""
    first_layout, layout = (f"{f.rate} Hz, {f.channels} channels, layer {f.layer}" for f in (first, frame))
    if layout != first_layout:
        raise InputError(f"{path} changes to {layout} at byte {position}; expected {first_layout} as before")


def _add(links: list[_Link], frame: Frame, head: bytes, position: int) -> None:
    """Add the frame at `position` to the last link, or begin a new link with it."""
    end = position + frame.length
    tag = _length_header(frame, head)
    if tag is not None:
        links.append(_Link(frame, head[:4], tag[0] or None, tag[1], (position, end)))
        return
    if not links or (links[-1].declared == links[-1].count and not _needs_earlier_bytes(frame, head)):
        links.append(_Link(frame, head[:4]))
    links[-1].add(position, end)


def _needs_earlier_bytes(frame: Frame, head: bytes) -> bool:
    """Return whether the frame needs bytes of earlier frames, which the first frame of an encoding does not."""
    side = head[4 if head[1] & 1 else 6 :]
    return frame.layer == 3 and len(side) > 1 and bool(side[0] or (head[1] & 8 and side[1] & 0x80))


def _length_header(frame: Frame, head: bytes) -> tuple[int, int] | None:
    """Read a Xing, Info or VBRI header.

    Returns:
        The number of frames, or 0 if the header has none, and the number of samples of delay and padding. None without a
        header.
    """
    if frame.layer != 3:
        return None
    if head[36:40] == b"VBRI" and len(head) >= 54:
        return struct.unpack(">I", head[50:54])[0], 0
    for position in (frame.xing, frame.xing + 2):  # + 2: after a checksum
        if head[position : position + 4] in (b"Xing", b"Info") and len(head) >= position + 8:
            flags = struct.unpack(">I", head[position + 4 : position + 8])[0]
            after = position + 8
            frames = struct.unpack(">I", head[after : after + 4])[0] if flags & 1 and len(head) >= after + 4 else 0
            after += 4 * bool(flags & 1) + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
            lengths = head[after + 21 : after + 24] if head[after : after + 1] != b"\0" else b""
            bits = int.from_bytes(lengths, "big") if len(lengths) == 3 else 0  # 12 bits of delay, 12 bits of padding
            return frames, (bits >> 12) + (bits & 0xFFF)
    return None


def _part(path: Path, file: io.FileIO, link: _Link) -> Part:
    """Return the stream of a link. Raises InputError if it has fewer frames than its header declares."""
    frame, declared = link.frame, link.declared
    if declared is not None and link.count < declared - 1:
        raise InputError(f"{path} is cut short: {link.count} MPEG frames; its header says {declared}")
    exact = link.tag is not None and declared is not None and link.count <= declared
    begin: list[bytes | tuple[int, int]] = [link.tag if exact and link.tag else _info(link)]
    pieces = [*(begin if frame.layer == 3 else []), *link.ranges]
    samples = (link.count - SLACK) * frame.samples - (link.trimmed if exact else 0)
    return Part(Pieces(file, pieces), samples / frame.rate, may_be_mpeg=True)


def _info(link: _Link) -> bytes:
    """Return an MPEG frame with an Info header that has the number of frames, which libsndfile would otherwise guess."""
    word = bytearray(link.word)
    word[1] |= 1  # no checksum
    word[2] = word[2] & 0x0D | 0x90  # a bit rate at which the frame is long enough for the header
    frame = read_header(bytes(word))
    assert frame is not None
    text = b"Info" + struct.pack(">II", 1, link.count)
    return (bytes(word) + bytes(frame.xing - 4) + text).ljust(frame.length, b"\0")


# ---- messages that libsndfile's MPEG decoder writes on stderr


_LOCK = threading.Lock()


@functools.cache
def _c_library() -> tuple[ctypes.CDLL, ctypes.c_void_p, int] | None:
    """Return the C library, its variable `stderr` and a stream in memory, or None if `stderr` cannot be replaced."""
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
def stderr_messages() -> Iterator[Callable[[], bool]]:
    """Redirect the messages of C code on `stderr` to memory.

    The C library's variable is replaced, not the file descriptor, so Python's output is printed as usual.

    Yields:
        A function that returns, after the block, whether there was a message.
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
