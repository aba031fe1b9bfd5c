"""What the judges said → a file a row, and a table of all rows.

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

from rwae_audio import plots
from rwae_audio.files import InputError, read_text, write_text
from rwae_audio.judges import ACCEPTED_CER, accepted
from rwae_audio.verification import eer_threshold, interval

ENCODERS = ("resemblyzer", "voicefilter")
REPLICATES = 1000
COLUMNS = (
    *("source", "target"),
    *(f"{encoder}_{of}" for encoder in ENCODERS for of in ("target", "source")),
    *("cer", "speech", "background", "overall"),  # DNSMOS
    *("correlation", "register", "voiced"),  # judges.Pitch
    *("seconds", "wanted_seconds", "mcd"),
)


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """A line a row; numbers to four places, empty where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = [row[column] for column in columns]
        writer.writerow([f"{c:.4f}".replace("nan", "") if isinstance(c, float) else c for c in cells])
    return file.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """The counterpart of as_csv."""
    return list(csv.DictReader(read_text(path, "what the judges said").splitlines()))


def thresholds(place: Path) -> dict[str, float]:
    """Each encoder's cosine at the EER of natural trials."""
    rows = read_csv(place / "natural.csv")
    found = {}
    for encoder in ENCODERS:
        mine = [row for row in rows if row["encoder"] == encoder]
        scores, same = (np.array([float(row[key]) for row in mine]) for key in ("cosine", "same"))
        found[encoder] = eer_threshold(scores, same == 1)
    return found


def write_table(place: Path, name: str) -> Path:
    """table.md and plot.png from the rows under `place`; returns the first's path. Raises InputError when there are none."""
    files = sorted(path for path in place.glob("*.csv") if path.stem != "natural")
    if not files or not (place / "natural.csv").is_file():
        raise InputError(f"{place} has no rows; expected some that were judged")
    limits = thresholds(place)
    rows = {path.stem: measures(read_csv(path), limits) for path in files}
    counts = {row: len(said["cer"]) for row, said in rows.items()}
    count = min(counts.values())
    if len(set(counts.values())) > 1:
        came = ", ".join(f"{row} {number}" for row, number in counts.items())
        raise InputError(f"the rows in {place} have different numbers of pairs ({came}); expected the same of each")
    heads = ("accepted %", "nearer the target %", "by voicefilter %", "cosine", "understood %", "CER %")
    heads += ("DNSMOS", "F0", "register", "MCD")
    lines = [
        f"# Conversions on {name}",
        "",
        f"{count} pairs; in brackets 95 % intervals of a bootstrap over the targets' speakers. A conversion is accepted when",
        f"resemblyzer takes it for the target (cosine over {limits['resemblyzer']:.3f}, the threshold of the EER on natural",
        "speech), its CER is 40 % or less and its length within 3 % of the source's.",
        "",
        f"| row | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(heads)}",
    ]
    for row, said in sorted(rows.items(), key=lambda item: -float(np.mean(item[1]["accepted"]))):
        cells = [with_interval(said, key, 100) for key in ("accepted", "nearer", "nearer_voicefilter")]
        cells += [f"{np.mean(said['cosine']):.3f}", *(with_interval(said, key, 100) for key in ("understood", "cer"))]
        cells += [f"{np.nanmean(said[key]):.2f}" for key in ("overall", "correlation")]
        cells += [f"{np.nanmean(np.abs(said['register'])):.1f}", f"{np.mean(said['mcd']):.1f}"]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    lines += [
        "",
        "Nearer: its cosine with other recordings of the target is above that with others of the source. Understood: a CER of",
        "40 % or less. DNSMOS: overall, 1 to 5. F0: correlation of the log-F0 with the source's, where both have a voice;",
        "register: how far its mean is from the target's, in semitones. MCD: from the source, in dB.",
        "",
    ]
    write_text(place / "table.md", "\n".join(lines))
    points = {row: (bracketed(said, "understood", 100), bracketed(said, "cosine")) for row, said in rows.items()}
    plots.conversions(place / "plot.png", points, limits["resemblyzer"], name)
    return place / "table.md"


def measures(rows: Sequence[Mapping[str, str]], limits: Mapping[str, float]) -> dict[str, Any]:
    """Of each pair, (N,): what the table has, and its target."""
    said: dict[str, Any] = {
        key: np.array([float(row[key] or "nan") for row in rows]) for key in COLUMNS if key not in ("source", "target")
    }
    said["target"] = np.array([row["target"] for row in rows])
    said["cosine"] = said["resemblyzer_target"]
    for name, encoder in (("nearer", "resemblyzer"), ("nearer_voicefilter", "voicefilter")):
        said[name] = (said[f"{encoder}_target"] > said[f"{encoder}_source"]).astype(float)
    said["understood"] = (said["cer"] <= ACCEPTED_CER).astype(float)
    judged = zip(*(said[key] for key in ("cosine", "cer", "seconds", "wanted_seconds")), strict=True)
    said["accepted"] = np.array([float(accepted(cosine, limits["resemblyzer"], *rest)) for cosine, *rest in judged])
    return said


def with_interval(said: Mapping[str, Any], key: str, scale: float) -> str:
    """mean [low, high], as of `bracketed`."""
    mean, low, high = bracketed(said, key, scale)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def bracketed(said: Mapping[str, Any], key: str, scale: float = 1.0) -> tuple[float, float, float]:
    """Mean and the ends of its interval, of a bootstrap over targets."""
    names = np.unique(said["target"])
    sums = np.array([[said[key][said["target"] == name].sum(), (said["target"] == name).sum()] for name in names])
    drawn = np.random.default_rng(0).integers(len(names), size=(REPLICATES, len(names)))
    totals = sums[drawn].sum(1)
    low, high = interval(scale * totals[:, 0] / totals[:, 1]) or (np.nan, np.nan)
    return scale * float(np.mean(said[key])), low, high
