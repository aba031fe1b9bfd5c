"""TIMIT, Garofolo et al. 1993 (LDC93S1), as people have it.

    TRAIN/DR1/FCJF0/SA1.WAV (SPHERE) with .PHN, .WRD, .TXT; lower case; SA1.WAV.wav (RIFF, beside SPHERE or alone)
    timit/dr1-fvmh0/sa1.wav          NLTK's free sample: no split, so all of it is for testing

462 speakers to train on, Kaldi's 50 development speakers, the core test set's 24; SA1 and SA2 are the same two
sentences for everybody and are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from rwae_audio.corpora.base import Corpus, Phone, Split, Utterance, audio_files, nothing_found
from rwae_audio.files import InputError, read_text

RATE = 16000  # of the sample numbers in .PHN
LISTS = Path(__file__).parent.parent / "assets" / "timit"
LOOKED_FOR = "TRAIN/ and TEST/ (TIMIT), and no dr1-fvmh0/ (NLTK's sample)"


def read_timit(folder: Path, with_sa: bool = False) -> Corpus:
    """The folder that holds TRAIN and TEST, or one that it lies in (by the name timit or data, any case), or NLTK's sample.

    Without any of the official core-test speakers the first 24 of TEST stand in for them, the next 50 for the
    development speakers, and a note says so. Raises InputError when this is not TIMIT or a .PHN is malformed.
    """
    root = _root(folder)
    sample = not _has(root, "train", "test")
    notes, splits = [], {} if sample else _splits(root)
    if sample:
        notes.append("NLTK's sample: test speakers only, nothing to train on")
    elif not set(_listed("core_test_speakers")) & set(splits):
        notes.append(
            "none of the official core-test speakers is here: the first 24 of TEST stand in, the next 50 for dev"
        )
    found, passed, others = [], 0, Counter[str]()
    files = ((path, re.sub(r"(?i)\.wav\.wav$", ".WAV.wav", name)) for path, name in audio_files(root, (".wav",)))
    paths = {name: path for path, name in files}
    doubled = {name[:-4].lower() for name in paths if name.endswith(".WAV.wav")}
    for name, path in sorted(paths.items()):
        if name.lower() in doubled:  # the SPHERE file beside a RIFF one
            passed += 1
            continue
        *_, place, file = Path(name).parts
        speaker = place.lower().split("-")[-1]
        stem = file.split(".")[0]
        if stem.lower() in ("sa1", "sa2") and not with_sa:
            others["of SA1 and SA2"] += 1
        elif not sample and speaker not in splits:
            others["of TEST speakers that are in neither list"] += 1
        else:
            split: Split = "test" if sample else splits[speaker]
            beside = {entry.suffix.lower(): entry for entry in path.parent.glob(f"{stem}.*")}
            text = _text(beside[".txt"]) if ".txt" in beside else None
            phones = _phones(beside[".phn"]) if ".phn" in beside else None
            found.append(Utterance(path.relative_to(root).as_posix(), speaker, split, path, text, phones))
    if not found:
        raise nothing_found(root, "<speaker>/<utterance>.WAV (TIMIT)")
    notes += [f"{count} utterances {what} are left out" for what, count in others.items()]
    if passed:
        notes.append(f"{passed} SPHERE files passed over: the same utterance is there as RIFF")
    return Corpus("timit", tuple(found), {}, tuple(notes))


def _root(folder: Path) -> Path:
    """The folder with TRAIN and TEST, or with dr?-<speaker> folders: this one, or down through timit/ and data/."""
    level = [folder]
    for _ in range(3):
        for place in level:
            if _has(place, "train", "test") or any(re.fullmatch(r"dr\d-\w+", entry.name) for entry in place.iterdir()):
                return place
        below = [
            e for place in level for e in sorted(place.iterdir()) if e.name.lower() in ("timit", "data") and e.is_dir()
        ]
        level = below
    raise nothing_found(folder, LOOKED_FOR)


def _has(folder: Path, *names: str) -> bool:
    there = {entry.name.lower() for entry in folder.iterdir() if entry.is_dir()}
    return all(name in there for name in names)


def _splits(root: Path) -> dict[str, Split]:
    """Speaker, in lower case → split."""
    parts = {part.name.lower(): part for part in root.iterdir() if part.is_dir()}
    train, test = (
        sorted(entry.name.lower() for entry in parts[part].glob("*/*") if entry.is_dir()) for part in ("train", "test")
    )
    core, dev = _listed("core_test_speakers"), _listed("dev_speakers")
    if not set(core) & set(test):
        core, dev = test[:24], test[24:74]
    splits: dict[str, Split] = dict.fromkeys(train, "train")
    splits |= {speaker: "dev" for speaker in dev if speaker in test}
    return splits | {speaker: "test" for speaker in core if speaker in test}


def _listed(name: str) -> list[str]:
    return (LISTS / f"{name}.txt").read_text(encoding="ascii").split()


def _text(path: Path) -> str:
    """`0 46797 She had your dark suit in greasy wash water all year.` → the words."""
    text = read_text(path, "TIMIT's text").strip()
    if not (match := re.fullmatch(r"\d+\s+\d+\s+(.+)", text)):
        raise InputError(f"{path} is {text[:80]!r}; expected `first-sample last-sample words`")
    return match[1]


def _phones(path: Path) -> tuple[Phone, ...]:
    """Lines such as `7812 9507 sh`: first sample, last sample, label."""
    phones = []
    for number, line in enumerate(read_text(path, "TIMIT's phones").splitlines(), 1):
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\S+)\s*", line)
        if not match or int(match[1]) > int(match[2]):
            raise InputError(f"{path}, line {number} is {line!r}; expected `first-sample last-sample phone`")
        phones.append(Phone(int(match[1]) / RATE, int(match[2]) / RATE, match[3]))
    return tuple(phones)
