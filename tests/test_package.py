"""What is shipped: a wheel that is whole and works elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import soundfile
from made_up import speech

import rwae_audio

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that a build folder of another day cannot mend what is missing."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "rwae_audio", source / "rwae_audio", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_is_whole(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        information = next(name for name in names if name.endswith("/entry_points.txt"))
        entry_points = archive.read(information).decode()
        metadata = archive.read(information.replace("entry_points.txt", "METADATA")).decode()
    package = [path for path in (ROOT / "rwae_audio").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in package} == {n for n in names if n.startswith("rwae_audio/")}
    assert "rwae_audio/py.typed" in names
    assert any(name.startswith("rwae_audio/assets/") for name in names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    for command in ("demo", "eer", "embed", "export", "train", "vc"):
        assert f"rwae-{command} = rwae_audio.commands.{command}:main" in entry_points
    assert f"\nVersion: {rwae_audio.__version__}\n" in metadata
    assert "\nRequires-Python: >=3.10\n" in metadata


def test_the_wheel_works_elsewhere(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()

    def python(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    file, version = python("-c", "import rwae_audio; print(rwae_audio.__file__); print(rwae_audio.__version__)").split()
    assert Path(file).resolve().is_relative_to((tmp_path / "site").resolve())
    assert version == rwae_audio.__version__
    assert python("-m", "rwae_audio.commands.vc", "--help").startswith("usage: rwae-vc")
    for seed, name in enumerate(("a", "b")):
        soundfile.write(tmp_path / f"elsewhere/{name}.wav", speech(seed, 1.0), 16000)
    assert not python("-m", "rwae_audio.commands.vc", "a.wav", "b.wav")  # which says what it did on stderr
    assert soundfile.info(tmp_path / "elsewhere/a_as_b.wav").frames == 16000
    with zipfile.ZipFile(wheel) as archive:
        weights = [entry.file_size for entry in archive.infolist() if entry.filename.endswith(".safetensors")]
    assert len(weights) == 2
    assert sum(weights) <= 15e6
    name = python("-c", "from rwae_audio.commands.runs import configuration; print(configuration('rwae-plus'))").strip()
    assert (tmp_path / "site/rwae_audio/assets/conf/rwae-plus.toml").samefile(name)
    code = "import rwae_audio.data.corpora.timit, sys; print(sys.modules['rwae_audio.data.corpora.timit'].__file__)"
    assert Path(python("-c", code).strip()).resolve().is_relative_to((tmp_path / "site").resolve())
