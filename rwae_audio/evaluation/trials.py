"""Trial lists of pairs of utterances, and the matching of their names with the ids of a corpus."""

from __future__ import annotations

import itertools
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from rwae_audio.data.corpora.base import EXTRA_SUFFIXES, SUFFIXES
from rwae_audio.files import InputError, open_text, write_parts
from rwae_audio.progress import bar, slices

if TYPE_CHECKING:
    from tqdm import tqdm

BATCH = 256  # lines that are processed at once: more would not fit into the fastest memory
NAME_SUFFIXES = (*SUFFIXES, *EXTRA_SUFFIXES, ".npy")  # suffixes in which two names of an utterance may differ

Row = tuple[int, list[str]]  # a line's number and its fields


@dataclass(frozen=True)
class Trials:
    """Trials, N pairs of utterances.

    Attributes:
        names: The names of the utterances, each once, (M,).
        enrol: The index in `names` of the first utterance of each trial, (N,).
        test: That of the second utterance, (N,).
        target: Whether both have the same speaker, (N,), bool.
    """

    names: tuple[str, ...]
    enrol: np.ndarray
    test: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def read_trials(path: str | Path) -> Trials:
    """Read a trial list with lines `1|0 enrol test` (VoxCeleb) or `enrol test target|nontarget` (Kaldi).

    Raises InputError, with the line's number, for another line, and for a list without both kinds of trial.
    """
    expected = "a trial list with lines `1|0 enrol test` or `enrol test target|nontarget`"
    _, first = next(split_rows(list_lines(path, expected)))
    label_first = first[0] in ("1", "0") and len(first) == 3 and first[2] not in ("target", "nontarget")
    words = ("1", "0") if label_first else ("target", "nontarget")
    label_at, enrol_at, test_at = (0, 1, 2) if label_first else (2, 0, 1)

    def check(number: int, row: list[str]) -> None:
        if len(row) != 3:
            raise InputError(f"{path}, line {number} has {len(row)} fields; expected {expected}")
        if (label := row[label_at]) not in words:
            raise InputError(f"{path}, line {number} has the label {label!r}; expected {words[0]} or {words[1]}")

    names, target = NameIndex(), bytearray()
    with bar(None, "reading", "trials") as progress:
        for numbers, rows in batches(split_rows(list_lines(path, expected))):
            columns = columns_of(rows, 3)
            if not columns or not set(columns[label_at]) <= set(words):
                for number, row in zip(numbers, rows, strict=True):
                    check(number, row)
            names.add(columns[enrol_at], columns[test_at])
            target.extend(map(words[0].__eq__, columns[label_at]))
            progress.update(len(rows))
    is_target = np.frombuffer(target, dtype=bool)
    check_both_kinds(path, is_target)
    return names.trials(is_target)


def write_trials(path: str | Path, trials: Trials) -> None:
    """Write a line `1|0 enrol test` for each trial."""
    write_rows(path, trials, [], lambda enrol, test, target: f"{int(target)} {enrol} {test}\n")


def write_rows(path: str | Path, trials: Trials, more: Sequence[np.ndarray], line: Callable[..., str]) -> None:
    """Write a line for each trial: `line` of its two names, `target` and its value in each array (N,) of `more`."""
    names = trials.names

    def parts(progress: tqdm) -> Iterator[str]:
        for part in slices(len(trials), BATCH):
            columns = (column[part].tolist() for column in (trials.enrol, trials.test, trials.target, *more))
            rows = zip(*columns, strict=True)
            yield "".join(line(names[enrol], names[test], *rest) for enrol, test, *rest in rows)
            progress.update(part.stop - part.start)

    with bar(len(trials), "writing", "trials") as progress:
        write_parts(path, parts(progress))


def all_pairs(names: Sequence[str], speakers: Sequence[str]) -> Trials:
    """Return all unordered pairs of utterances, as target trials if the speakers agree."""
    enrol, test = np.triu_indices(len(names), k=1)
    speaker = np.unique(np.asarray(speakers), return_inverse=True)[1]
    return Trials(tuple(names), enrol, test, speaker[enrol] == speaker[test])


def match_names(trials: Trials, ids: Sequence[str]) -> Trials:
    """Return the trials with each name replaced by the id of the same utterance (see `same_names`).

    Raises InputError for names that have no id, fit several ids, or fit the same id.
    """
    matches = same_names(trials.names, ids)
    missing = [name for name in trials.names if name not in matches]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(trials.names)} names in the trial list are unknown, the first {missing[0]}; "
            "expected names of utterances"
        )
    return replace(trials, names=tuple(matches[name] for name in trials.names))


def same_names(names: Iterable[str], ids: Sequence[str]) -> dict[str, str]:
    """Map each name of a trial list to the id of the same utterance; names without one are left out.

    The equal id is preferred. Next come the id that differs only in its Unicode form (composed or decomposed), the one
    that differs only in its audio suffix, and the one that differs in both.

    Raises InputError for a name that fits several ids equally well, and for two names that fit the same id.
    """
    matches: dict[str, str] = {}
    pending = list(names)
    for key in (str, _composed, _stem, _composed_stem):
        if not pending:
            break
        candidates = _grouped(ids, key)
        for name in pending:
            close = candidates.get(key(name), [])
            if len(close) > 1:
                raise InputError(
                    f"the trial list names {name}, which could be {close[0]} or {close[1]}; expected one of these"
                )
            if close:
                matches[name] = close[0]
        pending = [name for name in pending if name not in matches]
    first: dict[str, str] = {}
    for name, match in matches.items():
        if first.setdefault(match, name) != name:
            raise InputError(
                f"the trial list names {match} in two ways, {first[match]} and {name}; expected one name for each utterance"
            )
    return matches


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def restrict(trials: Trials, ids: Sequence[str]) -> Trials:
    """Return the trials whose two names are both in `ids`, perhaps none."""
    known = np.isin(np.array(trials.names), list(ids))
    complete = known[trials.enrol] & known[trials.test]
    used = np.unique(np.concatenate([trials.enrol[complete], trials.test[complete]]))
    enrol, test = np.searchsorted(used, trials.enrol[complete]), np.searchsorted(used, trials.test[complete])
    return Trials(tuple(trials.names[i] for i in used), enrol, test, trials.target[complete])


def speakers_of(trials: Trials) -> np.ndarray:
    """Return the number of each name's speaker, (M,): utterances linked by a chain of target trials share a speaker.

    Raises InputError for a non-target trial with two utterances of a speaker.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(trials.names)
    pairs = trials.enrol[trials.target], trials.test[trials.target]
    graph = coo_array((np.ones(len(pairs[0])), pairs), shape=(count, count))
    speakers = connected_components(graph, directed=False)[1]
    wrong = ~trials.target & (speakers[trials.enrol] == speakers[trials.test])
    if wrong.any():
        i = int(wrong.argmax())
        pair = f"{trials.names[trials.enrol[i]]} {trials.names[trials.test[i]]}"
        raise InputError(
            f"the non-target trial {pair} has two utterances of a speaker by target trials; expected two speakers"
        )
    return speakers


def _stem(name: str) -> str:
    """Return a name without its audio suffix; any other dot belongs to the name."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in NAME_SUFFIXES else name


def _composed(name: str) -> str:
    """Return a name in Unicode's composed form: `é` as one character, which some disks store as two."""
    return unicodedata.normalize("NFC", name)


def _composed_stem(name: str) -> str:
    return _stem(_composed(name))


def list_lines(path: str | Path, expected: str) -> Iterator[str]:
    """Yield the lines of a list one by one. Raises InputError if all lines are blank, and for a NUL byte."""
    blank = True
    with open_text(path, expected) as file:
        for line in file:
            if "\0" in line:
                raise InputError(f"{path} holds a NUL byte; expected {expected}")
            blank = blank and line.isspace()
            yield line
    if blank:
        raise InputError(f"{path} is empty; expected {expected}")


def split_rows(lines: Iterable[str]) -> Iterator[Row]:
    """Yield the number and the fields of each line that is not blank."""
    for number, line in enumerate(lines, 1):
        if fields := line.split():
            yield number, fields


def batches(rows: Iterator[Row]) -> Iterator[tuple[tuple[int, ...], tuple[list[str], ...]]]:
    """Yield the numbers and the fields of BATCH lines at a time."""
    while batch := list(itertools.islice(rows, BATCH)):
        numbers, fields = zip(*batch, strict=True)
        yield numbers, fields


def columns_of(rows: Sequence[list[str]], width: int) -> list[tuple[str, ...]]:
    """Return the columns of lines, or [] if a line has another number of fields than `width`."""
    return list(zip(*rows, strict=True)) if set(map(len, rows)) == {width} else []


class NameIndex:
    """The names of a list's trials, each stored once, since a list may have millions of lines."""

    def __init__(self) -> None:
        self.index = _Numbers()
        self.enrol, self.test = array("q"), array("q")

    def add(self, enrol: Iterable[str], test: Iterable[str]) -> None:
        """Add the two names of each trial."""
        self.enrol.extend(map(self.index.__getitem__, enrol))
        self.test.extend(map(self.index.__getitem__, test))

    def trials(self, target: np.ndarray) -> Trials:
        """Return the trials, with names in the order of their first trial, and in a trial the enrolled one first."""
        enrol, test = np.frombuffer(self.enrol, dtype=np.int64), np.frombuffer(self.test, dtype=np.int64)
        first = np.full(len(self.index), 2 * len(enrol))
        np.minimum.at(first, enrol, np.arange(len(enrol)))
        np.minimum.at(first, test, np.arange(len(enrol), 2 * len(enrol)))
        order = np.argsort(first)
        number = np.argsort(order)
        names = list(self.index)
        return Trials(tuple(names[i] for i in order), number[enrol], number[test], target)


class _Numbers(dict[str, int]):
    """A dictionary that numbers its keys from 0 when they are first looked up."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


def check_both_kinds(path: str | Path, target: np.ndarray) -> None:
    """Raise InputError unless there are target and non-target trials."""
    if target.all() or not target.any():
        raise InputError(
            f"{path} has {int(target.sum())} target trials of {len(target)}; expected target and non-target trials"
        )
