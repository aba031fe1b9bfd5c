"""--resume: what may stand beside it, a run that is made longer, corpora that have moved, the events of TensorBoard."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import speech
from made_up_training import CONFIG, run

from rwae_audio.commands.runs import add_run, check_beside_resume, lengthened, moved, read_plan
from rwae_audio.data.audio import write_audio
from rwae_audio.data.corpora import Corpus, Source, Utterance, keep_content, read_corpus
from rwae_audio.evaluation.experiment import prepare
from rwae_audio.evaluation.experiment import run as train_and_show
from rwae_audio.files import InputError, read_tensors
from rwae_audio.training import trainer
from rwae_audio.training.board import TensorBoard
from rwae_audio.training.checkpoint import read_position
from rwae_audio.training.trainer import RunConfig

RECIPES = Path(__file__).parent.parent / "recipes"
READ = ("an4", "librispeech", "librispeech")
LATEST = "checkpoints/latest.safetensors"
SMALL = {
    "model": {f"{part}_hidden": 8 for part in ("static", "dynamic", "prior", "decoder")} | {"static_window": 30},
    "train": {"updates": 2, "batch": 4, "evaluate_every": 2},
}


def options(*words: str) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser()
    add_run(parser)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--no-tensorboard", action="store_true")
    parser.add_argument("--with-sa", action="store_true")
    return parser, parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--seed", "0"), "expected no --seed with it"),
        (("--with-sa",), "expected no --with-sa with it"),
        (("--set", "train.updates=9", "--set", "train.seed=1"), "expected no --set train.seed=1, only"),
    ],
)
def test_what_a_resumed_run_would_ignore_is_refused(words: tuple[str, ...], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        check_beside_resume(*options("--resume", "run", *words))
    check_beside_resume(*options(*words))  # a new run goes by them
    beside = ("--threads", "1", "--no-tensorboard", "--data", "an4=x", "--set", "train.updates=9")
    check_beside_resume(*options("--resume", "run", *beside))


@pytest.mark.parametrize(
    ("script", "option"),
    [
        ("timit/train.py", "--half"),
        ("timit/train.py", "--config=x.toml"),
        ("digits/train.py", f"--config={RECIPES / 'digits/conf/rwae-mmd+actions.toml'}"),
        ("voice_conversion/train_vocoder.py", "--bundle=x"),
        ("voice_conversion/train_adain_vc.py", "--test=an4"),
    ],
)
def test_each_recipe_refuses_in_one_line(script: str, option: str, tmp_path: Path) -> None:
    words = [sys.executable, str(RECIPES / script), "--resume", "nowhere", option]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"expected no {option.split('=')[0]} with it" in done.stderr


def test_a_plan_that_is_none_is_said(tmp_path: Path) -> None:
    plan = {"config": {}, "data": [["an4", "/a", "an4"]], "command": "x", "test": 3}
    (tmp_path / "run.json").write_text(json.dumps(plan))
    assert read_plan(tmp_path, test=int) == plan
    with pytest.raises(InputError, match=r"run\.json is not the plan of a run"):
        read_plan(tmp_path, test=list)


def test_corpora_that_have_moved(tmp_path: Path) -> None:
    an4, libri, more = (Source(reader, f"/{folder}", reader) for reader, folder in zip(READ, "alm", strict=True))
    mine, theirs = Source("folder", "/x/mine", "mine"), Source("folder", "/x/theirs", "theirs")
    here = str(tmp_path)
    assert moved([an4, libri], [], tmp_path) == [an4, libri]
    assert moved([an4, libri, more], [f"librispeech={here}"], tmp_path) == [an4, libri._replace(folder=here)]
    both = [f"librispeech={here}/l", f"librispeech={here}/m"]
    assert [source.folder for source in moved([libri, an4, more], both, tmp_path)] == [f"{here}/l", f"{here}/m", "/a"]
    # a folder of another name is still the corpus that the run knows, called by its name or its reader's
    assert moved([an4, mine], [f"mine={here}"], tmp_path) == [an4, mine._replace(folder=here)]
    assert moved([an4, mine], [f"folder={here}"], tmp_path) == [an4, mine._replace(folder=here)]
    for item, words in {
        f"timit={here}": r"--data timit is not a corpus of the run in .*; expected an4, mine, theirs",
        f"folder={here}": r"--data folder is the reader of mine and theirs; expected an4, mine, theirs",
        "an4": "--data an4; expected NAME=DIR",
    }.items():
        with pytest.raises(InputError, match=words):
            moved([an4, mine, theirs], [item], tmp_path)


def test_the_corpora_have_to_hold_what_they_held() -> None:
    utterances = tuple(Utterance(f"{i}.wav", "s", "train", Path(f"{i}.wav")) for i in range(3))
    plan: dict[str, Any] = {}
    keep_content(plan, [Corpus("mine", utterances)])
    assert plan["content"]["mine"]["utterances"] == 3
    elsewhere = tuple(replace(u, path=Path("/there") / u.id) for u in utterances)
    keep_content(plan, [Corpus("mine", elsewhere)])
    for others in (utterances[:2], utterances[::-1], (*utterances[:2], replace(utterances[2], id="x.wav"))):
        with pytest.raises(InputError, match="mine has other utterances than when the run began"):
            keep_content(json.loads(json.dumps(plan)), [Corpus("mine", others)])


def test_a_longer_run_keeps_the_command_that_began_it(tmp_path: Path) -> None:
    plan = {"config": {"train": {"updates": 8, "seed": 1}}, "command": "python x.py"}
    assert lengthened(plan, [], tmp_path, LATEST, "python x.py") == plan
    assert lengthened(plan, ["train.updates=8"], tmp_path, LATEST, "python x.py") == plan
    longer = lengthened(plan, ["train.updates=9"], tmp_path, LATEST, "python x.py")
    assert longer["config"] == {"train": {"updates": 9, "seed": 1}}
    assert longer["before"] == ["python x.py"]
    assert longer["command"] == f"python x.py --resume {tmp_path} --set train.updates=9"
    assert plan["config"]["train"]["updates"] == 8


def test_a_finished_run_goes_on_to_more_updates_and_not_to_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a rate that does not know how long the run is to be
    monkeypatch.setattr(trainer, "learning_rate", lambda settings, step: settings.learning_rate)
    config = replace(CONFIG, train=replace(CONFIG.train, updates=8))
    run(tmp_path / "whole", config)
    run(tmp_path / "parts", replace(config, train=replace(config.train, updates=3)))
    run(tmp_path / "parts", config, resume=True)
    whole, parts = (read_tensors(tmp_path / name / LATEST, "a checkpoint") for name in ("whole", "parts"))
    assert read_position(tmp_path / "parts" / LATEST).step == 8
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    plan = {"config": {"train": {"updates": 8}}, "command": "x"}
    with pytest.raises(InputError, match=r"train\.updates=7: the run in .* has made 8; expected 8 or more"):
        lengthened(plan, ["train.updates=7"], tmp_path / "parts", LATEST, "python x.py")


# TensorBoard


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


@pytest.mark.parametrize("step", [0, 3, 6])
def test_a_board_drops_the_events_after_the_step_where_a_run_goes_on(step: int, tmp_path: Path) -> None:
    mel = RunConfig().mel
    first = TensorBoard(tmp_path, mel)
    for number in (3, 6, 9):
        first.scalars(number, {"loss": 1.0})
    first.close()
    again = TensorBoard(tmp_path, mel, step)
    again.scalars(9, {"loss": 2.0})
    again.close()
    assert events(tmp_path)["loss"] == [*((number, 1.0) for number in (3, 6) if number <= step), (9, 2.0)]


def test_a_resumed_run_shows_each_update_once(tmp_path: Path) -> None:
    for speaker in range(8):
        for number in range(2):
            path = tmp_path / "data" / f"s{speaker}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_audio(path, speech(speaker + number, 0.7), 16000)
    corpus, folder = read_corpus("folder", tmp_path / "data"), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RWAE_CACHE", str(tmp_path / "cache"))
        short = prepare(RunConfig.of(SMALL), [corpus], ["data"])
    train_and_show(short, folder)
    time.sleep(1.1)  # TensorBoard reads event files in the order of their seconds
    later = TensorBoard(folder / "tensorboard", short.config.mel, step=2)  # by a process that was killed after update 4
    later.scalars(4, {"train/loss": -1.0})
    later.close()
    time.sleep(1.1)
    longer = replace(short, config=replace(short.config, train=replace(short.config.train, updates=4)))
    train_and_show(longer, folder, resume=True)
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4]
    shown = events(folder / "tensorboard")["train/loss"]
    assert shown == [(line["step"], pytest.approx(line["train/loss"], rel=1e-6)) for line in log]
