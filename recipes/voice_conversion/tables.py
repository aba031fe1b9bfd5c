"""The tables of judged conversions: reading and writing of measures, means with intervals, Markdown and a plot.

results/<list>/<row>.csv       the measures of a system, a line for each pair, with the columns COLUMNS
results/<list>/natural.csv     trials of natural recordings of the same speakers, which give the thresholds
results/<list>/table.md        the table of all systems
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rwae_audio.evaluation import plots
from rwae_audio.evaluation.bootstrap import draw_counts
from rwae_audio.evaluation.judges import ACCEPTED_CER, accepted
from rwae_audio.evaluation.tables import markdown_table, marked, with_interval
from rwae_audio.evaluation.verification import eer_threshold, interval
from rwae_audio.files import InputError, read_text, write_text

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
OWN = "rwae"  # the row of the bundle in the package
ENCODERS = ("resemblyzer", "voicefilter")  # the speaker encoders
SHORT = {  # measure → the title of its column, in table.md and in the README
    "accepted": "accepted %",
    "accepted_loosely": "accepted at 0.6895 %",
    "nearer_both": "nearer by both %",
    "understood": "understood %",
    "cer": "CER %",
    "overall": "DNSMOS",
    "distillmos": "DistillMOS",
}
MORE = {  # measure → the title of its column, in table.md alone
    "substitutions": "substituted %",
    "deletions": "deleted %",
    "insertions": "inserted %",
    "phones": "phone errors %",
    "like": "like the target %",
    "accepted_voicefilter": "accepted by voicefilter %",
    "nearer": "nearer the target %",
    "nearer_voicefilter": "nearer by voicefilter %",
    "cosine": "cosine",
    "correlation": "F0",
    "register": "register",
    "mcd": "MCD",
}
EDITS = ("substitutions", "deletions", "insertions")
DIGITS = {
    "overall": 2,
    "distillmos": 2,
    "cosine": 3,
    "correlation": 2,
    "register": 1,
    "mcd": 1,
}  # digits after the point
SHARES = tuple(key for key in (*SHORT, *MORE) if key not in (*DIGITS, *EDITS))
LOOSE = 0.6895  # the threshold of TriAAN-VC for resemblyzer's cosine (Park et al., ICASSP 2023)
REPLICATES = 1000  # bootstrap draws
COLUMNS = (
    *("source", "target"),
    *(f"{encoder}_{speaker}" for encoder in ENCODERS for speaker in ("target", "source")),  # cosines
    *("cer", "speech", "background", "overall"),  # DNSMOS
    *("correlation", "register", "voiced"),  # judges.Pitch
    *("seconds", "wanted_seconds", "mcd"),
    *("letters", *EDITS),  # judges.CharacterErrors
    *("distillmos", "phones"),
)


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """Return rows as the text of a CSV file, with four digits after the point and empty cells for missing values.

    Args:
        rows: The values of each row by column.
        columns: The columns.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = [row.get(column, "") for column in columns]
        writer.writerow([f"{c:.4f}".replace("nan", "") if isinstance(c, float) else c for c in cells])
    return file.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file of `as_csv`."""
    return list(csv.DictReader(read_text(path, "a file of measures").splitlines()))


def thresholds(folder: Path) -> dict[str, float]:
    """Return the threshold of each encoder, which is the cosine at the EER of the trials in natural.csv."""
    rows = read_csv(folder / "natural.csv")
    limits = {}
    for encoder in ENCODERS:
        trials = [row for row in rows if row["encoder"] == encoder]
        scores, same = (np.array([float(row[key]) for row in trials]) for key in ("cosine", "same"))
        limits[encoder] = eer_threshold(scores, same == 1)
    return limits


def write_table(folder: Path, name: str) -> Path:
    """Write table.md and plot.png from the measures in a folder, and the rows of the README for a list that it shows.

    Args:
        folder: The folder of the list's results.
        name: The name of the list.

    Returns:
        The path of table.md.

    Raises:
        InputError: There are no measures, or the rows do not have the same pairs.
    """
    files = sorted(path for path in folder.glob("*.csv") if path.stem != "natural")
    if not files or not (folder / "natural.csv").is_file():
        raise InputError(f"{folder} has no rows; expected measures of evaluate.py")
    limits = thresholds(folder)
    pairs_of = {path.stem: read_csv(path) for path in files}
    counts = {row: len(pairs) for row, pairs in pairs_of.items()}
    count = min(counts.values())
    if len(set(counts.values())) > 1:
        numbers = ", ".join(f"{row} {number}" for row, number in counts.items())
        raise InputError(f"the rows in {folder} have different numbers of pairs ({numbers}); expected equal numbers")
    if len({tuple((pair["source"], pair["target"]) for pair in pairs) for pairs in pairs_of.values()}) > 1:
        raise InputError(f"the rows in {folder} have different pairs; expected those of one list, in its order")
    rows = {row: measures(pairs, limits) for row, pairs in pairs_of.items()}
    ranked = dict(sorted(rows.items(), key=lambda item: -float(np.mean(item[1]["accepted"]))))
    lines = [
        f"# Conversions on {name}",
        "",
        f"{count} pairs; in brackets 95 % intervals of a bootstrap over the sources' speakers and the targets', the thresholds",
        "taken as known. A conversion is accepted when resemblyzer takes it for the target, its CER is 40 % or less and its",
        "length within 3 % of the source's; beside it the same at a cosine of 0.6895, TriAAN-VC's, and by the other encoder,",
        "voicefilter. The cosines' thresholds are those of the EER on natural speech of the same speakers: "
        f"{limits['resemblyzer']:.3f} and {limits['voicefilter']:.3f}.",
        "",
        markdown(ranked, {**SHORT, **MORE}),
        "",
        "Like the target: resemblyzer takes it for the target, whatever it says. Nearer: its cosine with other recordings of",
        "the target is above that with others of the source, by either encoder and by both. Understood: a CER of 40 % or less.",
        "CER: all edits over all characters, and the parts of it; a row without these parts has the mean over its pairs.",
        "Phone errors: edits between the phones that hama recognises in the conversion and in the recording of its words, over",
        "the number of the latter; the mean over the pairs. A row without them is older.",
        "DNSMOS (overall) and DistillMOS: 1 to 5. F0: correlation of the log-F0 with the source's, where both have a voice;",
        "register: how far its mean is from the target's, in semitones. MCD: of what is understood, from the source's own",
        "recording, in dB; a voice that is converted is not to come near 0.",
        "",
        *ahead(ranked),
    ]
    write_text(folder / "table.md", "\n".join(lines))
    if folder.parent == HERE / "results":
        readme = read_text(README, "the README")
        if f"<!-- {name}: begin -->" in readme:
            write_text(README, marked(readme, name, markdown(ranked, SHORT)))
    points = {row: (bracketed(values, "understood", 100), bracketed(values, "cosine")) for row, values in rows.items()}
    plots.conversions(folder / "plot.png", points, limits["resemblyzer"], name)
    return folder / "table.md"


def ahead(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return lines with the difference in accepted conversions between OWN and each other row; no lines without OWN."""
    others = [row for row in rows if row != OWN]
    if OWN not in rows or not others:
        return []
    lines = [f"How much more often `{OWN}` is accepted, in points, of the same pairs; in brackets as above:", ""]
    for row in others:
        values = {**rows[OWN], "difference": rows[OWN]["accepted"] - rows[row]["accepted"]}
        mean, low, high = bracketed(values, "difference", 100)
        lines.append(f"- than `{row}`: {mean:+.1f} [{low:+.1f}, {high:+.1f}]")
    return [*lines, ""]


def markdown(rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return a table in Markdown.

    Args:
        rows: The measures of each row, from `measures`.
        columns: The title of each column by its measure.
    """
    cells = ((row, *(cell(values, key) for key in columns)) for row, values in rows.items())
    return markdown_table(("row", *columns.values()), cells)


def cell(values: Mapping[str, Any], key: str) -> str:
    """Return the text of a cell of the table.

    Args:
        values: The measures of a row, from `measures`.
        key: The measure of the column.
    """
    if np.isnan(values[key]).all():  # an older row
        return ""
    if key in SHARES:
        mean, *ends = bracketed(values, key, 100)
        return with_interval(mean, ends, scale=1)
    if key in EDITS:
        return f"{100 * values[key].sum() / values['letters'].sum():.1f}".replace("nan", "")
    finite = values[key][~np.isnan(values[key])]
    return f"{np.abs(finite).mean() if key == 'register' else finite.mean():.{DIGITS[key]}f}" if len(finite) else ""


def measures(rows: Sequence[Mapping[str, str]], limits: Mapping[str, float]) -> dict[str, Any]:
    """Return all measures of the table for each pair, (N,), and the speakers of its source and its target.

    Args:
        rows: The measures of each pair, from `read_csv`.
        limits: The threshold of each encoder.
    """
    values: dict[str, Any] = {
        key: np.array([float(row.get(key) or "nan") for row in rows])
        for key in COLUMNS
        if key not in ("source", "target")
    }
    values["target"] = np.array([row["target"] for row in rows])
    values["source"] = np.array([Path(row["source"]).parent.name for row in rows])  # the speaker of the source
    values["cosine"] = values["resemblyzer_target"]
    for name, encoder in zip(("nearer", "nearer_voicefilter"), ENCODERS, strict=True):
        to_source = values[f"{encoder}_source"]  # nan if the speaker of the source has no other recording
        values[name] = np.where(np.isnan(to_source), np.nan, values[f"{encoder}_target"] > to_source)
    values["nearer_both"] = values["nearer"] * values["nearer_voicefilter"]
    values["like"] = (values["cosine"] >= limits["resemblyzer"]).astype(float)
    values["understood"] = (values["cer"] <= ACCEPTED_CER).astype(float)
    values["mcd"] = np.where(values["understood"] == 1, values["mcd"], np.nan)  # only for the same words
    for name, cosine_of, limit in (
        ("accepted", "cosine", limits["resemblyzer"]),
        ("accepted_voicefilter", "voicefilter_target", limits["voicefilter"]),
        ("accepted_loosely", "cosine", LOOSE),
    ):
        pairs = zip(*(values[key] for key in (cosine_of, "cer", "seconds", "wanted_seconds")), strict=True)
        values[name] = np.array([float(accepted(cosine, limit, *others)) for cosine, *others in pairs])
    return values


def bracketed(values: Mapping[str, Any], key: str, scale: float = 1.0) -> tuple[float, float, float]:
    """Return the mean of a measure over the pairs that have it, and the ends of its interval.

    The bootstrap draws the speakers of sources and, independently, those of targets. The weight of a pair is the product of
    the numbers of times that its two speakers are drawn.

    Args:
        values: The measures of a row, from `measures`.
        key: The measure.
        scale: The factor of all numbers.
    """
    has_value = ~np.isnan(values[key])
    by_letters = key == "cer" and not np.isnan(values["letters"]).any()
    letters = values["letters"] if by_letters else np.ones(len(has_value))
    numbers, weights, rng = values[key][has_value], letters[has_value], np.random.default_rng(0)
    mean = np.average(numbers, weights=weights) if has_value.any() else np.nan
    for side in ("source", "target"):
        names, speakers = np.unique(values[side][has_value], return_inverse=True)
        weights = weights * draw_counts(len(names), REPLICATES, rng)[:, speakers]
    with np.errstate(invalid="ignore"):  # draws without any pair
        means = (weights * numbers).sum(1) / weights.sum(1)
    low, high = interval(scale * means) or (np.nan, np.nan)
    return scale * float(mean), low, high
