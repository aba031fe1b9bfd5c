"""Check of the streams of an audio file before decoding: RIFF and SPHERE here, MP3 in mpeg.py, Ogg in ogg.py.

Decoders read a damaged file as far as possible, without an error. The checks compute the number of samples that it should
have.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from rwae_audio.data.containers import Part, Pieces, audio_start, is_placeholder
from rwae_audio.data.mpeg import is_mpeg, mpeg_parts
from rwae_audio.data.ogg import ogg_parts
from rwae_audio.files import InputError

PLAIN = (1, 3, 6, 7)  # format tags of PCM, floats, A-law and mu-law, which have whole bytes for each sample
MP3_IN_WAV = 0x55  # format tag of MP3


def parts_of(path: Path, file: io.FileIO) -> list[Part]:
    """Return the streams of an open file, in their order. Raises InputError for a file that is damaged or cut short."""
    size = os.fstat(file.fileno()).st_size
    start = audio_start(file)
    file.seek(start)
    head = file.read(12)
    if head.startswith(b"NIST"):
        return [_sphere(path, file, start, size)]
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:] == b"WAVE":
        return _riff(path, file, start, size)
    if head.startswith(b"OggS"):
        return ogg_parts(path, file, start, size)
    if is_mpeg(head):
        return mpeg_parts(path, file, start, size)
    return [Part(may_be_mpeg=True)]


def _sphere(path: Path, file: io.FileIO, start: int, size: int) -> Part:
    """Return the stream of a NIST SPHERE file.

    The header has the lines `NIST_1A`, the size of the header, `name -type value` for each field, and `end_head`.
    """
    file.seek(start)
    first = file.read(16)
    length = int(first[8:16]) if first[8:16].strip().isdigit() else 0
    if length < len(first):
        raise InputError(f"{path} has a SPHERE header without its size; expected a line such as 1024 after NIST_1A")
    header = first + file.read(length - 16)
    if len(header) < length or b"end_head" not in header:
        raise InputError(f"{path} has a SPHERE header of {len(header)} bytes without its end; expected {length} bytes")
    fields = {}
    for line in header.decode("latin-1").split("end_head")[0].splitlines()[2:]:
        name, _, rest = line.partition(" ")
        fields[name] = rest.partition(" ")[2].strip()
    coding = fields.get("sample_coding", "pcm")
    if coding not in ("pcm", "ulaw", "mu-law", "alaw"):
        raise InputError(
            f"{path} is SPHERE coded as {coding}; expected pcm (decode it with sph2pipe or w_decode first)"
        )
    try:
        count = int(fields["sample_count"])
        declared = count * int(fields.get("channel_count", 1)) * int(fields.get("sample_n_bytes", 2))
    except (KeyError, ValueError):
        raise InputError(f"{path} has a SPHERE header without sample_count; expected one") from None
    if min(count, declared) < 0:
        raise InputError(f"{path} has a SPHERE header with a negative count; expected the number of samples")
    present = size - start - length
    if present < declared:
        raise InputError(f"{path} is cut short: {present} bytes of samples; its SPHERE header says {declared}")
    return Part(Pieces(file, [(start, start + length + declared)]), max_samples=count)


def _riff(path: Path, file: io.FileIO, start: int, size: int) -> list[Part]:
    """Return the stream of a RIFF, RIFX (big-endian) or RF64 file: its `data` chunk, whose length can be unknown.

    MP3 in WAV may have several streams.
    """
    chunks = _riff_chunks(file, start, size)
    if chunks.data < 0:  # libsndfile reports the error
        return [Part(Pieces(file, [(start, size)]))]
    length, present = chunks.length, size - chunks.data
    unknown = is_placeholder(length) and (length or _open_end(chunks, start, size))
    if unknown:
        length = present
    if length > present:
        raise InputError(f"{path} is cut short: {present} bytes of samples; its RIFF header says {length}")
    file.seek(chunks.data + length + length % 2)
    next_head = file.read(12)
    if next_head[:4] in (b"RIFF", b"RIFX") and next_head[8:] == b"WAVE":
        raise InputError(f"{path} is several WAV files joined; expected one")
    if chunks.coding == MP3_IN_WAV:
        return mpeg_parts(path, file, chunks.data, chunks.data + length)
    max_samples = None if chunks.coding in PLAIN or is_placeholder(chunks.fact) else chunks.fact
    if unknown:
        field = struct.pack(chunks.order + "I", min(length, 0xFFFFFFFF))
        return [Part(Pieces(file, [(start, chunks.data - 4), field, (chunks.data, size)]), max_samples=max_samples)]
    return [Part(None if start == 0 else Pieces(file, [(start, size)]), max_samples=max_samples)]


@dataclass
class _Chunks:
    """The values of the chunks before the samples.

    Attributes:
        order: The byte order, as the module `struct` has it.
        riff_length: The length in the RIFF header.
        coding: The format tag.
        fact: The number of samples in the `fact` chunk, or 0.
        data: The position of the samples, or -1 without a `data` chunk.
        length: The length of the `data` chunk in bytes.
    """

    order: str
    riff_length: int
    coding: int = 1
    fact: int = 0
    data: int = -1
    length: int = 0


def _riff_chunks(file: io.FileIO, start: int, size: int) -> _Chunks:
    """Read the chunks up to the samples."""
    file.seek(start)
    head = file.read(8)
    order = ">" if head.startswith(b"RIFX") else "<"
    chunks = _Chunks(order, struct.unpack(order + "I", head[4:])[0])
    position, long_length = start + 12, 0
    while position + 8 <= size and chunks.data < 0:
        file.seek(position)
        name, length = struct.unpack(order + "4sI", file.read(8))
        content = file.read(min(length, 40)) if name != b"data" else b""
        if name == b"ds64" and len(content) >= 16:
            long_length = struct.unpack("<8xQ", content[:16])[0]
        elif name == b"fmt " and len(content) >= 16:
            tag = content[24:26] if content[:2] in _EXTENSIBLE and len(content) >= 26 else content[:2]
            chunks.coding = struct.unpack(order + "H", tag)[0]
        elif name == b"fact" and len(content) >= 4:
            chunks.fact = struct.unpack(order + "I", content[:4])[0]
        elif name == b"data":
            chunks.data, chunks.length = position + 8, long_length if length == 0xFFFFFFFF and long_length else length
        position += 8 + length + length % 2
    return chunks


_EXTENSIBLE = (b"\xfe\xff", b"\xff\xfe")  # the format tag 0xFFFE in either byte order


def _open_end(chunks: _Chunks, start: int, size: int) -> bool:
    """Return whether the length in the RIFF header allows samples after a `data` chunk of length 0."""
    return is_placeholder(chunks.riff_length) or start + 8 + chunks.riff_length < size
