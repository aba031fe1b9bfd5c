"""The ablations: rows of a file are trained on tiny models, kept, and made into a table."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_ladder import recordings
from test_recipes import TINY

from rwae_audio import probes
from rwae_audio.commands.common import guarded
from rwae_audio.config import read_toml
from rwae_audio.trainer import RunConfig

RECIPE = Path(__file__).parent.parent / "recipes/timit"
sys.path.insert(0, str(RECIPE))
import ablations  # noqa: E402

ROWS = read_toml(RECIPE / "ablations.toml")


def call(*words: object) -> int:
    """ablations.py with these words, in this process."""
    return guarded(lambda: ablations.main([str(word) for word in words]), "ablations.py")


def refused(
    call: Callable[..., int], words: list[str], expected: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says in one line why not, and leaves nothing in this empty folder."""
    assert call(*words, "--into", place, "--runs", place / "runs") == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert expected in said.err
    assert not list(place.iterdir())


def kept(folder: Path, static: float, dynamic: float, updates: int = 400, effect: float = 4.0) -> None:
    """A made-up row folder."""
    folder.mkdir(parents=True)
    last = {"step": updates, "dev/static_eer": static, "dev/dynamic_eer": dynamic, "dev/score": dynamic - static}
    last |= {"dev/error": 0.2, "dev/static_effect": 0.3, "dev/dynamic_effect": effect}
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n" + json.dumps(last) + "\n")
    said = {"phone": {"z_m": 0.4, "log_mel": 0.5}, "speaker": {"linear": 0.25, "gru": 0.375}}
    (folder / "row.json").write_text(json.dumps(said))


@pytest.mark.parametrize("name", ROWS)
def test_every_row_changes_something_that_its_base_has(name: str) -> None:
    row, base = ROWS[name], {"base": ROWS[name].get("base", "rwae-plus")}
    config, plain = (RunConfig.of(ablations.settings(one, 3)).tables() for one in (row, base))
    named = {f"{table}.{key}" for table in ablations.TABLES for key in row.get(table, {})}
    changed = {f"{t}.{k}" for t in config for k in config[t] if config[t][k] != plain[t][k]}
    assert changed == named
    assert bool(named) == (name not in ("rwae-plus", "only-mmd"))
    assert {config["train"][key] for key in ("updates", "evaluate_every")} == {ablations.UPDATES}
    assert config["train"]["seed"] == 3


def test_the_table_has_means_and_marks_what_leaves_the_spread(tmp_path: Path) -> None:
    for seed, (static, dynamic) in enumerate([(0.05, 0.45), (0.07, 0.44), (0.06, 0.46)]):
        kept(tmp_path / f"an4/ablations/rwae-plus-{seed}", static, dynamic)
    kept(tmp_path / "an4/ablations/with-swap-0", 0.05, 0.44)
    kept(tmp_path / "an4/ablations/with-hsic-0", 0.04, 0.46)
    assert call("--test", "an4", "--no-train", "--into", tmp_path) == 0
    text = (tmp_path / "an4/ablations.md").read_text()
    assert "| rwae-plus | the whole of it | 3 | 6.0 | 45.0 | 39.0 | 40.0 | 25.0 | 37.5 | 0.200 |" in text
    assert "swapped decodings | 1 | 5.0 | 44.0 | 39.0 | 40.0 |" in text
    assert "HSIC | 1 | 4.0 | 46.0 | **42.0** | 40.0 |" in text
    assert "static 1.0, dynamic 1.0, gap 1.7." in text
    assert "phone from log-mels 50.0 %" in text
    assert "after 400 updates" in text


def test_rows_are_trained_once_and_on_the_development_speakers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RWAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(probes, "GRU_UPDATES", 4)
    recordings(tmp_path / "folder", "s{s}/{u}.wav", 8, 3)
    words = ["--data", f"folder={tmp_path / 'folder'}", "--rows", "with-swap", "only-mmd", *TINY]
    words += ["--runs", tmp_path / "runs", "--into", tmp_path / "ladder"]
    assert call(*words) == 0
    assert "with-swap, seed 0, 6 updates" in capsys.readouterr().err
    folder = tmp_path / "ladder/folder/ablations/with-swap-0"
    assert {path.name for path in folder.iterdir()} == {"config.json", "metrics.jsonl", "row.json"}
    (looked,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert (looked["step"], "train/swap" in looked) == (6, True)
    text = (tmp_path / "ladder/folder/ablations.md").read_text()
    assert f"| {100 * looked['dev/static_eer']:.1f} | {100 * looked['dev/dynamic_eer']:.1f} |" in text
    assert "|  |" in text  # nobody knows what was said
    assert call(*words) == 0  # nothing is trained again
    assert "updates" not in capsys.readouterr().err
    assert call(*words, "--data", "an4=x", "--test", "folder", "--test", "an4") == 2
    assert "--test names folder and an4; expected one corpus" in capsys.readouterr().err
    shutil.rmtree(folder)
    assert call(*words) == 0  # a run that was through is measured
    assert (folder / "row.json").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--rows", "with-swop"], "--rows with-swop; did you mean 'with-swap'?"),
        ([], "no corpus was given"),
        (["--test", "an4", "--no-train"], "ablations has no rows; expected some from training"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(call, words, expected, tmp_path, capsys)


def test_rows_of_different_lengths_are_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept(tmp_path / "an4/ablations/rwae-plus-0", 0.05, 0.45)
    kept(tmp_path / "an4/ablations/with-swap-0", 0.05, 0.44, updates=300)
    assert call("--test", "an4", "--no-train", "--into", tmp_path) == 2
    assert "has rows of 300 and 400 updates; expected" in capsys.readouterr().err


def test_the_table_that_is_kept_is_that_of_its_rows(tmp_path: Path) -> None:
    shutil.copytree(RECIPE / "ladder/an4/ablations", tmp_path / "an4/ablations")
    ablations.write_table(tmp_path / "an4", ROWS)
    assert (tmp_path / "an4/ablations.md").read_text() == (RECIPE / "ladder/an4/ablations.md").read_text()
