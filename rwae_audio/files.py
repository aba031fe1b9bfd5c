"""Reading and writing of files. Files are written whole or not at all, and errors of the user are of one class.

A file is written under a temporary name in the folder of its target, `.<target>.part-<8 letters>`. If the process is
killed, the next process that writes the same target removes the temporary file. A folder that is being replaced is
renamed to `.<target>.part-old` for a moment. If the process is killed in this moment, the next process that writes or
reads the target restores it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
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

ASSETS = Path(__file__).parent / "assets"  # the data files of the package
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # full disk, quota, size limit, read-only mount


class InputError(Exception):
    """An error that a user can correct. Its message is one line: the input, and what was expected."""


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Provide a temporary file that replaces `path` when the block ends, and is removed when the block fails.

    Yields:
        The path of the temporary file, in the same folder. It is synced before it is moved.

    Raises:
        InputError: The folder is missing or cannot be written to, there is no room, or `path` is a folder, a device or a
            pipe.
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
        with os.fdopen(handle) as file, _no_room_as_input_error(path):
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
    """Provide a temporary folder that replaces `path` when the block ends, and is removed when the block fails.

    Yields:
        The path of the temporary folder, in the parent of `path`. Its files are synced before it is moved.

    Raises:
        InputError: `path` is a file, its parent is missing or cannot be written to, or there is no room.
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
        with _opened(temporary) as handle, _no_room_as_input_error(path), contextlib.ExitStack() as stack:
            _hold(handle)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            temporary.chmod(0o777 & ~_umask())
            if path.exists():
                _hold(stack.enter_context(_opened(path)))  # locked, so that no other process restores the old folder
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
    """Restore the old folder at `path` if a process was killed while it replaced it."""
    if not os.path.exists(path) and os.path.isdir(_old(Path(path))):
        _clear_up(Path(path))


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Lock a folder for this process, by a lock on folder/.lock that ends with the process.

    Raises InputError if another process has locked the folder, or if it cannot be written to.
    """
    try:
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}; expected a folder that can be written to"
        ) from error
    with file:
        if not _hold(file.fileno()):
            raise InputError(f"another process is using {folder}; expected one process at a time")
        yield


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_parts(path, [text])


def write_parts(path: str | Path, parts: Iterable[str]) -> None:
    """Write a text file that comes in parts, whole or not at all."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(parts)


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all, which `save_file` of safetensors does not ensure.

    Args:
        path: The file.
        tensors: The tensors by name.
        header: Texts by name for the header of the file, or None.
    """
    from safetensors.torch import save

    with whole_file(path) as temporary:
        temporary.write_bytes(save(dict(tensors), None if header is None else dict(header)))


def read_tensors(path: str | Path, expected: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name.

    Args:
        path: The file.
        expected: The description of the file in messages, such as "a checkpoint".

    Raises:
        InputError: The file is missing, cannot be read, or is not a whole safetensors file.
    """
    from safetensors.torch import load_file

    with _whole_tensors(path, expected):
        return load_file(path)


def open_tensors(path: str | Path, expected: str) -> tuple[list[str], Callable[[str], Tensor]]:
    """Return the names of the tensors in a safetensors file, and a function that reads a tensor by its name.

    The file is not read into memory. Raises InputError as `read_tensors` does.
    """
    from safetensors import safe_open

    with _whole_tensors(path, expected):
        file = safe_open(path, "pt")
    return list(file.keys()), file.get_tensor


@contextlib.contextmanager
def _whole_tensors(path: str | Path, expected: str) -> Iterator[None]:
    """Convert errors of safetensors in the block to InputError."""
    from safetensors import SafetensorError

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; expected {expected}")
    try:
        yield
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({error})") from error
    except OSError as error:  # for a file without read permission, its text is "not found"
        raise InputError(f"{path} cannot be read; expected {expected}, readable by you") from error


def read_header(path: str | Path) -> dict[str, str]:
    """Return the `header` that `write_tensors` wrote into a safetensors file, one that could be read before."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_text(path: str | Path, expected: str) -> str:
    """Return the text of a UTF-8 file without a byte order mark.

    Args:
        path: The file.
        expected: The description of the file in messages, such as "a trial list".

    Raises:
        InputError: The file is missing, not a regular file, or not UTF-8.
    """
    with open_text(path, expected) as file:
        return file.read()


@contextlib.contextmanager
def open_text(path: str | Path, expected: str) -> Iterator[TextIO]:
    """Open a UTF-8 file to read its lines. Raises InputError as `read_text` does, also inside the block."""
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist; expected {expected}")
        if not path.is_file():
            raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}; expected {expected}")
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:  # without its position, which counts from the start of a block of the file
        reason = f"byte 0x{error.object[error.start]:02x}: {error.reason}"
        raise InputError(f"{path} cannot be read as text ({reason}); expected {expected}, in UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise InputError(f"{path} cannot be read as text ({error}); expected {expected}") from error


def read_json(path: str | Path, expected: str) -> Any:
    """Return the value in a JSON file. Raises InputError if the file is missing or not JSON."""
    try:
        return json.loads(read_text(path, expected))
    except (json.JSONDecodeError, RecursionError) as error:  # RecursionError: brackets thousands deep
        raise InputError(f"{path} is not JSON ({error}); expected {expected}") from error


@contextlib.contextmanager
def _no_room_as_input_error(path: Path) -> Iterator[None]:
    """Convert errors of a full or read-only disk in the block to InputError."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise InputError(f"cannot write {path}: {error.strerror}; expected room and permission to write it") from error


def _clear_up(path: Path) -> None:
    """Remove the temporary files of `path` that killed processes have left. Those of running processes are locked."""
    temporary_name = re.compile(rf"\.{re.escape(path.name)}\.part-(\w{{8}}({re.escape(path.suffix)})?|old)")
    try:
        names = os.listdir(path.parent)
    except OSError:  # the following write reports the error
        return
    for name in filter(temporary_name.fullmatch, names):
        with contextlib.suppress(OSError):  # another user's file, or a read-only folder
            _clear_away(path.parent / name, path)


def _clear_away(leftover: Path, path: Path) -> None:
    """Remove a temporary file or folder of `path` that is not locked, or restore the old folder from it."""
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
    """Return the temporary path of the old folder while a new one replaces it."""
    return path.with_name(f".{path.name}.part-old")


def _hold(handle: int) -> bool:
    """Lock an open file or folder until the handle is closed. Returns False if another process has locked it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file or folder for reading and provide its handle."""
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    with _opened(path) as handle:
        os.fsync(handle)


def _umask() -> int:
    """Return the permissions that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
