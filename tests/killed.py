"""Work to be killed in the middle of: `python tests/killed.py` forks a child a job, so that torch loads once.

It reads lines `job seconds folder`, kills the child after so many seconds (or lets it end, at 0), and answers with its
exit status.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from made_up import TINY
from made_up_training import CONFIG, run

from rwae_audio import files
from rwae_audio.commands import train as rwae_train
from rwae_audio.data.corpora import read_corpus
from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.data.store import FrameStore, open_store
from rwae_audio.evaluation import plots
from rwae_audio.inference.bundle import Bundle, load_bundle, save_bundle
from rwae_audio.model import RWAE
from rwae_audio.training.checkpoint import Position, RunState, load_checkpoint, save_checkpoint
from rwae_audio.training.trainer import RunConfig, new_model

LOADED_ONCE = ("accelerate", "librosa", "matplotlib.pyplot", "rwae_audio.evaluation.experiment", "scipy.sparse.csgraph")
LOADED_ONCE += ("torch._dynamo", "torch.distributed.tensor")
LONGER = replace(CONFIG, train=replace(CONFIG.train, updates=30, evaluate_every=2))
BUNDLE = RunConfig.of({"model": TINY})


def write_checkpoint(folder: Path, number: int) -> None:
    """Every weight is `number`, and so is the position."""
    model = new_model(CONFIG)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(number)
    optimizer = torch.optim.Adam(model.parameters())
    save_checkpoint(folder / "latest.safetensors", CONFIG, RunState(model, optimizer), Position(step=number))


def read_checkpoint(folder: Path) -> None:
    model = new_model(CONFIG)
    state = RunState(model, torch.optim.Adam(model.parameters()))
    position = load_checkpoint(folder / "latest.safetensors", CONFIG, state)
    assert all((weight == position.step).all() for weight in model.parameters())


def write_bundle(folder: Path, number: int) -> None:
    normaliser, mean = Normaliser(torch.full((80,), float(number)), torch.ones(80)), np.full(4, number)
    model = RWAE(BUNDLE.model)
    save_bundle(
        folder / "bundle", BUNDLE, model, normaliser, mean, synthetic=False, meta={"number": number}, card="# Card\n"
    )


def read_bundle(folder: Path) -> Bundle:
    bundle = load_bundle(folder / "bundle")
    assert (bundle.normaliser.mean == bundle.meta["number"]).all()
    assert (bundle.dynamic_mean == bundle.meta["number"]).all()
    assert (folder / "bundle/README.md").read_text() == "# Card\n"
    return bundle


def read_store(folder: Path) -> FrameStore:
    return open_store([read_corpus("folder", folder / "recordings")], MelConfig(), folder / "cache")


def write_store(folder: Path, number: int) -> None:
    for kind in ("json", "f16") if number else ():  # the index first: it says that the frames are there
        for path in (folder / "cache").glob(f"*.{kind}"):
            path.unlink()
    read_store(folder)


def over_and_over(write: Callable[[Path, int], None]) -> Callable[[Path], None]:
    def job(folder: Path) -> None:
        for number in range(1_000_000):
            write(folder, number)

    return job


def between_renames(folder: Path) -> None:
    """Die when the old bundle is out of the way and the new one not yet there."""
    move = os.replace

    def last_move(source: Path, target: Path) -> None:
        move(source, target)
        if Path(target).name == ".bundle.part-old":
            os.kill(os.getpid(), signal.SIGKILL)

    files.os.replace = last_move  # type: ignore[assignment]
    write_bundle(folder, 2)


def train(folder: Path) -> None:
    run(folder, LONGER, resume=True)


def recipe(folder: Path) -> None:
    """The whole of rwae-train in `folder`, from the beginning or from where it was; but for drawing, which
    takes longer than all the rest."""
    plots._save = lambda figure, path: files.write_text(path, "a picture")
    from made_up_commands import TINY as SETTINGS

    begin = ["--data", f"folder={folder.parent / 'recordings'}", "--out", str(folder), *SETTINGS]
    begun = (folder / "run.json").exists()
    code = rwae_train.main([*(["--resume", str(folder), "--threads", "1"] if begun else begin), "--no-tensorboard"])
    assert code == 0


JOBS = {
    "checkpoint": over_and_over(write_checkpoint),
    "bundle": over_and_over(write_bundle),
    "store": over_and_over(write_store),
    "between": between_renames,
    "train": train,
    "recipe": recipe,
}


def main() -> None:
    torch.set_num_threads(1)
    for name in LOADED_ONCE:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        job, seconds, folder = line.rstrip("\n").split(" ", 2)
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            JOBS[job](Path(folder))
            os._exit(0)
        if float(seconds):
            time.sleep(float(seconds))
            os.kill(child, signal.SIGKILL)  # not waited for yet, so that the number is still the child's
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
