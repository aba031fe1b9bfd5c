"""CMU AN4 ("census"), 1991: spelled names, numbers and addresses, 84 speakers.

wav/an4_clstk/<speaker>/*.sph|.wav|.flac    948 training utterances, 74 speakers
wav/an4test_clstk/<speaker>/*               130 test utterances, 10 speakers
etc/an4_{train,test}.{fileids,transcription}
protocol/{train,dev,test}_speakers.txt, {dev,test}_trials.txt    not part of the release: a speaker benchmark's lists
"""

from __future__ import annotations

import re
from pathlib import Path

from rwae_audio.corpora.base import Corpus, Split, Utterance, audio_files, nothing_found, once_each
from rwae_audio.files import InputError, read_text

DEV_EVERY = 5  # without protocol/: every fifth training speaker is a development speaker


def read_an4(folder: Path) -> Corpus:
    """The official tree, named itself or by its parent. `protocol/` is used where it is there, else the official split."""
    root = folder if (folder / "wav").is_dir() else folder / "an4"
    if not (root / "wav" / "an4_clstk").is_dir():
        raise nothing_found(folder, "wav/an4_clstk/ (CMU AN4)")
    files, twice = once_each(audio_files(root / "wav", (".sph", ".wav", ".flac")))
    files = [(path, name) for path, name in files if name.count("/") == 2]
    if not files:
        raise nothing_found(root / "wav" / "an4_clstk", "<speaker>/*.sph, .wav or .flac (CMU AN4)")
    notes = [f"{twice} files left out: the same utterance is there in another format"] if twice else []
    splits = _protocol(root / "protocol") or _official(sorted({(n.split("/")[0], n.split("/")[1]) for _, n in files}))
    kind = (
        "protocol/"
        if (root / "protocol").is_dir()
        else "the official one, every fifth training speaker for development"
    )
    notes.append(f"speaker split: {kind}")
    texts = _texts(root / "etc")
    utterances, left = [], 0
    for path, name in sorted(files, key=lambda file: file[1]):
        speaker = name.split("/")[1]
        if speaker in splits:
            utterances.append(Utterance(name, speaker, splits[speaker], path, texts.get(path.stem)))
        else:
            left += 1
    if left:
        notes.append(f"{left} utterances left out: their speakers are in no list of protocol/")
    lists = {split: root / "protocol" / f"{split}_trials.txt" for split in ("dev", "test")}
    return Corpus("an4", tuple(utterances), {s: path for s, path in lists.items() if path.is_file()}, tuple(notes))


def _protocol(folder: Path) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    if not folder.is_dir():
        return splits
    kinds: tuple[Split, ...] = ("train", "dev", "test")
    for split in kinds:
        for speaker in read_text(folder / f"{split}_speakers.txt", "a list of AN4's speakers").split():
            if speaker in splits:
                raise InputError(
                    f"{folder} lists speaker {speaker} as {splits[speaker]} and {split}; expected one of them"
                )
            splits[speaker] = split
    return splits


def _official(speakers: list[tuple[str, str]]) -> dict[str, Split]:
    train = [speaker for part, speaker in speakers if part == "an4_clstk"]
    splits: dict[str, Split] = {
        name: "dev" if i % DEV_EVERY == DEV_EVERY - 1 else "train" for i, name in enumerate(train)
    }
    return splits | {speaker: "test" for part, speaker in speakers if part == "an4test_clstk"}


def _texts(folder: Path) -> dict[str, str]:
    """File name without extension → words: lines such as `<s> YES </s> (an251-fash-b)`."""
    texts = {}
    for part in ("train", "test"):
        path = folder / f"an4_{part}.transcription"
        if path.is_file():
            for line in read_text(path, "AN4's transcriptions").splitlines():
                if match := re.fullmatch(r"(?:<s>)?\s*(.*?)\s*(?:</s>)?\s*\((\S+)\)\s*", line):
                    texts[match[2]] = match[1]
    return texts
