"""What an update of a training takes, on made-up frames: bfloat16 against float32, and a GPU against one CPU core."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rwae_audio.data.corpora.base import Utterance
from rwae_audio.data.features import Normaliser
from rwae_audio.data.store import FrameStore, Sampler
from rwae_audio.devices import has_bf16
from rwae_audio.objectives import objective_class
from rwae_audio.randomness import generator
from rwae_audio.settings import read_toml
from rwae_audio.training.trainer import RunConfig, Trainer

ROOT = Path(__file__).parents[1]
CONFIGURATIONS = {
    "converter": ROOT / "recipes/voice_conversion/converter.toml",
    "rwae-plus": ROOT / "rwae_audio/assets/conf/rwae-plus.toml",
    "rwae-mmd": ROOT / "rwae_audio/assets/conf/rwae-mmd.toml",
}


def made_up_trainer(path: Path, precision: str, device: torch.device) -> Trainer:
    """Return a training of this configuration on 400 utterances of 300 random frames each."""
    config = RunConfig.of(read_toml(path))
    config = replace(config, train=replace(config.train, precision=precision))
    frames = torch.randn(400 * 300, config.mel.n_mels, generator=generator(0, "frames")).numpy()
    utterances = tuple(Utterance(f"{i}.wav", f"s{i // 4}", "train", Path(f"{i}.wav")) for i in range(400))
    store = FrameStore(frames, 300 * np.arange(401), utterances)
    pairs = objective_class(config.objective.name).pairs
    sampler = Sampler(store, np.arange(400), config.mel.segment, config.model, pairs)
    held_out = sampler.draw(8, generator(0, "held-out"))
    folder = Path(tempfile.mkdtemp())
    normaliser = Normaliser.fit(frames[:3000])
    trainer = Trainer(config, sampler, normaliser, held_out, lambda model: {"score": 0.0}, folder, device=device)
    trainer.begin(resume=False)
    return trainer


class Updates:
    """Updates of one training, one after another."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.step = trainer, 0

    def __call__(self, count: int = 1) -> None:
        """Make `count` updates, and wait until the device has made them."""
        for _ in range(count):
            self.trainer.update(self.step)
            self.step += 1
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize()


def precisions(runs: int = 8) -> dict[str, list[float]]:
    """Return for each configuration the time of an update in float32 over that in bfloat16, both in turn, on this CPU.

    The time is the processor's, so that whatever else runs counts little. There is nothing to compare without bfloat16
    arithmetic.
    """
    cpu, ratios = torch.device("cpu"), {}
    for name, path in CONFIGURATIONS.items() if has_bf16(cpu) else ():
        each = [Updates(made_up_trainer(path, precision, cpu)) for precision in ("float32", "bf16")]
        for updates in each:
            updates(2)
        ratios[name] = [_processor_time(each[0]) / _processor_time(each[1]) for _ in range(runs)]
    return ratios


def _processor_time(updates: Updates) -> float:
    began = time.process_time()
    updates()
    return time.process_time() - began


def gpu(count: int = 50) -> dict[str, dict[str, Any]]:
    """Return for each configuration what a GPU makes of it in bfloat16, where there is one.

    `rate`: updates a second. `waits`: the share of the time in which no kernel runs. `ratio`: the time of an update on one
    CPU core, in the best precision that it has, over that on the GPU.
    """
    from torch.profiler import ProfilerActivity, profile

    results: dict[str, dict[str, Any]] = {}
    cpu, threads = torch.device("cpu"), torch.get_num_threads()
    for name, path in CONFIGURATIONS.items() if torch.cuda.is_available() else ():
        updates = Updates(made_up_trainer(path, "bf16", torch.device("cuda")))
        updates(5)
        began = time.perf_counter()
        updates(count)
        wall = time.perf_counter() - began
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            updates(10)
        busy = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6 / 10
        torch.set_num_threads(1)
        single = Updates(made_up_trainer(path, "bf16" if has_bf16(cpu) else "float32", cpu))
        single()
        core = min(_processor_time(single) for _ in range(3))
        torch.set_num_threads(threads)
        results[name] = {"rate": count / wall, "waits": 1 - busy * count / wall, "ratio": core * count / wall}
    return results
