"""The tutorial does what it says: its commands and its Python are run as they stand, on made-up recordings."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from made_up import speech

from rwae_audio.data.audio import load_audio
from rwae_audio.evaluation.trials import read_trials
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.settings import tomllib

ROOT = Path(__file__).parent.parent
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
PAGE = (ROOT / "recipes/docs/pages/tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)
COMMANDS = [
    line
    for language, block in BLOCKS
    for line in block.splitlines()
    if not language and line.startswith(("rwae-", "awk "))
]
PYTHON = "\n".join(block for language, block in BLOCKS if language == "python")
SECONDS = 1.6  # a voice is adapted to crops of 0.8 seconds
TINY = (
    "--no-tensorboard --threads 1 --set train.updates=2 --set train.evaluate_every=1 --set train.batch=4 "
    "--set model.static_window=30 --set model.static_hidden=8 "
    "--set model.dynamic_hidden=8 --set model.prior_hidden=8 --set model.decoder_hidden=8"
)


def follow(command: str, printed: io.StringIO) -> None:
    """Do what the page says: in this process what is ours (torch loads once), in a shell what is not."""
    program, *words = shlex.split(command.replace("--adapt 150", "--adapt 1"))
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        if program in SCRIPTS:
            module, _, function = SCRIPTS[program].partition(":")
            words += TINY.split() if program == "rwae-train" else []
            code = getattr(importlib.import_module(module), function)(words)
        else:
            code = subprocess.run(command, shell=True, timeout=60).returncode
    assert code == 0, (command, printed.getvalue())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """(the folder in which the page was followed, what each command printed)."""
    where = tmp_path_factory.mktemp("own")
    for s, speaker in enumerate(("anna", "bob", "cy", "di", "ed", "flo", "guy")):
        for u in range(3):
            folder, suffix = ("monday/", "flac") if speaker == "bob" else ("", "wav")
            path = where / f"recordings/{speaker}/{folder}{u + 1:02}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, speech(5 * s + u, SECONDS), 16000)
    (where / "recordings/anna/02.txt").write_text("What Anna says.\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RWAE_CACHE", str(where / "cache"))
        patch.chdir(where)
        printed = []
        for command in COMMANDS:
            follow(command, text := io.StringIO())
            printed.append(text.getvalue())
        yield where, printed


def test_the_page_goes_from_recordings_to_a_voice() -> None:
    words = [command.split()[0] for command in COMMANDS]
    assert words == ["rwae-train", "rwae-vc", "rwae-vc", "rwae-embed", "rwae-vc", "awk", "rwae-eer"]
    assert "(recipes/docs/pages/tutorial.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_bundle_is_left(done: tuple[Path, list[str]]) -> None:
    where, printed = done
    assert "recordings: utterances (speakers): train 9 (3), dev 6 (2), test 6 (2)" in printed[0]
    assert load_bundle(where / "runs/mine/bundle").synthetic is False


def test_the_run_prints_the_rows_that_the_page_explains(done: tuple[Path, list[str]]) -> None:
    table = PAGE.partition("<!-- table: begin -->")[2].partition("<!-- table: end -->")[0]
    explained = re.findall(r"^(rwae-mmd\S*|untrained|log-mel\S*) ", table, re.M)
    assert len(explained) == 5
    assert [name for name in explained if re.search(rf"^{name} ", done[1][0], re.M)] == explained


def test_voices_are_converted(done: tuple[Path, list[str]]) -> None:
    where, _ = done
    for name in ("anna_as_bob", "anna_as_adapted_bob", "more_of_anna_as_bob"):
        assert len(load_audio(where / f"{name}.wav")) == SECONDS * 16000
    plain, adapted = (load_audio(where / f"anna_as_{name}.wav") for name in ("bob", "adapted_bob"))
    assert (plain != adapted).any()


def test_the_eer_of_the_list_is_the_runs(done: tuple[Path, list[str]]) -> None:
    where, printed = done
    trials = read_trials(where / "trials.txt")
    assert (len(trials), int(trials.target.sum())) == (15, 6)
    static = json.loads((where / "runs/mine/eer.json").read_text())["recordings"]["static"]["eer"]
    assert "15 trials, 6 of them target, 2 speakers" in printed[-1]
    assert f"{100 * static:.1f} [" in printed[-1].splitlines()[-1]


def test_the_python_converts_as_well(
    done: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where, _ = done
    monkeypatch.chdir(where)
    names: dict[str, Any] = {}
    exec(PYTHON.replace("steps=150", "steps=1"), names)
    assert len(names["sound"]) == SECONDS * 16000
    assert names["adapted"].filters is not None
    assert (where / "bob_adapted.safetensors").is_file()
    for name in ("anna_as_bob_again", "anna_as_adapted_bob_again"):
        assert len(load_audio(where / f"{name}.wav")) == SECONDS * 16000
    assert "(1, 64) (101, 16)" in capsys.readouterr().out
