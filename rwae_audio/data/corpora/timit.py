"""TIMIT, Garofolo et al. 1993 (LDC93S1), as people have it.

    TRAIN/DR1/FCJF0/SA1.WAV (SPHERE) with .PHN, .WRD, .TXT; lower case; SA1.WAV.wav (RIFF, beside SPHERE or alone)
    timit/dr1-fvmh0/sa1.wav          NLTK's free sample: no split, so all of it is for testing

462 speakers to train on, Kaldi's 50 development speakers, the core test's 24; SA1 and SA2 are the same two sentences
for everybody and are left out. An utterance's id is its official name, TEST/DR1/MDAB0/SX139.WAV, in every layout, so
that the core test's trial list (24 × 8 utterances, all 18,336 pairs) fits them all.

assets/timit/: speakers and sentences as on the disc (doc/spkrinfo.txt, doc/spkrsent.txt), Kaldi's conf/dev_spk.list.
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
    nothing_found,
    other_files,
    passed_over,
)
from rwae_audio.files import ASSETS, InputError, read_text

RATE = 16000  # of the sample numbers in .PHN and .WRD
LISTS = ASSETS / "timit"
LOOKED_FOR = "TRAIN/ and TEST/ (TIMIT), and no dr1-fvmh0/ (NLTK's sample)"
FILE = re.compile(r"(?i)(?:(train|test)/dr(\d)/|dr(\d)-)(\w+)/(s[aix]\d+)(?:\.wav)?\.wav")
SPEAKER = re.compile(r"(?i)(?:(?:train|test)/dr\d/|dr\d-)(\w+)/")  # the folder of a speaker
SHOWN = 5  # of the missing files
BESIDE = (".phn", ".wrd", ".txt")  # what lies beside a recording
CREDIT = (
    "TIMIT Acoustic-Phonetic Continuous Speech Corpus, Garofolo et al., LDC93S1; licensed by the LDC, whose "
    "terms decide how these weights may be passed on."
)


class Name(NamedTuple):
    """part: TRAIN or TEST; region: 1 to 8; speaker: lower case, as in the lists; sentence: SX139."""

    part: str
    region: str
    speaker: str
    sentence: str

    @property
    def official(self) -> str:
        """As on the disc."""
        return f"{self.part}/DR{self.region}/{self.speaker.upper()}/{self.sentence}.WAV"


def read_timit(folder: Path, with_sa: bool = False, partial: bool = False) -> Corpus:
    """TIMIT in `folder`, or in one that lies in it.

    with_sa: keep SA1 and SA2; partial: go on when official files are missing, and mark the corpus. A tree of other
    speakers than the official ones gets splits as well: the first 24 of TEST stand in for the core test, the next 50
    for development, and a note says so. Raises InputError when this is not TIMIT, official files are missing (unless
    `partial`), or a label file is malformed.
    """
    root = _root(folder)
    sample = not _has_parts(root)
    files, twice = _files(root)
    people = {name.speaker: name.part for name in files}
    listed = {speaker for split in ("train", "dev", "core_test") for speaker in _listed(f"{split}_speakers")}
    official = not sample and 4 * len(people.keys() & listed) >= len(people)  # a few made-up names fit by chance
    splits, notes = _splits(people, official) if not sample else (dict[str, Split].fromkeys(people, "test"), [])
    kept = {n: p for n, p in files.items() if n.speaker in splits and (with_sa or n.sentence not in ("SA1", "SA2"))}
    if not kept:
        raise nothing_found(root, "<speaker>/<utterance>.WAV (TIMIT)")

    mark, lists = "", {"test": LISTS / "core_test_trials.txt"} if official or sample else {}
    if sample:
        mark = "NLTK's sample of TIMIT"
        notes.append("NLTK's sample: test speakers only, nothing to train on")
    elif official and (missing := _missing(kept, with_sa)):
        what = _what_is_missing(root, missing)
        if not partial:
            expected = f"462 training, 50 development, 24 core-test speakers, {_per_speaker(with_sa)} utterances each"
            raise InputError(f"{what}; expected {expected}; --partial goes on without")
        mark = f"TIMIT without {sum(missing.values()):,} of {_per_speaker(with_sa) * len(listed):,} files"
        notes.append(what)
    elif official and not {name.official for name in kept} >= set(_listed("core_test_utterances")):
        lists = {}
        notes.append("the core test has other sentence numbers than the official ones: all pairs of what is there")
    outside = sum(name.speaker not in splits for name in files)
    left_out = len(files) - len(kept) - outside
    for count, what in ((left_out, "of SA1 and SA2"), (outside, "of TEST speakers that are in neither list")):
        notes += [f"{count} utterances {what} are left out"] if count else []
    if twice:
        notes.append(f"{twice} files passed over: the same utterance is there twice, as RIFF beside SPHERE")
    notes += _unread(root, set(people))
    beside = {place: {e.name.lower(): e for e in place.iterdir()} for place in {path.parent for path in kept.values()}}
    table = tuple(_utterance(name, path, splits, beside[path.parent]) for name, path in sorted(kept.items()))
    return Corpus("timit", table, lists, tuple(notes), partial=mark, credit=CREDIT)


def _unread(root: Path, speakers: set[str]) -> tuple[str, ...]:
    """The note on files in speakers' folders that are neither RIFF, SPHERE nor labels; speakers: those that are read."""
    unread = [name for name in other_files(root, (".wav",), BESIDE) if SPEAKER.match(name)]
    silent = {match[1].lower() for name in unread if (match := SPEAKER.match(name))} - speakers
    return passed_over(unread, silent)


def _root(folder: Path) -> Path:
    """The folder with TRAIN and TEST, or with dr?-<speaker>: this one, or one in it; below that by timit and data."""
    level = [folder]
    for depth in range(4):
        found = [place for place in level if _has_parts(place) or _any_folder(place, r"dr\d-\w+")]
        if len(found) > 1:
            raise InputError(f"{folder} holds TIMIT twice, in {found[0]} and {found[1]}; expected the name of one")
        if found:
            return found[0]
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
    """Is TRAIN/DR? or TEST/DR? there?"""
    parts = [entry for entry in _folders(place) if entry.name.lower() in ("train", "test")]
    return any(_any_folder(part, r"dr\d") for part in parts)


def _files(root: Path) -> tuple[dict[Name, Path], int]:
    """The audio file of each utterance, and how many others there are of the same ones.

    Of SA1.WAV, SA1.WAV.wav and SA1.wav the last is taken, which is RIFF. NLTK's sample has no TRAIN and TEST: its
    speakers are in the part where the disc has them.
    """
    train = set(_listed("train_speakers"))
    found: dict[Name, Path] = {}
    total = 0
    for path, relative in audio_files(root, (".wav",)):
        if (match := FILE.fullmatch(relative)) and path.is_file():  # not so: a link to nowhere
            part, region, region_of_sample, speaker, sentence = match.groups()
            part = part or ("train" if speaker.lower() in train else "test")
            name = Name(part.upper(), region or region_of_sample, speaker.lower(), sentence.upper())
            found[name] = path
            total += 1
    return found, total - len(found)


def _splits(people: Mapping[str, str], official: bool) -> tuple[dict[str, Split], list[str]]:
    """Speaker → split, of speaker → part; and what there is to say."""
    test = sorted(speaker for speaker, part in people.items() if part == "TEST")
    core, dev = _listed("core_test_speakers"), _listed("dev_speakers")
    notes = []
    if test and not (official and set(core) & set(test)):
        core, dev = test[:24], test[24:74]
        notes = ["none of the official core-test speakers is here: the first 24 of TEST stand in, the next 50 for dev"]
    splits: dict[str, Split] = {speaker: "train" for speaker, part in people.items() if part == "TRAIN"}
    splits |= {speaker: "dev" for speaker in dev if speaker in test}
    return splits | {speaker: "test" for speaker in core if speaker in test}, notes


def _per_speaker(with_sa: bool) -> int:
    """Utterances: five SX, three SI, two SA."""
    return 10 if with_sa else 8


def _missing(kept: Mapping[Name, Path], with_sa: bool) -> dict[str, int]:
    """What is missing → how many files: `TRAIN/FCJF0 (2 of 8)`, and in the core test, whose list has them, each file."""
    counts = Counter(name.speaker for name in kept)
    there = {name.official for name in kept}
    absent = [name for name in _listed("core_test_utterances") if name not in there]
    missing: dict[str, int] = {}
    for part, split in (("TRAIN", "train"), ("TEST", "dev"), ("TEST", "core_test")):
        for speaker in _listed(f"{split}_speakers"):
            lack = _per_speaker(with_sa) - counts[speaker]
            files = [name for name in absent if name.split("/")[2].lower() == speaker]
            if 0 < lack == len(files):
                missing |= dict.fromkeys(files, 1)
            elif lack > 0:
                missing[f"{part}/{speaker.upper()} ({lack} of {_per_speaker(with_sa)})"] = lack
    return missing


def _what_is_missing(root: Path, missing: Mapping[str, int]) -> str:
    """One line: how many, and the first of them."""
    first = ", ".join(list(missing)[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
    return f"{sum(missing.values()):,} files of TIMIT are not in {root}: {first}"


def _listed(name: str) -> list[str]:
    return (LISTS / f"{name}.txt").read_text(encoding="ascii").split()


def _utterance(name: Name, path: Path, splits: Mapping[str, Split], beside: Mapping[str, Path]) -> Utterance:
    """beside: what else is in the file's folder, by its name in lower case."""
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
    """`0 46797 She had your dark suit in greasy wash water all year.` → the words."""
    text = read_text(path, "TIMIT's text").strip()
    if not (match := re.fullmatch(r"\d+\s+\d+\s+(.+)", text)):
        raise InputError(f"{path} is {text[:80]!r}; expected `first-sample last-sample words`")
    return match[1]


def _stretches(path: Path, what: str) -> tuple[Phone, ...]:
    """Lines such as `7812 9507 sh`: first sample, last sample, label."""
    stretches = []
    for number, line in enumerate(read_text(path, f"TIMIT's {what}s").splitlines(), 1):
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\S+)\s*", line)
        if not match or int(match[1]) > int(match[2]):
            raise InputError(f"{path}, line {number} is {line!r}; expected `first-sample last-sample {what}`")
        stretches.append(Phone(int(match[1]) / RATE, int(match[2]) / RATE, match[3]))
    return tuple(stretches)
