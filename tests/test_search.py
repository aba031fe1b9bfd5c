"""The search: every method's trials are trained on tiny models, kept, and made into a table that says what is taken."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from test_ablations import kept, refused
from test_ladder import recordings
from test_recipes import TINY

from rwae_audio.commands.common import guarded
from rwae_audio.settings import read_toml
from rwae_audio.trainer import RunConfig

RECIPE = Path(__file__).parent.parent / "recipes/timit"
sys.path.insert(0, str(RECIPE))
import search  # noqa: E402

METHODS = read_toml(RECIPE / "search.toml")


def call(*words: object) -> int:
    """search.py with these words, in this process."""
    return guarded(lambda: search.main([str(word) for word in words]), "search.py")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_as_many_trials_and_each_is_another_one(name: str) -> None:
    tried = [RunConfig.of(search.tried(name, trial, [])).tables() for trial in METHODS[name]]
    assert len(tried) == len(METHODS["dsvae"])
    assert len({json.dumps(tables) for tables in tried}) == len(tried)
    plain = tried[0]
    for trial, tables in zip(METHODS[name], tried, strict=True):
        named = {setting.partition("=")[0] for setting in trial.split()}
        assert named == {f"{t}.{k}" for t in tables for k in tables[t] if tables[t][k] != plain[t][k]}


@pytest.mark.parametrize(
    ("dynamic", "bold"),
    [((0.40, 0.41, 0.43), "38.0"), ((0.40, 0.41, 0.414), "35.0"), ((0.40, 0.30, 0.20), "35.0")],
    ids=["ahead", "within what seeds deviate by", "behind"],
)
def test_the_table_takes_what_is_clearly_ahead(tmp_path: Path, dynamic: tuple[float, ...], bold: str) -> None:
    for trial, rate in zip(METHODS["dsvae"], dynamic, strict=False):
        kept(search.folder_of(tmp_path / "an4", "dsvae", trial), 0.05, rate)
    kept(
        search.folder_of(tmp_path / "an4", "fhvae", METHODS["fhvae"][1]), 0.05, 0.45
    )  # nothing to compare it with: none is taken
    assert call("--test", "an4", "--no-train", "--into", tmp_path) == 0
    text = (tmp_path / "an4/search.md").read_text()
    assert text.count("**") == 2
    assert f"**{bold}**" in text
    assert "| dsvae | as it is | 5.0 | 40.0 | " in text
    assert " | 30.0 | 400.0 | 0.200 |" in text
    assert f"| dsvae | `{METHODS['dsvae'][1]}` | 5.0 | {100 * dynamic[1]:.1f} |" in text
    assert "after 400 updates" in text


def test_a_trial_whose_dynamic_code_says_nothing_is_not_taken(tmp_path: Path) -> None:
    for trial, (rate, effect) in zip(METHODS["dsvae"], [(0.40, 4.0), (0.50, 0.01), (0.43, 0.06)], strict=False):
        kept(search.folder_of(tmp_path / "an4", "dsvae", trial), 0.05, rate, effect=effect)
    assert call("--test", "an4", "--no-train", "--into", tmp_path) == 0
    text = (tmp_path / "an4/search.md").read_text()
    assert text.count("**") == 2
    assert "**38.0**" in text


def test_trials_are_trained_once_with_their_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RWAE_CACHE", str(tmp_path / "cache"))
    recordings(tmp_path / "folder", "s{s}/{u}.wav", 8, 3)
    words = ["--data", f"folder={tmp_path / 'folder'}", "--rows", "dsvae", *TINY]
    words += ["--runs", tmp_path / "runs", "--into", tmp_path / "ladder"]
    assert call(*words) == 0
    assert "dsvae, as it is, 6 updates" in capsys.readouterr().err
    folders = [search.folder_of(tmp_path / "ladder/folder", "dsvae", trial) for trial in METHODS["dsvae"]]
    assert folders[4].name == "dsvae,objective.dynamic_weight=3.0,objective.static_weight=0.1"
    weights = [json.loads((folder / "config.json").read_text())["objective"]["dynamic_weight"] for folder in folders]
    assert weights == [1.0, 3.0, 10.0, 1.0, 3.0, 1.0]
    assert (tmp_path / "ladder/folder/search.md").read_text().count("| dsvae | ") == len(folders)
    assert call(*words) == 0  # nothing is trained again
    assert "updates" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--rows", "dsvea"], "--rows dsvea; did you mean 'dsvae'?"),
        ([], "no corpus was given"),
        (["--test", "an4", "--no-train"], "search has no rows; expected some from training"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(call, words, expected, tmp_path, capsys)


def test_the_table_that_is_kept_is_that_of_its_rows(tmp_path: Path) -> None:
    for pattern in ("search", "*-[0-9]"):
        for folder in (RECIPE / "ladder/an4").glob(pattern):
            shutil.copytree(folder, tmp_path / "an4" / folder.name)
    search.write_table(tmp_path / "an4", METHODS)
    assert (tmp_path / "an4/search.md").read_text() == (RECIPE / "ladder/an4/search.md").read_text()
    shutil.rmtree(tmp_path / "an4/s3vae-0")  # there is nothing to compare s3vae-searched-0 with
    search.write_table(tmp_path / "an4", METHODS)
    text = (tmp_path / "an4/search.md").read_text().partition("## Trained")[2]
    assert "| s3vae |" not in text
    assert "| dbse | 0 |" in text
