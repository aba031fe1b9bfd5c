"""The speech that a vocoder learns from: recordings, their log-mels and F0, and crops of them at random."""

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
    """Recordings one after another, float16 but for F0.

    Attributes:
        samples: The waveforms (N,); frame t has the hop_length samples from t · hop_length on.
        log_mels: The frames (T, n_mels) of the recordings.
        decoded: The frames (T, n_mels) that a bundle's model makes of them.
        f0: The fundamental frequencies (T,) in Hz, float32, 0 where there is none.
        offsets: The first frame of each recording, and the end of the last one, (U + 1,).
        mel: The settings of the frames.
        texts: The words of each recording, "" where they are not known.
        credits: A line that thanks the makers of each corpus.
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
        """The length of all recordings together."""
        return len(self.samples) / self.mel.sample_rate

    def crop(self, begin: int, frames: int, decoded: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-mels (frames, n_mels), F0 (frames,) and samples ((frames − 1) · hop_length,) from a frame on."""
        part, hop = slice(begin, begin + frames), self.mel.hop_length
        samples = self.samples[begin * hop : (begin + frames - 1) * hop]
        log_mels, f0 = (self.decoded if decoded else self.log_mels)[part], self.f0[part]
        return _float(log_mels), _float(f0), _float(samples)


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def read_speech(plan: dict[str, Any], split: str, config: RunConfig) -> Speech:
    """Return the recordings of a split: `train` of all corpora of the plan, another one of every fourth of the tested ones.

    Raises InputError when none is long enough.
    """
    bundle, mel = load_bundle(plan.get("bundle")), config.vocoder.mel
    if bundle.config.mel.frames() != mel.frames():
        raise InputError("the bundle has frames of another kind; expected those of [vocoder] mel")
    corpora = read_planned(plan)
    parts: dict[str, list[np.ndarray]] = {"samples": [], "log_mels": [], "decoded": [], "f0": []}
    texts: list[str] = []
    hop = mel.hop_length
    shortest = max(mel.shortest, max(SIZES) // 2 + hop)  # a window reflects its half at each end
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
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    offsets = np.cumsum([0, *lengths])
    return Speech(**whole, offsets=offsets, mel=mel, texts=tuple(texts), credits=tuple(credits_of(corpora)))


def _chosen(corpora: list[Corpus], split: str, tested: list[str]) -> list[Utterance]:
    """Return the utterances of a split: `train` of all corpora, another one of every fourth of the tested corpora."""
    if split == "train":
        return [utterance for corpus in corpora for utterance in corpus.of(split)]
    return [utterance for corpus in corpora if corpus.name in tested for utterance in corpus.of(split)[::4]]


def draw(speech: Speech, settings: TrainConfig, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the batch of an update: log-mels (B, T, n_mels), F0 (B, T), samples (B, N), N = (T − 1) · hop_length.

    Every place where T frames of one recording begin is drawn as often as any other.
    """
    noise, frames = generator(settings.seed, "batch", step), settings.frames
    lengths = np.diff(speech.offsets)
    long = np.flatnonzero(lengths >= frames)
    rooms = np.cumsum(lengths[long] - frames + 1)
    drawn = torch.rand(2, settings.batch, generator=noise, dtype=torch.float64).numpy()
    places = (drawn[0] * rooms[-1]).astype(np.int64)
    which = np.searchsorted(rooms, places, side="right")
    begins = speech.offsets[long[which]] + places - np.concatenate([[0], rooms])[which]
    rows = begins[:, None] + np.arange(frames)
    decoded = (drawn[1] < settings.decoded)[:, None, None]
    log_mels = np.where(decoded, speech.decoded[rows], speech.log_mels[rows])
    hops = speech.samples.reshape(-1, speech.mel.hop_length)
    samples = hops[rows[:, :-1]].reshape(settings.batch, -1)
    return _float(log_mels), _float(speech.f0[rows]), _float(samples)
