"""The training of AdaIN-VC: its settings, its frames, one update and a look at the development speakers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from adain_vc import MEL, AdaInConfig, AdaInVc, AdaInVoice, losses, save_adain
from torch import Tensor

from rwae_audio.commands.runs import tell
from rwae_audio.data.features import Normaliser
from rwae_audio.data.store import Sampler, open_store
from rwae_audio.evaluation.benchmark import benchmarks, read_planned
from rwae_audio.files import InputError
from rwae_audio.model.config import ModelConfig
from rwae_audio.randomness import generator
from rwae_audio.settings import Bounds, Settings, at_least, between, check_tables, resolve
from rwae_audio.training.checkpoint import Position, RunState, load_checkpoint, save_checkpoint
from rwae_audio.training.loop import MetricsLog, clip_gradients, train_loop


@dataclass(frozen=True)
class TrainConfig(Settings):
    """The settings of AdaIN-VC's training: its length, its data and its weights.

    Updates, segments and their length are those of converter.toml; Adam and the weights are the authors', who made 200,000
    updates of 128 segments of 128 frames.

    annealed    the share of the updates over which content_weight grows from 0
    """

    table: ClassVar[str] = "train"
    seed: int = at_least(0, 0)
    updates: int = at_least(1, 2000)
    batch: int = at_least(1, 64)
    frames: int = 64
    learning_rate: float = field(default=5e-4, metadata={"bounds": Bounds(0, open_low=True)})
    reconstruction_weight: float = at_least(0, 10.0)
    content_weight: float = at_least(0, 1.0)
    annealed: float = between(0, 1, 0.1)
    gradient_clip: float = field(default=5.0, metadata={"bounds": Bounds(0, open_low=True)})
    evaluate_every: int = at_least(1, 100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 2 * AdaInVc.shrinks or self.frames % AdaInVc.shrinks:
            least = f"a multiple of {AdaInVc.shrinks}, {2 * AdaInVc.shrinks} or more"
            raise ValueError(f"[train] frames is {self.frames}; expected {least}")

    def grown(self, step: int) -> float:
        """Return the share of content_weight in update `step`."""
        return min(1.0, step / (self.annealed * self.updates)) if self.annealed else 1.0


@dataclass(frozen=True)
class RunConfig:
    """The tables of a run: [adain] and [train]."""

    adain: AdaInConfig = field(default_factory=AdaInConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def of(cls, tables: dict[str, Any]) -> RunConfig:
        """Return the defaults, with what the tables give instead. Raises InputError."""
        check_tables(tables, "adain", "train")
        return cls(
            resolve(AdaInConfig, tables.get("adain", {}), "[adain]"),
            resolve(TrainConfig, tables.get("train", {}), "[train]"),
        )

    def tables(self) -> dict[str, Any]:
        """Return plain tables for JSON, from which `of` makes the same configuration."""
        return {"adain": asdict(self.adain), "train": asdict(self.train)}


@dataclass(frozen=True)
class Speech:
    """The training speakers' segments, to draw from, and some of development speakers.

    Attributes:
        held_out: Normalised segments (B, T, n_mels) of development speakers.
        hours: The length of the training speakers' speech.
    """

    sampler: Sampler
    normaliser: Normaliser
    held_out: Tensor
    hours: float


def read_frames(plan: dict[str, Any], config: RunConfig) -> Speech:
    """Read the training speakers of all corpora of a plan, and the development speakers of those in its `test`.

    Raises InputError when the development speakers say too little.
    """
    size, test = config.train.frames, plan["test"]
    corpora = read_planned(plan)
    store = open_store(corpora, MEL, progress=True)
    rows, model = store.indices("train"), ModelConfig(static_from="segment")
    normaliser = store.normaliser(rows)
    dev = np.concatenate([bench.rows for bench in benchmarks(store, corpora, test, "dev").values()])
    if (longest := int(store.lengths[dev].max())) < size:
        named = " and ".join(test)
        raise InputError(f"the longest development utterance of {named} has {longest} frames; expected {size} or more")
    held_out = Sampler(store, dev, size, model).draw(128, generator(0, "held-out")).frames
    hours = float(store.lengths[rows].sum()) * MEL.hop_length / MEL.sample_rate / 3600
    return Speech(Sampler(store, rows, size, model), normaliser, normaliser(held_out), hours)


def train(config: RunConfig, speech: Speech, folder: Path, command: str, minutes: float | None = None) -> None:
    """Train, from the folder's latest checkpoint on if it has one.

    Args:
        minutes: The time after which the run stops with a checkpoint.

    Raises:
        Interrupted: On Ctrl-C, once the checkpoint is written; TimeIsUp when the minutes are over.
    """
    train_loop(Training(config, speech, folder, command), minutes=minutes)


class Training:
    """One run: the model, its optimizer, and where it stands."""

    def __init__(self, config: RunConfig, speech: Speech, folder: Path, command: str) -> None:
        settings = config.train
        self.config, self.settings, self.speech, self.folder, self.command = config, settings, speech, folder, command
        torch.manual_seed(generator(settings.seed, "weights").initial_seed() % 2**31)
        self.model = AdaInVc(config.adain)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=settings.learning_rate, amsgrad=True, weight_decay=1e-4, fused=True
        )
        self.latest, self.log = folder / "latest.safetensors", MetricsLog(folder / "metrics.jsonl")
        self.state = RunState(self.model, self.optimizer)
        self.position = load_checkpoint(self.latest, config, self.state) if self.latest.exists() else Position()
        self.log.drop_after(self.position.step)

    def update(self, step: int) -> dict[str, Tensor]:
        """Make one update, and return its losses and the norm of its gradient."""
        settings, speech = self.settings, self.speech
        frames = speech.normaliser(speech.sampler.draw(settings.batch, generator(settings.seed, "batch", step)).frames)
        terms = losses(frames, *self.model(frames, generator(settings.seed, "content", step)))
        content_weight = settings.content_weight * settings.grown(step)
        loss = settings.reconstruction_weight * terms["reconstruction"] + content_weight * terms["content"]
        self.optimizer.zero_grad()
        loss.backward()
        norm = clip_gradients(self.model.parameters(), settings.gradient_clip)
        self.optimizer.step()
        return {"loss": loss, **terms, "gradient": norm}

    def look(self, averages: dict[str, float]) -> None:
        """Log the averages and the error on development speakers, and keep the model if it is the best one."""
        position = self.position
        values = {**averages, "dev/reconstruction": on_dev(self.model, self.speech.held_out)}
        self.log.write({"step": position.step, **values, "seconds": round(position.seconds, 1)})
        # while the content costs less than it will, frames are reconstructed better than they will be
        score = -values["dev/reconstruction"] if self.settings.grown(position.step) == 1 else -1e6
        if score > position.best_score:
            position.best_score, position.best_step = score, position.step
            meta = {"command": self.command, "step": position.step}
            save_adain(self.folder / "adain", AdaInVoice(self.model, self.speech.normaliser), meta)
        position.sums = {}
        self.save()
        best = "  (best)" if position.best_step == position.step else ""
        line = json.dumps({key: round(value, 4) for key, value in values.items()})
        tell(f"update {position.step}/{self.settings.updates}: {line}{best}")

    def save(self) -> None:
        """Write the checkpoint that the run goes on with."""
        save_checkpoint(self.latest, self.config, self.state, self.position)


@torch.no_grad()
def on_dev(model: AdaInVc, frames: Tensor) -> float:
    """Return the reconstruction error of frames (B, T, n_mels), without noise."""
    return float((model(frames, None)[0] - frames).abs().mean())
