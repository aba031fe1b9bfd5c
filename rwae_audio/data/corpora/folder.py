"""Anybody's recordings: speaker/utterance.wav (or .flac, .ogg, .opus, .mp3, .sph), with utterance.txt beside it or not."""

from __future__ import annotations

import re
from pathlib import Path

from rwae_audio.data.corpora.base import (
    Corpus,
    Utterance,
    audio_files,
    folder_name,
    hold_out,
    nothing_found,
    once_each,
    other_files,
    passed_over,
)
from rwae_audio.files import InputError, read_text

CREDIT = "Recordings of the person who trained this bundle."


def read_folder(folder: Path) -> Corpus:
    """A folder a speaker; more folders below it are fine. The corpus is called after `folder`. With six speakers or more
    some are held out (by a hash of their names), with fewer all are for training.

    Trial lists and score files separate names by blanks, so that a blank in a name is `_` in the id. Raises
    InputError for files that lie in no speaker's folder, for two names that differ in blanks alone, and for names that
    are no text.
    """
    utterances, seen = [], dict[str, str]()
    files, twice = once_each(audio_files(folder))
    for path, name in files:
        if "/" not in name:
            raise InputError(f"{path} lies in no speaker's folder; expected {folder}/<speaker>/{path.name}")
        speaker, stem = name.split("/")[0], name[: -len(path.suffix)]
        for part in (speaker, stem):
            if (other := seen.setdefault(_joined(part), part)) != part:
                raise InputError(
                    f"{folder} has {other!r} and {part!r}, both {_joined(part)} in lists; expected another"
                )
        beside = path.with_suffix(".txt")
        text = read_text(beside, "the text of a recording").strip() if beside.is_file() else None
        utterances.append(Utterance(_joined(name), _joined(speaker), "train", path, text))
    unread = other_files(folder, beside=(".txt",))
    silent = {name.split("/")[0] for name in unread if "/" in name} - {name.split("/")[0] for _, name in files}
    passed = passed_over(unread, silent)
    if not utterances:
        raise nothing_found(folder, "<speaker>/<utterance>.wav, .flac, .ogg, .opus, .mp3 or .sph", passed)
    notes = [*passed]
    notes += [f"{twice} files left out: the same utterance is there in another format"] if twice else []
    count = len({u.speaker for u in utterances})
    if count < 6:
        notes.append(f"{count} speakers, under 6: all are for training")
        return Corpus(folder_name(folder), tuple(utterances), {}, tuple(notes), credit=CREDIT)
    notes.append("development and test speakers held out by a hash of their names")
    return Corpus(folder_name(folder), hold_out(utterances), {}, tuple(notes), credit=CREDIT)


def _joined(name: str) -> str:
    """The name in one word, as lists need it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"the file name {name!a} is not UTF-8; expected one that can stand in a list") from None
    return re.sub(r"\s+", "_", name)
