"""The speech that a vocoder learns from: recordings, their log-mels, and crops of them at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from spectra import SIZES
from torch import Tensor

from rwae_audio.commands.resume import keep_content
from rwae_audio.conversion.pitch import fundamental
from rwae_audio.data.features import MelConfig, log_mel
from rwae_audio.data.level import speech_of
from rwae_audio.files import InputError
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.inference.card import credits_of
from rwae_audio.randomness import generator

if TYPE_CHECKING:
    from vocoder_training import RunConfig, TrainConfig


@dataclass(frozen=True)
class Speech:
    """Recordings one after another: samples (N,), of frame t the hop_length ones from t · hop_length on; frames of log-mels,
    of what the model makes of them (T, n_mels), and F0 (T,); offsets (U + 1,): where each recording's frames begin; texts:
    what is said in each, "" where that is not known; credits: the line that thanks the makers of each corpus."""

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
        return len(self.samples) / self.mel.sample_rate

    def crop(self, begin: int, frames: int, decoded: bool) -> tuple[Tensor, Tensor, Tensor]:
        """log-mels (frames, n_mels), F0 (frames,), samples ((frames − 1) · hop_length,)."""
        part = slice(begin, begin + frames)
        hop = self.mel.hop_length
        samples = self.samples[begin * hop : (begin + frames - 1) * hop]
        found = (self.decoded if decoded else self.log_mels)[part], self.f0[part], samples
        return tuple(torch.from_numpy(np.asarray(values, dtype=np.float32)) for values in found)  # type: ignore[return-value]


def read_speech(plan: dict[str, Any], split: str, config: RunConfig) -> Speech:
    """The recordings of a split: of all corpora to train on, of the tested ones otherwise (every fourth).

    Raises InputError when none is long enough.
    """
    from tqdm import tqdm

    from rwae_audio.data.audio import load_audio
    from rwae_audio.data.corpora import planned_corpora
    from rwae_audio.evaluation.benchmark import with_benchmark

    bundle, mel = load_bundle(plan.get("bundle")), config.vocoder.mel
    if bundle.config.mel.frames() != mel.frames():
        raise InputError("the bundle has frames of another kind; expected those of [vocoder] mel")
    utterances = []
    corpora = planned_corpora(plan)
    keep_content(plan, corpora)
    for corpus in (with_benchmark(corpus) if corpus.name in plan["test"] else corpus for corpus in corpora):
        if split == "train" or corpus.name in plan["test"]:
            found = corpus.of(split)
            utterances += found if split == "train" else found[::4]
    parts: dict[str, list[np.ndarray]] = {"samples": [], "log_mels": [], "decoded": [], "f0": []}
    texts: list[str] = []
    hop = mel.hop_length
    shortest = max(mel.shortest, max(SIZES) // 2 + hop)  # a window reflects its half at each end
    for utterance in tqdm(utterances, split, disable=None):
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
    if max(lengths, default=0) < least:
        raise InputError(
            f"the longest {split} recording has {max(lengths, default=0)} frames; expected {least} or more"
        )
    offsets = np.cumsum([0, *lengths])
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    credit_lines = tuple(credits_of(corpora))
    return Speech(**whole, offsets=offsets, mel=mel, texts=tuple(texts), credits=credit_lines)


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
    batch = log_mels, speech.f0[rows], hops[rows[:, :-1]].reshape(settings.batch, -1)
    return tuple(torch.from_numpy(values).float() for values in batch)  # type: ignore[return-value]
