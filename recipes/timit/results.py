"""Finished runs → results.json, the pictures, and the table of this folder's README and of the project's.

    python recipes/timit/results.py runs/an4-rwae-mmd* runs/an4-dsvae*     write results.json from run folders, then
    python recipes/timit/results.py                                        render the tables from results.json

Several seeds of one configuration become one row: the mean of their rates, and the interval of that mean under the
same bootstrap draws of speakers. Under the same draws rows are compared, two by two.
"""

from __future__ import annotations

import argparse
import functools
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from rwae_audio.commands.common import Parser, guarded
from rwae_audio.commands.resume import read_plan
from rwae_audio.comparison import difference, difference_line, mean_row, same_settings
from rwae_audio.experiment import corpus_place
from rwae_audio.files import InputError, read_json, read_text, whole_file, write_json, write_text
from rwae_audio.verification import code_draws, markdown_table, read_scores

HERE = Path(__file__).resolve().parent
READMES = (HERE / "README.md", HERE.parent.parent / "README.md")
COMPARED = {
    "rwae-mmd": "dsvae",
    "rwae-gan": "dsvae",
    "rwae-smmd": "rwae-mmd",
    "rwae-feedback": "rwae-mmd",
    "rwae-plus": "rwae-mmd",
}
PICTURES = ("det", "reconstructions", "speakers", "swaps")  # of the first run
BEGIN, END = "<!-- results.json: begin -->", "<!-- results.json: end -->"


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="results.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="finished run folders")
    parser.add_argument(
        "--test", metavar="CORPUS", help="whose table it is (the first one that the first run is tested on)"
    )
    options = parser.parse_args(argv)
    if options.runs:
        test = options.test or tested_on(options.runs[0])[0]
        write_json(HERE / "results.json", collect(options.runs, test))
        plots = corpus_place(options.runs[0] / "plots", test, tested_on(options.runs[0]))
        for name in PICTURES:
            with whole_file(HERE / f"{name}.png") as temporary:
                shutil.copyfile(plots / f"{name}.png", temporary)
    results = read_json(HERE / "results.json", "the results of this recipe")
    for readme in READMES:
        write_text(readme, rendered(read_text(readme, "a README with a table"), results))
        print(f"{readme}: the table, from the {len(results)} rows of results.json")
    return 0


def tested_on(run: Path) -> list[str]:
    """The corpora that a run was tested on. Raises InputError."""
    tests = read_plan(run, {"test": list, "name": str, "command": str})["test"]
    if not tests:
        raise InputError(f"{run} was tested on no corpus; expected a finished run")
    return tests


def table_of(run: Path, test: str) -> dict[str, Any]:
    """The table of a run on the corpus `test`. Raises InputError when it was not tested there."""
    tables = read_json(run / "table.json", "a finished run")
    if test not in tables:
        raise InputError(f"{run} was tested on {', '.join(tables)}; expected {test} among them")
    return tables[test]


def collect(runs: list[Path], test: str) -> dict[str, Any]:
    """row → its rates on the corpus `test`, as eer.json has them, and its command, configuration and seeds. Rows without
    training come from the first run."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for run in runs:
        plan, table = read_json(run / "run.json", "a finished run"), table_of(run, test)
        for key in table:
            trained = key.split(":")[0] == plan["name"]
            if trained or not groups[key]:
                groups[key].append(run)
    order = [
        "rwae-mmd",
        "rwae-gan",
        "rwae-smmd",
        "rwae-feedback",
        "rwae-plus",
        "dsvae",
        "dsvae-full",
        "fhvae",
        "s3vae",
        "c-dsvae",
        "dbse",
        "untrained",
        "log-mel",
        "log-mel-mvn",
    ]
    keys = sorted(
        groups, key=lambda key: (":" in key, order.index(k) if (k := key.split(":")[0]) in order else len(order))
    )
    rows = {key: row(key, groups[key], test) for key in keys}
    for key, other in COMPARED.items():
        if key in rows and other in rows:
            draws = ([replicates(run, test, name) for run in groups[name]] for name in (key, other))
            rows[key]["against"] = {"row": other, **difference(rows[key], rows[other], *draws)}
    return rows


def row(key: str, runs: list[Path], test: str) -> dict[str, Any]:
    """One row of results.json."""
    tables = [table_of(run, test)[key] for run in runs]
    plans = [read_json(run / "run.json", "a finished run") for run in runs]
    configs = [read_json(run / "config.json", "a finished run") for run in runs]
    same_settings(key, configs)
    merged = mean_row(tables, [replicates(run, test, key) for run in runs] if len(runs) > 1 else [])
    command = re.sub(r" --(seed|out|threads) \S+| --no-tensorboard", "", plans[0]["command"])
    seeds = [config["train"]["seed"] for config in configs]
    return {**merged, "command": command, "config": plans[0]["name"], "seeds": seeds}


@functools.cache  # a row is averaged, and compared
def replicates(run: Path, test: str, key: str) -> dict[str, np.ndarray]:
    """Bootstrap draws of a run's static and dynamic EER, from its score files."""
    scores, trials, place = {}, None, corpus_place(run / "scores", test, tested_on(run))
    for kind in ("static", "dynamic_plain", "dynamic_centred"):
        path = place / f"{key.replace(':', '-')}.{kind}.txt"
        if path.exists():
            scores[kind], trials, _ = read_scores(path)
    assert trials is not None  # our own files have names
    return code_draws(scores, trials)


def rendered(readme: str, results: dict[str, Any]) -> str:
    """The README with the table between its two marks made anew."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise InputError(f"the README has no marks {BEGIN} … {END} for the table; expected both")
    commands = {entry["command"]: entry["seeds"] for key, entry in results.items() if key == entry["config"]}
    lines = [f"- seeds {', '.join(map(str, seeds))}: `{command}`" for command, seeds in commands.items()]
    differences = [
        difference_line(key, entry["against"]["row"], entry["against"])
        for key, entry in results.items()
        if "against" in entry
    ]
    first = next(iter(results))  # what the frames without speech know is shown of it alone
    shown = {key: entry for key, entry in results.items() if ":" not in key or key.startswith(f"{first}:")}
    parts = [markdown_table(shown), "\n".join(lines), "\n".join(differences)]
    return f"{before}{BEGIN}\n\n" + "\n\n".join(part for part in parts if part) + f"\n\n{END}{after}"


if __name__ == "__main__":
    sys.exit(guarded(main, "results.py"))
