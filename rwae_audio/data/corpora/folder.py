"""Reader of a folder of recordings, <speaker>/<utterance>.wav or in another format, with an optional <utterance>.txt."""

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
    skipped_note,
)
from rwae_audio.files import InputError, read_text

CREDIT = "Recordings of the person who trained this bundle."


def read_folder(folder: Path) -> Corpus:
    """Read a folder with a subfolder for each speaker, in which recordings may lie at any depth.

    The corpus is called after `folder`. With six speakers or more, some are held out by a hash of their names. Trial lists
    and score files separate names by blanks, so that a blank in a name becomes `_` in the id.

    Raises:
        InputError: A recording lies in no speaker's folder, two names differ in blanks alone, or a name is not UTF-8.
    """
    utterances, name_of = [], dict[str, str]()
    files, copies = once_each(audio_files(folder))
    for path, name in files:
        if "/" not in name:
            raise InputError(f"{path} lies in no speaker's folder; expected {folder}/<speaker>/{path.name}")
        speaker, stem = name.split("/")[0], name[: -len(path.suffix)]
        for part in (speaker, stem):
            if (other := name_of.setdefault(_joined(part), part)) != part:
                raise InputError(
                    f"{folder} has {other!r} and {part!r}, both {_joined(part)} in lists; expected different names"
                )
        transcript = path.with_suffix(".txt")
        text = read_text(transcript, "the text of a recording").strip() if transcript.is_file() else None
        utterances.append(Utterance(_joined(name), _joined(speaker), "train", path, text))
    unread = other_files(folder, beside=(".txt",))
    silent = {name.split("/")[0] for name in unread if "/" in name} - {name.split("/")[0] for _, name in files}
    skipped = skipped_note(unread, silent)
    if not utterances:
        raise nothing_found(folder, "<speaker>/<utterance>.wav, .flac, .ogg, .opus, .mp3 or .sph", skipped)
    notes = [*skipped]
    notes += [f"skipped {copies} files: the same utterance exists in another format"] if copies else []
    count = len({u.speaker for u in utterances})
    if count < 6:
        notes.append(f"{count} speakers, fewer than 6: all are for training")
        return Corpus(folder_name(folder), tuple(utterances), {}, tuple(notes), credit=CREDIT)
    notes.append("development and test speakers held out by a hash of their names")
    return Corpus(folder_name(folder), hold_out(utterances), {}, tuple(notes), credit=CREDIT)


def _joined(name: str) -> str:
    """Return a name as one word, for trial lists. Raises InputError unless it is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"the file name {name!a} is not UTF-8; expected a name for trial lists, in UTF-8") from None
    return re.sub(r"\s+", "_", name)
