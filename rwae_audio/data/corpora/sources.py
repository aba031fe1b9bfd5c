"""What --data and --hold-out say: which folders are read, as which corpora, and without which speakers.

`--data NAME=DIR` names a reader and a folder, as often as there are folders. Folders of one reader that have one corpus name
become one corpus, in which a speaker's name is one speaker. A line of a hold-out file is `CORPUS SPEAKER`.
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
    """One folder of a corpus: the reader's name, the absolute folder ("" of a corpus in the package), the corpus's name."""

    reader: str
    folder: str
    corpus: str


class HeldOut(NamedTuple):
    """A speaker that nothing is read of, and the line of the hold-out file that says so."""

    corpus: str
    speaker: str
    line: int


def corpus_sources(items: Sequence[str], option: str = "--data") -> list[Source]:
    """Return what `--data NAME=DIR` (or another option) says, a source an item.

    A corpus is called as its reader is, and after its folder where the reader is `folder` or `kaldi`. Raises InputError
    for an unknown reader, and for two readers' corpora of one name.
    """
    found: list[Source] = []
    for item in items:
        name, _, place = item.partition("=")
        if not place or name not in READERS:
            raise InputError(f"{option} {item}; expected NAME=DIR, {nearest(name, sorted(READERS))}")
        folder = os.path.abspath(place)
        found.append(Source(name, folder, folder_name(Path(folder)) if name in NAMED_AFTER_FOLDER else name))
    for one in found:
        if other := next((s for s in found if s.corpus == one.corpus and s.reader != one.reader), None):
            both = f"{one.reader}={one.folder} and {other.reader}={other.folder}"
            raise InputError(f"{option} {both} are both called {one.corpus}; expected a folder of another name")
    return found


def by_corpus(sources: Sequence[Source]) -> dict[str, tuple[Source, ...]]:
    """The folders of each corpus, in the order in which the corpora were first named."""
    return {name: tuple(s for s in sources if s.corpus == name) for name in dict.fromkeys(s.corpus for s in sources)}


def relocated(sources: Sequence[Source], now: Sequence[Source]) -> list[Source]:
    """The sources, with all folders of a corpus that `now` names replaced by those of `now`."""
    moved = by_corpus(now)
    return [s for name, folders in by_corpus(sources).items() for s in moved.get(name, folders)]


def read_hold_out(path: Path | None, sources: Sequence[Source]) -> list[HeldOut]:
    """Return the speakers of a hold-out file, none without a file.

    `#` begins a comment. Raises InputError, with the line, for one that is not `CORPUS SPEAKER` and for a corpus that no
    source has.
    """
    if path is None:
        return []
    known, found = list(by_corpus(sources)), []
    for number, line in enumerate(read_text(path, "lines such as `CORPUS SPEAKER`").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2:
            raise InputError(f"{path}, line {number} is {line.strip()[:80]!r}; expected `CORPUS SPEAKER`")
        if words[0] not in known:
            given = nearest(words[0], known) if known else "expected a corpus that --data gives"
            raise InputError(f"{path}, line {number} names the corpus {words[0]!r}, which is not given; {given}")
        found.append(HeldOut(words[0], words[1], number))
    return found


def read_corpora(
    sources: Sequence[Source],
    hold_out: Sequence[HeldOut] = (),
    options: Mapping[str, Mapping[str, bool]] | None = None,
) -> list[Corpus]:
    """Return the corpora of all sources, each read, merged, and without the speakers that are held out.

    options: of a reader, by its name: those of read_corpus. Raises InputError when a folder cannot be read, folders
    cannot be one corpus, or a speaker to hold out is not there.
    """
    corpora = []
    for name, folders in by_corpus(sources).items():
        parts: dict[str, Corpus] = {}
        for source in folders:
            how = (options or {}).get(source.reader, {})
            place = Path(source.folder) if source.folder else None
            if source.folder not in parts:
                parts[source.folder] = replace(read_corpus(source.reader, place, **how), name=name)
        corpora.append(without(merged(parts), [held for held in hold_out if held.corpus == name]))
    return corpora


def merged(parts: Mapping[str, Corpus]) -> Corpus:
    """Return one corpus of those of several folders, which have one name; parts: folder → what is in it.

    An utterance that two folders have as the same file is read once. Raises InputError for an id of two files, for a
    speaker in two splits and for two trial lists of one split.
    """
    first, *others = parts.values()
    if not others:
        return first
    found: dict[str, tuple[str, Utterance]] = {}
    split: dict[str, tuple[str, str]] = {}
    lists: dict[str, Path] = {}
    for folder, corpus in parts.items():
        for u in corpus.utterances:
            place, known = found.setdefault(u.id, (folder, u))
            if known is not u and not _same_utterance(known, u):
                raise InputError(f"{place} and {folder} both have the utterance {u.id} of {corpus.name}; expected one")
            where, kind = split.setdefault(u.speaker, (folder, u.split))
            if kind != u.split:
                kinds = f"for {kind} in {where} and for {u.split} in {folder}"
                raise InputError(f"the speaker {u.speaker} of {corpus.name} is {kinds}; expected one of them")
        for kind, path in corpus.trial_lists.items():
            if not lists.setdefault(kind, path).samefile(path):
                raise InputError(f"{lists[kind]} and {path} are two lists of {corpus.name}; expected one")
    return replace(
        first,
        utterances=tuple(u for _, u in found.values()),
        trial_lists=lists,
        notes=tuple(f"{folder}: {note}" for folder, corpus in parts.items() for note in corpus.notes),
        synthetic=all(corpus.synthetic for corpus in parts.values()),
        partial="; ".join(dict.fromkeys(c.partial for c in parts.values() if c.partial)),
        credit=" ".join(dict.fromkeys(c.credit for c in parts.values() if c.credit)),
    )


def _same_utterance(one: Utterance, other: Utterance) -> bool:
    return (one.start, one.end) == (other.start, other.end) and one.path.samefile(other.path)


def without(corpus: Corpus, hold_out: Sequence[HeldOut]) -> Corpus:
    """Return the corpus without the utterances of these speakers. Raises InputError when one of them is not there."""
    if not hold_out:
        return corpus
    known = sorted({u.speaker for u in corpus.utterances})
    for held in hold_out:
        if held.speaker not in known:
            close = _nearest_or_some(held.speaker, known)
            raise InputError(
                f"--hold-out, line {held.line} names the speaker {held.speaker!r}, who is not in {corpus.name}; {close}"
            )
    gone = {held.speaker for held in hold_out}
    left = tuple(u for u in corpus.utterances if u.speaker not in gone)
    if not left:
        raise InputError(f"--hold-out names all {len(gone)} speakers of {corpus.name}; expected some to be left")
    note = (
        f"{len(corpus.utterances) - len(left)} utterances of {len(gone)} speakers are held out: {listing(sorted(gone))}"
    )
    return replace(corpus, utterances=left, notes=(*corpus.notes, note))


def _nearest_or_some(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name of very many: the nearest known one, or the first few."""
    close = nearest(name, list(known))
    return close if close.startswith("did") else f"expected one of {listing(known)}"
