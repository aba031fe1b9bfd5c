"""Reader of corpora in Kaldi's layout, such as speechocean762.

    wav.scp, utt2spk, segments, text, spk2gender                    in the folder itself, or
    train/wav.scp …, dev/wav.scp …, test/wav.scp …                  a set of these files for each split
    protocol/{train,dev,test}_speakers.txt, {dev,test}_trials.txt   optional lists of a speaker benchmark

The files segments, text and spk2gender are optional. Paths in wav.scp are absolute, or relative to the corpus's folder.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rwae_audio.data.corpora.base import (
    LEAST_SPEAKERS,
    Corpus,
    Split,
    Utterance,
    audio_files,
    folder_name,
    hold_out,
    listing,
    nothing_found,
    speaker_lists,
    trial_lists,
)
from rwae_audio.files import InputError, read_text

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
OVERSHOOT = 0.5  # seconds by which a segment may end after its recording, as in Kaldi's extract-segments
CREDIT_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING", "README", "README.txt", "README.md")
SPEECHOCEAN = "speechocean762 (OpenSLR 101), Zhang et al., Interspeech 2021; free for commercial and other use."


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        where: The file and the number of the line, for messages.
        value: The line without its first word.
    """

    where: str
    value: str


@dataclass(frozen=True)
class DataSet:
    """The tables of a data folder.

    Attributes:
        split: The split of the folder.
        recordings: The paths in wav.scp, by recording.
        speakers: The speakers in utt2spk, by utterance.
        texts: The texts, by utterance.
        genders: The genders, by speaker.
        utterances: The line, recording, start and end in seconds of each utterance, by its name.
        segmented: Whether there is a file `segments`.
    """

    split: Split
    recordings: Mapping[str, Line]
    speakers: Mapping[str, Line]
    texts: Mapping[str, Line]
    genders: Mapping[str, Line]
    utterances: Mapping[str, tuple[Line, str, float, float | None]]
    segmented: bool


def read_kaldi(folder: Path) -> Corpus:
    """Read a corpus in Kaldi's layout, which is named after its folder.

    The splits are those of `protocol/` if this folder exists, otherwise those of the data folders. Without dev or test
    speakers, some training speakers are held out. The id of an utterance is its path in wav.scp. It is Kaldi's name if
    there is a file `segments`, or if the recording is outside the folder.

    Args:
        folder: A Kaldi data folder, or a folder with data folders in train/, dev/ or test/.

    Raises:
        InputError: Tables contradict each other, or wav.scp has a command pipe. The message names the file and the line.
    """
    folders: dict[Split, Path] = {"train": folder}
    if not _is_data(folder):
        folders = {split: folder / split for split in SPLITS if _is_data(folder / split)}
    if not folders:
        raise nothing_found(folder, "wav.scp, nor one in train/, dev/ or test/ (Kaldi)")
    sets = [_data_set(split, data_folder) for split, data_folder in folders.items()]
    utterances: list[Utterance] = []
    where_of: dict[str, str] = {}
    for data, data_folder in zip(sets, folders.values(), strict=True):
        for where, utterance in _utterances(data, folder, data_folder):
            if utterance.id in where_of:
                raise InputError(f"{where} names {utterance.id}, as {where_of[utterance.id]} does; expected it once")
            where_of[utterance.id] = where
            utterances.append(utterance)
    if not utterances:
        raise nothing_found(folder, "recordings in wav.scp (Kaldi)")
    notes = [*_unrecorded(sets), *_unnamed(folder, utterances), *_genders(sets, {u.speaker for u in utterances})]
    utterances.sort(key=lambda u: u.id)
    if listed := speaker_lists(folder / "protocol", "the corpus"):
        notes.append("speaker split: protocol/")
        unlisted = sum(u.speaker not in listed for u in utterances)
        notes += [f"skipped {unlisted} utterances: their speakers are in no list of protocol/"] if unlisted else []
        chosen = tuple(replace(u, split=listed[u.speaker]) for u in utterances if u.speaker in listed)
    else:
        chosen, note = _split(utterances, folder)
        notes.append(note)
    name, lists = folder_name(folder), trial_lists(folder / "protocol")
    return Corpus(name, chosen, lists, tuple(notes), credit=_credit(folder))


def _is_data(folder: Path) -> bool:
    """Return whether a folder is a Kaldi data folder."""
    return (folder / "wav.scp").is_file() or (folder / "utt2spk").is_file()


def _data_set(split: Split, folder: Path) -> DataSet:
    """Read the tables of a data folder."""
    recordings = _table(folder / "wav.scp", "`recording path`")
    speakers = _table(folder / "utt2spk", "`utterance speaker`", fields=1)
    texts, genders = (
        _table(folder / name, expected, fields) if (folder / name).is_file() else {}
        for name, expected, fields in (("text", "`utterance words`", 0), ("spk2gender", "`speaker m|f`", 1))
    )
    segments = folder / "segments"
    utterances: dict[str, tuple[Line, str, float, float | None]]
    if segments.is_file():
        lines = _table(segments, "`utterance recording start end`", fields=3)
        utterances = {name: (line, *_segment(line, recordings)) for name, line in lines.items()}
    else:
        utterances = {name: (line, name, 0.0, None) for name, line in recordings.items()}
    return DataSet(split, recordings, speakers, texts, genders, utterances, segments.is_file())


def _table(path: Path, expected: str, fields: int | None = None) -> dict[str, Line]:
    """Return the lines of a Kaldi table by their first word.

    Args:
        path: The table.
        expected: The form of a line in messages.
        fields: The number of words after the first; 0 for any number, None for one or more.

    Raises:
        InputError: A line has another number of words, or a key appears twice.
    """
    table: dict[str, Line] = {}
    for number, line in enumerate(read_text(path, f"lines such as {expected} (Kaldi's {path.name})").split("\n"), 1):
        words = line.split(maxsplit=1)
        if not words:
            continue
        key, value = words[0], words[1].strip() if len(words) > 1 else ""
        where = f"{path}, line {number}"
        if (fields is None and not value) or (fields and len(value.split()) != fields):
            raise InputError(f"{where} is {line.strip()[:80]!r}; expected {expected}")
        if key in table:
            raise InputError(f"{where} has {key}, as {table[key].where} has; expected it once")
        table[key] = Line(where, value)
    return table


def _segment(line: Line, recordings: Mapping[str, Line]) -> tuple[str, float, float | None]:
    """Return the recording, start and end in a line of `segments`. An end of -1 means the end of the recording (None)."""
    recording, *times = line.value.split()
    if recording not in recordings:
        raise InputError(f"{line.where} names the recording {recording!r}; expected one of those in wav.scp")
    try:
        start, end = (float(time) for time in times)
    except ValueError:
        start = end = math.nan
    if not (math.isfinite(start) and math.isfinite(end) and start >= 0 and (end > start or end == -1)):
        expected = "a start of 0 or more and a later end, in seconds"
        raise InputError(f"{line.where} has the times {' '.join(times)!r}; expected {expected}")
    return recording, start, None if end == -1 else end


def _utterances(data: DataSet, folder: Path, data_folder: Path) -> Iterable[tuple[str, Utterance]]:
    """Yield each utterance of a data folder, with the file and the number of the line that defines it.

    Args:
        data: The tables of the data folder.
        folder: The folder of the corpus.
        data_folder: The data folder.
    """
    from rwae_audio.data.audio import duration  # imports torch

    files = {name: _file(line, folder, data_folder) for name, line in data.recordings.items()}
    lengths: dict[str, float] = {}
    for name, (line, recording, start, end) in data.utterances.items():
        path, relative = files[recording]
        if name not in data.speakers:
            speakers = data_folder / "utt2spk"
            raise InputError(f"{line.where} has {name}, which has no speaker in {speakers}; expected one")
        if data.segmented:
            if recording not in lengths:
                lengths[recording] = duration(path)
            length = lengths[recording]
            if start >= length or (end or 0.0) > length + OVERSHOOT:
                stretch = f"from {start:g} s to {'the end' if end is None else f'{end:g} s'}"
                raise InputError(f"{line.where} is {stretch}; expected a part of {path}, which lasts {length:.3f} s")
            end = None if end is None or end > length else end
        text = data.texts[name].value if name in data.texts else None
        identity = name if data.segmented or relative is None else relative
        yield (
            line.where,
            Utterance(identity, data.speakers[name].value, data.split, path, text or None, start=start, end=end),
        )


def _file(line: Line, folder: Path, data_folder: Path) -> tuple[Path, str | None]:
    """Return the recording in a line of wav.scp, and its relative path if it is in the corpus's folder.

    A relative path can be relative to `folder`, to `data_folder` (with wav.scp) or to the parent of `folder`.
    """
    if line.value.endswith("|") or line.value.startswith("|"):
        raise InputError(f"{line.where} is a command, {line.value[:60]!r}; expected the path of a recording")
    for base in (folder, data_folder, folder.parent):
        path = Path(os.path.normpath(base / line.value))
        try:
            if path.is_file():
                inside = path.is_relative_to(base)
                return path, re.sub(r"\s+", "_", path.relative_to(base).as_posix()) if inside else None
        except (OSError, ValueError):  # a name that is too long, or has a NUL byte
            break
    raise InputError(f"{line.where} names {line.value[:120]!r}, which is no file in {folder}; expected a recording")


def _split(utterances: list[Utterance], folder: Path) -> tuple[tuple[Utterance, ...], str]:
    """Return the utterances, with some speakers held out if the folders lack a split, and the note on the split.

    Raises InputError for a speaker in two splits.
    """
    split_of: dict[str, str] = {}
    for u in utterances:
        if split_of.setdefault(u.speaker, u.split) != u.split:
            raise InputError(
                f"{folder} has speaker {u.speaker} in {split_of[u.speaker]}/ and {u.split}/; expected each in one"
            )
    train = [u for u in utterances if u.split == "train"]
    missing = [split for split in ("dev", "test") if split not in split_of.values()]
    if not train or not missing:
        return tuple(utterances), "speaker split: the folders'"
    if (count := len({u.speaker for u in train})) < LEAST_SPEAKERS:
        return tuple(utterances), f"{count} training speakers, fewer than {LEAST_SPEAKERS}: none is held out"
    new_split = {u.speaker: u.split for u in hold_out(train) if u.split in missing}
    chosen = tuple(replace(u, split=new_split.get(u.speaker, u.split)) for u in utterances)
    return chosen, f"{' and '.join(missing)} speakers held out by a hash of their names"


def _unrecorded(sets: Iterable[DataSet]) -> list[str]:
    """Return a list with the note on utterances of utt2spk without a recording, or an empty one."""
    missing = [
        (line.value, name) for data in sets for name, line in data.speakers.items() if name not in data.utterances
    ]
    if not missing:
        return []
    recorded = {data.speakers[name].value for data in sets for name in data.utterances}
    silent = sorted({speaker for speaker, _ in missing} - recorded)
    note = f"skipped {len(missing)} utterances of utt2spk without a recording"
    return [note + (f"; speakers without recordings: {listing(silent)}" if silent else "")]


def _unnamed(folder: Path, utterances: Iterable[Utterance]) -> list[str]:
    """Return a list with the note on recordings in the folder that are not in wav.scp, or an empty one."""
    used = {os.path.realpath(u.path) for u in utterances}
    names = [name for path, name in audio_files(folder) if os.path.realpath(path) not in used]
    return [f"skipped {len(names)} recordings that are not in wav.scp: {listing(names)}"] if names else []


def _genders(sets: Iterable[DataSet], speakers: set[str]) -> list[str]:
    """Return a list with the note on the numbers of female and male speakers, or an empty one if all are unknown."""
    gender: dict[str, str] = {}
    for data in sets:
        for speaker, line in data.genders.items():
            if line.value not in ("m", "f"):
                raise InputError(f"{line.where} has the gender {line.value!r}; expected m or f")
            gender[speaker] = line.value
    counts = Counter(gender[speaker] for speaker in speakers & gender.keys())
    unknown = len(speakers) - sum(counts.values())
    note = f"{counts['f']} female and {counts['m']} male speakers" + (f", {unknown} others" if unknown else "")
    return [note] if gender else []


def _credit(folder: Path) -> str:
    """Return the credit of the corpus: that of speechocean762, or the first line of a corpus's LICENSE or README."""
    root = folder.resolve()
    root = root.parent if root.name in SPLITS else root
    readable = [name for name in CREDIT_FILES if (root / name).is_file() and os.access(root / name, os.R_OK)]
    contents = {name: (root / name).read_bytes()[:4000] for name in readable}
    texts = {name: content.decode("utf-8", "replace").strip("\ufeff \n#") for name, content in contents.items()}
    if root.name == "speechocean762" or any("speechocean762" in text for text in texts.values()):
        return SPEECHOCEAN
    for name, text in texts.items():
        if first := " ".join(text.split("\n")[0].split())[:200]:
            return f"Recordings in Kaldi's layout from {root.name}; its {name} begins: {first}"
    return f"Recordings in Kaldi's layout from {root.name}."
