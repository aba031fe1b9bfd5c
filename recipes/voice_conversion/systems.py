"""The systems that evaluate.py and samples.py compare: R-WAE, AdaIN-VC, WORLD, vocoders and unchanged recordings.

A system is a function from a source and recordings of the target to a waveform. All waveforms are (N,), float32, at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from adain_vc import MEL, AdaInVoice, load_adain
from tables import OWN

from rwae_audio.conversion import pitch
from rwae_audio.conversion.converter import Converter
from rwae_audio.conversion.vocoders import AnyVocoder
from rwae_audio.conversion.vocoders.griffin_lim import GriffinLim
from rwae_audio.conversion.vocoders.hifigan import load_hifigan, weights_path
from rwae_audio.conversion.vocoders.neural import Vocoder, load_vocoder, vocode
from rwae_audio.data.level import active_level, speech_of
from rwae_audio.evaluation.judges import RATE, fundamental
from rwae_audio.files import InputError, sha256
from rwae_audio.inference.bundle import Bundle, load_bundle

Convert = Callable[[np.ndarray, Sequence[np.ndarray]], np.ndarray]  # source, recordings of the target → samples
Vocoders = Mapping[str, tuple[AnyVocoder, Mapping[str, str]]]  # name → vocoder, and the SHA-256 of its weights by name


class System(NamedTuple):
    """A system that is judged, which is a row of the table.

    Attributes:
        convert: The function from a source (N,) and recordings of the target to samples (M,).
        of_target: Whether the source is a recording of the target, so that the words of the target are expected.
        weights: The SHA-256 of each file of weights, by the name of the model.
        of_minute: Whether the system gets about a minute of the target instead of the three recordings of the pair.
    """

    convert: Convert
    of_target: bool = False
    weights: Mapping[str, str] = {}
    of_minute: bool = False


def named_systems(
    bundles: Mapping[str, str], vocoder_folder: Path | None, baselines: Mapping[str, str]
) -> dict[str, System]:
    """Return all systems by the names of their rows.

    Args:
        bundles: The folders of further bundles by name.
        vocoder_folder: The folder of the neural vocoder; None for the one in the package.
        baselines: The folders of AdaIN-VC models by name.

    Raises:
        InputError: A model cannot be read, or two rows have the same name.
    """
    bundle, neural = load_bundle(), load_vocoder(vocoder_folder)
    neural_weights = {"vocoder": neural.digest}
    rows = {"source": System(unchanged), "target": System(target_recording), "world": System(world)}
    vocoders: dict[str, tuple[AnyVocoder, Mapping[str, str]]] = {
        "griffin-lim": (GriffinLim(bundle.config.mel), {}),
        "neural": (neural, neural_weights),
    }
    if weights_path().is_file():
        vocoders["hifigan"] = load_hifigan(), {"hifigan": sha256(weights_path())}
    for name, (vocoder, weights) in vocoders.items():
        rows[f"copy-{name}"] = System(vocoder_copy(bundle, vocoder), False, weights)
        rows[f"ceiling-{name}"] = System(vocoder_copy(bundle, vocoder), True, weights)
    rows |= bundle_systems(OWN, bundle, vocoders)
    for name, folder in bundles.items():
        check_unused([name], rows, f"--bundle {name}")
        bundle_rows = bundle_systems(name, load_bundle(folder), vocoders)
        check_unused(bundle_rows, rows, f"--bundle {name}")
        rows |= bundle_rows
    for name, folder in baselines.items():
        check_unused([name], rows, f"--adain {name}")
        weights = {"adain": sha256(Path(folder) / "model.safetensors"), **neural_weights}
        rows[name] = System(adain(load_adain(Path(folder)), neural), False, weights)
    return rows


def bundle_systems(name: str, bundle: Bundle, vocoders: Vocoders) -> dict[str, System]:
    """Return the systems of a bundle by the names of their rows.

    With the neural vocoder there are conversions, conversions with the pitch of the source or with an adapted voice, and
    reconstructions. With each other vocoder there are conversions alone.

    Args:
        name: The name of the bundle.
        bundle: The bundle.
        vocoders: All vocoders.
    """
    model, (neural, neural_weights) = {"bundle": bundle.digest}, vocoders["neural"]
    with_neural = {**model, **neural_weights}
    other_vocoders = {
        f"{name}-{other}": System(conversion(bundle, vocoder), False, {**model, **weights})
        for other, (vocoder, weights) in vocoders.items()
        if other != "neural"
    }
    return {
        f"{name}-reconstructed": System(reconstruction(bundle, neural), False, with_neural),
        **other_vocoders,
        f"{name}-keep": System(conversion(bundle, neural, "keep"), False, with_neural),
        f"{name}-adapted": System(adapted_conversion(bundle, neural), False, with_neural, of_minute=True),
        name: System(conversion(bundle, neural), False, with_neural),
    }


def check_unused(names: Iterable[str], rows: Mapping[str, System], option: str) -> None:
    """Raise InputError if a name of a new row is the name of another row.

    Args:
        names: The names of the new rows.
        rows: The rows so far.
        option: The option of the new rows, for the message.
    """
    for name in names:
        if name in rows or name == "natural":
            raise InputError(f"{option} is the name of another row, {name}; expected a new one")


def unchanged(source: np.ndarray, recordings: Sequence[np.ndarray]) -> np.ndarray:
    """Return the source unchanged, with the right words and the wrong voice."""
    return source


def target_recording(source: np.ndarray, recordings: Sequence[np.ndarray]) -> np.ndarray:
    """Return a recording of the target unchanged, with the right voice and the wrong words."""
    return recordings[0]


def conversion(bundle: Bundle, vocoder: AnyVocoder, pitch: str = "target") -> Convert:
    """Return the conversion of `rwae-vc`.

    Args:
        bundle: The bundle.
        vocoder: The vocoder.
        pitch: "target" to move the pitch into the range of the target, "keep" for the pitch of the source.
    """
    converter = Converter(bundle, vocoder)
    return lambda source, recordings: converter.convert(source, RATE, converter.voice(recordings, RATE), pitch=pitch)


def adapted_conversion(bundle: Bundle, vocoder: AnyVocoder) -> Convert:
    """Return the conversion of `rwae-vc --adapt`: the voice is adapted to its recordings, once for all sources."""
    converter, voices = Converter(bundle, vocoder), {}

    def convert(source: np.ndarray, recordings: Sequence[np.ndarray]) -> np.ndarray:
        key = tuple(hash(recording.tobytes()) for recording in recordings)
        if key not in voices:
            voices[key] = converter.adapt(converter.voice(recordings, RATE), recordings, RATE)
        return converter.convert(source, RATE, voices[key])

    return convert


def reconstruction(bundle: Bundle, vocoder: AnyVocoder) -> Convert:
    """Return the conversion of a source into its own voice."""
    converter = Converter(bundle, vocoder)
    return lambda source, recordings: converter.convert(source, RATE, converter.voice(source, RATE))


def adain(model: AdaInVoice, vocoder: Vocoder) -> Convert:
    """Return the conversion of AdaIN-VC. Its pitch is moved as in `rwae-vc`.

    Args:
        model: The model.
        vocoder: The vocoder.

    Raises:
        InputError: The vocoder has log-mels with other settings than AdaIN-VC.
    """
    if MEL.frames() != vocoder.config.mel.frames():
        raise InputError("the vocoder has other log-mels than AdaIN-VC; expected those of the preset vocoder")

    def convert(source: np.ndarray, recordings: Sequence[np.ndarray]) -> np.ndarray:
        log_mels = model.convert(model.frames(source), *(model.frames(recording) for recording in recordings))
        f0 = pitch.fundamental(source, MEL)
        own = pitch.register([f0])
        target = pitch.register(pitch.fundamental(recording, MEL) for recording in recordings)
        if own is not None and target is not None:
            f0 = pitch.moved(f0, own, target)
        return as_loud(vocode(vocoder, log_mels, torch.from_numpy(f0).float()).numpy(), source)

    return convert


def vocoder_copy(bundle: Bundle, vocoder: AnyVocoder) -> Convert:
    """Return the copy of a source through log-mels, F0 and a vocoder, as loud as the source.

    Args:
        bundle: The bundle, of which the settings of the log-mels are used.
        vocoder: The vocoder.
    """

    def convert(source: np.ndarray, recordings: Sequence[np.ndarray]) -> np.ndarray:
        f0 = None
        if vocoder.takes_pitch:
            f0 = torch.from_numpy(pitch.fundamental(source, bundle.config.mel)).float()
        frames = bundle.frames(source)
        own = vocoder.of(bundle.voice(frames), bundle.digest) if isinstance(vocoder, Vocoder) else vocoder
        return as_loud(torch.cat([*own.chunks([frames], f0, 0)]).numpy(), source)

    return convert


def as_loud(samples: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return samples (M,) with the length (N,) and the loudness of a source (N,)."""
    samples = np.pad(samples, (0, max(len(source) - len(samples), 0)))[: len(source)]
    return samples * np.float32(speech_of(source, RATE).level.active / max(active_level(samples, RATE), 1e-8))


def world(source: np.ndarray, recordings: Sequence[np.ndarray]) -> np.ndarray:
    """Return a conversion by WORLD (Morise et al. 2016), which changes F0 and the spectral envelope.

    The log-F0 of the source gets the mean and the deviation of the target. The envelope is stretched in frequency by the cube
    root of the ratio of the mean F0s. This approximates the ratio of the lengths of the vocal tracts.
    """
    import pyworld

    samples = source.astype(np.float64)
    f0, times = pyworld.harvest(samples, RATE)
    envelope, aperiodicity = (analyse(samples, f0, times, RATE) for analyse in (pyworld.cheaptrick, pyworld.d4c))
    target_f0 = np.concatenate([fundamental(recording) for recording in recordings])
    voiced, target_voiced = f0 > 0, target_f0[target_f0 > 0]
    if voiced.any() and len(target_voiced):
        logs, target_logs = np.log(f0[voiced]), np.log(target_voiced)
        moved = (logs - logs.mean()) * target_logs.std() / max(logs.std(), 1e-3) + target_logs.mean()
        f0[voiced] = np.exp(moved).clip(50, 600)
        factor = np.exp((target_logs.mean() - logs.mean()) / 3)
        bins = np.arange(envelope.shape[1])
        envelope = np.exp(np.array([np.interp(bins / factor, bins, np.log(frame)) for frame in envelope]))
    converted = pyworld.synthesize(f0, np.ascontiguousarray(envelope), aperiodicity, RATE)[: len(source)]
    return np.pad(converted, (0, len(source) - len(converted))).astype(np.float32)
