"""Score files, which have the score of each trial: recognition of their layout, reading and writing."""

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

LABEL_PAIRS = (("1", "0"), ("target", "nontarget"), ("True", "False"))  # all labels of a file come from one pair
LABELS = {label for pair in LABEL_PAIRS for label in pair}
LAYOUTS = (  # the columns of files without a header line
    ("enrol", "test", "score", "label"),  # Kaldi's trial list with scores, and the output of `write_scores`
    ("enrol", "test", "label", "score"),  # SpeechBrain
    ("label", "enrol", "test", "score"),  # VoxCeleb's trial list with scores
    ("enrol", "test", "score"),  # the labels are in a trial list
    ("score", "label"),  # Kaldi's compute-eer
    ("label", "score"),
)
COLUMN_NAMES = {  # the names of each column in the header line of a CSV file, in lower case
    "enrol": {"enrol", "enroll", "enrolment", "enrollment", "enrol_id", "enroll_id", "model", "modelid"},
    "test": {"test", "test_id", "segment", "segmentid"},
    "score": {"score", "scores", "llr"},
    "label": {"label", "target", "key"},
}
KIND = "a score file"
EXPECTED = (
    "a score file: `enrol test score target|nontarget`, `enrol test 1|0 score`, `1|0 enrol test score`, "
    "`score target|nontarget`, `enrol test score`, or CSV with a header line"
)


@dataclass(frozen=True)
class Layout:
    """The layout of a score file.

    Attributes:
        columns: The index of the column `score`, and of `enrol`, `test` and `label` if the file has these columns.
        width: The number of fields in a line.
        delimiter: The delimiter of fields, None for white space.
        head: Whether the first line names the columns.
    """

    columns: dict[str, int]
    width: int
    delimiter: str | None = None
    head: bool = False

    def rows(self, path: str | Path) -> Iterator[Row]:
        """Yield the lines of a score file, without its header line."""
        lines = list_lines(path, KIND)
        rows = split_rows(lines) if self.delimiter is None else _csv_rows(path, lines, self.delimiter)
        if self.head:
            next(rows)
        return rows


def write_scores(path: str | Path, trials: Trials, scores: np.ndarray) -> None:
    """Write a score file with a line `enrol test score target|nontarget` for each trial.

    Scores are written with all digits, since rounding would make different scores equal.

    Args:
        path: The file.
        trials: The trials.
        scores: The score of each trial, (N,).
    """
    labels = ("nontarget", "target")
    write_rows(
        path, trials, [scores], lambda enrol, test, target, score: f"{enrol} {test} {score!r} {labels[target]}\n"
    )


def read_scores(path: str | Path, listed: Trials | None = None) -> tuple[np.ndarray, Trials | None, np.ndarray]:
    """Read a score file in any of LAYOUTS, or a CSV file with a header line that names the columns.

    Args:
        path: The score file.
        listed: The trial list with the labels, for a file without labels; None for a file with labels.

    Returns:
        The scores (N,), the trials (None if the file has no names), and whether each trial is a target trial, (N,).

    Raises:
        InputError: A line does not have the layout of the file (the message has its number), the lines fit several
            layouts, a trial has no score, or labels are missing or given twice.
    """
    layout = _layout(path)
    labelled = "label" in layout.columns
    if labelled and listed is not None:
        raise InputError(f"{path} has labels; expected no trial list")
    if not labelled and listed is None:
        raise InputError(f"{path} has no labels; expected a trial list with labels, --trials FILE")
    names, scores, target = _parsed(path, layout)
    if listed is not None:
        return _joined(path, names, scores, listed), listed, listed.target
    check_both_kinds(path, target)
    return scores, names.trials(target) if "enrol" in layout.columns else None, target


def _parsed(path: str | Path, layout: Layout) -> tuple[NameIndex, np.ndarray, np.ndarray]:
    """Return the names, scores (N,) and `target` (N,) of a file; names and `target` are empty without such columns."""
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
        raise InputError(f"{path} has no scores after its header line; expected at least one")
    return names, np.concatenate(scores), np.frombuffer(target, dtype=bool)


def _pair(layout: Layout, row: list[str]) -> tuple[str, str]:
    """Return the pair in LABEL_PAIRS to which the label in the first line of a file belongs."""
    label = row[layout.columns["label"]] if "label" in layout.columns and len(row) == layout.width else ""
    return next((words for words in LABEL_PAIRS if label in words), LABEL_PAIRS[0])


def _check(place: str, row: list[str], layout: Layout, pair: tuple[str, str]) -> None:
    """Raise InputError if the fields of a line do not fit the layout."""
    if len(row) != layout.width:
        raise InputError(f"{place} has {len(row)} fields; expected {layout.width}, as in earlier lines")
    if not math.isfinite(_number(score := row[layout.columns["score"]])):
        raise InputError(f"{place} has the score {score!r}; expected a finite number")
    if "label" in layout.columns and (label := row[layout.columns["label"]]) not in pair:
        raise InputError(f"{place} has the label {label!r}; expected {pair[0]} or {pair[1]}")


def _joined(path: str | Path, names: NameIndex, scores: np.ndarray, listed: Trials) -> np.ndarray:
    """Return the score (N,) of each trial of a list, from the pairs of a score file; other pairs are left out.

    Raises InputError for a trial without a score, and for a pair with two scores.
    """
    ids = list(names.index)
    enrol, test = np.frombuffer(names.enrol, dtype=np.int64), np.frombuffer(names.test, dtype=np.int64)
    pairs, index, counts = np.unique(enrol * len(ids) + test, return_index=True, return_counts=True)
    if (counts > 1).any():
        first, second = divmod(int(pairs[counts > 1][0]), len(ids))
        raise InputError(f"{path} has two scores of {ids[first]} {ids[second]}; expected one for each pair")
    numbers = np.array([names.index[name] for name in match_names(listed, ids).names])
    requested = numbers[listed.enrol] * len(ids) + numbers[listed.test]
    position = np.minimum(np.searchsorted(pairs, requested), len(pairs) - 1)
    missing = pairs[position] != requested
    if missing.any():
        first = int(missing.argmax())
        pair = f"{listed.names[listed.enrol[first]]} {listed.names[listed.test[first]]}"
        raise InputError(
            f"{path} has no score of {int(missing.sum())} of {len(listed)} trials, the first {pair}; expected one for each"
        )
    return scores[index[position]]


# ---- recognition of the layout


def _layout(path: str | Path) -> Layout:
    """Return the layout of a file: that of its header line, or the only one in LAYOUTS that its first lines fit."""
    if (layout := _csv_layout(path)) is not None:
        return layout
    fitting: Sequence[tuple[str, ...]] = LAYOUTS
    for number, row in split_rows(list_lines(path, KIND)):
        remaining = [columns for columns in fitting if _fits(columns, row)]
        if not remaining and fitting == LAYOUTS:
            words = " ".join(row)
            shown = words if len(words) <= 60 else words[:60] + "…"
            raise InputError(f"{path}, line {number} is {shown!r}; expected {EXPECTED}")
        fitting = remaining or fitting[:1]
        if len(fitting) == 1:
            return Layout({name: i for i, name in enumerate(fitting[0])}, len(fitting[0]))
    shapes = " or ".join(f"`{' '.join(columns)}`" for columns in fitting)
    raise InputError(f"{path} could be {shapes}: all scores are 0 or 1; expected CSV with a header line")


def _fits(columns: tuple[str, ...], row: list[str]) -> bool:
    """Return whether the fields of a line have the types of these columns."""
    if len(columns) != len(row):
        return False
    values = dict(zip(columns, row, strict=True))
    return _is_number(values["score"]) and values.get("label", "1") in LABELS


def _csv_layout(path: str | Path) -> Layout | None:
    """Return the layout of a CSV file with a header line that names a column of scores, or None for other files."""
    number, head = next((number, line) for number, line in enumerate(list_lines(path, KIND), 1) if line.strip())
    for delimiter in (",", ";", "\t"):
        fields = [field.strip().strip('"').strip().lower() for field in head.split(delimiter)]
        columns: dict[str, int] = {}
        for index, field in enumerate(fields):
            for column in (column for column, names in COLUMN_NAMES.items() if field in names):
                if column in columns:
                    raise InputError(f"{path}, line {number} names two columns for {column}; expected one")
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
            f"{path}, line {reader.line_num} is not CSV ({error}); expected fields between {delimiter!r}"
        ) from error


def _number(field: str) -> float:
    """Return the number in a field, or nan; `1_2` is not a number here, although Python reads it as 12."""
    try:
        return math.nan if "_" in field else float(field)
    except ValueError:
        return math.nan


def _is_number(field: str) -> bool:
    return not math.isnan(_number(field)) or field.lower() in ("nan", "+nan", "-nan")
