"""Measure finished runs, and make results.json and the README's table.

    python recipes/digits/results.py runs/digits-* [--data DIR]

Each run is measured once and keeps that in its folder (measures.json); runs of one configuration with other seeds make
one row: means over the seeds, intervals of the bootstrap draws averaged over them. The judges are trained anew each time
something is to be measured; k-means needs no run.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from rwae_audio.commands.common import Parser, guarded
from rwae_audio.evaluation.tables import markdown_table, marked, with_interval
from rwae_audio.evaluation.verification import interval
from rwae_audio.files import InputError, read_json, read_text, write_json, write_text

NAME = "results.py"
HERE = Path(__file__).parent
ORDER = ("rwae-mmd+actions", "rwae-gan+actions", "dsvae+actions", "rwae-mmd", "rwae-gan", "dsvae", "k-means")
COMPARED = (
    ("rwae-mmd+actions", "rwae-mmd"),
    ("rwae-gan+actions", "rwae-gan"),
    ("rwae-mmd+actions", "dsvae"),
    ("rwae-gan+actions", "dsvae"),
    ("rwae-mmd+actions", "dsvae+actions"),
    ("rwae-mmd+actions", "k-means"),
)
COLUMNS = {
    "content_accuracy": ("content kept %", 100, 1),
    "voice_accuracy": ("voice kept %", 100, 1),
    "inception_score": ("IS", 1, 2),
    "h_y_given_x": ("H(y\\|x)", 1, 2),
    "h_y": ("H(y)", 1, 2),
    "frechet": ("Fréchet", 1, 1),
    "cluster_accuracy": ("clusters %", 100, 1),
    "nmi": ("NMI", 1, 2),
}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders of train.py, all of one corpus")
    parser.add_argument("--data", metavar="DIR", help="the corpus's folder, if it is not where it was")
    parser.add_argument(
        "--into", type=Path, default=HERE, metavar="DIR", help="results.json and README.md (beside this)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    from rwae_audio.commands.runs import read_plan
    from rwae_audio.data.corpora import by_corpus, planned_sources

    plans = {run: read_plan(run, name=str) for run in options.runs}
    corpora = {name for plan in plans.values() for name in by_corpus(planned_sources(plan))}
    if len(corpora) > 1:
        raise InputError("the runs are of different corpora; expected those of one")
    for run in options.runs:
        if not (run / "bundle").is_dir():
            raise InputError(f"{run} is not finished; expected a run with a bundle, or train.py --resume {run}")
    measured = measure_all(options.runs, plans, options.data)
    found = {**groups(measured), "k-means": measured["k-means"]}
    rows = {name: row(measures) for name, measures in found.items()}
    for run in options.runs:
        rows[plans[run]["name"]]["command"] = re.sub(r" --(seed|out|threads|minutes) \S+", "", plans[run]["command"])
    ordered = {name: rows[name] for name in sorted(rows, key=lambda n: ORDER.index(n) if n in ORDER else len(ORDER))}
    against = [difference(found, one, other) for one, other in COMPARED if one in found and other in found]
    results = {"corpus": corpora.pop(), "real": measured["real"], **ordered, "differences": against}
    write_json(options.into / "results.json", results)
    readme = options.into / "README.md"
    if readme.is_file():
        write_text(readme, rendered(read_text(readme, "the recipe's README"), results))
    print(table(results))
    return 0


def measure_all(runs: list[Path], plans: dict[Path, dict[str, Any]], folder: str | None) -> dict[str, Any]:
    """Return the measures of each run, and `k-means` and `real`, which the first run's folder keeps as well."""
    kept = {run: run / "measures.json" for run in runs}
    beside = runs[0] / "reference.json"
    if not (beside.is_file() and all(path.is_file() for path in kept.values())):
        from judge import judges
        from measures import measure, reference
        from train import prepare

        from rwae_audio.inference.bundle import load_bundle

        config = load_bundle(runs[0] / "bundle").config
        digits = prepare(plans[runs[0]], config, folder)
        judged = judges(digits.frames, digits.store.utterances, config.mel)
        for run, path in kept.items():
            bundle = load_bundle(run / "bundle")
            if bundle.config.mel != config.mel:
                raise InputError(f"{run} has other frames than {runs[0]}; expected the same [mel]")
            if not path.is_file():
                found = measure(bundle, digits, judged)
                write_json(path, {"seed": bundle.config.train.seed, **{k: v._asdict() for k, v in found.items()}})
        write_json(beside, {"real": reference(digits, judged), "k-means": k_means(digits)})
    measured: dict[str, Any] = {str(run): read_json(path, "a run's measures") for run, path in kept.items()}
    return {**measured, "names": {str(run): plans[run]["name"] for run in runs}, **read_json(beside, "the references")}


def k_means(digits: Any) -> list[dict[str, Any]]:
    """Return the measures of k-means on `word_shape` of the training speakers' recordings, of three seeds."""
    import torch
    from measures import clusters, labels, rows_of
    from sklearn.cluster import KMeans

    from rwae_audio.model.actions import word_shape

    raw = torch.from_numpy(digits.store.frames.reshape(digits.frames.shape).copy())
    shapes = word_shape(raw).numpy()
    train, test = (rows_of(digits, lambda u, split=split: u.split == split) for split in ("train", "test"))
    words = tuple(sorted({u.text for u in digits.store.utterances}))
    speakers = tuple(sorted({u.speaker for u in digits.store.utterances}))
    found = []
    for seed in range(3):
        fitted = KMeans(len(words), n_init=10, random_state=seed).fit(shapes[train])
        named = clusters(
            fitted.predict(shapes[test]),
            labels(digits, test, words, "text").numpy(),
            labels(digits, test, speakers, "speaker"),
        )
        found.append({"seed": seed, **{key: value._asdict() for key, value in named.items()}})
    return found


def groups(measured: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the measures of the runs of each configuration."""
    found = defaultdict(list)
    for run, name in measured["names"].items():
        found[name].append(measured[run])
    return dict(found)


def row(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a row of results.json from the measures of its seeds."""
    import numpy as np

    seeds = [measures["seed"] for measures in found]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds {seeds} of one configuration; expected each once")
    names = dict.fromkeys([*COLUMNS, *(key for measures in found for key in measures if key != "seed")])
    merged: dict[str, Any] = {"seeds": seeds}
    for name in names:
        if any(name not in measures for measures in found):
            merged[name] = None
            continue
        draws = np.mean([measures[name]["draws"] for measures in found], axis=0)
        values = [measures[name]["value"] for measures in found]
        merged[name] = {"mean": float(np.mean(values)), "interval": interval(draws), "by_seed": values}
    return merged


def difference(found: dict[str, list[dict[str, Any]]], one: str, other: str) -> dict[str, Any]:
    """Return `one` minus `other` in each measure, with the interval under the same draws of speakers."""
    import numpy as np

    def mean(name: str, measure: str, part: str) -> Any:
        return np.mean([measures[measure][part] for measures in found[name]], axis=0)

    more: dict[str, Any] = {"row": one, "minus": other}
    for name in COLUMNS:
        if all(name in measures for measures in (*found[one], *found[other])):
            more[name] = {
                "difference": float(mean(one, name, "value") - mean(other, name, "value")),
                "interval": interval(mean(one, name, "draws") - mean(other, name, "draws")),
            }
    return more


def difference_line(more: dict[str, Any]) -> str:
    """Return a difference in words, bold where its interval leaves 0 out."""
    parts = []
    for name, (head, scale, digits) in COLUMNS.items():
        if name in more and name not in ("h_y_given_x", "h_y", "nmi"):
            low, high = more[name]["interval"]
            text = f"{scale * more[name]['difference']:+.{digits}f} [{scale * low:+.{digits}f}, {scale * high:+.{digits}f}]"
            parts.append(f"{head} " + (f"**{text}**" if low * high > 0 else text))
    return f"- `{more['row']}` minus `{more['minus']}`: {', '.join(parts)}"


def rendered(readme: str, results: dict[str, Any]) -> str:
    """Return the README with a new table between its marks. Raises InputError without them."""
    commands = [
        f"- `{name}`, seeds {', '.join(map(str, entry['seeds']))}: `{entry['command']}`"
        for name, entry in results.items()
        if isinstance(entry, dict) and "command" in entry
    ]
    parts = [table(results), "\n".join(commands), "\n".join(map(difference_line, results["differences"]))]
    return marked(readme, "results.json", "\n\n".join(part for part in parts if part))


def table(results: dict[str, Any]) -> str:
    """Return the rows in Markdown, real test speech last."""
    rows = {name: entry for name, entry in results.items() if isinstance(entry, dict) and name != "real"}
    real = results["real"]
    judged = {"content_accuracy": real["digit_judge_accuracy"], "voice_accuracy": real["speaker_judge_accuracy"]}
    rows["*real test speech*"] = real | judged
    cells = [
        (name, *(cell(entry.get(key), scale, digits) for key, (_, scale, digits) in COLUMNS.items()))
        for name, entry in rows.items()
    ]
    return markdown_table(("row", *(head for head, _, _ in COLUMNS.values())), cells)


def cell(entry: Any, scale: float, digits: int) -> str:
    """Return a measure, a number or a mean with its interval, as text."""
    if isinstance(entry, dict):
        return with_interval(entry["mean"], entry["interval"], scale, digits)
    return with_interval(entry, None, scale, digits)


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
