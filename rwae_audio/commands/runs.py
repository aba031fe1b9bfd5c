"""Runs of every command that trains: their options, their plans (run.json), how one stops and how it goes on."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.commands.common import recorded, set_value
from rwae_audio.files import ASSETS, InputError, read_json
from rwae_audio.settings import nearest

if TYPE_CHECKING:
    from rwae_audio.data.corpora import Source

BESIDE = ("resume", "data", "set", "threads", "minutes", "no_tensorboard")  # what is allowed beside --resume
BEGAN = time.monotonic()
CONFIGURATIONS = ASSETS / "conf"  # those of the package, which --config takes by their names
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
# Of the processes that torchrun or accelerate has launched, the first one writes and speaks.
FIRST = os.environ.get("RANK", "0") == "0"
RESUME_HELP = (
    "continue the run in this folder, or a finished one: --set train.updates=N sets the number of updates, --data NAME=DIR "
    "the new folder of a corpus. Schedules that depend on the number of updates, such as the cosine of the learning rate, "
    "follow the new number from there on"
)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training: --set, --out, --resume, --minutes and --threads."""
    add_set(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder (default: a new one in runs/)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help=RESUME_HELP)
    minutes = "stop with a checkpoint after this many minutes; --resume continues the run"
    parser.add_argument("--minutes", type=_minutes, metavar="N", help=minutes)
    parser.add_argument("--threads", type=int, metavar="N", help="the number of CPU threads (default: all cores)")


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add --set."""
    helped = "change one setting, written as in TOML; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help=helped)


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


def tell(line: str) -> None:
    """Print a line, once among several processes, and at once: a run is watched through a pipe or a file as well."""
    if FIRST:
        print(line, flush=True)


def configuration(word: str) -> Path:
    """Return the TOML file that --config gives by its path, or by its name if it is one of the package's.

    A path ends in .toml or has a slash. Raises InputError for an unknown name.
    """
    if word.endswith(".toml") or "/" in word:
        return Path(word)
    names = sorted(path.stem for path in CONFIGURATIONS.glob("*.toml"))
    if word not in names:
        raise InputError(
            f"--config {word} is neither a TOML file nor a configuration of the package; {nearest(word, names)}"
        )
    return CONFIGURATIONS / f"{word}.toml"


def tables_of(source: Path | None, changes: Sequence[str], seed: int | None = None) -> dict[str, Any]:
    """Return the tables of a TOML file, with the changes that --set and --seed make. Raises InputError."""
    from rwae_audio.settings import read_toml

    tables = read_toml(source) if source else {}
    for change in changes:
        set_value(tables, change)
    if seed is not None:
        tables["train"] = {**tables.get("train", {}), "seed": seed}
    return tables


def command_line(command: str) -> str:
    """Return how this process was called, such that the line means the same on another disk.

    The folders of corpora are named after their corpora, the package's configurations by their names, and files of the
    recipes by their place in the project.

    Args:
        command: The program, such as `rwae-train` or `python recipes/timit/train.py`.
    """
    words: list[str] = []
    for word in recorded(sys.argv[1:]):
        place = Path(word).resolve()
        if words and words[-1] in ("--config", "--hold-out") and place.is_file():
            if place.is_relative_to(RECIPES):
                word = f"recipes/{place.relative_to(RECIPES).as_posix()}"
            elif place.parent == CONFIGURATIONS.resolve():
                word = place.stem
        words.append(word)
    return " ".join([command, *words])


def stoppable(training: Callable[[], int], command: str, folder: Path) -> int:
    """Call a training, and return the exit status: its own, 0 when its minutes are over, 130 on Ctrl-C.

    A run that was stopped says in a line how it goes on. Of several processes all but the first return 0: torchrun would
    stop the first one for another's error.

    Args:
        command: The program, as in `command_line`.
    """
    from rwae_audio.training.loop import Interrupted, TimeIsUp

    try:
        return training()
    except (Interrupted, KeyboardInterrupt) as stop:  # the second: before the first update, or after the last
        late = isinstance(stop, TimeIsUp)
        if FIRST:
            line = f"{stop or 'stopped'}; go on with: {command} --resume {folder}"
            print(line, file=sys.stdout if late else sys.stderr)
        return 0 if late else 130 * FIRST


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


def resumed_plan(options: argparse.Namespace, latest: str, command: str, **kinds: type) -> dict[str, Any]:
    """Return the plan of the run of --resume, with the folders of --data and the settings of --set. Raises InputError.

    Args:
        latest: The latest checkpoint, relative to the run's folder.
        command: The program, as in `command_line`.
        kinds: The types of what the plan has to hold, as in `read_plan`.
    """
    from rwae_audio.data.corpora import planned_sources

    plan = read_plan(options.resume, **kinds)
    plan["data"] = moved(planned_sources(plan), options.data, options.resume)
    return lengthened(plan, options.set, options.resume, latest, command)


def read_plan(folder: Path, **kinds: type) -> dict[str, Any]:
    """Read the plan of a run, its run.json. Raises InputError if an entry is missing or of another type.

    Args:
        kinds: The types of what the plan has to hold beside `config`, `data` and `command`.
    """
    plan = read_json(folder / "run.json", "the folder of an earlier run")
    kinds = {"config": dict, "data": list, "command": str, **kinds}
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
    plan: Mapping[str, Any], settings: Sequence[str], run: Path, latest: str, command: str
) -> dict[str, Any]:
    """Return the plan of a run with the number of updates from --set; earlier commands are kept in `before`.

    Args:
        latest: The latest checkpoint, relative to the run's folder.
        command: The program, as in `command_line`.

    Raises:
        InputError: The run has already made more updates.
    """
    tables = dict(plan["config"])
    for setting in settings:
        set_value(tables, setting)
    updates = tables.get("train", {}).get("updates")
    if tables == plan["config"]:
        return dict(plan)
    checkpoint = run / latest
    if type(updates) is int and checkpoint.is_file():
        from rwae_audio.training.checkpoint import read_position

        if updates < (step := read_position(checkpoint).step):
            raise InputError(
                f"--set train.updates={updates}: the run in {run} has made {step}; expected {step} or more"
            )
    line = f"{command} --resume {run} --set train.updates={updates}"
    return {**plan, "config": tables, "before": [*plan.get("before", []), plan["command"]], "command": line}
