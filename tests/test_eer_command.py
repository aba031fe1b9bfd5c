"""rwae-eer's options: what it reads besides trial lists of audio, what it says of it, names after `--`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_up import speech
from made_up_commands import called, refused_saying
from safetensors import safe_open

from rwae_audio.commands import eer, embed, vc

NFC, NFD = "jos\u00e9", "jose\u0301"
COMMANDS = {"rwae-vc": vc, "rwae-embed": embed, "rwae-eer": eer}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """run(command, *words) in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(name: str, *words: str | Path) -> tuple[int, str, str]:
        return called(COMMANDS[name].main, words, capsys)

    return call


def audio(*names: str) -> None:
    for seed, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, speech(seed, 0.6), 16000)


# ---- --from-scores and --embeddings


def test_scores_with_a_trial_list_are_those_with_labels(run: Run) -> None:
    pairs = [("a", "b", 0.9, 1), ("c", "d", 0.3, 1), ("a", "c", 0.5, 0), ("b", "d", 0.1, 0)]
    Path("list.txt").write_text("".join(f"{n} {a} {b}\n" for a, b, _, n in pairs))
    Path("bare.txt").write_text("".join(f"{a} {b} {s}\n" for a, b, s, _ in reversed(pairs)))
    Path("labelled.csv").write_text("enroll,test,score,label\n" + "".join(f"{a},{b},{s},{n}\n" for a, b, s, n in pairs))
    code, out, err = run("rwae-eer", "--from-scores", "bare.txt", "--trials", "list.txt", "--json")
    assert (code, err) == (0, "")
    assert run("rwae-eer", "--from-scores", "labelled.csv", "--json")[1] == out
    report = json.loads(out)
    assert (report["trials"], report["target_trials"]) == (4, 2)
    assert report["eer"] == pytest.approx(0.5)  # one target lies between the two others
    assert report["min_dcf_at"] == {"0.05": pytest.approx(0.5), "0.01": pytest.approx(0.5)}
    refused_saying(run("rwae-eer", "--from-scores", "bare.txt"), "bare.txt has no labels; expected a trial list")
    refused_saying(
        run("rwae-eer", "--from-scores", "labelled.csv", "--trials", "list.txt"),
        "labelled.csv has labels; expected no trial list",
    )


def test_the_costs_are_those_of_the_priors_asked_for(run: Run) -> None:
    """One of two targets above all others, the second above nine tenths of them."""
    Path("s.txt").write_text("5 1\n2 1\n" + "0 0\n" * 9 + "4 0\n")
    words = ("rwae-eer", "--from-scores", "s.txt")
    assert "; minDCF 0.500 (P 0.05), 0.500 (P 0.01)\n" in run(*words)[1]
    assert "; minDCF 0.100 (P 0.5), 0.400 (P 0.2)\n" in run(*words, "--p-target", "0.5", "--p-target=0.2")[1]
    report = json.loads(run(*words, "--p-target", "0.5", "--json")[1])
    assert report["min_dcf_at"] == {"0.5": pytest.approx(0.1)}
    assert report["min_dcf"] == pytest.approx(0.5)
    for value in ("0", "1", "-0.1", "nan", "x"):
        refused_saying(run(*words, f"--p-target={value}"), f"'{value}' is not a number between 0 and 1")


@pytest.mark.parametrize("kind", ["npz", "npy", "scp"])
def test_vectors_of_every_format_are_scored(kind: str, run: Run) -> None:
    """Cosines 24/25 for the target, −4/5 and −3/5 for the others."""
    from kaldiio import save_ark

    vectors = {"a": np.array([3.0, 4.0]), "b": np.array([4.0, 3.0]), "c": np.array([0.0, -2.0])}
    Path("npy").mkdir()
    for name, vector in vectors.items():
        np.save(f"npy/{name}.npy", vector)
    np.savez("e.npz", **vectors)
    save_ark("e.ark", vectors, scp="e.scp")
    Path("list.txt").write_text("1 a.wav b.wav\n0 a.wav c.wav\n0 b.wav c.wav\n")
    place = "npy" if kind == "npy" else f"e.{kind}"
    code, out, err = run("rwae-eer", "--trials", "list.txt", "--embeddings", place, "--json", "--scores", "s.txt")
    assert (code, err) == (0, "rwae-eer: wrote the scores to s.txt\n")
    assert (json.loads(out)["eer"], json.loads(out)["threshold"]) == (0, pytest.approx(0.96))
    scores = [float(line.split()[2]) for line in Path("s.txt").read_text().splitlines()]
    assert scores == pytest.approx([0.96, -0.8, -0.6])


# ---- --audio-dir


def test_names_find_their_recordings(run: Run, bundle_folder: Path) -> None:
    """Without an extension, with another one, and in the other Unicode form, folders included."""
    audio(f"d/{NFD}/a.wav", f"d/{NFD}/b.flac", "d/x/c.wav")
    exact = f"1 {NFD}/a.wav {NFD}/b.flac\n0 {NFD}/a.wav x/c.wav\n"
    words = ("--audio-dir", "d", "--bundle", bundle_folder, "--json")
    reports = []
    for text in (exact, f"1 {NFC}/a {NFC}/b\n0 {NFC}/a x/c\n", f"1 {NFC}/a.wav {NFD}/b.wav\n0 {NFC}/a.wav x/c.wav\n"):
        Path("list.txt").write_text(text, encoding="utf-8")
        code, out, err = run("rwae-eer", "--trials", "list.txt", *words)
        assert code == 0, err
        reports.append(json.loads(out))
    assert reports[0] == reports[1] == reports[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 x/a x/b\n0 x/a y/a\n", "names x/a, which could be x/a.flac or x/a.wav"),
        ("1 x/b y/a\n0 x/b b\n", "1 of 3 files are not in d, the first b"),  # a name is a whole path
        ("1 x/b x/b.wav\n0 x/b y/a\n", "names x/b.wav in two ways"),
    ],
)
def test_names_that_find_no_recording_or_several(text: str, expected: str, run: Run) -> None:
    for name in ("x/a.wav", "x/a.flac", "x/b.wav", "y/a.wav"):
        Path("d", name).parent.mkdir(parents=True, exist_ok=True)
        Path("d", name).touch()
    Path("list.txt").write_text(text)
    refused_saying(run("rwae-eer", "--trials", "list.txt", "--audio-dir", "d", "--bundle", "never read"), expected)


# ---- --device, and names after --


def test_every_command_refuses_a_device_that_is_not_here(run: Run, bundle_folder: Path) -> None:
    audio("d/a.wav", "d/b.wav", "d/c.wav")
    Path("list.txt").write_text("1 a b\n0 b c\n")
    words = ("--device", "tpu9", "--bundle", bundle_folder)
    for command in (
        ("rwae-vc", "d/a.wav", "d/b.wav", "-o", "out.wav"),
        ("rwae-embed", "d/a.wav", "-o", "out.safetensors"),
        ("rwae-eer", "--trials", "list.txt", "--audio-dir", "d"),
    ):
        refused_saying(run(*command, *words), "the device tpu9 is not available here; expected cpu")
    refused_saying(run("rwae-eer", "--from-scores", "s.txt", "--device", "cpu"), "got --device as well")
    assert not [*Path().glob("out*")]


def test_after_two_dashes_everything_is_a_name(run: Run, bundle_folder: Path) -> None:
    audio("-a.wav", "--force.wav", "b.wav")
    bundle = ("--bundle", bundle_folder)
    for words in (("b.wav", "-o", "x.safetensors", *bundle, "--"), ("-o", "x.safetensors", *bundle, "--", "b.wav")):
        code, _, err = run("rwae-embed", *words, "-a.wav", "--force.wav")
        assert code == 0, err
        with safe_open("x.safetensors", "pt") as file:
            assert set(file.keys()) == {"static/b.wav", "static/-a.wav", "static/--force.wav"}
        Path("x.safetensors").unlink()
    code, _, err = run("rwae-vc", "-o", "out.wav", *bundle, "--", "-a.wav", "--force.wav")
    assert code == 0, err
    refused_saying(run("rwae-embed", "-o", "x.safetensors", *bundle, "--", "--dynamic"), "--dynamic does not exist")
    refused_saying(run("rwae-embed", "b.wav", "-o", "--", "-a.wav"), "-o/--output: expected one argument")
    refused_saying(run("rwae-embed", "-o", "x.safetensors", "--"), "required: AUDIO")
    refused_saying(run("rwae-eer", "--", "--trials"), "unknown argument --trials")
    assert not Path("x.safetensors").exists()
