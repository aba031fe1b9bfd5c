"""Trial lists and score files: who is compared with whom, and what came of it."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from rwae_audio.corpora.base import SUFFIXES
from rwae_audio.files import InputError, read_text, write_text

LABELS = {"1": True, "0": False, "target": True, "nontarget": False}


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
    rows = _rows(path, expected)
    head = next(rows)
    first = head[1]
    label_first = first[0] in ("1", "0") and len(first) == 3 and first[2] not in ("target", "nontarget")
    words = ("1", "0") if label_first else ("target", "nontarget")
    names, target = _Names(), bytearray()
    for number, row in itertools.chain([head], rows):
        if len(row) != 3:
            raise InputError(f"{path}, line {number} has {len(row)} fields; expected {expected}")
        label, one, other = row if label_first else (row[2], row[0], row[1])
        if label not in words:
            raise InputError(f"{path}, line {number} has the label {label!r}; expected {words[0]} or {words[1]}")
        names.add(one, other)
        target.append(LABELS[label])
    return _trials(path, names, np.frombuffer(target, dtype=bool))


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
    """The trials with their names replaced by the known ids: the same name, or else the one that differs from it only
    in its audio extension. Raises InputError for names that are unknown, fit several ids or fit one id twice."""
    exact = set(known)
    by_stem: dict[str, list[str]] = {}
    for name in known:
        by_stem.setdefault(_stem(name), []).append(name)
    names, missing = [], []
    for name in trials.names:
        close = [name] if name in exact else by_stem.get(_stem(name), [])
        if len(close) > 1:
            raise InputError(
                f"the trial list names {name}, which could be {close[0]} or {close[1]}; expected the extension"
            )
        names.extend(close)
        missing.extend([] if close else [name])
    if missing:
        raise InputError(
            f"{len(missing)} of {len(trials.names)} names in the trial list are unknown, the first {missing[0]}"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the trial list names {twice} in two ways; expected one extension for each utterance")
    return replace(trials, names=tuple(names))


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


def write_scores(path: str | Path, trials: Trials, scores: np.ndarray) -> None:
    """`enrol test score target|nontarget` a line, scores in all their digits: near 1, nine would make ties of them."""
    kinds, names = ("nontarget", "target"), trials.names
    rows = zip(trials.enrol, trials.test, scores, trials.target, strict=True)
    write_text(path, "".join(f"{names[a]} {names[b]} {float(score)!r} {kinds[int(t)]}\n" for a, b, score, t in rows))


def read_scores(path: str | Path) -> tuple[np.ndarray, Trials | None, np.ndarray]:
    """Scores (N,), the trials if the file names them, target (N,). Raises InputError.

    A line `enrol test score target|nontarget`, or Kaldi's `score target|nontarget`, one format a file.
    """
    expected = "a score file: `enrol test score target|nontarget` or `score target|nontarget` a line"
    rows = _rows(path, expected)
    head = next(rows)
    width = len(head[1])
    names, scores, target = _Names(), array("d"), bytearray()
    for number, row in itertools.chain([head], rows):
        if len(row) != width or width not in (2, 4):
            raise InputError(f"{path}, line {number} has {len(row)} fields; expected {expected}")
        if row[-1] not in ("target", "nontarget"):
            raise InputError(f"{path}, line {number} has the label {row[-1]!r}; expected target or nontarget")
        try:
            score = float(row[-2])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise InputError(f"{path}, line {number} has the score {row[-2]!r}; expected a finite number")
        scores.append(score)
        target.append(row[-1] == "target")
        if width == 4:
            names.add(row[0], row[1])
    is_target = np.frombuffer(target, dtype=bool)
    _both(path, is_target)
    return np.frombuffer(scores), _trials(path, names, is_target) if width == 4 else None, is_target


def _stem(name: str) -> str:
    """The name without its audio extension; any other dot belongs to the name."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


def _rows(path: str | Path, expected: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of the lines that are not blank, of which there has to be one; one line held at a time."""
    text = read_text(path, expected)
    if "\0" in text:
        raise InputError(f"{path} holds a NUL byte; expected {expected}")
    if not text or text.isspace():
        raise InputError(f"{path} is empty; expected {expected}")
    start = number = 0
    while start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        number += 1
        if fields := text[start:end].split():
            yield number, fields
        start = end + 1


class _Names:
    """The names of a list's trials, each held once: a list may have a million lines."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.enrol, self.test = array("q"), array("q")

    def add(self, enrol: str, test: str) -> None:
        self.enrol.append(self.index.setdefault(enrol, len(self.index)))
        self.test.append(self.index.setdefault(test, len(self.index)))


def _trials(path: str | Path, names: _Names, target: np.ndarray) -> Trials:
    """Numbered in the order in which the names are first heard of, those that enrol before the others."""
    _both(path, target)
    enrol, test = np.frombuffer(names.enrol, dtype=np.int64), np.frombuffer(names.test, dtype=np.int64)
    order = np.argsort(np.unique(np.concatenate([enrol, test]), return_index=True)[1])
    number = np.argsort(order)
    known = list(names.index)
    return Trials(tuple(known[i] for i in order), number[enrol], number[test], target)


def _both(path: str | Path, target: np.ndarray) -> None:
    if target.all() or not target.any():
        raise InputError(f"{path} has {int(target.sum())} target trials of {len(target)}; expected some of either kind")
