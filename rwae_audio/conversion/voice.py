"""Voices: the static code and the pitch range of a speaker, and the files in which they are saved."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rwae_audio import __version__
from rwae_audio.conversion.pitch import Register, pooled
from rwae_audio.conversion.reading import Reading
from rwae_audio.files import InputError, read_header, read_tensors, write_tensors
from rwae_audio.inference.bundle import Bundle, pooled_voice


class Filters(NamedTuple):
    """The last layer of a vocoder, which sets the filters of a frame, adapted to a voice. Weights are in float16.

    Attributes:
        vocoder: The digest of the vocoder.
        weight: The weights, (4 · bins, width).
        bias: The bias, (4 · bins,).
    """

    vocoder: str
    weight: Tensor
    bias: Tensor


class Voice(NamedTuple):
    """The voice of a speaker, which a converter gives to other recordings.

    Attributes:
        code: The static code, (static_dim,).
        frames: The number of log-mel frames from which it was computed.
        register: The pitch range, or None if it is unknown.
        filters: The last layer of the vocoder for an adapted voice, or None if the voice is not adapted.
    """

    code: Tensor
    frames: int
    register: Register | None = None
    filters: Filters | None = None


def voice_of(bundle: Bundle, reading: Reading, register: bool = True) -> Voice:
    """Return the voice of one recording.

    Args:
        bundle: The bundle.
        reading: The recording.
        register: Whether the pitch range is estimated as well.
    """
    return Voice(*bundle.voice_chunks(reading.log_mels()), reading.register if register else None)


def pooled_voices(voices: Iterable[Voice]) -> Voice:
    """Return the voice of a speaker from the voices of several recordings, which are weighted by their durations."""
    voices = [*voices]
    register = pooled(voice.register for voice in voices if voice.register is not None)
    code = pooled_voice([(voice.code, voice.frames) for voice in voices])
    return Voice(code, sum(voice.frames for voice in voices), register)


def between(first: Voice, second: Voice, position: float) -> Voice:
    """Return a voice on the straight line between two voices, without the filters of an adapted one.

    The median and the deviation of ln F0 are interpolated like the static code. Where one voice has no register, the
    register of the nearer voice is taken.

    Args:
        first: The voice at position 0.
        second: The voice at position 1.
        position: Where the voice lies, from 0 to 1.

    Raises:
        InputError: When the position is outside these bounds.
    """
    if not 0 <= position <= 1:
        raise InputError(f"position is {position}; expected 0 (the first voice) to 1 (the second)")
    register = (first.register, second.register)[round(position)]
    if first.register is not None and second.register is not None:
        pairs = zip(first.register, second.register, strict=True)
        count, mean, deviation = ((1 - position) * a + position * b for a, b in pairs)
        register = Register(round(count), mean, deviation)
    frames = round((1 - position) * first.frames + position * second.frames)
    return Voice(torch.lerp(first.code, second.code, position), frames, register)


def write_voices(
    path: str | Path,
    bundle: Bundle,
    voices: Mapping[str, Voice],
    dynamic: Mapping[str, Tensor] | None = None,
    filters: Filters | None = None,
) -> None:
    """Write the voices of recordings into a safetensors file, whole or not at all.

    Args:
        path: The file.
        bundle: The bundle that computed the voices.
        voices: The voice of each recording by its name.
        dynamic: The dynamic codes (T, dynamic_dim) of each recording by its name, which are written as well.
        filters: The filters of the pooled voice of all recordings, if it is adapted.
    """
    tensors = {f"static/{name}": voice.code for name, voice in voices.items()}
    tensors |= {f"dynamic/{name}": codes for name, codes in (dynamic or {}).items()}
    header = {
        "bundle": bundle.digest,
        "version": __version__,
        "frames": json.dumps({name: voice.frames for name, voice in voices.items()}),
        "registers": json.dumps({name: voice.register for name, voice in voices.items()}),
    }
    if filters is not None:
        tensors |= {"filters/weight": filters.weight, "filters/bias": filters.bias}
        header["vocoder"] = filters.vocoder
    write_tensors(Path(path), tensors, header)


def read_voice(path: str | Path, bundle: Bundle) -> Voice:
    """Read a file of `write_voices`, and return the pooled voice of all its recordings.

    Args:
        path: The file.
        bundle: The bundle that the voice is for.

    Raises:
        InputError: The file is of another kind, or its codes are from another bundle.
    """
    expected = "a file that rwae-embed wrote"
    tensors, header = read_tensors(path, expected), read_header(path)
    if "bundle" not in header or "frames" not in header:
        raise InputError(f"{path} does not name the bundle of its codes; expected {expected}")
    if header["bundle"] != bundle.digest:
        raise InputError(
            f"{path} has the codes of bundle {header['bundle'][:12]}…; expected those of this one, {bundle.digest[:12]}…"
        )
    try:
        registers = json.loads(header.get("registers", "{}"))
        voice = pooled_voices(
            Voice(tensors[f"static/{name}"], int(count), Register(*registers[name]) if registers.get(name) else None)
            for name, count in json.loads(header["frames"]).items()
        )
        if voice.register is not None and not all(map(math.isfinite, voice.register)):
            raise ValueError("registers")
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise InputError(f"{path} has no valid numbers of frames or pitch ranges; expected {expected}") from error
    if voice.code.shape != (bundle.config.model.static_dim,) or not torch.isfinite(voice.code).all():
        raise InputError(f"{path} has codes that do not fit this bundle; expected {expected}")
    if "vocoder" not in header:
        return voice
    weight, bias = (tensors.get(f"filters/{name}", torch.zeros(0)) for name in ("weight", "bias"))
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or not (weight.isfinite().all() and bias.isfinite().all()):
        raise InputError(f"{path} has no valid filters of an adapted voice; expected {expected}")
    return voice._replace(filters=Filters(header["vocoder"], weight, bias))
