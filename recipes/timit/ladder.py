"""Compare all systems under equal conditions (the ladder): train and measure missing runs, and write the tables.

    python recipes/timit/ladder.py --data an4=DIR --data librispeech=DIR --test an4 --elsewhere timit=DIR \
        --set train.updates=2000
    python recipes/timit/ladder.py --collect runs/ladder/rwae-mmd-0 --elsewhere timit=DIR      a run of train.py
    python recipes/timit/ladder.py --test an4 --no-train                 only the tables and two plots

A row is a system: a configuration of the package, or one of `ecapa` and `d-vector`, which are trained with speaker labels
and not ranked. The results of all runs are in ladder/<test>/ (see ladder_rows.py). They suffice for the tables, without
speech and without training.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rwae_audio.commands.common import Parser, guarded, say
from rwae_audio.commands.data import add_corpora, add_hold_out
from rwae_audio.commands.data import tested as data_tested
from rwae_audio.commands.runs import CONFIGURATIONS, add_set, read_plan, tables_of
from rwae_audio.files import InputError, read_text, write_text
from rwae_audio.settings import nearest

if TYPE_CHECKING:
    from rwae_audio.data.corpora import Source

NAME = "ladder.py"
HERE = Path(__file__).resolve().parent
SHOWN = HERE / "ladder"  # the ladder of which READMES show some rows
READMES = (HERE / "README.md", HERE.parent.parent / "README.md")
ROWS = (
    *("fhvae", "dsvae", "dsvae-full", "s3vae", "c-dsvae", "dbse", "skd", "diffsda"),
    *("rwae-mmd", "rwae-gan", "rwae-plus"),
)
SUPERVISED = {"ecapa": "ecapa.py", "d-vector": "dvector.py"}  # row → its script


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpora(parser, "a corpus to train on")
    add_hold_out(parser)
    rows = f"the systems to train (default: {', '.join(ROWS)}, and {' and '.join(SUPERVISED)} if installed)"
    parser.add_argument("--rows", nargs="+", metavar="NAME", help=rows)
    seeds = "the seeds of each system (default: 0 1 2)"
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help=seeds)
    add_set(parser)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="the CPU threads of a run (default: 1)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="the runs at the same time (default: 2)")
    runs = "the folder of the runs (default: runs/ladder)"
    parser.add_argument("--runs", type=Path, default=Path("runs/ladder"), metavar="DIR", help=runs)
    parser.add_argument(
        "--into",
        type=Path,
        default=HERE / "ladder",
        metavar="DIR",
        help="the folder of results and tables (default: ladder/ beside this script)",
    )
    degraded = "also measure the EER on degraded recordings (see robustness.py), which are written to DIR once"
    parser.add_argument("--degraded", type=Path, metavar="DIR", help=degraded)
    judged = "also let independent models judge swaps (see ladder_swaps.py; extra `judge`)"
    parser.add_argument("--judged", action="store_true", help=judged)
    parser.add_argument("--collect", nargs="+", type=Path, metavar="RUN", help="only measure these finished runs")
    parser.add_argument(
        "--as",
        dest="label",
        metavar="NAME",
        help="with --collect: the name of the row (default: the name of its configuration)",
    )
    parser.add_argument("--no-train", action="store_true", help="only write the tables of the existing results")
    options = parser.parse_args(argv)
    if options.label is not None:
        if len(options.collect or []) != 1:
            parser.error("--as names the row of one run; expected --collect with one run")
        if not re.fullmatch(r"[\w-]+", options.label) or options.label in ("untrained", "log-mel", "log-mel-mvn"):
            parser.error(f"--as {options.label}; expected another name, of letters, digits and hyphens")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    from rwae_audio.data.corpora import corpus_sources

    data, elsewhere = corpus_sources(options.data), corpus_sources(options.elsewhere, "--elsewhere")
    if options.collect:
        tests = [test for run in options.collect for test in measure(run, options, data, elsewhere)]
    else:
        tests = tested(options, data)
        if not options.no_train:
            train_missing(options, data, elsewhere, tests)

    from ladder_overview import plot, read_overview, rendered
    from ladder_table import write_tables

    written = [path for test in sorted(set(tests)) for path in write_tables(options.into / test)]
    tables = read_overview(options.into)
    plot(options.into / "ladder.png", tables)
    written.append(options.into / "ladder.png")
    for readme in READMES if options.into.resolve() == SHOWN else ():
        write_text(readme, rendered(read_text(readme, "a README"), tables))
        written.append(readme)
    for path in written:
        print(path)
    return 0


def tested(options: argparse.Namespace, data: list[Source]) -> list[str]:
    """Return the names of the tested corpora, each of which has a ladder.

    Args:
        options: The parsed command line.
        data: The sources of --data.

    Raises:
        InputError: There is no corpus to train on, or with --no-train no results.
    """
    if not options.no_train:
        return data_tested(options.test, data)
    existing = sorted(path.parent.name for path in options.into.glob("*/trials.safetensors"))
    names = options.test or [source.corpus for source in data[:1]] or (existing if len(existing) == 1 else [])
    for test in names or [None]:
        if test not in existing:
            raise InputError(
                f"--test {test}; expected a corpus with rows in {options.into}: {', '.join(existing) or 'none'}"
            )
    return names


def train_missing(options: argparse.Namespace, data: list[Source], elsewhere: list[Source], tests: list[str]) -> None:
    """Train all missing systems and seeds, several at a time, and measure the finished runs.

    Args:
        options: The parsed command line.
        data: The sources of --data.
        elsewhere: The sources of --elsewhere.
        tests: The tested corpora.

    Raises:
        InputError: A name of --rows is unknown, or a run fails.
    """
    names = options.rows or [*(name for name in ROWS if conf(name).is_file()), *references()]
    rows = [*sorted(path.stem for path in CONFIGURATIONS.glob("*.toml")), *SUPERVISED]
    for name in names:
        if name not in rows:
            raise InputError(f"--rows {name}; {nearest(name, rows)}")

    from ladder_rows import read_rows, run_name

    planned = list(
        dict.fromkeys((name, seed) for name in names for seed in ([None] if name == "d-vector" else options.seeds))
    )
    folders = [options.into / test for test in tests]
    existing = [read_rows(folder) for folder in folders]
    missing = [(name, seed) for name, seed in planned if not all(run_name(name, seed) in rows for rows in existing)]
    say(NAME, f"{len(planned) - len(missing)} of {len(planned)} runs are in {' and '.join(map(str, folders))}")
    try:
        options.runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--runs {options.runs}: {error.strerror}; expected a folder that can be written to"
        ) from error
    with ThreadPoolExecutor(max(options.jobs, 1)) as pool:
        try:
            runs = [pool.submit(trained, options, data, elsewhere, tests, name, seed) for name, seed in missing]
            for run in runs:
                measure(run.result(), options, data, elsewhere)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def conf(name: str) -> Path:
    """Return the configuration file of a system."""
    return CONFIGURATIONS / f"{name}.toml"


def references() -> list[str]:
    """Return the supervised systems whose packages are installed, and print a message about the others."""
    packages = {"ecapa": "speechbrain", "d-vector": "resemblyzer"}
    for name, package in packages.items():
        if importlib.util.find_spec(package) is None:
            say(NAME, f"without the row {name}: {package} is not installed (extra `judge`)")
    return [name for name, package in packages.items() if importlib.util.find_spec(package)]


def trained(
    options: argparse.Namespace,
    data: list[Source],
    elsewhere: list[Source],
    tests: list[str],
    name: str,
    seed: int | None,
) -> Path:
    """Train a system with one seed, or continue its run, and return the run folder.

    The training is a process of its own, whose output is written to RUN.log.

    Args:
        options: The parsed command line.
        data: The sources of --data.
        elsewhere: The sources of --elsewhere.
        tests: The tested corpora.
        name: The name of the system.
        seed: The seed, or None for a system without random numbers.

    Raises:
        InputError: The run folder has another run, or the training fails.
        KeyboardInterrupt: The training was stopped by Ctrl-C.
    """
    from ladder_rows import run_name

    run = options.runs / run_name(name, seed)
    if (run / "run.json").is_file():
        check_run(run, options, data, tests, name, seed)
    if (run / "eer.json").is_file():
        return run
    script, words = HERE / SUPERVISED.get(name, "train.py"), []
    if name not in SUPERVISED and (run / "run.json").is_file():
        words += ["--resume", str(run)]
    else:
        make_room(run)
        words += ["--hold-out", str(options.hold_out)] if options.hold_out and name != "d-vector" else []
        words += ["--out", str(run), *(word for test in tests for word in ("--test", test)), *named("--data", data)]
        if name in SUPERVISED:
            words += named("--elsewhere", elsewhere)
        else:
            words += ["--config", name]
        if seed is not None:
            words += ["--seed", str(seed), *(word for setting in options.set for word in ("--set", setting))]
    words += ["--threads", str(options.threads)] if seed is not None else []
    words += [] if name in SUPERVISED else ["--no-tensorboard"]
    say(NAME, f"{run}: {script.name} {' '.join(words[:2])}")
    log = run.with_name(f"{run.name}.log")
    with log.open("a") as file:
        done = subprocess.run([sys.executable, str(script), *words], stdout=file, stderr=subprocess.STDOUT)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode:
        last = (log.read_text(encoding="utf-8").strip().splitlines() or ["no output"])[-1]
        raise InputError(f"{run} has failed: {last}; see {log}")
    return run


def check_run(
    run: Path, options: argparse.Namespace, data: list[Source], tests: list[str], name: str, seed: int | None
) -> None:
    """Raise InputError if an existing run has other corpora, other held-out speakers or other settings.

    The arguments are those of `trained`, with the run folder.
    """
    plan = read_plan(run, name=str, test=list)
    corpora, trained_on = ({source[2] for source in sources} for sources in (data, plan["data"]))
    if plan["test"] != tests or (name != "d-vector" and trained_on != corpora):
        actual = f"{', '.join(sorted(trained_on))}, tested on {', '.join(plan['test'])}"
        expected = f"{', '.join(sorted(corpora))}, tested on {', '.join(tests)}"
        raise InputError(f"{run} is a run on {actual}; expected {expected}, or another --runs")
    if name != "d-vector" and [row[:2] for row in plan.get("hold_out", [])] != held_out(options, data):
        raise InputError(
            f"{run} is a run with other speakers held out; expected those of --hold-out, or another --runs"
        )
    if name not in SUPERVISED and plan.get("config") != tables_of(conf(name), options.set, seed):
        raise InputError(
            f"{run} is a run with other settings than {conf(name).name} and --set; expected these, or another --runs"
        )


def held_out(options: argparse.Namespace, data: list[Source]) -> list[list[str]]:
    """Return the corpus and the name of each speaker in the file of --hold-out. Raises InputError for another file."""
    from rwae_audio.data.corpora import read_hold_out

    return [[item.corpus, item.speaker] for item in read_hold_out(options.hold_out, data)]


def make_room(run: Path) -> None:
    """Remove the folder of a run that cannot be continued. Raises InputError if it has other files."""
    if not run.exists():
        return
    if not (run / "run.json").is_file() and any(path.name != ".lock" for path in run.iterdir()):
        raise InputError(f"{run} exists and is not a run of this ladder; expected another folder in --runs")
    shutil.rmtree(run)


def named(option: str, sources: list[Source]) -> list[str]:
    """Return the words of a command line for sources, `option NAME=DIR` for each."""
    return [word for source in sources for word in (option, f"{source.reader}={source.folder}")]


def measure(run: Path, options: argparse.Namespace, data: list[Source], elsewhere: list[Source]) -> list[str]:
    """Measure a finished run, and add its results to the ladder.

    Args:
        run: The run folder.
        options: The parsed command line.
        data: The sources of --data.
        elsewhere: The sources of --elsewhere.

    Returns:
        The names of the corpora on which the run was tested.
    """
    from ladder_runs import Further, collect

    further = Further(tuple(elsewhere), options.degraded, options.judged, progress=sys.stderr.isatty())
    added = collect(run, options.into, data, further, options.label)
    say(NAME, f"{run}: {', '.join(dict.fromkeys(name for _, name in added))}")
    return list(dict.fromkeys(test for test, _ in added))


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
