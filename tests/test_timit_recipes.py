"""The recipes on TIMIT as a user runs them: 630 speakers with the official ids, a tiny bundle, NLTK's real sample."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rwae_audio.data.corpora.timit import LISTS
from rwae_audio.evaluation.scores import read_scores
from rwae_audio.evaluation.trials import read_trials
from rwae_audio.evaluation.verification import eer

ROOT = Path(__file__).parent.parent
TINY = [
    *("--set", "train.updates=6", "--set", "train.evaluate_every=6", "--set", "train.batch=8"),
    *("--set", "model.static_hidden=8", "--set", "model.dynamic_hidden=8", "--set", "model.prior_hidden=8"),
    *("--set", "model.decoder_hidden=8", "--set", "model.static_window=30"),
    *("--set", "mel.n_mels=20", "--threads", "1", "--no-tensorboard"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {**os.environ, "RWAE_CACHE": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}


def call(environment: dict[str, str], where: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "recipes/timit" / name), *words]
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=300)


def test_eer_scores_the_committed_list(
    timit_tree: Path, bundle_folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    words = ["--data", f"timit={timit_tree}", "--bundle", str(bundle_folder), "--scores", "scores"]
    done = call(environment, tmp_path, "eer.py", *words)
    assert done.returncode == 0, done.stderr
    assert "timit: 18,336 trials, 672 of them target, 24 speakers" in done.stdout
    number = r"(\d+\.\d) \[.*\]"
    row = re.search(rf"^rwae-mmd +{number} +{number} +-?\d+\.\d +\d\.\d{{3}}$", done.stdout, re.M)
    assert row
    scores, trials, target = read_scores(tmp_path / "scores/static.txt")
    assert f"{100 * eer(scores, target):.1f}" == row[1]
    assert trials is not None
    assert trials.names == read_trials(LISTS / "core_test_trials.txt").names
    assert {path.name for path in (tmp_path / "scores").iterdir()} == {
        f"{kind}.txt" for kind in ("static", "dynamic_plain", "dynamic_centred")
    }
    share = r"(\d+\.\d) %"
    phone = (
        rf"^phone of a frame: z\^m {share}, log-mels {share}, the commonest class {share} \([\d,]+ frames of 4 classes"
    )
    shares = re.search(phone, done.stdout, re.M)
    assert shares
    assert float(shares[2]) > float(shares[3])
    assert "partial" not in done.stdout


def test_eer_says_what_is_missing(
    timit_tree: Path, bundle_folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(timit_tree / "TEST", tmp_path / "TIMIT/TEST", copy_function=os.link)
    shutil.rmtree(tmp_path / "TIMIT/TEST/DR1/MDAB0")
    words = ["--data", "timit=TIMIT", "--bundle", str(bundle_folder), "--json"]
    done = call(environment, tmp_path, "eer.py", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.match(
        r"eer\.py: 3,704 files of TIMIT are not in .*: TRAIN/FAEM0 \(8 of 8\), .* and 465 more;", done.stderr
    )
    done = call(environment, tmp_path, "eer.py", *words, "--partial")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    remain = "16,836 of the 18,336 trials of its list remain"
    assert said["partial"] == f"TIMIT without 3,704 of 4,288 files; {remain}"
    assert (said["trials"], said["speakers"]) == (23 * 8 * (23 * 8 - 1) // 2, 23)
    assert set(said) >= {"static", "dynamic", "gap"}
    assert said["phone"] == {"left_out": {"train": 0, "test": 0}}


def test_eer_on_the_real_sample(
    corpora: Path, bundle_folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    words = ["--data", f"timit={corpora / 'timit_sample'}"]
    done = call(environment, tmp_path, "eer.py", *words, "--bundle", str(bundle_folder))
    assert done.returncode == 0, done.stderr
    mark = "NLTK's sample of TIMIT; 0 of the 18,336 trials of its list remain; all 496 pairs of 4 speakers instead"
    assert f"\npartial: {mark}\n" in done.stdout
    assert "timit: 496 trials, 112 of them target, 4 speakers" in done.stdout
    assert "phone of a frame: left out" in done.stdout
    done = call(environment, tmp_path, "train.py", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "timit has only test speakers; expected some to train on" in done.stderr


def test_training_on_all_630_speakers(timit_tree: Path, environment: dict[str, str], tmp_path: Path) -> None:
    done = call(environment, tmp_path, "train.py", "--data", f"timit={timit_tree}", "--out", "run", *TINY)
    assert done.returncode == 0, done.stderr
    assert "timit: utterances (speakers): train 3696 (462), dev 400 (50), test 192 (24)" in done.stdout
    assert "timit: 18,336 trials, 672 of them target" in done.stdout
    table = json.loads((tmp_path / "run/table.json").read_text())["timit"]
    assert all(row["trials"] == 18336 and "partial" not in row for row in table.values())


def test_training_on_a_part(timit_tree: Path, environment: dict[str, str], tmp_path: Path) -> None:
    for folder in ("TRAIN/DR1", "TEST/DR1", "TEST/DR8"):
        shutil.copytree(timit_tree / folder, tmp_path / "timit" / folder, copy_function=os.link)
    words = ["--data", "timit=timit", "--out", "run", *TINY]
    done = call(environment, tmp_path, "train.py", *words)
    assert done.returncode == 2
    assert "files of TIMIT are not in" in done.stderr
    assert not (tmp_path / "run").exists()
    done = call(environment, tmp_path, "train.py", *words, "--partial", "--with-sa")
    assert done.returncode == 0, done.stderr
    assert "train 380 (38)" in done.stdout
    mark = r"TIMIT without [\d,]+ of 5,360 files; 1,128 of the 18,336 trials of its list remain"
    assert re.search(rf"^partial: {mark}$", done.stdout, re.M)
    table = json.loads((tmp_path / "run/table.json").read_text())["timit"]
    assert all(re.fullmatch(mark, row["partial"]) for row in table.values())


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("eer.py", ["--data", "timid=x"], "did you mean 'timit'"),
        ("eer.py", ["--data", "timit"], "expected NAME=DIR"),
        ("eer.py", ["--data", "timit=."], "has no TRAIN/ and TEST/ (TIMIT), and no dr1-fvmh0/ (NLTK's sample); found"),
        ("eer.py", ["--data", "folder=.", "--partial"], "--partial is an option of timit; folder has none"),
        ("train.py", ["--data", "folder=.", "--with-sa"], "--with-sa is for timit; expected --data timit=DIR"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    name: str, words: list[str], expected: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "music").mkdir()
    done = call(environment, tmp_path, name, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert expected in done.stderr
