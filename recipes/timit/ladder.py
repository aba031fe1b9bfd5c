"""All systems on equal terms: train what is missing, measure it, and write the ladder.

    python recipes/timit/ladder.py --data an4=DIR --data librispeech=DIR --test an4 --elsewhere timit=DIR \
        --set train.updates=2000
    python recipes/timit/ladder.py --collect runs/ladder/rwae-mmd-0 --elsewhere timit=DIR      a run that train.py made
    python recipes/timit/ladder.py --test an4 --no-train                 the tables and two plots once more

A row is a configuration of the package, or `ecapa` and `d-vector`, which know speaker labels and are not ranked. What
ladder/<test>/ keeps of the runs (ladder_rows.py) is enough to make the tables anew, without speech and without training.
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
SHOWN, READMES = (
    HERE / "ladder/an4",
    (HERE / "README.md", HERE.parent.parent / "README.md"),
)  # which have some of its rows
ROWS = ("fhvae", "dsvae", "dsvae-full", "s3vae", "c-dsvae", "dbse", "rwae-mmd", "rwae-gan", "rwae-plus")
SUPERVISED = {"ecapa": "ecapa.py", "d-vector": "dvector.py"}  # row → the script that trains or fetches it


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpora(parser, "a corpus to train on")
    add_hold_out(parser)
    parser.add_argument("--rows", nargs="+", metavar="NAME", help=f"rows to train ({', '.join(ROWS)} and references)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="of each row (0 1 2)")
    add_set(parser)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads a run (1)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="runs at once (2)")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/ladder"), metavar="DIR", help="run folders (runs/ladder)"
    )
    parser.add_argument(
        "--into", type=Path, default=HERE / "ladder", metavar="DIR", help="rows and tables (beside this)"
    )
    parser.add_argument(
        "--collect", nargs="+", type=Path, metavar="RUN", help="measure these finished runs, train none"
    )
    parser.add_argument(
        "--as", dest="label", metavar="NAME", help="with --collect: the row's name (its configuration's)"
    )
    parser.add_argument("--no-train", action="store_true", help="only make the tables from the rows that are there")
    options = parser.parse_args(argv)
    if options.label is not None:
        if len(options.collect or []) != 1:
            parser.error("--as names the row of one run; expected --collect with one run")
        if not re.fullmatch(r"[\w-]+", options.label) or options.label in ("untrained", "log-mel", "log-mel-mvn"):
            parser.error(f"--as {options.label}; expected a name of letters, digits and hyphens that is not taken")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    from rwae_audio.data.corpora import corpus_sources

    data, elsewhere = corpus_sources(options.data), corpus_sources(options.elsewhere, "--elsewhere")
    if options.collect:
        tests = [t for run in options.collect for t in measure(run, options.into, data, elsewhere, options.label)]
    else:
        tests = tested(options, data)
        if not options.no_train:
            train_missing(options, data, elsewhere, tests)

    from ladder_readme import rendered
    from ladder_table import write_tables

    for test in sorted(set(tests)):
        for path in write_tables(options.into / test):
            print(path)
        if (options.into / test).resolve() == SHOWN:
            table = read_text(SHOWN / "ladder.csv", "a ladder")
            for readme in READMES:
                write_text(readme, rendered(read_text(readme, "a README"), table))
                print(readme)
    return 0


def tested(options: argparse.Namespace, data: list[Source]) -> list[str]:
    """The corpora whose ladders they are. Raises InputError when there is neither speech to train on nor a row to show."""
    if not options.no_train:
        return data_tested(options.test, data)
    kept = sorted(path.parent.name for path in options.into.glob("*/trials.safetensors"))
    names = options.test or [source.corpus for source in data[:1]] or (kept if len(kept) == 1 else [])
    for test in names or [None]:
        if test not in kept:
            raise InputError(
                f"--test {test}; expected a corpus with rows in {options.into}: {', '.join(kept) or 'none'}"
            )
    return names


def train_missing(options: argparse.Namespace, data: list[Source], elsewhere: list[Source], tests: list[str]) -> None:
    """Train every row and seed that is not kept, some at once, and measure each when it is through."""
    names = options.rows or [*(name for name in ROWS if conf(name).is_file()), *references()]
    known = [*sorted(path.stem for path in CONFIGURATIONS.glob("*.toml")), *SUPERVISED]
    for name in names:
        if name not in known:
            raise InputError(f"--rows {name}; {nearest(name, known)}")

    from ladder_rows import read_rows, run_name

    wanted = list(dict.fromkeys((n, s) for n in names for s in ([None] if n == "d-vector" else options.seeds)))
    places = [options.into / test for test in tests]
    kept = [read_rows(place) for place in places]
    missing = [(n, s) for n, s in wanted if not all(run_name(n, s) in there for there in kept)]
    say(NAME, f"{len(wanted) - len(missing)} of {len(wanted)} runs are in {' and '.join(map(str, places))}")
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
                measure(run.result(), options.into, data, elsewhere)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def conf(name: str) -> Path:
    """Return the configuration of a row."""
    return CONFIGURATIONS / f"{name}.toml"


def references() -> list[str]:
    """The supervised rows that can be had here: each has a package of its own."""
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
    """The finished run folder of a row and seed: trained, or gone on with, as by hand. Its output is in RUN.log."""
    from ladder_rows import run_name

    run = options.runs / run_name(name, seed)
    if (run / "run.json").is_file():
        plan = read_plan(run, name=str, test=list)
        given, heard = ({source[2] for source in sources} for sources in (data, plan["data"]))
        if plan["test"] != tests or (name != "d-vector" and heard != given):
            come = f"{', '.join(sorted(heard))}, tested on {', '.join(plan['test'])}"
            wanted = f"{', '.join(sorted(given))}, tested on {', '.join(tests)}"
            raise InputError(f"{run} is a run on {come}; expected {wanted}, or another --runs")
        if name != "d-vector" and [h[:2] for h in plan.get("hold_out", [])] != held_out(options, data):
            raise InputError(
                f"{run} is a run with other speakers held out; expected those of --hold-out, or another --runs"
            )
        if name not in SUPERVISED and plan.get("config") != tables_of(conf(name), options.set, seed):
            raise InputError(
                f"{run} is a run with other settings than {conf(name).name} and --set; expected these, or another --runs"
            )
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
        last = (log.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"{run} was not finished: {last}; see {log}")
    return run


def held_out(options: argparse.Namespace, data: list[Source]) -> list[list[str]]:
    """The corpus and the name of each speaker that --hold-out names, in its order. Raises InputError."""
    from rwae_audio.data.corpora import read_hold_out

    return [[held.corpus, held.speaker] for held in read_hold_out(options.hold_out, data)]


def make_room(run: Path) -> None:
    """Remove a run that had nothing to go on from. Raises InputError for a folder that holds anything else."""
    if not run.exists():
        return
    if not (run / "run.json").is_file() and any(path.name != ".lock" for path in run.iterdir()):
        raise InputError(f"{run} is there and is no run of this ladder; expected another folder in --runs")
    shutil.rmtree(run)


def named(option: str, sources: list[Source]) -> list[str]:
    """--data NAME=DIR, or another option, for each."""
    return [word for source in sources for word in (option, f"{source.reader}={source.folder}")]


def measure(run: Path, into: Path, data: list[Source], elsewhere: list[Source], label: str | None = None) -> list[str]:
    """Measure and keep a finished run; returns the corpora that it was tested on."""
    from ladder_runs import collect

    kept = collect(run, into, data, elsewhere, label, progress=sys.stderr.isatty())
    say(NAME, f"{run}: {', '.join(dict.fromkeys(name for _, name in kept))}")
    return list(dict.fromkeys(test for test, _ in kept))


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
