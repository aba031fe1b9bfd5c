"""What a corpus of 1,000 hours costs: a made-up store of that size in a sparse file, and an hour of real sound.

    python bench/scale.py [--hours 1000] [--speakers 10000] [--folder DIR]

The store takes no room on the disk: a file system with sparse files keeps only what was written. So no time of a disk is in
the figures. They are the library's own: opening, memory, drawing a batch, and the work of making log-mels.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SECONDS = 12.0  # of an utterance: LibriSpeech's mean


def made_up_store(folder: Path, hours: float, speakers: int) -> tuple[object, float]:
    """Return a FrameStore of so many hours in utterances of SECONDS, and the seconds that opening it took."""
    from rwae_audio.data.corpora.base import Corpus, Utterance
    from rwae_audio.data.features import PRESETS
    from rwae_audio.data.store import PRECISION, open_store, store_files
    from rwae_audio.files import write_json

    mel = PRESETS["vocoder"]
    count, length = int(hours * 3600 / SECONDS), int(SECONDS * mel.sample_rate / mel.hop_length)
    recording = folder / "recording.wav"  # all utterances are stretches of one: the store is there already
    recording.write_bytes(b"")
    utterances = tuple(
        Utterance(f"{i}.wav", f"s{i % speakers}", "train", recording, start=SECONDS * i, end=SECONDS * (i + 1))
        for i in range(count)
    )
    corpora = [Corpus("made-up", utterances)]
    data, index = store_files(corpora, mel, folder)
    with data.open("wb") as file:
        file.truncate(np.dtype(PRECISION).itemsize * mel.n_mels * length * count)
    write_json(index, {"offsets": (length * np.arange(count + 1)).tolist()})
    began = time.perf_counter()
    store = open_store(corpora, mel, folder)
    return store, time.perf_counter() - began


def memory() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def batches(store: object, runs: int = 100) -> tuple[float, float]:
    """Return the seconds that a sampler takes to begin with, and those of a batch of 128 with two windows."""
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
    """Return the processor seconds that the log-mels of an hour take, by an hour's part of noise in WAV files."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1000.0, help="of speech (1000)")
    parser.add_argument("--speakers", type=int, default=10_000, help="how many speakers (10000)")
    parser.add_argument("--folder", type=Path, help="where the sparse file is made (a temporary folder)")
    options = parser.parse_args()
    work = log_mel_work()
    import torch

    torch.zeros(1)
    before = memory()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        store, opening = made_up_store(Path(name), options.hours, options.speakers)
        opened = memory()
        beginning, batch = batches(store)
        size = store.frames.nbytes / 2**30  # type: ignore[attr-defined]
    print(f"{options.hours:,.0f} hours, {options.speakers:,} speakers, {len(store.utterances):,} utterances")  # type: ignore[attr-defined]
    print(f"log-mels           {size:8.1f} GiB on the disk; {work:.0f} s of one core for each hour of sound")
    print(f"opening            {opening:8.2f} s, {opened - before:.0f} MiB (with the table of utterances)")
    print(f"sampler            {beginning:8.2f} s, {memory() - opened:.0f} MiB more (with the pages of batches)")
    print(f"a batch of 128     {1000 * batch:8.2f} ms, two windows each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
