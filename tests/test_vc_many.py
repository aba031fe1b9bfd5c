"""rwae-vc into all voices of a folder and through pipes, and rwae-embed of folders."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_up import speech
from made_up_commands import called, listing, refused_saying
from safetensors import safe_open

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
        return called(COMMANDS[name].main, [*words, "--bundle", bundle_folder], capsys)

    return call


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
    assert (
        lines[2]
        == "rwae-vc: warning: the pitch range of the voice in voices/hiss.wav is unknown; the pitch of the source is kept"
    )
    assert lines[3].startswith(
        "rwae-vc: converted source.wav into 3 voices, in source_as_voices; could not convert 2; "
    )


def test_what_is_there_stays_unless_forced(voices: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/source_as_carol.wav").write_text("mine")
    words = ("rwae-vc", "source.wav", "--targets", voices, "-o", "out")
    refused_saying(run(*words), "1 of 3 files are in out already, the first out/source_as_carol.wav")
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
        refused_saying(run("rwae-vc", *words.split()), expected)
    assert listing(tmp_path) == before
    soundfile.write(voices / "bob.wav", speech(1), 16000)
    done = run("rwae-vc", "source.wav", "--targets", "voices", "-o", "out")
    refused_saying(done, "voices/bob and voices/bob.wav would both become out/source_as_bob.wav")


# ---- rwae-vc through pipes


def piped(words: str, sound: bytes | None, where: Path, bundle: Path) -> subprocess.CompletedProcess[bytes]:
    """Run rwae-vc with these bytes on its standard input; stdout and stderr are pipes."""
    command = [sys.executable, "-m", "rwae_audio.commands.vc", *words.split(), "--bundle", str(bundle)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=where, env=environment, input=sound, capture_output=True, timeout=300)


def without_sizes(path: str, size: int) -> bytes:
    """Return a WAV file as a program writes it into a pipe: RIFF and data of a size that is not known."""
    sound = bytearray(Path(path).read_bytes())
    place = sound.index(b"data") + 4
    sound[4:8] = sound[place : place + 4] = struct.pack("<I", size)
    return bytes(sound)


def test_vc_between_two_pipes(voices: Path, bundle_folder: Path, run: Run, tmp_path: Path) -> None:
    assert run("rwae-vc", "source.wav", "dave.wav", "-o", "file.wav")[0] == 0
    before = listing(tmp_path)
    done = piped("- dave.wav", without_sizes("source.wav", 0xFFFFFFFF), tmp_path, bundle_folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == Path("file.wav").read_bytes()  # header and all
    assert re.fullmatch(rb"rwae-vc: wrote stdout: 0.70 s, 16 kHz, mono, real-time factor [\d.]+\n", done.stderr)
    assert listing(tmp_path) == before


class Stream(io.TextIOWrapper):
    """A standard stream over bytes in memory, or a terminal."""

    def __init__(self, content: bytes = b"", terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content))
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def test_vc_from_a_pipe_into_files(voices: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("rwae-vc", "source.wav", "dave.wav", "-o", "file.wav")[0] == 0
    monkeypatch.setattr(sys, "stdin", Stream(without_sizes("source.wav", 0)))
    code, out, err = run("rwae-vc", "-", "dave.wav", "-o", "voices/", "--json")
    assert code == 0, err
    assert [(item["source"], item["output"]) for item in json.loads(out)["converted"]] == [
        ("stdin", "voices/stdin_as_dave.wav")
    ]
    assert Path("voices/stdin_as_dave.wav").read_bytes() == Path("file.wav").read_bytes()
    Path("voices/stdin_as_dave.wav").unlink()
    monkeypatch.setattr(sys, "stdin", Stream(Path("source.wav").read_bytes()))
    code, _, err = run("rwae-vc", "-", "--targets", "voices")
    assert code == 0, err
    assert listing(tmp_path / "stdin_as_voices") == [name.replace("source", "stdin") for name in RESULTS]
    assert err.startswith("rwae-vc: converted stdin into 3 voices, in stdin_as_voices; ")


def test_vc_from_a_file_into_a_pipe(voices: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listing(tmp_path)
    monkeypatch.setattr(sys, "stdout", stream := Stream())
    assert run("rwae-vc", "source.wav", "dave.wav", "-o", "-")[0] == 0
    samples, rate = soundfile.read(io.BytesIO(stream.buffer.getvalue()))  # type: ignore[attr-defined]
    assert (len(samples), rate) == (11200, 16000)
    assert listing(tmp_path) == before


def test_what_pipes_refuse(voices: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listing(tmp_path)
    for words, expected in {
        "- dave.wav --json": "standard output takes one WAV file; got --json as well; expected -o OUT with it",
        "source.wav dave.wav -o - --json": "got --json as well",
        "source.wav --targets voices -o -": "got --targets as well",
        "source.wav dave.wav -o - --skip-existing": "got --skip-existing as well",
        "voices dave.wav -o -": "voices is a folder; expected one recording, as standard output takes one WAV file",
        "./- dave.wav": "- does not exist; expected a recording",
        "- missing.wav": "missing.wav does not exist; expected a recording",
    }.items():
        monkeypatch.setattr(sys, "stdin", Stream())
        refused_saying(run("rwae-vc", *words.split()), expected)
    for sound, expected in {
        b"": "stdin is empty; expected WAV",
        b"not audio": "rwae-vc: stdin cannot be read as audio",
        Path("source.wav").read_bytes()[:9000]: "rwae-vc: stdin is cut short",
    }.items():
        monkeypatch.setattr(sys, "stdin", Stream(sound))
        refused_saying(run("rwae-vc", "-", "dave.wav"), expected)
    monkeypatch.setattr(sys, "stdin", Stream(terminal=True))
    refused_saying(
        run("rwae-vc", "-", "dave.wav", "-o", "out.wav"), "standard input is a terminal; expected a recording from a"
    )
    monkeypatch.setattr(sys, "stdin", None)
    refused_saying(
        run("rwae-vc", "-", "dave.wav", "-o", "out.wav"), "standard input is closed; expected a recording from a"
    )
    assert listing(tmp_path) == before


# ---- rwae-embed of a folder


def names_in(path: str) -> set[str]:
    with safe_open(path, "pt") as file:
        return set(file.keys())


def test_embed_takes_folders_under_the_names_given(voices: Path, run: Run) -> None:
    code, _, err = run("rwae-embed", "./voices/bob/", "dave.wav", "-o", "codes.safetensors")
    assert (code, err) == (0, "rwae-embed: wrote the static codes of 3 recordings to codes.safetensors\n")
    assert names_in("codes.safetensors") == {
        "static/./voices/bob/1.wav",
        "static/./voices/bob/deep/2.wav",
        "static/dave.wav",
    }
    words = ("voices/bob/1.wav", "voices/bob/deep/2.wav", "dave.wav")
    assert run("rwae-vc", "source.wav", "--voice", "codes.safetensors", "-o", "saved.wav")[0] == 0
    assert run("rwae-vc", "source.wav", *words, "-o", "direct.wav")[0] == 0
    assert Path("saved.wav").read_bytes() == Path("direct.wav").read_bytes()


def test_embed_names_what_is_bad_in_a_folder(voices: Path, run: Run, tmp_path: Path) -> None:
    (voices / "bob/3.wav").write_text("not audio\n")
    code, out, err = run("rwae-embed", "voices", "-o", "codes.safetensors", "--dynamic")
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert lines[0].startswith("rwae-embed: voices/bob/3.wav cannot be read as audio")
    assert lines[1:] == [
        "rwae-embed: wrote the static and dynamic codes of 3 recordings to codes.safetensors; could not read 1; "
        "skipped 3 other files (hidden, or without the suffix of a recording)"
    ]
    names = ("bob/1.wav", "bob/deep/2.wav", "carol.flac")
    assert names_in("codes.safetensors") == {
        f"{kind}/voices/{name}" for kind in ("static", "dynamic") for name in names
    }
    before = listing(tmp_path)
    refused_saying(
        run("rwae-embed", "voices/bob", "voices/bob/1.wav", "-o", "x.safetensors"), "voices/bob/1.wav is given twice"
    )
    refused_saying(
        run("rwae-embed", "voices/empty", "-o", "x.safetensors"), "voices/empty has no recordings (0 other files)"
    )
    refused_saying(run("rwae-embed", "dave.wav", "voices/notes.txt", "-o", "x.safetensors"), "cannot be read as audio")
    (voices / "empty/only.wav").write_text("not audio\n")
    code, _, err = run("rwae-embed", "voices/empty", "-o", "x.safetensors")
    assert (code, err.splitlines()[1:]) == (1, ["rwae-embed: wrote nothing to x.safetensors; could not read 1"])
    assert listing(tmp_path) == sorted([*before, "voices/empty/only.wav"])
