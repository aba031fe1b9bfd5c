"""The ladder: finished runs become rows, rows become tables. Tiny made-up runs, and one that is trained."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_commands import TINY, recordings
from made_up_runs import made_up_run

from rwae_audio.commands.common import guarded
from rwae_audio.commands.runs import CONFIGURATIONS, command_line
from rwae_audio.evaluation import probes
from rwae_audio.evaluation.verification import eer, fold

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes/timit"))
import dvector  # noqa: E402
import ecapa  # noqa: E402
import ladder  # noqa: E402
import ladder_rows  # noqa: E402
import ladder_runs  # noqa: E402
import ladder_table  # noqa: E402

ROWS = {"rwae-mmd", "dsvae", "rwae-plus", "rwae-plus-longer", "rwae-gan"}


def call(*words: object) -> int:
    """ladder.py with these words, in this process."""
    return guarded(lambda: ladder.main([str(word) for word in words]), "ladder.py")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder of made-up rows; nobody writes to it."""
    where = tmp_path_factory.mktemp("rows")
    runs = [made_up_run(where / f"plain{seed}", "rwae-mmd", seed) for seed in (0, 1)]
    runs += [made_up_run(where / f"vae{seed}", "dsvae", seed, 2.0) for seed in (0, 1)]
    runs += [made_up_run(where / "plus", "rwae-plus", 0, 0.5)]
    runs += [made_up_run(where / "gone", "rwae-gan", 0, 0.1, ("dynamic",))]
    assert call("--collect", *runs, "--into", where / "ladder") == 0
    longer = made_up_run(where / "longer", "rwae-plus", 1, 0.8)
    assert call("--collect", longer, "--as", "rwae-plus-longer", "--into", where / "ladder") == 0
    return where / "ladder/an4"


def test_rates_are_those_of_the_scores_that_are_kept(place: Path) -> None:
    files = {
        "runs.jsonl",
        "scores.safetensors",
        "trials.safetensors",
        "ladder.csv",
        "ladder.md",
        "det.png",
    }
    assert {path.name for path in place.iterdir()} == {*files, "conf", ".lock"}
    assert {path.stem for path in (place / "conf").iterdir()} == ROWS
    trials, runs = ladder_rows.read_list(place), ladder_rows.read_runs(place)
    assert [ladder_rows.run_name(run.row["name"], run.row["seed"]) for run in runs] == [
        *("dsvae-0", "dsvae-1", "rwae-gan-0", "rwae-mmd-0", "rwae-mmd-1", "rwae-plus-0", "rwae-plus-longer-1")
    ]
    for run in runs:
        row, scores = run.row, run.scores
        assert eer(scores["static"], trials.target) == row["static"]["eer"]
        assert fold(eer(scores["dynamic_plain"], trials.target)) == row["dynamic"]["plain"]
        assert (row["updates"], row["seconds_per_1000"]) == (20, 500.0)
        assert "--out" not in row["command"]


def test_the_table_ranks_by_gap_and_marks_what_collapsed(place: Path) -> None:
    rows = {row["row"]: row for row in csv.DictReader((place / "ladder.csv").open())}
    assert list(rows) == [
        "rwae-plus",
        "rwae-mmd",
        "rwae-plus-longer",
        "dsvae",
        "rwae-gan",
    ]  # the last: the largest gap, and collapsed
    assert float(rows["rwae-gan"]["gap"]) > float(rows["rwae-plus"]["gap"])
    assert [row["kind"] for row in rows.values()] == ["ranked"] * 4 + ["collapsed"]
    assert (rows["rwae-mmd"]["seeds"], float(rows["rwae-mmd"]["error"])) == ("2", 0.9)
    text = (place / "ladder.md").read_text()
    assert "\n| 1 | rwae-plus | 1 |" in text
    assert "\n| 4 | dsvae | 2 |" in text
    assert "\n|  | rwae-gan (**collapsed** in 1 of 1) | 1 |" in text
    for other in ROWS - {"rwae-plus"}:
        assert f"\n- `rwae-plus` minus `{other}`: static " in text
    assert "\n- `rwae-mmd` minus `dsvae`: static **-" in text
    assert "Published by others" in text
    assert "| R-WAE | 4.73 | 23.41 |" in text
    for path in (place.parent / "ladder.png", place / "det.png"):
        assert path.stat().st_size > 5000


def test_the_tables_are_made_anew_from_the_rows_alone(place: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(place, tmp_path / "ladder/an4")
    for name in ("ladder.csv", "ladder.md", "det.png"):
        (copy / name).unlink()
    assert call("--no-train", "--into", tmp_path / "ladder") == 0
    for name in ("ladder.csv", "ladder.md"):
        assert (copy / name).read_text() == (place / name).read_text()


def change_row(place: Path, name: str, **said: object) -> None:
    """Let the line of a run say something else; without anything said it is no more there."""
    rows = ladder_rows.read_rows(place)
    rows |= {name: {**rows[name], **said}}
    kept = [json.dumps(row) + "\n" for key, row in rows.items() if said or key != name]
    (place / "runs.jsonl").write_text("".join(kept))


def test_another_trial_list_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(place, tmp_path / "ladder/an4")
    run = made_up_run(tmp_path / "run", "dbse")
    for file in (run / "scores").iterdir():
        file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    assert call("--collect", run, "--into", tmp_path / "ladder") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "was scored on another trial list" in error
    assert "dbse-0" not in ladder_rows.read_rows(tmp_path / "ladder/an4")
    change_row(tmp_path / "ladder/an4", "dsvae-0", trial_list="0")
    assert call("--no-train", "--into", tmp_path / "ladder") == 2
    assert "dsvae-0 was scored on another trial list (0)" in capsys.readouterr().err


def test_what_judges_make_of_swaps_has_a_table(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "ladder/an4")
    swaps = {"phones_own": 0.25, "phones_swap": 0.5, "taken": 0.75, "cosine": 0.6251, "steadiness": 0.8}
    change_row(tmp_path / "ladder/an4", "dsvae-0", swaps=swaps)
    change_row(tmp_path / "ladder/an4", "dsvae-1", swaps=swaps)
    assert call("--no-train", "--into", tmp_path / "ladder") == 0
    assert "| dsvae | 25.0 | 50.0 | 75.0 | 0.625 | 0.800 |" in (tmp_path / "ladder/an4/ladder.md").read_text()
    rows = list(csv.DictReader((tmp_path / "ladder/an4/ladder.csv").open()))
    assert {row["row"]: row["swaps_taken"] for row in rows}["dsvae"] == "0.75"
    assert all(row["swaps_taken"] == "" for row in rows if row["row"] != "dsvae")


def test_a_killed_collect_leaves_nothing_half(place: Path, tmp_path: Path) -> None:
    into, run = tmp_path / "ladder", made_up_run(tmp_path / "run", "dbse")
    shutil.copytree(place, into / "an4")
    killed = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / "recipes/timit")!r})
import ladder_runs
import ladder_rows
ladder_rows.write_text = lambda path, text: path.suffix == ".jsonl" and os.kill(os.getpid(), 9)
ladder_runs.collect(Path({str(run)!r}), Path({str(into)!r}), {{}}, ladder_runs.Further())
"""
    done = subprocess.run([sys.executable, "-c", killed], env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert {run.row["name"] for run in ladder_rows.read_runs(into / "an4")} == ROWS
    assert ladder_runs.collect(run, into, {}, ladder_runs.Further()) == [("an4", "dbse-0")]
    assert {run.row["name"] for run in ladder_rows.read_runs(into / "an4")} == {*ROWS, "dbse"}
    assert [path.name for path in (into / "an4").glob(".*")] == [".lock"]


def test_seeds_of_two_configurations_are_no_row(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place, tmp_path / "ladder/an4")
    before = (tmp_path / "ladder/an4/runs.jsonl").read_text()
    run = made_up_run(tmp_path / "run", "dsvae", 2)
    config = json.loads((run / "config.json").read_text())
    config["model"]["static_dim"] += 1
    (run / "config.json").write_text(json.dumps(config))
    assert call("--collect", run, "--into", tmp_path / "ladder") == 2
    assert "the runs of dsvae differ in more than their seed" in capsys.readouterr().err
    assert (tmp_path / "ladder/an4/runs.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "no corpus was given; expected --data NAME=DIR"),
        (["--no-train"], "expected a corpus with rows in"),
        (["--data", "an4=.", "--rows", "dsvea"], "did you mean 'dsvae'"),
        (["--data", "an4=.", "--test", "timit"], "expected one of an4"),
        (["--elsewhere", "timit"], "--elsewhere timit; expected NAME=DIR"),
        (["--collect", "nowhere"], "does not exist"),
        (["--row", "dsvae"], "did you mean '--rows'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = call(*words, "--into", tmp_path / "ladder", "--runs", tmp_path / "runs")
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    assert (code, said.out, len(said.err.splitlines())) == (2, "", 1)
    assert expected in said.err
    assert not list(tmp_path.iterdir())


def test_training_what_is_missing_and_hearing_strangers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RWAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(probes, "GRU_UPDATES", 4)
    recordings(tmp_path / "folder", "s{s}/{u}.wav", 8, 3)
    recordings(tmp_path / "libri", "train-clean-100/{s}/1/{s}-1-000{u}.flac", 4, 2)
    words = ["--data", f"folder={tmp_path / 'folder'}", "--elsewhere", f"librispeech={tmp_path / 'libri'}"]
    words += ["--rows", "rwae-mmd", "--seeds", "3", "--runs", tmp_path / "runs", "--into", tmp_path / "ladder"]
    assert call(*words, *TINY) == 0
    said = capsys.readouterr()
    assert "0 of 1 runs are in" in said.err
    here = tmp_path / "ladder/folder"
    rows = ladder_rows.read_rows(here)
    assert set(rows) == {"rwae-mmd-3", "untrained-3", "log-mel", "log-mel-mvn"}
    assert [path.name for path in (here / "conf").iterdir()] == ["rwae-mmd.toml"]
    row, untrained = rows["rwae-mmd-3"], rows["untrained-3"]
    whole = json.loads((tmp_path / "runs/rwae-mmd-3/eer.json").read_text())["folder"]
    for code in ("static", "dynamic"):
        assert row[code]["eer"] == pytest.approx(whole[code]["eer"], abs=5e-4)
    assert row["elsewhere"]["librispeech"]["speakers"] == 3
    assert row["elsewhere"]["librispeech"]["trials"] == 15
    assert row["parameters"] == untrained["parameters"] > 0
    assert row["speaker"]["speakers"] == 2
    assert 0 <= row["non_speech"]["eer"] <= 1
    assert "z_m" not in row["phone"]  # nobody knows what was said
    text = (here / "ladder.md").read_text()
    assert "librispeech: 15 trials, 3 target, 3 speakers" in text
    assert "untrained (*not trained*)" in text

    assert call(*words, *TINY) == 0  # nothing is trained again
    assert "1 of 1 runs are in" in capsys.readouterr().err
    lines = (here / "runs.jsonl").read_text()
    change_row(here, "rwae-mmd-3")  # what is in runs/ was trained otherwise than this asks
    assert call(*words, *TINY, "--set", "train.batch=6") == 2
    assert "is a run with other settings than rwae-mmd.toml and --set" in capsys.readouterr().err
    (tmp_path / "out.txt").write_text("folder s1\n")
    assert call(*words, *TINY, "--hold-out", tmp_path / "out.txt") == 2
    assert "is a run with other speakers held out; expected those of --hold-out" in capsys.readouterr().err
    (here / "runs.jsonl").write_text(lines)

    pytest.importorskip("speechbrain")
    monkeypatch.setattr(ecapa, "CHANNELS", (8, 8, 8, 8, 24))
    monkeypatch.setattr(ecapa, "CROP", 30)
    words = [str(word) for word in [*words[:4], "--out", tmp_path / "ecapa"]]
    settings = [word for key in ("updates=2", "evaluate_every=1", "batch=8") for word in ("--set", f"train.{key}")]
    assert guarded(lambda: ecapa.main([*words, *settings]), "ecapa.py") == 0
    assert call("--collect", tmp_path / "ecapa", "--into", tmp_path / "ladder") == 0
    capsys.readouterr()
    row = ladder_rows.read_rows(here)["ecapa-0"]
    assert (row["supervised"], row["updates"], row["dynamic"]) == (True, 2, None)
    assert row["elsewhere"]["librispeech"]["trials"] == 15
    assert "|  | ecapa (*supervised*) | 1 |" in (here / "ladder.md").read_text()


def test_the_d_vector_without_its_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    code = guarded(lambda: dvector.main(["--data", f"an4={tmp_path}", "--out", str(tmp_path / "run")]), "dvector.py")
    error = capsys.readouterr().err
    assert (code, len(error.splitlines())) == (2, 1)
    assert "expected `pip install 'rwae-audio[judge]'`" in error
    assert not list(tmp_path.iterdir())


def test_a_run_from_before_a_setting_was_there_is_a_seed_of_its_row(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "ladder/an4")
    run = made_up_run(tmp_path / "run", "rwae-mmd", 2)
    config = json.loads((run / "config.json").read_text())
    del config["model"]["dynamic_sees_static"]
    (run / "config.json").write_text(json.dumps(config))
    assert call("--collect", run, "--into", tmp_path / "ladder") == 0


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "runs/dsvae-0/thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    corpus = tmp_path / "speech"
    words = ["--data", f"folder={corpus}", "--rows", "dsvae", "--seeds", 0, "--runs", tmp_path / "runs"]
    assert call(*words, "--into", tmp_path / "ladder") == 2
    assert "is not a run of this ladder" in capsys.readouterr().err
    assert mine.read_text() == "mine"
    mine.unlink()
    plan = {"config": {}, "name": "dsvae", "data": [["an4", "x", "an4"]], "test": ["an4"], "command": ""}
    (mine.parent / "run.json").write_text(json.dumps(plan))
    assert call(*words, "--into", tmp_path / "ladder") == 2
    assert (
        "is a run on an4, tested on an4; expected speech, tested on speech, or another --runs"
        in capsys.readouterr().err
    )


def test_what_is_not_alike_is_said(place: Path, tmp_path: Path) -> None:
    """A run that was read otherwise, rows of one seed, a phone probe on segments."""
    shutil.copytree(place, tmp_path / "an4")
    (tmp_path / "an4/conf/dsvae.toml").write_text("[train]\nbatch = 77\n")
    for seed in (0, 1):
        phone = {"per": "segment", "z_m": 0.25, "z_c": 0.125, "log_mel": 0.5, "majority": 0.1}
        speaker = {"chance": 0.5, "linear": 0.5, "gru": 0.5}
        change_row(tmp_path / "an4", f"dsvae-{seed}", phone=phone, speaker=speaker)
    ladder_table.write_tables(tmp_path / "an4")
    text = (tmp_path / "an4/ladder.md").read_text()
    assert "- `dsvae`: [train] batch is 77, in most rows 128" in text
    assert text.count("in most rows") == 1
    assert "| dsvae | 25.0 (a segment; log-mels 50.0) | 12.5 |" in text
    lines = {line.split(":")[0]: line for line in text.splitlines() if line.startswith("- `")}
    assert lines["- `rwae-plus` minus `dsvae`"].endswith("(`rwae-plus`: one seed)")
    assert lines["- `rwae-plus` minus `rwae-plus-longer`"].endswith("(`rwae-plus` and `rwae-plus-longer`: one seed)")
    assert "one seed" not in lines["- `rwae-mmd` minus `dsvae`"]


def test_an_interval_of_several_seeds_is_not_that_of_the_first() -> None:
    seeds = [{"eer": 0.1, "interval": [0.0, 0.2], "name": "a"}, {"eer": 0.3, "interval": [0.2, 0.4], "name": "a"}]
    assert ladder_table.mean_of(seeds) == {"eer": pytest.approx(0.2), "interval": None, "name": "a"}


@pytest.mark.parametrize(
    "words", [["--as", "x"], ["--collect", "a", "b", "--as", "x"], ["--collect", "a", "--as", "../x"]]
)
def test_a_name_for_one_row_only(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        call(*words)
    assert stop.value.code == 2


def test_a_command_means_the_same_on_another_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def called(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
        return command_line("rwae-train").removeprefix("rwae-train ")

    config, converter = CONFIGURATIONS / "dsvae.toml", "recipes/voice_conversion/converter.toml"
    assert (
        called("--config", config, "--data", f"an4={tmp_path}", "--seed", 1)
        == "--config dsvae --data an4=$AN4 --seed 1"
    )
    again = "--config dsvae --data an4=$AN4 --set train.seed=1"
    assert called(f"--config={config}", f"--data=an4={tmp_path}", "--set=train.seed=1") == again
    assert called("--config", ROOT / converter) == f"--config {converter}"
    monkeypatch.chdir(ROOT / "recipes/timit")
    assert called("--config", "dsvae") == "--config dsvae"
    own = tmp_path / "own.toml"
    assert called("--config", own) == f"--config {own}"
