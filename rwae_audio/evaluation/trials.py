"""Trial lists for speaker verification: reading, writing, and matching of utterance names with the ids of a corpus."""

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

BATCH = 256  # lines that are processed at once; larger batches do not fit into the processor's first cache
NAME_SUFFIXES = (*SUFFIXES, *EXTRA_SUFFIXES, ".npy")  # suffixes that are ignored when names are compared

Row = tuple[int, list[str]]  # a line's number and its fields


@dataclass(frozen=True)
class Trials:
    """A trial list: N pairs of utterances, with M different utterances.

    Attributes:
        names: The names of the utterances, without duplicates, (M,).
        enrol: The index in `names` of the first utterance of each trial, (N,).
        test: The index in `names` of the second utterance of each trial, (N,).
        target: Whether both utterances have the same speaker, (N,), bool.
    """

    names: tuple[str, ...]
    enrol: np.ndarray
    test: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def read_trials(path: str | Path) -> Trials:
    """Read a trial list with lines `1|0 enrol test` (VoxCeleb) or `enrol test target|nontarget` (Kaldi).

    Raises:
        InputError: A line has another form (the message has its number), or one of the two kinds of trial is missing.
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
    """Write a trial list with a line `1|0 enrol test` for each trial."""
    write_rows(path, trials, [], lambda enrol, test, target: f"{int(target)} {enrol} {test}\n")


def write_rows(path: str | Path, trials: Trials, extra_columns: Sequence[np.ndarray], line: Callable[..., str]) -> None:
    """Write a text file with a line for each trial.

    Args:
        path: The file.
        trials: The trials.
        extra_columns: Further values of each trial, such as its score, (N,) each.
        line: A function from the two names, `target` and the values in `extra_columns` to the line.
    """
    names = trials.names

    def parts(progress: tqdm) -> Iterator[str]:
        for part in slices(len(trials), BATCH):
            columns = (column[part].tolist() for column in (trials.enrol, trials.test, trials.target, *extra_columns))
            rows = zip(*columns, strict=True)
            yield "".join(line(names[enrol], names[test], *values) for enrol, test, *values in rows)
            progress.update(part.stop - part.start)

    with bar(len(trials), "writing", "trials") as progress:
        write_parts(path, parts(progress))


def all_pairs(names: Sequence[str], speakers: Sequence[str]) -> Trials:
    """Return all unordered pairs of utterances as trials.

    Args:
        names: The names of the utterances, (M,).
        speakers: The speaker of each utterance, (M,). Pairs with equal speakers are target trials.
    """
    enrol, test = np.triu_indices(len(names), k=1)
    speaker = np.unique(np.asarray(speakers), return_inverse=True)[1]
    return Trials(tuple(names), enrol, test, speaker[enrol] == speaker[test])


def match_names(trials: Trials, ids: Sequence[str]) -> Trials:
    """Return the trials with each name replaced by the id of the same utterance.

    Args:
        trials: The trials.
        ids: The ids of the utterances of a corpus. `same_names` decides which id a name matches.

    Raises:
        InputError: A name matches no id or several ids, or two names match the same id.
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
    """Return the id of the same utterance for each name of a trial list; names without a matching id are left out.

    An equal id is preferred. Otherwise the id may differ in its Unicode form (composed or decomposed), then in its audio
    suffix, then in both.

    Args:
        names: The names in the trial list.
        ids: The ids of the utterances of a corpus.

    Raises:
        InputError: A name matches several ids equally well, or two names match the same id.
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
    """Return the trials of which both names are in `ids`; there may be none."""
    available = np.isin(np.array(trials.names), list(ids))
    complete = available[trials.enrol] & available[trials.test]
    used = np.unique(np.concatenate([trials.enrol[complete], trials.test[complete]]))
    enrol, test = np.searchsorted(used, trials.enrol[complete]), np.searchsorted(used, trials.test[complete])
    return Trials(tuple(trials.names[i] for i in used), enrol, test, trials.target[complete])


def speakers_of(trials: Trials) -> np.ndarray:
    """Return the number of the speaker of each utterance, (M,), from 0.

    A trial list does not name speakers. Utterances that a chain of target trials links have the same speaker.

    Raises:
        InputError: A non-target trial has two utterances of one speaker.
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
            f"the non-target trial {pair} has two utterances that target trials give to one speaker; expected two speakers"
        )
    return speakers


def _stem(name: str) -> str:
    """Return a name without its audio suffix; a suffix of another kind is part of the name."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in NAME_SUFFIXES else name


def _composed(name: str) -> str:
    """Return a name in Unicode's composed form, in which `é` is one character; some file systems store it as two."""
    return unicodedata.normalize("NFC", name)


def _composed_stem(name: str) -> str:
    return _stem(_composed(name))


def list_lines(path: str | Path, expected: str) -> Iterator[str]:
    """Yield the lines of a text file.

    Args:
        path: The file.
        expected: The description of the file in messages, e.g. "a trial list".

    Raises:
        InputError: All lines are blank, or a line has a NUL byte.
    """
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
    """Yield the line numbers and the fields of at most BATCH lines at a time."""
    while batch := list(itertools.islice(rows, BATCH)):
        numbers, fields = zip(*batch, strict=True)
        yield numbers, fields


def columns_of(rows: Sequence[list[str]], width: int) -> list[tuple[str, ...]]:
    """Return the columns of a table given by its rows, or [] if a row does not have `width` fields."""
    return list(zip(*rows, strict=True)) if set(map(len, rows)) == {width} else []


class NameIndex:
    """A growing trial list that stores each name once, since a list may have millions of lines.

    Attributes:
        index: The number of each name.
        enrol: The number of the first name of each trial, (N,).
        test: The number of the second name of each trial, (N,).
    """

    def __init__(self) -> None:
        self.index = _Numbers()
        self.enrol, self.test = array("q"), array("q")

    def add(self, enrol: Iterable[str], test: Iterable[str]) -> None:
        """Add trials, given by their first names and their second names."""
        self.enrol.extend(map(self.index.__getitem__, enrol))
        self.test.extend(map(self.index.__getitem__, test))

    def trials(self, target: np.ndarray) -> Trials:
        """Return the trials, with names in the order of their first occurrence in the list.

        Args:
            target: Whether each trial is a target trial, (N,), bool.
        """
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
    """Raise InputError unless the trials of a file, given by `target` (N,), are of both kinds."""
    if target.all() or not target.any():
        raise InputError(
            f"{path} has {int(target.sum())} target trials of {len(target)}; expected target and non-target trials"
        )
