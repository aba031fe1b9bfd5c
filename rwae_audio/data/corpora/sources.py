"""The corpora that the options --data and --hold-out describe: folders, their readers, and speakers to leave out.

`--data NAME=DIR` names a reader and a folder, and can be repeated. Folders with the same reader and the same corpus name
are merged to one corpus, in which equal names of speakers are one speaker. A hold-out file has lines `CORPUS SPEAKER`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rwae_audio.data.corpora.base import Corpus, Utterance, folder_name, listing
from rwae_audio.data.corpora.readers import NAMED_AFTER_FOLDER, READERS, read_corpus
from rwae_audio.files import InputError, read_text
from rwae_audio.settings import nearest


class Source(NamedTuple):
    """A folder of a corpus.

    Attributes:
        reader: The name of the reader.
        folder: The absolute path of the folder, or "" for a corpus in the package.
        corpus: The name of the corpus.
    """

    reader: str
    folder: str
    corpus: str


class HeldOut(NamedTuple):
    """A speaker whose utterances are left out.

    Attributes:
        corpus: The name of the corpus.
        speaker: The name of the speaker.
        line: The number of the line in the hold-out file.
    """

    corpus: str
    speaker: str
    line: int


def corpus_sources(items: Sequence[str], option: str = "--data") -> list[Source]:
    """Return the sources of `--data NAME=DIR` or of another option of that form.

    A corpus is named after its reader, or after its folder if the reader is `folder` or `kaldi`.

    Args:
        items: The values of the option.
        option: The name of the option in messages.

    Raises:
        InputError: A reader is unknown, or corpora of two readers have the same name.
    """
    sources: list[Source] = []
    for item in items:
        name, _, path = item.partition("=")
        if not path or name not in READERS:
            raise InputError(f"{option} {item}; expected NAME=DIR, {nearest(name, sorted(READERS))}")
        folder = os.path.abspath(path)
        sources.append(Source(name, folder, folder_name(Path(folder)) if name in NAMED_AFTER_FOLDER else name))
    for source in sources:
        if other := next((s for s in sources if s.corpus == source.corpus and s.reader != source.reader), None):
            both = f"{source.reader}={source.folder} and {other.reader}={other.folder}"
            raise InputError(f"{option} {both} are both named {source.corpus}; expected a folder with another name")
    return sources


def by_corpus(sources: Sequence[Source]) -> dict[str, tuple[Source, ...]]:
    """Return the sources of each corpus, in the order of the first source of each corpus."""
    return {name: tuple(s for s in sources if s.corpus == name) for name in dict.fromkeys(s.corpus for s in sources)}


def relocated(sources: Sequence[Source], new: Sequence[Source]) -> list[Source]:
    """Return the sources of `sources`, but those of `new` for each corpus that `new` contains."""
    new_sources = by_corpus(new)
    return [s for name, old_sources in by_corpus(sources).items() for s in new_sources.get(name, old_sources)]


def read_hold_out(path: Path | None, sources: Sequence[Source]) -> list[HeldOut]:
    """Return the speakers of a hold-out file, or [] without a file.

    Args:
        path: The file, with lines `CORPUS SPEAKER` and comments after `#`.
        sources: The sources of the corpora.

    Raises:
        InputError: A line has another form, or names a corpus that is not among the sources.
    """
    if path is None:
        return []
    corpora, held_out = list(by_corpus(sources)), []
    for number, line in enumerate(read_text(path, "lines such as `CORPUS SPEAKER`").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2:
            raise InputError(f"{path}, line {number} is {line.strip()[:80]!r}; expected `CORPUS SPEAKER`")
        if words[0] not in corpora:
            expected = nearest(words[0], corpora) if corpora else "expected a corpus of --data"
            raise InputError(f"{path}, line {number} names the corpus {words[0]!r}, which is not in --data; {expected}")
        held_out.append(HeldOut(words[0], words[1], number))
    return held_out


def read_corpora(
    sources: Sequence[Source],
    hold_out: Sequence[HeldOut] = (),
    options: Mapping[str, Mapping[str, bool]] | None = None,
) -> list[Corpus]:
    """Read the corpora of all sources, merge their folders, and leave out the held-out speakers.

    Args:
        sources: The folders of the corpora.
        hold_out: The speakers to leave out.
        options: The options of `read_corpus` for each reader, by its name.

    Raises:
        InputError: A folder cannot be read, folders cannot be merged, or a speaker to hold out does not exist.
    """
    corpora = []
    for name, folders in by_corpus(sources).items():
        parts: dict[str, Corpus] = {}
        for source in folders:
            reader_options = (options or {}).get(source.reader, {})
            folder = Path(source.folder) if source.folder else None
            if source.folder not in parts:
                parts[source.folder] = replace(read_corpus(source.reader, folder, **reader_options), name=name)
        corpora.append(without(merged(parts), [item for item in hold_out if item.corpus == name]))
    return corpora


def merged(parts: Mapping[str, Corpus]) -> Corpus:
    """Merge the parts of a corpus. An utterance that is the same file in two parts is kept once.

    Args:
        parts: The parts by their folders.

    Raises:
        InputError: Two files have the same id, a speaker is in two splits, or a split has two trial lists.
    """
    first = next(iter(parts.values()))
    if len(parts) == 1:
        return first
    utterances: dict[str, tuple[str, Utterance]] = {}
    split: dict[str, tuple[str, str]] = {}
    lists: dict[str, Path] = {}
    for folder, corpus in parts.items():
        for u in corpus.utterances:
            other_folder, other = utterances.setdefault(u.id, (folder, u))
            if other is not u and not _same_utterance(other, u):
                folders = f"{other_folder} and {folder}"
                raise InputError(f"{folders} both have the utterance {u.id} of {corpus.name}; expected one")
            other_folder, other_split = split.setdefault(u.speaker, (folder, u.split))
            if other_split != u.split:
                splits = f"for {other_split} in {other_folder} and for {u.split} in {folder}"
                raise InputError(f"the speaker {u.speaker} of {corpus.name} is {splits}; expected one split")
        for name, path in corpus.trial_lists.items():
            if not lists.setdefault(name, path).samefile(path):
                raise InputError(f"{lists[name]} and {path} are two lists of {corpus.name}; expected one")
    return replace(
        first,
        utterances=tuple(u for _, u in utterances.values()),
        trial_lists=lists,
        notes=tuple(f"{folder}: {note}" for folder, corpus in parts.items() for note in corpus.notes),
        synthetic=all(corpus.synthetic for corpus in parts.values()),
        partial="; ".join(dict.fromkeys(c.partial for c in parts.values() if c.partial)),
        credit=" ".join(dict.fromkeys(c.credit for c in parts.values() if c.credit)),
    )


def _same_utterance(first: Utterance, second: Utterance) -> bool:
    """Return whether two utterances are the same stretch of the same file."""
    return (first.start, first.end) == (second.start, second.end) and first.path.samefile(second.path)


def without(corpus: Corpus, hold_out: Sequence[HeldOut]) -> Corpus:
    """Return the corpus without the held-out speakers. Raises InputError for a speaker who is not in the corpus."""
    if not hold_out:
        return corpus
    speakers = sorted({u.speaker for u in corpus.utterances})
    for item in hold_out:
        if item.speaker not in speakers:
            expected = _nearest_or_some(item.speaker, speakers)
            raise InputError(
                f"--hold-out, line {item.line} names the speaker {item.speaker!r}, who is not in {corpus.name}; {expected}"
            )
    names = {item.speaker for item in hold_out}
    remaining = tuple(u for u in corpus.utterances if u.speaker not in names)
    if not remaining:
        raise InputError(f"--hold-out names all {len(names)} speakers of {corpus.name}; expected at least one other")
    count = len(corpus.utterances) - len(remaining)
    note = f"{count} utterances of {len(names)} speakers are held out: {listing(sorted(names))}"
    return replace(corpus, utterances=remaining, notes=(*corpus.notes, note))


def _nearest_or_some(name: str, names: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the nearest of many names, or the first few of them."""
    end = nearest(name, list(names))
    return end if end.startswith("did") else f"expected one of {listing(names)}"
