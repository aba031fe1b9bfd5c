"""What other weights do for the ladder's methods, on the development speakers alone: as many trials for each.

    python recipes/timit/search.py --data an4=DIR --data librispeech=DIR --test an4
    python recipes/timit/search.py --data an4=DIR --data librispeech=DIR --test an4 --rows dsvae
    python recipes/timit/search.py --test an4 --no-train                                 the table once more

search.toml has the trials; ablations.py trains them as its own rows, one seed of each. What it leaves of them is kept in
ladder/<test>/search/NAME,SETTING,.../, and ladder/<test>/search.md is made from these and from the ladder's rows NAME-searched,
which were trained on with what was taken. The search itself does not look at the test speakers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablations import opened, percent, same_updates, settings, table_arguments, trained

from rwae_audio.commands.common import Parser, guarded, say
from rwae_audio.files import read_json, read_text, write_text

NAME = "search.py"
COLUMNS = ("static_eer", "dynamic_eer", "score", "static_effect", "dynamic_effect")
AHEAD = 0.015  # of the gap: a trial that is more than this ahead of its method as it is replaces it; seeds deviate by as much


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    table_arguments(parser, "search")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    methods, plan, place = opened(options, "search")
    if not options.no_train:
        for name in options.rows or methods:
            for trial in methods[name]:
                kept = folder_of(place, name, trial)
                if not (kept / "row.json").is_file():
                    tables, folder = tried(name, trial, options.set), options.runs / kept.name
                    say(NAME, f"{name}, {trial or 'as it is'}, {tables['train']['updates']} updates, in {folder}")
                    trained(tables, plan, folder, kept, options.threads, probes=False)
    print(write_table(place, methods))
    return 0


def tried(name: str, trial: str, changes: list[str]) -> dict[str, Any]:
    """The tables of a method's trial; `changes`, as --set has them, come last."""
    return settings({"base": name}, 0, [*trial.split(), *changes])


def folder_of(place: Path, name: str, trial: str) -> Path:
    """Where a trial is kept: named after what it changes, so that none is taken for another."""
    return place / "search" / ",".join([name, *trial.split()])


def write_table(place: Path, methods: dict[str, list[str]]) -> Path:
    """search.md from the folders under `place`; returns its path. Raises InputError when there are none."""
    lines, updates = [], set()
    for name, trials in methods.items():
        folders = {trial: folder_of(place, name, trial) for trial in trials}
        found = {trial: last(folder) for trial, folder in folders.items() if (folder / "row.json").is_file()}
        best = taken(found)
        for trial, said in found.items():
            updates.add(said["step"])
            cells = {key: percent(said[key]) for key in COLUMNS}
            if trial == best:
                cells["score"] = f"**{cells['score']}**"
            what = ", ".join(f"`{setting}`" for setting in trial.split()) or "as it is"
            lines.append(f"| {name} | {what} | {' | '.join(cells.values())} | {said['error']:.3f} |")
    same = same_updates(updates, place / "search")
    head = [
        f"# Search on {place.name}",
        "",
        f"The development speakers after {same} updates, one seed; rates in %. In bold the gap of the trial that a "
        f"method goes on with: the widest, if it is more than {100 * AHEAD:.1f} points wider than that of the method as it is. "
        "Effect: how much larger the error is without a code.",
        "",
        "| method | trial | static EER % | dynamic EER % | gap | effect z^c % | z^m % | error |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    longer = [line for name in methods for line in trained_on(place, name)]
    if longer:
        longer = [
            "",
            "## Trained as long as the ladder's rows",
            "",
            "As it was → with what was taken, by the same seed; the checkpoint is the one with the widest gap on the "
            "development speakers.",
            "",
            "| method | seed | dev gap | test static EER % | test dynamic EER % | test gap |",
            "|---|---:|---:|---:|---:|---:|",
            *longer,
        ]
    write_text(place / "search.md", "\n".join([*head, *lines, *longer, ""]))
    return place / "search.md"


def trained_on(place: Path, name: str) -> Iterator[str]:
    """A line for each of the ladder's rows NAME-searched-SEED that has a NAME-SEED beside it."""
    for folder in sorted(place.glob(f"{name}-searched-*")):
        seed = folder.name.rpartition("-")[2]
        as_it_was = place / f"{name}-{seed}"
        if not (as_it_was / "row.json").is_file():
            continue
        both = [at_best(as_it_was), at_best(folder)]
        cells = [" → ".join(percent(said[key]) for said in both) for key in both[0]]
        yield f"| {name} | {seed} | {' | '.join(cells)} |"


def at_best(folder: Path) -> dict[str, float]:
    """The widest gap on the development speakers in a row's log, and its rates on the test speakers; fractions."""
    log = read_text(folder / "metrics.jsonl", "a row of the ladder").splitlines()
    row = read_json(folder / "row.json", "a row of the ladder")
    return {
        "dev": max(json.loads(line)["dev/score"] for line in log),
        **{code: row[code]["eer"] for code in ("static", "dynamic")},
        "gap": row["gap"],
    }


def last(folder: Path) -> dict[str, Any]:
    """What the development speakers said at the end of a trial, fractions; its `score` is the gap."""
    said = json.loads(read_text(folder / "metrics.jsonl", "a dev log").splitlines()[-1])
    return {key.removeprefix("dev/"): value for key, value in said.items()}


def taken(found: dict[str, dict[str, Any]]) -> str | None:
    """The trial with the widest gap of those that use both codes, or the method as it is (""), where that is not AHEAD of
    it; None when the method as it is is not there."""
    from rwae_audio.health import collapsed_codes

    if "" not in found:
        return None
    best = max(["", *(t for t, said in found.items() if not collapsed_codes(said))], key=lambda t: found[t]["score"])
    return best if found[best]["score"] - found[""]["score"] > AHEAD else ""


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
