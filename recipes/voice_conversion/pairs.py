"""The lists of pairs that evaluate.py judges: which utterance is said in whose voice. They are drawn once, into pairs/.

    python recipes/voice_conversion/pairs.py --data an4=DIR --data timit=DIR                     lists of these corpora
    python recipes/voice_conversion/pairs.py --data kaldi=speechocean762 --data librispeech=DIR  natural sentences

A list has the columns source (the id of an utterance), target (a speaker), voice (ids of the utterances that are converted
with, between spaces) and references (other utterances of that speaker, with which the result is compared). Sources are
utterances that Whisper understands: pairs/*-heard.csv has the character error rate of each one. Half of the pairs are across
gender. Needs the extra `judge`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rwae_audio.commands.common import Parser, guarded, say
from rwae_audio.data.corpora import Corpus, Source, Utterance
from rwae_audio.files import InputError, read_text, write_text

NAME = "pairs.py"
HERE = Path(__file__).resolve().parent
VOICE, REFERENCES = 3, 5  # utterances of a target
LIBRISPEECH = {"26": "m", "27": "m", "5652": "f"}  # the speakers of hold-out.txt, with their genders from SPEAKERS.TXT
LONGEST = 12.0  # seconds of a source of LibriSpeech
EACH = 20  # sources of a speaker of LibriSpeech


class PairList(NamedTuple):
    """The rule by which a list is drawn.

    Attributes:
        corpora: The corpora of its sources; the targets are of the first one, of both in `natural-dev`.
        pairs: The number of pairs.
        most_cer: The highest character error rate of a source as it was recorded.
    """

    corpora: tuple[str, ...]
    pairs: int
    most_cer: float


LISTS = {
    "an4-test": PairList(("an4",), 200, 0.2),
    "an4-dev": PairList(("an4",), 80, 0.2),
    "timit": PairList(("an4", "timit"), 80, 0.2),
    "natural-test": PairList(("speechocean762",), 200, 0.1),
    "natural-dev": PairList(("speechocean762", "librispeech"), 80, 0.1),
}


class Pair(NamedTuple):
    """A source (the id of an utterance), a target (a speaker), and ids of the target's utterances: voice, references."""

    source: str
    target: str
    voice: tuple[str, ...]
    references: tuple[str, ...]


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a corpus; every list whose corpora are given is drawn",
    )
    parser.add_argument("--into", type=Path, default=HERE / "pairs", metavar="DIR", help="where the lists go (pairs/)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    from rwae_audio.data.corpora import by_corpus, corpus_sources

    sources = corpus_sources(options.data)
    given = by_corpus(sources)
    possible = {name: how for name, how in LISTS.items() if set(how.corpora) <= set(given)}
    if not possible:
        raise InputError(
            f"--data names {', '.join(given) or 'nothing'}; expected the corpora of a list, such as an4=DIR"
        )
    from rwae_audio.evaluation.judges import whisper

    corpora = named_corpora(sources)
    hear = whisper(torch.get_num_threads())
    options.into.mkdir(parents=True, exist_ok=True)
    for name, how in possible.items():
        candidates, targets = candidates_of(name, corpora)
        heard = errors(candidates, hear)
        understood = [u for u in candidates if heard[u.id] <= how.most_cer]
        share = f"{len(understood)} of {len(candidates)} utterances have a CER of at most {how.most_cer:.0%}"
        say(NAME, f"{name}: {share}")
        lines = ["id,cer", *(f"{key},{value:.3f}" for key, value in heard.items())]
        write_text(options.into / f"{name}-heard.csv", "\n".join([*lines, ""]))
        pairs = draw_pairs(understood, targets, how.pairs, genders(name, corpora))
        write_pairs(options.into / f"{name}.csv", pairs)
    return 0


def named_corpora(sources: Sequence[Source]) -> dict[str, Corpus]:
    """Return the corpora by their names."""
    from rwae_audio.data.corpora import read_corpora

    return {corpus.name: corpus for corpus in read_corpora(sources)}


def heard_in(name: str, sources: Sequence[Source]) -> dict[str, Utterance]:
    """Return the utterances of a list's corpora by their ids. Raises InputError where `sources` lacks a corpus."""
    needed = LISTS[name].corpora
    given = list(dict.fromkeys(source.corpus for source in sources))
    if not set(needed) <= set(given):
        raise InputError(f"--data names {', '.join(given) or 'nothing'}; expected {' and '.join(sorted(needed))}")
    corpora = named_corpora([source for source in sources if source.corpus in needed])
    return {u.id: u for corpus in corpora.values() for u in corpus.utterances}


def heard_errors(place: Path) -> dict[str, float]:
    """Return the character error rates of all utterances that the lists in `place` were drawn from, as recorded, by id."""
    rows = [
        row for name in LISTS for row in csv.DictReader(read_text(place / f"{name}-heard.csv", "CERs").splitlines())
    ]
    return {row["id"]: float(row["cer"]) for row in rows}


def candidates_of(name: str, corpora: Mapping[str, Corpus]) -> tuple[list[Utterance], list[Utterance]]:
    """Return the utterances of which a list's sources are chosen, and those of its targets."""
    if name.startswith("natural"):
        split = name.removeprefix("natural-")
        sentences = [u for u in corpora["speechocean762"].of(split) if u.text]
        more = {name: librispeech_sentences(corpora, name) for name in LIBRISPEECH} if split == "dev" else {}
        chosen = [u for mine in more.values() for u in mine[:: -(-len(mine) // EACH)]]
        return sentences + chosen, sentences + [u for mine in more.values() for u in mine]
    targets = listed(corpora["an4"], "dev" if name.endswith("dev") else "test")
    if name != "timit":
        return targets, targets
    from rwae_audio.data.audio import load_audio
    from rwae_audio.evaluation.alignment import bytes_lost

    return [u for u in corpora["timit"].utterances if u.text and not bytes_lost(load_audio(u.path))], targets


def librispeech_sentences(corpora: Mapping[str, Corpus], speaker: str) -> list[Utterance]:
    """Return a speaker's utterances of LibriSpeech that have a text and are at most LONGEST seconds long."""
    from rwae_audio.data.audio import duration

    mine = [u for u in corpora["librispeech"].utterances if u.speaker == speaker and u.text]
    return [u for u in mine if duration(u.path) <= LONGEST]


def genders(name: str, corpora: Mapping[str, Corpus]) -> dict[str, str]:
    """Return the gender, f or m, of each speaker: the first letter of the name in AN4 and TIMIT, else as the corpus says."""
    if not name.startswith("natural"):
        return {u.speaker: u.speaker[0] for part in LISTS[name].corpora for u in corpora[part].utterances}
    folders = {u.path.parent.parent.parent for u in corpora["speechocean762"].utterances}  # above WAVE/SPEAKER…/
    lines = [
        line.split()
        for folder in folders
        for path in folder.glob("*/spk2gender")
        for line in path.open(encoding="utf-8")
    ]
    return {**dict(lines), **LIBRISPEECH}


def listed(corpus: Corpus, split: str) -> list[Utterance]:
    """Return the utterances of a corpus's trial list: of AN4's, eight a speaker."""
    from rwae_audio.evaluation.trials import match_names, read_trials

    if split not in corpus.trial_lists:
        raise InputError(
            f"{corpus.name} has no {split} trial list; expected the protocol/ folder beside its recordings"
        )
    known = {u.id: u for u in corpus.utterances}
    return [known[name] for name in match_names(read_trials(corpus.trial_lists[split]), list(known)).names]


def errors(utterances: Sequence[Utterance], hear) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """Return the character error rate of each utterance as it was recorded, by id; hear: judges.whisper's."""
    from tqdm import tqdm

    from rwae_audio.data.audio import load_audio
    from rwae_audio.evaluation.judges import character_error_rate

    everything = tqdm(utterances, "heard", disable=None)
    return {u.id: character_error_rate(u.text or "", hear(load_audio(u.path))) for u in everything}


def draw_pairs(
    sources: Sequence[Utterance],
    targets: Sequence[Utterance],
    count: int,
    gender: Mapping[str, str],
    seed: int = 0,
) -> list[Pair]:
    """Draw `count` pairs of a source and another speaker, every second one across gender.

    Sources come round in a drawn order. gender: of each speaker. Raises InputError when a target has too few utterances, or
    a source no target.
    """
    draw = np.random.default_rng(seed)
    speakers = sorted({u.speaker for u in targets})
    order: list[Utterance] = []
    pairs = []
    for number in range(count):
        if not order:
            order = [sources[i] for i in draw.permutation(len(sources))]
        source = order.pop()
        across = number % 2 == 0
        fitting = [s for s in speakers if s != source.speaker and (gender[s] != gender[source.speaker]) == across]
        if not fitting:
            raise InputError(f"there is no target for {source.id}; expected speakers of both genders")
        target = fitting[draw.integers(len(fitting))]
        ids = sorted(u.id for u in targets if u.speaker == target)
        if len(ids) < VOICE + REFERENCES:
            raise InputError(f"{target} has {len(ids)} utterances; expected {VOICE + REFERENCES} of each target")
        drawn = [ids[i] for i in draw.permutation(len(ids))]
        pairs.append(Pair(source.id, target, tuple(drawn[:VOICE]), tuple(drawn[VOICE : VOICE + REFERENCES])))
    return pairs


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write a list of pairs as a CSV file."""
    rows = [",".join((pair.source, pair.target, " ".join(pair.voice), " ".join(pair.references))) for pair in pairs]
    write_text(path, "\n".join(["source,target,voice,references", *rows, ""]))


def read_pairs(path: Path) -> list[Pair]:
    """Read a list of pairs. Raises InputError when it is not there or none."""
    rows = list(csv.DictReader(read_text(path, "a list of pairs").splitlines()))
    if not rows or set(rows[0]) != set(Pair._fields):
        raise InputError(f"{path} is no list of pairs; expected the columns {', '.join(Pair._fields)}")
    return [
        Pair(row["source"], row["target"], tuple(row["voice"].split()), tuple(row["references"].split()))
        for row in rows
    ]


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
