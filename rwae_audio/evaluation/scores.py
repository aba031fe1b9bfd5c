"""Score files: the layouts in which systems write the score of each trial."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rwae_audio.evaluation.trials import (
    NameIndex,
    Row,
    Trials,
    batches,
    check_both_kinds,
    columns_of,
    list_lines,
    match_names,
    split_rows,
    write_rows,
)
from rwae_audio.files import InputError
from rwae_audio.progress import bar

LABEL_PAIRS = (("1", "0"), ("target", "nontarget"), ("True", "False"))  # a file uses one pair of them
LABELS = {label for pair in LABEL_PAIRS for label in pair}
LAYOUTS = (  # the columns of a file without a head
    ("enrol", "test", "score", "label"),  # Kaldi's list with scores, and what `write_scores` writes
    ("enrol", "test", "label", "score"),  # SpeechBrain
    ("label", "enrol", "test", "score"),  # VoxCeleb's list with scores
    ("enrol", "test", "score"),  # the labels are in a trial list
    ("score", "label"),  # Kaldi's compute-eer
    ("label", "score"),
)
COLUMN_NAMES = {  # what the head of a CSV file calls each column, in lower case
    "enrol": {"enrol", "enroll", "enrolment", "enrollment", "enrol_id", "enroll_id", "model", "modelid"},
    "test": {"test", "test_id", "segment", "segmentid"},
    "score": {"score", "scores", "llr"},
    "label": {"label", "target", "key"},
}
KIND = "a score file"
EXPECTED = (
    "a score file: `enrol test score target|nontarget`, `enrol test 1|0 score`, `1|0 enrol test score`, "
    "`score target|nontarget`, `enrol test score`, or CSV with a head"
)


@dataclass(frozen=True)
class Layout:
    """columns: the index of `score`, and of `enrol`, `test` and `label` where the file has them; width: fields a line;
    delimiter: what stands between the fields, None for white space; head: the first line names the columns."""

    columns: dict[str, int]
    width: int
    delimiter: str | None = None
    head: bool = False

    def rows(self, path: str | Path) -> Iterator[Row]:
        """Yield the lines of scores."""
        lines = list_lines(path, KIND)
        rows = split_rows(lines) if self.delimiter is None else _csv_rows(path, lines, self.delimiter)
        if self.head:
            next(rows)
        return rows


def write_scores(path: str | Path, trials: Trials, scores: np.ndarray) -> None:
    """`enrol test score target|nontarget` a line, scores in all their digits: near 1, nine would make ties of them."""
    kinds = ("nontarget", "target")
    write_rows(path, trials, [scores], lambda a, b, target, score: f"{a} {b} {score!r} {kinds[target]}\n")


def read_scores(path: str | Path, listed: Trials | None = None) -> tuple[np.ndarray, Trials | None, np.ndarray]:
    """Read a score file in any of LAYOUTS, or a CSV file whose head names the columns.

    Args:
        listed: the trial list that holds the labels of a file without them; None for a file that has its own.

    Returns:
        The scores (N,), the trials if the names are known, and target (N,): the same speaker?

    Raises:
        InputError: with the line's number where a line is wrong; also when the first lines fit several layouts.
    """
    layout = _layout(path)
    labelled = "label" in layout.columns
    if labelled and listed is not None:
        raise InputError(f"{path} has labels of its own; expected no trial list beside it")
    if not labelled and listed is None:
        raise InputError(f"{path} has no labels; expected --trials FILE, a trial list that has them")
    names, scores, target = _parsed(path, layout)
    if listed is not None:
        return _joined(path, names, scores, listed), listed, listed.target
    check_both_kinds(path, target)
    return scores, names.trials(target) if "enrol" in layout.columns else None, target


def _parsed(path: str | Path, layout: Layout) -> tuple[NameIndex, np.ndarray, np.ndarray]:
    """Return the names, the scores (N,) and target (N,), empty where the file has no names or no labels."""
    names, target = NameIndex(), bytearray()
    scores: list[np.ndarray] = []
    score_at, pair = layout.columns["score"], None
    enrol_at, test_at, label_at = (layout.columns.get(name) for name in ("enrol", "test", "label"))
    with bar(None, "reading", "scores") as progress:
        for numbers, rows in batches(layout.rows(path)):
            pair = pair or _pair(layout, rows[0])
            columns = columns_of(rows, layout.width)
            values = np.array([_number(field) for field in columns[score_at]] if columns else [math.nan])
            if not np.isfinite(values).all() or (label_at is not None and not set(columns[label_at]) <= set(pair)):
                for number, row in zip(numbers, rows, strict=True):
                    _check(f"{path}, line {number}", row, layout, pair)
            scores.append(values)
            if label_at is not None:
                target.extend(map(pair[0].__eq__, columns[label_at]))
            if enrol_at is not None and test_at is not None:
                names.add(columns[enrol_at], columns[test_at])
            progress.update(len(rows))
    if not scores:
        raise InputError(f"{path} has no scores after its head; expected some")
    return names, np.concatenate(scores), np.frombuffer(target, dtype=bool)


def _pair(layout: Layout, row: list[str]) -> tuple[str, str]:
    """Return the labels of a file, one of LABEL_PAIRS, by its first line."""
    label = row[layout.columns["label"]] if "label" in layout.columns and len(row) == layout.width else ""
    return next((words for words in LABEL_PAIRS if label in words), LABEL_PAIRS[0])


def _check(place: str, row: list[str], layout: Layout, pair: tuple[str, str]) -> None:
    """Raise InputError where a line's fields are not what the layout says."""
    if len(row) != layout.width:
        raise InputError(f"{place} has {len(row)} fields; expected {layout.width}, as before it")
    if not math.isfinite(_number(score := row[layout.columns["score"]])):
        raise InputError(f"{place} has the score {score!r}; expected a finite number")
    if "label" in layout.columns and (label := row[layout.columns["label"]]) not in pair:
        raise InputError(f"{place} has the label {label!r}; expected {pair[0]} or {pair[1]}")


def _joined(path: str | Path, names: NameIndex, scores: np.ndarray, listed: Trials) -> np.ndarray:
    """The score (N,) of each trial of the list; pairs that are in the score file alone are left out.

    Raises InputError for trials without a score, and for pairs that have two.
    """
    known = list(names.index)
    enrol, test = np.frombuffer(names.enrol, dtype=np.int64), np.frombuffer(names.test, dtype=np.int64)
    pairs, index, counts = np.unique(enrol * len(known) + test, return_index=True, return_counts=True)
    if (counts > 1).any():
        first, second = divmod(int(pairs[counts > 1][0]), len(known))
        raise InputError(f"{path} has two scores of {known[first]} {known[second]}; expected one a pair")
    numbers = np.array([names.index[name] for name in match_names(listed, known).names])
    wanted = numbers[listed.enrol] * len(known) + numbers[listed.test]
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    missing = pairs[place] != wanted
    if missing.any():
        first = int(missing.argmax())
        pair = f"{listed.names[listed.enrol[first]]} {listed.names[listed.test[first]]}"
        raise InputError(f"{path} has no score of {int(missing.sum())} of {len(listed)} trials, the first {pair}")
    return scores[index[place]]


# ---- which layout it is


def _layout(path: str | Path) -> Layout:
    """Tell the layout from the head, or from as many of the first lines as it takes to leave one of LAYOUTS."""
    if (layout := _csv_layout(path)) is not None:
        return layout
    fitting: Sequence[tuple[str, ...]] = LAYOUTS
    for number, row in split_rows(list_lines(path, KIND)):
        left = [columns for columns in fitting if _fits(columns, row)]
        if not left and fitting == LAYOUTS:
            words = " ".join(row)
            shown = words if len(words) <= 60 else words[:60] + "…"
            raise InputError(f"{path}, line {number} is {shown!r}; expected {EXPECTED}")
        fitting = left or fitting[:1]
        if len(fitting) == 1:
            return Layout({name: i for i, name in enumerate(fitting[0])}, len(fitting[0]))
    shapes = " or ".join(f"`{' '.join(columns)}`" for columns in fitting)
    raise InputError(f"{path} could be {shapes}: all scores are 0 or 1; expected CSV with a head that tells")


def _fits(columns: tuple[str, ...], row: list[str]) -> bool:
    """Can the fields of a line be these columns?"""
    if len(columns) != len(row):
        return False
    values = dict(zip(columns, row, strict=True))
    return _is_number(values["score"]) and values.get("label", "1") in LABELS


def _csv_layout(path: str | Path) -> Layout | None:
    """The layout of a CSV file whose first line names a column of scores; None for any other file."""
    number, head = next((number, line) for number, line in enumerate(list_lines(path, KIND), 1) if line.strip())
    for delimiter in (",", ";", "\t"):
        fields = [field.strip().strip('"').strip().lower() for field in head.split(delimiter)]
        columns: dict[str, int] = {}
        for index, field in enumerate(fields):
            for column in (column for column, names in COLUMN_NAMES.items() if field in names):
                if column in columns:
                    raise InputError(f"{path}, line {number} names two columns of the kind {column}; expected one")
                columns[column] = index
        if "score" not in columns or len(fields) == 1:
            continue
        if ("enrol" in columns) != ("test" in columns) or len(columns) == 1:
            raise InputError(
                f"{path}, line {number} names the columns {', '.join(columns)}; expected score, label or enrol and test"
            )
        return Layout(columns, len(fields), delimiter, head=True)
    return None


def _csv_rows(path: str | Path, lines: Iterable[str], delimiter: str) -> Iterator[Row]:
    lines = (line.rstrip("\n") for line in lines)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            if row and (len(row) > 1 or row[0].strip()):
                yield reader.line_num, [field.strip() for field in row]
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num} is no line of CSV ({error}); expected {delimiter!r}"
        ) from error


def _number(field: str) -> float:
    """The number in a field, or nan: Python alone reads `1_2` as twelve."""
    try:
        return math.nan if "_" in field else float(field)
    except ValueError:
        return math.nan


def _is_number(field: str) -> bool:
    return not math.isnan(_number(field)) or field.lower() in ("nan", "+nan", "-nan")
