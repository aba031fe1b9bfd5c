"""The time of training updates on random frames: bfloat16 in comparison with float32, and a GPU with one CPU core."""

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


def random_trainer(path: Path, precision: str, device: torch.device) -> Trainer:
    """Return a trainer with 400 utterances of 300 random frames each.

    Args:
        path: The TOML file of the configuration.
        precision: "float32" or "bf16".
        device: The device.
    """
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
    """The updates of a trainer, as a function that makes the next ones."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.step = trainer, 0

    def __call__(self, count: int = 1) -> None:
        """Make `count` updates, and wait until the device has finished them."""
        for _ in range(count):
            self.trainer.update(self.step)
            self.step += 1
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize()


def precisions(runs: int = 8) -> dict[str, list[float]]:
    """Return the ratios of the time of an update in float32 to that in bfloat16, for each configuration, on the CPU.

    Times are processor times, on which other processes have little influence. The result is {} for a CPU without bfloat16.

    Args:
        runs: The number of ratios for each configuration.
    """
    cpu, ratios = torch.device("cpu"), {}
    for name, path in CONFIGURATIONS.items() if has_bf16(cpu) else ():
        float32, bf16 = (Updates(random_trainer(path, precision, cpu)) for precision in ("float32", "bf16"))
        for updates in (float32, bf16):
            updates(2)
        ratios[name] = [_processor_time(float32) / _processor_time(bf16) for _ in range(runs)]
    return ratios


def _processor_time(updates: Updates) -> float:
    """Return the processor time of one update in seconds."""
    began = time.process_time()
    updates()
    return time.process_time() - began


def gpu(count: int = 50) -> dict[str, dict[str, Any]]:
    """Return measures of updates on a GPU in bfloat16, for each configuration; {} without a GPU.

    Args:
        count: The number of timed updates.

    Returns:
        `rate` is the number of updates a second, and `waits` the share of the time in which no kernel runs. `ratio` is the
        time of an update on one CPU core, in its fastest precision, divided by the time on the GPU.
    """
    from torch.profiler import ProfilerActivity, profile

    results: dict[str, dict[str, Any]] = {}
    cpu, threads = torch.device("cpu"), torch.get_num_threads()
    for name, path in CONFIGURATIONS.items() if torch.cuda.is_available() else ():
        updates = Updates(random_trainer(path, "bf16", torch.device("cuda")))
        updates(5)
        began = time.perf_counter()
        updates(count)
        wall = time.perf_counter() - began
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            updates(10)
        busy = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6 / 10
        torch.set_num_threads(1)
        on_cpu = Updates(random_trainer(path, "bf16" if has_bf16(cpu) else "float32", cpu))
        on_cpu()
        core = min(_processor_time(on_cpu) for _ in range(3))
        torch.set_num_threads(threads)
        results[name] = {"rate": count / wall, "waits": 1 - busy * count / wall, "ratio": core * count / wall}
    return results
