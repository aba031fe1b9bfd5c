"""rwae-vc, rwae-embed and rwae-eer: what they write, what they say, and that a wrong input is one line and exit 2.

Most run in this process, through `main`, since each start of an interpreter with torch takes seconds.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from made_up import speech, tiny_bundle
from made_up_commands import called, listing, refused
from safetensors import safe_open
from safetensors.torch import save_file

from rwae_audio import __version__
from rwae_audio.commands import eer, embed, vc
from rwae_audio.conversion.pitch import register_of, tracked
from rwae_audio.conversion.vocoders.neural import load_vocoder
from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora.base import SUFFIXES
from rwae_audio.data.level import speech_of
from rwae_audio.inference.bundle import load_bundle

COMMANDS = {"rwae-vc": vc, "rwae-embed": embed, "rwae-eer": eer}
LIST = [(a, b) for i, a in enumerate(("s0/a.wav", "s0/b.b.wav", "s1/a.wav", "s1/b.b.wav", "s2/a.wav", "s2/c.flac"))
        for b in ("s0/a.wav", "s0/b.b.wav", "s1/a.wav", "s1/b.b.wav", "s2/a.wav", "s2/c.flac")[i + 1 :]]  # fmt: skip


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers, two recordings each, two of them of the same name in another folder; one of 8 kHz, one of 48 kHz
    and two channels; and everything that is wrong with an audio file."""
    folder = tmp_path_factory.mktemp("recordings")
    for i, name in enumerate(sorted({name for pair in LIST for name in pair})):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, speech(i, 0.6 + 0.1 * i), 16000)
    soundfile.write(folder / "narrow.wav", speech(1, 0.8, 8000), 8000)
    wide = speech(2, 0.8, 48000)
    soundfile.write(folder / "wide.wav", np.stack([wide, 0.5 * wide], 1), 48000)
    soundfile.write(folder / "silent.wav", np.zeros(9000), 16000)
    sound = speech(3)
    soundfile.write(folder / "bad-short.wav", sound[:1000], 16000)
    soundfile.write(folder / "bad-slow.wav", sound[:4000], 4000)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        soundfile.write(folder / f"bad-{name}.wav", np.append(sound, value), 16000, subtype="FLOAT")
    soundfile.write(folder / "bad-none.wav", np.zeros(0), 16000)
    (folder / "bad-empty.wav").touch()
    (folder / "bad-text.wav").write_text("not audio\n")
    (folder / "bad-folder.wav").mkdir()
    soundfile.write(folder / "whole.sph", sound, 16000, format="NIST", subtype="PCM_16")
    data = (folder / "whole.sph").read_bytes()
    (folder / "bad-header.sph").write_bytes(data[:300])
    (folder / "bad-body.sph").write_bytes(data[:-100])
    return folder


BAD = {
    "bad-short.wav": "62 ms long; expected at least 64 ms|1000 samples at 16000 Hz are under one analysis window",
    "bad-slow.wav": "has a sample rate of 4000 Hz; expected 8000 to 192000",
    "bad-nan.wav": "NaN or infinite sample",
    "bad-inf.wav": "NaN or infinite sample",
    "bad-none.wav": "holds no samples",
    "bad-empty.wav": "is empty",
    "bad-text.wav": "cannot be read as audio",
    "bad-folder.wav": "is a folder|has no recordings|out.wav is a file's name; expected a folder",
    "bad-header.sph": "SPHERE header",
    "bad-body.sph": "is cut short",
    "missing.wav": "does not exist|1 of 3 files are not in",
    "silent.wav": "is silent; expected speech",
}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """run(command, *words) in an empty folder, in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(name: str, *words: str | Path, bundle: Path | None = bundle_folder) -> tuple[int, str, str]:
        return called(COMMANDS[name].main, [*words, *(["--bundle", bundle] if bundle else [])], capsys)

    return call


def trial_list(folder: Path, kaldi: bool = False) -> Path:
    """All pairs of the six good recordings."""
    lines = [(a, b, a[:2] == b[:2]) for a, b in LIST]
    path = folder / ("kaldi.txt" if kaldi else "trials.txt")
    if kaldi:
        path.write_text("".join(f"{a} {b} {'target' if t else 'nontarget'}\n" for a, b, t in lines))
    else:
        path.write_text("".join(f"{int(t)} {a} {b}\n" for a, b, t in lines))
    return path


def console(name: str, *words: str | Path, where: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    command = [sys.executable, "-m", f"rwae_audio.commands.{name.removeprefix('rwae-')}", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=120)


# ---- as subprocesses


def test_vc_as_a_user_runs_it(recordings: Path, bundle_folder: Path, tmp_path: Path) -> None:
    words = (recordings / "narrow.wav", recordings / "wide.wav", "--bundle", bundle_folder, "--json")
    done = console("rwae-vc", *words, where=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["sample_rate"] == 16000
    assert [(item["output"], item["resampled_from"]) for item in said["converted"]] == [("narrow_as_wide.wav", 8000)]
    assert listing(tmp_path) == ["narrow_as_wide.wav"]
    lines = done.stderr.splitlines()
    assert len(lines) == 3, lines  # no library's warning among them
    assert "narrow.wav 8000 → 16000 Hz" in lines[0]
    assert "wide.wav 48000 → 16000 Hz" in lines[1]
    info = soundfile.info(tmp_path / "narrow_as_wide.wav")
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (16000, 1, "PCM_16", 12800)
    again = console("rwae-vc", *words, where=tmp_path)
    refused((again.returncode, again.stdout, again.stderr), "rwae-vc", "exists already; expected a new name, or --fo")


def test_eer_as_a_user_runs_it(recordings: Path, bundle_folder: Path, tmp_path: Path) -> None:
    words = ("--trials", trial_list(tmp_path), "--audio-dir", recordings, "--bundle", bundle_folder, "--json")
    done = console("rwae-eer", *words, where=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["trials"] == 15


def test_embed_as_a_user_runs_it(recordings: Path, bundle_folder: Path, tmp_path: Path) -> None:
    good, bad = recordings / "s0/a.wav", recordings / "bad-body.sph"
    done = console("rwae-embed", good, bad, "-o", "x.safetensors", "--bundle", bundle_folder, where=tmp_path)
    refused((done.returncode, done.stdout, done.stderr), "rwae-embed", "is cut short")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_version_load_nothing_slow(name: str, tmp_path: Path) -> None:
    module = f"rwae_audio.commands.{name.removeprefix('rwae-')}"
    code = f"""
import sys
from {module} import main
for word in ("--help", "--version"):
    try:
        main([word])
    except SystemExit as stop:
        assert stop.code == 0
slow = {{"torch", "numpy", "scipy", "librosa", "soundfile"}} & set(sys.modules)
assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"usage: {name} " in done.stdout
    assert f"{name} {__version__}\n" in done.stdout


def test_vc_imports_no_more_than_it_needs() -> None:
    """It is to start at most a second after torch has."""
    code = """
import sys
import rwae_audio.inference.bundle, rwae_audio.conversion.converter
from rwae_audio.data.features import MelConfig, mel_filters
mel_filters(MelConfig())
slow = {"scipy", "numba", "librosa", "matplotlib", "accelerate", "tensorboard", "speechbrain"} & set(sys.modules)
assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "scores.txt").write_text("0.5 target\n0.1 nontarget\n")
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "rwae_audio.commands.eer", "--from-scores", "scores.txt"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as users have it
    try:
        done = subprocess.run(
            command, cwd=tmp_path, env=buffered, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


# ---- what is refused


@pytest.mark.parametrize("bad", BAD)
def test_bad_audio_is_one_line_in_every_place(bad: str, recordings: Path, run: Run, tmp_path: Path) -> None:
    """The recordings before it are good, and one of them is resampled: the error is the only line all the same."""
    path, good, expected = recordings / bad, recordings / "narrow.wav", BAD[bad].split("|")
    (tmp_path / "trials.txt").write_text(f"1 narrow.wav s0/a.wav\n0 narrow.wav {bad}\n")
    before = listing(tmp_path)
    for words in ((path, good), (good, path), (good, good, path)):
        if (bad, words[0]) != ("silent.wav", path):
            refused(run("rwae-vc", *words, "-o", "out.wav"), "rwae-vc", *expected)
    refused(run("rwae-embed", good, path, "-o", "out.safetensors"), "rwae-embed", *expected)
    words = ("--trials", "trials.txt", "--audio-dir", recordings, "--scores", "scores.txt")
    refused(run("rwae-eer", *words, "--json"), "rwae-eer", *expected)
    assert bad in run("rwae-eer", *words)[2]
    assert listing(tmp_path) == before


def test_a_bundle_that_will_not_do(recordings: Path, bundle_folder: Path, run: Run, tmp_path: Path) -> None:
    altered = Path(shutil.copytree(bundle_folder, tmp_path / "altered"))
    data = bytearray((altered / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (altered / "model.safetensors").write_bytes(data)
    trials, good = trial_list(tmp_path), recordings / "s0/a.wav"
    before = listing(tmp_path)
    for bundle, expected in ((altered, "was altered"), (tmp_path / "none", "is not a folder; expected a bundle")):
        refused(run("rwae-vc", good, good, "-o", "out.wav", bundle=bundle), "rwae-vc", expected)
        refused(run("rwae-embed", good, "-o", "x.safetensors", bundle=bundle), "rwae-embed", expected)
        refused(run("rwae-eer", "--trials", trials, "--audio-dir", recordings, bundle=bundle), "rwae-eer", expected)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("rwae-vc", "a.wav b.wav --forse", "unknown option --forse; did you mean '--force'?"),
        ("rwae-vc", "--sed=3", "unknown option --sed; did you mean '--seed'?"),
        ("rwae-vc", "", "the following arguments are required: SOURCE"),
        ("rwae-vc", "a.wav", "expected TARGET recordings, or --voice FILE"),
        ("rwae-vc", "a.wav b.wav --vocoder griffin-lim --pitch keep", "--pitch keep is for the neural vocoder"),
        ("rwae-vc", "a.wav b.wav --vocoder world", "invalid choice: 'world'"),
        ("rwae-vc", "a.wav b.wav --vocoder hifigan --pitch keep", "--pitch keep is for the neural vocoder"),
        ("rwae-vc", "a.wav b.wav --voice v.safetensors", "got b.wav as well"),
        ("rwae-vc", "a.wav b.wav --force --skip-existing", "--skip-existing"),
        ("rwae-vc", "list.txt none.wav", "none.wav does not exist; expected a recording"),
        ("rwae-vc", "none.wav list.txt", "none.wav does not exist; expected a recording, or a folder"),
        ("rwae-vc", "list.txt --voice none", "none does not exist; expected a recording, or a file of rwae-embed"),
        ("rwae-vc", "list.txt list.txt -o there.wav/x", "expected a name that ends in .wav or .flac"),
        ("rwae-vc", "there.wav list.txt", "there.wav has no recordings (0 other files); expected .sph, .wav"),
        ("rwae-vc", "there.wav list.txt -o list.txt", "list.txt is a file's name; expected a folder, as SOURCE is one"),
        ("rwae-vc", "there.wav list.txt -o no/out", "the folder no does not exist; expected one to make out in"),
        ("rwae-vc", "there.wav list.txt -o there.wav/out", "there.wav/out lies in SOURCE there.wav"),
        ("rwae-vc", "there.wav list.txt -o .", "there.wav has no recordings"),
        ("rwae-vc", "a.wav b.wav --seed x", "invalid int value: 'x'"),
        ("rwae-vc", "a.wav b.wav --seed", "--seed: expected one argument"),
        ("rwae-vc", "a.wav b.wav -x", "unknown option -x; expected one of --"),
        ("rwae-vc", "a.wav b.wav --jso", "unknown option --jso; did you mean '--json'?"),  # no abbreviations
        ("rwae-vc", "list.txt list.txt -o out.mp3", "--output out.mp3; expected a name that ends in .wav or .flac"),
        ("rwae-vc", "list.txt list.txt -o no/out.wav", "the folder no does not exist"),
        ("rwae-embed", "a.wav --ouput x.safetensors", "unknown option --ouput; did you mean '--output'?"),
        ("rwae-embed", "a.wav", "required: -o/--output"),
        ("rwae-embed", "a.wav -o x.npz", "expected a name that ends in .safetensors"),
        ("rwae-embed", "a.wav b.wav a.wav -o x.safetensors", "a.wav is given twice"),
        (
            "rwae-eer",
            "",
            "expected --trials FILE and --audio-dir DIR, --trials and --embeddings, or --from-scores FILE",
        ),
        ("rwae-eer", "--trials list.txt", "expected --trials FILE and --audio-dir DIR"),
        (
            "rwae-eer",
            "--from-scores s.txt --bundle b",
            "--from-scores allows no other input but --trials; got --bundle",
        ),
        ("rwae-eer", "--from-scores list.txt --p-target 1", "--p-target: '1' is not a number between 0 and 1"),
        ("rwae-eer", "--embeddings e.safetensors", "--embeddings FILE needs --trials FILE"),
        ("rwae-eer", "--trials list.txt --embeddings e --audio-dir .", "replaces recordings; got --audio-dir as well"),
        ("rwae-eer", "--trials list.txt --embeddings none", "none does not exist; expected embeddings"),
        ("rwae-eer", "--trials list.txt --embeddings there.wav", "there.wav has no .npy files"),
        ("rwae-eer", "--trials list.txt --embeddings list.txt", "list.txt is not a whole safetensors file"),
        ("rwae-eer", "--form-scores s.txt", "unknown option --form-scores; did you mean '--from-scores'?"),
        ("rwae-eer", "--from-scores s.txt stray", "unknown argument stray"),
        ("rwae-eer", "--from-scores none.txt", "none.txt does not exist; expected a score file"),
        ("rwae-eer", "--from-scores there.wav", "is a folder; expected a score file"),
        ("rwae-eer", "--from-scores list.txt", "list.txt, line 1 is '1 x/a.wav x/b.wav'; expected a score file"),
        ("rwae-eer", "--trials none.txt --audio-dir .", "none.txt does not exist; expected a trial list"),
        ("rwae-eer", "--trials list.txt --audio-dir none", "--audio-dir none is not a folder"),
        ("rwae-eer", "--trials list.txt --audio-dir .", "3 of 3 files are not in ., the first x/a.wav"),
    ],
)
def test_a_wrong_command_line_is_one_line(name: str, words: str, expected: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "there.wav").mkdir()
    (tmp_path / "list.txt").write_text("1 x/a.wav x/b.wav\n0 x/a.wav y/a.wav\n")
    refused(run(name, *words.split(), bundle=None), name, expected)
    assert listing(tmp_path) == ["list.txt", "there.wav"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 s0/a.wav s0/b.b.wav\n0 s0/a.wav ../secret.wav\n", "names ../secret.wav; expected a path below"),
        ("1 s0/a.wav s0/b.b.wav\n0 s0/a.wav s1/../../x.wav\n", "names s1/../../x.wav; expected a path below"),
        ("1 s0/a.wav s0/b.b.wav\n0 s0/a.wav /etc/passwd\n", "names /etc/passwd; expected a path below"),
        ("1 s0/a.wav s0/b.b.wav\n0 s0/a.wav a.wav\n", "1 of 3 files are not in"),  # not found by its basename
        (f"1 s0/a.wav s0/b.b.wav\n0 s0/a.wav {'x' * 300}.wav\n", "1 of 3 files are not in"),
        ("1 s0/a.wav s0/b.b.wav\n0 s0/a.wav s0/b\n", "1 of 3 files are not in"),  # nor cut at its first dot
        ("1 s0/a.wav s0/b.b.wav\n0 s0/b.b.wav s0/a.wav\n", "two utterances that target trials give to one"),
        ("1 s0/a.wav s0/b.b.wav\n2 s0/a.wav s1/a.wav\n", "line 2 has the label '2'"),
        ("1 s0/a.wav s0/b.b.wav\n", "1 target trials of 1"),
        ("", "is empty"),
        ("\0\0", "NUL"),
    ],
)
def test_a_wrong_trial_list_is_one_line(text: str, expected: str, recordings: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "trials.txt").write_text(text)
    words = ("--trials", "trials.txt", "--audio-dir", recordings, "--scores", "scores.txt")
    refused(run("rwae-eer", *words, bundle=Path("never read")), "rwae-eer", expected)
    assert listing(tmp_path) == ["trials.txt"]


# ---- rwae-vc


def test_vc_writes_what_the_library_gives(recordings: Path, bundle_folder: Path, run: Run, tmp_path: Path) -> None:
    paths = [recordings / name for name in ("s0/a.wav", "s1/a.wav", "s2/c.flac")]
    code, out, err = run("rwae-vc", *paths, "-o", "out.flac", "--json", "--seed", "5")
    assert code == 0, err
    said = json.loads(out)
    (item,) = said.pop("converted")
    assert said == {
        "bundle": load_bundle(bundle_folder).digest,
        "targets": [str(path) for path in paths[1:]],
        "voice": None,
        "sample_rate": 16000,
        "vocoder": "neural",
        "pitch": "target",
        "seed": 5,
        "adapt": 0,
        "skipped": [],
        "failed": [],
    }
    assert item.pop("real_time_factor") > 0
    assert item == {
        "source": str(paths[0]),
        "output": "out.flac",
        "voice": "a",
        "pitch": "target",
        "seconds": len(load_audio(paths[0])) / 16000,
        "silent": False,
        "peak": pytest.approx(np.abs(load_audio(recordings / "s0/a.wav")).max(), rel=0.3),
        "scaled": None,
        "resampled_from": None,
        "notes": [],
    }
    from rwae_audio.conversion.converter import Converter

    source, *targets = (load_audio(path) for path in paths)
    converter = Converter(load_bundle(bundle_folder), load_vocoder())
    expected = converter.convert(source, 16000, converter.voice(targets, 16000), seed=5)
    np.testing.assert_allclose(load_audio("out.flac"), expected, atol=1 / 32767)
    assert soundfile.info("out.flac").format == "FLAC"


def test_vc_has_two_vocoders_and_two_pitches(recordings: Path, bundle_folder: Path, run: Run) -> None:
    source, target = recordings / "s0/a.wav", recordings / "s1/a.wav"
    made = {}
    for words in ("--vocoder griffin-lim", "--vocoder neural --pitch keep", "--pitch target", ""):
        code, out, err = run("rwae-vc", source, target, "-o", "out.wav", "--force", "--json", *words.split())
        assert code == 0, err
        said = json.loads(out)
        made[words] = (said["vocoder"], said["pitch"], Path("out.wav").read_bytes())
    assert [part[:2] for part in made.values()] == [
        ("griffin-lim", None),
        ("neural", "keep"),
        ("neural", "target"),
        ("neural", "target"),
    ]
    assert len({sound for *_, sound in made.values()}) == 3


def test_vc_of_other_frames_takes_griffin_lim_unless_told_otherwise(
    recordings: Path, run: Run, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = tiny_bundle(tmp_path_factory.mktemp("paper") / "b", "paper")
    words = (recordings / "s0/a.wav", recordings / "s1/a.wav", "-o", "out.wav")
    code, out, err = run("rwae-vc", *words, "--json", bundle=bundle)
    assert code == 0, err
    assert (json.loads(out)["vocoder"], json.loads(out)["pitch"]) == ("griffin-lim", None)
    for asked in ("--vocoder neural", "--pitch keep"):
        said = run("rwae-vc", *words, "--force", *asked.split(), bundle=bundle)
        refused(said, "rwae-vc", "reads other log-mels")


def test_vc_says_that_a_target_has_no_pitch(recordings: Path, run: Run, tmp_path: Path) -> None:
    soundfile.write("hiss.wav", 0.1 * np.random.default_rng(0).standard_normal(2000), 16000)
    code, out, err = run("rwae-vc", recordings / "s0/a.wav", "hiss.wav", "-o", "out.wav", "--json")
    assert code == 0, err
    assert json.loads(out)["pitch"] == "keep"
    assert "warning: the pitch range of the voice in hiss.wav is unknown; the pitch of the source is kept" in err


def test_vc_keeps_what_is_there_unless_forced(recordings: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "a_as_b.b.wav").write_text("mine")
    words = (recordings / "s0/a.wav", recordings / "s1/b.b.wav")
    refused(run("rwae-vc", *words), "rwae-vc", "a_as_b.b.wav exists already")
    assert (tmp_path / "a_as_b.b.wav").read_text() == "mine"
    code, out, err = run("rwae-vc", *words, "--force")
    assert (code, out) == (0, ""), err
    assert "wrote a_as_b.b.wav: 0.60 s" in err
    assert len(load_audio("a_as_b.b.wav")) == 9600
    assert listing(tmp_path) == ["a_as_b.b.wav"]


def test_vc_of_two_long_names_says_that_their_join_is_too_long(recordings: Path, run: Run, tmp_path: Path) -> None:
    for letter in "ab":
        shutil.copy(recordings / "s0/a.wav", tmp_path / f"{letter * 140}.wav")
    refused(run("rwae-vc", f"{'a' * 140}.wav", f"{'b' * 140}.wav"), "rwae-vc", "cannot write", "too long")
    assert len(listing(tmp_path)) == 2


def test_samples_at_the_scale_of_integers_are_brought_to_level_with_a_warning(
    recordings: Path, run: Run, tmp_path: Path
) -> None:
    """Floats of ±32768 give the codes and the conversion of floats of ±1, which cannot be as loud as they were."""
    plain = load_audio(recordings / "s0/a.wav")
    (tmp_path / "in").mkdir()
    soundfile.write("in/plain.wav", plain, 16000, subtype="FLOAT")
    soundfile.write("in/large.wav", 32768 * plain, 16000, subtype="FLOAT")
    for name, words in (
        ("rwae-vc", ("in/large.wav", recordings / "s1/a.wav", "-o", "out.wav")),
        ("rwae-vc", (recordings / "s1/a.wav", "in/large.wav", "-o", "as.wav")),
        ("rwae-vc", ("in", recordings / "s1/a.wav", "-o", "out")),
        ("rwae-embed", ("in/plain.wav", "in/large.wav", "-o", "x.safetensors")),
    ):
        code, _, err = run(name, *words)
        assert code == 0, err
        assert [line for line in err.splitlines() if "warning" in line and "in/large.wav has samples up to" in line], (
            err
        )
    assert np.abs(load_audio("out.wav")).max() == pytest.approx(0.999, abs=1e-3)
    with safe_open("x.safetensors", "pt") as file:
        codes = [file.get_tensor(f"static/in/{name}.wav") for name in ("plain", "large")]
    torch.testing.assert_close(*codes, rtol=1e-3, atol=1e-4)


def test_vc_of_silence_is_silence_with_a_warning(recordings: Path, run: Run) -> None:
    code, _, err = run("rwae-vc", recordings / "silent.wav", recordings / "s1/a.wav", "-o", "out.wav")
    assert code == 0
    assert "warning" in err
    assert "silent.wav is silent" in err
    sound = load_audio("out.wav")
    assert len(sound) == 9000
    assert not sound.any()


def test_vc_never_clips(recordings: Path, run: Run, tmp_path: Path) -> None:
    """A source at full scale throughout: a voice that is as loud on average has peaks above it."""
    soundfile.write("loud.wav", 0.99 * np.sign(load_audio(recordings / "s0/a.wav")), 16000)
    code, out, err = run("rwae-vc", "loud.wav", recordings / "s1/a.wav", "-o", "out.wav", "--json")
    assert code == 0
    gain = json.loads(out)["converted"][0]["scaled"]
    assert gain < 1
    assert f"scaled out.wav down by {gain:.3f}" in err
    assert np.abs(load_audio("out.wav")).max() == pytest.approx(0.999, abs=1e-4)


def test_vc_takes_its_arguments_in_any_order(recordings: Path, run: Run) -> None:
    a, b = recordings / "s0/a.wav", recordings / "s1/a.wav"
    for i, words in enumerate(([a, b, "-o", "0.wav"], ["-o", "1.wav", a, b], [a, "-o", "2.wav", b])):
        assert run("rwae-vc", *words)[0] == 0
        assert Path("0.wav").read_bytes() == Path(f"{i}.wav").read_bytes()


def test_vc_keeps_what_is_there_when_told_to(recordings: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out.wav").write_text("mine")
    words = (recordings / "s0/a.wav", recordings / "s1/a.wav", "-o", "out.wav", "--skip-existing", "--json")
    code, out, err = run("rwae-vc", *words)
    assert (code, err) == (0, "rwae-vc: kept out.wav as it was\n")
    assert (json.loads(out)["skipped"], json.loads(out)["converted"]) == (["out.wav"], [])
    assert (tmp_path / "out.wav").read_text() == "mine"


def test_vc_never_overwrites_what_it_reads(recordings: Path, run: Run, tmp_path: Path) -> None:
    """Under whatever name: a link, hard or symbolic."""
    for name in ("a.wav", "b.wav"):
        shutil.copy(recordings / "s0/a.wav", name)
    os.link("a.wav", "hard.wav")
    os.symlink("b.wav", "soft.wav")
    (tmp_path / "bad-bundle").mkdir()
    for output in ("a.wav", "./b.wav", "hard.wav", "soft.wav"):
        words = ("a.wav", "b.wav", "-o", output, "--force")
        refused(run("rwae-vc", *words, bundle=Path("never read")), "rwae-vc", "is one of the files that are read")
    (tmp_path / "x/in").mkdir(parents=True)
    shutil.copy("a.wav", "x/in/a.wav")
    shutil.copy("a.wav", "x/a.wav")
    words = ("x/in", "x/a.wav", "-o", "x", "--force")
    refused(run("rwae-vc", *words, bundle=Path("never read")), "rwae-vc", "x/a.wav is one of the files that are read")


def test_vc_speaks_with_a_saved_voice(recordings: Path, run: Run, tmp_path: Path) -> None:
    """Pooled as the recordings themselves are, by their lengths."""
    source, *targets = (recordings / name for name in ("s0/a.wav", "s1/a.wav", "wide.wav"))
    assert run("rwae-embed", *targets, "-o", "bob.safetensors")[0] == 0
    assert run("rwae-vc", source, *targets, "-o", "direct.wav")[0] == 0
    code, out, err = run("rwae-vc", source, "--voice", "bob.safetensors", "--json")
    assert code == 0, err
    assert (json.loads(out)["targets"], json.loads(out)["voice"]) == ([], "bob.safetensors")
    assert (tmp_path / "a_as_bob.wav").read_bytes() == (tmp_path / "direct.wav").read_bytes()
    before = listing(tmp_path)
    torch.manual_seed(5)
    other = tiny_bundle(tmp_path.parent / f"{tmp_path.name}-other", dynamic_dim=5)
    words = (source, "-o", "out.wav", "--voice")
    refused(run("rwae-vc", *words, "bob.safetensors", bundle=other), "rwae-vc", "bob.safetensors has the codes of bund")
    refused(run("rwae-vc", *words, source), "rwae-vc", "is not a whole safetensors file")
    save_file({"static/a": torch.ones(6)}, tmp_path.parent / "bare.safetensors")
    refused(run("rwae-vc", *words, "../bare.safetensors"), "rwae-vc", "does not name the bundle of its codes")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", ["tpu9", "meta", "cuda:99"])
def test_vc_on_a_device_that_is_not_here(name: str, recordings: Path, run: Run, tmp_path: Path) -> None:
    words = (recordings / "s0/a.wav", recordings / "s1/a.wav", "-o", "out.wav", "--device", name)
    refused(run("rwae-vc", *words), "rwae-vc", f"the device {name} is not available here; expected cpu")
    assert listing(tmp_path) == []


# ---- rwae-vc, of a folder


@pytest.fixture
def folder(recordings: Path, tmp_path: Path) -> Path:
    """in/: four good recordings, in a tree, two bad ones, a text and two hidden files."""
    for name, source in {
        "s0/a.wav": "s0/a.wav",
        "s0/deep/a.flac": "s2/c.flac",
        "b.b.WAV": "s1/b.b.wav",
        "narrow.wav": "narrow.wav",
        "bad.wav": "bad-text.wav",
        "s0/cut.sph": "bad-body.sph",
        "notes.txt": "bad-text.wav",
        ".hidden.wav": "s0/a.wav",
        ".git/a.wav": "s0/a.wav",
    }.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(recordings / source, tmp_path / "in" / name)
    return tmp_path / "in"


def test_vc_of_a_folder_names_what_is_bad_and_converts_the_rest(
    folder: Path, recordings: Path, run: Run, tmp_path: Path
) -> None:
    before, target = listing(folder), recordings / "s1/a.wav"
    code, out, err = run("rwae-vc", "in", target, "--json")
    assert code == 1
    said = json.loads(out)
    good = {"b.b.wav": "b.b.WAV", "narrow.wav": "narrow.wav", "s0/a.wav": "s0/a.wav", "s0/deep/a.wav": "s0/deep/a.flac"}
    assert {item["output"]: item["source"] for item in said["converted"]} == {
        f"in_as_a/{output}": f"in/{source}" for output, source in good.items()
    }
    assert [item["source"] for item in said["failed"]] == ["in/bad.wav", "in/s0/cut.sph"]
    lines = err.splitlines()
    assert lines[:2] == [f"rwae-vc: {item['reason']}" for item in said["failed"]]
    assert lines[0].startswith("rwae-vc: in/bad.wav cannot be read as audio")
    assert lines[2:] == [
        "rwae-vc: converted 4 files into in_as_a; 1 of them resampled; could not convert 2; "
        "skipped 3 other files (hidden, or without the suffix of a recording)"
    ]
    assert listing(tmp_path / "in_as_a") == ["b.b.wav", "narrow.wav", "s0", "s0/a.wav", "s0/deep", "s0/deep/a.wav"]
    assert listing(folder) == before
    assert run("rwae-vc", folder / "narrow.wav", target, "-o", "alone.wav")[0] == 0
    assert (tmp_path / "alone.wav").read_bytes() == (tmp_path / "in_as_a/narrow.wav").read_bytes()


def test_vc_of_a_folder_names_the_recordings_that_need_pyav(
    folder: Path, recordings: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # as where it is not installed
    monkeypatch.setattr("rwae_audio.data.corpora.base.readable_suffixes", lambda: SUFFIXES)
    for name in ("b.b.WAV", "bad.wav", "s0/a.wav", "s0/cut.sph"):
        (folder / name).unlink()
    soundfile.write(folder / "memo.aiff", speech(1, 0.5), 16000)
    soundfile.write(folder / "s0/deep/a.au", speech(1, 0.5), 16000)
    (folder / "wav-by-content.m4a").write_bytes((recordings / "s0/a.wav").read_bytes())
    code, out, err = run("rwae-vc", "in", recordings / "s1/a.wav", "--json")
    assert code == 1
    report = json.loads(out)
    assert [item["source"] for item in report["failed"]] == ["in/memo.aiff", "in/s0/deep/a.au"]
    assert all("pip install 'rwae-audio[formats]'" in item["reason"] for item in report["failed"])
    assert [line.split()[1] for line in err.splitlines()[:2]] == ["in/memo.aiff", "in/s0/deep/a.au"]
    sources = [item["source"] for item in report["converted"]]
    assert sources == ["in/narrow.wav", "in/s0/deep/a.flac", "in/wav-by-content.m4a"]


def test_vc_writes_one_file_into_a_folder(recordings: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    code, _, err = run("rwae-vc", recordings / "s0/a.wav", recordings / "s1/a.wav", "-o", "out")
    assert code == 0, err
    assert listing(tmp_path / "out") == ["a_as_a.wav"]


def test_vc_says_which_channel_is_read(recordings: Path, run: Run, tmp_path: Path) -> None:
    sound = soundfile.read(recordings / "s0/a.wav")[0]
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/a.wav", np.stack([sound, -0.9 * sound], 1), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "in/b.wav", sound, 16000)
    code, out, err = run("rwae-vc", "in", recordings / "s1/a.wav", "--json")
    assert code == 0, err
    cancelling, plain = json.loads(out)["converted"]
    assert "channel 1, the louder one, is read" in cancelling["notes"][0]
    assert plain["notes"] == []
    assert f"in/a.wav: {cancelling['notes'][0]}" in err
    code, _, err = run("rwae-vc", "in/a.wav", recordings / "s1/a.wav", "-o", "alone.wav")
    assert code == 0
    assert f"in/a.wav: {cancelling['notes'][0]}" in err


def test_vc_of_a_folder_never_overwrites_unless_forced(folder: Path, recordings: Path, run: Run) -> None:
    for bad in ("bad.wav", "s0/cut.sph"):
        (folder / bad).unlink()
    words = ("in", recordings / "s1/a.wav", "-o", "out")
    assert run("rwae-vc", *words)[0] == 0
    Path("out/b.b.wav").write_text("mine")
    Path("out/s0/a.wav").unlink()
    done = run("rwae-vc", *words, bundle=Path("never read"))
    refused(done, "rwae-vc", "3 of 4 files are in out already, the first out/b.b.wav; expected another folder, --skip")
    code, out, err = run("rwae-vc", *words, "--skip-existing", "--json")
    assert code == 0
    assert "converted 1 files into out; kept 3 as they were" in err
    assert json.loads(out)["skipped"] == ["out/b.b.wav", "out/narrow.wav", "out/s0/deep/a.wav"]
    assert Path("out/b.b.wav").read_text() == "mine"
    assert run("rwae-vc", *words, "--force")[0] == 0
    assert len(load_audio("out/b.b.wav")) == len(load_audio("in/b.b.WAV"))


def test_vc_of_a_folder_with_two_sources_of_one_name(folder: Path, recordings: Path, run: Run, tmp_path: Path) -> None:
    shutil.copy(recordings / "s2/c.flac", folder / "s0/a.flac")
    words = ("in", recordings / "s1/a.wav", "-o", "out")
    done = run("rwae-vc", *words, bundle=Path("never read"))
    refused(done, "rwae-vc", "in/s0/a.flac and in/s0/a.wav would both become out/s0/a.wav; expected different names")
    assert listing(tmp_path) == ["in", *(f"in/{name}" for name in listing(folder))]


def test_vc_of_a_folder_killed_and_interrupted_goes_on(bundle_folder: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(5):
        soundfile.write(tmp_path / f"in/{i}.wav", speech(i, 4.0), 16000)
    words = [sys.executable, "-m", "rwae_audio.commands.vc", "in", "in/0.wav", "--bundle", str(bundle_folder)]

    def stopped(signal_number: int, count: int) -> subprocess.Popen[str]:
        """The command, sent the signal when `count` files are there and it is at work on the next one."""
        command = [*words, "-o", "out", "--skip-existing"]
        # a shell that runs the tests in the background has them ignore Ctrl-C
        heeding = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        left = {*tmp_path.glob("out/.*.part-*")}  # by the one that was killed
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heeding)
        deadline = time.monotonic() + 120
        while len([*tmp_path.glob("out/?.wav")]) < count or not {*tmp_path.glob("out/.*.part-*")} - left:
            assert process.poll() is None, process.stderr
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal_number)
        process.wait(60)
        return process

    assert stopped(signal.SIGKILL, 1).returncode == -signal.SIGKILL
    process = stopped(signal.SIGINT, 2)
    assert process.returncode == 130
    assert process.stderr is not None
    assert re.fullmatch(
        r"rwae-vc: interrupted: \d of \d files converted, nothing half written\n", process.stderr.read()
    )
    assert all(re.fullmatch(r"\d\.wav", name) for name in listing(tmp_path / "out"))
    assert run("rwae-vc", "in", "in/0.wav", "-o", "out", "--skip-existing")[0] == 0
    assert run("rwae-vc", "in", "in/0.wav", "-o", "again")[0] == 0
    assert listing(tmp_path / "out") == listing(tmp_path / "again") == [f"{i}.wav" for i in range(5)]
    for i in range(5):
        assert (tmp_path / f"out/{i}.wav").read_bytes() == (tmp_path / f"again/{i}.wav").read_bytes()


def test_vc_of_a_name_that_is_no_text(bundle_folder: Path, run: Run, tmp_path: Path, monkeypatch) -> None:
    """A folder may hold names of bytes that are not UTF-8."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    soundfile.write("in/a.wav", speech(0, 1.0), 16000)
    strange = os.fsdecode(b"in/\xff.wav")
    try:
        shutil.copy("in/a.wav", strange)
    except OSError:
        pytest.skip("this file system takes no such names")
    assert run("rwae-vc", "in", "in/a.wav", "-o", "out")[0] == 0
    assert Path(strange.replace("in/", "out/")).read_bytes() == Path("out/a.wav").read_bytes()
    code, _, err = run("rwae-embed", strange, "-o", "codes.safetensors")
    assert code == 2
    assert "bytes that are not text" in err


@pytest.mark.parametrize(
    ("frames", "value", "more", "expected"),
    [
        *((frames, 0.0, 0, "no valid numbers") for frames in ("not json", '{"b": 3}', "[1]", '{"a": "x"}', '{"a": 0}')),
        ('{"a": 3}', 0.0, 1, "do not fit this bundle"),
        ('{"a": 3}', torch.nan, 0, "do not fit this bundle"),
    ],
)
def test_vc_refuses_a_voice_that_is_none_of_the_bundles(
    bundle_folder: Path,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frames: str,
    value: float,
    more: int,
    expected: str,
) -> None:
    """What its header says of its codes, or a code itself, is wrong."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", speech(0, 1.0), 16000)
    bundle = load_bundle(bundle_folder)
    code = torch.full((bundle.config.model.static_dim + more,), value)
    save_file({"static/a": code}, "voice.safetensors", {"bundle": bundle.digest, "frames": frames})
    status, _, err = run("rwae-vc", "a.wav", "--voice", "voice.safetensors", "-o", "o.wav")
    assert (status, err.count("\n")) == (2, 1)
    assert expected in err
    assert not Path("o.wav").exists()


@pytest.mark.parametrize("said", ['{"a": ["x", "y", "z"]}', '{"a": [9, NaN, 1]}', '{"a": 3}', "not json"])
def test_vc_refuses_a_voice_whose_pitch_is_none(
    bundle_folder: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", speech(0, 1.0), 16000)
    bundle = load_bundle(bundle_folder)
    header = {"bundle": bundle.digest, "frames": '{"a": 3}', "registers": said}
    save_file({"static/a": torch.zeros(bundle.config.model.static_dim)}, "voice.safetensors", header)
    status, _, err = run("rwae-vc", "a.wav", "--voice", "voice.safetensors", "-o", "o.wav")
    assert (status, err.count("\n")) == (2, 1)
    assert "has no valid numbers of frames or pitch ranges" in err


# ---- rwae-embed


def test_embed_writes_codes_under_the_names_given(
    recordings: Path, bundle_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Equal basenames stay apart; `./s1/a.wav` is not renamed."""
    monkeypatch.chdir(recordings)
    names = ("s0/a.wav", "./s1/a.wav", "narrow.wav")
    output = tmp_path / "codes.safetensors"
    code, out, err = run("rwae-embed", *names, "-o", output, "--dynamic")
    assert (code, out) == (0, ""), err
    assert "resampled narrow.wav 8000 → 16000 Hz" in err
    bundle = load_bundle(bundle_folder)
    with safe_open(output, "pt") as file:
        assert set(file.keys()) == {f"{kind}/{name}" for kind in ("static", "dynamic") for name in names}
        frames = {name: len(file.get_tensor(f"dynamic/{name}")) for name in names}
        metadata = file.metadata()
        speech_of_names = {name: speech_of(load_audio(name), 16000) for name in names}
        registers = {name: register_of(tracked(one.blocks(), 16000)) for name, one in speech_of_names.items()}
        assert json.loads(metadata.pop("registers")) == {name: pytest.approx(registers[name]) for name in names}
        assert metadata == {"bundle": bundle.digest, "version": __version__, "frames": json.dumps(frames)}
        for name in names:
            vectors = bundle.embed(load_audio(name))
            torch.testing.assert_close(file.get_tensor(f"static/{name}"), torch.from_numpy(vectors.static[0]).float())
            assert torch.equal(file.get_tensor(f"dynamic/{name}"), torch.from_numpy(vectors.codes))
        assert not torch.equal(file.get_tensor("static/s0/a.wav"), file.get_tensor("static/./s1/a.wav"))


def test_embed_is_static_alone_unless_asked_and_keeps_what_is_there(recordings: Path, run: Run, tmp_path: Path) -> None:
    words = (recordings / "s0/a.wav", "-o", "x.safetensors")
    assert run("rwae-embed", *words)[0] == 0
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert list(file.keys()) == [f"static/{recordings}/s0/a.wav"]
        assert file.get_tensor(f"static/{recordings}/s0/a.wav").shape == (6,)
    refused(run("rwae-embed", *words), "rwae-embed", "exists already")
    assert run("rwae-embed", *words, "--force", "--dynamic")[0] == 0
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert len(list(file.keys())) == 2


# ---- rwae-eer


def test_eer_says_the_same_of_every_format_and_of_its_own_scores(recordings: Path, run: Run, tmp_path: Path) -> None:
    words = ("--audio-dir", recordings, "--json")
    code, out, err = run("rwae-eer", "--trials", trial_list(tmp_path), *words, "--scores", "scores.txt")
    assert code == 0
    assert err == "rwae-eer: wrote the static scores to scores.txt\n"
    said = json.loads(out)
    assert {"trials", "static", "dynamic", "gap", "synthetic"} <= set(said)
    assert {"eer", "interval", "min_dcf", "threshold"} <= set(said["static"])
    assert {"eer", "plain", "centred", "interval", "min_dcf"} <= set(said["dynamic"])
    assert (said["trials"], said["target_trials"], said["speakers"], said["synthetic"]) == (15, 3, 3, False)
    assert said["dynamic"]["eer"] == min(said["dynamic"]["plain"], said["dynamic"]["centred"]) <= 0.5
    assert said["gap"] == pytest.approx(said["dynamic"]["eer"] - said["static"]["eer"])
    low, high = said["static"]["interval"]
    assert 0 <= low <= high <= 1
    code, out, _ = run("rwae-eer", "--trials", trial_list(tmp_path, kaldi=True), *words)
    assert json.loads(out) == said
    rows = [line.split() for line in (tmp_path / "scores.txt").read_text().splitlines()]
    assert [(row[0], row[1]) for row in rows] == LIST
    code, out, _ = run("rwae-eer", "--from-scores", "scores.txt", "--json", bundle=None)
    assert json.loads(out) == {"trials": 15, "target_trials": 3, **said["static"]}
    (tmp_path / "kaldi-scores.txt").write_text("".join(f"{row[2]} {row[3]}\n" for row in rows))
    code, out, _ = run("rwae-eer", "--from-scores", "kaldi-scores.txt", "--json", bundle=None)
    assert json.loads(out) == {"trials": 15, "target_trials": 3, **said["static"], "interval": None}


def test_eer_hears_each_file_of_an_equal_name(recordings: Path, bundle_folder: Path, run: Run, tmp_path: Path) -> None:
    """A loader that goes by basename would score s0/a.wav against itself."""
    run("rwae-eer", "--trials", trial_list(tmp_path), "--audio-dir", recordings, "--scores", "scores.txt")
    bundle = load_bundle(bundle_folder)
    for line in (tmp_path / "scores.txt").read_text().splitlines():
        one, other, score, _ = line.split()
        a, b = (torch.from_numpy(bundle.embed(load_audio(recordings / name)).static[0]) for name in (one, other))
        assert float(score) == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-9)


def test_eer_of_vectors_from_anywhere(recordings: Path, run: Run, tmp_path: Path) -> None:
    """What rwae-embed writes scores as the bundle itself does, and so do bare keys, whatever their extension."""
    trials = trial_list(tmp_path)
    _, out, _ = run("rwae-eer", "--trials", trials, "--audio-dir", recordings, "--json")
    static = json.loads(out)["static"]
    names = sorted({name for pair in LIST for name in pair})
    assert run("rwae-embed", *(recordings / name for name in names), "-o", "codes.safetensors")[0] == 0
    with safe_open(tmp_path / "codes.safetensors", "pt") as file:
        codes = {name: file.get_tensor(f"static/{recordings / name}") for name in names}
    words = ("--trials", trials, "--embeddings", "bare.safetensors")
    for keys in ({f"static/{name}": name for name in names}, {name.replace(".wav", ".flac"): name for name in names}):
        save_file({key: codes[name] for key, name in keys.items()}, tmp_path / "bare.safetensors")
        code, out, err = run("rwae-eer", *words, "--json", "--scores", "s.txt", bundle=None)
        assert (code, err) == (0, "rwae-eer: wrote the scores to s.txt\n")
        assert json.loads(out)["eer"] == pytest.approx(static["eer"])
        assert json.loads(out)["threshold"] == pytest.approx(static["threshold"], abs=1e-5)
    assert len((tmp_path / "s.txt").read_text().splitlines()) == 15
    code, out, _ = run("rwae-eer", *words, bundle=None)
    assert out.startswith("15 trials, 3 of them target\nEER ")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"s0/a.wav": None}, "1 of 6 names in the trial list are unknown, the first s0/a.wav"),
        ({"s0/a.wav": torch.zeros(4)}, "s0/a.wav has a vector of length 0"),
        ({"s0/a.wav": torch.full((4,), torch.nan)}, "s0/a.wav has a vector of length nan"),
        ({"s1/a.wav": torch.ones(5)}, "s1/a.wav has shape (5,); expected a vector (4,) for each name"),
        ({"s1/a.wav": torch.ones(2, 4)}, "s1/a.wav has shape (2, 4)"),
        ({"s0/a.wav": torch.tensor(1.0)}, "s0/a.wav has shape ()"),
    ],
)
def test_wrong_vectors_are_one_line(change: dict, expected: str, run: Run, tmp_path: Path) -> None:
    names = sorted({name for pair in LIST for name in pair})
    vectors = {name: torch.ones(4) * (1 + i) for i, name in enumerate(names)} | change
    save_file({name: value for name, value in vectors.items() if value is not None}, tmp_path / "e.safetensors")
    words = ("--trials", trial_list(tmp_path), "--embeddings", "e.safetensors", "--scores", "s.txt")
    refused(run("rwae-eer", *words, bundle=None), "rwae-eer", expected)
    assert not (tmp_path / "s.txt").exists()


def test_eer_for_people(recordings: Path, run: Run, tmp_path: Path) -> None:
    """A table; synthetic speech is marked; resampling is said."""
    trials = trial_list(tmp_path)
    trials.write_text(trials.read_text() + "0 narrow.wav s0/a.wav\n")
    bundle = tiny_bundle(tmp_path / "synthetic", synthetic=True)
    code, out, err = run("rwae-eer", "--trials", trials, "--audio-dir", recordings, bundle=bundle)
    assert code == 0
    assert out.startswith("16 trials, 3 of them target, 4 speakers; static threshold ")
    assert "static EER %" in out
    assert out.endswith("synthetic speech: these numbers say nothing about people\n")
    assert err == "rwae-eer: resampled 1 of 7 files to 16000 Hz\n"
    (tmp_path / "scores.txt").write_text("2 target\n1 target\n1 nontarget\n0 nontarget\n")
    code, out, err = run("rwae-eer", "--from-scores", "scores.txt", bundle=None)
    assert (code, err) == (0, "")
    assert "4 trials, 2 of them target" in out
    assert "EER 25.00 % (no names, no interval) at threshold 1.5" in out


def test_eer_checks_where_scores_go_before_it_works(recordings: Path, run: Run, tmp_path: Path) -> None:
    trials = trial_list(tmp_path)
    words = ("--trials", trials, "--audio-dir", recordings, "--scores")
    for place, expected in (
        ("no/s.txt", "the folder no does not exist"),
        (".", "is a folder"),
        (trials, "is the trial list"),
    ):
        refused(run("rwae-eer", *words, place, bundle=Path("never read")), "rwae-eer", expected)
    assert len(trials.read_text().splitlines()) == 15


def test_eer_on_real_speech(corpora: Path, run: Run, tmp_path: Path) -> None:
    """NLTK's TIMIT sample, whose .wav files are SPHERE: any three speakers, three sentences each."""
    folder = corpora / "timit_sample/timit"
    names = [
        path.relative_to(folder).as_posix()
        for speaker in sorted(p for p in folder.iterdir() if p.is_dir())[:3]
        for path in sorted(speaker.glob("s[ix]*.wav"))[:3]
    ]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    (tmp_path / "t.txt").write_text("".join(f"{int(a.split('/')[0] == b.split('/')[0])} {a} {b}\n" for a, b in pairs))
    code, out, err = run("rwae-eer", "--trials", "t.txt", "--audio-dir", folder, "--json")
    assert (code, err) == (0, "")
    assert (json.loads(out)["trials"], json.loads(out)["speakers"]) == (36, 3)


def test_signals_have_a_stack_of_their_own() -> None:
    """Met in the middle of a matrix product on the common one, Ctrl-C could end a training with a broken heap."""
    asked = "import faulthandler; from rwae_audio.commands.common import guarded; "
    asked += "guarded(lambda: print(faulthandler.is_enabled()) or 0, 'rwae-vc')"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
