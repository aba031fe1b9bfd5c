"""Reader of the user's own recordings: a folder with <speaker>/<utterance>.wav (or other formats) and optional .txt."""

from __future__ import annotations

import re
from pathlib import Path

from rwae_audio.data.corpora.base import (
    LEAST_SPEAKERS,
    Corpus,
    Utterance,
    audio_files,
    copies_note,
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
    """Read a folder with a subfolder for each speaker.

    Recordings can be at any depth of a speaker's folder. The corpus is named after the folder. With LEAST_SPEAKERS
    speakers or more, some are held out by hashes of their names. Blanks in names become `_` in ids, as trial lists and
    score files separate names by blanks. `<utterance>.txt` is the text of a recording.

    Args:
        folder: The folder.

    Raises:
        InputError: A recording is in no speaker's folder, two names differ only in blanks, or a name is not UTF-8.
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
    notes = [*skipped, *copies_note(copies)]
    count = len({u.speaker for u in utterances})
    if count < LEAST_SPEAKERS:
        notes.append(f"{count} speakers, fewer than {LEAST_SPEAKERS}: all are for training")
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
