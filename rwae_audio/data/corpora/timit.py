"""Reader of TIMIT, Garofolo et al. 1993 (LDC93S1), in its common layouts.

    TRAIN/DR1/FCJF0/SA1.WAV         SPHERE files with .PHN, .WRD and .TXT, in upper or lower case
    TRAIN/DR1/FCJF0/SA1.WAV.wav     RIFF files, with or without the SPHERE files
    timit/dr1-fvmh0/sa1.wav         NLTK's free sample, which has no split: all utterances are for testing

The splits are the 462 training speakers, Kaldi's 50 development speakers and the 24 speakers of the core test. SA1 and SA2
are left out, as every speaker reads these two sentences. The id of an utterance is its official name in every layout, such
as TEST/DR1/MDAB0/SX139.WAV. The trial list of the core test (24 × 8 utterances, all 18,336 pairs) thus fits every layout.

assets/timit/ has the speakers and sentences of the disc (doc/spkrinfo.txt, doc/spkrsent.txt) and Kaldi's
conf/dev_spk.list.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rwae_audio.data.corpora.base import (
    Corpus,
    Phone,
    Split,
    Utterance,
    audio_files,
    listing,
    nothing_found,
    other_files,
    skipped_note,
)
from rwae_audio.files import ASSETS, InputError, read_text

RATE = 16000  # Hz, the rate of the sample numbers in .PHN and .WRD
LISTS = ASSETS / "timit"
EXPECTED = "TRAIN/ and TEST/ (TIMIT), and no dr1-fvmh0/ (NLTK's sample)"
FILE = re.compile(r"(?i)(?:(train|test)/dr(\d)/|dr(\d)-)(\w+)/(s[aix]\d+)(?:\.wav)?\.wav")
SPEAKER = re.compile(r"(?i)(?:(?:train|test)/dr\d/|dr\d-)(\w+)/")  # the folder of a speaker
LABELS = (".phn", ".wrd", ".txt")  # suffixes of the label files of a recording
CREDIT = (
    "TIMIT Acoustic-Phonetic Continuous Speech Corpus, Garofolo et al., LDC93S1; licensed by the LDC, whose "
    "terms decide how these weights may be passed on."
)


class Name(NamedTuple):
    """The name of an utterance.

    Attributes:
        part: TRAIN or TEST.
        region: The number of the dialect region, 1 to 8.
        speaker: The speaker, in lower case.
        sentence: The sentence, such as SX139.
    """

    part: str
    region: str
    speaker: str
    sentence: str

    @property
    def official(self) -> str:
        """The path on the disc."""
        return f"{self.part}/DR{self.region}/{self.speaker.upper()}/{self.sentence}.WAV"


def read_timit(folder: Path, with_sa: bool = False, partial: bool = False) -> Corpus:
    """Read TIMIT.

    If the speakers are not the official ones, the first 24 of TEST are the test speakers and the next 50 the development
    speakers. The corpus then has a note on it.

    Args:
        folder: The folder of TIMIT or one of its parents.
        with_sa: Whether SA1 and SA2 are kept.
        partial: Whether official files may be missing. The corpus is then marked as partial.

    Raises:
        InputError: The folder is not TIMIT, official files are missing (unless `partial`), or a label file is malformed.
    """
    root = _root(folder)
    sample = not _has_parts(root)
    files, copies = _files(root)
    people = {name.speaker: name.part for name in files}
    listed = {speaker for split in ("train", "dev", "core_test") for speaker in _listed(f"{split}_speakers")}
    official = not sample and 4 * len(people.keys() & listed) >= len(people)  # fewer matches can be coincidences
    splits, notes = _splits(people, official) if not sample else (dict[str, Split].fromkeys(people, "test"), [])
    recordings = {
        n: p for n, p in files.items() if n.speaker in splits and (with_sa or n.sentence not in ("SA1", "SA2"))
    }
    if not recordings:
        raise nothing_found(root, "<speaker>/<utterance>.WAV (TIMIT)")

    description, lists = "", {"test": LISTS / "core_test_trials.txt"} if official or sample else {}
    if sample:
        description = "NLTK's sample of TIMIT"
        notes.append("NLTK's sample: test speakers only, nothing to train on")
    elif official and (missing := _missing(recordings, with_sa)):
        problem = _describe_missing(root, missing)
        if not partial:
            expected = f"462 training, 50 development, 24 core-test speakers, {_per_speaker(with_sa)} utterances each"
            raise InputError(f"{problem}; expected {expected}, or --partial")
        description = f"TIMIT without {sum(missing.values()):,} of {_per_speaker(with_sa) * len(listed):,} files"
        notes.append(problem)
    elif official and not {name.official for name in recordings} >= set(_listed("core_test_utterances")):
        lists = {}
        notes.append(
            "the core test does not have the official sentence numbers: trials are all pairs of its utterances"
        )
    outside = sum(name.speaker not in splits for name in files)
    left_out = len(files) - len(recordings) - outside
    for count, which in ((left_out, "of SA1 and SA2"), (outside, "of TEST speakers in neither list")):
        notes += [f"skipped {count} utterances {which}"] if count else []
    if copies:
        notes.append(f"skipped {copies} files: the same utterance exists twice, as RIFF and as SPHERE")
    notes += _unread(root, set(people))
    folders = {path.parent for path in recordings.values()}
    entries = {folder: {entry.name.lower(): entry for entry in folder.iterdir()} for folder in folders}
    table = tuple(_utterance(name, path, splits, entries[path.parent]) for name, path in sorted(recordings.items()))
    return Corpus("timit", table, lists, tuple(notes), partial=description, credit=CREDIT)


def _unread(root: Path, speakers: set[str]) -> tuple[str, ...]:
    """Return a tuple with the note on files in speakers' folders that are neither recordings nor labels, if any."""
    unread = [name for name in other_files(root, (".wav",), LABELS) if SPEAKER.match(name)]
    silent = {match[1].lower() for name in unread if (match := SPEAKER.match(name))} - speakers
    return skipped_note(unread, silent)


def _root(folder: Path) -> Path:
    """Return the folder with TRAIN and TEST, or with dr?-<speaker>: `folder` itself or a subfolder.

    Raises InputError if there is no such folder, or if there are two.
    """
    level = [folder]
    for depth in range(4):
        roots = [candidate for candidate in level if _has_parts(candidate) or _any_folder(candidate, r"dr\d-\w+")]
        if len(roots) > 1:
            raise InputError(f"{folder} holds TIMIT twice, in {roots[0]} and {roots[1]}; expected one of them")
        if roots:
            return roots[0]
        below = [subfolder for candidate in level for subfolder in _folders(candidate)]
        level = [place for place in below if depth == 0 or re.fullmatch(r"timit|data|ldc93s1", place.name.lower())]
    raise nothing_found(folder, EXPECTED)


def _folders(parent: Path) -> list[Path]:
    """Return the subfolders of a folder that are not hidden, sorted; none if it cannot be read."""
    try:
        return [entry for entry in sorted(parent.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    except PermissionError:
        return []


def _any_folder(parent: Path, pattern: str) -> bool:
    """Return whether a folder has a subfolder whose name, in lower case, matches a regular expression."""
    return any(re.fullmatch(pattern, entry.name.lower()) for entry in _folders(parent))


def _has_parts(folder: Path) -> bool:
    """Return whether a folder has TRAIN/DR? or TEST/DR?."""
    parts = [entry for entry in _folders(folder) if entry.name.lower() in ("train", "test")]
    return any(_any_folder(part, r"dr\d") for part in parts)


def _files(root: Path) -> tuple[dict[Name, Path], int]:
    """Return the recording of each utterance, and the number of further recordings of the same utterances.

    SA1.wav is preferred to SA1.WAV.wav, and both are preferred to SA1.WAV. In NLTK's sample, which has no TRAIN and TEST,
    speakers get the part that they have on the disc.
    """
    train = set(_listed("train_speakers"))
    recordings: dict[Name, Path] = {}
    total = 0
    for path, relative in audio_files(root, (".wav",)):
        if (match := FILE.fullmatch(relative)) and path.is_file():  # a broken link is not a file
            part, region, region_of_sample, speaker, sentence = match.groups()
            part = part or ("train" if speaker.lower() in train else "test")
            name = Name(part.upper(), region or region_of_sample, speaker.lower(), sentence.upper())
            recordings[name] = path
            total += 1
    return recordings, total - len(recordings)


def _splits(people: Mapping[str, str], official: bool) -> tuple[dict[str, Split], list[str]]:
    """Return the split of each speaker, and notes on the splits.

    Args:
        people: The part (TRAIN or TEST) of each speaker.
        official: Whether the speakers are the official ones.
    """
    test = sorted(speaker for speaker, part in people.items() if part == "TEST")
    core, dev = _listed("core_test_speakers"), _listed("dev_speakers")
    notes = []
    if test and not (official and set(core) & set(test)):
        core, dev = test[:24], test[24:74]
        notes = [
            "no official core-test speaker: the first 24 of TEST are the core test, the next 50 are for development"
        ]
    splits: dict[str, Split] = {speaker: "train" for speaker, part in people.items() if part == "TRAIN"}
    splits |= {speaker: "dev" for speaker in dev if speaker in test}
    return splits | {speaker: "test" for speaker in core if speaker in test}, notes


def _per_speaker(with_sa: bool) -> int:
    """Return the number of utterances of a speaker: five SX, three SI and, with `with_sa`, two SA."""
    return 10 if with_sa else 8


def _missing(recordings: Mapping[Name, Path], with_sa: bool) -> dict[str, int]:
    """Return the number of missing files by speaker, such as `TRAIN/FCJF0 (2 of 8)`, or in the core test by file."""
    counts = Counter(name.speaker for name in recordings)
    present = {name.official for name in recordings}
    absent = [name for name in _listed("core_test_utterances") if name not in present]
    missing: dict[str, int] = {}
    for part, split in (("TRAIN", "train"), ("TEST", "dev"), ("TEST", "core_test")):
        for speaker in _listed(f"{split}_speakers"):
            gap = _per_speaker(with_sa) - counts[speaker]
            files = [name for name in absent if name.split("/")[2].lower() == speaker]
            if 0 < gap == len(files):
                missing |= dict.fromkeys(files, 1)
            elif gap > 0:
                missing[f"{part}/{speaker.upper()} ({gap} of {_per_speaker(with_sa)})"] = gap
    return missing


def _describe_missing(root: Path, missing: Mapping[str, int]) -> str:
    """Return a line with the number of missing files and the first of them."""
    return f"{sum(missing.values()):,} files of TIMIT are not in {root}: {listing(list(missing))}"


def _listed(name: str) -> list[str]:
    """Return the words of a list in assets/timit/."""
    return (LISTS / f"{name}.txt").read_text(encoding="ascii").split()


def _utterance(name: Name, path: Path, splits: Mapping[str, Split], entries: Mapping[str, Path]) -> Utterance:
    """Return an utterance with its labels. `entries` are the files of its folder by their names in lower case."""
    text, phones, words = (entries.get(f"{name.sentence.lower()}.{kind}") for kind in ("txt", "phn", "wrd"))
    return Utterance(
        name.official,
        name.speaker,
        splits[name.speaker],
        path,
        _text(text) if text else None,
        _stretches(phones, "phone") if phones else None,
        _stretches(words, "word") if words else None,
    )


def _text(path: Path) -> str:
    """Return the text of a recording, from a line such as `0 46797 She had your dark suit in greasy wash water all year.`"""
    text = read_text(path, "TIMIT's text").strip()
    if not (match := re.fullmatch(r"\d+\s+\d+\s+(.+)", text)):
        raise InputError(f"{path} is {text[:80]!r}; expected `first-sample last-sample words`")
    return match[1]


def _stretches(path: Path, kind: str) -> tuple[Phone, ...]:
    """Return the phones or words of a recording, from lines such as `7812 9507 sh`: first sample, last sample, label."""
    stretches = []
    for number, line in enumerate(read_text(path, f"TIMIT's {kind}s").splitlines(), 1):
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\S+)\s*", line)
        if not match or int(match[1]) > int(match[2]):
            raise InputError(f"{path}, line {number} is {line!r}; expected `first-sample last-sample {kind}`")
        stretches.append(Phone(int(match[1]) / RATE, int(match[2]) / RATE, match[3]))
    return tuple(stretches)
