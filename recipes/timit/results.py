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
from rwae_audio.files import InputError, read_json, read_text, whole_file, write_json, write_text
from rwae_audio.verification import bootstrap_eers, fold, interval, markdown_table, read_scores, speakers_of

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
    options = parser.parse_args(argv)
    if options.runs:
        write_json(HERE / "results.json", collect(options.runs))
        for name in PICTURES:
            with whole_file(HERE / f"{name}.png") as temporary:
                shutil.copyfile(options.runs[0] / "plots" / f"{name}.png", temporary)
    results = read_json(HERE / "results.json", "the results of this recipe")
    for readme in READMES:
        write_text(readme, rendered(read_text(readme, "a README with a table"), results))
        print(f"{readme}: the table, from the {len(results)} rows of results.json")
    return 0


def collect(runs: list[Path]) -> dict[str, Any]:
    """row → the keys of eer.json, and its command, configuration and seeds. Rows without training come from the first run."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for run in runs:
        plan, table = (read_json(run / name, "a finished run") for name in ("run.json", "table.json"))
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
    rows = {key: row(key, groups[key]) for key in keys}
    for key, other in COMPARED.items():
        if key in rows and other in rows:
            rows[key]["against"] = {"row": other, **against(rows, groups, key, other)}
    return rows


def against(rows: dict[str, Any], groups: dict[str, list[Path]], key: str, other: str) -> dict[str, Any]:
    """What `key` has more than `other` in static and dynamic EER and in gap, each with the interval of the difference."""
    draws = {name: [replicates(run, name) for run in groups[name]] for name in (key, other)}
    mean = {
        name: {code: np.mean([draw[code] for draw in draws[name]], axis=0) for code in ("static", "dynamic")}
        for name in draws
    }
    said: dict[str, Any] = {}
    for code in ("static", "dynamic"):
        difference = rows[key][code]["eer"] - rows[other][code]["eer"]
        said[code] = {"difference": difference, "interval": interval(mean[key][code] - mean[other][code])}
    gaps = [mean[name]["dynamic"] - mean[name]["static"] for name in (key, other)]
    said["gap"] = {"difference": rows[key]["gap"] - rows[other]["gap"], "interval": interval(gaps[0] - gaps[1])}
    return said


def row(key: str, runs: list[Path]) -> dict[str, Any]:
    """One row of results.json."""
    tables = [read_json(run / "table.json", "a finished run")[key] for run in runs]
    plans = [read_json(run / "run.json", "a finished run") for run in runs]
    configs = [read_json(run / "config.json", "a finished run") for run in runs]
    settings = [{**config, "train": {**config["train"], "seed": None}} for config in configs]
    if any(setting != settings[0] for setting in settings):
        raise InputError(f"the runs of {key} differ in more than their seed; expected one configuration a row")
    merged = {**tables[0], **averaged(key, runs, tables)} if len(runs) > 1 else tables[0]
    command = re.sub(r" --(seed|out|threads) \S+| --no-tensorboard", "", plans[0]["command"])
    seeds = [config["train"]["seed"] for config in configs]
    return {**merged, "command": command, "config": plans[0]["name"], "seeds": seeds}


def averaged(key: str, runs: list[Path], tables: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; `spread` is the standard deviation of the EER between them."""
    draws = [replicates(run, key) for run in runs]
    merged: dict[str, Any] = {}
    for code in ("static", "dynamic"):
        if tables[0][code] is None:
            merged[code] = None
            continue
        names = [name for name, value in tables[0][code].items() if isinstance(value, float)]
        merged[code] = {name: float(np.mean([table[code][name] for table in tables])) for name in names}
        merged[code]["interval"] = interval(np.mean([draw[code] for draw in draws], axis=0))
        merged[code]["spread"] = float(np.std([table[code]["eer"] for table in tables], ddof=1))
    if merged["dynamic"] is not None:
        merged["gap"] = float(np.mean([table["gap"] for table in tables]))
        merged["gap_interval"] = interval(np.mean([draw["dynamic"] - draw["static"] for draw in draws], axis=0))
    return merged


@functools.cache  # a row is averaged, and compared
def replicates(run: Path, key: str) -> dict[str, np.ndarray]:
    """Bootstrap draws of a run's static and dynamic EER, from its score files."""
    found = {}
    for kind in ("static", "dynamic_plain", "dynamic_centred"):
        path = run / "scores" / f"{key.replace(':', '-')}.{kind}.txt"
        if path.exists():
            scores, trials, _ = read_scores(path)
            assert trials is not None  # our own files have names
            found[kind] = bootstrap_eers(scores, trials, speakers_of(trials))
    if "dynamic_plain" in found:
        found["dynamic"] = np.minimum(fold(found["dynamic_plain"]), fold(found["dynamic_centred"]))
    return found


def rendered(readme: str, results: dict[str, Any]) -> str:
    """The README with the table between its two marks made anew."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise InputError(f"the README has no marks {BEGIN} … {END} for the table; expected both")
    commands = {entry["command"]: entry["seeds"] for key, entry in results.items() if key == entry["config"]}
    lines = [f"- seeds {', '.join(map(str, seeds))}: `{command}`" for command, seeds in commands.items()]
    differences = [compared(key, entry["against"]) for key, entry in results.items() if "against" in entry]
    first = next(iter(results))  # what the frames without speech know is shown of it alone
    shown = {key: entry for key, entry in results.items() if ":" not in key or key.startswith(f"{first}:")}
    parts = [markdown_table(shown), "\n".join(lines), "\n".join(differences)]
    return f"{before}{BEGIN}\n\n" + "\n\n".join(part for part in parts if part) + f"\n\n{END}{after}"


def compared(key: str, said: dict[str, Any]) -> str:
    """A line on two rows: in points, with the interval of the difference, bold where it leaves 0 out."""

    def points(name: str) -> str:
        low, high = (100 * value for value in said[name]["interval"])
        text = f"{100 * said[name]['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
        return f"{name} **{text}**" if low > 0 or high < 0 else f"{name} {text}"

    return f"- `{key}` less `{said['row']}`: " + ", ".join(points(name) for name in ("static", "dynamic", "gap"))


if __name__ == "__main__":
    sys.exit(guarded(main, "results.py"))
