"""Train an R-WAE on speech, and run the speaker benchmark on test speakers that are not in the training data."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.commands.common import Parser, guarded, new_folder
from rwae_audio.commands.data import add_data, add_hold_out, add_test, data_plan
from rwae_audio.commands.runs import (
    CONFIGURATIONS,
    FIRST,
    add_run,
    check_beside_resume,
    command_line,
    configuration,
    minutes_left,
    resumed_plan,
    stoppable,
    tables_of,
    tell,
)
from rwae_audio.files import InputError, only_one, write_json

if TYPE_CHECKING:
    from rwae_audio.evaluation.benchmark import Row
    from rwae_audio.evaluation.experiment import Experiment

NAME = "rwae-train"
LATEST = "checkpoints/latest.safetensors"  # the path of the latest checkpoint in a run's folder
EXAMPLES = """
    {0}                                      the built-in demo corpus (synthetic), about 6 minutes
    {0} --data timit=DIR                     TIMIT, with the paper's model (paper-mmd)
    {0} --config rwae-plus --data an4=DIR --data librispeech=DIR --test an4
                                             several corpora for training, one or more of them for tests
    {0} --resume runs/an4-rwae-mmd           continue after an interruption
    {0} --resume runs/an4-rwae-mmd --set train.updates=5000  continue to more updates
    {0} --download an4 --to corpora          download, check and unpack a corpus

Several GPUs or machines: torchrun -m rwae_audio.commands.train, or accelerate launch; see recipes/timit/DISTRIBUTED.md.
"""
OUTPUTS = {  # the files and folders of a finished run
    "bundle": "the model, for rwae-eer, rwae-embed and rwae-vc (--bundle)",
    "eer.json": "the model's row of each corpus; table.json has all rows, scores/ the scores of all trials",
    "plots": "DET curves, reconstructions, swaps, a map of static codes",
    "metrics.jsonl": "a line for each evaluation; tensorboard/ has pictures and sound as well",
    "checkpoints": "latest and best on the development speakers",
    "report.html": "all of this on one page, with sound, for a browser",
}


def arguments(argv: list[str] | None, command: str) -> argparse.Namespace:
    """Parse the command line. `command` is the program, as in `main`."""
    parser = Parser(
        prog=prog(command),
        description=f"{__doc__}\n{EXAMPLES.format(command)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(sorted(path.stem for path in CONFIGURATIONS.glob("*.toml")))
    default = "paper-mmd, or demo for the demo corpus"
    text = (
        f"a TOML file of differences from the defaults, or a configuration of the package: {names} (default: {default})"
    )
    parser.add_argument("--config", metavar="FILE", help=text)
    add_data(parser, "a corpus to train on")
    add_test(parser)
    add_hold_out(parser)
    parser.add_argument("--with-sa", action="store_true", help="use TIMIT's SA1 and SA2 too, which every speaker reads")
    parser.add_argument(
        "--partial", action="store_true", help="allow missing files of TIMIT; the table gets a note about them"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the seed of the run (default: the configuration's)")
    add_run(parser)
    parser.add_argument(
        "--init",
        type=Path,
        metavar="BUNDLE",
        help="start from the weights of this bundle, for further training or fine-tuning",
    )
    parser.add_argument("--half", action="store_true", help="write the bundle in float16, which halves its size")
    parser.add_argument("--no-tensorboard", action="store_true", help="write no TensorBoard events")
    parser.add_argument(
        "--download",
        metavar="NAME",
        help="download a corpus instead of training: an4, timit-sample, librispeech-dev-clean …",
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("corpora"),
        metavar="DIR",
        help="the folder for --download (default: corpora)",
    )
    options = parser.parse_args(argv)
    check_beside_resume(parser, options)
    options.config = configuration(options.config) if options.config else None
    return options


def prog(command: str) -> str:
    """Return the name of a program from its command line, such as `train.py` from `python recipes/timit/train.py`."""
    return Path(command.split()[-1]).name


def main(argv: list[str] | None = None, command: str = NAME) -> int:
    """Run the command, and return its exit code.

    Args:
        argv: The words after the program's name, by default those of this process.
        command: The program, `rwae-train` or `python recipes/timit/train.py`, which the run records.
    """
    return guarded(lambda: run(argv, command), prog(command))


def run(argv: list[str] | None, command: str) -> int:
    """Run the command without handling of errors, and return its exit code. The arguments are those of `main`."""
    options = arguments(argv, command)
    if options.download:
        return fetch(options.download, options.to)
    plan = resumed_plan(options, LATEST, command, name=str, test=list) if options.resume else new_plan(options, command)
    with contextlib.ExitStack() as locks:  # no other process may write to the run's folder
        if options.resume and FIRST:
            locks.enter_context(only_one(options.resume))
        return train(options, plan, command, locks)


def fetch(name: str, to: Path) -> int:
    """Download a corpus, and return the exit code.

    Args:
        name: The value of --download.
        to: The value of --to.
    """
    from rwae_audio.data.corpora.download import download

    corpus, folder, downloaded = download(name, to, progress=sys.stderr.isatty())
    print(f"{name} is {'now' if downloaded else 'already'} in {folder}: --data {corpus}={folder}")
    return 0


def new_plan(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Return the plan of a new run, which is the content of run.json.

    Args:
        options: The options of the command.
        command: The program, as in `main`.

    Returns:
        `config` has the tables of the configuration, and `name` its name, which is the name of the row in the table. The
        other entries are the values of options, and `command` is the command line.

    Raises:
        InputError: An option has a wrong value.
    """
    from rwae_audio.data.corpora import Source

    source = options.config or configuration("paper-mmd" if options.data else "demo")
    if (options.partial or options.with_sa) and not any(item.startswith("timit=") for item in options.data):
        raise InputError(f"{'--partial' if options.partial else '--with-sa'} is for timit; expected --data timit=DIR")
    if not options.data:
        tell("no corpus was given (--data NAME=DIR): training on the built-in demo corpus of synthetic speech")
    tables = tables_of(source, options.set, options.seed)
    return {
        "config": tables,
        "name": source.stem,
        **data_plan(options, [Source("demo", "", "demo")]),
        "timit": {"with_sa": options.with_sa, "partial": options.partial},
        "init": str(options.init) if options.init else None,
        "half": options.half,
        "command": command_line(command),
    }


def train(options: argparse.Namespace, plan: dict[str, Any], command: str, locks: contextlib.ExitStack) -> int:
    """Train, test and print the tables.

    Args:
        options: The options of the command.
        plan: The plan of the run, which is written to run.json.
        command: The program, as in `main`.
        locks: An open stack, to which the lock of a new run's folder is added.

    Returns:
        The exit code.
    """
    import torch  # slow to load, so only after the command line has been checked

    from rwae_audio.distributed import from_first
    from rwae_audio.evaluation.experiment import prepare_planned
    from rwae_audio.training.trainer import RunConfig

    config = RunConfig.of(plan["config"])
    if options.threads:
        torch.set_num_threads(options.threads)
    experiment = prepare_planned(config, plan, tell)
    name = "-".join(dict.fromkeys([*plan["test"], plan["name"]]))
    folder = options.resume or from_first(lambda: new_folder(options.out, name))
    if FIRST:
        if not options.resume:
            locks.enter_context(only_one(folder))
        if options.set:
            (folder / "eer.json").unlink(missing_ok=True)  # the mark of a finished run
        write_json(folder / "run.json", plan)

    def training() -> int:
        tables = train_and_test(experiment, folder, plan, options)
        if FIRST:
            print_tables(experiment, tables, folder)
        return 0

    return stoppable(training, command, folder)


def train_and_test(
    experiment: Experiment, folder: Path, plan: dict[str, Any], options: argparse.Namespace
) -> dict[str, dict[str, Row]]:
    """Train and test a model. The arguments are those of `train`, with a prepared experiment.

    Returns:
        The rows of each tested corpus in the first process, {} in others, which do not test.
    """
    from rwae_audio.conversion.vocoders.griffin_lim import griffin_lim
    from rwae_audio.distributed import leave
    from rwae_audio.evaluation.experiment import finish, run
    from rwae_audio.evaluation.report import write_report
    from rwae_audio.inference.card import commands
    from rwae_audio.model import parameters

    began = time.monotonic()
    config = experiment.config
    tell(f"{config.objective.name}, {config.train.updates} updates, seed {config.train.seed}, in {folder}")
    model = run(
        experiment,
        folder,
        resume=bool(options.resume),
        minutes=minutes_left(options.minutes),
        say=tell,
        progress=True,
        tensorboard=not options.no_tensorboard,
        sound=griffin_lim,
    )
    leave()
    if not FIRST:
        return {}
    print(f"{parameters(model):,} parameters; {time.monotonic() - began:.0f} s; testing")
    before = commands(experiment.initial.meta) if experiment.initial is not None else []
    meta = {"command": plan["command"], "config": plan["name"]}
    if before := [*before, *plan.get("before", [])]:
        meta["before"] = before
    tables = finish(experiment, model, folder, plan["name"], meta, plan.get("half", False))
    write_report(experiment, folder, plan, tables, griffin_lim)
    return tables


def print_tables(experiment: Experiment, tables: dict[str, dict[str, Row]], folder: Path) -> None:
    """Print the table of each tested corpus, and a list of the run's outputs.

    Args:
        experiment: The experiment.
        tables: The rows of each tested corpus.
        folder: The run folder.
    """
    from rwae_audio.evaluation.tables import format_table

    for corpus, rows in tables.items():
        trials = experiment.test[corpus].trials
        print(f"\n{corpus}: {len(trials):,} trials, {int(trials.target.sum())} of them target, test speakers only")
        print(format_table({name: report for name, (report, _) in rows.items()}))
    for name, description in OUTPUTS.items():
        print(f"{folder / name}: {description}")


if __name__ == "__main__":
    sys.exit(main())
