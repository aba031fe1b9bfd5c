"""Plots for evaluation: DET curves, log-mels, maps of codes, error rates. Each function writes one PNG file."""

from __future__ import annotations

import io
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rwae_audio.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = tuple(f"C{i}" for i in (0, 1, 2, 3, 4, 5, 6, 8, 9))  # matplotlib's default colours except grey
STYLES = ("-", "--", ":")
MARKERS = "osD^vP*X"


def det(path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str = "") -> None:
    """Plot detection error trade-off (DET) curves on normal-deviate axes (Martin et al. 1997).

    Args:
        path: The PNG file.
        curves: The false alarm rates and the miss rates of each system by its name, as fractions.
        title: The title of the figure.
    """
    from scipy.stats import norm

    figure = _figure(7 if len(curves) > 6 else 5.5, 5)
    axes = figure.subplots()
    ticks = np.array([0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
    low, high = 5e-4, 0.95
    for i, (name, (false_alarm, miss)) in enumerate(curves.items()):
        inside = (false_alarm > low) & (miss > low)
        across, up = (norm.ppf(rate[inside].clip(low, high)) for rate in (false_alarm, miss))
        style = STYLES[i // len(COLOURS) % len(STYLES)]
        axes.plot(across, up, label=name, color=COLOURS[i % len(COLOURS)], linestyle=style)
    axes.plot(norm.ppf([low, high]), norm.ppf([low, high]), color="0.8", linewidth=0.8, zorder=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(norm.ppf(ticks), [f"{100 * tick:g}" for tick in ticks])
    axes.set(xlabel="false alarms, %", ylabel="misses, %", title=title, aspect="equal")
    axes.set(xlim=norm.ppf([low, high]), ylim=norm.ppf([low, high]))
    if len(curves) > 6:  # a legend with more entries would cover the curves
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    else:
        axes.legend(frameon=False)
    axes.grid(color="0.92")
    _save(figure, path)


def training(path: Path, looks: Sequence[Mapping[str, float]], best: int) -> None:
    """Plot the curves of a training: loss terms, EERs, the error, and its growth without either code.

    Args:
        path: The PNG file.
        looks: The lines of metrics.jsonl.
        best: The update of the best checkpoint, which is marked.
    """
    terms = [key for key in looks[-1] if key.startswith("train/") and key != "train/gradient"]
    rates = [key for key in looks[-1] if key.endswith("_eer")]
    panels = {
        "loss term, mean of a sequence": {key.removeprefix("train/"): (key, 1) for key in terms},
        "EER of development speakers, %": {key[4:-4].replace("/", ", "): (key, 100) for key in rates},
        "squared error of a frame and bin": {"error": ("dev/error", 1)},
        "growth of the error without a code, %": {code: (f"dev/{code}_effect", 100) for code in ("static", "dynamic")},
    }
    figure = _figure(11, 6.4)
    for axes, (label, curves) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for i, (name, (key, scale)) in enumerate(curves.items()):
            points = [(look["step"], scale * look[key]) for look in looks if key in look]
            axes.plot(*zip(*points, strict=True), label=name, color=COLOURS[i % len(COLOURS)], marker="o", markersize=3)
        axes.axvline(best, color="0.5", linewidth=1, linestyle="--", zorder=0, label="best checkpoint")
        axes.set(xlabel="update", ylabel=label)
        axes.grid(color="0.92")
        axes.legend(frameon=False, fontsize=9)
    losses, eers, error, _ = figure.axes
    losses.set_yscale("log" if all(look[key] > 0 for look in looks for key in terms if key in look) else "symlog")
    eers.set_ylim(0, 55)
    error.set_ylim(0, None)
    _save(figure, path)


def reconstructions(path: Path, pairs: Sequence[tuple[str, np.ndarray, np.ndarray]], seconds: float) -> None:
    """Plot utterances and their reconstructions side by side.

    Args:
        path: The PNG file.
        pairs: Name, log-mels (T, n_mels) and reconstruction (T, n_mels) of each utterance.
        seconds: The duration of a frame.
    """
    figure = _figure(9, 1.9 * len(pairs) + 0.4)
    rows = figure.subplots(len(pairs), 2, squeeze=False, sharex="row", sharey=True)
    for (name, original, reconstruction), (left, right) in zip(pairs, rows, strict=True):
        limits = float(np.percentile(original, 1)), float(original.max())
        _mels(left, original, seconds, limits, name)
        _mels(right, reconstruction, seconds, limits, "reconstruction")
    for axes in rows[:, 0]:
        axes.set_ylabel("mel bin")
    for axes in rows[-1]:
        axes.set_xlabel("s")
    _save(figure, path)


def swaps(path: Path, names: Sequence[str], originals: Sequence[np.ndarray], grid: Any, seconds: float) -> None:
    """Plot utterances with the static codes of other speakers: each row is one utterance, each column is one voice.

    Args:
        path: The PNG file.
        names: The names of the speakers.
        originals: The log-mels (T, n_mels) of an utterance of each speaker, which are shown in the first column.
        grid: The log-mels (T, n_mels) of utterance i in voice j, as grid[i][j].
        seconds: The duration of a frame.
    """
    count = len(names)
    figure = _figure(2.1 * (count + 1), 1.6 * count + 0.5)
    axes = figure.subplots(count, count + 1, squeeze=False, sharey=True)
    for i in range(count):
        limits = float(np.percentile(originals[i], 1)), float(originals[i].max())
        _mels(axes[i][0], originals[i], seconds, limits, f"{names[i]} (source)")
        for j in range(count):
            _mels(axes[i][j + 1], grid[i][j], seconds, limits, f"as {names[j]}" if i == 0 else "")
    _save(figure, path)


def sheet(
    path: Path,
    rows: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    heads: Sequence[str],
    seconds: float,
    cell: tuple[float, float] = (1.25, 1.05),
) -> None:
    """Plot a grid of log-mels.

    Args:
        path: The PNG file.
        rows: The log-mels (T, n_mels) of each cell, by row and column.
        names: The names of the rows.
        heads: The titles of the columns.
        seconds: The duration of a frame.
        cell: The width and the height of a cell in inches.
    """
    figure = _figure(cell[0] * len(rows[0]) + 0.4, cell[1] * len(rows) + 0.3)
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharex=True, sharey=True)
    all_frames = np.concatenate([frames for row in rows for frames in row])
    limits = float(np.percentile(all_frames, 1)), float(all_frames.max())
    for i, row in enumerate(rows):
        for j, frames in enumerate(row):
            _mels(grid[i][j], frames, seconds, limits, heads[j] if i == 0 else "")
            grid[i][j].set(xticks=[], yticks=[])
        grid[i][0].set_ylabel(names[i], fontsize=8)
    _save(figure, path)


def thumbnail(frames: np.ndarray, limits: tuple[float, float]) -> bytes:
    """Return a small picture of log-mels, with a pixel for each value.

    Args:
        frames: Log-mels (T, n_mels).
        limits: The value that is black, and the value that is bright.

    Returns:
        The content of a PNG file.
    """
    from matplotlib import colormaps
    from PIL import Image

    low, high = limits
    shades = (63 * ((frames.T[::-1] - low) / max(high - low, 1e-6)).clip(0, 1)).round().astype(np.uint8)
    image = Image.frombytes("P", shades.shape[::-1], shades.tobytes())
    image.putpalette(colormaps["magma"](np.linspace(0, 1, 64), bytes=True)[:, :3].tobytes())
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def speaker_map(path: Path, vectors: np.ndarray, speakers: Sequence[str], title: str = "") -> None:
    """Plot static embeddings on their first two principal axes, with a colour for each speaker.

    Args:
        path: The PNG file.
        vectors: The embeddings, (U, d), which are scaled to length 1.
        speakers: The speaker of each embedding, (U,).
        title: The title of the figure.
    """
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = vectors - vectors.mean(0)
    _, values, axes_ = np.linalg.svd(centred, full_matrices=False)
    points = centred @ axes_[:2].T
    share = values[:2] ** 2 / (values**2).sum()
    figure = _figure(6.5, 5.5)
    axes = figure.subplots()
    names = sorted(set(speakers))
    from matplotlib import colormaps

    for i, name in enumerate(names):
        x, y = points[np.array([speaker == name for speaker in speakers])].T
        colour = colormaps["nipy_spectral"](0.05 + 0.9 * i / max(len(names) - 1, 1))
        axes.scatter(x, y, s=26, color=[colour], marker=MARKERS[i % len(MARKERS)], label=name, linewidths=0)
    axes.set(xlabel=f"first axis ({100 * share[0]:.0f} %)", ylabel=f"second axis ({100 * share[1]:.0f} %)", title=title)
    axes.legend(frameon=False, fontsize=6, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def eer_planes(
    path: Path,
    panels: Mapping[str, Mapping[str, tuple[Any, Any]]],
    references: Mapping[str, Mapping[str, float]],
    faint: Collection[str] = (),
) -> None:
    """Plot the dynamic EER of systems against their static EER, with intervals and a panel for each trial list.

    Points further up and to the left are better. The dynamic code of a system below the diagonal identifies speakers
    better than its static code.

    Args:
        path: The PNG file.
        panels: The reports of the static and of the dynamic code by list and system, each with `eer` and `interval`, as
            fractions.
        references: The static EER of systems without a dynamic code by list and name, as fractions. They are lines.
        faint: The systems that are drawn in grey.
    """
    figure = _figure(5.5 * len(panels) + 0.5, 5.5)
    order = list(dict.fromkeys(name for systems in panels.values() for name in systems))
    for axes, (title, systems) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        points = {}
        for name, codes in systems.items():
            static, dynamic = (
                100 * np.array([code["eer"], *(code["interval"] or [code["eer"]] * 2)]) for code in codes
            )
            colour = _point(axes, order.index(name), static, dynamic, name in faint)
            points[name] = (static[0], dynamic[0], colour)
        low = axes.get_ylim()[0]  # the limit that suits the points, before lines are drawn
        axes.axline((0, 0), slope=1, color="0.85", linewidth=0.8, zorder=0)
        axes.set(xlim=(0, None), ylim=(low, 52), title=title)
        for name, eer in references.get(title, {}).items():
            axes.axvline(100 * eer, color="0.6", linewidth=1, linestyle="--", zorder=0)
            axes.annotate(
                name, (100 * eer, low), (2, 4), textcoords="offset points", fontsize=9, rotation=90, color="0.4"
            )
        axes.set_xlabel("static EER, %", fontsize=11)
        axes.set_ylabel("dynamic EER, %", fontsize=11)
        axes.grid(color="0.92")
        _names(figure, axes, points)
    _save(figure, path)


def conversions(path: Path, rows: Mapping[str, tuple[Any, Any]], threshold: float, title: str = "") -> None:
    """Plot the similarity of conversions with the target's voice against the share that is understood.

    Points further up and to the right are better. Above the line at `threshold` a voice counts as the target's.

    Args:
        path: The PNG file.
        rows: The share of understood conversions in %, and the cosine similarity with the target's voice, by system. Both
            are (value, low, high).
        threshold: The smallest cosine similarity at which two voices count as one.
        title: The title of the figure.
    """
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    points = {}
    for i, (name, (understood, cosine)) in enumerate(rows.items()):
        points[name] = (understood[0], cosine[0], _point(axes, i, np.array(understood), np.array(cosine)))
    axes.axhline(threshold, color="0.6", linewidth=0.8, zorder=0)
    axes.annotate(
        "threshold of natural speech", (0, threshold), (4, 3), ("axes fraction", "data"), "offset points", fontsize=8
    )
    axes.set(xlabel="understood, %", ylabel="cosine with the target's voice", title=title)
    axes.grid(color="0.92")
    _names(figure, axes, points)
    _save(figure, path)


def robustness(
    path: Path, labels: Mapping[str, str], rows: Mapping[str, Mapping[str, Any]], sides: Mapping[str, str]
) -> None:
    """Plot the EERs of systems on degraded recordings, with a line for each condition and a colour for each system.

    Args:
        path: The PNG file.
        labels: The label of each condition by its name, from top to bottom.
        rows: System → condition → side → `eer` and `interval`, as fractions.
        sides: The label of each side by its name. The first side has filled markers, the others hollow ones.
    """
    figure = _figure(8, 0.16 * len(labels) * max(len(rows) * len(sides), 2) + 1.2)
    axes = figure.subplots()
    points = [(row, side) for row in rows for side in sides]
    for i, (row, side) in enumerate(points):
        height = np.arange(len(labels)) + 0.7 * ((i + 0.5) / len(points) - 0.5)
        values = [rows[row][name][side] for name in labels]
        rate = 100 * np.array([value["eer"] for value in values])
        spans = 100 * np.array([value["interval"] or [value["eer"]] * 2 for value in values]).T
        colour = COLOURS[i // len(sides) % len(COLOURS)]
        bars = axes.errorbar(rate, height, xerr=abs(spans - rate), fmt="o", markersize=6, color=colour, linewidth=1.2)
        bars.set_label(f"{row}, {sides[side]}")
        if side != next(iter(sides)):
            bars.lines[0].set_markerfacecolor("white")
    axes.set_yticks(range(len(labels)), labels.values(), fontsize=11)
    axes.hlines(
        np.arange(len(labels) - 1) + 0.5, 0, 1, transform=axes.get_yaxis_transform(), color="0.9", linewidth=0.8
    )
    axes.tick_params(axis="x", labelsize=11)
    axes.set_xlabel("equal error rate, %", fontsize=12)
    axes.set_ylabel("recording", fontsize=12)
    axes.set(xlim=(0, None), ylim=(len(labels) - 0.5, -0.5))
    axes.grid(color="0.92", axis="x")
    figure.legend(frameon=False, loc="outside upper center", ncols=2, fontsize=11)
    _save(figure, path)


def _point(axes: Axes, number: int, x: np.ndarray, y: np.ndarray, faint: bool = False) -> str:
    """Plot the point of a system with its intervals, and return its colour.

    Args:
        axes: The axes.
        number: The number of the system, from which colour and marker follow.
        x: The value on the x axis with its interval: (value, low, high).
        y: The value on the y axis with its interval.
        faint: Whether the point is grey.
    """
    x_error, y_error = (abs(span[1:] - span[0])[:, None] for span in (x, y))
    colour = "0.6" if faint else COLOURS[number % len(COLOURS)]
    marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
    axes.errorbar(x[0], y[0], y_error, x_error, fmt=marker, markersize=5, linewidth=0.8, capsize=2, color=colour)
    return colour


def _names(figure: Figure, axes: Axes, points: Mapping[str, tuple[float, float, str]]) -> None:
    """Write the name of each point beside it, at the first of several places where it covers neither name nor point.

    Args:
        figure: The figure, with its final limits and labels.
        axes: The axes.
        points: The position on both axes and the colour of each point by its name.
    """
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    frame, centres = axes.get_window_extent(), axes.transData.transform([point[:2] for point in points.values()])
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in centres]
    for name, (x, y, colour) in points.items():
        label = axes.annotate(name, (x, y), (6, 4), textcoords="offset points", fontsize=9, color=colour)
        label.set_bbox({"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5})
        for across, up in itertools.product((6, -6), (4, -4, 14, -14, 24, -24, 34, -34)):
            label.set(position=(across, up), ha="left" if across > 0 else "right", va="bottom" if up > 0 else "top")
            box = label.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not box.count_overlaps(taken):
                break
        taken.append(label.get_window_extent())


def _mels(axes: Axes, frames: np.ndarray, seconds: float, limits: tuple[float, float], title: str) -> None:
    """Draw log-mels (T, n_mels) as an image; `seconds` is the duration of a frame, `limits` the range of the colours."""
    extent = (0, len(frames) * seconds, 0, frames.shape[1])
    axes.imshow(frames.T, origin="lower", aspect="auto", cmap="magma", vmin=limits[0], vmax=limits[1], extent=extent)
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=7)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", metadata={"Software": None})
