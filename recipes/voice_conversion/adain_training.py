"""The training of AdaIN-VC, a baseline of voice conversion: settings, data, updates and evaluation."""

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
    """The settings of the training of AdaIN-VC.

    The numbers of updates, segments and frames are those of converter.toml. The optimizer and the weights of the losses are
    those of the authors, who made 200,000 updates with 128 segments of 128 frames.

    Attributes:
        seed: The seed of all random numbers.
        updates: The number of updates.
        batch: The number of segments of an update.
        frames: The number of frames of a segment.
        learning_rate: The learning rate.
        reconstruction_weight: The weight of the reconstruction loss.
        content_weight: The weight of the KL divergence of the content.
        annealed: The share of the updates over which content_weight rises from 0.
        gradient_clip: The largest norm of the gradient.
        evaluate_every: The number of updates between two evaluations.
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
        """Return the factor of content_weight in update `step`, from 0 to 1."""
        return min(1.0, step / (self.annealed * self.updates)) if self.annealed else 1.0


@dataclass(frozen=True)
class RunConfig:
    """The configuration of a run: its tables [adain] and [train]."""

    adain: AdaInConfig = field(default_factory=AdaInConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def of(cls, tables: dict[str, Any]) -> RunConfig:
        """Return the configuration with the settings in the tables and defaults for all others.

        Raises:
            InputError: A table or a setting is unknown, or a value is out of bounds.
        """
        check_tables(tables, "adain", "train")
        return cls(
            resolve(AdaInConfig, tables.get("adain", {}), "[adain]"),
            resolve(TrainConfig, tables.get("train", {}), "[train]"),
        )

    def tables(self) -> dict[str, Any]:
        """Return the configuration as tables for JSON, the input of `of`."""
        return {"adain": asdict(self.adain), "train": asdict(self.train)}


@dataclass(frozen=True)
class Speech:
    """The data of a run.

    Attributes:
        sampler: The sampler of training segments.
        normaliser: The normaliser of the training speakers' frames.
        held_out: Normalised segments of development speakers, (B, T, n_mels).
        hours: The hours of training speech.
    """

    sampler: Sampler
    normaliser: Normaliser
    held_out: Tensor
    hours: float


def read_frames(plan: dict[str, Any], config: RunConfig) -> Speech:
    """Read the training speakers of all corpora, and the development speakers of the tested corpora.

    Args:
        plan: The content of run.json.
        config: The configuration.

    Raises:
        InputError: No development utterance is as long as a segment.
    """
    size, test = config.train.frames, plan["test"]
    corpora = read_planned(plan)
    store = open_store(corpora, MEL, progress=True)
    rows, model = store.indices("train"), ModelConfig(static_from="segment")
    normaliser = store.normaliser(rows)
    dev = np.concatenate([bench.rows for bench in benchmarks(store, corpora, test, "dev").values()])
    if (longest := int(store.lengths[dev].max())) < size:
        names = " and ".join(test)
        raise InputError(f"the longest development utterance of {names} has {longest} frames; expected {size} or more")
    held_out = Sampler(store, dev, size, model).draw(128, generator(0, "held-out")).frames
    hours = float(store.lengths[rows].sum()) * MEL.hop_length / MEL.sample_rate / 3600
    return Speech(Sampler(store, rows, size, model), normaliser, normaliser(held_out), hours)


def train(config: RunConfig, speech: Speech, folder: Path, command: str, minutes: float | None = None) -> None:
    """Train a model, or continue from the latest checkpoint in the folder.

    Args:
        config: The configuration.
        speech: The data.
        folder: The run folder.
        command: The command line of the run, for the metadata of the model.
        minutes: The time in minutes after which the run stops with a checkpoint, or None.

    Raises:
        Interrupted: Ctrl-C was pressed; a checkpoint has been written.
        TimeIsUp: The minutes are over; a checkpoint has been written.
    """
    train_loop(Training(config, speech, folder, command), minutes=minutes)


class Training:
    """A training run: the model, its optimizer, and its progress (`position`)."""

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
        """Make update number `step`, and return its losses and the norm of the gradient."""
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
        """Evaluate the model on development speakers, and write it if it is the best one so far.

        Args:
            averages: The mean losses of the updates since the last evaluation, which are logged as well.
        """
        position = self.position
        values = {**averages, "dev/reconstruction": on_dev(self.model, self.speech.held_out)}
        self.log.write({"step": position.step, **values, "seconds": round(position.seconds, 1)})
        # before content_weight has reached its value, the reconstruction error is too small to be compared with later ones
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
        """Write the checkpoint from which the run can be continued."""
        save_checkpoint(self.latest, self.config, self.state, self.position)


@torch.no_grad()
def on_dev(model: AdaInVc, frames: Tensor) -> float:
    """Return the mean absolute reconstruction error of normalised frames (B, T, n_mels), without noise."""
    return float((model(frames, None)[0] - frames).abs().mean())
