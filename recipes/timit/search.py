"""What other weights do for the ladder's methods, on the development speakers alone: as many trials for each.

    python recipes/timit/search.py --data an4=DIR --data librispeech=DIR --test an4
    python recipes/timit/search.py --data an4=DIR --data librispeech=DIR --test an4 --rows dsvae
    python recipes/timit/search.py --test an4 --no-train                                 the table once more

search.toml has the trials; ablations.py trains them as its own rows, one seed of each. What it leaves of them is kept in
ladder/<test>/search/NAME-TRIAL/, and ladder/<test>/search.md is made from these. The test speakers are not looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ablations import opened, percent, settings, table_arguments, trained

from rwae_audio.commands.common import Parser, guarded, say
from rwae_audio.files import InputError, read_text, write_text

NAME = "search.py"
COLUMNS = [f"dev/{name}" for name in ("static_eer", "dynamic_eer", "score", "static_effect", "dynamic_effect")]
AHEAD = 0.015  # of the gap: a trial that is more than this ahead of its method as it is replaces it; seeds deviate by as much


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    table_arguments(parser, "search")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    methods, data, test, place = opened(options, "search")
    if not options.no_train:
        for name in options.rows or methods:
            for number, trial in enumerate(methods[name]):
                kept = place / "search" / f"{name}-{number}"
                if not (kept / "row.json").is_file():
                    tables, folder = tried(name, trial, options.set), options.runs / kept.name
                    say(NAME, f"{name}, {trial or 'as it is'}, {tables['train']['updates']} updates, in {folder}")
                    trained(tables, data, test, folder, kept, options.threads, probes=False)
    print(write_table(place, methods))
    return 0


def tried(name: str, trial: str, changes: list[str]) -> dict[str, Any]:
    """The tables of a method's trial; `changes`, as --set has them, come last."""
    return settings({"base": name}, 0, [*trial.split(), *changes])


def write_table(place: Path, methods: dict[str, list[str]]) -> Path:
    """search.md from the folders under `place`; returns its path. Raises InputError when there are none."""
    lines, updates = [], set()
    for name, trials in methods.items():
        folders = {number: place / "search" / f"{name}-{number}" for number in range(len(trials))}
        found = {number: last(folder) for number, folder in folders.items() if (folder / "row.json").is_file()}
        best = taken(found)
        for number, said in found.items():
            updates.add(said["step"])
            cells = {key: percent(said[key]) for key in COLUMNS}
            if number == best:
                cells["dev/score"] = f"**{cells['dev/score']}**"
            what = ", ".join(f"`{setting}`" for setting in trials[number].split()) or "as it is"
            lines.append(f"| {name} | {what} | {' | '.join(cells.values())} | {said['dev/error']:.3f} |")
    if len(updates) != 1:
        came = f"rows of {' and '.join(map(str, sorted(updates)))} updates" if updates else "no rows"
        raise InputError(f"{place / 'search'} has {came}; expected some from training, all trained alike")
    head = [
        f"# Search on {place.name}",
        "",
        f"The development speakers after {updates.pop()} updates, one seed; rates in %. In bold the gap of the trial that a "
        f"method goes on with: the widest, if it is more than {100 * AHEAD:.1f} points wider than that of the method as it is. "
        "Effect: how much larger the error is without a code.",
        "",
        "| method | trial | static EER % | dynamic EER % | gap | effect z^c % | z^m % | error |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    write_text(place / "search.md", "\n".join([*head, *lines, ""]))
    return place / "search.md"


def last(folder: Path) -> dict[str, Any]:
    """What the development speakers said at the end of a trial, fractions; its `dev/score` is the gap."""
    return json.loads(read_text(folder / "metrics.jsonl", "a dev log").splitlines()[-1])


def taken(found: dict[int, dict[str, Any]]) -> int | None:
    """The trial with the widest gap of those that use both codes, or the first, where that is not AHEAD of it; None when
    the first is not there."""
    from rwae_audio.trainer import COLLAPSED

    if 0 not in found:
        return None
    whole = [n for n, said in found.items() if min(said["dev/static_effect"], said["dev/dynamic_effect"]) >= COLLAPSED]
    best = max([0, *whole], key=lambda number: found[number]["dev/score"])
    return best if found[best]["dev/score"] - found[0]["dev/score"] > AHEAD else 0


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
