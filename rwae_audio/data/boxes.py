"""Check that a container which PyAV reads (MP4, WebM, AIFF, …) is as long as the lengths in it say."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

from rwae_audio.data.containers import audio_start, is_placeholder
from rwae_audio.files import InputError

Box = tuple[str, int]  # the description of a box in messages, and the position after it, or -1 for an unknown length

_AMR = {  # bytes of a frame by its mode
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1),
}
_EBML_PARENTS = (0x18538067, 0x1F43B675)  # Segment and Cluster: their children are checked one by one


def check_boxes(path: Path, file: io.FileIO, demuxer: str) -> bool:
    """Return whether a box of unknown length was met. Raises InputError for a file that ends inside a box."""
    size, start = os.fstat(file.fileno()).st_size, audio_start(file) if demuxer == "aac" else 0
    walk: dict[str, tuple[int, Callable[[io.FileIO, int], Box | None]]] = {
        "mov": (0, _mp4),
        "matroska": (0, _ebml),
        "aiff": (12, _aiff),
        "caf": (8, _caf),
        "au": (0, _au),
        "asf": (0, _asf),
        "aac": (start, _adts),
        "amr": (9 if _head(file, 0, 9) == b"#!AMR-WB\n" else 6, _amr),
    }
    place, box_at = walk[demuxer]
    while place < size:
        box = box_at(file, place)
        if box is None:
            if demuxer == "aac" and _head(file, place, 3) == b"TAG":
                return False
            if size - place < 16 or demuxer in ("aac", "amr", "au"):
                raise InputError(
                    f"{path} has {size - place} bytes at its end that cannot be read; expected a whole file"
                )
            return False  # FFmpeg reports what is wrong
        name, end = box
        if end < 0:
            return True
        if end > size + 1:  # a byte of padding may be missing
            raise InputError(f"{path} is cut short: it has {size} bytes; its {name} ends at byte {end}")
        if end <= place:
            return False
        place = end
    return False


def _head(file: io.FileIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _mp4(file: io.FileIO, place: int) -> Box | None:
    head = _head(file, place, 16)
    if len(head) < 8:
        return None
    length, name = struct.unpack(">I4s", head[:8])
    if length == 1 and len(head) == 16:
        length = struct.unpack(">Q", head[8:])[0]
    return f"box {name.decode('latin-1')!r}", place + length if length else -1


def _ebml(file: io.FileIO, place: int) -> Box | None:
    head = _head(file, place, 12)
    width = 9 - head[0].bit_length() if head and head[0] else 0
    after = head[width:]
    if not 1 <= width <= 4 or not after or not after[0]:
        return None
    count = 9 - after[0].bit_length()
    if len(after) < count:
        return None
    name = int.from_bytes(head[:width], "big")
    length = int.from_bytes(after[:count], "big") & ((1 << 7 * count) - 1)
    inside = place + width + count
    if name in _EBML_PARENTS:
        size = os.fstat(file.fileno()).st_size
        unknown = length == (1 << 7 * count) - 1
        return "segment", inside if unknown or inside + length <= size else inside + length
    return f"element {name:x}", inside + length


def _aiff(file: io.FileIO, place: int) -> Box | None:
    head = _head(file, place, 8)
    if len(head) < 8:
        return None
    name, length = struct.unpack(">4sI", head)
    endless = name == b"SSND" and (is_placeholder(length) or length >= 0x7F000000)
    return f"chunk {name.decode('latin-1')!r}", -1 if endless else place + 8 + length + length % 2


def _caf(file: io.FileIO, place: int) -> Box | None:
    head = _head(file, place, 12)
    if len(head) < 12:
        return None
    name, length = struct.unpack(">4sq", head)
    return f"chunk {name.decode('latin-1')!r}", -1 if length < 0 else place + 12 + length


def _au(file: io.FileIO, place: int) -> Box | None:
    head = _head(file, place, 12)
    if len(head) < 12 or not head.startswith(b".snd"):
        return None
    offset, length = struct.unpack(">II", head[4:])
    return "sound", -1 if is_placeholder(length) else offset + length


def _asf(file: io.FileIO, place: int) -> Box | None:
    head = _head(file, place, 24)
    if len(head) < 24:
        return None
    length = struct.unpack("<Q", head[16:])[0]
    return "object", place + length if 0 < length < 1 << 40 else -1  # FFmpeg writes more to a pipe


def _adts(file: io.FileIO, place: int) -> Box | None:
    head = _head(file, place, 7)
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    return "AAC frame", place + ((head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5)


def _amr(file: io.FileIO, place: int) -> Box | None:
    sizes = _AMR[b"#!AMR-WB\n" if _head(file, 0, 9) == b"#!AMR-WB\n" else b"#!AMR\n"]
    return "AMR frame", place + sizes[_head(file, place, 1)[0] >> 3 & 15]
