"""The corpora of --data and --hold-out: which folders are read, as which corpora, without which speakers.

`--data NAME=DIR` names a reader and a folder; it is repeated for further folders. Folders with the same reader and the
same corpus name become one corpus, in which a speaker's name is one speaker. A hold-out file has lines `CORPUS SPEAKER`.
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
    """A folder of a corpus: the reader's name, the absolute path ("" for a corpus in the package), the corpus's name."""

    reader: str
    folder: str
    corpus: str


class HeldOut(NamedTuple):
    """A speaker whose utterances are not read, and the number of the line in the hold-out file."""

    corpus: str
    speaker: str
    line: int


def corpus_sources(items: Sequence[str], option: str = "--data") -> list[Source]:
    """Return the sources of `--data NAME=DIR` or of another option of that form.

    A corpus is called after its reader, or after its folder if the reader is `folder` or `kaldi`.

    Args:
        items: The values of the option.
        option: The name of the option in messages.

    Raises:
        InputError: A reader is unknown, or corpora of two readers have the same name.
    """
    sources: list[Source] = []
    for item in items:
        name, _, place = item.partition("=")
        if not place or name not in READERS:
            raise InputError(f"{option} {item}; expected NAME=DIR, {nearest(name, sorted(READERS))}")
        folder = os.path.abspath(place)
        sources.append(Source(name, folder, folder_name(Path(folder)) if name in NAMED_AFTER_FOLDER else name))
    for source in sources:
        if other := next((s for s in sources if s.corpus == source.corpus and s.reader != source.reader), None):
            both = f"{source.reader}={source.folder} and {other.reader}={other.folder}"
            raise InputError(f"{option} {both} are both called {source.corpus}; expected a folder of another name")
    return sources


def by_corpus(sources: Sequence[Source]) -> dict[str, tuple[Source, ...]]:
    """Return the sources of each corpus, in the order in which the corpora were first named."""
    return {name: tuple(s for s in sources if s.corpus == name) for name in dict.fromkeys(s.corpus for s in sources)}


def relocated(sources: Sequence[Source], new: Sequence[Source]) -> list[Source]:
    """Return the sources, with all folders of each corpus in `new` replaced by those of `new`."""
    moved = by_corpus(new)
    return [s for name, folders in by_corpus(sources).items() for s in moved.get(name, folders)]


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
            raise InputError(f"{path}, line {number} names the corpus {words[0]!r}, which is not given; {expected}")
        held_out.append(HeldOut(words[0], words[1], number))
    return held_out


def read_corpora(
    sources: Sequence[Source],
    hold_out: Sequence[HeldOut] = (),
    options: Mapping[str, Mapping[str, bool]] | None = None,
) -> list[Corpus]:
    """Read the corpora of all sources, merge their folders, and remove the speakers that are held out.

    Args:
        sources: The folders of the corpora.
        hold_out: The speakers to remove.
        options: The options of each reader by its name, as `read_corpus` takes them.

    Raises:
        InputError: A folder cannot be read, folders cannot be merged, or a speaker to hold out does not exist.
    """
    corpora = []
    for name, folders in by_corpus(sources).items():
        parts: dict[str, Corpus] = {}
        for source in folders:
            settings = (options or {}).get(source.reader, {})
            place = Path(source.folder) if source.folder else None
            if source.folder not in parts:
                parts[source.folder] = replace(read_corpus(source.reader, place, **settings), name=name)
        corpora.append(without(merged(parts), [item for item in hold_out if item.corpus == name]))
    return corpora


def merged(parts: Mapping[str, Corpus]) -> Corpus:
    """Merge the parts of a corpus, given by folder, into one corpus.

    An utterance that is the same file in two folders is read once. Raises InputError for an id with two files, a speaker
    in two splits and two trial lists of a split.
    """
    first = next(iter(parts.values()))
    if len(parts) == 1:
        return first
    utterances: dict[str, tuple[str, Utterance]] = {}
    split: dict[str, tuple[str, str]] = {}
    lists: dict[str, Path] = {}
    for folder, corpus in parts.items():
        for u in corpus.utterances:
            place, first_utterance = utterances.setdefault(u.id, (folder, u))
            if first_utterance is not u and not _same_utterance(first_utterance, u):
                raise InputError(f"{place} and {folder} both have the utterance {u.id} of {corpus.name}; expected one")
            where, kind = split.setdefault(u.speaker, (folder, u.split))
            if kind != u.split:
                kinds = f"for {kind} in {where} and for {u.split} in {folder}"
                raise InputError(f"the speaker {u.speaker} of {corpus.name} is {kinds}; expected one split")
        for kind, path in corpus.trial_lists.items():
            if not lists.setdefault(kind, path).samefile(path):
                raise InputError(f"{lists[kind]} and {path} are two lists of {corpus.name}; expected one")
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
    return (first.start, first.end) == (second.start, second.end) and first.path.samefile(second.path)


def without(corpus: Corpus, hold_out: Sequence[HeldOut]) -> Corpus:
    """Return the corpus without the speakers of `hold_out`. Raises InputError for a speaker who is not in it."""
    if not hold_out:
        return corpus
    speakers = sorted({u.speaker for u in corpus.utterances})
    for item in hold_out:
        if item.speaker not in speakers:
            close = _nearest_or_some(item.speaker, speakers)
            raise InputError(
                f"--hold-out, line {item.line} names the speaker {item.speaker!r}, who is not in {corpus.name}; {close}"
            )
    names = {item.speaker for item in hold_out}
    remaining = tuple(u for u in corpus.utterances if u.speaker not in names)
    if not remaining:
        raise InputError(f"--hold-out names all {len(names)} speakers of {corpus.name}; expected at least one other")
    count = len(corpus.utterances) - len(remaining)
    note = f"{count} utterances of {len(names)} speakers are held out: {listing(sorted(names))}"
    return replace(corpus, utterances=remaining, notes=(*corpus.notes, note))


def _nearest_or_some(name: str, names: Sequence[str]) -> str:
    """Return the end of a message about an unknown name among many: the nearest one, or the first few."""
    close = nearest(name, list(names))
    return close if close.startswith("did") else f"expected one of {listing(names)}"
