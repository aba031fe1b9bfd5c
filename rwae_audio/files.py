"""What every file that is read or written goes through: one error for bad input, whole files or none."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class InputError(Exception):
    """Something a user can put right; its text is one line that says what came and what was expected."""


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there, synced, when the block ends, or remove it when it fails.

    Raises InputError when the folder is missing or cannot be written to.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; expected a folder that can be written to") from error
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        _sync(path.parent)
    except IsADirectoryError as error:
        raise InputError(f"cannot write {path}: it is a folder; expected the name of a file") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it takes the place of `path` when the block ends, or goes when it fails.

    Raises InputError when `path` is a file, or its parent is missing or cannot be written to.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"cannot write {path}: it is a file; expected the name of a folder")
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; expected a folder that can be written to") from error
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_text(path: str | Path, expected: str) -> str:
    """A UTF-8 text file; `expected` names what it should have been, e.g. "a trial list". Raises InputError."""
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist; expected {expected}")
        if not path.is_file():
            raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}; expected {expected}")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL byte in the name
        raise InputError(f"{path} cannot be read as text ({error}); expected {expected}") from error


def read_json(path: str | Path, expected: str) -> Any:
    """A JSON file. Raises InputError when it is missing or is not JSON."""
    try:
        return json.loads(read_text(path, expected))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON ({error}); expected {expected}") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
