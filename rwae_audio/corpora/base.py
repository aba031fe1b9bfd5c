"""A corpus is a table of utterances: who said what, where, in which split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rwae_audio.files import InputError

Split = Literal["train", "dev", "test"]
SUFFIXES = (
    ".sph",
    ".wav",
    ".flac",
    ".ogg",
    ".opus",
    ".mp3",
)  # where one utterance has several files, the first is read
# formats of telephones and browsers, which are read through the extra `formats` (PyAV)
EXTRA_SUFFIXES = (
    ".m4a",
    ".aac",
    ".mp4",
    ".webm",
    ".mka",
    ".aiff",
    ".aif",
    ".aifc",
    ".caf",
    ".au",
    ".snd",
    ".wma",
    ".amr",
    ".3gp",
)


@dataclass(frozen=True)
class Phone:
    """A labelled stretch of speech, a phone or a word, in seconds."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Utterance:
    """id: the path relative to the corpus's audio folder, with its extension (TIMIT: as on its disc); round: which of
    the times that this speaker says this text, where that is known."""

    id: str
    speaker: str
    split: Split
    path: Path
    text: str | None = None
    phones: tuple[Phone, ...] | None = None
    words: tuple[Phone, ...] | None = None
    round: int | None = None


@dataclass(frozen=True)
class Corpus:
    """trial_lists: the lists that the corpus brings for `dev` and `test` (its names are ids, perhaps with another
    extension); notes: what a user has to be told, a line each; synthetic: no human speech in it; partial: why it is
    not all there, which every table has to say, or nothing."""

    name: str
    utterances: tuple[Utterance, ...]
    trial_lists: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    partial: str = ""

    def of(self, split: str) -> tuple[Utterance, ...]:
        """The utterances of a split."""
        return tuple(u for u in self.utterances if u.split == split)

    def speakers(self, split: str) -> tuple[str, ...]:
        """The speakers of a split, sorted."""
        return tuple(sorted({u.speaker for u in self.of(split)}))


def audio_files(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> Iterator[tuple[Path, str]]:
    """Every audio file below `folder`, sorted, with its path relative to it; hidden ones and folders are passed over."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _leads_back(place, name))
        for name in sorted(names):
            if name.lower().endswith(tuple(suffixes)) and not name.startswith("."):
                path = Path(place, name)
                yield path, path.relative_to(folder).as_posix()


def _leads_back(place: str, name: str) -> bool:
    """Is it a link to a folder that it lies in? The walk would not end."""
    path = os.path.join(place, name)
    return os.path.islink(path) and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(path))


def once_each(files: Iterable[tuple[Path, str]], order: Sequence[str] = SUFFIXES) -> tuple[list[tuple[Path, str]], int]:
    """The files with each utterance once, the extension earliest in `order` preferred, and how many were passed over."""
    chosen: dict[str, tuple[int, tuple[Path, str]]] = {}
    total = 0
    for path, name in files:
        total += 1
        rank = order.index(path.suffix.lower())
        stem = name[: -len(path.suffix)]
        if stem not in chosen or rank < chosen[stem][0]:
            chosen[stem] = (rank, (path, name))
    return [item for _, item in chosen.values()], total - len(chosen)


def nothing_found(folder: Path, looked_for: str) -> InputError:
    """The error for a folder that is not this corpus: what was looked for, and what is there."""
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    found = ", ".join(entries[:5]) + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
    return InputError(f"{folder} has no {looked_for}; found {found or 'an empty folder'}")


def hold_out(utterances: Sequence[Utterance], dev: float = 0.15, test: float = 0.25) -> tuple[Utterance, ...]:
    """The utterances with splits by speaker, for a corpus without its own: a speaker's split depends on a hash of the
    names alone, with at least two speakers each for development and test. Raises InputError under 6 speakers."""
    speakers = sorted({u.speaker for u in utterances}, key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(speakers) < 6:
        raise InputError(f"there are {len(speakers)} speakers; expected at least 6 to hold some out for dev and test")
    tests = max(2, round(test * len(speakers)))
    devs = max(2, round(dev * len(speakers)))
    split: dict[str, Split] = dict.fromkeys(speakers, "train")
    split |= dict.fromkeys(speakers[:tests], "test")
    split |= dict.fromkeys(speakers[tests : tests + devs], "dev")
    return tuple(replace(u, split=split[u.speaker]) for u in utterances)


def select_longest(
    utterances: Sequence[Utterance], lengths: Mapping[str, int], per_speaker: int = 8
) -> tuple[Utterance, ...]:
    """Each speaker's longest utterances (lengths: id → frames), sorted by id; speakers with a single one are left out."""
    chosen = []
    for speaker in sorted({u.speaker for u in utterances}):
        mine = sorted((u for u in utterances if u.speaker == speaker), key=lambda u: (-lengths[u.id], u.id))
        if len(mine) > 1:
            chosen += mine[:per_speaker]
    return tuple(sorted(chosen, key=lambda u: u.id))
