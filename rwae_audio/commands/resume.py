"""--resume, as every recipe that trains has it: a run goes on as it began, longer if that is wanted, from where its corpora
lie now."""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.commands.common import set_value
from rwae_audio.files import InputError, read_json

if TYPE_CHECKING:
    from rwae_audio.data.corpora import Corpus, Source

BESIDE = ("resume", "data", "set", "threads", "minutes", "no_tensorboard")  # the options that go with it
BEGAN = time.monotonic()
HELP = (
    "go on with the run in this folder, also with a finished one: --set train.updates=N says how far, --data NAME=DIR "
    "where a corpus lies now. What depends on the number of updates, such as the cosine of the learning rate, follows "
    "the new number from there on"
)


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add --resume to a parser."""
    parser.add_argument("--resume", type=Path, metavar="RUN", help=HELP)


def add_minutes(parser: argparse.ArgumentParser) -> None:
    """Add --minutes to a parser."""
    helped = "stop with a checkpoint after so many minutes from now; the run goes on with --resume"
    parser.add_argument("--minutes", type=_minutes, metavar="N", help=helped)


def _minutes(word: str) -> float:
    """Return the number in the word. Raises ArgumentTypeError unless it is above 0."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{word} is no number of minutes; expected more than 0")
    return value


def minutes_left(minutes: float | None) -> float | None:
    """Return what is left of --minutes since the command began, at least 0."""
    return None if minutes is None else max(minutes - (time.monotonic() - BEGAN) / 60, 0.0)


def check_beside_resume(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Raise InputError for an option that a run which goes on would ignore."""
    for name, value in vars(options).items() if options.resume else ():
        if name not in BESIDE and value != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"--resume goes on as the run began; expected no {option} beside it")
        for setting in value if name == "set" else ():
            if not setting.startswith("train.updates="):
                raise InputError(
                    f"--resume goes on as the run began; expected no --set {setting} beside it, only train.updates=N"
                )


def read_plan(folder: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    """The run.json of a run; kinds: the types of what it has to hold. Raises InputError."""
    plan = read_json(folder / "run.json", "the folder of an earlier run")
    whole = isinstance(plan, dict) and all(isinstance(plan.get(name), kind) for name, kind in kinds.items())
    if not whole or not _lists(plan, "data", [str, str, str]) or not _lists(plan, "hold_out", [str, str, int]):
        raise InputError(f"{folder / 'run.json'} does not say what was run; expected the folder of an earlier run")
    return plan


def _lists(plan: Mapping[str, Any], name: str, kinds: Sequence[type]) -> bool:
    """Is this entry of a plan, where it has one, a list of lists of values of these types?"""
    rows = plan.get(name, [])
    return isinstance(rows, list) and all(isinstance(row, list) and [*map(type, row)] == kinds for row in rows)


def moved(sources: Sequence[Source], items: Sequence[str], run: Path) -> list[Source]:
    """The corpora's folders of a run, with those that `--data NAME=DIR` says now.

    NAME is a corpus of the run, or the reader of a single one. All folders of a corpus are replaced by those given, so
    that one with several folders needs all of them. Raises InputError for a corpus of another run.
    """
    from rwae_audio.data.corpora import Source, by_corpus, relocated

    known = by_corpus(sources)
    readers = {name: folders[0].reader for name, folders in known.items()}
    now = []
    for item in items:
        name, _, place = item.partition("=")
        if not place:
            raise InputError(f"--data {item}; expected NAME=DIR")
        meant = [name] if name in known else [corpus for corpus, reader in readers.items() if reader == name]
        if len(meant) != 1:
            what = f"is the reader of {' and '.join(meant)}" if meant else f"is no corpus of the run in {run}"
            raise InputError(f"--data {name} {what}; expected {', '.join(known)}")
        now.append(Source(readers[meant[0]], os.path.abspath(place), meant[0]))
    return relocated(sources, now)


def lengthened(
    plan: Mapping[str, Any], settings: Sequence[str], run: Path, checkpoint: str, script: str
) -> dict[str, Any]:
    """The plan of a run with the updates that --set gives; the command that began the run is kept in `before`.

    checkpoint: the latest one, relative to the run's folder; script: the recipe, relative to the project.
    Raises InputError for fewer updates than the run has made.
    """
    tables = dict(plan["config"])
    for setting in settings:
        set_value(tables, setting)
    updates = tables.get("train", {}).get("updates")
    if tables == plan["config"]:
        return dict(plan)
    latest = run / checkpoint
    if type(updates) is int and latest.is_file():
        from rwae_audio.training.checkpoint import read_position

        if updates < (step := read_position(latest).step):
            raise InputError(
                f"--set train.updates={updates}: the run in {run} has made {step}; expected {step} or more"
            )
    command = f"python {script} --resume {run} --set train.updates={updates}"
    return {**plan, "config": tables, "before": [*plan.get("before", []), plan["command"]], "command": command}


def keep_content(plan: dict[str, Any], corpora: Iterable[Corpus]) -> None:
    """Write into the plan which utterances the corpora have. Raises InputError when the run began with others."""
    before = plan.get("content", {})
    content = {corpus.name: _content(corpus) for corpus in corpora}
    for name, now in content.items():
        if (then := before.get(name, now)) != now:
            counts = f"{now['utterances']:,} now, {then['utterances']:,} then"
            raise InputError(f"{name} has other utterances than when the run began ({counts}); expected the same")
    plan["content"] = content


def _content(corpus: Corpus) -> dict[str, Any]:
    """The number of utterances, and a digest of their ids, speakers, splits and stretches in their order."""
    lines = (f"{u.id}\t{u.speaker}\t{u.split}\t{u.start}\t{u.end}\n" for u in corpus.utterances)
    return {
        "utterances": len(corpus.utterances),
        "sha256": hashlib.sha256("".join(lines).encode()).hexdigest()[:16],
    }
