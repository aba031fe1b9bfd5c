"""Reader of TIMIT, Garofolo et al. 1993 (LDC93S1), in its common layouts.

    TRAIN/DR1/FCJF0/SA1.WAV (SPHERE) with .PHN, .WRD, .TXT; lower case; SA1.WAV.wav (RIFF, beside SPHERE or alone)
    timit/dr1-fvmh0/sa1.wav          NLTK's free sample: no split, so all of it is for testing

The splits are 462 training speakers, Kaldi's 50 development speakers and the core test's 24. SA1 and SA2 are left out:
every speaker says these two sentences. An utterance's id is its official name in every layout, TEST/DR1/MDAB0/SX139.WAV,
so that the core test's trial list (24 × 8 utterances, all 18,336 pairs) fits all layouts.

assets/timit/ has speakers and sentences of the disc (doc/spkrinfo.txt, doc/spkrsent.txt) and Kaldi's conf/dev_spk.list.
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
LOOKED_FOR = "TRAIN/ and TEST/ (TIMIT), and no dr1-fvmh0/ (NLTK's sample)"
FILE = re.compile(r"(?i)(?:(train|test)/dr(\d)/|dr(\d)-)(\w+)/(s[aix]\d+)(?:\.wav)?\.wav")
SPEAKER = re.compile(r"(?i)(?:(?:train|test)/dr\d/|dr\d-)(\w+)/")  # the folder of a speaker
LABELS = (".phn", ".wrd", ".txt")  # suffixes of the files beside a recording
CREDIT = (
    "TIMIT Acoustic-Phonetic Continuous Speech Corpus, Garofolo et al., LDC93S1; licensed by the LDC, whose "
    "terms decide how these weights may be passed on."
)


class Name(NamedTuple):
    """The name of an utterance: TRAIN or TEST, dialect region 1 to 8, speaker in lower case, sentence such as SX139."""

    part: str
    region: str
    speaker: str
    sentence: str

    @property
    def official(self) -> str:
        """The path on the disc."""
        return f"{self.part}/DR{self.region}/{self.speaker.upper()}/{self.sentence}.WAV"


def read_timit(folder: Path, with_sa: bool = False, partial: bool = False) -> Corpus:
    """Read TIMIT from a folder or one of its subfolders.

    If the speakers are not the official ones, the first 24 of TEST replace the core test, the next 50 the development
    speakers, and a note says so.

    Args:
        folder: The folder.
        with_sa: Whether SA1 and SA2 are kept.
        partial: Whether official files may be missing; the corpus is then marked as partial.

    Raises:
        InputError: The folder is not TIMIT, official files are missing (unless `partial`), or a label file is malformed.
    """
    root = _root(folder)
    sample = not _has_parts(root)
    files, copies = _files(root)
    people = {name.speaker: name.part for name in files}
    listed = {speaker for split in ("train", "dev", "core_test") for speaker in _listed(f"{split}_speakers")}
    official = not sample and 4 * len(people.keys() & listed) >= len(people)  # a few invented names match by chance
    splits, notes = _splits(people, official) if not sample else (dict[str, Split].fromkeys(people, "test"), [])
    recordings = {
        n: p for n, p in files.items() if n.speaker in splits and (with_sa or n.sentence not in ("SA1", "SA2"))
    }
    if not recordings:
        raise nothing_found(root, "<speaker>/<utterance>.WAV (TIMIT)")

    mark, lists = "", {"test": LISTS / "core_test_trials.txt"} if official or sample else {}
    if sample:
        mark = "NLTK's sample of TIMIT"
        notes.append("NLTK's sample: test speakers only, nothing to train on")
    elif official and (missing := _missing(recordings, with_sa)):
        problem = _describe_missing(root, missing)
        if not partial:
            expected = f"462 training, 50 development, 24 core-test speakers, {_per_speaker(with_sa)} utterances each"
            raise InputError(f"{problem}; expected {expected}, or --partial")
        mark = f"TIMIT without {sum(missing.values()):,} of {_per_speaker(with_sa) * len(listed):,} files"
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
    beside = {
        place: {e.name.lower(): e for e in place.iterdir()} for place in {path.parent for path in recordings.values()}
    }
    table = tuple(_utterance(name, path, splits, beside[path.parent]) for name, path in sorted(recordings.items()))
    return Corpus("timit", table, lists, tuple(notes), partial=mark, credit=CREDIT)


def _unread(root: Path, speakers: set[str]) -> tuple[str, ...]:
    """Return the note on files in speakers' folders that are neither recordings nor labels."""
    unread = [name for name in other_files(root, (".wav",), LABELS) if SPEAKER.match(name)]
    silent = {match[1].lower() for name in unread if (match := SPEAKER.match(name))} - speakers
    return skipped_note(unread, silent)


def _root(folder: Path) -> Path:
    """Return the folder with TRAIN and TEST, or with dr?-<speaker>: `folder`, or one below it."""
    level = [folder]
    for depth in range(4):
        roots = [place for place in level if _has_parts(place) or _any_folder(place, r"dr\d-\w+")]
        if len(roots) > 1:
            raise InputError(f"{folder} holds TIMIT twice, in {roots[0]} and {roots[1]}; expected one of them")
        if roots:
            return roots[0]
        below = [entry for place in level for entry in _folders(place)]
        level = [entry for entry in below if depth == 0 or re.fullmatch(r"timit|data|ldc93s1", entry.name.lower())]
    raise nothing_found(folder, LOOKED_FOR)


def _folders(place: Path) -> list[Path]:
    try:
        return [entry for entry in sorted(place.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    except PermissionError:
        return []


def _any_folder(place: Path, pattern: str) -> bool:
    return any(re.fullmatch(pattern, entry.name.lower()) for entry in _folders(place))


def _has_parts(place: Path) -> bool:
    """Return whether a folder has TRAIN/DR? or TEST/DR?."""
    parts = [entry for entry in _folders(place) if entry.name.lower() in ("train", "test")]
    return any(_any_folder(part, r"dr\d") for part in parts)


def _files(root: Path) -> tuple[dict[Name, Path], int]:
    """Return the recording of each utterance, and the number of further recordings of the same utterances.

    Of SA1.WAV, SA1.WAV.wav and SA1.wav the last is taken, which is RIFF. NLTK's sample has no TRAIN and TEST: its
    speakers get the part that they have on the disc.
    """
    train = set(_listed("train_speakers"))
    recordings: dict[Name, Path] = {}
    total = 0
    for path, relative in audio_files(root, (".wav",)):
        if (match := FILE.fullmatch(relative)) and path.is_file():  # not a broken link
            part, region, region_of_sample, speaker, sentence = match.groups()
            part = part or ("train" if speaker.lower() in train else "test")
            name = Name(part.upper(), region or region_of_sample, speaker.lower(), sentence.upper())
            recordings[name] = path
            total += 1
    return recordings, total - len(recordings)


def _splits(people: Mapping[str, str], official: bool) -> tuple[dict[str, Split], list[str]]:
    """Return the split of each speaker, from the parts of the speakers, and notes on the splits."""
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
    """Return the number of utterances of a speaker: five SX, three SI, two SA."""
    return 10 if with_sa else 8


def _missing(recordings: Mapping[Name, Path], with_sa: bool) -> dict[str, int]:
    """Return the number of missing files by speaker, as `TRAIN/FCJF0 (2 of 8)`, and in the core test by file."""
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
    return (LISTS / f"{name}.txt").read_text(encoding="ascii").split()


def _utterance(name: Name, path: Path, splits: Mapping[str, Split], beside: Mapping[str, Path]) -> Utterance:
    """Return an utterance with its labels; `beside` is the files in its folder by name in lower case."""
    text, phones, words = (beside.get(f"{name.sentence.lower()}.{kind}") for kind in ("txt", "phn", "wrd"))
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
    """Return the words of a line such as `0 46797 She had your dark suit in greasy wash water all year.`"""
    text = read_text(path, "TIMIT's text").strip()
    if not (match := re.fullmatch(r"\d+\s+\d+\s+(.+)", text)):
        raise InputError(f"{path} is {text[:80]!r}; expected `first-sample last-sample words`")
    return match[1]


def _stretches(path: Path, kind: str) -> tuple[Phone, ...]:
    """Return the stretches of lines such as `7812 9507 sh`: first sample, last sample, label."""
    stretches = []
    for number, line in enumerate(read_text(path, f"TIMIT's {kind}s").splitlines(), 1):
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\S+)\s*", line)
        if not match or int(match[1]) > int(match[2]):
            raise InputError(f"{path}, line {number} is {line!r}; expected `first-sample last-sample {kind}`")
        stretches.append(Phone(int(match[1]) / RATE, int(match[2]) / RATE, match[3]))
    return tuple(stretches)
