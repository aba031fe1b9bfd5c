"""Which utterance is said in whose voice: the lists that evaluate.py goes by, drawn once and kept in pairs/.

    python recipes/voice_conversion/pairs.py --data an4=DIR --data timit=DIR         makes them anew (extra `judge`)

A list has the columns source (an utterance's id), target (a speaker), voice (the utterances that are converted with, ids
between spaces) and references (other utterances of that speaker, which the result is compared with). Sources are those that
Whisper understands: pairs/*-heard.csv has each one's character error rate, and at most 20 % is asked for. Half of the pairs
are across gender (the first letter of a speaker's name in AN4 and TIMIT).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rwae_audio.commands.common import Parser, guarded, say
from rwae_audio.data.corpora import Corpus, Source, Utterance
from rwae_audio.files import InputError, read_text, write_text

NAME = "pairs.py"
HERE = Path(__file__).resolve().parent
MOST_CER = 0.2
VOICE, REFERENCES = 3, 5  # utterances of a target
LISTS = {"an4-test": 200, "an4-dev": 80, "timit": 80}  # how many pairs


class Pair(NamedTuple):
    """source: an utterance's id; target: a speaker; voice, references: ids of utterances of the target."""

    source: str
    target: str
    voice: tuple[str, ...]
    references: tuple[str, ...]


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="an4 and timit")
    parser.add_argument("--into", type=Path, default=HERE / "pairs", metavar="DIR", help="the lists (pairs/)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    from rwae_audio.data.corpora import by_corpus, corpus_sources

    sources = corpus_sources(options.data)
    if set(given := by_corpus(sources)) != {"an4", "timit"}:
        raise InputError(f"--data names {', '.join(given) or 'nothing'}; expected an4=DIR and timit=DIR")
    from rwae_audio.evaluation.judges import whisper

    corpora = named_corpora(sources)
    hear = whisper(threads=2)
    options.into.mkdir(parents=True, exist_ok=True)
    for name, count in LISTS.items():
        sources = sources_of(name, corpora)
        heard = errors(sources, hear)
        understood = [u for u in sources if heard[u.id] <= MOST_CER]
        say(NAME, f"{name}: {len(understood)} of {len(sources)} utterances have a CER of at most {MOST_CER:.0%}")
        lines = ["id,cer", *(f"{key},{value:.3f}" for key, value in heard.items())]
        write_text(options.into / f"{name}-heard.csv", "\n".join([*lines, ""]))
        targets = listed(corpora["an4"], "dev" if name.endswith("dev") else "test")
        write_pairs(options.into / f"{name}.csv", draw_pairs(understood, targets, count))
    return 0


def named_corpora(sources: Sequence[Source]) -> dict[str, Corpus]:
    """The corpora by their names."""
    from rwae_audio.data.corpora import read_corpora

    return {corpus.name: corpus for corpus in read_corpora(sources)}


def heard_in(listed: str, sources: Sequence[Source]) -> dict[str, Utterance]:
    """The utterances, by their ids, that a list's pairs are of. Raises InputError where `sources` lacks one of its corpora."""
    needed = {"an4", "timit"} if listed == "timit" else {"an4"}
    given = list(dict.fromkeys(source.corpus for source in sources))
    if not needed <= set(given):
        raise InputError(f"--data names {', '.join(given) or 'nothing'}; expected {' and '.join(sorted(needed))}")
    corpora = named_corpora([source for source in sources if source.corpus in needed])
    return {u.id: u for corpus in corpora.values() for u in corpus.utterances}


def heard_errors(place: Path) -> dict[str, float]:
    """The character error rates of all utterances that the lists in `place` were drawn from, as they were recorded, by id."""
    rows = [
        row for name in LISTS for row in csv.DictReader(read_text(place / f"{name}-heard.csv", "CERs").splitlines())
    ]
    return {row["id"]: float(row["cer"]) for row in rows}


def sources_of(name: str, corpora: Mapping[str, Corpus]) -> list[Utterance]:
    """The utterances of which a list's sources are chosen: the trial list's, or TIMIT's that lost no bytes."""
    if name != "timit":
        return listed(corpora["an4"], name.removeprefix("an4-"))
    from rwae_audio.data.audio import load_audio
    from rwae_audio.evaluation.alignment import bytes_lost

    return [u for u in corpora["timit"].utterances if u.text and not bytes_lost(load_audio(u.path))]


def listed(corpus: Corpus, split: str) -> list[Utterance]:
    """The utterances of a corpus's trial list: of AN4's, eight a speaker."""
    from rwae_audio.evaluation.trials import match_names, read_trials

    if split not in corpus.trial_lists:
        raise InputError(
            f"{corpus.name} has no {split} trial list; expected the protocol/ folder beside its recordings"
        )
    known = {u.id: u for u in corpus.utterances}
    return [known[name] for name in match_names(read_trials(corpus.trial_lists[split]), list(known)).names]


def errors(utterances: Sequence[Utterance], hear) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """The character error rate of each utterance as it was recorded, by id; hear: judges.whisper's."""
    from tqdm import tqdm

    from rwae_audio.data.audio import load_audio
    from rwae_audio.evaluation.judges import character_error_rate

    everything = tqdm(utterances, "heard", disable=None)
    return {u.id: character_error_rate(u.text or "", hear(load_audio(u.path))) for u in everything}


def draw_pairs(sources: Sequence[Utterance], targets: Sequence[Utterance], count: int, seed: int = 0) -> list[Pair]:
    """`count` pairs of a source and another speaker, every second one across gender; sources come round in a drawn order.

    Raises InputError when a target has too few utterances, or a source no target.
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
        fitting = [s for s in speakers if s != source.speaker and (s[0] != source.speaker[0]) == across]
        if not fitting:
            raise InputError(f"there is no target for {source.id}; expected speakers of both genders (f…, m…)")
        target = fitting[draw.integers(len(fitting))]
        ids = sorted(u.id for u in targets if u.speaker == target)
        if len(ids) < VOICE + REFERENCES:
            raise InputError(f"{target} has {len(ids)} utterances; expected {VOICE + REFERENCES} of each target")
        drawn = [ids[i] for i in draw.permutation(len(ids))]
        pairs.append(Pair(source.id, target, tuple(drawn[:VOICE]), tuple(drawn[VOICE : VOICE + REFERENCES])))
    return pairs


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """The counterpart of read_pairs."""
    rows = [",".join((pair.source, pair.target, " ".join(pair.voice), " ".join(pair.references))) for pair in pairs]
    write_text(path, "\n".join(["source,target,voice,references", *rows, ""]))


def read_pairs(path: Path) -> list[Pair]:
    """A list of pairs. Raises InputError when it is not there or none."""
    rows = list(csv.DictReader(read_text(path, "a list of pairs").splitlines()))
    if not rows or set(rows[0]) != set(Pair._fields):
        raise InputError(f"{path} is no list of pairs; expected the columns {', '.join(Pair._fields)}")
    return [
        Pair(row["source"], row["target"], tuple(row["voice"].split()), tuple(row["references"].split()))
        for row in rows
    ]


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
