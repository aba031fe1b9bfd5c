"""The judges' measures of conversions: a file for each row, and a table of all rows.

results/<list>/<row>.csv       a line a pair, COLUMNS
results/<list>/natural.csv     natural trials of the same speakers, from which the thresholds are
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
ENCODERS = ("resemblyzer", "voicefilter")
SHORT = {  # a measure that the README has → its head
    "accepted": "accepted %",
    "accepted_loosely": "accepted at 0.6895 %",
    "nearer_both": "nearer by both %",
    "understood": "understood %",
    "cer": "CER %",
    "overall": "DNSMOS",
    "distillmos": "DistillMOS",
}
MORE = {  # further measures of table.md
    "substitutions": "substituted %",
    "deletions": "deleted %",
    "insertions": "inserted %",
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
DIGITS = {"overall": 2, "distillmos": 2, "cosine": 3, "correlation": 2, "register": 1, "mcd": 1}
SHARES = tuple(key for key in (*SHORT, *MORE) if key not in (*DIGITS, *EDITS))
LOOSE = 0.6895  # the cosine of resemblyzer at which TriAAN-VC accepts (Park et al., ICASSP 2023)
REPLICATES = 1000
COLUMNS = (
    *("source", "target"),
    *(f"{encoder}_{of}" for encoder in ENCODERS for of in ("target", "source")),
    *("cer", "speech", "background", "overall"),  # DNSMOS
    *("correlation", "register", "voiced"),  # judges.Pitch
    *("seconds", "wanted_seconds", "mcd"),
    *("letters", *EDITS),  # judges.CharacterErrors
    "distillmos",
)


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """Return a line for each row, with numbers to four places, empty where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = [row.get(column, "") for column in columns]
        writer.writerow([f"{c:.4f}".replace("nan", "") if isinstance(c, float) else c for c in cells])
    return file.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows that `as_csv` has written."""
    return list(csv.DictReader(read_text(path, "what the judges said").splitlines()))


def thresholds(place: Path) -> dict[str, float]:
    """Return each encoder's cosine at the EER of natural trials."""
    rows = read_csv(place / "natural.csv")
    found = {}
    for encoder in ENCODERS:
        mine = [row for row in rows if row["encoder"] == encoder]
        scores, same = (np.array([float(row[key]) for row in mine]) for key in ("cosine", "same"))
        found[encoder] = eer_threshold(scores, same == 1)
    return found


def write_table(place: Path, name: str) -> Path:
    """Write table.md and plot.png from the rows under `place`, and return the table's path. Raises InputError without rows."""
    files = sorted(path for path in place.glob("*.csv") if path.stem != "natural")
    if not files or not (place / "natural.csv").is_file():
        raise InputError(f"{place} has no rows; expected some that were judged")
    limits = thresholds(place)
    judged = {path.stem: read_csv(path) for path in files}
    counts = {row: len(pairs) for row, pairs in judged.items()}
    count = min(counts.values())
    if len(set(counts.values())) > 1:
        came = ", ".join(f"{row} {number}" for row, number in counts.items())
        raise InputError(f"the rows in {place} have different numbers of pairs ({came}); expected the same of each")
    if len({tuple((pair["source"], pair["target"]) for pair in pairs) for pairs in judged.values()}) > 1:
        raise InputError(f"the rows in {place} are of different pairs; expected those of one list, in its order")
    rows = {row: measures(pairs, limits) for row, pairs in judged.items()}
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
        "DNSMOS (overall) and DistillMOS: 1 to 5. F0: correlation of the log-F0 with the source's, where both have a voice;",
        "register: how far its mean is from the target's, in semitones. MCD: of what is understood, from the source's own",
        "recording, in dB; a voice that is converted is not to come near 0.",
        "",
        *ahead(ranked),
    ]
    write_text(place / "table.md", "\n".join(lines))
    if place.parent == HERE / "results":
        readme = read_text(README, "the README")
        if f"<!-- {name}: begin -->" in readme:
            write_text(README, marked(readme, name, markdown(ranked, SHORT)))
    points = {row: (bracketed(said, "understood", 100), bracketed(said, "cosine")) for row, said in rows.items()}
    plots.conversions(place / "plot.png", points, limits["resemblyzer"], name)
    return place / "table.md"


def ahead(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return lines that say how much more often OWN is accepted than each other row, pair by pair; none without OWN."""
    others = [row for row in rows if row != OWN]
    if OWN not in rows or not others:
        return []
    lines = [f"How much more often `{OWN}` is accepted, in points, of the same pairs; in brackets as above:", ""]
    for row in others:
        more = {**rows[OWN], "more": rows[OWN]["accepted"] - rows[row]["accepted"]}
        mean, low, high = bracketed(more, "more", 100)
        lines.append(f"- than `{row}`: {mean:+.1f} [{low:+.1f}, {high:+.1f}]")
    return [*lines, ""]


def markdown(rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return a table of these columns."""
    cells = ((row, *(cell(values, key) for key in columns)) for row, values in rows.items())
    return markdown_table(("row", *columns.values()), cells)


def cell(said: Mapping[str, Any], key: str) -> str:
    """Return the mean of a row's measure as its table has it."""
    if key in SHARES:
        mean, *ends = bracketed(said, key, 100)
        return with_interval(mean, ends, scale=1)
    if key in EDITS:
        return f"{100 * said[key].sum() / said['letters'].sum():.1f}".replace("nan", "")
    known = said[key][~np.isnan(said[key])]
    return f"{np.abs(known).mean() if key == 'register' else known.mean():.{DIGITS[key]}f}" if len(known) else ""


def measures(rows: Sequence[Mapping[str, str]], limits: Mapping[str, float]) -> dict[str, Any]:
    """Return for each pair, (N,), what the table has, and the speakers of its source and target."""
    said: dict[str, Any] = {
        key: np.array([float(row.get(key) or "nan") for row in rows])
        for key in COLUMNS
        if key not in ("source", "target")
    }
    said["target"] = np.array([row["target"] for row in rows])
    said["source"] = np.array([Path(row["source"]).parent.name for row in rows])  # its speaker
    said["cosine"] = said["resemblyzer_target"]
    for name, encoder in zip(("nearer", "nearer_voicefilter"), ENCODERS, strict=True):
        than = said[f"{encoder}_source"]  # nobody knows, where the source's speaker has no other recording
        said[name] = np.where(np.isnan(than), np.nan, said[f"{encoder}_target"] > than)
    said["nearer_both"] = said["nearer"] * said["nearer_voicefilter"]
    said["like"] = (said["cosine"] >= limits["resemblyzer"]).astype(float)
    said["understood"] = (said["cer"] <= ACCEPTED_CER).astype(float)
    said["mcd"] = np.where(said["understood"] == 1, said["mcd"], np.nan)  # of what says the same
    for name, encoder in zip(("accepted", "accepted_voicefilter"), ENCODERS, strict=True):
        judged = zip(*(said[key] for key in (f"{encoder}_target", "cer", "seconds", "wanted_seconds")), strict=True)
        said[name] = np.array([float(accepted(cosine, limits[encoder], *rest)) for cosine, *rest in judged])
    judged = zip(*(said[key] for key in ("cosine", "cer", "seconds", "wanted_seconds")), strict=True)
    said["accepted_loosely"] = np.array([float(accepted(cosine, LOOSE, *rest)) for cosine, *rest in judged])
    return said


def bracketed(said: Mapping[str, Any], key: str, scale: float = 1.0) -> tuple[float, float, float]:
    """Return the mean of the pairs that have a value, and the ends of its interval.

    The bootstrap draws the sources' speakers and, apart from them, the targets': a pair counts as often as the one was drawn
    times the other.
    """
    known = ~np.isnan(said[key])
    letters = said["letters"] if key == "cer" and not np.isnan(said["letters"]).any() else np.ones(len(known))
    values, weights, chance = said[key][known], letters[known], np.random.default_rng(0)
    mean = np.average(values, weights=weights) if known.any() else np.nan
    for side in ("source", "target"):
        names, which = np.unique(said[side][known], return_inverse=True)
        weights = weights * draw_counts(len(names), REPLICATES, chance)[:, which]
    with np.errstate(invalid="ignore"):  # of a draw without any pair
        means = (weights * values).sum(1) / weights.sum(1)
    low, high = interval(scale * means) or (np.nan, np.nan)
    return scale * float(mean), low, high
