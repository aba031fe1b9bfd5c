"""What every file that is read or written goes through: one error for bad input, whole files or none.

What is being written has a name of its own beside its target, `.<target>.part-<8 letters>`, which a process that was
killed leaves behind: the next one that writes the same target clears it away. The folder that it was replacing just then,
`.<target>.part-old`, is put back by whoever writes or reads the target next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from torch import Tensor

ASSETS = Path(__file__).parent / "assets"  # what comes with the package
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # full; a quota, a limit; mounted read-only


class InputError(Exception):
    """Something a user can put right; its text is one line that says what came and what was expected."""


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there, synced, when the block ends, or remove it when it fails.

    Raises InputError when the folder is missing or cannot be written to, when there is no room, and when `path` is no
    file: a device or a pipe is never replaced.
    """
    path = Path(path)
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "folder" if os.path.isdir(path) else "device or a pipe"
        raise InputError(f"cannot write {path}: it is a {kind}; expected the name of a file")
    _clear_up(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.part-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; expected a folder that can be written to") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle) as file, _said_in_one_line(path):
            _hold(file.fileno())
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it takes the place of `path` when the block ends, or goes when it fails.

    Raises InputError when `path` is a file, when its parent is missing or cannot be written to, and when there is no
    room.
    """
    path = Path(path)
    if os.path.exists(path) and not os.path.isdir(path):
        raise InputError(f"cannot write {path}: it is a file; expected the name of a folder")
    _clear_up(path)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.part-", dir=path.parent))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; expected a folder that can be written to") from error
    old = _old(path)
    try:
        with _opened(temporary) as handle, _said_in_one_line(path), contextlib.ExitStack() as stack:
            _hold(handle)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            temporary.chmod(0o777 & ~_umask())
            if path.exists():
                _hold(stack.enter_context(_opened(path)))  # so that nobody puts it back before the new one is there
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
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def put_back(path: str | Path) -> None:
    """If a process was killed while it replaced the folder `path`, at the one moment without it: the old one again."""
    if not os.path.exists(path) and os.path.isdir(_old(Path(path))):
        _clear_up(Path(path))


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep `folder` to this process, by a lock on folder/.lock that goes with the process however it ends.

    Raises InputError when another process has it.
    """
    try:
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}; expected a folder that can be written to"
        ) from error
    with file:
        if not _hold(file.fileno()):
            raise InputError(f"another process is at work in {folder}; expected one at a time")
        yield


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_parts(path, [text])


def write_parts(path: str | Path, parts: Iterable[str]) -> None:
    """Write a text file, of which one part is held at a time, whole or not at all."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(parts)


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all (its own `save_file` leaves a file behind when it is killed)."""
    from safetensors.torch import save

    with whole_file(path) as temporary:
        temporary.write_bytes(save(dict(tensors), None if header is None else dict(header)))


def read_tensors(path: str | Path, expected: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name. Raises InputError; `expected` says what was looked for."""
    from safetensors.torch import load_file

    with _whole_tensors(path, expected):
        return load_file(path)


def open_tensors(path: str | Path, expected: str) -> tuple[list[str], Callable[[str], Tensor]]:
    """The names of the same tensors, and a function that reads one: a file of very many is not held in memory."""
    from safetensors import safe_open

    with _whole_tensors(path, expected):
        file = safe_open(path, "pt")
    return list(file.keys()), file.get_tensor


@contextlib.contextmanager
def _whole_tensors(path: str | Path, expected: str) -> Iterator[None]:
    from safetensors import SafetensorError

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; expected {expected}")
    try:
        yield
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({error})") from error
    except OSError as error:  # which says "not found" of what may not be read
        raise InputError(f"{path} cannot be read; expected {expected}, readable by you") from error


def read_header(path: str | Path) -> dict[str, str]:
    """What write_tensors was given as `header`, of a file that read_tensors has read."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def read_text(path: str | Path, expected: str) -> str:
    """Return the text of a UTF-8 file without a byte order mark at its head.

    `expected` names what the file should have been, e.g. "a trial list". Raises InputError.
    """
    with open_text(path, expected) as file:
        return file.read()


@contextlib.contextmanager
def open_text(path: str | Path, expected: str) -> Iterator[TextIO]:
    """Give the same file, open to be read: a long one by its lines. Raises InputError, also where it is read."""
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist; expected {expected}")
        if not path.is_file():
            raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}; expected {expected}")
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:  # whose position is that in a block of the file
        wrong = f"byte 0x{error.object[error.start]:02x}: {error.reason}"
        raise InputError(f"{path} cannot be read as text ({wrong}); expected {expected}, in UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise InputError(f"{path} cannot be read as text ({error}); expected {expected}") from error


def read_json(path: str | Path, expected: str) -> Any:
    """A JSON file. Raises InputError when it is missing or is not JSON."""
    try:
        return json.loads(read_text(path, expected))
    except (json.JSONDecodeError, RecursionError) as error:  # the second: brackets, thousands deep
        raise InputError(f"{path} is not JSON ({error}); expected {expected}") from error


@contextlib.contextmanager
def _said_in_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise InputError(f"cannot write {path}: {error.strerror}; expected room and permission to write it") from error


def _clear_up(path: Path) -> None:
    """Remove what killed processes have left of `path`; what a living one is writing is held by it and stays."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.part-(\w{{8}}({re.escape(path.suffix)})?|old)")
    try:
        names = os.listdir(path.parent)
    except OSError:  # whoever wants to write there is told
        return
    for name in filter(ours.fullmatch, names):
        with contextlib.suppress(OSError):  # another user's, or a read-only place
            _clear_away(path.parent / name, path)


def _clear_away(leftover: Path, path: Path) -> None:
    with _opened(leftover) as handle:
        if not _hold(handle):
            return
        if leftover == _old(path) and not path.exists():
            os.replace(leftover, path)
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink()


def _old(path: Path) -> Path:
    """Where a folder stands while another takes its place."""
    return path.with_name(f".{path.name}.part-old")


def _hold(handle: int) -> bool:
    """Take the lock of an open file or folder, if nobody has it; it goes when the handle is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    with _opened(path) as handle:
        os.fsync(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
