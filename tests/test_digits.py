"""Spoken digits: the readers, the demo, the recipe as a newcomer runs it, and that no label reaches a weight."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from rwae_audio.data.audio import read_audio
from rwae_audio.data.corpora import read_corpus
from rwae_audio.data.corpora.digits import COLUMNS, DEMO_DIGITS
from rwae_audio.files import InputError

RECIPE = Path(__file__).parent.parent / "recipes/digits"
sys.path.insert(0, str(RECIPE))

from measures import clusters, frechet, inception  # noqa: E402

TINY = ["--set", "train.updates=2", "--set", "train.batch=16", "--threads", "1"]


def run(script: str, *words: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "RWAE_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(RECIPE / script), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "manifest.csv").open()))


def write_manifest(folder: Path, rows: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A small corpus in a folder: three of the demo's speakers, one a split, four words."""
    (folder := tmp_path / "corpus").mkdir()
    of_split = {row["split"]: row["speaker"] for row in rows_of(DEMO_DIGITS)}
    words = ("zero", "one", "two", "three")
    rows = [r for r in rows_of(DEMO_DIGITS) if of_split[r["split"]] == r["speaker"] and r["word"] in words]
    for row in rows:
        (folder / row["path"]).parent.mkdir(exist_ok=True)
        shutil.copyfile(DEMO_DIGITS / row["path"], folder / row["path"])
    write_manifest(folder, rows)
    return folder


def test_the_demo_is_small_and_crossed() -> None:
    corpus = read_corpus("demo-digits")
    assert corpus.synthetic
    assert [len(corpus.speakers(split)) for split in ("train", "dev", "test")] == [18, 6, 6]
    assert len(corpus.utterances) == 30 * 10 * 3
    assert len({(u.speaker, u.text, u.round) for u in corpus.utterances}) == 30 * 10 * 3
    assert len({u.text for u in corpus.utterances}) == 10
    size = sum(path.stat().st_size for path in DEMO_DIGITS.rglob("*") if path.is_file())
    assert size <= 2_000_000


def test_the_demo_is_a_second_each_and_no_recording_twice() -> None:
    utterances = read_corpus("demo-digits").utterances
    assert len({u.path.read_bytes() for u in utterances}) == 900
    for utterance in utterances[::20]:
        audio = read_audio(utterance.path)
        assert (audio.source_rate, len(audio.samples)) == (16000, 16000)
        assert 0.1 < np.abs(audio.samples).max() < 1


def test_a_file_without_its_padding_is_the_same_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPE.parent / "demo"))
    import make_demo_digits as recipe

    sound = 0.1 * np.random.default_rng(0).standard_normal(16000)
    whole, short = tmp_path / "whole.ogg", tmp_path / "short.ogg"
    level = recipe.COMPRESSION
    soundfile.write(whole, sound, 16000, format="OGG", subtype="OPUS", compression_level=level)
    short.write_bytes(recipe.ogg(sound))
    assert whole.stat().st_size - short.stat().st_size > 500
    assert np.array_equal(read_audio(whole).samples, read_audio(short).samples)


def test_the_script_that_writes_a_manifest_for_the_data_set_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for word in (*words, "rotate"):
        (tmp_path / word).mkdir()
        for person in range(30):
            for number in (1, 10):
                (tmp_path / word / f"{person:08}_NO_{number:02}.wav").write_bytes(b"")
    (code,) = re.findall(r"```python\n(.*?)```", (RECIPE / "DATA.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    corpus = read_corpus("digits", tmp_path)
    assert len(corpus.utterances) == 600
    assert [len(corpus.speakers(split)) for split in ("train", "dev", "test")] == [18, 6, 6]
    assert {u.text for u in corpus.utterances} == set(words)
    assert {u.round for u in corpus.utterances} == {1, 10}


def test_the_real_ones_are_read(corpora: Path) -> None:
    if not (corpora / "digits").is_dir():
        pytest.skip("there is no digits/ beside the other corpora")
    corpus = read_corpus("digits", corpora / "digits")
    assert [len(corpus.speakers(split)) for split in ("train", "dev", "test")] == [18, 6, 6]
    assert len({(u.speaker, u.text, u.round) for u in corpus.utterances}) == 30 * 10 * 10


def test_names_do_not_decide_the_order(digits: Path) -> None:
    before = [(u.speaker, u.round, u.path.read_bytes()) for u in read_corpus("digits", digits).utterances]
    rows = rows_of(digits)
    for k, row in enumerate(rows):
        new = f"{row['speaker']}/x{(7 * k) % len(rows)}.ogg"
        (digits / row["path"]).rename(digits / new)
        row.update(path=new, word=f"w{ord(row['word'][0])}")
    write_manifest(digits, rows[::-1])
    after = [(u.speaker, u.round, u.path.read_bytes()) for u in read_corpus("digits", digits).utterances]
    assert before == after


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "training"}, "line 2 has the split 'training'; expected train, dev, test"),
        ({"round": "first"}, "line 2 has the round 'first'; expected a whole number"),
        ({"word": ""}, "line 2 has no word; expected one"),
        ({"speaker": ""}, "line 2 has no speaker; expected one"),
        ({"path": "nowhere.ogg"}, "line 2 names 'nowhere.ogg', which is no file"),
        ({"path": "../corpus/manifest.csv"}, "which is no file in"),
        ({"speaker": "f99", "again": "1"}, "twice; expected each recording once"),
        ({"split": "dev", "of": "train"}, "in two splits; expected each speaker in one"),
    ],
)
def test_a_wrong_manifest_is_said(digits: Path, change: dict[str, str], message: str) -> None:
    rows = rows_of(digits)
    first = change.get("of", rows[0]["split"])
    rows.sort(key=lambda row: row["split"] != first)
    if "again" in change:
        rows.insert(0, dict(rows[0]))
    else:
        rows[0] |= change
    write_manifest(digits, rows)
    with pytest.raises(InputError) as error:
        read_corpus("digits", digits)
    assert message in str(error.value)


def test_a_manifest_that_is_none_is_said(digits: Path) -> None:
    write_manifest(digits, rows_of(digits), COLUMNS[:-1])
    with pytest.raises(InputError, match="has no column split; expected path, speaker, word, round, split"):
        read_corpus("digits", digits)
    write_manifest(digits, [])
    with pytest.raises(InputError, match="names no recording"):
        read_corpus("digits", digits)
    (digits / "manifest.csv").unlink()
    with pytest.raises(InputError, match="expected the manifest of digits"):
        read_corpus("digits", digits)


def test_no_label_reaches_a_weight(digits: Path, tmp_path: Path) -> None:
    """Every word renamed, every file renamed, the manifest in another order: the same weights, bit for bit."""
    words = [*TINY, "--set", "model.actions=4", "--data", f"digits={digits}"]
    first = run("train.py", *words, "--out", "first", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    rows = rows_of(digits)
    names = dict(zip(("zero", "one", "two", "three"), ("two", "three", "one", "zero"), strict=True))
    for k, row in enumerate(rows):
        new = f"{row['speaker']}/{names[row['word']]}_{k}_.ogg"
        (digits / row["path"]).rename(digits / new)
        row.update(path=new, word=names[row["word"]])
    order = np.random.default_rng(0).permutation(len(rows))
    write_manifest(digits, [rows[i] for i in order])
    second = run("train.py", *words, "--out", "second", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    one, other = (load_file(tmp_path / name / "bundle/model.safetensors") for name in ("first", "second"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_recipe_on_the_demo(tmp_path: Path) -> None:
    begun = run("train.py", *TINY, "--out", "run", "--minutes", "1e-9", cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    assert "training on the built-in synthetic digits" in begun.stdout
    on = "continue with: python recipes/digits/train.py --resume run\n"
    assert begun.stdout.endswith(f"stopped after update 1 of 2; {on}")
    assert not (tmp_path / "run/bundle").exists()
    trained = run("train.py", "--resume", "run", "--minutes", "60", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "python recipes/digits/train.py" in (tmp_path / "run/bundle/README.md").read_text()
    generated = run("generate.py", "--bundle", "run/bundle", "--out", "made", cwd=tmp_path)
    assert generated.returncode == 0, generated.stderr
    assert len(list((tmp_path / "made/sounds").glob("action-*-voice-*.wav"))) == 60
    for name in ("samples", "actions_voices", "between_voices"):
        assert (tmp_path / f"made/{name}.png").stat().st_size > 10_000
    again = run("generate.py", "--bundle", "run/bundle", "--out", "made", cwd=tmp_path)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    measured = run("results.py", "run", "--into", str(tmp_path), cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["corpus"] == "demo-digits"
    assert results["rwae-mmd+actions"]["seeds"] == [0]
    assert results["k-means"]["content_accuracy"] is None
    low, high = results["k-means"]["cluster_accuracy"]["interval"]
    assert low <= results["k-means"]["cluster_accuracy"]["mean"] <= high
    assert results["real"]["digit_judge_accuracy"] > 0.5  # by chance 0.1
    assert "| rwae-mmd+actions |" in measured.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "an4=."), "--data an4=.; expected digits=DIR"),
        (("--data", "digits=nowhere"), "is missing; expected the corpus's folder"),
        (("--set", "mel.segment=31"), "has 32 frames; expected 31, [mel] segment, of every recording"),
        (("--resume", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    done = run("train.py", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_frechet_distance_is_that_of_gaussians() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(50_000, 2))
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)
    other = rng.normal(size=(50_000, 2)) * [1.0, 3.0] + [2.0, 0.0]
    assert frechet(one, other) == pytest.approx(2**2 + (3 - 1) ** 2, rel=0.03)


def test_the_inception_score_is_the_number_of_words_said_clearly() -> None:
    score, given, marginal = inception(torch.eye(10).repeat(3, 1))
    assert (score, given, marginal) == pytest.approx((10, 0, np.log(10)))
    score, given, marginal = inception(torch.full((30, 10), 0.1))
    assert (score, given, marginal) == pytest.approx((1, np.log(10), np.log(10)))


def test_clusters_are_named_as_suits_them_best() -> None:
    words = np.arange(10).repeat(6)
    speakers = torch.arange(6).repeat(10)
    perfect = clusters((words + 3) % 10, words, speakers)
    assert perfect["cluster_accuracy"].value == perfect["nmi"].value == 1
    merged = clusters(np.where(words == 9, 8, words), words, speakers)
    assert merged["cluster_accuracy"].value == pytest.approx(0.9)


def test_the_readme_says_what_the_results_say() -> None:
    spec = importlib.util.spec_from_file_location("digits_results", RECIPE / "results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results = json.loads((RECIPE / "results.json").read_text())
    readme = (RECIPE / "README.md").read_text()
    assert module.rendered(readme, results) == readme
