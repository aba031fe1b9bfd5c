"""The table of a README with some rows of ladder.csv, which replaces the text between two marks."""

from __future__ import annotations

import csv
from collections.abc import Mapping

from rwae_audio.evaluation.tables import markdown_table, marked, with_interval

SHOWN = ("rwae-plus", "rwae-mmd", "rwae-gan", "dsvae-full", "fhvae")
HEADER = ("system", "static EER %", "dynamic EER %", "gap", "phones %")


def rendered(readme: str, table: str) -> str:
    """Return the text of a README with a new table of the systems SHOWN.

    Args:
        readme: The text of the README.
        table: The text of ladder.csv.

    Raises:
        InputError: The README does not have the marks.
    """
    rows = [row for row in csv.DictReader(table.splitlines()) if row["row"] in SHOWN]
    return marked(readme, "ladder.csv", markdown_table(HEADER, map(cells, rows)))


def cells(row: Mapping[str, str]) -> tuple[str, ...]:
    """Return the cells of a row of the table from a row of ladder.csv, whose rates are fractions."""
    columns = (("static_eer", "static"), ("dynamic_eer", "dynamic"), ("gap", "gap"))
    rates = (
        with_interval(float(row[key]), [float(row[f"{prefix}_{end}"]) for end in ("low", "high")])
        for key, prefix in columns
    )
    return (row["row"], *rates, with_interval(float(row["phone_z_m"]), None) if row["phone_z_m"] else "")
