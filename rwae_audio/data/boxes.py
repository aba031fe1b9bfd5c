"""Check that a file in a format of PyAV (MP4, WebM, AIFF, …) has all the bytes that the lengths in it declare.

Such a file is a sequence of boxes (also called chunks, elements or frames), each with its length in its head.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

from rwae_audio.data.containers import audio_start, is_placeholder
from rwae_audio.files import InputError

Box = tuple[str, int]  # the name of a box in messages, and the position of its end, or -1 if its length is unknown

_AMR = {  # the number of bytes of a frame by its mode
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1),
}
_EBML_PARENTS = (0x18538067, 0x1F43B675)  # Segment and Cluster: their children are checked one by one


def check_boxes(path: Path, file: io.FileIO, demuxer: str) -> bool:
    """Check that a file does not end inside a box.

    Args:
        path: The name of the file in messages.
        file: The open file.
        demuxer: FFmpeg's name of the format.

    Returns:
        Whether a box of unknown length ended the check, so that nothing is known about the rest.

    Raises:
        InputError: The file ends inside a box.
    """
    size, start = os.fstat(file.fileno()).st_size, audio_start(file) if demuxer == "aac" else 0
    formats: dict[str, tuple[int, Callable[[io.FileIO, int], Box | None]]] = {
        "mov": (0, _mp4),
        "matroska": (0, _ebml),
        "aiff": (12, _aiff),
        "caf": (8, _caf),
        "au": (0, _au),
        "asf": (0, _asf),
        "aac": (start, _adts),
        "amr": (9 if _head(file, 0, 9) == b"#!AMR-WB\n" else 6, _amr),
    }
    position, box_at = formats[demuxer]
    while position < size:
        box = box_at(file, position)
        if box is None:
            if demuxer == "aac" and _head(file, position, 3) == b"TAG":
                return False
            if size - position < 16 or demuxer in ("aac", "amr", "au"):
                raise InputError(
                    f"{path} has {size - position} bytes at its end that cannot be read; expected a whole file"
                )
            return False  # FFmpeg reports the error
        name, end = box
        if end < 0:
            return True
        if end > size + 1:  # a byte of padding may be missing
            raise InputError(f"{path} is cut short: it has {size} bytes; its {name} ends at byte {end}")
        if end <= position:
            return False
        position = end
    return False


def _head(file: io.FileIO, position: int, count: int) -> bytes:
    """Return the `count` bytes at a position, or fewer at the end of the file."""
    file.seek(position)
    return file.read(count)


# ---- for each format, a function that returns the box at a position, or None for bytes that are no box


def _mp4(file: io.FileIO, position: int) -> Box | None:
    head = _head(file, position, 16)
    if len(head) < 8:
        return None
    length, name = struct.unpack(">I4s", head[:8])
    if length == 1 and len(head) == 16:
        length = struct.unpack(">Q", head[8:])[0]
    return f"box {name.decode('latin-1')!r}", position + length if length else -1


def _ebml(file: io.FileIO, position: int) -> Box | None:
    head = _head(file, position, 12)
    width = 9 - head[0].bit_length() if head and head[0] else 0
    after = head[width:]
    if not 1 <= width <= 4 or not after or not after[0]:
        return None
    count = 9 - after[0].bit_length()
    if len(after) < count:
        return None
    name = int.from_bytes(head[:width], "big")
    length = int.from_bytes(after[:count], "big") & ((1 << 7 * count) - 1)
    inside = position + width + count
    if name in _EBML_PARENTS:
        size = os.fstat(file.fileno()).st_size
        unknown = length == (1 << 7 * count) - 1
        return "segment", inside if unknown or inside + length <= size else inside + length
    return f"element {name:x}", inside + length


def _aiff(file: io.FileIO, position: int) -> Box | None:
    head = _head(file, position, 8)
    if len(head) < 8:
        return None
    name, length = struct.unpack(">4sI", head)
    unknown = name == b"SSND" and (is_placeholder(length) or length >= 0x7F000000)
    return f"chunk {name.decode('latin-1')!r}", -1 if unknown else position + 8 + length + length % 2


def _caf(file: io.FileIO, position: int) -> Box | None:
    head = _head(file, position, 12)
    if len(head) < 12:
        return None
    name, length = struct.unpack(">4sq", head)
    return f"chunk {name.decode('latin-1')!r}", -1 if length < 0 else position + 12 + length


def _au(file: io.FileIO, position: int) -> Box | None:
    head = _head(file, position, 12)
    if len(head) < 12 or not head.startswith(b".snd"):
        return None
    offset, length = struct.unpack(">II", head[4:])
    return "sound", -1 if is_placeholder(length) else offset + length


def _asf(file: io.FileIO, position: int) -> Box | None:
    head = _head(file, position, 24)
    if len(head) < 24:
        return None
    length = struct.unpack("<Q", head[16:])[0]
    return "object", position + length if 0 < length < 1 << 40 else -1  # FFmpeg writes a larger length to a pipe


def _adts(file: io.FileIO, position: int) -> Box | None:
    head = _head(file, position, 7)
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    return "AAC frame", position + ((head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5)


def _amr(file: io.FileIO, position: int) -> Box | None:
    sizes = _AMR[b"#!AMR-WB\n" if _head(file, 0, 9) == b"#!AMR-WB\n" else b"#!AMR\n"]
    return "AMR frame", position + sizes[_head(file, position, 1)[0] >> 3 & 15]
