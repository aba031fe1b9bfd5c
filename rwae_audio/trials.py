"""Trial lists: who is compared with whom, and which names mean the same utterance."""

from __future__ import annotations

import itertools
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from rwae_audio.corpora.base import EXTRA_SUFFIXES, SUFFIXES
from rwae_audio.files import InputError, read_text, write_text

LABELS = {"1": True, "0": False, "target": True, "nontarget": False}
NAME_SUFFIXES = (*SUFFIXES, *EXTRA_SUFFIXES, ".npy")  # extensions in which two names of one utterance may differ


@dataclass(frozen=True)
class Trials:
    """names: every utterance once; enrol, test (N,): indices into names; target (N,): the same speaker?"""

    names: tuple[str, ...]
    enrol: np.ndarray
    test: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def read_trials(path: str | Path) -> Trials:
    """A trial list: a line `1|0 enrol test` (VoxCeleb) or `enrol test target|nontarget` (Kaldi), one format a file.

    Raises InputError, with the line's number, for anything else, and for a list without both kinds of trial.
    """
    expected = "a trial list: `1|0 enrol test` or `enrol test target|nontarget` a line"
    rows = split_rows(list_text(path, expected))
    head = next(rows)
    first = head[1]
    label_first = first[0] in ("1", "0") and len(first) == 3 and first[2] not in ("target", "nontarget")
    words = ("1", "0") if label_first else ("target", "nontarget")
    names, target = NameIndex(), bytearray()
    for number, row in itertools.chain([head], rows):
        if len(row) != 3:
            raise InputError(f"{path}, line {number} has {len(row)} fields; expected {expected}")
        label, one, other = row if label_first else (row[2], row[0], row[1])
        if label not in words:
            raise InputError(f"{path}, line {number} has the label {label!r}; expected {words[0]} or {words[1]}")
        names.add(one, other)
        target.append(LABELS[label])
    is_target = np.frombuffer(target, dtype=bool)
    check_both_kinds(path, is_target)
    return names.trials(is_target)


def write_trials(path: str | Path, trials: Trials) -> None:
    """`1|0 enrol test` a line."""
    names = trials.names
    rows = zip(trials.target, trials.enrol, trials.test, strict=True)
    write_text(path, "".join(f"{int(target)} {names[enrol]} {names[test]}\n" for target, enrol, test in rows))


def all_pairs(names: Sequence[str], speakers: Sequence[str]) -> Trials:
    """Every unordered pair once; target where the speakers agree."""
    enrol, test = np.triu_indices(len(names), k=1)
    who = np.unique(np.asarray(speakers), return_inverse=True)[1]
    return Trials(tuple(names), enrol, test, who[enrol] == who[test])


def match_names(trials: Trials, known: Sequence[str]) -> Trials:
    """Return the trials with each name replaced by the known id that means the same utterance (see `same_names`).

    Raises InputError for names that are unknown, fit several ids or fit one id twice.
    """
    matches = same_names(trials.names, known)
    missing = [name for name in trials.names if name not in matches]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(trials.names)} names in the trial list are unknown, the first {missing[0]}"
        )
    return replace(trials, names=tuple(matches[name] for name in trials.names))


def same_names(names: Iterable[str], known: Sequence[str]) -> dict[str, str]:
    """Map each name of a trial list to the known id that means the same utterance; names without one are left out.

    The same name comes first. After it come, in this order, the id that differs only in its Unicode form (composed or
    decomposed), the one that differs only in its audio extension, and the one that differs in both.

    Raises InputError for a name that fits several ids equally well, and for two names that fit one id.
    """
    matches: dict[str, str] = {}
    pending = list(names)
    for key in (str, _composed, _stem, _composed_stem):
        if not pending:
            break
        candidates = _grouped(known, key)
        for name in pending:
            close = candidates.get(key(name), [])
            if len(close) > 1:
                raise InputError(
                    f"the trial list names {name}, which could be {close[0]} or {close[1]}; expected one of these names"
                )
            if close:
                matches[name] = close[0]
        pending = [name for name in pending if name not in matches]
    first: dict[str, str] = {}
    for name, match in matches.items():
        if first.setdefault(match, name) != name:
            raise InputError(
                f"the trial list names {match} in two ways, {first[match]} and {name}; expected one name an utterance"
            )
    return matches


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def restrict(trials: Trials, known: Sequence[str]) -> Trials:
    """The trials whose two names are both known, perhaps none."""
    there = np.isin(np.array(trials.names), list(known))
    kept = there[trials.enrol] & there[trials.test]
    used = np.unique(np.concatenate([trials.enrol[kept], trials.test[kept]]))
    enrol, test = np.searchsorted(used, trials.enrol[kept]), np.searchsorted(used, trials.test[kept])
    return Trials(tuple(trials.names[i] for i in used), enrol, test, trials.target[kept])


def speakers_of(trials: Trials) -> np.ndarray:
    """A speaker's number for each name, (M,): utterances that a chain of target trials links are one speaker's.

    Raises InputError when a non-target trial joins two utterances of one speaker.
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
        raise InputError(f"the non-target trial {pair} joins two utterances that target trials give to one speaker")
    return speakers


def _stem(name: str) -> str:
    """The name without its audio extension; any other dot belongs to the name."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in NAME_SUFFIXES else name


def _composed(name: str) -> str:
    """The name in Unicode's composed form: `é` as one character, which some disks hold as two."""
    return unicodedata.normalize("NFC", name)


def _composed_stem(name: str) -> str:
    return _stem(_composed(name))


def list_text(path: str | Path, expected: str) -> str:
    """The text of a list, which has to hold a line that is not blank."""
    text = read_text(path, expected)
    if "\0" in text:
        raise InputError(f"{path} holds a NUL byte; expected {expected}")
    if not text or text.isspace():
        raise InputError(f"{path} is empty; expected {expected}")
    return text


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text, one held at a time."""
    start = 0
    while start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def split_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each line that is not blank."""
    for number, line in enumerate(lines_of(text), 1):
        if fields := line.split():
            yield number, fields


class NameIndex:
    """The names of a list's trials, each held once: a list may have a million lines."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.enrol, self.test = array("q"), array("q")

    def add(self, enrol: str, test: str) -> None:
        """Add the two names of a trial."""
        self.enrol.append(self.index.setdefault(enrol, len(self.index)))
        self.test.append(self.index.setdefault(test, len(self.index)))

    def trials(self, target: np.ndarray) -> Trials:
        """Return the trials, with names numbered by their first trial, and in it the one that enrols first."""
        enrol, test = np.frombuffer(self.enrol, dtype=np.int64), np.frombuffer(self.test, dtype=np.int64)
        order = np.argsort(np.unique(np.concatenate([enrol, test]), return_index=True)[1])
        number = np.argsort(order)
        known = list(self.index)
        return Trials(tuple(known[i] for i in order), number[enrol], number[test], target)


def check_both_kinds(path: str | Path, target: np.ndarray) -> None:
    """Raise InputError unless there are target and non-target trials."""
    if target.all() or not target.any():
        raise InputError(f"{path} has {int(target.sum())} target trials of {len(target)}; expected some of either kind")
