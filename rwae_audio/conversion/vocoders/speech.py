"""The training data of a vocoder: recordings with their log-mels and F0, and random crops of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rwae_audio.conversion.pitch import HIGHEST, LOWEST, fundamental
from rwae_audio.conversion.vocoders.neural import Vocoder, load_vocoder, vocode
from rwae_audio.conversion.vocoders.settings import RunConfig, TrainConfig
from rwae_audio.conversion.vocoders.spectra import SIZES
from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora import Corpus, Utterance
from rwae_audio.data.features import MelConfig, log_mel
from rwae_audio.data.level import speech_of
from rwae_audio.evaluation.benchmark import read_planned
from rwae_audio.files import InputError, read_json, whole_file, write_json
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.inference.card import credits_of
from rwae_audio.randomness import generator

ARRAYS = ("samples", "log_mels", "f0", "offsets")
KINDS = ("natural", "decoded", "moved", "moved_decoded")  # of log-mels; the last two have another pitch
LARGEST_MOVE = 0.6  # nats of F0, about ten semitones


@dataclass(frozen=True)
class Speech:
    """U recordings, one after another. Arrays are float16 except F0.

    Attributes:
        samples: The waveforms, (N,). Frame t has the hop_length samples from t · hop_length on.
        log_mels: The log-mels of each of KINDS, (2 or 4, T, n_mels): those of the recordings, their reconstructions by a
            bundle's model, those of copies of the recordings at another pitch, and the reconstructions of these.
        f0: F0 in Hz, 0 in unvoiced frames, (T,), float32.
        offsets: The first frame of each recording, and the number of all frames, (U + 1,).
        mel: The settings of the frames.
        texts: The words of each recording, "" if they are unknown.
        credits: The credits of the corpora for the card of the vocoder, a line for each.
    """

    samples: np.ndarray
    log_mels: np.ndarray
    f0: np.ndarray
    offsets: np.ndarray
    mel: MelConfig
    texts: tuple[str, ...]
    credits: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The duration of all recordings in seconds."""
        return len(self.samples) / self.mel.sample_rate

    def crop(self, begin: int, frames: int, kind: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-mels (frames, n_mels), F0 (frames,) and samples ((frames − 1) · hop_length,) of a crop.

        Args:
            begin: The first frame of the crop.
            frames: The number of frames.
            kind: The kind of the log-mels, one of KINDS.
        """
        part, hop = slice(begin, begin + frames), self.mel.hop_length
        samples = self.samples[begin * hop : (begin + frames - 1) * hop]
        log_mels, f0 = self.log_mels[KINDS.index(kind), part], self.f0[part]
        return _float(log_mels), _float(f0), _float(samples)


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))


def stored_speech(plan: dict[str, Any], split: str, config: RunConfig, folder: Path) -> Speech:
    """Return what `read_speech` does. It is stored in a folder, from which a resumed run reads it at once.

    Args:
        plan: The content of run.json.
        split: "train" or "dev".
        config: The configuration.
        folder: The folder, which gets 0.26 GB for each hour of speech, or 0.19 GB without copies at another pitch. It must
            be that of the run, since it is not checked what the speech was read from.
    """
    index, files = folder / f"{split}.json", {name: folder / f"{split}-{name}.npy" for name in ARRAYS}
    if not index.exists():
        speech = read_speech(plan, split, config)
        folder.mkdir(exist_ok=True)
        for name, path in files.items():
            with whole_file(path) as temporary, temporary.open("wb") as file:
                np.save(file, getattr(speech, name))
        write_json(index, {"texts": speech.texts, "credits": speech.credits})  # it marks that all files are there
    known = read_json(index, "the index of stored speech")
    arrays = {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in files.items()}
    return Speech(mel=config.vocoder.mel, texts=tuple(known["texts"]), credits=tuple(known["credits"]), **arrays)


def read_speech(plan: dict[str, Any], split: str, config: RunConfig) -> Speech:
    """Read the recordings of a split, and compute their F0 and their log-mels of all kinds that the training draws.

    Args:
        plan: The content of run.json.
        split: "train" for all training utterances, or "dev" for every fourth development utterance of the tested corpora.
        config: The configuration.

    Raises:
        InputError: No recording is long enough, or the frames of the bundle or of the vocoder of the copies have other
            settings.
    """
    bundle, mel = load_bundle(plan.get("bundle")), config.vocoder.mel
    mover = load_vocoder(Path(plan["init"]) if plan.get("init") else None) if config.train.moved else None
    if bundle.config.mel.frames() != mel.frames():
        raise InputError("the bundle has frames of another kind; expected those of [vocoder] mel")
    if mover is not None and mover.mel.frames() != mel.frames():
        raise InputError(
            "the vocoder that makes copies at another pitch has frames of another kind; expected one of those of "
            "[vocoder] mel as --init, or train.moved = 0"
        )
    corpora = read_planned(plan)
    parts: dict[str, list[np.ndarray]] = {"samples": [], "f0": []}
    log_mels: list[np.ndarray] = []
    texts: list[str] = []
    hop = mel.hop_length
    shortest = max(mel.shortest, max(SIZES) // 2 + hop)  # half of the longest window is reflected at both ends
    for utterance in tqdm(_chosen(corpora, split, plan["test"]), split, disable=None):
        samples = load_audio(utterance.path, mel.sample_rate, utterance.start, utterance.end)
        recording = speech_of(samples, mel.sample_rate)
        if recording.level.count < shortest or recording.level.silent:
            continue
        samples = np.concatenate([*recording.blocks()])
        f0 = fundamental(samples, mel).astype(np.float32)
        kinds = [log_mel(torch.from_numpy(samples), mel)]
        kinds.append(bundle.reconstruct(kinds[0]))
        if mover is not None:
            kinds.append(
                at_another_pitch(mover, kinds[0], f0, generator(config.train.seed, f"moved {split}", len(texts)))
            )
            kinds.append(bundle.reconstruct(kinds[2]))
        log_mels.append(torch.stack(kinds).half().numpy())
        parts["f0"].append(f0)
        samples = np.pad(samples, (0, max(hop * len(f0) - len(samples), 0)))[: hop * len(f0)]
        parts["samples"].append(samples.astype(np.float16))
        texts.append(utterance.text or "")
    lengths = [len(part) for part in parts["f0"]]
    least = config.train.frames if split == "train" else 1
    if (longest := max(lengths, default=0)) < least:
        raise InputError(f"the longest {split} recording has {longest} frames; expected {least} or more")
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    offsets = np.cumsum([0, *lengths])
    frames = np.concatenate(log_mels, axis=1)
    return Speech(
        **joined, log_mels=frames, offsets=offsets, mel=mel, texts=tuple(texts), credits=(*credits_of(corpora),)
    )


def at_another_pitch(vocoder: Vocoder, log_mels: Tensor, f0: np.ndarray, draws: torch.Generator) -> Tensor:
    """Return the log-mels (T, n_mels) of a copy of a recording by a vocoder, at a pitch that is drawn.

    A conversion gives the vocoder log-mels with the harmonics of the source, and F0 in the pitch range of the target. From
    such copies, with the F0 of the recording, the vocoder learns to follow F0.

    Args:
        vocoder: The vocoder.
        log_mels: The log-mels of the recording, (T, n_mels).
        f0: F0 in Hz, 0 in unvoiced frames, (T,).
        draws: The random numbers. F0 is moved by at most LARGEST_MOVE.
    """
    move = LARGEST_MOVE * (2 * torch.rand((), generator=draws) - 1)
    contour = torch.from_numpy(f0)
    contour = torch.where(contour > 0, (contour * move.exp()).clamp(LOWEST, HIGHEST), contour)
    copy = vocode(vocoder, log_mels, contour)
    return log_mel(copy, vocoder.mel)


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
    uniform = torch.rand(3, settings.batch, generator=draws, dtype=torch.float64).numpy()
    numbers = (uniform[0] * crops[-1]).astype(np.int64)
    recordings = np.searchsorted(crops, numbers, side="right")
    begins = speech.offsets[long_enough[recordings]] + numbers - np.concatenate([[0], crops])[recordings]
    rows = begins[:, None] + np.arange(frames)
    kinds = (uniform[1] < settings.decoded) + 2 * (uniform[2] < settings.moved)
    log_mels = speech.log_mels[kinds[:, None], rows]
    hops = speech.samples.reshape(-1, speech.mel.hop_length)
    samples = hops[rows[:, :-1]].reshape(settings.batch, -1)
    return _float(log_mels), _float(speech.f0[rows]), _float(samples)
