"""Training runs of all commands: common options, the plan of a run (run.json), and how runs are stopped and resumed."""

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

BESIDE = ("resume", "data", "set", "threads", "minutes", "no_tensorboard")  # options that are allowed with --resume
BEGAN = time.monotonic()  # seconds, the start of the command
CONFIGURATIONS = ASSETS / "conf"  # the configurations of the package, whose names --config takes
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
FIRST = os.environ.get("RANK", "0") == "0"  # the only process of torchrun or accelerate that prints and writes files
RESUME_HELP = (
    "continue the run in this folder, which may be finished. --set train.updates=N sets the number of updates, --data "
    "NAME=DIR the new folder of a corpus. Schedules that depend on the number of updates, such as the cosine of the learning "
    "rate, follow the new number from then on"
)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of all training commands to a parser: --set, --out, --resume, --minutes and --threads."""
    add_set(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder (default: a new one in runs/)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help=RESUME_HELP)
    minutes = "stop with a checkpoint after this many minutes; --resume continues the run"
    parser.add_argument("--minutes", type=_minutes, metavar="N", help=minutes)
    parser.add_argument("--threads", type=int, metavar="N", help="the number of CPU threads (default: all cores)")


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add --set to a parser."""
    text = "change a setting of the configuration; VALUE is written as in TOML; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help=text)


def _minutes(word: str) -> float:
    """Return the number in a word. Raises ArgumentTypeError unless it is more than 0."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{word} is not a number of minutes; expected more than 0")
    return value


def minutes_left(minutes: float | None) -> float | None:
    """Return how many of the minutes of --minutes remain, at least 0. They count from the start of the command."""
    return None if minutes is None else max(minutes - (time.monotonic() - BEGAN) / 60, 0.0)


def tell(line: str) -> None:
    """Print a line in the first process, without buffering, so that a log file is always up to date."""
    if FIRST:
        print(line, flush=True)


def configuration(word: str) -> Path:
    """Return the path of the TOML file of --config.

    Args:
        word: A path, which ends in .toml or has a slash, or the name of a configuration of the package.

    Raises:
        InputError: The package has no configuration of this name.
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
    """Return the tables of a configuration.

    Args:
        source: The TOML file, or None for no settings.
        changes: The values of --set.
        seed: The value of --seed, or None.

    Raises:
        InputError: The file cannot be read, or a change has another form than TABLE.KEY=VALUE.
    """
    from rwae_audio.settings import read_toml

    tables = read_toml(source) if source else {}
    for change in changes:
        set_value(tables, change)
    if seed is not None:
        tables["train"] = {**tables.get("train", {}), "seed": seed}
    return tables


def command_line(command: str) -> str:
    """Return the command line of this process without paths of this computer, for the record of a run.

    Folders of corpora become the names of the corpora (see `recorded`). Configurations of the package become their names, and
    files of the recipes their paths in the project.

    Args:
        command: The program, such as `rwae-train` or `python recipes/timit/train.py`.
    """
    words: list[str] = []
    for word in recorded(sys.argv[1:]):
        path = Path(word).resolve()
        if words and words[-1] in ("--config", "--hold-out") and path.is_file():
            if path.is_relative_to(RECIPES):
                word = f"recipes/{path.relative_to(RECIPES).as_posix()}"
            elif path.parent == CONFIGURATIONS.resolve():
                word = path.stem
        words.append(word)
    return " ".join([command, *words])


def stoppable(training: Callable[[], int], command: str, folder: Path) -> int:
    """Call a training, and return the exit code: that of the training, 0 if its minutes are over, 130 after Ctrl-C.

    If the run is stopped, a line tells the user how to continue it. If there are several processes, all but the first return
    0 after Ctrl-C, since torchrun would otherwise stop the first one.

    Args:
        training: The training.
        command: The program, as in `command_line`.
        folder: The run folder.
    """
    from rwae_audio.training.loop import Interrupted, TimeIsUp

    try:
        return training()
    except (Interrupted, KeyboardInterrupt) as stop:  # KeyboardInterrupt: before the first update or after the last one
        time_is_up = isinstance(stop, TimeIsUp)
        if FIRST:
            line = f"{stop or 'stopped'}; continue with: {command} --resume {folder}"
            print(line, file=sys.stdout if time_is_up else sys.stderr)
        return 0 if time_is_up else 130 * FIRST


def check_beside_resume(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Raise InputError if --resume is used with an option that a resumed run would ignore.

    Args:
        parser: The parser, which has the defaults of all options.
        options: The parsed command line.
    """
    for name, value in vars(options).items() if options.resume else ():
        if name not in BESIDE and value != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"--resume continues a run with its own options; expected no {option} with it")
        for setting in value if name == "set" else ():
            if not setting.startswith("train.updates="):
                raise InputError(
                    f"--resume continues a run with its own options; expected no --set {setting}, only train.updates=N"
                )


def resumed_plan(options: argparse.Namespace, latest: str, command: str, **kinds: type) -> dict[str, Any]:
    """Return the plan of the run of --resume, with new folders of --data and a new number of updates of --set.

    Args:
        options: The parsed command line.
        latest: The latest checkpoint, relative to the run folder.
        command: The program, as in `command_line`.
        kinds: The type of each required entry of the plan, as in `read_plan`.

    Raises:
        InputError: The run folder has no valid plan, or an option does not fit the run.
    """
    from rwae_audio.data.corpora import planned_sources

    plan = read_plan(options.resume, **kinds)
    plan["data"] = moved(planned_sources(plan), options.data, options.resume)
    return lengthened(plan, options.set, options.resume, latest, command)


def read_plan(folder: Path, **kinds: type) -> dict[str, Any]:
    """Read the plan of a run, which is its run.json.

    Args:
        folder: The run folder.
        kinds: The type of each required entry of the plan besides `config`, `data` and `command`.

    Raises:
        InputError: An entry is missing or has another type.
    """
    plan = read_json(folder / "run.json", "the folder of an earlier run")
    kinds = {"config": dict, "data": list, "command": str, **kinds}
    complete = isinstance(plan, dict) and all(isinstance(plan.get(name), kind) for name, kind in kinds.items())
    if not complete or not _lists(plan, "data", [str, str, str]) or not _lists(plan, "hold_out", [str, str, int]):
        raise InputError(f"{folder / 'run.json'} is not the plan of a run; expected the folder of an earlier run")
    return plan


def _lists(plan: Mapping[str, Any], name: str, kinds: Sequence[type]) -> bool:
    """Return whether an entry of a plan is missing, or is a list of rows with values of the types `kinds`."""
    rows = plan.get(name, [])
    return isinstance(rows, list) and all(isinstance(row, list) and [*map(type, row)] == kinds for row in rows)


def moved(sources: Sequence[Source], items: Sequence[str], run: Path) -> list[Source]:
    """Return the sources of a run, with folders replaced by those of `--data NAME=DIR`.

    All folders of a corpus are replaced together. So all of them have to be given for a corpus with several folders.

    Args:
        sources: The sources of the run.
        items: The values of --data. NAME is a corpus of the run, or a reader that reads a single corpus of the run.
        run: The run folder.

    Raises:
        InputError: NAME is not a corpus of the run, or it is the reader of several corpora.
    """
    from rwae_audio.data.corpora import Source, by_corpus, relocated

    corpora = by_corpus(sources)
    readers = {name: folders[0].reader for name, folders in corpora.items()}
    new = []
    for item in items:
        name, _, folder = item.partition("=")
        if not folder:
            raise InputError(f"--data {item}; expected NAME=DIR")
        names = [name] if name in corpora else [corpus for corpus, reader in readers.items() if reader == name]
        if len(names) != 1:
            problem = f"is the reader of {' and '.join(names)}" if names else f"is not a corpus of the run in {run}"
            raise InputError(f"--data {name} {problem}; expected {', '.join(corpora)}")
        new.append(Source(readers[names[0]], os.path.abspath(folder), names[0]))
    return relocated(sources, new)


def lengthened(
    plan: Mapping[str, Any], settings: Sequence[str], run: Path, latest: str, command: str
) -> dict[str, Any]:
    """Return the plan of a run with a new number of updates; the entry `before` gets the earlier command.

    Args:
        plan: The plan of the run.
        settings: The values of --set.
        run: The run folder.
        latest: The latest checkpoint, relative to the run folder.
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
