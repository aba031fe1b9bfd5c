"""Draw the lists of pairs for evaluate.py, each of which is a source utterance and a target speaker (extra `judge`).

    python recipes/voice_conversion/pairs.py --data an4=DIR --data timit=DIR                     lists of these corpora
    python recipes/voice_conversion/pairs.py --data kaldi=speechocean762 --data librispeech=DIR  natural sentences

The lists in pairs/ were drawn once. Their columns are:

    source        the id of an utterance, which Whisper understands
    target        a speaker; the genders of source and target differ in half of the pairs
    voice         the ids of the target's utterances from which the voice is computed, with spaces between them
    references    the ids of other utterances of the target, with which the conversion is compared

pairs/<list>-heard.csv has Whisper's character error rate (CER) for each utterance that could be a source.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rwae_audio.commands.common import Parser, guarded, say
from rwae_audio.data.corpora import Corpus, Source, Utterance
from rwae_audio.files import InputError, read_text, write_text

NAME = "pairs.py"
HERE = Path(__file__).resolve().parent
VOICE, REFERENCES = 3, 5  # utterances of a target for its voice and for comparisons
LIBRISPEECH = {"26": "m", "27": "m", "5652": "f"}  # the speakers in hold-out.txt, with their genders from SPEAKERS.TXT
LONGEST = 12.0  # seconds, the longest utterance of LibriSpeech
EACH = 20  # sources from each speaker of LibriSpeech


class PairList(NamedTuple):
    """The definition of a list.

    Attributes:
        corpora: The corpora of the list. Targets are from the first corpus, and in `natural-dev` from both.
        pairs: The number of pairs.
        most_cer: The highest character error rate of a source.
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
    """A pair of a source and a target.

    Attributes:
        source: The id of the source utterance.
        target: The target speaker.
        voice: The ids of the target's utterances from which the voice is computed.
        references: The ids of other utterances of the target, with which the conversion is compared.
    """

    source: str
    target: str
    voice: tuple[str, ...]
    references: tuple[str, ...]


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a corpus; all lists that need no other corpora are drawn",
    )
    into = "the folder of the lists (default: pairs/)"
    parser.add_argument("--into", type=Path, default=HERE / "pairs", metavar="DIR", help=into)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    from rwae_audio.data.corpora import by_corpus, corpus_sources

    sources = corpus_sources(options.data)
    names = by_corpus(sources)
    possible = {name: rule for name, rule in LISTS.items() if set(rule.corpora) <= set(names)}
    if not possible:
        raise InputError(
            f"--data names {', '.join(names) or 'nothing'}; expected the corpora of a list, such as an4=DIR"
        )
    from rwae_audio.evaluation.judges import whisper

    corpora = named_corpora(sources)
    transcribe = whisper(torch.get_num_threads())
    options.into.mkdir(parents=True, exist_ok=True)
    for name, rule in possible.items():
        candidates, targets = candidates_of(name, corpora)
        errors = error_rates(candidates, transcribe)
        understood = [u for u in candidates if errors[u.id] <= rule.most_cer]
        share = f"{len(understood)} of {len(candidates)} utterances have a CER of at most {rule.most_cer:.0%}"
        say(NAME, f"{name}: {share}")
        lines = ["id,cer", *(f"{key},{error:.3f}" for key, error in errors.items())]
        write_text(options.into / f"{name}-heard.csv", "\n".join([*lines, ""]))
        pairs = draw_pairs(understood, targets, rule.pairs, genders(name, corpora))
        write_pairs(options.into / f"{name}.csv", pairs)
    return 0


def named_corpora(sources: Sequence[Source]) -> dict[str, Corpus]:
    """Return the corpora by their names."""
    from rwae_audio.data.corpora import read_corpora

    return {corpus.name: corpus for corpus in read_corpora(sources)}


def heard_in(name: str, sources: Sequence[Source]) -> dict[str, Utterance]:
    """Return the utterances of the corpora of a list by their ids.

    Args:
        name: The name of the list.
        sources: The sources of --data.

    Raises:
        InputError: A corpus of the list is missing.
    """
    needed = LISTS[name].corpora
    available = list(dict.fromkeys(source.corpus for source in sources))
    if not set(needed) <= set(available):
        raise InputError(f"--data names {', '.join(available) or 'nothing'}; expected {' and '.join(sorted(needed))}")
    corpora = named_corpora([source for source in sources if source.corpus in needed])
    return {u.id: u for corpus in corpora.values() for u in corpus.utterances}


def heard_errors(folder: Path) -> dict[str, float]:
    """Return the character error rates in all files <list>-heard.csv of a folder, by the ids of utterances."""
    rows = [
        row for name in LISTS for row in csv.DictReader(read_text(folder / f"{name}-heard.csv", "CERs").splitlines())
    ]
    return {row["id"]: float(row["cer"]) for row in rows}


def candidates_of(name: str, corpora: Mapping[str, Corpus]) -> tuple[list[Utterance], list[Utterance]]:
    """Return the utterances that can be sources of a list, and the utterances of its targets.

    Args:
        name: The name of the list.
        corpora: The corpora by name.
    """
    if name.startswith("natural"):
        split = name.removeprefix("natural-")
        sentences = [u for u in corpora["speechocean762"].of(split) if u.text]
        speakers = [librispeech_sentences(corpora, name) for name in LIBRISPEECH] if split == "dev" else []
        chosen = [u for utterances in speakers for u in utterances[:: -(-len(utterances) // EACH)]]
        return sentences + chosen, sentences + [u for utterances in speakers for u in utterances]
    targets = listed(corpora["an4"], "dev" if name.endswith("dev") else "test")
    if name != "timit":
        return targets, targets
    from rwae_audio.data.audio import load_audio
    from rwae_audio.evaluation.alignment import bytes_lost

    return [u for u in corpora["timit"].utterances if u.text and not bytes_lost(load_audio(u.path))], targets


def librispeech_sentences(corpora: Mapping[str, Corpus], speaker: str) -> list[Utterance]:
    """Return the utterances of a speaker of LibriSpeech that have a text and at most LONGEST seconds."""
    from rwae_audio.data.audio import duration

    with_text = [u for u in corpora["librispeech"].utterances if u.speaker == speaker and u.text]
    return [u for u in with_text if duration(u.path) <= LONGEST]


def genders(name: str, corpora: Mapping[str, Corpus]) -> dict[str, str]:
    """Return the gender (f or m) of each speaker of a list.

    It is the first letter of the speaker's name in AN4 and TIMIT. speechocean762 has a file with genders.

    Args:
        name: The name of the list.
        corpora: The corpora by name.
    """
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
    """Return the utterances in the trial list of a split of a corpus; AN4's lists have eight of each speaker.

    Raises:
        InputError: The corpus has no such list.
    """
    from rwae_audio.evaluation.trials import match_names, read_trials

    if split not in corpus.trial_lists:
        raise InputError(
            f"{corpus.name} has no {split} trial list; expected the protocol/ folder beside its recordings"
        )
    by_id = {u.id: u for u in corpus.utterances}
    return [by_id[name] for name in match_names(read_trials(corpus.trial_lists[split]), list(by_id)).names]


def error_rates(utterances: Sequence[Utterance], transcribe: Callable[[np.ndarray], str]) -> dict[str, float]:
    """Return the character error rate of each utterance by its id.

    Args:
        utterances: The utterances.
        transcribe: A function from samples (N,) at 16 kHz to words, such as judges.whisper().
    """
    from tqdm import tqdm

    from rwae_audio.data.audio import load_audio
    from rwae_audio.evaluation.judges import character_error_rate

    with_bar = tqdm(utterances, "transcribed", disable=None)
    return {u.id: character_error_rate(u.text or "", transcribe(load_audio(u.path))) for u in with_bar}


def draw_pairs(
    sources: Sequence[Utterance],
    targets: Sequence[Utterance],
    count: int,
    gender: Mapping[str, str],
    seed: int = 0,
) -> list[Pair]:
    """Draw pairs of a source and another speaker, of another gender in every second pair.

    Each source is drawn once before a source is drawn again.

    Args:
        sources: The utterances that can be sources.
        targets: The utterances of the targets.
        count: The number of pairs.
        gender: The gender of each speaker.
        seed: The seed of the draws.

    Raises:
        InputError: A target has too few utterances, or there is no target of the required gender.
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
        eligible = [s for s in speakers if s != source.speaker and (gender[s] != gender[source.speaker]) == across]
        if not eligible:
            raise InputError(f"there is no target for {source.id}; expected speakers of both genders")
        target = eligible[draw.integers(len(eligible))]
        ids = sorted(u.id for u in targets if u.speaker == target)
        if len(ids) < VOICE + REFERENCES:
            raise InputError(f"{target} has {len(ids)} utterances; expected {VOICE + REFERENCES} of each target")
        ids = [ids[i] for i in draw.permutation(len(ids))]
        pairs.append(Pair(source.id, target, tuple(ids[:VOICE]), tuple(ids[VOICE : VOICE + REFERENCES])))
    return pairs


def chosen_pairs(name: str, numbers: Sequence[int]) -> list[Pair]:
    """Return some pairs of a list.

    Args:
        name: The name of the list.
        numbers: The indices of the pairs.

    Raises:
        InputError: A number is outside of the list.
    """
    pairs = read_pairs(HERE / "pairs" / f"{name}.csv")
    if wrong := [number for number in numbers if not 0 <= number < len(pairs)]:
        raise InputError(f"--pairs {wrong[0]}; expected numbers from 0 to {len(pairs) - 1}")
    return [pairs[number] for number in numbers]


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write a list of pairs as a CSV file."""
    rows = [",".join((pair.source, pair.target, " ".join(pair.voice), " ".join(pair.references))) for pair in pairs]
    write_text(path, "\n".join(["source,target,voice,references", *rows, ""]))


def read_pairs(path: Path) -> list[Pair]:
    """Read a list of pairs.

    Raises:
        InputError: The file does not exist or has other columns.
    """
    rows = list(csv.DictReader(read_text(path, "a list of pairs").splitlines()))
    if not rows or set(rows[0]) != set(Pair._fields):
        raise InputError(f"{path} is not a list of pairs; expected the columns {', '.join(Pair._fields)}")
    return [
        Pair(row["source"], row["target"], tuple(row["voice"].split()), tuple(row["references"].split()))
        for row in rows
    ]


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
