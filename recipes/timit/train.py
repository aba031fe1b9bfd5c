"""Train an R-WAE on speech and run the speaker benchmark on speakers it has never heard.

    python recipes/timit/train.py                                   the built-in demo corpus (synthetic), about 6 minutes
    python recipes/timit/train.py --data timit=DIR                  TIMIT, with the paper's model (conf/paper-mmd.toml)
    python recipes/timit/train.py --config recipes/timit/conf/rwae-mmd.toml \
        --data an4=DIR --data librispeech=DIR --test an4            several corpora; tested on one of them, or on more
    python recipes/timit/train.py --resume runs/an4-rwae-mmd        go on after an interruption
    python recipes/timit/train.py --resume runs/an4-rwae-mmd --set train.updates=5000        or for longer
    python recipes/timit/train.py --download an4 --to corpora       fetch, check and unpack a corpus

Several GPUs or machines: torchrun or accelerate launch, see recipes/timit/DISTRIBUTED.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rwae_audio.commands.common import Parser, guarded, new_folder, recorded, set_value
from rwae_audio.commands.data import add_data, add_hold_out, add_test, data_plan
from rwae_audio.commands.resume import (
    add_minutes,
    add_resume,
    check_beside_resume,
    keep_content,
    lengthened,
    minutes_left,
    moved,
    read_plan,
)
from rwae_audio.files import InputError, only_one, write_json

HERE = Path(__file__).parent
# of the processes that torchrun or accelerate has launched: this one writes and speaks
FIRST = os.environ.get("RANK", "0") == "0"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="conf/*.toml (paper-mmd; of the demo corpus, demo)")
    add_data(parser, "a corpus to train on")
    add_test(parser)
    add_hold_out(parser)
    parser.add_argument("--with-sa", action="store_true", help="keep TIMIT's SA1 and SA2, which everybody says")
    parser.add_argument("--partial", action="store_true", help="go on when files of TIMIT are missing; marks the table")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="one setting, as in TOML")
    parser.add_argument("--seed", type=int, help="instead of the configuration's")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder (a new one in runs/)")
    add_resume(parser)
    add_minutes(parser)
    parser.add_argument("--threads", type=int, help="CPU threads (all cores)")
    parser.add_argument(
        "--init",
        type=Path,
        metavar="BUNDLE",
        help="begin with the weights of this bundle: go on from it, or fine-tune it",
    )
    parser.add_argument("--half", action="store_true", help="the bundle in float16: half as large")
    parser.add_argument("--no-tensorboard", action="store_true", help="write no TensorBoard events")
    parser.add_argument("--download", metavar="NAME", help="fetch an4, timit-sample, librispeech-dev-clean … instead")
    parser.add_argument("--to", type=Path, default=Path("corpora"), metavar="DIR", help="where to (corpora)")
    options = parser.parse_args(argv)
    check_beside_resume(parser, options)
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    if options.download:
        return fetch(options.download, options.to)
    plan = resumed_plan(options) if options.resume else new_plan(options)
    with contextlib.ExitStack() as locks:  # of the run's folder, for this process alone
        if options.resume and FIRST:
            locks.enter_context(only_one(options.resume))
        return train_run(options, plan, locks)


def train_run(options: argparse.Namespace, plan: dict[str, Any], locks: contextlib.ExitStack) -> int:
    """All of it, with the plan that run.json keeps."""
    import torch  # slow to load, so only now that the command line is known to be right

    from rwae_audio.distributed import from_first
    from rwae_audio.evaluation.verification import format_table
    from rwae_audio.training.loop import Interrupted, TimeIsUp
    from rwae_audio.training.trainer import RunConfig

    config = RunConfig.of(plan["config"])
    if options.threads:
        torch.set_num_threads(options.threads)
    experiment = prepare(config, plan)
    named = "-".join(dict.fromkeys([*plan["test"], plan["name"]]))
    folder = options.resume or from_first(lambda: new_folder(options.out, named))
    if FIRST:
        if not options.resume:
            locks.enter_context(only_one(folder))
        if options.set:
            (folder / "eer.json").unlink(missing_ok=True)  # which says that a run is whole
        write_json(folder / "run.json", plan)
    try:
        tables = train_and_test(experiment, folder, plan, options)
    except (Interrupted, KeyboardInterrupt) as stop:  # the second: before the first update, or after the last
        late = isinstance(stop, TimeIsUp)
        line = f"{stop or 'stopped'}; go on with: python recipes/timit/train.py --resume {folder}"
        if FIRST:
            print(line, file=sys.stdout if late else sys.stderr)
        return 0 if late else 130 * FIRST  # torchrun would stop the first one for another's error
    if not FIRST:
        return 0
    for corpus, rows in tables.items():
        trials = experiment.test[corpus].trials
        print(f"\n{corpus}: {len(trials):,} trials, {int(trials.target.sum())} of them target, test speakers only")
        print(format_table({name: report for name, (report, _) in rows.items()}))
    for name, what in LEFT.items():
        print(f"{folder / name}: {what}")
    return 0


def fetch(name: str, to: Path) -> int:
    """--download."""
    from rwae_audio.data.corpora.download import download

    corpus, folder, fetched = download(name, to, progress=sys.stderr.isatty())
    print(f"{name} is {'now' if fetched else 'already'} in {folder}: --data {corpus}={folder}")
    return 0


LEFT = {
    "bundle": "the model, for rwae-eer, rwae-embed and rwae-vc (--bundle)",
    "eer.json": "the model's row of each corpus; table.json has all rows, scores/ the scores behind them",
    "plots": "DET, reconstructions, swaps, map of static codes",
    "metrics.jsonl": "a line an epoch; tensorboard/ has pictures and sound as well",
    "checkpoints": "latest and best on the development speakers",
}


def say(line: str) -> None:
    """Print it, once among several processes, and at once: a run is watched through a pipe or a file as well."""
    if FIRST:
        print(line, flush=True)


def prepare(config: Any, plan: dict[str, Any], tell: Callable[[str], None] = say) -> Any:
    """Read the corpora, tell what is in them, and make their frames."""
    from rwae_audio.data.corpora import planned_corpora
    from rwae_audio.evaluation import experiment
    from rwae_audio.evaluation.benchmark import with_benchmark
    from rwae_audio.inference.bundle import load_bundle

    initial = load_bundle(plan["init"]) if plan.get("init") else None
    corpora = planned_corpora(plan)
    keep_content(plan, corpora)
    corpora = [with_benchmark(corpus) if corpus.name in plan["test"] else corpus for corpus in corpora]
    for corpus in corpora:
        counts = [
            f"{split} {len(corpus.of(split))} ({len(corpus.speakers(split))})" for split in ("train", "dev", "test")
        ]
        tell(f"{corpus.name}: utterances (speakers): {', '.join(counts)}")
        for note in corpus.notes:
            tell(f"{corpus.name}: {note}")
    ready = experiment.prepare(config, corpora, plan["test"], progress=True, initial=initial)
    for utterance in ready.store.silent[:5]:
        tell(f"{utterance.path} is silent and left out")
    if len(ready.store.silent) > 5:
        tell(f"{len(ready.store.silent)} recordings are silent and left out in all")
    short = ready.sampler.left_out
    tell(f"training on {ready.hours:.2f} hours; {short} utterances under {ready.sampler.window} frames are left out")
    return ready


def train_and_test(experiment: Any, folder: Path, plan: dict[str, Any], options: argparse.Namespace) -> Any:
    """Returns the rows of the table, as experiment.finish does; none but in the first process, which tests alone."""
    from rwae_audio.conversion.vocoders.griffin_lim import griffin_lim
    from rwae_audio.distributed import leave
    from rwae_audio.evaluation.experiment import finish, run
    from rwae_audio.inference.card import commands
    from rwae_audio.model import parameters

    began = time.monotonic()
    config = experiment.config
    say(f"{config.objective.name}, {config.train.updates} updates, seed {config.train.seed}, in {folder}")
    model = run(
        experiment,
        folder,
        resume=bool(options.resume),
        minutes=minutes_left(options.minutes),
        say=say,
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
    return finish(experiment, model, folder, plan["name"], meta, plan.get("half", False))


def old_plan(folder: Path) -> dict[str, Any]:
    """What new_plan made of the run in this folder."""
    return read_plan(folder, {"config": dict, "name": str, "data": list, "test": list, "command": str})


def resumed_plan(options: argparse.Namespace) -> dict[str, Any]:
    """The plan of the run of --resume, with what --data and --set say now."""
    from rwae_audio.data.corpora import planned_sources

    run, plan = options.resume, old_plan(options.resume)
    plan["data"] = moved(planned_sources(plan), options.data, run)
    return lengthened(plan, options.set, run, "checkpoints/latest.safetensors", "recipes/timit/train.py")


def new_plan(options: argparse.Namespace) -> dict[str, Any]:
    """What run.json keeps: the configuration's tables, its name (the table's row), the corpora's folders, the corpora to
    test on, the speakers held out, how to read TIMIT, the command."""
    from rwae_audio.data.corpora import Source

    source = options.config or HERE / "conf" / ("paper-mmd.toml" if options.data else "demo.toml")
    if (options.partial or options.with_sa) and not any(item.startswith("timit=") for item in options.data):
        raise InputError(f"{'--partial' if options.partial else '--with-sa'} is for timit; expected --data timit=DIR")
    if not options.data:
        say("no corpus was given (--data NAME=DIR): training on the built-in demo corpus of synthetic speech")
    tables = tables_of(source, options.set, options.seed)
    return {
        "config": tables,
        "name": source.stem,
        **data_plan(options, [Source("demo", "", "demo")]),
        "timit": {"with_sa": options.with_sa, "partial": options.partial},
        "init": str(options.init) if options.init else None,
        "half": options.half,
        "command": command(),
    }


def tables_of(source: Path, changes: list[str], seed: int | None) -> dict[str, Any]:
    """The tables of a TOML file, with the changes that --set and --seed make."""
    from rwae_audio.settings import read_toml

    tables = read_toml(source)
    for setting in changes:
        set_value(tables, setting)
    if seed is not None:
        tables["train"] = {**tables.get("train", {}), "seed": seed}
    return tables


def corpora_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """--data (`what`: of which use a corpus is), --test and --elsewhere."""
    add_data(parser, what)
    add_test(parser)
    parser.add_argument(
        "--elsewhere", action="append", default=[], metavar="NAME=DIR", help="a corpus to test on, never trained on"
    )


def command(script: str = "train.py") -> str:
    """How this run, of a script beside this one, was called; folders named after their corpora, and files of the
    recipes by their place in the project, so that the line means the same on another disk."""
    words: list[str] = []
    recipes = HERE.resolve().parent
    for word in recorded(sys.argv[1:]):
        place = Path(word).resolve()
        ours = words and words[-1] in ("--config", "--hold-out") and place.is_relative_to(recipes)
        words.append(f"recipes/{place.relative_to(recipes).as_posix()}" if ours else word)
    return " ".join([f"python recipes/timit/{script}", *words])


if __name__ == "__main__":
    sys.exit(guarded(main, "train.py"))
