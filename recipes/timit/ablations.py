"""What each part of R-WAE+ is worth, and what others would add, on the development speakers alone.

    python recipes/timit/ablations.py --data an4=DIR --data librispeech=DIR --test an4
    python recipes/timit/ablations.py --data an4=DIR --data librispeech=DIR --test an4 --rows with-swap with-hsic
    python recipes/timit/ablations.py --test an4 --no-train                               the table once more

ablations.toml has the rows. What is missing is trained (in runs/ablations/, one that was interrupted goes on) for a seventh of
the ladder's updates; its configuration, dev log and probes are kept in ladder/<test>/ablations/NAME-SEED/, and
ladder/<test>/ablations.md is made from these. The test speakers are not looked at.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import train

from rwae_audio.commands.common import Parser, guarded, say, set_value
from rwae_audio.commands.data import add_data, add_hold_out, add_test, data_plan
from rwae_audio.config import nearest, read_toml
from rwae_audio.files import InputError, only_one, read_json, read_text, whole_folder, write_json, write_text

NAME = "ablations.py"
HERE = Path(__file__).resolve().parent
BASE = "rwae-plus"
UPDATES = 300  # of every row, unless --set says otherwise
TABLES = ("mel", "model", "objective", "train")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    table_arguments(parser, "ablations")
    return parser.parse_args(argv)


def table_arguments(parser: argparse.ArgumentParser, table: str) -> None:
    """What a table of short runs is asked for: NAME.toml has the rows, runs/NAME/ the runs."""
    runs = Path("runs") / table
    add_data(parser, "a corpus to train on")
    add_test(parser)
    add_hold_out(parser)
    parser.add_argument("--rows", nargs="+", metavar="NAME", help=f"of {table}.toml (all)")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="a setting of every row")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (1)")
    parser.add_argument("--runs", type=Path, default=runs, metavar="DIR", help=f"run folders ({runs})")
    parser.add_argument(
        "--into", type=Path, default=HERE / "ladder", metavar="DIR", help="rows and table (beside the ladder's)"
    )
    parser.add_argument("--no-train", action="store_true", help="only make the table from the rows that are there")


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    rows, plan, place = opened(options, "ablations")
    if not options.no_train:
        for name in options.rows or rows:
            for seed in rows[name].get("seeds", [0]):
                kept = place / "ablations" / f"{name}-{seed}"
                if not (kept / "row.json").is_file():
                    tables, folder = settings(rows[name], seed, options.set), options.runs / kept.name
                    say(NAME, f"{name}, seed {seed}, {tables['train']['updates']} updates, in {folder}")
                    trained(tables, plan, folder, kept, options.threads)
    print(write_table(place, rows))
    return 0


def opened(options: argparse.Namespace, table: str) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """The rows of TABLE.toml, what data_plan says of the corpora, and where the folders and tables of the one with the
    development speakers are."""
    rows = read_toml(HERE / f"{table}.toml")
    for name in options.rows or []:
        if name not in rows:
            raise InputError(f"--rows {name}; {nearest(name, list(rows))}")
    if options.no_train and options.test:
        return rows, {}, options.into / options.test[0]
    plan = data_plan(options)
    if len(plan["test"]) > 1:
        raise InputError(f"--test names {' and '.join(plan['test'])}; expected one corpus")
    return rows, plan, options.into / plan["test"][0]


def trained(
    tables: dict[str, Any], plan: dict[str, Any], folder: Path, kept: Path, threads: int, probes: bool = True
) -> None:
    """Train this configuration on the corpora of `plan`, in `folder`. Leave it and the dev log in `kept`, and what the
    `probes` say, which take as long again."""
    import torch

    from rwae_audio.alignment import phones_of
    from rwae_audio.experiment import run
    from rwae_audio.loop import Interrupted
    from rwae_audio.model import parameters
    from rwae_audio.probes import probe_report
    from rwae_audio.trainer import RunConfig

    torch.set_num_threads(threads)
    config = RunConfig.of(tables)
    ready = train.prepare(config, plan, tell=lambda line: None)
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder):
        try:
            model = run(ready, folder, resume=True, say=train.say, progress=True, tensorboard=False)
        except Interrupted as stop:
            raise KeyboardInterrupt from stop
    probed = {}
    if probes:
        (test,) = plan["test"]
        corpus = next(corpus for corpus in ready.corpora if corpus.name == test)
        spoken = any(u.text or u.phones for u in corpus.utterances)
        phones = phones_of(corpus).phones if spoken else {}
        probed = probe_report(
            ready.store, ready.train_rows, ready.dev[test], model, ready.normaliser, config.mel, phones
        )
    kept.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(kept) as temporary:
        write_json(temporary / "config.json", config.tables())
        shutil.copyfile(folder / "metrics.jsonl", temporary / "metrics.jsonl")
        write_json(temporary / "row.json", {"seed": config.train.seed, **probed, "parameters": parameters(model)})


def settings(row: dict[str, Any], seed: int, changes: Sequence[str] = ()) -> dict[str, Any]:
    """The tables of a row's configuration, with changes as --set has them; its development speakers are asked once, when it
    is through, so that there is nothing to choose from."""
    base = read_toml(HERE / "conf" / f"{row.get('base', BASE)}.toml")
    tables = {table: {**base.get(table, {}), **row.get(table, {})} for table in TABLES}
    tables["train"] = {"updates": UPDATES, **tables["train"], "seed": seed}
    for setting in changes:
        set_value(tables, setting)
    tables["train"]["evaluate_every"] = tables["train"]["updates"]
    return tables


def write_table(place: Path, rows: dict[str, Any]) -> Path:
    """ablations.md from the row folders under `place`; returns its path. Raises InputError when there are none."""
    found = {name: said for name, row in rows.items() if (said := [values(f) for f in folders(place, name, row)])}
    updates = same_updates({said.pop("updates") for seeds in found.values() for said in seeds}, place / "ablations")
    base = {key: [said[key] for said in found.get(BASE, [])] for key in ("static", "dynamic", "gap")}
    lines = [
        f"# Ablations on {place.name}",
        "",
        f"The development speakers after {updates} updates; rates in %. Rows are `{BASE}` with one thing taken away "
        "(`without-`) or another one in (`with-`), and R-WAE(MMD) with one of its parts (`only-`). "
        f"A gap in bold lies outside of those of `{BASE}`'s seeds.",
        "",
        "| row | what | seeds | static EER % | dynamic EER % | gap | phone z^m | speaker linear | GRU | error |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(line(name, rows[name]["what"], seeds, base["gap"]) for name, seeds in found.items()),
    ]
    if len(base["gap"]) > 1:
        spread = ", ".join(f"{key} {100 * np.std(rates, ddof=1):.1f}" for key, rates in base.items())
        lines += ["", f"Deviation between the seeds of `{BASE}`, in points: {spread}."]
    log_mels = next(iter(found.values()))[0]["log_mel"]
    lines += ["", f"Beside them: phone from log-mels {percent(log_mels)} %."] if log_mels is not None else []
    write_text(place / "ablations.md", "\n".join([*lines, ""]))
    return place / "ablations.md"


def same_updates(updates: set[int], folder: Path) -> int:
    """How many all rows in `folder` were trained for. Raises InputError when they differ, or there are none."""
    if len(updates) != 1:
        came = f"rows of {' and '.join(map(str, sorted(updates)))} updates" if updates else "no rows"
        raise InputError(f"{folder} has {came}; expected some from training, all trained alike")
    return updates.pop()


def line(name: str, what: str, seeds: list[dict[str, Any]], gaps: list[float]) -> str:
    """A row of the table: means over its seeds; `gaps`: those of the base's."""
    mean = {key: None if seeds[0][key] is None else float(np.mean([said[key] for said in seeds])) for key in seeds[0]}
    cells = {key: percent(mean[key]) for key in ("static", "dynamic", "gap", "phone", "linear", "gru")}
    if gaps and not min(gaps) <= mean["gap"] <= max(gaps):
        cells["gap"] = f"**{cells['gap']}**"
    return f"| {name} | {what} | {len(seeds)} | {' | '.join(cells.values())} | {mean['error']:.3f} |"


def percent(rate: float | None) -> str:
    """A cell of the table; empty where nobody knows."""
    return "" if rate is None else f"{100 * rate:.1f}"


def folders(place: Path, name: str, row: dict[str, Any]) -> list[Path]:
    """The row folders that are there of a row's seeds."""
    wanted = [place / "ablations" / f"{name}-{seed}" for seed in row.get("seeds", [0])]
    return [folder for folder in wanted if (folder / "row.json").is_file()]


def values(folder: Path) -> dict[str, Any]:
    """What the table says of one run, fractions; phones are None where nobody knows what was said."""
    row = read_json(folder / "row.json", "a row of the ablations")
    last = json.loads(read_text(folder / "metrics.jsonl", "a dev log").splitlines()[-1])
    static, dynamic = last["dev/static_eer"], last["dev/dynamic_eer"]
    return {
        **{"updates": last["step"], "error": last["dev/error"]},
        **{"static": static, "dynamic": dynamic, "gap": dynamic - static},
        **{"phone": row["phone"].get("z_m"), "log_mel": row["phone"].get("log_mel")},
        **{key: row["speaker"][key] for key in ("linear", "gru")},
    }


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
