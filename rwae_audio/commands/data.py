"""The options --data, --test and --hold-out of the recipes, and their entries in the plan of a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.files import InputError

if TYPE_CHECKING:
    from rwae_audio.data.corpora import Source

DATA_HELP = (
    "{}: a reader (an4, librispeech, timit, kaldi, folder) and a folder; repeat it for further folders. Folders of one "
    "corpus are read together; a corpus of kaldi or folder is called after its folder"
)


def add_data(parser: argparse.ArgumentParser, use: str) -> None:
    """Add --data to a parser; `use` describes the corpus in its help."""
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help=DATA_HELP.format(use))


def add_test(parser: argparse.ArgumentParser) -> None:
    """Add --test to a parser."""
    text = "a corpus to test on, with its development and test speakers; may be repeated (the first of --data)"
    parser.add_argument("--test", action="append", default=[], metavar="CORPUS", help=text)


def add_hold_out(parser: argparse.ArgumentParser) -> None:
    """Add --hold-out to a parser."""
    text = "a file with lines `CORPUS SPEAKER`, speakers whose utterances are not read"
    parser.add_argument("--hold-out", type=Path, metavar="FILE", help=text)


def add_corpora(parser: argparse.ArgumentParser, use: str) -> None:
    """Add --data, --test and --elsewhere to a parser; `use` as in `add_data`."""
    add_data(parser, use)
    add_test(parser)
    text = "a corpus to test on that is not trained on; may be repeated"
    parser.add_argument("--elsewhere", action="append", default=[], metavar="NAME=DIR", help=text)


def data_plan(options: argparse.Namespace, default: Sequence[Source] = ()) -> dict[str, Any]:
    """Return the entries of a plan for --data (or `default`), --test and --hold-out. Raises InputError."""
    from rwae_audio.data.corpora import corpus_sources, read_hold_out

    sources = corpus_sources(options.data) or list(default)
    test = tested(options.test, sources)
    return {"data": sources, "test": test, "hold_out": read_hold_out(options.hold_out, sources)}


def tested(names: Sequence[str], sources: Sequence[Source]) -> list[str]:
    """Return the corpora to test on: those of --test, or the first of the sources. Raises InputError."""
    corpora = list(dict.fromkeys(source.corpus for source in sources))
    if not corpora:
        raise InputError("no corpus was given; expected --data NAME=DIR")
    for name in names:
        if name not in corpora:
            raise InputError(f"--test {name} is not among the corpora given; expected one of {', '.join(corpora)}")
    return list(dict.fromkeys(names)) or corpora[:1]
