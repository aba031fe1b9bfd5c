"""What a hostile world does: one line, exit 2 and nothing half written; after SIGKILL what is there is whole.

What test_commands.py, test_bundle.py, test_store.py and test_recipes.py refuse already is not said again here.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import killed
import numpy as np
import pytest
import soundfile
from made_up import speech
from made_up_commands import listing, refused
from safetensors import safe_open

from rwae_audio.commands import eer, embed, train, vc
from rwae_audio.data.audio import write_audio
from rwae_audio.data.corpora import read_corpus
from rwae_audio.data.features import MelConfig
from rwae_audio.data.store import open_store
from rwae_audio.evaluation import plots
from rwae_audio.evaluation.scores import read_scores, write_scores
from rwae_audio.evaluation.trials import Trials, read_trials, write_trials
from rwae_audio.files import InputError, only_one, read_json, whole_file, whole_folder, write_json, write_text

ROOT = Path(__file__).parent.parent
COMMANDS = {"rwae-vc": vc.main, "rwae-embed": embed.main, "rwae-eer": eer.main, "rwae-train": train.main}
TINY = ["--set=train.updates=2", "--set=train.evaluate_every=1", "--set=train.batch=4", "--threads=1"]
TINY += [f"--set=model.{part}_hidden=8" for part in ("static", "dynamic", "prior", "decoder")]
TINY += ["--set=model.static_window=30"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """run(command, *words) in this process: (exit code, stdout, stderr)."""

    def call(name: str, *words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = COMMANDS[name]([str(word) for word in words])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers × two recordings."""
    folder = tmp_path_factory.mktemp("hostile") / "recordings"
    for s in range(6):
        (folder / f"s{s}").mkdir(parents=True)
        for u in range(2):
            soundfile.write(folder / f"s{s}/{u}.wav", speech(2 * s + u, 0.5), 16000)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWAE_CACHE", str(tmp_path_factory.mktemp("cache")))


# ---- who may not


@pytest.fixture
def nobody() -> Iterator[Callable[[], contextlib.AbstractContextManager[Path]]]:
    """A folder of its own, and a context in which this process has no more rights in it than its permissions give."""
    for name in ("scipy.sparse.csgraph", "torch._dynamo"):  # nobody may not load them from root's Python
        importlib.import_module(name)
    folder = Path(tempfile.mkdtemp(prefix="rwae-nobody-"))
    folder.chmod(0o755)

    @contextlib.contextmanager
    def without_rights() -> Iterator[Path]:
        if os.geteuid():
            yield folder
            return
        os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(0)

    with contextlib.suppress(FileNotFoundError):
        yield without_rights
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def test_what_may_not_be_read_is_one_line(nobody: Callable, bundle_folder: Path, recordings: Path, run: Run) -> None:
    with nobody() as folder:
        pass
    sound, trials, bundle = folder / "a.wav", folder / "trials.txt", folder / "bundle"
    shutil.copy(recordings / "s0/0.wav", sound)
    shutil.copy(recordings / "s1/0.wav", folder / "b.wav")
    trials.write_text("1 a.wav b.wav\n0 a.wav c.wav\n")
    shutil.copy(sound, folder / "c.wav")
    shutil.copytree(bundle_folder, bundle)
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)
    run("rwae-vc", sound, folder / "b.wav", "-o", folder / "out/x.wav", "--bundle", bundle)  # loads what it needs
    (folder / "out/x.wav").unlink()
    os.chmod(folder, 0o755)
    words = (folder / "b.wav", folder / "b.wav", "-o", folder / "out/x.wav", "--bundle", bundle)
    eer_words = ("--trials", trials, "--audio-dir", folder, "--bundle", bundle)
    for path in (sound, trials, bundle / "config.json", bundle / "model.safetensors"):
        path.chmod(0)
        with nobody():
            if path == sound:
                refused(run("rwae-vc", sound, *words[1:]), "rwae-vc", "a.wav cannot be read (Permission denied)")
                refused(run("rwae-eer", *eer_words), "rwae-eer", "a.wav cannot be read (Permission denied)")
            elif path == trials:
                refused(run("rwae-eer", *eer_words), "rwae-eer", "trials.txt cannot be read as text ([Errno 13]")
            else:
                refused(run("rwae-vc", *words), "rwae-vc", f"{path.name} cannot be read", f"{path.name} is not a whole")
        path.chmod(0o644)
    assert listing(folder / "out") == []


def test_a_folder_that_may_not_be_written_to_is_one_line(
    nobody: Callable, bundle_folder: Path, recordings: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nobody() as folder:
        pass
    shutil.copytree(bundle_folder, folder / "bundle")
    shutil.copytree(recordings, folder / "recordings")
    (folder / "trials.txt").write_text("1 s0/0.wav s0/1.wav\n0 s0/0.wav s1/0.wav\n")
    (folder / "there.wav").write_text("mine")
    sounds = (folder / "recordings/s0/0.wav", folder / "recordings/s1/0.wav")
    before = listing(folder)
    for place in [folder, *folder.rglob("*")]:
        place.chmod(0o555 if place.is_dir() else 0o444)
    monkeypatch.setenv("RWAE_CACHE", str(folder / "cache"))
    bundle = ("--bundle", folder / "bundle")
    trials = ("--trials", folder / "trials.txt", "--audio-dir", folder / "recordings")
    data = ("--data", f"folder={folder / 'recordings'}", *TINY)
    with nobody():
        if os.access(folder, os.W_OK, effective_ids=True):
            pytest.skip("this user may write everywhere")
        for name in ("new.wav", "there.wav"):
            done = run("rwae-vc", *sounds, "-o", folder / name, *bundle, "--force")
            refused(done, "rwae-vc", f"{name}: Permission denied; expected a folder that can be written to")
        refused(run("rwae-embed", *sounds, "-o", folder / "x.safetensors", *bundle), "rwae-embed", "Permission denied")
        refused(run("rwae-eer", *trials, *bundle, "--scores", folder / "s.txt"), "rwae-eer", "Permission denied")
        code, _, err = run("rwae-train", *data, "--out", folder / "run")
        assert (code, err.count("\n")) == (2, 1), err
        assert "expected another folder in RWAE_CACHE" in err
    assert listing(folder) == before
    assert (folder / "there.wav").read_text() == "mine"


# ---- no room


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file system of its own where one may be mounted; else no file may grow over 4 KiB."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if shutil.which("mount") and not subprocess.run(mount, capture_output=True).returncode:
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write over the limit is an error
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def fill(folder: Path, leave: int = 4096) -> None:
    """Write until `leave` bytes are free."""
    room = os.statvfs(folder)
    with contextlib.suppress(OSError):
        (folder / "filler").write_bytes(bytes(max(0, min(room.f_bavail * room.f_frsize, 1 << 20) - leave)))


def picture(path: Path) -> None:
    rng = np.random.default_rng(0)
    plots.speaker_map(path, rng.normal(size=(40, 6)), [f"s{i % 8}" for i in range(40)], "Codes")


def scores(path: Path) -> None:
    names = tuple(f"speaker-{i}/utterance.wav" for i in range(300))
    trials = Trials(names, np.arange(299), np.arange(1, 300), np.arange(299) % 2 == 0)
    write_scores(path, trials, np.linspace(0, 1, 299))
    write_trials(path, trials)


WRITERS: dict[str, Callable[[Path], object]] = {
    "checkpoint": lambda folder: killed.write_checkpoint(folder, 1),
    "store": killed.read_store,
    "bundle": lambda folder: killed.write_bundle(folder, 1),
    "wav": lambda folder: write_audio(folder / "out.wav", speech(), 16000),
    "flac": lambda folder: write_audio(folder / "out.flac", speech(), 16000),
    "scores": lambda folder: scores(folder / "scores.txt"),
    "json": lambda folder: write_json(folder / "eer.json", list(range(9000))),
    "plots": lambda folder: picture(folder / "speakers.png"),
}
WRITTEN = {
    "checkpoint": "latest.safetensors",
    "bundle": "bundle",
    "wav": "out.wav",
    "flac": "out.flac",
    "scores": "scores.txt",
    "json": "eer.json",
    "plots": "speakers.png",
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(name: str, recordings: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 96):
        (disk / "recordings").symlink_to(recordings)
        old = disk / WRITTEN.get(name, "other")
        if name == "bundle":
            old.mkdir()
            (old / "README.md").write_text("old")
        else:
            old.write_text("old")
        fill(disk)
        before = listing(disk)
        with pytest.raises(InputError) as caught:
            WRITERS[name](disk)
        assert re.search("cannot write .*(No space left|File too large|expected room)", str(caught.value))
        assert "\n" not in str(caught.value)
        assert [path for path in listing(disk) if path != "cache"] == before
        assert (old / "README.md" if name == "bundle" else old).read_text() == "old"


def test_a_run_on_a_full_disk_is_one_line(recordings: Path, tmp_path: Path, run: Run) -> None:
    """Whatever it is that finds no room: run.json, metrics, events, checkpoints."""
    disk = tmp_path / "disk"
    with small_disk(disk, 96):
        for leave in (0, 12288, 40960):
            (disk / "filler").unlink(missing_ok=True)
            fill(disk, leave)
            code, _, err = run("rwae-train", "--data", f"folder={recordings}", "--out", disk / f"run-{leave}", *TINY)
            assert (code, err.count("\n")) == (2, 1), err
            assert re.search("(No space left on device|File too large|cannot make)", err)
            assert not [path for path in disk.rglob("*") if ".part-" in path.name]


def test_a_full_stdout_is_one_line(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    (tmp_path / "scores.txt").write_text("0.5 target\n0.1 nontarget\n")
    command = [sys.executable, "-m", "rwae_audio.commands.eer", "--from-scores", "scores.txt", "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "rwae-eer: cannot write: No space left on device; expected free space\n"


def test_a_read_only_disk_is_one_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 96):
        write_text(disk / "a.txt", "old")
        if subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode:
            pytest.skip("nothing may be mounted here")
        with pytest.raises(InputError, match="Read-only file system; expected a folder that can be written to"):
            write_text(disk / "a.txt", "new")
        with pytest.raises(InputError, match="Read-only file system; expected"), whole_folder(disk / "bundle"):
            pass
        with pytest.raises(InputError, match="Read-only file system; expected"), only_one(disk):
            pass
        assert (disk / "a.txt").read_text() == "old"


# ---- what is no file, no text, no list


def test_a_device_or_a_pipe_is_never_opened_nor_replaced(
    bundle_folder: Path, recordings: Path, tmp_path: Path, run: Run
) -> None:
    sound, bundle = recordings / "s0/0.wav", ("--bundle", bundle_folder)
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    for path in ("/dev/zero", "/dev/null", pipe):
        refused(run("rwae-vc", path, sound, "-o", tmp_path / "x.wav", *bundle), "rwae-vc", "is not a regular file")
        refused(
            run("rwae-embed", path, "-o", tmp_path / "x.safetensors", *bundle), "rwae-embed", "is not a regular fil"
        )
        refused(run("rwae-eer", "--from-scores", path), "rwae-eer", "is not a regular file; expected a score file")
        words = ("--trials", path, "--audio-dir", recordings)
        refused(run("rwae-eer", *words, *bundle), "rwae-eer", "is not a regular file; expected a trial list")
        data = ("--data", f"folder={recordings}")
        refused(run("rwae-train", *data, "--config", path), "rwae-train", "is not a regular file")
        refused(run("rwae-train", "--data", f"folder={path}"), "rwae-train", "is not a folder")
    refused(run("rwae-vc", sound, sound, "-o", pipe, "--force", *bundle), "rwae-vc", "it is a device or a pipe")
    (tmp_path / "trials.txt").write_text("1 s0/0.wav s0/1.wav\n0 s0/0.wav s1/0.wav\n")
    words = ("--trials", tmp_path / "trials.txt", "--audio-dir", recordings, "--scores", pipe)
    code, _, err = run("rwae-eer", *words, *bundle)
    assert (code, err) == (2, f"rwae-eer: cannot write {pipe}: it is a device or a pipe; expected the name of a file\n")
    assert pipe.is_fifo()
    assert listing(tmp_path) == ["pipe.wav", "trials.txt"]


def test_a_million_trials_are_read_in_bounded_memory_and_the_last_line_is_named(tmp_path: Path) -> None:
    count, path = 1_000_000, tmp_path / "trials.txt"
    lines = [f"{i % 2} s{i % 50}/a{i % 8}.wav s{7 * i % 53}/b{i % 11}.wav\n" for i in range(1000)]
    path.write_text("".join(lines) * (count // 1000))
    names = {word for line in lines for word in line.split()[1:]}
    code = f"""
import resource, sys, time
from rwae_audio.evaluation.trials import read_trials
began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
trials = read_trials({str(path)!r})
used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 / (1024 if sys.platform == "darwin" else 1)
print(len(trials), len(trials.names), int(trials.target.sum()), used, time.process_time() - began)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    *counts, megabytes, seconds = (float(word) for word in done.stdout.split())
    assert counts == [count, len(names), count // 2]
    assert megabytes < 100  # the file has 24
    assert seconds < 30
    with path.open("a") as file:
        file.write("1 s0/a0.wav\n")
    with pytest.raises(InputError, match=f"line {count + 1} has 2 fields; expected a trial list"):
        read_trials(path)


def test_names_are_numbered_in_the_order_of_the_list(tmp_path: Path) -> None:
    """Those that enrol first, whatever the lines between them."""
    (tmp_path / "t.txt").write_text("1 b a\n\n0 c b\n0 b d\n1 a d")
    trials = read_trials(tmp_path / "t.txt")
    assert trials.names == ("b", "c", "a", "d")
    assert [(trials.names[i], trials.names[j]) for i, j in zip(trials.enrol, trials.test, strict=True)] == [
        ("b", "a"),
        ("c", "b"),
        ("b", "d"),
        ("a", "d"),
    ]
    assert trials.target.tolist() == [True, False, False, True]


def test_nul_bytes_are_one_line(recordings: Path, bundle_folder: Path, tmp_path: Path, run: Run) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"0.5 target\n0.1 nontarget\n\0\0\n")
    refused(run("rwae-eer", "--from-scores", bad), "rwae-eer", "bad holds a NUL byte; expected a score file")
    bad.write_bytes(b"[model]\n\0\n")
    refused(run("rwae-train", "--data", f"folder={recordings}", "--config", bad), "rwae-train", "is not TOML")
    (tmp_path / "nul.wav").write_bytes(bytes(5000))
    words = (tmp_path / "nul.wav", recordings / "s0/0.wav", "-o", tmp_path / "x.wav", "--bundle", bundle_folder)
    refused(run("rwae-vc", *words), "rwae-vc", "nul.wav cannot be read as audio")
    bundle = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    (bundle / "config.json").write_bytes(bytes(300))
    refused(run("rwae-vc", *words[:4], "--bundle", bundle), "rwae-vc", "config.json is not JSON")
    plan = {"config": {}, "name": "x", "data": [["folder", "\0", "x"]], "test": ["x"], "command": ""}
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run/run.json", plan)
    refused(run("rwae-train", "--resume", tmp_path / "run"), "rwae-train", "is missing; expected the corpus's folder")
    assert not (tmp_path / "x.wav").exists()


BENT = '{"config": {}, "name": "x", "data": [["an4", 3, "an4"]], "test": ["an4"], "command": ""}'


@pytest.mark.parametrize("plan", ["[]", "3", "{}", '{"config": 1, "data": 2}', BENT, "[" * 100_000])
def test_a_run_json_that_is_none_is_one_line(plan: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "run.json").write_text(plan)
    refused(run("rwae-train", "--resume", tmp_path), "rwae-train", "run.json is not the plan of a run", "is not JSON")
    assert listing(tmp_path) == ["run.json"]


def test_a_bundle_from_a_newer_version_says_so(bundle_folder: Path, recordings: Path, tmp_path: Path, run: Run) -> None:
    newer = Path(shutil.copytree(bundle_folder, tmp_path / "newer"))
    write_json(newer / "config.json", {**read_json(newer / "config.json", ""), "format": 7})
    words = (recordings / "s0/0.wav", recordings / "s1/0.wav", "-o", tmp_path / "x.wav", "--bundle", newer)
    refused(
        run("rwae-vc", *words),
        "rwae-vc",
        "has bundle format 7 (a newer version of rwae-audio reads it); expected format 1",
    )
    write_json(newer / "config.json", {**read_json(newer / "config.json", ""), "format": 0})
    assert "newer" not in run("rwae-vc", *words)[2].split("format 0")[1]


# ---- a corpus that is not what it was


def test_a_store_of_a_corpus_that_has_changed(recordings: Path, tmp_path: Path) -> None:
    """A file replaced: built anew; removed since the corpus was read: said; removed before: built without it."""
    folder, cache = Path(shutil.copytree(recordings, tmp_path / "mine")), tmp_path / "cache"
    corpus = read_corpus("folder", folder)
    first = open_store([corpus], MelConfig(), cache)
    soundfile.write(folder / "s0/0.wav", speech(40, 1.2), 16000)
    second = open_store([corpus], MelConfig(), cache)
    assert second.lengths[0] != first.lengths[0]
    (folder / "s3/1.wav").unlink()
    with pytest.raises(InputError, match=r"s3/1\.wav can no longer be read"):
        open_store([corpus], MelConfig(), cache)
    assert len(open_store([read_corpus("folder", folder)], MelConfig(), cache).utterances) == 11
    soundfile.write(folder / "s3/1.wav", speech(7, 0.5)[:100], 16000)  # there again, but shorter than a window
    with pytest.raises(InputError, match=r"s3/1\.wav.*under one analysis window"):
        open_store([read_corpus("folder", folder)], MelConfig(), cache)
    assert not [path for path in cache.iterdir() if ".part-" in path.name]


def test_a_folder_that_leads_back_to_itself_is_walked_once(recordings: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(recordings, tmp_path / "mine"))
    (folder / "s0/again").symlink_to(folder)
    (folder / "s1/here").symlink_to(".")
    (folder / "s9").symlink_to(folder / "s2")  # leads aside, not back: a speaker's folder may be a link
    assert len(read_corpus("folder", folder).utterances) == 14


def test_blanks_in_names_are_joined_and_two_names_that_become_one_are_refused(recordings: Path, tmp_path: Path) -> None:
    sound = recordings / "s0/0.wav"
    for name in ("Anna Lee/take  1.wav", "Anna Lee/take_2.wav", "Bob/at\thome/x y.flac", "Bob/\u00a0z.wav"):
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sound, tmp_path / "a" / name)
    corpus = read_corpus("folder", tmp_path / "a")
    ids = {u.id: u.path.relative_to(tmp_path / "a").as_posix() for u in corpus.utterances}
    assert ids == {
        "Anna_Lee/take_1.wav": "Anna Lee/take  1.wav",
        "Anna_Lee/take_2.wav": "Anna Lee/take_2.wav",
        "Bob/at_home/x_y.flac": "Bob/at\thome/x y.flac",
        "Bob/_z.wav": "Bob/\u00a0z.wav",
    }
    assert {u.speaker for u in corpus.utterances} == {"Anna_Lee", "Bob"}
    trials = Trials(tuple(ids), np.array([0, 0]), np.array([1, 2]), np.array([True, False]))
    write_scores(tmp_path / "s.txt", trials, np.array([0.5, 0.1]))
    assert set(read_scores(tmp_path / "s.txt")[1].names) <= set(ids)  # type: ignore[union-attr]
    for other in ("Anna Lee/take 1.ogg", "Anna_Lee/x.wav"):
        whole = Path(shutil.copytree(tmp_path / "a", tmp_path / other.replace("/", "-")))
        (whole / other).parent.mkdir(exist_ok=True)
        shutil.copy(sound, whole / other)
        with pytest.raises(InputError, match=r"both Anna_Lee.* in lists; expected different names") as caught:
            read_corpus("folder", whole)
        assert "\n" not in str(caught.value)


def test_a_name_that_is_no_text_is_one_line(recordings: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "s0").mkdir()
    try:
        shutil.copy(recordings / "s0/0.wav", os.fsencode(tmp_path) + b"/s0/\xff.wav")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    refused(
        run("rwae-train", "--data", f"folder={tmp_path}"), "rwae-train", "is not UTF-8; expected a name for trial lists"
    )


# ---- two at once


def test_two_processes_in_one_run_folder(recordings: Path, tmp_path: Path, run: Run) -> None:
    """The lock goes with its owner, by SIGKILL as well; `--out` of a folder that is there is refused anyway."""
    folder = tmp_path / "run"
    folder.mkdir()
    plan = {"config": {}, "name": "x", "data": [["folder", str(recordings), "x"]], "test": ["x"], "command": ""}
    write_json(folder / "run.json", plan)
    code = f"""
import time
from pathlib import Path
from rwae_audio.files import only_one
with only_one(Path({str(folder)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            done = run("rwae-train", "--resume", folder)
        finally:
            other.kill()
    refused(done, "rwae-train", f"another process is using {folder}; expected one process at a time")
    with only_one(folder):
        pass
    assert listing(folder) == [".lock", "run.json"]


def test_a_leftover_is_cleared_away_unless_it_is_being_written(tmp_path: Path) -> None:
    mine = [".a.txt.part-settings", ".b.part-oldest", ".a.txt.part-1234567", ".a.part-abcdefgh.txt"]  # other names
    dead = [".a.txt.part-abcdefgh.txt", ".a.txt.part-_1234567.txt"]
    for name in [*mine, *dead]:
        (tmp_path / name).write_text("x")
    (tmp_path / ".b.part-abcdefgh").mkdir()
    with whole_file(tmp_path / "a.txt") as living:
        write_text(tmp_path / "a.txt", "new")
        living.write_text("newer")
    with whole_folder(tmp_path / "b") as living:
        with whole_folder(tmp_path / "b") as other:
            (other / "x").write_text("first")
        assert living.is_dir()
        (living / "x").write_text("second")
    assert (tmp_path / "a.txt").read_text() == "newer"
    assert (tmp_path / "b/x").read_text() == "second"
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted(["a.txt", "b", *mine[1:]])


# ---- SIGKILL


class Killed:
    """The process of tests/killed.py: a job is begun, and killed after a while or left to end."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(killed.__file__))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def begin(self, job: str, folder: Path, seconds: float = 0) -> int:
        """Its exit status, −9 when it was killed; 0 seconds: it is left to end."""
        assert self.process.stdin is not None
        print(job, seconds, folder, file=self.process.stdin, flush=True)
        return int(self.line())


@pytest.fixture(scope="module")
def killing() -> Iterator[Killed]:
    there = Killed()
    yield there
    there.process.communicate(timeout=60)


READERS: dict[str, Callable[[Path], object]] = {
    "checkpoint": killed.read_checkpoint,
    "bundle": killed.read_bundle,
    "store": killed.read_store,
}


@pytest.mark.parametrize("job", READERS)
def test_ten_kills_while_writing_leave_what_is_whole(
    job: str, killing: Killed, recordings: Path, tmp_path: Path
) -> None:
    """A checkpoint and a bundle are there from the first on; a store may be absent, and is built."""
    (tmp_path / "recordings").symlink_to(recordings)
    WRITERS[job](tmp_path)
    expected = killed.read_store(tmp_path).frames.copy() if job == "store" else None
    moments = random.Random(f"{job} moments")
    for _ in range(10):
        assert killing.begin(job, tmp_path, moments.uniform(0.005, 0.15)) == -signal.SIGKILL
        READERS[job](tmp_path)
        if expected is not None:
            assert np.array_equal(killed.read_store(tmp_path).frames, expected)
    WRITERS[job](tmp_path)
    READERS[job](tmp_path)
    assert not [path for path in tmp_path.rglob("*") if ".part-" in path.name or ".tmp" in path.name]


def test_a_bundle_that_was_being_replaced_is_put_back(killing: Killed, tmp_path: Path) -> None:
    for read_first in (True, False):
        killed.write_bundle(tmp_path, 1)
        assert killing.begin("between", tmp_path) == -signal.SIGKILL
        assert not (tmp_path / "bundle").exists()
        if read_first:
            assert killed.read_bundle(tmp_path).meta["number"] == 1
        else:
            killed.write_bundle(tmp_path, 3)
            assert killed.read_bundle(tmp_path).meta["number"] == 3
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def run_state(folder: Path) -> dict[str, object]:
    """All that a run has left, without the seconds that it took."""
    state: dict[str, object] = {}
    for name in ("latest", "best"):
        with safe_open(folder / f"checkpoints/{name}.safetensors", "np") as file:
            state |= {f"{name}.{key}": file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
            state[name] = {**json.loads(file.metadata()["position"]), "seconds": 0}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {**state, "metrics": [{**json.loads(line), "seconds": 0} for line in lines]}


def test_a_training_killed_ten_times_ends_with_the_same_bits(killing: Killed, tmp_path: Path) -> None:
    """Resumed after each; one that ends between two kills is compared, and begun anew."""
    began = time.monotonic()
    assert killing.begin("train", tmp_path / "whole") == 0
    seconds = time.monotonic() - began
    moments, kills = random.Random("training"), 0
    while kills < 10:
        if killing.begin("train", tmp_path / "killed", moments.uniform(0.05, 0.4) * seconds):
            kills += 1
        else:
            assert run_state(tmp_path / "killed") == run_state(tmp_path / "whole")
            shutil.rmtree(tmp_path / "killed")
    assert killing.begin("train", tmp_path / "killed") == 0
    assert run_state(tmp_path / "killed") == run_state(tmp_path / "whole")


def test_a_recipe_killed_three_times_ends_with_the_same_bits(killing: Killed, recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "recordings").symlink_to(recordings)
    began = time.monotonic()
    assert killing.begin("recipe", tmp_path / "whole") == 0
    seconds = time.monotonic() - began
    moments = random.Random("recipe")
    for share in (0.2, 0.4, 0.8):
        killing.begin("recipe", tmp_path / "killed", share * seconds * moments.uniform(0.8, 1.2))
    assert killing.begin("recipe", tmp_path / "killed") == 0
    for name in ("bundle/model.safetensors", "eer.json", "scores/paper-mmd.static.txt"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not [path for path in tmp_path.rglob("*") if ".part-" in path.name]
