"""The option --resume of the recipes that train: continue a run, with more updates or moved corpora if wanted."""

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

BESIDE = (
    "resume",
    "data",
    "set",
    "threads",
    "minutes",
    "no_tensorboard",
)  # the options that are allowed beside --resume
BEGAN = time.monotonic()
HELP = (
    "continue the run in this folder, or a finished one: --set train.updates=N sets the number of updates, --data NAME=DIR "
    "the new folder of a corpus. Schedules that depend on the number of updates, such as the cosine of the learning rate, "
    "follow the new number from there on"
)


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add --resume to a parser."""
    parser.add_argument("--resume", type=Path, metavar="RUN", help=HELP)


def add_minutes(parser: argparse.ArgumentParser) -> None:
    """Add --minutes to a parser."""
    text = "stop with a checkpoint after this many minutes; --resume continues the run"
    parser.add_argument("--minutes", type=_minutes, metavar="N", help=text)


def _minutes(word: str) -> float:
    """Return the number in a word. Raises ArgumentTypeError unless it is above 0."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{word} is not a number of minutes; expected more than 0")
    return value


def minutes_left(minutes: float | None) -> float | None:
    """Return the minutes of --minutes that remain since the command began, at least 0."""
    return None if minutes is None else max(minutes - (time.monotonic() - BEGAN) / 60, 0.0)


def check_beside_resume(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Raise InputError for an option that a resumed run would ignore."""
    for name, value in vars(options).items() if options.resume else ():
        if name not in BESIDE and value != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"--resume continues a run as it began; expected no {option} beside it")
        for setting in value if name == "set" else ():
            if not setting.startswith("train.updates="):
                raise InputError(
                    f"--resume continues a run as it began; expected no --set {setting} beside it, only train.updates=N"
                )


def read_plan(folder: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Read the plan of a run, its run.json. Raises InputError if an entry of `kinds` is missing or of another type."""
    plan = read_json(folder / "run.json", "the folder of an earlier run")
    complete = isinstance(plan, dict) and all(isinstance(plan.get(name), kind) for name, kind in kinds.items())
    if not complete or not _lists(plan, "data", [str, str, str]) or not _lists(plan, "hold_out", [str, str, int]):
        raise InputError(f"{folder / 'run.json'} is not the plan of a run; expected the folder of an earlier run")
    return plan


def _lists(plan: Mapping[str, Any], name: str, kinds: Sequence[type]) -> bool:
    """Return whether an entry of a plan, if there is one, is a list of lists of values of these types."""
    rows = plan.get(name, [])
    return isinstance(rows, list) and all(isinstance(row, list) and [*map(type, row)] == kinds for row in rows)


def moved(sources: Sequence[Source], items: Sequence[str], run: Path) -> list[Source]:
    """Return the sources of a run, with the folders that `--data NAME=DIR` replaces.

    All folders of a corpus are replaced by those given, so that a corpus with several folders needs all of them.

    Args:
        sources: The sources of the run.
        items: The values of --data; NAME is a corpus of the run, or the reader of a single one.
        run: The folder of the run.

    Raises:
        InputError: NAME is no corpus of the run, or not a single one.
    """
    from rwae_audio.data.corpora import Source, by_corpus, relocated

    corpora = by_corpus(sources)
    readers = {name: folders[0].reader for name, folders in corpora.items()}
    new = []
    for item in items:
        name, _, place = item.partition("=")
        if not place:
            raise InputError(f"--data {item}; expected NAME=DIR")
        names = [name] if name in corpora else [corpus for corpus, reader in readers.items() if reader == name]
        if len(names) != 1:
            problem = f"is the reader of {' and '.join(names)}" if names else f"is no corpus of the run in {run}"
            raise InputError(f"--data {name} {problem}; expected {', '.join(corpora)}")
        new.append(Source(readers[names[0]], os.path.abspath(place), names[0]))
    return relocated(sources, new)


def lengthened(
    plan: Mapping[str, Any], settings: Sequence[str], run: Path, checkpoint: str, script: str
) -> dict[str, Any]:
    """Return the plan of a run with the number of updates from --set; earlier commands are kept in `before`.

    Args:
        plan: The plan of the run.
        settings: The values of --set.
        run: The folder of the run.
        checkpoint: The latest checkpoint, relative to the run's folder.
        script: The recipe, relative to the project.

    Raises:
        InputError: The run has already made more updates.
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
    """Record the content of the corpora in the plan. Raises InputError if the run began with other utterances."""
    before = plan.get("content", {})
    content = {corpus.name: _content(corpus) for corpus in corpora}
    for name, new in content.items():
        if (old := before.get(name, new)) != new:
            counts = f"{new['utterances']:,} instead of {old['utterances']:,}"
            raise InputError(f"{name} has other utterances than when the run began ({counts}); expected the same")
    plan["content"] = content


def _content(corpus: Corpus) -> dict[str, Any]:
    """Return the number of utterances, and a digest of their ids, speakers, splits and stretches in order."""
    lines = (f"{u.id}\t{u.speaker}\t{u.split}\t{u.start}\t{u.end}\n" for u in corpus.utterances)
    return {
        "utterances": len(corpus.utterances),
        "sha256": hashlib.sha256("".join(lines).encode()).hexdigest()[:16],
    }
