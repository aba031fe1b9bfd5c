"""Several seeds of one system → a row of a table; two rows → their difference. All under the same bootstrap draws of
speakers (verification.code_draws with one seed), so that what two systems have in common cancels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rwae_audio.evaluation.verification import Report, interval
from rwae_audio.files import InputError
from rwae_audio.training.trainer import RunConfig

Draws = Mapping[str, np.ndarray]  # `static`, and perhaps `dynamic`: (replicates,) EERs


def mean_draws(draws: Sequence[Draws]) -> dict[str, np.ndarray]:
    """Draws of the mean over seeds: draw for draw the same speakers."""
    return {code: np.mean([draw[code] for draw in draws], axis=0) for code in draws[0]}


def mean_row(reports: Sequence[Report], draws: Sequence[Draws]) -> Report:
    """A row of one system's seeds: the means of their rates with the intervals of those means; `spread` is the standard
    deviation of the EER between seeds. A single report is a row as it is."""
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
    """Raises InputError when the configurations of a row's runs differ in more than their seed."""
    known = [RunConfig.of(config).tables() for config in configs]  # a setting that is newer than a run: its default
    settings = [{**config, "train": {**config["train"], "seed": None}} for config in known]
    if any(setting != settings[0] for setting in settings):
        raise InputError(f"the runs of {name} differ in more than their seed; expected one configuration a row")


def difference(one: Report, other: Report, draws: Sequence[Draws], other_draws: Sequence[Draws]) -> dict[str, Any]:
    """What the row `one` has more than `other` in `static` and `dynamic` EER and in `gap`: the `difference`, and its
    `interval`; of rows without a dynamic code on either side, static alone. draws, other_draws: of their seeds."""
    means = (mean_draws(draws), mean_draws(other_draws))
    said = {}
    for code in ("static", "dynamic"):
        if one[code] is not None and other[code] is not None:
            between = interval(means[0][code] - means[1][code])
            said[code] = {"difference": one[code]["eer"] - other[code]["eer"], "interval": between}
    if "dynamic" in said:
        gaps = [mean["dynamic"] - mean["static"] for mean in means]
        said["gap"] = {"difference": one["gap"] - other["gap"], "interval": interval(gaps[0] - gaps[1])}
    return said


def difference_line(key: str, other: str, said: Mapping[str, Any]) -> str:
    """A line on two rows: in points, with the interval of the difference, bold where it leaves 0 out."""

    def points(name: str) -> str:
        low, high = (100 * value for value in said[name]["interval"])
        text = f"{100 * said[name]['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
        return f"{name} **{text}**" if low > 0 or high < 0 else f"{name} {text}"

    names = [name for name in ("static", "dynamic", "gap") if name in said]
    return f"- `{key}` minus `{other}`: " + ", ".join(map(points, names))
