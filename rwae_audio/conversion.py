"""Waveform in, waveform out: what the source says, in the target's voice. Of any length, in memory that does not grow."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rwae_audio.audio import open_audio, write_blocks
from rwae_audio.bundle import Bundle, pooled_voice
from rwae_audio.features import MelConfig, log_mel_chunks
from rwae_audio.files import InputError, read_header, read_tensors
from rwae_audio.pitch import Register, fundamental_chunks, moved, pooled, register
from rwae_audio.vocoder import griffin_lim_chunks

if TYPE_CHECKING:
    from rwae_audio.hifigan import Hifigan
    from rwae_audio.neural_vocoder import Vocoder

SILENT = 1e-4  # a peak under this (-80 dBFS) is silence

Blocks = Callable[[], Iterable[np.ndarray]]  # called for a recording's samples from the start, (n,) at a time


@dataclass(frozen=True)
class Level:
    """Of a recording: how many samples, the largest magnitude, the RMS."""

    count: int
    peak: float
    loudness: float

    @property
    def silent(self) -> bool:
        """Nothing to hear in it?"""
        return self.peak < SILENT


@dataclass(frozen=True)
class Converted:
    """What convert_file did: seconds of sound; its source's rate, Hz; was there nothing to hear; the gain against
    clipping, 1.0 for none."""

    seconds: float
    source_rate: int
    silent: bool
    gain: float


def level_of(blocks: Iterable[np.ndarray]) -> Level:
    """The level of a recording that comes in blocks (n,)."""
    count, peak, power = 0, 0.0, 0.0
    for block in blocks:
        count, peak = count + len(block), max(peak, float(np.abs(block).max(initial=0.0)))
        power += float(np.square(block, dtype=np.float64).sum())
    return Level(count, peak, math.sqrt(power / max(count, 1)))


def is_silent(samples: np.ndarray) -> bool:
    """Nothing to hear in samples (N,)?"""
    return level_of([samples]).silent


def convert_waveform(
    bundle: Bundle,
    source: np.ndarray,
    targets: Sequence[np.ndarray],
    seed: int = 0,
    vocoder: Vocoder | Hifigan | None = None,
    pitch: str = "target",
) -> np.ndarray:
    """The source's words (N,) in the voice of the targets (each (M,)), all at the bundle's rate; (N,), float32.

    vocoder: the neural one, HiFi-GAN, or None for Griffin-Lim; pitch: with the neural one the F0 contour of the source is moved
    to the `target`'s register, or `keep` as it is; the others are told of none. What a vocoder draws depends on `seed`. The
    result is as loud as the source (RMS); a silent source gives silence. It is not limited to ±1: write_audio scales it down
    where it must. Raises InputError when a waveform is under one analysis window, or the vocoder reads frames of another
    kind than the bundle's.
    """
    if pitch not in ("target", "keep"):
        raise ValueError(f"pitch is {pitch!r}; expected 'target' or 'keep'")
    check_vocoder(bundle, vocoder)
    mel = bundle.config.mel
    voice = bundle.voice(*(bundle.frames(target) for target in targets))
    bundle.frames(source[: mel.shortest])  # raises, for silence as well
    wanted = None
    if vocoder is not None and pitch == "target":
        wanted = register(f0 for t in targets for f0 in fundamental_chunks([t], mel, level_of([t]).loudness))
    level = level_of([source])
    samples = np.concatenate([*_sound(bundle, lambda: [source], level, voice, seed, vocoder, wanted)])
    return samples * np.float32(level.loudness / max(level_of([samples]).loudness, 1e-8))


def convert_file(
    bundle: Bundle,
    source: str | Path,
    output: str | Path,
    voice: Tensor,
    seed: int = 0,
    vocoder: Vocoder | Hifigan | None = None,
    pitch: Register | None = None,
) -> Converted:
    """convert_waveform of a file of any length into another, .wav or .flac, 16 bits, written whole or not at all, in the
    folder of `output`, which is made if it is missing. voice: (static_dim,), as of bundle.voice; pitch: the register that the
    neural vocoder's F0 is moved to, None for the source's own.

    Raises InputError for a source that cannot be read or is under one analysis window and for a vocoder that reads frames of
    another kind, before anything is written, and for an output that cannot be written.
    """
    check_vocoder(bundle, vocoder)
    recording = open_audio(source, bundle.sample_rate)
    level = speech_level(bundle, source, silence=True)
    _make_folder(Path(output).parent)
    sound = _sound(bundle, recording.blocks, level, voice, seed, vocoder, pitch)
    gain = write_blocks(output, sound, bundle.sample_rate, level.loudness)
    return Converted(level.count / bundle.sample_rate, recording.source_rate, level.silent, gain)


def check_vocoder(bundle: Bundle, vocoder: Vocoder | Hifigan | None) -> None:
    """Raises InputError when the vocoder cannot read the bundle's frames; Griffin-Lim (None) reads all that are centred."""
    mel = bundle.config.mel
    if vocoder is None and not mel.center:
        raise InputError("the bundle has [mel] center = false; expected centred frames, for Griffin-Lim")
    if vocoder is not None and mel.frames() != vocoder.mel.frames():
        raise InputError(
            "the vocoder reads other frames than the bundle's; expected Griffin-Lim, or a bundle with its [mel]"
        )


def voice_of_file(bundle: Bundle, target: str | Path) -> tuple[Tensor, int]:
    """The voice (static_dim,) of a recording of any length, and how many frames it has: what bundle.pooled_voice takes.

    Raises InputError for one that cannot be read, is under one analysis window or silent.
    """
    speech_level(bundle, target)
    return bundle.voice_chunks(log_mel_chunks(open_audio(target, bundle.sample_rate).blocks(), bundle.config.mel))


def register_of_file(bundle: Bundle, path: str | Path) -> Register | None:
    """The register of a recording of any length; None when it has no voice. Raises InputError as voice_of_file does."""
    level = speech_level(bundle, path)
    return register(
        fundamental_chunks(open_audio(path, bundle.sample_rate).blocks(), bundle.config.mel, level.loudness)
    )


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


def speech_level(bundle: Bundle, path: str | Path, silence: bool = False) -> Level:
    """The level of a recording at the bundle's rate. Raises InputError for whatever is wrong with the file, for what is
    under one analysis window, and for silence where that will not do."""
    level = level_of(open_audio(path, bundle.sample_rate).blocks())
    shortest = bundle.config.mel.shortest
    if level.count < shortest:
        had = f"{1000 * level.count / bundle.sample_rate:.0f} ms"
        raise InputError(f"{path} is {had} long; expected at least {1000 * shortest / bundle.sample_rate:.0f} ms")
    if level.silent and not silence:
        raise InputError(f"{path} is silent; expected speech")
    return level


def _sound(
    bundle: Bundle,
    source: Blocks,
    level: Level,
    voice: Tensor,
    seed: int,
    vocoder: Vocoder | Hifigan | None,
    pitch: Register | None,
) -> Iterator[np.ndarray]:
    """The source's words in the voice, as many samples as it has, (n,) at a time, at a level of their own."""
    mel = bundle.config.mel

    def frames() -> Iterator[Tensor]:
        return log_mel_chunks(source(), mel)

    if level.silent:
        for block in source():
            yield np.zeros(len(block), dtype=np.float32)
        return
    converted = bundle.decode_chunks(voice, bundle.encode_chunks(frames))
    if vocoder is None:
        sound = griffin_lim_chunks(converted, mel, seed=seed)
    else:
        from rwae_audio.neural_vocoder import Vocoder, vocode_chunks

        if isinstance(vocoder, Vocoder):
            sound = vocode_chunks(vocoder, _beside(converted, _contour(source, level, mel, pitch)), seed)
        else:
            sound = vocoder.chunks(converted)
    left = level.count
    for samples in sound:
        yield samples.numpy()
        left -= len(samples)
    yield np.zeros(left, dtype=np.float32)  # under a hop: the last frame's centre comes before the last sample


def _contour(source: Blocks, level: Level, mel: MelConfig, pitch: Register | None) -> Iterator[np.ndarray]:
    """The source's F0 in Hz, (n,) at a time, moved to the register `pitch`, if there is one and the source has a voice."""
    own = None if pitch is None else register(fundamental_chunks(source(), mel, level.loudness))
    for f0 in fundamental_chunks(source(), mel, level.loudness):
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
