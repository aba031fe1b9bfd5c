"""The tables and the plot of a trial list: ladder.csv, ladder.md and det.png, from the results in its folder.

A row is a system. It has the means of the rates over all seeds, with intervals of the means. All systems have the same
bootstrap draws of speakers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mode
from typing import Any

import numpy as np
from ladder_rows import Run, read_list, read_runs
from ladder_runs import FEATURES, UNTRAINED

from rwae_audio.data.features import MelConfig
from rwae_audio.evaluation import plots
from rwae_audio.evaluation.comparison import difference, difference_line, mean_row
from rwae_audio.evaluation.tables import markdown_table, with_interval
from rwae_audio.evaluation.verification import det_points
from rwae_audio.files import InputError, write_text

# static and dynamic EER in % on TIMIT, collected by the DiffSDA paper; features, segments and code sizes differ
PUBLISHED = {
    "FHVAE": (5.06, 22.77),
    "DSVAE": (5.64, 19.20),
    "R-WAE": (4.73, 23.41),
    "S3VAE": (5.02, 25.51),
    "SKD": (4.46, 26.78),
    "C-DSVAE": (4.03, 31.81),
    "SPYL": (3.41, 33.22),
    "DBSE": (3.50, 34.62),
    "DiffSDA": (4.43, 46.72),
}
VAES = ("dsvae", "dsvae-full", "fhvae")
COMPARED = {"rwae-mmd": VAES, "rwae-gan": VAES}  # in addition, `rwae-plus` is compared with every unsupervised row
TERMS = (("train", "updates"), ("train", "batch"))  # compared settings, besides [mel]
COLUMNS = {  # column of ladder.csv → its path in a report
    **{f"{code}_eer": f"{code}.eer" for code in ("static", "dynamic")},
    **{
        f"{code}_{end}": f"{code}.interval.{i}"
        for code in ("static", "dynamic")
        for i, end in enumerate(("low", "high"))
    },
    **{f"{code}_spread": f"{code}.spread" for code in ("static", "dynamic")},
    **{"dynamic_plain": "dynamic.plain", "dynamic_centred": "dynamic.centred"},
    **{"gap": "gap", "gap_low": "gap_interval.0", "gap_high": "gap_interval.1"},
    **{f"{code}_min_dcf": f"{code}.min_dcf" for code in ("static", "dynamic")},
    **{f"phone_{code}": f"phone.{code}" for code in ("z_m", "z_c", "log_mel", "majority")},
    **{f"speaker_{probe}": f"speaker.{probe}" for probe in ("linear", "gru", "chance")},
    **{name: f"codes.{name}" for name in ("error", "static_variance", "dynamic_variance")},
    **{name: f"codes.{name}" for name in ("static_effect", "dynamic_effect")},
    "non_speech_static_eer": "non_speech.eer",
    **{f"degraded_{side}_eer": f"degraded.{side}.eer" for side in ("test", "both")},
    **{f"swaps_{name}": f"swaps.{name}" for name in ("phones_own", "phones_swap", "taken", "cosine", "steadiness")},
    **{name: name for name in ("parameters", "updates", "seconds_per_1000")},
}


@dataclass(frozen=True)
class Row:
    """A system of the ladder.

    Attributes:
        name: The name of the system.
        runs: The runs with all seeds.
        report: The mean report of the runs.
        collapsed: The seeds with collapsed codes.
    """

    name: str
    runs: list[Run]
    report: dict[str, Any]
    collapsed: list[Any]

    @property
    def kind(self) -> str:
        """The kind of the row: ranked, collapsed, untrained or supervised."""
        if self.name in (UNTRAINED, *FEATURES):
            return "untrained"
        return "supervised" if self.report.get("supervised") else "collapsed" if self.collapsed else "ranked"


def write_tables(place: Path) -> list[Path]:
    """Write the tables and the plot of the ladder in a folder, and return their paths. Raises InputError without runs."""
    rows = read_rows(place)
    target = read_list(place).target
    write_text(place / "ladder.csv", table_csv(rows))
    write_text(place / "ladder.md", table_md(rows, place.name))
    static = {row.name: row.runs[0].scores["static"] for row in rows}
    curves = {name: det_points(scores, target) for name, scores in static.items()}
    plots.det(place / "det.png", curves, f"{place.name}, static code, first seed")
    return [place / name for name in ("ladder.csv", "ladder.md", "det.png")]


def read_rows(place: Path) -> list[Row]:
    """Return the rows of the ladder in a folder: ranked rows by falling gap, then collapsed, untrained and supervised ones.

    Raises:
        InputError: The folder has no results.
    """
    runs: dict[str, list[Run]] = {}
    for run in read_runs(place):
        runs.setdefault(run.row["name"], []).append(run)
    if not runs:
        raise InputError(f"{place} has no rows; expected rows of --collect or of training")
    rows = [row_of(name, runs_of_row) for name, runs_of_row in runs.items()]
    kinds = ("ranked", "collapsed", "untrained", "supervised")
    return sorted(rows, key=lambda row: (kinds.index(row.kind), -(row.report["gap"] or 0), row.report["static"]["eer"]))


def row_of(name: str, runs: list[Run]) -> Row:
    """Return the row of the system `name` from its runs."""
    runs = sorted(runs, key=lambda run: run.row["seed"] or 0)
    means = mean_row([run.row for run in runs], [run.draws for run in runs])
    columns = {key: mean_of([run.row[key] for run in runs]) for key in means if all(key in run.row for run in runs)}
    rates = ("static", "dynamic", "gap", "gap_interval")
    report = {**columns, **{key: means[key] for key in rates}}
    # the time of the fastest run, since other runs may have shared the processor
    speeds = [run.row["seconds_per_1000"] for run in runs if run.row.get("seconds_per_1000")]
    if speeds:
        report["seconds_per_1000"] = min(speeds)
    return Row(name, runs, report, [run.row["seed"] for run in runs if run.row.get("collapsed")])


def mean_of(values: Sequence[Any]) -> Any:
    """Return the mean of values, entry by entry if they are tables.

    Values of other types have the mean None unless they are equal. So intervals have no mean, since the mean of intervals is
    not the interval of the mean.
    """
    first = values[0]
    if isinstance(first, dict):
        keys = [key for key in first if all(key in value for value in values)]
        return {key: mean_of([value[key] for value in values]) for key in keys}
    if isinstance(first, (int, float)) and not isinstance(first, bool):
        return first if all(value == first for value in values) else float(np.mean(values))
    return first if all(value == first for value in values) else None


def at(row: Mapping[str, Any], path: str) -> Any:
    """Return the value of a report at a path, or None if it is missing.

    Args:
        row: The report.
        path: The path, such as `static.interval.0` for row["static"]["interval"][0].
    """
    value: Any = row
    for key in path.split("."):
        if value is None:
            return None
        value = value[int(key)] if isinstance(value, (list, tuple)) else value.get(key)
    return value


def table_csv(rows: Sequence[Row]) -> str:
    """Return the text of ladder.csv: a line for each row, with rates as fractions and empty cells for missing values."""
    corpora = sorted({corpus for row in rows for corpus in row.report.get("elsewhere", {})})
    elsewhere = {
        f"{corpus}_{code}_eer": f"elsewhere.{corpus}.{code}.eer" for corpus in corpora for code in ("static", "dynamic")
    }
    columns = {**COLUMNS, **elsewhere}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "kind", "seeds", "collapsed_seeds", *columns])
    for row in rows:
        values = (at(row.report, path) for path in columns.values())
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        writer.writerow([row.name, row.kind, len(row.runs), len(row.collapsed), *cells])
    return file.getvalue()


def table_md(rows: Sequence[Row], corpus: str) -> str:
    """Return the text of ladder.md: the tables, the differences, the published numbers and the commands.

    Args:
        rows: The rows in their order.
        corpus: The tested corpus.
    """
    first = rows[0].report
    counts = f"{first['trials']:,} trials, {first['target_trials']:,} of them target, {first['speakers']} speakers"
    parts = [f"# The ladder on {corpus}", f"{counts}. Rates in %, with 95 % intervals of a bootstrap over speakers."]
    parts += ["Synthetic speech: these numbers say nothing about people."] if first["synthetic"] else []
    parts += list(dict.fromkeys(f"Partial: {row.report['partial']}." for row in rows if row.report.get("partial")))
    parts += [markdown_table(RATES, rate_cells(rows), words=(1,))]
    note = "degraded: mean static EER over the degradations of robustness.py, of the second recording / of both."
    parts += [note] if any(row.report.get("degraded") for row in rows) else []
    parts += ["## What the codes hold", markdown_table(HOLDS, map(content_cells, rows)), LEGEND]
    parts += swaps_section(rows)
    parts += elsewhere_section(rows)
    lines = [f"- {line}" for line in terms(rows)]
    parts += ["## Rows with other settings than most", "\n".join(lines)] if lines else []
    if lines := list(differences(rows)):
        note = (
            "Under the same draws of speakers, averaged over seeds, in percentage points; bold where the interval excludes 0. "
            "The interval covers the choice of speakers, not that of the seed, above all for rows with one seed."
        )
        parts += ["## Differences", note, "\n".join(lines)]
    published = [(name, f"{static:.2f}", f"{dynamic:.2f}") for name, (static, dynamic) in PUBLISHED.items()]
    note = (
        "Published by others: TIMIT, as collected by the DiffSDA paper. Features, segments and code sizes differ, so these "
        "systems cannot be ranked with the rows above."
    )
    parts += [
        "## Published numbers",
        note,
        markdown_table(("published", "static EER %", "dynamic EER %"), published),
    ]
    commands = dict.fromkeys(
        re.sub(r" --seed \S+", "", run.row["command"]) for row in rows for run in row.runs[:1] if "command" in run.row
    )
    parts += ["## Commands", "\n".join(f"- `{command}`" for command in commands)]
    return "\n\n".join(parts) + "\n"


RATES = ("rank", "system", "seeds", "static EER %", "dynamic EER %", "gap", "minDCF", "degraded %")
HOLDS = (
    *("system", "phone z^m", "phone z^c", "speaker z^m linear", "GRU", "error", "variance z^c", "z^m"),
    *("non-speech", "parameters", "s/1,000 updates"),
)
LEGEND = (
    "phone: accuracy of a linear probe of single frames, from z^m (good near the log-mels') and from z^c repeated over its "
    "window (good when low; windows differ in length); speaker: accuracy of the test utterances' speakers from z^m; error: "
    "squared error for each frame and bin of normalised log-mels; variance: of the posteriors; non-speech: static EER of "
    "non-speech frames; s: seconds on one core, of the fastest seed, beside other runs."
)


SWAPS = (
    "Utterances decoded as they are, and with the static code of another speaker, by the vocoder in the package. Models of "
    "others judge them. Phone errors: edits between the phones that hama recognises in the recording and in the decoding, "
    "over the number of the former. Voice taken: share of swaps whose voice resemblyzer finds nearer to the other speaker "
    "than to that of the utterance; cosine: with the other speaker; steadiness: cosine of both halves of a swap."
)


def rate_cells(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each row of the first table; only ranked rows have a rank."""
    for number, row in enumerate(rows, 1):
        mark = {"supervised": " (*supervised*)", "untrained": " (*not trained*)", "ranked": ""}.get(row.kind)
        if mark is None:
            mark = f" (**collapsed** in {len(row.collapsed)} of {len(row.runs)})"
        report = row.report
        gap = with_interval(report["gap"], report["gap_interval"])
        rates = (
            with_interval(at(report, f"{code}.eer"), at(report, f"{code}.interval")) for code in ("static", "dynamic")
        )
        rank = str(number) if row.kind == "ranked" else ""
        degraded = " / ".join(percent(at(report, f"degraded.{side}.eer")) for side in ("test", "both"))
        min_dcf = number_of(report["static"]["min_dcf"], 3)
        yield (rank, row.name + mark, str(len(row.runs)), *rates, gap, min_dcf, degraded.strip(" /"))


def content_cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row of the second table, which shows the content of the codes."""
    report = row.report
    shares = [percent(at(report, path)) for path in ("phone.z_m", "phone.z_c", "speaker.linear", "speaker.gru")]
    if at(report, "phone.per") == "segment":
        shares[0] += f" (a segment; log-mels {percent(report['phone']['log_mel'])})"
    state = (number_of(at(report, f"codes.{name}"), 3) for name in ("error", "static_variance", "dynamic_variance"))
    count = at(report, "parameters")
    speed = number_of(at(report, "seconds_per_1000"), 0)
    return (
        row.name,
        *shares,
        *state,
        percent(at(report, "non_speech.eer")),
        "" if count is None else f"{count:,.0f}",
        speed,
    )


def swaps_section(rows: Sequence[Row]) -> list[str]:
    """Return a section with what outside judges make of decodings, empty unless a row was judged."""
    header = ("system", "phone errors %", "phone errors of swaps %", "voice taken %", "cosine", "steadiness")
    judged = [(row.name, row.report["swaps"]) for row in rows if row.report.get("swaps")]
    cells = [
        (
            name,
            *(percent(swaps[key]) for key in ("phones_own", "phones_swap", "taken")),
            *(number_of(swaps[key], 3) for key in ("cosine", "steadiness")),
        )
        for name, swaps in judged
    ]
    return ["## Swaps, heard by others", SWAPS, markdown_table(header, cells)] if judged else []


def elsewhere_section(rows: Sequence[Row]) -> list[str]:
    """Return a section with the rates on corpora without training speakers, and a line about log-mels and chance."""
    parts = []
    probed = next((row.report for row in rows if at(row.report, "phone.log_mel") is not None), None)
    if probed:
        phone, chance = probed["phone"], percent(at(probed, "speaker.chance"))
        named = f"log-mels {percent(phone['log_mel'])} %, the commonest phone {percent(phone['majority'])} %"
        parts.append(f"For comparison: phone from {named}; speakers by chance {chance} %.")
    corpora = sorted({corpus for row in rows for corpus in row.report.get("elsewhere", {})})
    if not corpora:
        return parts
    counts = []
    for corpus in corpora:
        summary = next(row.report["elsewhere"][corpus] for row in rows if corpus in row.report.get("elsewhere", {}))
        out = f", {summary['left_out']} damaged recordings left out" if summary["left_out"] else ""
        counts.append(
            f"{corpus}: {summary['trials']:,} trials, {summary['target_trials']:,} target, {summary['speakers']} speakers{out}"
        )
    header = ("system", *(f"{corpus}, {code} EER %" for corpus in corpora for code in ("static", "dynamic")))
    cells = [
        (
            row.name,
            *(
                with_interval(*(at(row.report, f"elsewhere.{c}.{code}.{key}") for key in ("eer", "interval")))
                for c in corpora
                for code in ("static", "dynamic")
            ),
        )
        for row in rows
        if row.report.get("elsewhere")
    ]
    note = (
        f"Speech of corpora that the model was not trained on ({'; '.join(counts)}); empty if it was trained on them."
    )
    return [*parts, "## Elsewhere", note, markdown_table(header, cells)]


def terms(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each setting of a trained row (frames, windows, batch, updates) that differs from most rows."""
    configs = {row.name: row.runs[0].config for row in rows if row.kind in ("ranked", "collapsed")}
    for table, key in [*(("mel", key) for key in MelConfig().to_table()), *TERMS]:
        values = {name: config[table][key] for name, config in configs.items()}
        most = mode(values.values())
        for name, value in values.items():
            if value != most:
                yield f"`{name}`: [{table}] {key} is {value}, in most rows {most}"


def differences(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each pair in COMPARED, and for `rwae-plus` with every other unsupervised row."""
    named = {row.name: row for row in rows}
    unsupervised = tuple(row.name for row in rows if row.kind != "supervised" and row.name != "rwae-plus")
    for name, baselines in {"rwae-plus": unsupervised, **COMPARED}.items():
        for other in baselines:
            if name in named and other in named:
                pair = named[name], named[other]
                draws = ([run.draws for run in row.runs] for row in pair)
                single = [f"`{row.name}`" for row in pair if len(row.runs) == 1 and row.runs[0].row["seed"] is not None]
                mark = f" ({' and '.join(single)}: one seed)" if single else ""
                yield difference_line(name, other, difference(pair[0].report, pair[1].report, *draws)) + mark


def percent(value: float | None) -> str:
    """Return a rate in % as text, "" for None."""
    return with_interval(value, None)


def number_of(value: float | None, digits: int) -> str:
    """Return a number with `digits` digits after the point as text, "" for None."""
    return "" if value is None else f"{value:.{digits}f}"
