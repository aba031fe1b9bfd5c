"""Waveform in, waveform out: what the source says, in the target's voice. Of any length, in memory that does not grow."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rwae_audio.conversion.pitch import Register, fundamental_chunks, moved, pooled, register_of
from rwae_audio.conversion.vocoders.griffin_lim import griffin_lim_chunks
from rwae_audio.data.audio import open_audio, resampled, write_blocks
from rwae_audio.data.decoding import MAX_RATE, MIN_RATE
from rwae_audio.data.features import MelConfig
from rwae_audio.data.level import Level, Speech, active_level, measured, speech_of, waveform
from rwae_audio.files import InputError, read_header, read_tensors
from rwae_audio.inference.bundle import Bundle, pooled_voice

if TYPE_CHECKING:
    from rwae_audio.conversion.vocoders.hifigan import Hifigan
    from rwae_audio.conversion.vocoders.neural import Vocoder


@dataclass(frozen=True)
class Converted:
    """What convert_file did.

    Attributes:
        seconds: Duration of the source and of the result.
        source_rate: Sample rate of the source, Hz.
        level: Level of the source as it was read.
        gain: Factor against clipping, 1.0 for none.
    """

    seconds: float
    source_rate: int
    level: Level
    gain: float


def convert_waveform(
    bundle: Bundle,
    source: np.ndarray | Tensor,
    targets: Sequence[np.ndarray | Tensor],
    seed: int = 0,
    vocoder: Vocoder | Hifigan | None = None,
    pitch: str = "target",
    sample_rate: int | None = None,
) -> np.ndarray:
    """Say the words of a source in the voice of the targets.

    Args:
        source, targets: Waveforms (N,), floats or integers, of one channel (`level.waveform` says which are taken).
        seed: Decides what the vocoder draws.
        vocoder: The neural one, HiFi-GAN, or None for Griffin-Lim.
        pitch: "target" moves the F0 contour of the source to the targets' register, "keep" leaves it. The neural vocoder
            alone is told of it.
        sample_rate: Rate of the waveforms in Hz, the bundle's when None; another one is resampled.

    Returns:
        Samples (M,) at the bundle's rate, float32, as loud as the source; a silent source gives silence. They are not
        limited to ±1: write_audio scales them down where it must.

    Raises:
        InputError: When an argument is no waveform or under one analysis window, a target is silent or missing, `pitch`
            is unknown, or the vocoder reads frames of another kind than the bundle's.
    """
    if pitch not in ("target", "keep"):
        raise InputError(f"pitch is {pitch!r}; expected 'target' or 'keep'")
    if not len(targets):
        raise InputError("targets is empty; expected at least one recording of the voice")
    if sample_rate is not None and not MIN_RATE <= sample_rate <= MAX_RATE:
        raise InputError(f"sample_rate is {sample_rate}; expected {MIN_RATE} to {MAX_RATE} Hz")
    check_vocoder(bundle, vocoder)
    rate = bundle.sample_rate

    def heard(samples: np.ndarray | Tensor, name: str, silence: bool = False) -> Speech:
        recording = speech_of(resampled(waveform(samples, name), sample_rate or rate, rate), rate)
        _check_speech(bundle, recording, name, silence)
        return recording

    voices = [heard(target, f"targets[{i}]") for i, target in enumerate(targets)]
    recording = heard(source, "source", silence=True)
    voice = pooled_voice([bundle.voice_chunks(target.log_mels(bundle.config.mel)) for target in voices])
    wanted = None
    if vocoder is not None and pitch == "target":
        wanted = pooled(one for one in (_register(target, bundle.config.mel) for target in voices) if one is not None)
    samples = np.concatenate([*_sound(bundle, recording, voice, seed, vocoder, wanted)])
    return samples * np.float32(recording.level.active / max(active_level(samples, rate), 1e-8))


def convert_file(
    bundle: Bundle,
    source: str | Path,
    output: str | Path,
    voice: Tensor,
    seed: int = 0,
    vocoder: Vocoder | Hifigan | None = None,
    pitch: Register | None = None,
) -> Converted:
    """Convert a file of any length into another, .wav or .flac of 16 bits, as convert_waveform does.

    The output is written whole or not at all; its folder is made if it is missing.

    Args:
        voice: The static code (static_dim,), as of bundle.voice.
        pitch: The register that the neural vocoder's F0 is moved to; None keeps the source's.

    Raises InputError for a source that cannot be read or is under one analysis window and for a vocoder that reads frames of
    another kind, before anything is written, and for an output that cannot be written.
    """
    check_vocoder(bundle, vocoder)
    recording = open_audio(source, bundle.sample_rate)
    speech = speech_in_file(bundle, source, silence=True)
    _make_folder(Path(output).parent)
    sound = _sound(bundle, speech, voice, seed, vocoder, pitch)
    gain = write_blocks(output, sound, bundle.sample_rate, speech.level.active)
    return Converted(speech.level.count / bundle.sample_rate, recording.source_rate, speech.level, gain)


def check_vocoder(bundle: Bundle, vocoder: Vocoder | Hifigan | None) -> None:
    """Raises InputError when the vocoder cannot read the bundle's frames; Griffin-Lim (None) reads all."""
    mel = bundle.config.mel
    if vocoder is not None and mel.frames() != vocoder.mel.frames():
        raise InputError(
            "the vocoder reads other frames than the bundle's; expected Griffin-Lim, or a bundle with its [mel]"
        )


def voice_of_file(bundle: Bundle, target: str | Path) -> tuple[Tensor, int]:
    """Return the voice (static_dim,) of a recording of any length and its number of frames, as bundle.pooled_voice takes them.

    Raises InputError for a recording that cannot be read, is under one analysis window or silent.
    """
    return bundle.voice_chunks(speech_in_file(bundle, target).log_mels(bundle.config.mel))


def register_of_file(bundle: Bundle, path: str | Path) -> Register | None:
    """Return the register of a recording of any length, None when it has no voice. Raises InputError as voice_of_file does."""
    return _register(speech_in_file(bundle, path), bundle.config.mel)


def read_voice(bundle: Bundle, path: str | Path) -> tuple[Tensor, Register | None]:
    """The voice (static_dim,) and register of all recordings in a file of rwae-embed, as bundle.voice would pool them; None
    for the register where they have no voice or the file is older than registers are. Raises InputError when it is no such
    file, or another bundle's."""
    expected = "a file that rwae-embed wrote"
    tensors, header = read_tensors(path, expected), read_header(path)
    if "bundle" not in header or "frames" not in header:
        raise InputError(f"{path} does not say of which bundle its codes are; expected {expected}")
    if header["bundle"] != bundle.digest:
        raise InputError(
            f"{path} has the codes of bundle {header['bundle'][:12]}…; expected those of this one, {bundle.digest[:12]}…"
        )
    try:
        frames = json.loads(header["frames"])
        registers = [Register(*said) for said in json.loads(header.get("registers", "{}")).values() if said is not None]
        codes = [(tensors[f"static/{name}"], int(count)) for name, count in frames.items()]
        voice, spoken = pooled_voice(codes), pooled(registers)
        if spoken is not None and not all(map(math.isfinite, spoken)):
            raise ValueError("registers")
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise InputError(
            f"{path} does not say of how many frames, at what pitch, its codes are; expected {expected}"
        ) from error
    if voice.shape != (bundle.config.model.static_dim,) or not voice.isfinite().all():
        raise InputError(f"{path} has codes that are none of this bundle's; expected {expected}")
    return voice, spoken


def speech_in_file(bundle: Bundle, path: str | Path, silence: bool = False) -> Speech:
    """Measure a recording at the bundle's rate.

    Raises InputError for whatever is wrong with the file, for a recording under one analysis window, and for a silent one
    unless `silence` allows it.
    """
    speech = measured(open_audio(path, bundle.sample_rate).blocks, bundle.sample_rate)
    _check_speech(bundle, speech, str(path), silence)
    return speech


def _check_speech(bundle: Bundle, speech: Speech, name: str, silence: bool) -> None:
    shortest = bundle.config.mel.shortest
    if speech.level.count < shortest:
        duration = f"{1000 * speech.level.count / bundle.sample_rate:.0f} ms"
        raise InputError(f"{name} is {duration} long; expected at least {1000 * shortest / bundle.sample_rate:.0f} ms")
    if speech.level.silent and not silence:
        raise InputError(f"{name} is silent; expected speech")


def _sound(
    bundle: Bundle,
    source: Speech,
    voice: Tensor,
    seed: int,
    vocoder: Vocoder | Hifigan | None,
    pitch: Register | None,
) -> Iterator[np.ndarray]:
    """Yield the source's words in the voice, as many samples as it has, (n,) at a time, at a level of their own."""
    mel = bundle.config.mel
    if source.level.silent:
        for block in source.read():
            yield np.zeros(len(block), dtype=np.float32)
        return
    converted = bundle.decode_chunks(voice, bundle.encode_chunks(lambda: source.log_mels(mel)))
    if vocoder is None:
        sound = griffin_lim_chunks(converted, mel, seed=seed)
    else:
        from rwae_audio.conversion.vocoders.neural import Vocoder, vocode_chunks

        if isinstance(vocoder, Vocoder):
            sound = vocode_chunks(vocoder, _beside(converted, _contour(source, mel, pitch)), seed)
        else:
            sound = vocoder.chunks(converted)
    left = source.level.count
    for samples in sound:
        yield samples.numpy()
        left -= len(samples)
    yield np.zeros(left, dtype=np.float32)  # under a hop: the last frame's centre comes before the last sample


def _f0(speech: Speech, mel: MelConfig) -> Iterator[np.ndarray]:
    """Yield the F0 of a recording in Hz, 0 without a voice, (n,) at a time."""
    return fundamental_chunks(speech.blocks(), mel)


def _register(speech: Speech, mel: MelConfig) -> Register | None:
    """Return the register of a recording, None when it has no voice."""
    return register_of(speech.blocks(), mel)


def _contour(source: Speech, mel: MelConfig, pitch: Register | None) -> Iterator[np.ndarray]:
    """Yield the source's F0 in Hz, (n,) at a time, moved to the register `pitch` where both voices have one."""
    own = None if pitch is None else _register(source, mel)
    for f0 in _f0(source, mel):
        yield f0 if pitch is None or own is None else moved(f0, own, pitch)


def _beside(frames: Iterable[Tensor], contour: Iterable[np.ndarray]) -> Iterator[Tensor]:
    """Frames (n, n_mels) with their F0 in a further column, (m, n_mels + 1) at a time; both come as they like."""
    values = iter(contour)
    known = torch.zeros(0)
    for part in frames:
        while len(known) < len(part):
            known = torch.cat([known, torch.from_numpy(next(values)).float()])
        yield torch.cat([part, known[: len(part), None]], dim=1)
        known = known[len(part) :]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder} ({error.strerror}); expected to be allowed to") from error
