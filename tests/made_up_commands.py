"""What tests of commands share: a tiny training's settings, made-up recordings, and the check of a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import soundfile
from made_up import speech

TINY = [
    *("--set", "train.updates=6", "--set", "train.evaluate_every=3", "--set", "train.batch=8"),
    *("--set", "model.static_hidden=8", "--set", "model.dynamic_hidden=8", "--set", "model.prior_hidden=8"),
    *("--set", "model.decoder_hidden=8", "--set", "model.static_window=30", "--threads", "1"),
]


def recordings(folder: Path, name: str, speakers: int, each: int) -> None:
    """Made-up speech at folder/<name with s and u filled in>; the last of more than two speakers has one recording."""
    for s in range(speakers):
        for u in range(1 if 2 < speakers == s + 1 < 8 else each):
            path = folder / name.format(s=s, u=u)
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, speech(s, 0.8 + 0.1 * u), 16000)


def called(
    main: Callable[[list[str]], int], words: Sequence[str | Path], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Call a command in this process: (exit code, stdout, stderr)."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return (code, *capsys.readouterr())


def refused(done: tuple[int, str, str], name: str, *expected: str) -> None:
    """Exit 2, nothing on stdout, one line on stderr that names the command and says one of `expected`."""
    code, out, err = done
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith(f"{name}: ")
    assert any(part in err for part in expected), err


def refused_saying(done: tuple[int, str, str], expected: str) -> None:
    """Exit 2, nothing on stdout, and one line on stderr with `expected` in it."""
    code, out, err = done
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert expected in err


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
