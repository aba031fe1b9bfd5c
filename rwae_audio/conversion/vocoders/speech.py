"""The training data of a vocoder: recordings with their log-mels and F0, and random crops of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rwae_audio.conversion.pitch import fundamental
from rwae_audio.conversion.vocoders.settings import RunConfig, TrainConfig
from rwae_audio.conversion.vocoders.spectra import SIZES
from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora import Corpus, Utterance
from rwae_audio.data.features import MelConfig, log_mel
from rwae_audio.data.level import speech_of
from rwae_audio.evaluation.benchmark import read_planned
from rwae_audio.files import InputError
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.inference.card import credits_of
from rwae_audio.randomness import generator


@dataclass(frozen=True)
class Speech:
    """U recordings, one after another. Arrays are float16 except F0.

    Attributes:
        samples: The waveforms, (N,). Frame t has the hop_length samples from t · hop_length on.
        log_mels: The log-mels of the recordings, (T, n_mels).
        decoded: Reconstructions of the log-mels by a bundle's model, (T, n_mels).
        f0: F0 in Hz, 0 in unvoiced frames, (T,), float32.
        offsets: The first frame of each recording, and the number of all frames, (U + 1,).
        mel: The settings of the frames.
        texts: The words of each recording, "" if they are unknown.
        credits: The credits of the corpora for the card of the vocoder, a line for each.
    """

    samples: np.ndarray
    log_mels: np.ndarray
    decoded: np.ndarray
    f0: np.ndarray
    offsets: np.ndarray
    mel: MelConfig
    texts: tuple[str, ...]
    credits: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The duration of all recordings in seconds."""
        return len(self.samples) / self.mel.sample_rate

    def crop(self, begin: int, frames: int, decoded: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-mels (frames, n_mels), F0 (frames,) and samples ((frames − 1) · hop_length,) of a crop.

        Args:
            begin: The first frame of the crop.
            frames: The number of frames.
            decoded: Whether the log-mels are reconstructions.
        """
        part, hop = slice(begin, begin + frames), self.mel.hop_length
        samples = self.samples[begin * hop : (begin + frames - 1) * hop]
        log_mels, f0 = (self.decoded if decoded else self.log_mels)[part], self.f0[part]
        return _float(log_mels), _float(f0), _float(samples)


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def read_speech(plan: dict[str, Any], split: str, config: RunConfig) -> Speech:
    """Read the recordings of a split, and compute their log-mels, reconstructions and F0.

    Args:
        plan: The content of run.json.
        split: "train" for all training utterances, or "dev" for every fourth development utterance of the tested corpora.
        config: The configuration.

    Raises:
        InputError: No recording is long enough, or the frames of the bundle have other settings.
    """
    bundle, mel = load_bundle(plan.get("bundle")), config.vocoder.mel
    if bundle.config.mel.frames() != mel.frames():
        raise InputError("the bundle has frames of another kind; expected those of [vocoder] mel")
    corpora = read_planned(plan)
    parts: dict[str, list[np.ndarray]] = {"samples": [], "log_mels": [], "decoded": [], "f0": []}
    texts: list[str] = []
    hop = mel.hop_length
    shortest = max(mel.shortest, max(SIZES) // 2 + hop)  # half of the longest window is reflected at both ends
    for utterance in tqdm(_chosen(corpora, split, plan["test"]), split, disable=None):
        samples = load_audio(utterance.path, mel.sample_rate, utterance.start, utterance.end)
        recording = speech_of(samples, mel.sample_rate)
        if recording.level.count < shortest or recording.level.silent:
            continue
        samples = np.concatenate([*recording.blocks()])
        log_mels = log_mel(torch.from_numpy(samples), mel)
        parts["log_mels"].append(log_mels.numpy().astype(np.float16))
        parts["decoded"].append(bundle.reconstruct(log_mels).numpy().astype(np.float16))
        parts["f0"].append(fundamental(samples, mel).astype(np.float32))
        samples = np.pad(samples, (0, max(hop * len(log_mels) - len(samples), 0)))[: hop * len(log_mels)]
        parts["samples"].append(samples.astype(np.float16))
        texts.append(utterance.text or "")
    lengths = [len(part) for part in parts["f0"]]
    least = config.train.frames if split == "train" else 1
    if (longest := max(lengths, default=0)) < least:
        raise InputError(f"the longest {split} recording has {longest} frames; expected {least} or more")
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    offsets = np.cumsum([0, *lengths])
    return Speech(**joined, offsets=offsets, mel=mel, texts=tuple(texts), credits=tuple(credits_of(corpora)))


def _chosen(corpora: list[Corpus], split: str, tested: list[str]) -> list[Utterance]:
    """Return the utterances of a split, as `read_speech` describes them."""
    if split == "train":
        return [utterance for corpus in corpora for utterance in corpus.of(split)]
    return [utterance for corpus in corpora if corpus.name in tested for utterance in corpus.of(split)[::4]]


def draw(speech: Speech, settings: TrainConfig, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the batch of an update. Each possible crop has the same probability.

    Args:
        speech: The recordings.
        settings: The settings of the training.
        step: The number of the update.

    Returns:
        Log-mels (B, T, n_mels), F0 (B, T) in Hz and samples (B, (T − 1) · hop_length).
    """
    draws, frames = generator(settings.seed, "batch", step), settings.frames
    lengths = np.diff(speech.offsets)
    long_enough = np.flatnonzero(lengths >= frames)
    crops = np.cumsum(lengths[long_enough] - frames + 1)  # the number of possible crops, summed over recordings
    uniform = torch.rand(2, settings.batch, generator=draws, dtype=torch.float64).numpy()
    numbers = (uniform[0] * crops[-1]).astype(np.int64)
    recordings = np.searchsorted(crops, numbers, side="right")
    begins = speech.offsets[long_enough[recordings]] + numbers - np.concatenate([[0], crops])[recordings]
    rows = begins[:, None] + np.arange(frames)
    decoded = (uniform[1] < settings.decoded)[:, None, None]
    log_mels = np.where(decoded, speech.decoded[rows], speech.log_mels[rows])
    hops = speech.samples.reshape(-1, speech.mel.hop_length)
    samples = hops[rows[:, :-1]].reshape(settings.batch, -1)
    return _float(log_mels), _float(speech.f0[rows]), _float(samples)
