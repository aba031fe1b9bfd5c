"""A corpus is a table of utterances: who said what, where, in which split."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from rwae_audio.files import InputError, read_text

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
    the times that this speaker says this text, where that is known.

    start, end: the utterance's stretch of the recording, in seconds; an end of None is the recording's end.
    """

    id: str
    speaker: str
    split: Split
    path: Path
    text: str | None = None
    phones: tuple[Phone, ...] | None = None
    words: tuple[Phone, ...] | None = None
    round: int | None = None
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Corpus:
    """The utterances of a corpus, and what else is known of it.

    Attributes:
        name: What --test and --hold-out call it. A speaker is told apart by it and by the speaker's own name, which
            another corpus may use for somebody else.
        trial_lists: The lists that the corpus brings for `dev` and `test`, their names ids, perhaps with another extension.
        notes: What a user has to be told, a line each.
        synthetic: No human speech is in it.
        partial: Why it is not all there, which every table has to say, or nothing.
        credit: The line that thanks its makers and names its licence, for the card of every bundle that is trained on it.
    """

    name: str
    utterances: tuple[Utterance, ...]
    trial_lists: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    partial: str = ""
    credit: str = ""

    def of(self, split: str) -> tuple[Utterance, ...]:
        """The utterances of a split."""
        return tuple(u for u in self.utterances if u.split == split)

    def speakers(self, split: str) -> tuple[str, ...]:
        """The speakers of a split, sorted."""
        return tuple(sorted({u.speaker for u in self.of(split)}))


def readable_suffixes() -> tuple[str, ...]:
    """The suffixes of recordings that can be read here: with PyAV those of EXTRA_SUFFIXES as well."""
    return SUFFIXES + EXTRA_SUFFIXES if importlib.util.find_spec("av") else SUFFIXES


def folder_name(folder: Path) -> str:
    """The name of a corpus that is called after its folder: one word of at most 60 characters, as lists and file names
    need it."""
    return re.sub(r"\s+", "_", folder.absolute().name or "root")[:60]


def audio_files(folder: Path, suffixes: Sequence[str] | None = None) -> Iterator[tuple[Path, str]]:
    """Every audio file below `folder`, sorted, with its path relative to it; hidden ones and folders are passed over.

    suffixes: those of audio, readable_suffixes() when None.
    """
    wanted = tuple(readable_suffixes() if suffixes is None else suffixes)
    return ((path, name) for path, name in _files(folder) if name.lower().endswith(wanted))


def other_files(folder: Path, suffixes: Sequence[str] | None = None, beside: Sequence[str] = ()) -> list[str]:
    """The files that audio_files leaves out, relative to `folder`, but for those whose names end as `beside` says."""
    ends = (*(readable_suffixes() if suffixes is None else suffixes), *beside)
    return [name for _, name in _files(folder) if not name.lower().endswith(ends)]


def passed_over(names: Sequence[str], speakers: Collection[str] = ()) -> tuple[str, ...]:
    """The note on files that a corpus does not read, or none without any; speakers: those left without a recording."""
    if not names:
        return ()
    suffixes = Counter(PurePosixPath(name).suffix.lower() for name in names)
    extra = [suffix for suffix in EXTRA_SUFFIXES if suffix in suffixes and suffix not in readable_suffixes()]
    others = sorted(suffix or "no suffix" for suffix in suffixes if suffix not in extra)
    kinds = [f"{', '.join(extra)}: install rwae-audio[formats]"] if extra else []
    kinds += [", ".join(others)] if others else []
    note = f"passed over {len(names)} files that are not audio this installation reads ({'; '.join(kinds)})"
    if speakers:
        note += f"; speakers left without recordings: {listing(sorted(speakers))}"
    return (note,)


def listing(names: Sequence[str], most: int = 5) -> str:
    """The first names, separated by commas, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file below `folder` that is not hidden, sorted, with its path relative to it."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _leads_back(place, name))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(place, name)
                yield path, path.relative_to(folder).as_posix()


def _leads_back(place: str, name: str) -> bool:
    """Is it a link to a folder that it lies in? The walk would not end."""
    path = os.path.join(place, name)
    return os.path.islink(path) and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(path))


def once_each(
    files: Iterable[tuple[Path, str]], order: Sequence[str] = SUFFIXES + EXTRA_SUFFIXES
) -> tuple[list[tuple[Path, str]], int]:
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


def nothing_found(folder: Path, looked_for: str, notes: Sequence[str] = ()) -> InputError:
    """The error for a folder that is not this corpus: what was looked for, what is there, and notes on that."""
    entries = listing(sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir()))
    return InputError("; ".join([f"{folder} has no {looked_for}", f"found {entries or 'an empty folder'}", *notes]))


def speaker_lists(folder: Path, corpus: str) -> dict[str, Split]:
    """The split of each speaker that {train,dev,test}_speakers.txt in `folder` list; none where there is no folder.

    Raises InputError for a list that is missing and for a speaker in two of them.
    """
    splits: dict[str, Split] = {}
    kinds: tuple[Split, ...] = ("train", "dev", "test") if folder.is_dir() else ()
    for split in kinds:
        for speaker in read_text(folder / f"{split}_speakers.txt", f"a list of {corpus}'s speakers").split():
            if speaker in splits:
                raise InputError(
                    f"{folder} lists speaker {speaker} as {splits[speaker]} and {split}; expected one of them"
                )
            splits[speaker] = split
    return splits


def trial_lists(folder: Path) -> dict[str, Path]:
    """The {dev,test}_trials.txt that are in `folder`, by split."""
    lists = {split: folder / f"{split}_trials.txt" for split in ("dev", "test")}
    return {split: path for split, path in lists.items() if path.is_file()}


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
