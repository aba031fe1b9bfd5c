"""Compute all numbers of the recipe: the bound on the Wasserstein distance, and the information in the codes.

python recipes/theory/theory.py                 write results.json, theory.png and the README's tables, about two minutes
python recipes/theory/theory.py --out DIR       write results.json and theory.png to DIR, and not the README
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from bound import Family, Problem, levels, penalised, random_problem
from information import BETAS, FIXED_VARIANCE, Closed, Trained, measure, sweep, train

from rwae_audio.commands.common import Parser, guarded
from rwae_audio.evaluation.tables import markdown_table, marked
from rwae_audio.files import InputError, read_text, whole_file, write_json, write_text
from rwae_audio.randomness import generator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).resolve().parent
FAMILIES: tuple[Family, ...] = ("separable", "independent", "dependent")
LEVELS = ("causal", "joint", "apart", "marginal")
PROBLEMS, SHOWN = 10, 2  # the number of problems of a family; the index of the separable problem with penalties
CLOSED: tuple[Closed, ...] = ("vae", "rwae-kl", "rwae-mmd")
TRAINED: tuple[Trained, ...] = ("dsvae", "rwae-mmd", "rwae-mmd-learned")
WEIGHTS = (1.0, 10.0, 100.0, 1000.0)  # β of the trained networks
COLOURS = {"vae": "C3", "dsvae": "C3", "rwae-kl": "C0", "rwae-mmd": "C2", "rwae-mmd-learned": "C1"}


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    parser = Parser(prog="theory.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=HERE,
        help="the folder of results.json and theory.png (default: this folder)",
    )
    options = parser.parse_args(argv)
    if not options.out.is_dir():
        raise InputError(f"{options.out} is not a folder; expected one to write results.json and theory.png to")
    torch.set_num_threads(1)
    results = compute()
    write_json(options.out / "results.json", results)
    picture(options.out / "theory.png", results)
    if options.out.resolve() == HERE:
        write_text(HERE / "README.md", rendered(read_text(HERE / "README.md", "a README with tables"), results))
    print(tables(results))
    return 0


def compute() -> dict[str, Any]:
    """Compute the content of results.json, with numbers of six digits."""
    shown = problem("separable", SHOWN)
    return rounded(
        {
            "problems": [
                {"family": family, **levels(problem(family, i), np.random.default_rng((1, i)))}
                for family in FAMILIES
                for i in range(PROBLEMS)
            ],
            "penalised": [
                {"beta": beta, "loss": penalised(shown, beta, 4, generator(0, "theory/logits"))} for beta in BETAS
            ],
            "closed": {name: sweep(name, 0.0 if name == "vae" else FIXED_VARIANCE) for name in CLOSED},
            "floors": [{"floor": floor, **sweep("rwae-kl", floor, [100.0])[0]} for floor in (0.1, 0.01, 0.001)],
            "trained": {name: [{"beta": beta, **measure(train(name, beta))} for beta in WEIGHTS] for name in TRAINED},
        }
    )


def problem(family: Family, i: int) -> Problem:
    """Return problem number `i` of a family."""
    return random_problem(family, np.random.default_rng(i))


def rounded(value: Any) -> Any:
    """Return a value (a number, a list or a dictionary) with all floats rounded to six digits."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.6g}") + 0.0 if isinstance(value, float) else value


def tables(results: dict[str, Any]) -> str:
    """Return the tables of the README in Markdown, from the content of results.json."""
    bound = []
    for family in FAMILIES:
        selected = [row for row in results["problems"] if row["family"] == family]
        cells = []
        for level in LEVELS:
            ratios = [row[level] / row["wasserstein"] for row in selected]
            above = sum(ratio > 1 - 1e-5 for ratio in ratios)
            cells.append(f"{min(ratios):.3f} to {max(ratios):.3f} ({above} of {len(selected)})")
        bound.append([family, *cells])
    closed = results["closed"]
    codes = ("static_information", "dynamic_information")
    information = [
        [f"{beta:g}", *(f"{row[code]:.2f}" for row in rows for code in codes)]
        + [f"{row[key]:.2f}" for row in rows[1:] for key in ("loss", "wasserstein")]
        for beta, *rows in zip(BETAS, *(closed[name] for name in CLOSED), strict=True)
    ]
    shown = [row for row in results["problems"] if row["family"] == "separable"][SHOWN]
    limits = [["W", f"{shown['wasserstein']:.3f}"], ["constrained", f"{shown['apart']:.3f}"]]
    sweeps = [[f"β {row['beta']:g}", f"{row['loss']:.3f}"] for row in results["penalised"]]
    floors = [[f"{row['floor']:g}", *(f"{row[code]:.2f}" for code in codes)] for row in results["floors"]]
    trained = []
    for name in TRAINED:
        for row in results["trained"][name]:
            variances = f"{row['static_variance']:.3f}, {row['dynamic_variance']:.3f}"
            between = f"{row['wasserstein_low']:.2f} to {row['wasserstein_high']:.2f}"
            information_cells = [f"{round(row[code], 2) + 0.0:.2f}" for code in codes]  # + 0.0: no -0.00
            trained.append(
                [f"`{name}`", f"{row['beta']:g}", *information_cells, variances, f"{row['error']:.2f}", between]
            )
    costs = [f"{name} {cost}" for name in ("KL", "MMD") for cost in ("loss", "W")]
    return "\n\n".join(
        [
            "Optimum ÷ W, smallest to largest, and in how many problems it is at least 1:",
            markdown_table(["data", *LEVELS], bound),
            f"The penalised optimum of separable problem {SHOWN}:",
            markdown_table(*transposed(limits + sweeps)),
            "Linear-Gaussian, closed form: I(x; z) in nats for each objective; for R-WAE also the loss, and W of its model:",
            markdown_table(
                ["β", *(f"{name} z^{code}" for name in ("VAE", "KL", "MMD") for code in "cm"), *costs], information
            ),
            "R-WAE, KL, β 100, with free posterior variances above a floor:",
            markdown_table(["floor", "I(x; z^c)", "I(x; z^m)"], floors),
            "Trained networks:",
            markdown_table(
                ["objective", "β", "I(x; z^c)", "I(x; z^m)", "variances of z^c, z^m", "squared error", "W between"],
                trained,
            ),
        ]
    )


def transposed(rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Return rows of two cells as a header and one row."""
    return [row[0] for row in rows], [[row[1] for row in rows]]


def rendered(readme: str, results: dict[str, Any]) -> str:
    """Return the text of a README with new tables, from the content of results.json."""
    return marked(readme, "results.json", tables(results))


def picture(path: Path, results: dict[str, Any]) -> None:
    """Plot theory.png from the content of results.json."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.4), layout="constrained")
    (families, penalty, gaussian), (static, dynamic, networks) = figure.subplots(2, 3)
    draw_families(families, results["problems"])

    shown = [row for row in results["problems"] if row["family"] == "separable"][SHOWN]
    draw(penalty, results["penalised"], "loss", "C2", marker="o", label="optimum of error + β · MMD²")
    penalty.axhline(shown["apart"], color="C2", linestyle="--", label="constrained optimum")
    penalty.axhline(shown["wasserstein"], color="k", linestyle=":", label="W, exact")
    penalty.set(title="From penalty to constraint: one problem", ylabel="cost")

    for name, label in (("rwae-kl", "conditionals matched (KL)"), ("rwae-mmd", "a step at a time (MMD)")):
        draw(gaussian, results["closed"][name], "loss", COLOURS[name], label=f"objective, {label}")
        draw(
            gaussian, results["closed"][name], "wasserstein", COLOURS[name], linestyle=":", label="its model's W, exact"
        )
    gaussian.set(title="Linear-Gaussian: R-WAE's optimum and W", ylabel="cost")

    for axes, code, title in ((static, "static", "I(x; z^c)"), (dynamic, "dynamic", "I(x; z^m)")):
        labels = {"vae": "recurrent VAE", "rwae-kl": "R-WAE, KL", "rwae-mmd": "R-WAE, MMD"}
        for name in CLOSED:
            draw(axes, results["closed"][name], f"{code}_information", COLOURS[name], label=f"{labels[name]}: exact")
        for name, marker in zip(TRAINED, "osx", strict=True):
            label = f"{name.replace('-learned', ', learned σ²')}: trained"
            rows = results["trained"][name]
            draw(axes, rows, f"{code}_information", COLOURS[name], linestyle="", marker=marker, label=label)
        axes.set(title=title, ylabel="nats", ylim=(-0.2, 1.25 * axes.get_ylim()[1]))

    rows = results["trained"]["rwae-mmd"]
    low, high = ([row[f"wasserstein_{end}"] for row in rows] for end in ("low", "high"))
    networks.fill_between(WEIGHTS, low, high, color="0.85", label="W lies between")
    draw(networks, rows, "error", "C2", marker="s", label="squared error")
    networks.axhline(rows[0]["wasserstein_zero"], color="0.5", linestyle=":", label="two samples of the data")
    networks.set(title="Trained rwae-mmd: squared error and W", ylabel="cost", ylim=(0, None))
    for axes in (penalty, gaussian, static, dynamic, networks):
        axes.set(xscale="log", xlabel="weight β")
        columns = 2 if axes in (static, dynamic) else 1
        axes.legend(frameon=False, fontsize=9 - columns, ncols=columns, columnspacing=1, handlelength=1.5)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png", metadata={"Software": None})


def draw(axes: Axes, rows: list[dict[str, float]], key: str, colour: str, **style: Any) -> None:
    """Plot an entry of rows over β.

    Args:
        axes: The axes.
        rows: The rows, each with an entry `beta`.
        key: The name of the entry.
        colour: The colour of the line.
        style: Further arguments of `Axes.plot`.
    """
    axes.plot([row["beta"] for row in rows], [row[key] for row in rows], color=colour, **style)


def draw_families(axes: Axes, problems: list[dict[str, Any]]) -> None:
    """Plot the four optima of every problem, divided by its W."""
    for j, level in enumerate(LEVELS):
        for i, family in enumerate(FAMILIES):
            ratios = [row[level] / row["wasserstein"] for row in problems if row["family"] == family]
            places = i + 0.2 * (j - 1.5) + np.linspace(-0.06, 0.06, len(ratios))
            axes.plot(places, ratios, ".", color=f"C{(9, 0, 2, 1)[j]}", label=level if i == 0 else None)
    axes.axhline(1, color="k", linestyle=":")
    axes.set_xticks(range(len(FAMILIES)), FAMILIES)
    axes.set(title="Constrained optimum ÷ exact W", ylabel="ratio")
    axes.legend(frameon=False, fontsize=8, loc="upper left")


if __name__ == "__main__":
    sys.exit(guarded(main, "theory.py"))
