"""The options --data, --test, --elsewhere and --hold-out, and what a plan keeps of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.files import InputError

if TYPE_CHECKING:
    from rwae_audio.data.corpora import Source

DATA_HELP = (
    "{}, as its reader (an4, librispeech, timit, kaldi, folder) and its folder; may be given more than once. Folders of one "
    "reader are one corpus, but a corpus of kaldi or folder is named after its folder"
)


def add_data(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --data; what: the use of a corpus, such as `a corpus to train on`."""
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help=DATA_HELP.format(what))


def add_test(parser: argparse.ArgumentParser) -> None:
    """Add --test."""
    helped = (
        "a corpus whose test speakers the model is measured on; may be given more than once (default: the first corpus)"
    )
    parser.add_argument("--test", action="append", default=[], metavar="CORPUS", help=helped)


def add_hold_out(parser: argparse.ArgumentParser) -> None:
    """Add --hold-out."""
    helped = "a file of speakers that are left out of everything, in lines `CORPUS SPEAKER`"
    parser.add_argument("--hold-out", type=Path, metavar="FILE", help=helped)


def add_corpora(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --data, --test and --elsewhere; what: as in `add_data`."""
    add_data(parser, what)
    add_test(parser)
    helped = "a corpus to test on that nothing is trained on; may be given more than once"
    parser.add_argument("--elsewhere", action="append", default=[], metavar="NAME=DIR", help=helped)


def data_plan(options: argparse.Namespace, default: Sequence[Source] = ()) -> dict[str, Any]:
    """Return what a plan keeps of --data (`default`, without any), --test and --hold-out. Raises InputError."""
    from rwae_audio.data.corpora import corpus_sources, read_hold_out

    sources = corpus_sources(options.data) or list(default)
    test = tested(options.test, sources)
    return {"data": sources, "test": test, "hold_out": read_hold_out(options.hold_out, sources)}


def tested(names: Sequence[str], sources: Sequence[Source]) -> list[str]:
    """Return the corpora to test on: those that --test names, or the first one. Raises InputError."""
    known = list(dict.fromkeys(source.corpus for source in sources))
    if not known:
        raise InputError("no corpus was given; expected --data NAME=DIR")
    for name in names:
        if name not in known:
            raise InputError(f"--test {name} is not among the corpora given; expected one of {', '.join(known)}")
    return list(dict.fromkeys(names)) or known[:1]
