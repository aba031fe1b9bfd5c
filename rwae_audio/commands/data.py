"""The command line options that select corpora (--data, --test, --hold-out), and their entries in the plan of a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.files import InputError

if TYPE_CHECKING:
    from rwae_audio.data.corpora import Source

DATA_HELP = (
    "{}, as the name of a reader (an4, librispeech, timit, kaldi, folder) and a folder; may be repeated. A corpus is named "
    "after its reader, and with kaldi or folder after its folder; folders with the same name are one corpus"
)


def add_data(parser: argparse.ArgumentParser, use: str) -> None:
    """Add --data to a parser; `use` describes the corpus in the help text."""
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help=DATA_HELP.format(use))


def add_test(parser: argparse.ArgumentParser) -> None:
    """Add --test to a parser."""
    text = "a corpus whose development and test speakers are used; may be repeated (default: the first of --data)"
    parser.add_argument("--test", action="append", default=[], metavar="CORPUS", help=text)


def add_hold_out(parser: argparse.ArgumentParser) -> None:
    """Add --hold-out to a parser."""
    text = "a file with lines `CORPUS SPEAKER`: the utterances of these speakers are not read"
    parser.add_argument("--hold-out", type=Path, metavar="FILE", help=text)


def add_corpora(parser: argparse.ArgumentParser, use: str) -> None:
    """Add --data, --test and --elsewhere to a parser; `use` describes the corpus of --data in the help text."""
    add_data(parser, use)
    add_test(parser)
    text = "another corpus for tests, which is not used for training; may be repeated"
    parser.add_argument("--elsewhere", action="append", default=[], metavar="NAME=DIR", help=text)


def data_plan(options: argparse.Namespace, default: Sequence[Source] = ()) -> dict[str, Any]:
    """Return the entries of a plan for --data, --test and --hold-out.

    Args:
        options: The parsed command line.
        default: The corpora if --data is not given.

    Raises:
        InputError: An option has a wrong value, or there is no corpus.
    """
    from rwae_audio.data.corpora import corpus_sources, read_hold_out

    sources = corpus_sources(options.data) or list(default)
    test = tested(options.test, sources)
    return {"data": sources, "test": test, "hold_out": read_hold_out(options.hold_out, sources)}


def tested(names: Sequence[str], sources: Sequence[Source]) -> list[str]:
    """Return the names of the corpora to test on.

    Args:
        names: The values of --test. If there are none, the result is the first corpus.
        sources: The corpora of --data.

    Raises:
        InputError: There is no corpus, or a name is not among the corpora.
    """
    corpora = list(dict.fromkeys(source.corpus for source in sources))
    if not corpora:
        raise InputError("no corpus was given; expected --data NAME=DIR")
    for name in names:
        if name not in corpora:
            raise InputError(f"--test {name} is not among the corpora given; expected one of {', '.join(corpora)}")
    return list(dict.fromkeys(names)) or corpora[:1]
