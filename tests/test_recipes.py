"""The recipe as a user runs it: a subprocess, tiny settings, a corpus made on the spot."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_up_commands import TINY
from safetensors.numpy import load_file

from rwae_audio.commands.common import new_folder
from rwae_audio.files import InputError

ROOT = Path(__file__).parent.parent
TRAIN = [sys.executable, str(ROOT / "recipes/timit/train.py")]


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 made-up voices × 4 recordings in the layout speaker/utterance.wav: harmonics under a moving envelope, in noise."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("recordings")
    time_axis = np.arange(12000) / 16000
    for s in range(8):
        (folder / f"s{s}").mkdir()
        for u in range(4):
            pitch = (90 + 20 * s) * (1 + 0.1 * np.sin(2 * np.pi * (1 + u) * time_axis))
            phase = 2 * np.pi * np.cumsum(pitch) / 16000
            sound = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.2 + np.abs(np.sin(9 * time_axis + u)))
            soundfile.write(folder / f"s{s}" / f"{u}.wav", 0.05 * sound + 0.002 * rng.standard_normal(12000), 16000)
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {**os.environ, "RWAE_CACHE": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}


def call(environment: dict[str, str], where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TRAIN, *words], cwd=where, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def finished(
    recordings: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """(the run folder of a whole run, what it printed)."""
    where = tmp_path_factory.mktemp("whole")
    done = call(environment, where, "--data", f"folder={recordings}", "--out", "run", *TINY)
    assert done.returncode == 0, done.stderr
    return where / "run", done.stdout


def test_a_run_leaves_what_the_readme_says(finished: tuple[Path, str], recordings: Path) -> None:
    folder, printed = finished
    for name in ("run.json", "config.json", "metrics.jsonl", "eer.json", "table.json", "report.html"):
        assert (folder / name).is_file(), name
    assert (folder / "checkpoints/best.safetensors").is_file()
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (folder / "bundle" / name).is_file(), name
    for name in ("det", "reconstructions", "swaps", "speakers"):
        assert (folder / "plots" / f"{name}.png").stat().st_size > 5000
    assert list((folder / "tensorboard").glob("events*"))
    report = json.loads((folder / "eer.json").read_text())[recordings.name]
    row = json.loads((folder / "table.json").read_text())[recordings.name]["paper-mmd"]
    assert {**report, "codes": row["codes"], "collapsed": row["collapsed"]} == row
    assert report["synthetic"] is False
    assert set(report) >= {"trials", "static", "dynamic", "gap"}
    assert set(report["dynamic"]) >= {"eer", "plain", "centred", "interval", "min_dcf"}
    table = json.loads((folder / "table.json").read_text())[recordings.name]
    assert set(table) == {"paper-mmd", "paper-mmd:non-speech", "untrained", "log-mel", "log-mel-mvn"}
    assert "run/bundle" in printed
    assert len(re.findall(r"^update \d+/6", printed, re.M)) == 2


def test_the_scores_of_a_run_give_its_eer(finished: tuple[Path, str], recordings: Path) -> None:
    from rwae_audio.evaluation.verification import eer, read_scores

    folder, _ = finished
    scores, _, target = read_scores(folder / "scores/paper-mmd.static.txt")
    assert eer(scores, target) == pytest.approx(
        json.loads((folder / "eer.json").read_text())[recordings.name]["static"]["eer"], abs=1e-9
    )


def test_two_corpora_are_tested_and_one_has_two_folders(
    recordings: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Also with speakers held out, and goes on from where the folders lie now."""
    for speaker in range(8):
        for folder, number in (("libri", 0), ("more", 1)):
            path = tmp_path / folder / f"train-clean-100/{speaker}/1/{speaker}-1-000{number}.wav"
            path.parent.mkdir(parents=True)
            shutil.copy(recordings / f"s{speaker}/{number}.wav", path)
    (tmp_path / "out.txt").write_text(f"librispeech 7\n{recordings.name} s0  # whoever that is\n")
    words = ["--data", "librispeech=libri", "--data", f"folder={recordings}", "--data", "librispeech=more"]
    words += ["--test", "librispeech", "--test", recordings.name, "--hold-out", "out.txt", "--no-tensorboard"]
    done = call(environment, tmp_path, *words, "--out", "run", *TINY)
    assert done.returncode == 0, done.stderr
    assert "librispeech: utterances (speakers): train 6 (3), dev 4 (2), test 4 (2)" in done.stdout
    assert re.findall(r"^(\w+): [\d,]+ trials, ", done.stdout, re.M) == ["librispeech", recordings.name]
    folder, names = tmp_path / "run", {"librispeech", recordings.name}
    eers, tables = (json.loads((folder / f"{name}.json").read_text()) for name in ("eer", "table"))
    assert set(eers) == set(tables) == names
    for name in names:
        assert tables[name]["paper-mmd"]["static"] == eers[name]["static"]
        assert (folder / "scores" / name / "paper-mmd.static.txt").is_file()
        assert (folder / "plots" / name / "swaps.png").is_file()
    heard = (folder / "scores" / recordings.name / "paper-mmd.static.txt").read_text()
    assert "s0/" not in heard
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in log:
        rates = {code: [line[f"dev/{name}/{code}_eer"] for name in names] for code in ("static", "dynamic")}
        assert {code: line[f"dev/{code}_eer"] for code in rates} == pytest.approx(
            {c: np.mean(r) for c, r in rates.items()}
        )

    (tmp_path / "libri").rename(tmp_path / "there")
    (tmp_path / "out.txt").unlink()
    moved = ["--data", "librispeech=there", "--data", "librispeech=more"]
    done = call(environment, tmp_path, "--resume", "run", *moved, "--set", "train.updates=7", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert "librispeech: 2 utterances of 1 speakers are held out: 7" in done.stdout
    done = call(environment, tmp_path, "--resume", "run", "--data", "librispeech=there", "--threads", "1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "librispeech has other utterances than when the run began (7 instead of 14)" in done.stderr


def test_ctrl_c_saves_and_resume_ends_with_the_same_bits(
    finished: tuple[Path, str], recordings: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    slow = [*TINY, "--set", "train.batch=8", "--out", "run", "--no-tensorboard"]
    words = ["--data", f"folder={recordings}", *slow]
    for _ in range(5):  # the updates take a tenth of a second; with `nice` the signal comes before they are over
        process = subprocess.Popen(
            ["nice", "-n", "19", *TRAIN, *words],
            cwd=tmp_path,
            env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.time() + 120
        while not (tmp_path / "run/metrics.jsonl").exists() and time.time() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        if process.returncode:
            break
        shutil.rmtree(tmp_path / "run")
    assert process.returncode == 130, errors
    assert "continue with: python recipes/timit/train.py --resume run" in errors
    done = call(environment, tmp_path, "--resume", "run", "--no-tensorboard", "--threads", "1")
    assert done.returncode == 0, done.stderr
    weights = [(folder / "bundle/model.safetensors").read_bytes() for folder in (finished[0], tmp_path / "run")]
    assert weights[0] == weights[1]
    assert (finished[0] / "eer.json").read_text() == (tmp_path / "run/eer.json").read_text()


def test_time_that_is_up_ends_a_run_without_an_error_and_it_goes_on(
    finished: tuple[Path, str], recordings: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    words = ["--data", f"folder={recordings}", *TINY, "--out", "run", "--no-tensorboard"]
    begun = call(environment, tmp_path, *words, "--minutes", "1e-9")
    assert (begun.returncode, (tmp_path / "run/bundle").exists()) == (0, False), begun.stderr
    assert "after update 1 of 6; continue with: python recipes/timit/train.py --resume run\n" in begun.stdout
    done = call(environment, tmp_path, "--resume", "run", "--no-tensorboard", "--threads", "1", "--minutes", "60")
    assert done.returncode == 0, done.stderr
    weights = [(folder / "bundle/model.safetensors").read_bytes() for folder in (finished[0], tmp_path / "run")]
    assert weights[0] == weights[1]
    for wrong in ("0", "-1", "nan", "soon"):
        refused = call(environment, tmp_path, *words, "--minutes", wrong)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr


def test_two_processes_leave_one_run_like_that_of_one(
    finished: tuple[Path, str], recordings: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    alone = {**environment, "CUDA_VISIBLE_DEVICES": "", "RWAE_CACHE": str(tmp_path / "cache")}  # builds its own store
    done = subprocess.run(
        [*torchrun, TRAIN[1], "--data", f"folder={recordings}", *TINY],
        cwd=tmp_path,
        env=alone,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / f"{recordings.name}-paper-mmd"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    def names(of: Path) -> set[str]:
        return {str(path.relative_to(of)) for path in of.rglob("*") if "events" not in path.name}

    assert names(folder) == names(finished[0])
    assert len(list((folder / "tensorboard").glob("events*"))) == 1
    printed = (done.stdout, finished[1])
    assert len(printed[0].splitlines()) == len(printed[1].splitlines())
    assert len(re.findall(r"^update \d+/6", done.stdout, re.M)) == 2
    weights = [load_file(part / "bundle/model.safetensors") for part in (folder, finished[0])]
    loose = ("head.mean.bias", "running_mean", "dynamic_mean")  # the bias that standardisation cancels; what follows it
    for name, value in weights[0].items():
        tolerance = 1e-2 if name.endswith(loose) else 1e-4
        np.testing.assert_allclose(value, weights[1][name], rtol=0, atol=tolerance, err_msg=name)


def test_a_run_goes_on_from_a_bundle(
    finished: tuple[Path, str], recordings: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Its weights, hardly moved by two small updates, and its normaliser, on other recordings."""
    (tmp_path / "some").mkdir()
    for speaker in range(7):
        (tmp_path / "some" / f"s{speaker}").symlink_to(recordings / f"s{speaker}")
    begun = str(finished[0] / "bundle")
    small = ["--set", "train.updates=2", "--set", "train.evaluate_every=1", "--set", "train.learning_rate=1e-6"]
    words = ["--data", f"folder={tmp_path / 'some'}", "--no-tensorboard", "--init", begun]
    done = call(environment, tmp_path, *words, *TINY, *small, "--out", "run")
    assert done.returncode == 0, done.stderr
    before, after = (load_file(folder / "bundle/model.safetensors") for folder in (finished[0], tmp_path / "run"))
    drifts = ("running_mean", "running_var", "num_batches_tracked")
    learned = [name for name in after if name.startswith("model.") and not name.endswith(drifts)]
    assert any((before[name] != after[name]).any() for name in learned)
    for name in (*learned, "normaliser.mean", "normaliser.deviation"):
        tolerance = 1e-5 if name.startswith("model.") else 0.0
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=tolerance, err_msg=name)
    card = (tmp_path / "run/bundle/README.md").read_text()
    commands = re.findall(r"^    (python recipes/timit/train\.py .*)$", card, re.M)
    assert ["--init" in command for command in commands] == [False, True]
    wider = call(environment, tmp_path, *words, *TINY, "--set", "model.static_dim=4", "--out", "wider")
    assert (wider.returncode, wider.stderr.count("\n")) == (2, 1), wider.stderr
    assert "has weights of other shapes" in wider.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "an5=x"], "did you mean 'an4'"),
        (["--data", "an4"], "expected NAME=DIR"),
        (["--data", "folder=missing"], "missing"),
        (["--data", "folder={}", "--test", "timit"], "expected one of recordings"),
        (["--data", "folder={}", "--set", "model.decodr=frame"], "did you mean 'decoder'"),
        (["--data", "folder={}", "--set", "decoder"], "expected TABLE.KEY=VALUE"),
        (["--data", "folder={}", "--config", "broken.toml"], "is not TOML"),
        (["--data", "folder={}", "--config", "none.toml"], "does not exist"),
        (["--data", "folder={}", "--config", "rwae-pluss"], "did you mean 'rwae-plus'?"),
        (["--data", "folder={}", "--out", "there"], "exists already"),
        (["--data", "folder={}", "--init", "none"], "expected a bundle"),
        (["--resume", "nowhere"], "does not exist"),
        (["--updates", "3"], "--updates"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    words: list[str], expected: str, recordings: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "broken.toml").write_text("[model\n")
    (tmp_path / "there").mkdir()
    done = call(environment, tmp_path, *(word.replace("{}", str(recordings)) for word in words))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert expected in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.toml", "there"]


def test_a_run_killed_before_its_first_file_leaves_its_name_free(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").touch()
    assert new_folder(tmp_path / "run", "an4") == tmp_path / "run"
    (tmp_path / "run/run.json").touch()
    with pytest.raises(InputError, match="exists already"):
        new_folder(tmp_path / "run", "an4")
