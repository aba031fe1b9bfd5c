"""Tiny trainings in this process: a configuration, made-up speakers, a whole run and its metrics."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from rwae_audio.data.corpora.base import Utterance
from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.data.store import Batch, FrameStore, Sampler
from rwae_audio.model import RWAE, ModelConfig
from rwae_audio.objectives import objective_class, objective_settings
from rwae_audio.randomness import generator
from rwae_audio.training.health import code_state
from rwae_audio.training.perturbations import Mel, Tract
from rwae_audio.training.trainer import RunConfig, TrainConfig, train

MODEL = ModelConfig(
    n_mels=8,
    static_dim=4,
    dynamic_dim=3,
    static_hidden=8,
    dynamic_hidden=8,
    prior_hidden=8,
    decoder_hidden=8,
    static_window=10,
    static_variance=0.5,
)
CONFIG = RunConfig(
    MelConfig(n_mels=8, segment=6),
    MODEL,
    objective_settings(),
    TrainConfig(updates=8, batch=6, evaluate_every=3, perturb=(Tract(factor=0.1), Mel(factor=0.1))),
)


def store(count: int = 12) -> FrameStore:
    """Made-up speakers: each has a level of its own in every bin, and a common movement over time."""
    noise = generator(0, "store")
    lengths = torch.randint(12, 40, (count,), generator=noise).tolist()
    frames = [torch.randn(1, 8, generator=noise) + torch.randn(n, 8, generator=noise) for n in lengths]
    utterances = tuple(Utterance(f"{i}.wav", f"s{i // 2}", "train", Path(f"{i}.wav")) for i in range(count))
    return FrameStore(torch.cat(frames).numpy(), np.cumsum([0, *lengths]), utterances)


def run(
    folder: Path,
    config: RunConfig = CONFIG,
    *,
    resume: bool = False,
    stop_at: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    scores: Sequence[float] = (),
) -> RWAE:
    """A whole run; at update `stop_at` the process gets what Ctrl-C sends; `scores`: of the checkpoints, instead of theirs."""
    given = iter(scores)
    data = store()
    pairs = objective_class(config.objective.name).pairs
    sampler = Sampler(data, np.arange(12), config.mel.segment, config.model, pairs)
    held_out = sampler.draw(16, generator(0, "held-out"))
    if stop_at is not None:
        draw, calls = sampler.draw, iter(range(1000))

        def drawing(size: int, noise: torch.Generator, part: slice) -> Batch:
            if next(calls) == stop_at:
                signal.raise_signal(signal.SIGINT)
            return draw(size, noise, part)

        sampler.draw = drawing  # type: ignore[method-assign]

    def evaluate(model: RWAE) -> dict[str, float]:
        return {"score": next(given, -code_state(model, held_out.frames, held_out.static_frames)["error"])}

    return train(config, sampler, Normaliser.fit(data.frames), held_out, evaluate, folder, resume=resume, say=say)


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
