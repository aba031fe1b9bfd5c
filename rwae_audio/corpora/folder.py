"""Anybody's recordings: speaker/utterance.wav (or .flac, .ogg, .opus, .mp3, .sph), with utterance.txt beside it or not."""

from __future__ import annotations

from pathlib import Path

from rwae_audio.corpora.base import Corpus, Utterance, audio_files, hold_out, nothing_found, once_each
from rwae_audio.files import InputError, read_text


def read_folder(folder: Path) -> Corpus:
    """A folder a speaker; more folders below it are fine. With six speakers or more some are held out (by a hash of
    their names), with fewer all are for training. Raises InputError for files that lie in no speaker's folder."""
    utterances = []
    files, twice = once_each(audio_files(folder))
    for path, name in files:
        if "/" not in name:
            raise InputError(f"{path} lies in no speaker's folder; expected {folder}/<speaker>/{path.name}")
        beside = path.with_suffix(".txt")
        text = read_text(beside, "the text of a recording").strip() if beside.is_file() else None
        utterances.append(Utterance(name, name.split("/")[0], "train", path, text))
    if not utterances:
        raise nothing_found(folder, "<speaker>/<utterance>.wav, .flac, .ogg, .opus, .mp3 or .sph")
    notes = [f"{twice} files left out: the same utterance is there in another format"] if twice else []
    count = len({u.speaker for u in utterances})
    if count < 6:
        notes.append(f"{count} speakers, under 6: all are for training")
        return Corpus("folder", tuple(utterances), {}, tuple(notes))
    notes.append("development and test speakers held out by a hash of their names")
    return Corpus("folder", hold_out(utterances), {}, tuple(notes))
