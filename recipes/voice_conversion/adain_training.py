"""What train_adain_vc.py runs: the settings, the frames, the loop."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adain_vc import MEL, AdaInConfig, AdaInVc, AdaInVoice, losses, save_adain
from torch import Tensor

from rwae_audio.data.features import Normaliser
from rwae_audio.data.store import Sampler, open_store
from rwae_audio.evaluation.benchmark import benchmarks, read_planned
from rwae_audio.files import InputError
from rwae_audio.model.config import ModelConfig
from rwae_audio.randomness import generator
from rwae_audio.settings import resolve
from rwae_audio.training.checkpoint import Position, RunState, load_checkpoint, save_checkpoint
from rwae_audio.training.loop import MetricsLog, clip_gradients, train_loop


@dataclass(frozen=True)
class TrainConfig:
    """As many updates, of as many segments as long, as converter.toml has; the authors' Adam and weights. Theirs had 200,000
    updates of 128 segments of 128 frames.

    annealed: the share of the updates over which content_weight grows from 0.
    """

    seed: int = 0
    updates: int = 2000
    batch: int = 64
    frames: int = 64
    learning_rate: float = 5e-4
    reconstruction_weight: float = 10.0
    content_weight: float = 1.0
    annealed: float = 0.1
    gradient_clip: float = 5.0
    evaluate_every: int = 100

    def __post_init__(self) -> None:
        for name, least in {"seed": 0, "updates": 1, "batch": 1, "evaluate_every": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"[train] {name} is {getattr(self, name)}; expected {least} or more")
        if self.frames < 2 * AdaInVc.shrinks or self.frames % AdaInVc.shrinks:
            least = f"a multiple of {AdaInVc.shrinks}, {2 * AdaInVc.shrinks} or more"
            raise ValueError(f"[train] frames is {self.frames}; expected {least}")
        for name in ("learning_rate", "gradient_clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"[train] {name} is {getattr(self, name)}; expected more than 0")
        for name in ("reconstruction_weight", "content_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"[train] {name} is {getattr(self, name)}; expected 0 or more")
        if not 0 <= self.annealed < 1:
            raise ValueError(f"[train] annealed is {self.annealed}; expected at least 0 and under 1")

    def grown(self, step: int) -> float:
        """The share of content_weight in update `step`."""
        return min(1.0, step / (self.annealed * self.updates)) if self.annealed else 1.0


@dataclass(frozen=True)
class RunConfig:
    """The tables of a run."""

    adain: AdaInConfig = field(default_factory=AdaInConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def of(cls, tables: dict[str, Any]) -> RunConfig:
        """From plain tables. Raises InputError."""
        if unknown := set(tables) - {"adain", "train"}:
            raise InputError(f"there is a table [{min(unknown)}]; expected [adain] and [train]")
        return cls(
            resolve(AdaInConfig, tables.get("adain", {}), "[adain]"),
            resolve(TrainConfig, tables.get("train", {}), "[train]"),
        )

    def tables(self) -> dict[str, Any]:
        return {"adain": asdict(self.adain), "train": asdict(self.train)}


@dataclass(frozen=True)
class Speech:
    """What is drawn from, and held_out: normalised segments (B, T, n_mels) of development speakers."""

    sampler: Sampler
    normaliser: Normaliser
    held_out: Tensor
    hours: float


def read_frames(plan: dict[str, Any], config: RunConfig) -> Speech:
    """The training speakers of all corpora, and the development speakers of those of `test`, held out of the others where
    one has none. Raises InputError when these say too little."""
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
        said = {**averages, "dev/reconstruction": on_dev(self.model, self.speech.held_out)}
        self.log.write({"step": position.step, **said, "seconds": round(position.seconds, 1)})
        # while the content costs less than it will, frames are reconstructed better than they will be
        score = -said["dev/reconstruction"] if self.settings.grown(position.step) == 1 else -1e6
        if score > position.best_score:
            position.best_score, position.best_step = score, position.step
            meta = {"command": self.command, "step": position.step}
            save_adain(self.folder / "adain", AdaInVoice(self.model, self.speech.normaliser), meta)
        position.sums = {}
        self.save()
        best = "  (best)" if position.best_step == position.step else ""
        print(json.dumps({key: round(value, 4) for key, value in said.items()}), position.step, best, flush=True)

    def save(self) -> None:
        """Write the checkpoint that the run goes on with."""
        save_checkpoint(self.latest, self.config, self.state, self.position)


@torch.no_grad()
def on_dev(model: AdaInVc, frames: Tensor) -> float:
    """The reconstruction error of frames (B, T, n_mels), without noise."""
    return float((model(frames, None)[0] - frames).abs().mean())
