"""Reader of the corpus CMU AN4 ("census"), 1991: spelled names, numbers and addresses, 84 speakers.

wav/an4_clstk/<speaker>/*.sph|.wav|.flac    948 training utterances, 74 speakers
wav/an4test_clstk/<speaker>/*               130 test utterances, 10 speakers
etc/an4_{train,test}.{fileids,transcription}
protocol/{train,dev,test}_speakers.txt, {dev,test}_trials.txt    the lists of a speaker benchmark, not in the release
"""

from __future__ import annotations

import re
from pathlib import Path

from rwae_audio.data.corpora.base import (
    Corpus,
    Split,
    Utterance,
    audio_files,
    copies_note,
    listing,
    nothing_found,
    once_each,
    other_files,
    skipped_note,
    speaker_lists,
    trial_lists,
)
from rwae_audio.files import read_text

SUFFIXES = (".sph", ".wav", ".flac")
DEV_EVERY = 5  # without protocol/: every fifth training speaker is a development speaker
CREDIT = (
    "AN4, Copyright (c) 1991-2005 Carnegie Mellon University, all rights reserved; free for use for any purpose. "
    "This work was supported in part by funding from the Defense Advanced Research Projects Agency and the National "
    "Science Foundation of the United States of America, and the CMU Sphinx Speech Consortium. AN4 is provided by "
    'Carnegie Mellon University "as is", without warranty of any kind.'
)


def read_an4(folder: Path) -> Corpus:
    """Read AN4.

    The split is that of `protocol/` if this folder exists. Otherwise it is the official one, with every fifth training
    speaker for development.

    Args:
        folder: The folder of AN4 (with `wav/`), or its parent.

    Raises:
        InputError: The folder is not AN4, or a list is malformed.
    """
    root = folder if (folder / "wav").is_dir() else folder / "an4"
    if not (root / "wav" / "an4_clstk").is_dir():
        raise nothing_found(folder, "wav/an4_clstk/ (CMU AN4)")
    files, copies = once_each(audio_files(root / "wav", SUFFIXES))
    elsewhere = [name for _, name in files if name.count("/") != 2]
    files = [(path, name) for path, name in files if name.count("/") == 2]
    if not files:
        raise nothing_found(root / "wav" / "an4_clstk", "<speaker>/*.sph, .wav or .flac (CMU AN4)")
    notes = copies_note(copies)
    splits = speaker_lists(root / "protocol", "AN4") or _official(
        sorted({(n.split("/")[0], n.split("/")[1]) for _, n in files})
    )
    official = "the official one, every fifth training speaker for development"
    notes.append(f"speaker split: {'protocol/' if (root / 'protocol').is_dir() else official}")
    texts = _texts(root / "etc")
    utterances, unlisted = [], 0
    for path, name in sorted(files, key=lambda file: file[1]):
        speaker = name.split("/")[1]
        if speaker in splits:
            utterances.append(Utterance(name, speaker, splits[speaker], path, texts.get(path.stem)))
        else:
            unlisted += 1
    if unlisted:
        notes.append(f"skipped {unlisted} utterances: their speakers are in no list of protocol/")
    if elsewhere:
        notes.append(f"skipped {len(elsewhere)} files outside the speakers' folders: {listing(elsewhere)}")
    unread = other_files(root / "wav", SUFFIXES)
    silent = {name.split("/")[1] for name in unread if name.count("/") == 2} - {name.split("/")[1] for _, name in files}
    notes += skipped_note(unread, silent)
    return Corpus("an4", tuple(utterances), trial_lists(root / "protocol"), tuple(notes), credit=CREDIT)


def _official(speakers: list[tuple[str, str]]) -> dict[str, Split]:
    """Return the split of each speaker, given pairs of a folder (`an4_clstk` or `an4test_clstk`) and a speaker."""
    train = [speaker for part, speaker in speakers if part == "an4_clstk"]
    splits: dict[str, Split] = {
        name: "dev" if i % DEV_EVERY == DEV_EVERY - 1 else "train" for i, name in enumerate(train)
    }
    return splits | {speaker: "test" for part, speaker in speakers if part == "an4test_clstk"}


def _texts(folder: Path) -> dict[str, str]:
    """Return the text of each recording by its file name without suffix.

    Lines of the files have the form `<s> YES </s> (an251-fash-b)`.
    """
    texts = {}
    for part in ("train", "test"):
        path = folder / f"an4_{part}.transcription"
        if path.is_file():
            for line in read_text(path, "AN4's transcriptions").splitlines():
                if match := re.fullmatch(r"(?:<s>)?\s*(.*?)\s*(?:</s>)?\s*\((\S+)\)\s*", line):
                    texts[match[2]] = match[1]
    return texts
