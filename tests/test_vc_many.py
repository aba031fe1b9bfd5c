"""rwae-vc into all voices of a folder and through pipes, and rwae-embed of folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_up import speech

from rwae_audio.commands import embed, vc
from rwae_audio.data.audio import load_audio

COMMANDS = {"rwae-vc": vc, "rwae-embed": embed}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """run(command, *words) in an empty folder, in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(name: str, *words: str | Path) -> tuple[int, str, str]:
        try:
            code = COMMANDS[name].main([*map(str, words), "--bundle", str(bundle_folder)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    return call


def refused(done: tuple[int, str, str], expected: str) -> None:
    """Exit 2, nothing on stdout, and one line on stderr with `expected` in it."""
    code, out, err = done
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert expected in err


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def voices(run: Run, tmp_path: Path) -> Path:
    """A source and voices/: a folder of two recordings, a recording, a saved voice, and what is none or bad."""
    soundfile.write("source.wav", speech(0, 0.7), 16000)
    (tmp_path / "voices/bob/deep").mkdir(parents=True)
    for number, name in enumerate(("bob/1.wav", "bob/deep/2.wav", "carol.flac"), start=1):
        soundfile.write(f"voices/{name}", speech(number, 0.6), 16000)
    soundfile.write("dave.wav", speech(4, 0.6), 16000)
    assert run("rwae-embed", "dave.wav", "-o", "voices/dave.safetensors")[0] == 0
    (tmp_path / "voices/empty").mkdir()
    (tmp_path / "voices/notes.txt").write_text("who is who\n")
    shutil.copy("dave.wav", "voices/.hidden.wav")
    return tmp_path / "voices"


RESULTS = ["source_as_bob.wav", "source_as_carol.wav", "source_as_dave.wav"]

# ---- rwae-vc --targets


def test_one_source_in_every_voice(voices: Path, run: Run, tmp_path: Path) -> None:
    code, out, err = run("rwae-vc", "source.wav", "--targets", "voices", "-o", "out", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [(item["voice"], item["output"]) for item in report["converted"]] == [
        (name[10:-4], f"out/{name}") for name in RESULTS
    ]
    assert (report["targets"], report["failed"]) == (["voices"], [])
    assert listing(tmp_path / "out") == RESULTS
    said = "rwae-vc: converted source.wav into 3 voices, in out; skipped 3 other files (hidden, or without the suffix of a "
    assert err == f"{said}recording or a voice)\n"
    for name, words in {
        "bob": ("voices/bob/1.wav", "voices/bob/deep/2.wav"),
        "carol": ("voices/carol.flac",),
        "dave": ("dave.wav",),
    }.items():
        assert run("rwae-vc", "source.wav", *words, "-o", "alone.wav", "--force")[0] == 0
        assert Path(f"out/source_as_{name}.wav").read_bytes() == Path("alone.wav").read_bytes()


def test_a_bad_voice_is_named_and_the_others_are_written(voices: Path, run: Run, tmp_path: Path) -> None:
    (voices / "bob/3.wav").write_text("not audio\n")
    (voices / "eve.safetensors").write_text("not a voice\n")
    soundfile.write(voices / "hiss.wav", 0.1 * np.random.default_rng(0).standard_normal(2000), 16000)
    code, out, err = run("rwae-vc", "source.wav", "--targets", "voices", "--json")
    assert code == 1
    report = json.loads(out)
    assert sorted(item["voice"] for item in report["failed"]) == ["bob", "eve"]
    assert [(item["voice"], item["pitch"]) for item in report["converted"]] == [
        ("carol", "target"),
        ("dave", "target"),
        ("hiss", "keep"),
    ]
    assert listing(tmp_path / "source_as_voices") == [f"source_as_{name}.wav" for name in ("carol", "dave", "hiss")]
    lines = err.splitlines()
    assert lines[0].startswith("rwae-vc: voices/bob/3.wav cannot be read as audio")
    assert lines[1].startswith("rwae-vc: voices/eve.safetensors is not a whole safetensors file")
    assert lines[2] == "rwae-vc: warning: no pitch is known of the voice in voices/hiss.wav; the source's is kept"
    assert lines[3].startswith(
        "rwae-vc: converted source.wav into 3 voices, in source_as_voices; could not convert 2; "
    )


def test_what_is_there_stays_unless_forced(voices: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/source_as_carol.wav").write_text("mine")
    words = ("rwae-vc", "source.wav", "--targets", voices, "-o", "out")
    refused(run(*words), "1 of 3 files are in out already, the first out/source_as_carol.wav")
    assert listing(tmp_path / "out") == ["source_as_carol.wav"]
    code, out, err = run(*words, "--skip-existing", "--json")
    assert code == 0, err
    assert json.loads(out)["skipped"] == ["out/source_as_carol.wav"]
    assert Path("out/source_as_carol.wav").read_text() == "mine"
    assert listing(tmp_path / "out") == RESULTS
    assert run(*words, "--force")[0] == 0
    assert len(load_audio("out/source_as_carol.wav")) == 11200


def test_notes_on_the_source_are_said_once(voices: Path, run: Run) -> None:
    soundfile.write("narrow.wav", speech(0, 0.7, 8000), 8000)
    code, _, err = run("rwae-vc", "narrow.wav", "--targets", "voices")
    assert code == 0
    assert err.count("resampled narrow.wav 8000 → 16000 Hz\n") == 1


def test_what_targets_refuses(voices: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    before = listing(tmp_path)
    for words, expected in {
        "source.wav dave.wav --targets voices": "--targets replaces TARGET; got dave.wav as well",
        "source.wav --voice voices/dave.safetensors --targets voices": "got --voice as well; expected one of them",
        "source.wav --targets nowhere": "--targets nowhere does not exist; expected a folder of voices",
        "source.wav --targets dave.wav": "--targets dave.wav is not a folder; expected a folder of voices",
        "source.wav --targets none": "--targets none has no voices (0 other entries); expected recordings, subfolders",
        "voices --targets voices": "voices is a folder; expected one recording, as --targets has the voices",
        "missing.wav --targets voices": "missing.wav does not exist; expected a recording",
        "source.wav --targets voices -o out.wav": "out.wav is a file's name; expected a folder, as --targets has several",
        "source.wav --targets voices -o no/out": "the folder no does not exist; expected one to make out in",
        "source.wav --targets voices -o voices/out": "voices/out lies in --targets voices; expected a folder elsewhere",
        "voices/notes.txt --targets voices": "voices/notes.txt cannot be read as audio",
    }.items():
        refused(run("rwae-vc", *words.split()), expected)
    assert listing(tmp_path) == before
    soundfile.write(voices / "bob.wav", speech(1), 16000)
    done = run("rwae-vc", "source.wav", "--targets", "voices", "-o", "out")
    refused(done, "voices/bob and voices/bob.wav would both become out/source_as_bob.wav")
