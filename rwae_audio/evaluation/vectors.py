"""Reading of any system's embeddings, without pickle: safetensors, npz, a folder of npy files, Kaldi's ark and scp."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from rwae_audio.evaluation.trials import Trials, match_names
from rwae_audio.files import InputError, open_tensors, read_text
from rwae_audio.progress import bar

EXPECTED = "embeddings: a .safetensors or .npz file, a folder of .npy files, or a Kaldi .ark or .scp file"
UNREADABLE = (  # errors of numpy and kaldiio for files that are cut short or do not hold an array
    *(OSError, ValueError, EOFError, MemoryError, AssertionError, RuntimeError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error, zipfile.BadZipFile, tokenize.TokenError, SyntaxError),
)
Headers = dict[bytes, np.ndarray]  # the header of an npy file → an array of its type and size


class Vectors(NamedTuple):
    """The embeddings in a file or folder.

    Attributes:
        names: The names of all utterances.
        load: A function that reads the embedding (d,) of a name.
    """

    names: list[str]
    load: Callable[[str], np.ndarray]


def read_vectors(path: Path, trials: Trials) -> tuple[Trials, np.ndarray]:
    """Read the embeddings of the utterances in a trial list.

    Args:
        path: A file or folder in one of the formats of `open_vectors`.
        trials: The trial list.

    Returns:
        The trials, with the names that the file uses, and the embeddings (M, d) in the order of trials.names, float64.

    Raises:
        InputError: A name is unknown or ambiguous, an embedding has another shape than the first one, or an embedding does
            not consist of real numbers.
    """
    vectors = open_vectors(path)
    trials = match_names(trials, vectors.names)
    values, width = array("d"), 0
    with bar(len(trials.names), "vectors", "vectors") as progress:
        for name in trials.names:
            row = np.asarray(vectors.load(name))
            if row.dtype.kind not in "fiu":
                raise InputError(f"{path}: {name} holds {row.dtype}; expected real numbers")
            if row.ndim != 1 or not row.size or (width and len(row) != width):
                shape = f"({width or 'd'},)"
                raise InputError(f"{path}: {name} has shape {row.shape}; expected a vector {shape} for each name")
            width = len(row)
            values.frombytes(row.astype(np.float64).tobytes())
            progress.update()
    return trials, np.frombuffer(values).reshape(-1, width)


def open_vectors(path: Path) -> Vectors:
    """Open a folder of npy files, or a file with the suffix npz, ark or scp; other files are read as safetensors."""
    if os.path.isdir(path):
        return _folder(path)
    readers = {".npz": _npz, ".ark": _ark, ".scp": _scp}
    return readers.get(path.suffix.lower(), _safetensors)(path)


def _safetensors(path: Path) -> Vectors:
    """Open a safetensors file; its keys are names, or static/NAME if rwae-embed wrote it."""
    keys, read = open_tensors(path, EXPECTED)
    prefix = "static/" if any(key.startswith("static/") for key in keys) else ""
    names = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
    return Vectors(names, lambda name: _array_of(read(prefix + name)))


def _array_of(tensor: Any) -> np.ndarray:
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()  # in float64, as numpy has no bfloat16


def _npz(path: Path) -> Vectors:
    """Open an npz file; its keys are names."""
    _check_file(path)
    with _input_errors(path, "a whole npz file"):
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it is one array without a name")
        names = _once_each(path, archive.files)
        entries = set(archive.zip.namelist())
    headers: Headers = {}

    def load(name: str) -> np.ndarray:
        with _input_errors(f"{path}: {name}", "an array of numbers, without pickled objects"):
            data = archive.zip.read(name if name in entries else f"{name}.npy")
            return _array_in(data, headers, lambda: archive[name])

    return Vectors(names, load)


def _folder(path: Path) -> Vectors:
    """Open a folder of npy files; the name of an embedding is the relative path of its file without .npy."""
    files: dict[str, Path] = {}
    for place, folders, entries in os.walk(path, followlinks=True):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for entry in sorted(entries):
            if entry.lower().endswith(".npy") and not entry.startswith("."):
                file = Path(place, entry)
                name = file.relative_to(path).as_posix()[: -len(".npy")]
                if name in files:
                    raise InputError(f"{path} has two files of {name}, {files[name].name} and {entry}; expected one")
                files[name] = file
    if not files:
        raise InputError(f"{path} has no .npy files; expected {EXPECTED}")

    headers: Headers = {}

    def load(name: str) -> np.ndarray:
        with _input_errors(files[name], "an array of numbers, without pickled objects"):
            return _array_in(files[name].read_bytes(), headers, lambda: np.load(files[name], allow_pickle=False))

    return Vectors(list(files), load)


def _array_in(data: bytes, headers: Headers, read: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array in the bytes of an npy file.

    numpy needs more time to parse the header than to read the numbers. Files with the header of an earlier file skip it.

    Args:
        data: The bytes of the file.
        headers: The vector that numpy read for each header of version 1; this function adds entries.
        read: A function that reads the same file with numpy.
    """
    size = 10 + int.from_bytes(data[8:10], "little")
    template = headers.get(data[:size])
    if template is not None and len(data) - size == template.nbytes:
        return np.frombuffer(data, template.dtype, offset=size)
    vector = read()
    if data.startswith(b"\x93NUMPY\x01") and vector.ndim == 1:
        headers[data[:size]] = vector
    return vector


# ---- Kaldi


def _ark(path: Path) -> Vectors:
    """Open a Kaldi archive with entries `NAME VECTOR`, binary or text."""
    _check_file(path)
    _kaldiio()
    vectors: dict[str, np.ndarray] = {}
    with path.open("rb") as file:
        for name in _entry_names(path, file):
            if name in vectors:
                raise InputError(f"{path} has {name} twice; expected each name once")
            with _input_errors(f"{path}: {name}", "a vector of Kaldi's, binary or text"):
                vectors[name] = _kaldi_array(file)
    if not vectors:
        raise InputError(f"{path} is empty; expected {EXPECTED}")
    return Vectors(list(vectors), vectors.__getitem__)


def _scp(path: Path) -> Vectors:
    """Open a Kaldi list with lines `NAME ARK:OFFSET`; archives are in the working directory or beside the list."""
    _kaldiio()
    places: dict[str, tuple[Path, int]] = {}
    for number, line in enumerate(read_text(path, EXPECTED).splitlines(), 1):
        if not line.strip():
            continue
        if "|" in line:
            raise InputError(f"{path}, line {number} has a command (|), which is never run; expected NAME ARK:OFFSET")
        fields = re.fullmatch(r"(\S+)\s+(.+?)(?::(\d+))?\s*", line)
        if fields is None or fields[2].endswith("]"):
            raise InputError(f"{path}, line {number} is {line.strip()[:60]!r}; expected NAME ARK:OFFSET")
        if fields[1] in places:
            raise InputError(f"{path}, line {number} has {fields[1]} again; expected each name once")
        archive = Path(fields[2]) if os.path.exists(fields[2]) else path.parent / fields[2]
        places[fields[1]] = (archive, int(fields[3] or 0))
    if not places:
        raise InputError(f"{path} is empty; expected {EXPECTED}")

    def load(name: str) -> np.ndarray:
        archive, offset = places[name]
        _check_file(archive)
        with _input_errors(f"{archive}: {name}", "a vector of Kaldi's, binary or text"), archive.open("rb") as file:
            file.seek(offset)
            return _kaldi_array(file)

    return Vectors(list(places), load)


def _kaldiio() -> Any:
    try:
        from kaldiio import matio
    except ImportError as error:
        raise InputError(
            "kaldiio is not installed; expected it for .ark and .scp: pip install 'rwae-audio[kaldi]'"
        ) from error
    return matio


def _kaldi_array(file: BinaryIO) -> np.ndarray:
    """Read the vector or matrix at the position of a file; `kaldiio.load_mat` would unpickle some entries."""
    start = file.tell()
    head = file.read(2)
    file.seek(start)
    if head != b"\0B":
        return _text_vector(file.readline().decode())
    array, size = _kaldiio().read_matrix_or_vector(file, return_size=True)
    if array.ndim == 1 and file.tell() - start != size:
        raise ValueError("it is cut short")
    return array


def _text_vector(line: str) -> np.ndarray:
    """Return the vector in a line `[ 0.1 0.2 ]`."""
    numbers = re.fullmatch(r"\s*\[([^\[\]]*)\]\s*", line)
    if numbers is None:
        raise ValueError("it is not [ numbers ] on one line")
    return np.array(numbers[1].split(), dtype=np.float64)


def _entry_names(path: Path, file: BinaryIO) -> Iterator[str]:
    """Yield the name of each entry of an archive; the caller reads the vector of an entry before it takes the next name."""
    while name := _word(file):
        try:
            yield name.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} has a name that is not UTF-8 at byte {file.tell()}; expected a Kaldi archive"
            ) from error


def _word(file: BinaryIO) -> bytes:
    """Read a file to the end of the next blank, and return the bytes before the blank."""
    word = bytearray()
    while (letter := file.read(1)) not in (b" ", b""):
        if letter != b"\n" or word:
            word += letter
    return bytes(word)


# ---- errors


def _check_file(path: Path) -> None:
    if not os.path.isfile(path):
        kind = "is not a regular file" if os.path.exists(path) else "does not exist"
        raise InputError(f"{path} {kind}; expected {EXPECTED}")


def _once_each(path: Path, names: Iterable[str]) -> list[str]:
    names = list(names)
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"{path} has {twice} twice; expected each name once")
    return names


@contextlib.contextmanager
def _input_errors(place: str | Path, expected: str) -> Iterator[None]:
    """Convert errors of numpy and kaldiio into InputErrors with the name of the file or the entry."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns about headers of old versions
            yield
    except UNREADABLE as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{place} cannot be read ({reason}); expected {expected}") from error
