"""The table of a corpus (utterances with speakers, splits and recordings), and the helpers of all readers of corpora."""

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
LEAST_SPEAKERS = 6  # speakers of a corpus from which on some are held out for dev and test
# in the order of preference, for an utterance with several files
SUFFIXES = (".sph", ".wav", ".flac", ".ogg", ".opus", ".mp3")
# formats of telephones and browsers, which need the extra `formats` (PyAV)
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
    """A labelled stretch of a recording: a phone or a word.

    Attributes:
        start: The start in seconds.
        end: The end in seconds.
        label: The name of the phone, or the word.
    """

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Utterance:
    """An utterance of a corpus: a stretch of a recording with its labels.

    Attributes:
        id: The path of the recording relative to the corpus's audio folder, with its suffix (for TIMIT, as on its disc).
        speaker: The name of the speaker.
        split: "train", "dev" or "test".
        path: The recording.
        text: The words, or None if unknown.
        phones: The labelled phones, or None if unknown.
        words: The labelled words, or None if unknown.
        round: The number of this repetition of the text by this speaker, or None if unknown.
        start: The start of the utterance in the recording, in seconds.
        end: The end of the utterance in seconds, or None for the end of the recording.
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
    """The utterances of a corpus, with its trial lists, notes and credit.

    Attributes:
        name: The name of the corpus for --test and --hold-out. Speakers of two corpora are different even if their names
            are equal.
        utterances: The table of utterances.
        trial_lists: The trial lists that come with the corpus, by split (`dev`, `test`). They contain ids, with any suffix.
        notes: Remarks for the user, a line each.
        synthetic: Whether all speech is synthetic.
        partial: A description of what an incomplete corpus lacks, for the tables of results; "" for a complete one.
        credit: A line with authors and licence, for the card of each bundle that is trained on the corpus.
    """

    name: str
    utterances: tuple[Utterance, ...]
    trial_lists: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    partial: str = ""
    credit: str = ""

    def of(self, split: str) -> tuple[Utterance, ...]:
        """Return the utterances of a split."""
        return tuple(u for u in self.utterances if u.split == split)

    def speakers(self, split: str) -> tuple[str, ...]:
        """Return the speakers of a split, sorted."""
        return tuple(sorted({u.speaker for u in self.of(split)}))


def readable_suffixes() -> tuple[str, ...]:
    """Return the suffixes of recordings that this installation reads: with PyAV, EXTRA_SUFFIXES as well."""
    return SUFFIXES + EXTRA_SUFFIXES if importlib.util.find_spec("av") else SUFFIXES


def folder_name(folder: Path) -> str:
    """Return the name of a corpus that is named after its folder: one word of at most 60 characters."""
    return re.sub(r"\s+", "_", folder.absolute().name or "root")[:60]


def audio_files(folder: Path, suffixes: Sequence[str] | None = None) -> Iterator[tuple[Path, str]]:
    """Return the recordings in a folder and its subfolders, sorted, without hidden files and folders.

    Args:
        folder: The folder.
        suffixes: The suffixes of recordings, readable_suffixes() if None.

    Returns:
        The path of each recording, and its path relative to the folder.
    """
    endings = tuple(readable_suffixes() if suffixes is None else suffixes)
    return ((path, name) for path, name in _files(folder) if name.lower().endswith(endings))


def other_files(folder: Path, suffixes: Sequence[str] | None = None, beside: Sequence[str] = ()) -> list[str]:
    """Return the relative paths of the files in a folder and its subfolders that are not recordings.

    Args:
        folder: The folder.
        suffixes: The suffixes of recordings, readable_suffixes() if None.
        beside: The suffixes of further files to leave out, such as transcripts.
    """
    endings = (*(readable_suffixes() if suffixes is None else suffixes), *beside)
    return [name for _, name in _files(folder) if not name.lower().endswith(endings)]


def skipped_note(names: Sequence[str], speakers: Collection[str] = ()) -> tuple[str, ...]:
    """Return a tuple with the note on skipped files, or an empty one without such files.

    Args:
        names: The files that are neither recordings nor labels.
        speakers: The speakers of these files that have no recording.
    """
    if not names:
        return ()
    suffixes = Counter(PurePosixPath(name).suffix.lower() for name in names)
    extra = [suffix for suffix in EXTRA_SUFFIXES if suffix in suffixes and suffix not in readable_suffixes()]
    others = sorted(suffix or "no suffix" for suffix in suffixes if suffix not in extra)
    kinds = [f"{', '.join(extra)}: install rwae-audio[formats]"] if extra else []
    kinds += [", ".join(others)] if others else []
    note = f"skipped {len(names)} files without the suffix of a recording ({'; '.join(kinds)})"
    if speakers:
        note += f"; speakers without recordings: {listing(sorted(speakers))}"
    return (note,)


def copies_note(count: int) -> list[str]:
    """Return a list with the note on further files of the same utterances, or an empty one if their number is 0."""
    return [f"skipped {count} files: the same utterance exists in another format"] if count else []


def listing(names: Sequence[str], limit: int = 5) -> str:
    """Return the first `limit` names, separated by commas, and the number of the other names."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files in a folder and its subfolders that are not hidden, sorted, with their relative paths."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _is_cycle(parent, name))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(parent, name)
                yield path, path.relative_to(folder).as_posix()


def _is_cycle(parent: str, name: str) -> bool:
    """Return whether an entry is a link to a folder that contains it, through which a walk would never end."""
    path = os.path.join(parent, name)
    return os.path.islink(path) and Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(path))


def once_each(
    files: Iterable[tuple[Path, str]], order: Sequence[str] = SUFFIXES + EXTRA_SUFFIXES
) -> tuple[list[tuple[Path, str]], int]:
    """Choose one file for each utterance. Files of an utterance differ in their suffix alone.

    Args:
        files: The path and the relative path of each file.
        order: The suffixes in the order of preference.

    Returns:
        The chosen files, and the number of the other files.
    """
    chosen: dict[str, tuple[int, tuple[Path, str]]] = {}
    total = 0
    for path, name in files:
        total += 1
        rank = order.index(path.suffix.lower())
        stem = name[: -len(path.suffix)]
        if stem not in chosen or rank < chosen[stem][0]:
            chosen[stem] = (rank, (path, name))
    return [item for _, item in chosen.values()], total - len(chosen)


def nothing_found(folder: Path, expected: str, notes: Sequence[str] = ()) -> InputError:
    """Return the error for a folder without the files of a corpus. Its message lists the entries of the folder.

    Args:
        folder: The folder.
        expected: The files of the corpus.
        notes: Remarks on the entries.
    """
    entries = listing(sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir()))
    return InputError("; ".join([f"{folder} has no {expected}", f"found {entries or 'an empty folder'}", *notes]))


def speaker_lists(folder: Path, corpus: str) -> dict[str, Split]:
    """Return the split of each speaker, from {train,dev,test}_speakers.txt in a folder, or {} if the folder is missing.

    Args:
        folder: The folder.
        corpus: The name of the corpus in messages.

    Raises:
        InputError: A list is missing, or a speaker is in two lists.
    """
    splits: dict[str, Split] = {}
    kinds: tuple[Split, ...] = ("train", "dev", "test") if folder.is_dir() else ()
    for split in kinds:
        for speaker in read_text(folder / f"{split}_speakers.txt", f"a list of {corpus}'s speakers").split():
            if speaker in splits:
                raise InputError(
                    f"{folder} lists speaker {speaker} as {splits[speaker]} and {split}; expected one split"
                )
            splits[speaker] = split
    return splits


def trial_lists(folder: Path) -> dict[str, Path]:
    """Return the existing trial lists {dev,test}_trials.txt in a folder, by split."""
    lists = {split: folder / f"{split}_trials.txt" for split in ("dev", "test")}
    return {split: path for split, path in lists.items() if path.is_file()}


def hold_out(utterances: Sequence[Utterance], dev: float = 0.15, test: float = 0.25) -> tuple[Utterance, ...]:
    """Split utterances by speaker, for a corpus without a split.

    The order of speakers by hashes of their names decides. Development and test have at least two speakers each.

    Args:
        utterances: The utterances of all speakers.
        dev: The share of development speakers.
        test: The share of test speakers.

    Raises:
        InputError: There are fewer than LEAST_SPEAKERS speakers.
    """
    speakers = sorted({u.speaker for u in utterances}, key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(speakers) < LEAST_SPEAKERS:
        raise InputError(
            f"there are {len(speakers)} speakers; expected at least {LEAST_SPEAKERS} to hold some out for dev and test"
        )
    test_count = max(2, round(test * len(speakers)))
    dev_count = max(2, round(dev * len(speakers)))
    split: dict[str, Split] = dict.fromkeys(speakers, "train")
    split |= dict.fromkeys(speakers[:test_count], "test")
    split |= dict.fromkeys(speakers[test_count : test_count + dev_count], "dev")
    return tuple(replace(u, split=split[u.speaker]) for u in utterances)


def select_longest(
    utterances: Sequence[Utterance], lengths: Mapping[str, int], per_speaker: int = 8
) -> tuple[Utterance, ...]:
    """Return the longest utterances of each speaker, sorted by id. Speakers with a single utterance are left out.

    Args:
        utterances: The utterances of all speakers.
        lengths: The number of frames of each utterance, by id.
        per_speaker: The largest number of utterances of a speaker.
    """
    chosen = []
    for speaker in sorted({u.speaker for u in utterances}):
        longest = sorted((u for u in utterances if u.speaker == speaker), key=lambda u: (-lengths[u.id], u.id))
        if len(longest) > 1:
            chosen += longest[:per_speaker]
    return tuple(sorted(chosen, key=lambda u: u.id))
