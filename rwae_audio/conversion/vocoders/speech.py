"""The training data of a vocoder, read from corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rwae_audio.conversion.pitch import fundamental
from rwae_audio.conversion.vocoders.crops import (
    Recorded,
    Speech,
    at_another_pitch,
    joined,
    recorded,
    shortest_for_training,
)
from rwae_audio.conversion.vocoders.neural import load_vocoder
from rwae_audio.conversion.vocoders.settings import RunConfig
from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora import Corpus, Utterance
from rwae_audio.data.features import log_mel
from rwae_audio.data.level import speech_of
from rwae_audio.evaluation.benchmark import read_planned
from rwae_audio.files import InputError, read_json, whole_file, write_json
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.inference.card import credits_of
from rwae_audio.randomness import generator

ARRAYS = ("samples", "log_mels", "f0", "offsets", "voices")


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
        InputError: No recording is long enough, the frames of the bundle or of the vocoder of the copies have other
            settings, or the static codes have another dimension.
    """
    bundle, mel = load_bundle(plan.get("bundle")), config.vocoder.mel
    mover = load_vocoder(Path(plan["init"]) if plan.get("init") else None) if config.train.moved else None
    if bundle.config.mel.frames() != mel.frames():
        raise InputError("the bundle has frames of another kind; expected those of [vocoder] mel")
    if config.vocoder.voice not in (0, dimensions := bundle.config.model.static_dim):
        raise InputError(
            f"[vocoder] voice is {config.vocoder.voice}; expected {dimensions}, the static dimensions of the bundle, or 0"
        )
    if mover is not None and mover.mel.frames() != mel.frames():
        raise InputError(
            "the vocoder that makes copies at another pitch has frames of another kind; expected one of those of "
            "[vocoder] mel as --init, or train.moved = 0"
        )
    corpora = read_planned(plan)
    recordings: list[Recorded] = []
    voices: list[Tensor] = []
    shortest = shortest_for_training(mel)
    for utterance in tqdm(_chosen(corpora, split, plan["test"]), split, disable=None):
        samples = load_audio(utterance.path, mel.sample_rate, utterance.start, utterance.end)
        recording = speech_of(samples, mel.sample_rate)
        if recording.level.count < shortest or recording.level.silent:
            continue
        samples = np.concatenate([*recording.blocks()])
        f0 = fundamental(samples, mel).astype(np.float32)
        natural = log_mel(torch.from_numpy(samples), mel)
        voice, codes = bundle.voice(natural), bundle.encode(natural)
        kinds = [natural, bundle.decode(voice, codes)]
        voices.append(voice)
        if mover is not None:
            draws = generator(config.train.seed, f"moved {split}", len(recordings))
            other = voices[int(torch.randint(len(voices), (), generator=draws))]
            converted = at_another_pitch(mover.of(other, bundle.digest), bundle.decode(other, codes), f0, draws)
            kinds.append(at_another_pitch(mover.of(voice, bundle.digest), natural, f0, draws))
            kinds.append(bundle.decode(voice, bundle.encode(converted)))
        recordings.append(recorded(samples, f0, kinds, voice, mel, utterance.text or ""))
    least = config.train.frames if split == "train" else 1
    if (longest := max((len(recording.f0) for recording in recordings), default=0)) < least:
        raise InputError(f"the longest {split} recording has {longest} frames; expected {least} or more")
    return joined(recordings, mel, (*credits_of(corpora),))


def _chosen(corpora: list[Corpus], split: str, tested: list[str]) -> list[Utterance]:
    """Return the utterances of a split, as `read_speech` describes them."""
    if split == "train":
        return [utterance for corpus in corpora for utterance in corpus.of(split)]
    return [utterance for corpus in corpora if corpus.name in tested for utterance in corpus.of(split)[::4]]
