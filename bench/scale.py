"""Measure time and memory for a corpus of 1,000 hours: opening its frame store, drawing batches, computing log-mels.

    python bench/scale.py [--hours 1000] [--speakers 10000] [--folder DIR]

The frame store is a sparse file of the full size without data, which needs no space on the disk. So the numbers do not
include the time for reading the disk.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SECONDS = 12.0  # the duration of an utterance, which is LibriSpeech's mean


def empty_store(folder: Path, hours: float, speakers: int) -> tuple[object, float]:
    """Return a frame store without data, and the time in seconds for opening it.

    Args:
        folder: The folder of its files.
        hours: The hours of speech.
        speakers: The number of speakers.
    """
    from rwae_audio.data.corpora.base import Corpus, Utterance
    from rwae_audio.data.features import PRESETS
    from rwae_audio.data.store import PRECISION, open_store, store_files
    from rwae_audio.files import write_json

    mel = PRESETS["vocoder"]
    count, length = int(hours * 3600 / SECONDS), int(SECONDS * mel.sample_rate / mel.hop_length)
    recording = folder / "recording.wav"  # all utterances are parts of one empty file, which is never read
    recording.write_bytes(b"")
    utterances = tuple(
        Utterance(f"{i}.wav", f"s{i % speakers}", "train", recording, start=SECONDS * i, end=SECONDS * (i + 1))
        for i in range(count)
    )
    corpora = [Corpus("empty", utterances)]
    data, index = store_files(corpora, mel, folder)
    with data.open("wb") as file:
        file.truncate(np.dtype(PRECISION).itemsize * mel.n_mels * length * count)
    write_json(index, {"offsets": (length * np.arange(count + 1)).tolist()})
    began = time.perf_counter()
    store = open_store(corpora, mel, folder)
    return store, time.perf_counter() - began


def memory() -> float:
    """Return the peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def batches(store: object, runs: int = 100) -> tuple[float, float]:
    """Return the time in seconds for creating a sampler, and for drawing a batch of 128 utterances with two windows.

    Args:
        store: The frame store.
        runs: The number of batches.
    """
    from rwae_audio.data.store import Sampler
    from rwae_audio.model import ModelConfig
    from rwae_audio.randomness import generator

    began = time.perf_counter()
    sampler = Sampler(store, store.indices("train"), 40, ModelConfig(), pairs=True)  # type: ignore[arg-type, attr-defined]
    ready = time.perf_counter()
    for step in range(runs):
        sampler.draw(128, generator(0, "batch", step))
    return ready - began, (time.perf_counter() - ready) / runs


def log_mel_work(minutes: float = 6.0) -> float:
    """Return the processor time in seconds for the log-mels of an hour of recordings.

    Args:
        minutes: The duration of the recordings that are measured, noise in WAV files.
    """
    import soundfile

    from rwae_audio.data.corpora.base import Corpus, Utterance
    from rwae_audio.data.features import PRESETS
    from rwae_audio.data.store import open_store

    rng, count = np.random.default_rng(0), int(minutes * 60 / SECONDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bursts = np.sin(np.arange(int(16000 * SECONDS)) / 3000) > -0.5
        for i in range(count):
            soundfile.write(folder / f"{i}.wav", 0.1 * rng.standard_normal(len(bursts)) * bursts, 16000)
        utterances = tuple(Utterance(f"{i}.wav", "s", "train", folder / f"{i}.wav") for i in range(count))
        began = time.process_time()
        open_store([Corpus("noise", utterances)], PRESETS["vocoder"], folder)
        return (time.process_time() - began) * 60 / minutes


def main() -> int:
    """Measure, print the numbers, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1000.0, help="the hours of speech (default: 1000)")
    parser.add_argument("--speakers", type=int, default=10_000, help="the number of speakers (default: 10000)")
    parser.add_argument("--folder", type=Path, help="the folder of the sparse file (default: a temporary folder)")
    options = parser.parse_args()
    work = log_mel_work()
    import torch

    torch.zeros(1)
    before = memory()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        store, opening = empty_store(Path(name), options.hours, options.speakers)
        opened = memory()
        creation, batch = batches(store)
        size = store.frames.nbytes / 2**30  # type: ignore[attr-defined]
    print(f"{options.hours:,.0f} hours, {options.speakers:,} speakers, {len(store.utterances):,} utterances")  # type: ignore[attr-defined]
    print(f"log-mels           {size:8.1f} GiB on the disk; {work:.0f} s of one core for each hour of sound")
    print(f"opening            {opening:8.2f} s, {opened - before:.0f} MiB (with the table of utterances)")
    print(f"sampler            {creation:8.2f} s, {memory() - opened:.0f} MiB more (with the pages of batches)")
    print(f"a batch of 128     {1000 * batch:8.2f} ms, two windows each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
