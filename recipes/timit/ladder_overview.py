"""The overview of a ladder over all its trial lists: ladder.png, and the table of some systems in two READMEs.

Both are computed from the file ladder.csv of each list, whose rates are fractions.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from rwae_audio.evaluation import plots
from rwae_audio.evaluation.tables import markdown_table, marked, with_interval
from rwae_audio.files import InputError, read_text

SHOWN = ("rwae-plus", "rwae-mmd", "rwae-gan", "fhvae", "dsvae")  # the systems in the READMEs
Table = Mapping[str, Mapping[str, str]]  # system → column → cell


def read_overview(into: Path) -> dict[str, Table]:
    """Return the table of each trial list in the folder of a ladder, by the name of the list.

    Raises:
        InputError: The folder has no tables.
    """
    tables = {}
    for path in sorted(into.glob("*/ladder.csv")):
        tables[path.parent.name] = {row["row"]: row for row in csv.DictReader(read_text(path, "a ladder").splitlines())}
    if not tables:
        raise InputError(f"{into} has no */ladder.csv; expected the tables of a ladder")
    return tables


def rates(row: Mapping[str, str], code: str) -> tuple[float, list[float]]:
    """Return the rate of a `code` (static, dynamic or gap) in a row, and its interval."""
    return float(row["gap" if code == "gap" else f"{code}_eer"]), [
        float(row[f"{code}_{end}"]) for end in ("low", "high")
    ]


def plot(path: Path, tables: Mapping[str, Table]) -> None:
    """Plot the dynamic EER of all systems against their static EER, with a panel for each trial list.

    Systems that are not ranked are grey, and those without a dynamic code are lines.

    Args:
        path: The PNG file.
        tables: The table of each list.
    """
    panels, references, faint = {}, {}, set()
    for test, table in tables.items():
        two_codes = {name: row for name, row in table.items() if row["dynamic_eer"]}
        panels[test] = {
            name: tuple(dict(zip(("eer", "interval"), rates(row, code), strict=True)) for code in ("static", "dynamic"))
            for name, row in two_codes.items()
        }
        references[test] = {name: rates(row, "static")[0] for name, row in table.items() if row["kind"] == "supervised"}
        faint |= {name for name, row in two_codes.items() if row["kind"] != "ranked"}
    plots.eer_planes(path, panels, references, faint)


def rendered(readme: str, tables: Mapping[str, Table], systems: Sequence[str] = SHOWN) -> str:
    """Return the text of a README with a new table of some systems, by falling mean gap over the trial lists.

    Args:
        readme: The text of the README.
        tables: The table of each list.
        systems: The names of the systems.

    Raises:
        InputError: The README does not have the marks.
    """

    def mean_gap(name: str) -> float:
        return sum(rates(table[name], "gap")[0] for table in tables.values()) / len(tables)

    known = [name for name in systems if all(name in table for table in tables.values())]
    columns = [(table, code) for table in tables.values() for code in ("static", "dynamic")]
    cells = [
        (
            name,
            *(with_interval(*rates(table[name], code)) for table, code in columns),
            with_interval(mean_gap(name), None),
        )
        for name in sorted(known, key=mean_gap, reverse=True)
    ]
    header = ("system", *(f"{test}: {code} EER %" for test in tables for code in ("static", "dynamic")), "gap")
    return marked(readme, "ladder.csv", markdown_table(header, cells))
