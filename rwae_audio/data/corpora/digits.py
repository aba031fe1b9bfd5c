"""Readers of two corpora of spoken digits, in which each speaker repeats each word several times.

- Arabic spoken digits, a part of A. Ghandoura, F. Hjabo, O. Al Dakkak, "Building and benchmarking an Arabic Speech
  Commands dataset for small-footprint keyword spotting", Engineering Applications of Artificial Intelligence, 2021;
  CC BY 4.0.
- The built-in demo digits: synthetic English speech (recipes/demo/make_demo_digits.py); CC0.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from rwae_audio.data.corpora.base import Corpus, Split, Utterance, audio_files, listing
from rwae_audio.files import ASSETS, InputError, read_text

DEMO_DIGITS = ASSETS / "digits"
CREDIT = (
    "Arabic Speech Commands, A. Ghandoura, F. Hjabo, O. Al Dakkak, 2021; CC BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/)."
)
DEMO_CREDIT = "Built-in demo corpus: synthetic spoken digits made with eSpeak NG; CC0."
COLUMNS = ("path", "speaker", "word", "round", "split")


def read_digits(folder: Path) -> Corpus:
    """Read spoken digits from a folder with `manifest.csv`.

    The manifest has the columns path, speaker, word, round and split. The id of an utterance is its path, and its text is
    the word. Utterances are sorted by the hashes of their files, so names, words and the order of the manifest do not
    affect training.

    Args:
        folder: The folder, to which the paths are relative.

    Raises:
        InputError: The manifest is missing, lacks a column, or has an invalid row.
    """
    corpus = _read(folder, "digits", ("Arabic spoken digits, one word a recording",), CREDIT)
    used = {u.id for u in corpus.utterances}
    unlisted = [name for _, name in audio_files(folder) if name not in used]
    if not unlisted:
        return corpus
    note = f"skipped {len(unlisted)} recordings that are not in the manifest: {listing(unlisted)}"
    return replace(corpus, notes=(*corpus.notes, note))


def read_demo_digits(folder: Path | None = None) -> Corpus:
    """Read the demo digits: synthetic speakers, one English digit a recording.

    Args:
        folder: A copy of the corpus, or None for the corpus in the package.

    Raises:
        InputError: The folder is not the demo digits.
    """
    notes = ("synthetic speech, made with eSpeak NG",)
    return _read(folder or DEMO_DIGITS, "demo-digits", notes, DEMO_CREDIT, synthetic=True)


def _read(folder: Path, name: str, notes: tuple[str, ...], credit: str, *, synthetic: bool = False) -> Corpus:
    """Return the corpus of a manifest, with this name, these notes and this credit."""
    manifest = folder / "manifest.csv"
    rows = list(csv.DictReader(io.StringIO(read_text(manifest, f"the manifest of {name}"))))
    if not rows:
        raise InputError(f"{manifest} names no recording; expected the columns {', '.join(COLUMNS)} and a line each")
    if missing := [column for column in COLUMNS if column not in rows[0]]:
        raise InputError(f"{manifest} has no column {missing[0]}; expected {', '.join(COLUMNS)}")
    utterances = [_utterance(folder, f"{manifest}, line {number}", row) for number, row in enumerate(rows, 2)]
    split: dict[str, str] = {}
    ids: set[str] = set()
    for utterance in utterances:
        if utterance.id in ids:
            raise InputError(f"{manifest} names {utterance.id} twice; expected each recording once")
        ids.add(utterance.id)
        if split.setdefault(utterance.speaker, utterance.split) != utterance.split:
            raise InputError(f"{manifest} has {utterance.speaker} in two splits; expected each speaker in one")
    return Corpus(name, by_audio(utterances), {}, notes, synthetic=synthetic, credit=credit)


def _utterance(folder: Path, where: str, row: dict[str, str | None]) -> Utterance:
    """Return the utterance of a row of the manifest. Raises InputError, with the place `where`, for an invalid row."""
    path, speaker, word, count, split = (row[column] or "" for column in COLUMNS)
    if split not in get_args(Split):
        raise InputError(f"{where} has the split {split!r}; expected {', '.join(get_args(Split))}")
    if not count.isdecimal():
        raise InputError(f"{where} has the round {count!r}; expected a whole number")
    if not speaker or not word:
        raise InputError(f"{where} has no {'word' if speaker else 'speaker'}; expected one")
    if Path(path).is_absolute() or ".." in Path(path).parts or not (folder / path).is_file():
        raise InputError(f"{where} names {path!r}, which is no file in {folder}; expected a path relative to it")
    return Utterance(path, speaker, split, folder / path, word, round=int(count))  # type: ignore[arg-type]


def by_audio(utterances: Sequence[Utterance]) -> tuple[Utterance, ...]:
    """Sort utterances by the SHA-256 of their recordings, which is independent of the labels."""
    return tuple(sorted(utterances, key=lambda u: hashlib.sha256(u.path.read_bytes()).digest()))
