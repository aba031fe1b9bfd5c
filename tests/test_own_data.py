"""recipes/timit/OWN_DATA.md does what it says: its commands are run as they stand, on made-up recordings."""

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

import pytest
import soundfile
from made_up import speech

from rwae_audio.data.audio import load_audio
from rwae_audio.evaluation.trials import read_trials
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.settings import tomllib

ROOT = Path(__file__).parent.parent
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
PAGE = (ROOT / "recipes/timit/OWN_DATA.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```\n(.*?)^```$", PAGE, re.M | re.S)
    for line in block.splitlines()
    if line.startswith(("rwae-", "awk "))
]
TINY = (
    "--no-tensorboard --threads 1 --set train.updates=2 --set train.evaluate_every=1 --set train.batch=4 "
    "--set model.static_window=30 --set model.static_hidden=8 "
    "--set model.dynamic_hidden=8 --set model.prior_hidden=8 --set model.decoder_hidden=8"
)


def follow(command: str, printed: io.StringIO) -> None:
    """Do what the page says: in this process what is ours (torch loads once), in a shell what is not."""
    program, *words = shlex.split(command)
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
            soundfile.write(path, speech(5 * s + u, 0.7), 16000)
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
    assert words == ["rwae-train", "awk", "rwae-eer", "rwae-vc"]
    assert "(recipes/timit/OWN_DATA.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_bundle_is_left(done: tuple[Path, list[str]]) -> None:
    where, printed = done
    assert "recordings: utterances (speakers): train 9 (3), dev 6 (2), test 6 (2)" in printed[0]
    assert load_bundle(where / "runs/mine/bundle").synthetic is False


def test_the_eer_of_the_list_is_the_runs(done: tuple[Path, list[str]]) -> None:
    where, printed = done
    trials = read_trials(where / "trials.txt")
    assert (len(trials), int(trials.target.sum())) == (15, 6)
    static = json.loads((where / "runs/mine/eer.json").read_text())["recordings"]["static"]["eer"]
    assert "15 trials, 6 of them target, 2 speakers" in printed[2]
    assert f"{100 * static:.1f} [" in printed[2].splitlines()[-1]


def test_a_voice_is_converted(done: tuple[Path, list[str]]) -> None:
    where, printed = done
    assert "wrote anna_as_bob.wav" in printed[3]
    assert len(load_audio(where / "anna_as_bob.wav")) == 11200
