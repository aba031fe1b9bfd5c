"""Nothing that is loaded can run code: with unpickling made to raise, everything works all the same.

torch's and numpy's own loaders raise as well. Exempt is what reads no file of a user's: copy.deepcopy and copyreg;
classes that libraries derive from Unpickler when they are imported (joblib, torch); and numba's cache of librosa's
compiled functions, which lies in site-packages beside their source, as .pyc files do.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from made_up import speech

ROOT = Path(__file__).parent.parent
LOADERS = (
    r"\b(?:torch\.load|cloudpickle|c?[pP]ickle|joblib|dill|shelve|marshal|yaml\.(?:unsafe_)?load)\b|allow_pickle=True"
)
FORBID = """
import _pickle, importlib, json, pickle, sys

def refuse(*words, **options):
    raise AssertionError("something is unpickled")

def unless_numba(real):
    def load(*words, **options):
        caller = sys._getframe(1).f_globals.get("__name__", "")
        return real(*words, **options) if caller in ("numba.core.caching", "numba.core.serialize") else refuse()
    return load

class Refused(pickle._Unpickler):
    __init__ = load = refuse

for module in (pickle, _pickle):
    module.load, module.loads = unless_numba(module.load), unless_numba(module.loads)
    module.Unpickler = Refused
pickle._Unpickler = Refused
pickle._load = pickle._loads = refuse

import torch

torch.load = torch.serialization.load = torch.jit.load = torch.hub.load_state_dict_from_url = refuse
for attempt in json.loads(sys.argv[1]):
    try:
        exec(attempt)
    except AssertionError as error:
        print(error, file=sys.stderr)
for name, *sys.argv[1:] in json.loads(sys.argv[2]):
    print("running", name, file=sys.stderr)
    if importlib.import_module(name).main(sys.argv[1:]):
        sys.exit(f"{name} failed")
"""
ATTEMPTS = [
    "pickle.loads(pickle.dumps(1))",
    "pickle.load(open('a.pt', 'rb'))",
    "pickle.Unpickler(open('a.pt', 'rb')).load()",
    "torch.load('a.pt', weights_only=True)",
    "import numpy; numpy.load('a.npy', allow_pickle=True)",
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """(a folder, the lines that came on stderr) where the recipe was run and resumed, and every command, in one process
    without pickle; in it some attempts to unpickle first."""
    where = tmp_path_factory.mktemp("no-pickle")
    torch.save({"a": 1}, where / "a.pt")
    np.save(where / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    for s in range(6):
        (where / f"recordings/s{s}").mkdir(parents=True)
        for u in range(2):
            soundfile.write(where / f"recordings/s{s}/{u}.wav", speech(2 * s + u, 0.5, 8000), 8000)  # resampled
    (where / "trials.txt").write_text("1 s0/0.wav s0/1.wav\n0 s0/0.wav s1/0.wav\n")
    tiny = ["train.updates=2", "train.evaluate_every=1", "train.batch=4", "model.static_window=30"]
    tiny += [f"model.{part}_hidden=8" for part in ("static", "dynamic", "prior", "decoder")]
    sounds, bundle = ["recordings/s0/0.wav", "recordings/s1/1.wav"], ["--bundle", "run/bundle"]
    steps = [
        ["train", "--data=folder=recordings", "--out=run", "--threads=1", *(f"--set={setting}" for setting in tiny)],
        ["train", "--resume=run", "--threads=1", "--no-tensorboard"],
        ["rwae_audio.commands.eer", "--trials=trials.txt", "--audio-dir=recordings", "--json", *bundle],
        ["rwae_audio.commands.embed", *sounds, "-o", "codes.safetensors", "--dynamic", *bundle],
        ["rwae_audio.commands.vc", *sounds, "-o", "out.wav", "--json", *bundle],
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RWAE_CACHE": str(where / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "recipes/timit"), *sys.path])
    command = [sys.executable, "-c", FORBID, json.dumps(ATTEMPTS), json.dumps(steps)]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return where, done.stderr.splitlines()


def test_unpickling_does_raise(ran: tuple[Path, list[str]]) -> None:
    assert ran[1].count("something is unpickled") == len(ATTEMPTS)


def test_training_resuming_and_every_command_work_without_pickle(ran: tuple[Path, list[str]]) -> None:
    """--resume reads checkpoints of both kinds; TensorBoard, plots and the bundle are among what the recipe leaves."""
    where, said = ran
    assert sum(line.startswith("running ") for line in said) == 5
    for name in ("run/bundle/model.safetensors", "run/plots/swaps.png", "codes.safetensors", "out.wav"):
        assert (where / name).stat().st_size > 1000, name


def test_no_loader_of_pickles_is_named_in_the_code() -> None:
    paths = [path for folder in ("rwae_audio", "recipes") for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 30
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            code = re.sub(r'"[^"]*"|#.*', "", line)
            assert not re.search(LOADERS, code), f"{path}:{number}: {line.strip()}"
            assert "np.load(" not in code or "allow_pickle=False" in code, f"{path}:{number}: {line.strip()}"
