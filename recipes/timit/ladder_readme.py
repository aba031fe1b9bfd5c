"""Rendering of some rows of ladder.csv as the table of a README, between its marks."""

from __future__ import annotations

import csv
from collections.abc import Mapping

from ladder_table import markdown, percent, rate

from rwae_audio.files import InputError

SHOWN = ("rwae-plus", "rwae-mmd", "rwae-gan", "dsvae-full", "fhvae")
BEGIN, END = "<!-- ladder.csv: begin -->", "<!-- ladder.csv: end -->"
HEADER = ("system", "static EER %", "dynamic EER %", "gap", "phones %")


def rendered(readme: str, table: str) -> str:
    """Return the README with the rows SHOWN of ladder.csv, by rank. Raises InputError if the marks are missing."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise InputError(f"the README has no marks {BEGIN} … {END} for the table; expected both")
    rows = [row for row in csv.DictReader(table.splitlines()) if row["row"] in SHOWN]
    return f"{before}{BEGIN}\n\n" + "\n".join(markdown(HEADER, list(map(cells, rows)))) + f"\n\n{END}{after}"


def cells(row: Mapping[str, str]) -> tuple[str, ...]:
    """Return a line of the table from a line of ladder.csv, which holds fractions."""
    spans = (("static_eer", "static"), ("dynamic_eer", "dynamic"), ("gap", "gap"))
    rates = (rate(float(row[key]), [float(row[f"{prefix}_{end}"]) for end in ("low", "high")]) for key, prefix in spans)
    return (row["row"], *rates, percent(float(row["phone_z_m"])) if row["phone_z_m"] else "")
