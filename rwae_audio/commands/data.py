"""--data, --test and --hold-out, as every recipe has them, and what a plan keeps of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.files import InputError

if TYPE_CHECKING:
    from rwae_audio.data.corpora import Source

DATA_HELP = (
    "{}: the reader (an4, librispeech, timit, kaldi, folder) and a folder; once for each folder. Folders of one corpus are "
    "read together; a corpus of kaldi or folder is called after its folder"
)


def add_data(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --data; what: of which use a corpus is."""
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help=DATA_HELP.format(what))


def add_test(parser: argparse.ArgumentParser) -> None:
    """Add --test."""
    helped = "a corpus whose development and test speakers are asked; once for each (the first one given)"
    parser.add_argument("--test", action="append", default=[], metavar="CORPUS", help=helped)


def add_hold_out(parser: argparse.ArgumentParser) -> None:
    """Add --hold-out."""
    helped = "nothing is read of the speakers that this file names, in lines `CORPUS SPEAKER`"
    parser.add_argument("--hold-out", type=Path, metavar="FILE", help=helped)


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
