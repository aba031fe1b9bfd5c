"""Comparison of systems: means over the seeds of a system, and differences of two systems with their intervals.

All systems have the same bootstrap draws of speakers (verification.code_draws with one seed). So variation that two
systems have in common cancels in their difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rwae_audio.evaluation.verification import Report, interval
from rwae_audio.files import InputError
from rwae_audio.training.trainer import RunConfig

Draws = Mapping[str, np.ndarray]  # EERs (replicates,) by code: `static`, and `dynamic` if there is one


def mean_draws(draws: Sequence[Draws]) -> dict[str, np.ndarray]:
    """Return the bootstrap draws of the mean EER over seeds, from the draws of each seed."""
    return {code: np.mean([draw[code] for draw in draws], axis=0) for code in draws[0]}


def mean_row(reports: Sequence[Report], draws: Sequence[Draws]) -> Report:
    """Return the report of a system: the means of the rates over its seeds, with the intervals of the means.

    `spread` is the standard deviation of the EER between seeds. A single report is returned unchanged.

    Args:
        reports: The report of each seed, from `verification.report`.
        draws: The bootstrap draws of each seed.
    """
    if len(reports) == 1:
        return dict(reports[0])
    mean, merged = mean_draws(draws), dict(reports[0])
    for code in ("static", "dynamic"):
        if merged[code] is not None:
            names = [name for name, value in merged[code].items() if isinstance(value, float)]
            merged[code] = {
                **{name: float(np.mean([report[code][name] for report in reports])) for name in names},
                "interval": interval(mean[code]),
                "spread": float(np.std([report[code]["eer"] for report in reports], ddof=1)),
            }
    if merged["dynamic"] is not None:
        merged["gap"] = float(np.mean([report["gap"] for report in reports]))
        merged["gap_interval"] = interval(mean["dynamic"] - mean["static"])
    return merged


def same_settings(name: str, configs: Sequence[Mapping[str, Any]]) -> None:
    """Raise InputError if the runs of a system differ in more than their seed.

    Args:
        name: The name of the system.
        configs: The configuration of each run, as tables.
    """
    tables = [
        RunConfig.of(config).tables() for config in configs
    ]  # settings that a run does not have get their defaults
    settings = [{**config, "train": {**config["train"], "seed": None}} for config in tables]
    if any(setting != settings[0] for setting in settings):
        raise InputError(f"the runs of {name} differ in more than their seed; expected one configuration for each row")


def difference(row: Report, other: Report, draws: Sequence[Draws], other_draws: Sequence[Draws]) -> dict[str, Any]:
    """Return the difference of two systems in `static` and `dynamic` EER and in `gap`, each with its interval.

    If one of the systems has no dynamic code, the result has the static EER alone.

    Args:
        row: The report of the first system.
        other: The report of the second system, which is subtracted.
        draws: The draws of each seed of the first system.
        other_draws: The draws of each seed of the second system.
    """
    means = (mean_draws(draws), mean_draws(other_draws))
    result = {}
    for code in ("static", "dynamic"):
        if row[code] is not None and other[code] is not None:
            between = interval(means[0][code] - means[1][code])
            result[code] = {"difference": row[code]["eer"] - other[code]["eer"], "interval": between}
    if "dynamic" in result:
        gaps = [mean["dynamic"] - mean["static"] for mean in means]
        result["gap"] = {"difference": row["gap"] - other["gap"], "interval": interval(gaps[0] - gaps[1])}
    return result


def difference_line(key: str, other: str, result: Mapping[str, Any]) -> str:
    """Return a line of Markdown with a difference in percentage points, in bold if its interval excludes 0.

    Args:
        key: The name of the first system.
        other: The name of the second system, which is subtracted.
        result: The output of `difference`.
    """

    def points(name: str) -> str:
        low, high = (100 * value for value in result[name]["interval"])
        text = f"{100 * result[name]['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
        return f"{name} **{text}**" if low > 0 or high < 0 else f"{name} {text}"

    names = [name for name in ("static", "dynamic", "gap") if name in result]
    return f"- `{key}` minus `{other}`: " + ", ".join(map(points, names))
