"""The systems that are compared: a source (N,) and recordings of the target (M,) → a waveform, 16 kHz, float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from adain_vc import MEL, AdaInVoice

from rwae_audio.conversion import pitch
from rwae_audio.conversion.converter import Converter
from rwae_audio.conversion.vocoders import AnyVocoder
from rwae_audio.conversion.vocoders.neural import Vocoder, vocode
from rwae_audio.data.level import active_level, speech_of
from rwae_audio.evaluation.judges import RATE, fundamental
from rwae_audio.files import InputError
from rwae_audio.inference.bundle import Bundle

Convert = Callable[[np.ndarray, Sequence[np.ndarray]], np.ndarray]


def unchanged(source: np.ndarray, voice: Sequence[np.ndarray]) -> np.ndarray:
    """Return the source as it is: the words without the voice."""
    return source


def copied(source: np.ndarray, voice: Sequence[np.ndarray]) -> np.ndarray:
    """Return the target as it is: the voice without the words."""
    return voice[0]


def bundled(bundle: Bundle, vocoder: AnyVocoder, pitch: str = "target") -> Convert:
    """Return a bundle's conversion, as rwae-vc does it."""
    converter = Converter(bundle, vocoder)
    return lambda source, voice: converter.convert(source, RATE, converter.voice(voice, RATE), pitch=pitch)


def adapted(bundle: Bundle, vocoder: AnyVocoder) -> Convert:
    """Return a bundle's conversion into a voice that is adapted to its recordings, as `rwae-vc --adapt` does it."""
    converter, voices = Converter(bundle, vocoder), {}

    def convert(source: np.ndarray, recordings: Sequence[np.ndarray]) -> np.ndarray:
        key = tuple(hash(recording.tobytes()) for recording in recordings)
        if key not in voices:
            voices[key] = converter.adapt(converter.voice(recordings, RATE), recordings, RATE)
        return converter.convert(source, RATE, voices[key])

    return convert


def reconstructed(bundle: Bundle, vocoder: AnyVocoder) -> Convert:
    """Return a bundle's conversion of the source into its own voice."""
    converter = Converter(bundle, vocoder)
    return lambda source, voice: converter.convert(source, RATE, converter.voice(source, RATE))


def adain(voice: AdaInVoice, vocoder: Vocoder) -> Convert:
    """AdaIN-VC's conversion, by the vocoder and with the target's register, as rwae-vc has it. Raises InputError when the
    vocoder reads frames of another kind."""
    if MEL.frames() != vocoder.config.mel.frames():
        raise InputError(
            "the vocoder reads frames of another kind than AdaIN-VC's; expected those of the preset vocoder"
        )

    def convert(source: np.ndarray, targets: Sequence[np.ndarray]) -> np.ndarray:
        log_mels = voice.convert(voice.frames(source), *(voice.frames(target) for target in targets))
        f0 = pitch.fundamental(source, MEL)
        own, wanted = pitch.register([f0]), pitch.register(pitch.fundamental(target, MEL) for target in targets)
        if own is not None and wanted is not None:
            f0 = pitch.moved(f0, own, wanted)
        return as_loud(vocode(vocoder, log_mels, torch.from_numpy(f0).float()).numpy(), source)

    return convert


def vocoded(bundle: Bundle, vocoder: AnyVocoder) -> Convert:
    """Return the copy of the source through a bundle's log-mels and the vocoder, without its model."""
    return lambda source, voice: vocoder_copy(bundle, vocoder, source)


def vocoder_copy(bundle: Bundle, vocoder: AnyVocoder, samples: np.ndarray) -> np.ndarray:
    """Return samples (N,) made of the log-mels and the F0 of samples (N,), as loud as they were."""
    f0 = None
    if vocoder.takes_pitch:
        f0 = torch.from_numpy(pitch.fundamental(samples, bundle.config.mel)).float()
    return as_loud(torch.cat([*vocoder.chunks([bundle.frames(samples)], f0, 0)]).numpy(), samples)


def as_loud(sound: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Return a sound (M,) as long and as loud as samples (N,)."""
    sound = np.pad(sound, (0, max(len(samples) - len(sound), 0)))[: len(samples)]
    return sound * np.float32(speech_of(samples, RATE).level.active / max(active_level(sound, RATE), 1e-8))


def world(source: np.ndarray, voice: Sequence[np.ndarray]) -> np.ndarray:
    """WORLD (Morise et al. 2016): the source's log-F0 moved to the target's mean and deviation, and its envelope stretched by
    the cube root of the ratio of their mean F0s, which is about that of their vocal tracts' lengths."""
    import pyworld

    samples = source.astype(np.float64)
    f0, times = pyworld.harvest(samples, RATE)
    envelope, aperiodicity = (analyse(samples, f0, times, RATE) for analyse in (pyworld.cheaptrick, pyworld.d4c))
    theirs = np.concatenate([fundamental(recording) for recording in voice])
    voiced, others = f0 > 0, theirs[theirs > 0]
    if voiced.any() and len(others):
        logs, goal = np.log(f0[voiced]), np.log(others)
        moved = (logs - logs.mean()) * goal.std() / max(logs.std(), 1e-3) + goal.mean()
        f0[voiced] = np.exp(moved).clip(50, 600)
        factor = np.exp((goal.mean() - logs.mean()) / 3)
        bins = np.arange(envelope.shape[1])
        stretched = [np.interp(bins / factor, bins, np.log(frame)) for frame in envelope]
        envelope = np.exp(np.array(stretched))
    sound = pyworld.synthesize(f0, np.ascontiguousarray(envelope), aperiodicity, RATE)[: len(source)]
    return np.pad(sound, (0, len(source) - len(sound))).astype(np.float32)
