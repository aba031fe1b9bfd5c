"""Measure finished runs of the recipe, and write results.json and the table of the README.

    python recipes/digits/results.py runs/digits-* [--data DIR]

The measures of a run are computed once and stored in its folder (measures.json). Runs of one configuration with different
seeds are one row of the table, with means over the seeds. The row `k-means` needs no run.
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
COLUMNS = {  # measure → the title of its column, the factor, the digits after the point
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
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders of train.py, all of one corpus")
    parser.add_argument("--data", metavar="DIR", help="the new folder of the corpus, if it has moved")
    parser.add_argument(
        "--into",
        type=Path,
        default=HERE,
        metavar="DIR",
        help="the folder of results.json and README.md (default: that of this script)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    from rwae_audio.commands.runs import read_plan
    from rwae_audio.data.corpora import by_corpus, planned_sources

    plans = {run: read_plan(run, name=str) for run in options.runs}
    corpora = {name for plan in plans.values() for name in by_corpus(planned_sources(plan))}
    if len(corpora) > 1:
        raise InputError("the runs have different corpora; expected runs of one corpus")
    for run in options.runs:
        if not (run / "bundle").is_dir():
            raise InputError(f"{run} is not finished; expected a run with a bundle, or train.py --resume {run}")
    measured = measure_all(options.runs, plans, options.data)
    by_name = {**groups(measured), "k-means": measured["k-means"]}
    rows = {name: row(measures) for name, measures in by_name.items()}
    for run in options.runs:
        rows[plans[run]["name"]]["command"] = re.sub(r" --(seed|out|threads|minutes) \S+", "", plans[run]["command"])
    ordered = {name: rows[name] for name in sorted(rows, key=lambda n: ORDER.index(n) if n in ORDER else len(ORDER))}
    differences = [difference(by_name, a, b) for a, b in COMPARED if a in by_name and b in by_name]
    results = {
        "corpus": corpora.pop(),
        "real": measured["real"],
        **ordered,
        "differences": differences,
    }
    write_json(options.into / "results.json", results)
    readme = options.into / "README.md"
    if readme.is_file():
        write_text(readme, rendered(read_text(readme, "the recipe's README"), results))
    print(table(results))
    return 0


def measure_all(runs: list[Path], plans: dict[Path, dict[str, Any]], folder: str | None) -> dict[str, Any]:
    """Return the measures of each run, of `k-means` and of `real` speech, and `names`, the name of each run's row.

    Measures that do not exist yet are computed. Those of k-means and of real speech are stored in the folder of the first run.

    Args:
        runs: The run folders.
        plans: The plan of each run.
        folder: The new folder of the corpus if it has moved, otherwise None.

    Raises:
        InputError: A run has log-mels with other settings than the first run.
    """
    paths = {run: run / "measures.json" for run in runs}
    reference_path = runs[0] / "reference.json"
    if not (reference_path.is_file() and all(path.is_file() for path in paths.values())):
        from judge import judges
        from measures import measure, reference
        from train import prepare

        from rwae_audio.inference.bundle import load_bundle

        config = load_bundle(runs[0] / "bundle").config
        digits = prepare(plans[runs[0]], config, folder)
        judged = judges(digits.frames, digits.store.utterances, config.mel)
        for run, path in paths.items():
            bundle = load_bundle(run / "bundle")
            if bundle.config.mel != config.mel:
                raise InputError(f"{run} has other frames than {runs[0]}; expected the same [mel]")
            if not path.is_file():
                measures = measure(bundle, digits, judged)
                write_json(path, {"seed": bundle.config.train.seed, **{k: v._asdict() for k, v in measures.items()}})
        write_json(reference_path, {"real": reference(digits, judged), "k-means": k_means(digits)})
    measured: dict[str, Any] = {str(run): read_json(path, "a run's measures") for run, path in paths.items()}
    return {
        **measured,
        "names": {str(run): plans[run]["name"] for run in runs},
        **read_json(reference_path, "the references"),
    }


def k_means(digits: Any) -> list[dict[str, Any]]:
    """Return the measures of k-means on `word_shape` of training recordings, for three seeds; K is the number of words."""
    import numpy as np
    import torch
    from measures import clusters, labels, rows_of
    from sklearn.cluster import KMeans

    from rwae_audio.model.actions import word_shape

    raw = torch.from_numpy(digits.store.frames.reshape(digits.frames.shape).astype(np.float32))
    shapes = word_shape(raw).numpy()
    train, test = (rows_of(digits, lambda u, split=split: u.split == split) for split in ("train", "test"))
    words = tuple(sorted({u.text for u in digits.store.utterances}))
    speakers = tuple(sorted({u.speaker for u in digits.store.utterances}))
    rows = []
    for seed in range(3):
        model = KMeans(len(words), n_init=10, random_state=seed).fit(shapes[train])
        measures = clusters(
            model.predict(shapes[test]),
            labels(digits, test, words, "text").numpy(),
            labels(digits, test, speakers, "speaker"),
        )
        rows.append({"seed": seed, **{key: value._asdict() for key, value in measures.items()}})
    return rows


def groups(measured: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the measures of all runs of each configuration, from the output of `measure_all`."""
    by_name = defaultdict(list)
    for run, name in measured["names"].items():
        by_name[name].append(measured[run])
    return dict(by_name)


def row(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a row of results.json from the measures of each seed. Raises InputError if a seed occurs twice."""
    import numpy as np

    seeds = [measures["seed"] for measures in runs]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"the runs of a configuration have the seeds {seeds}; expected each once")
    names = dict.fromkeys([*COLUMNS, *(key for measures in runs for key in measures if key != "seed")])
    merged: dict[str, Any] = {"seeds": seeds}
    for name in names:
        if any(name not in measures for measures in runs):
            merged[name] = None
            continue
        draws = np.mean([measures[name]["draws"] for measures in runs], axis=0)
        values = [measures[name]["value"] for measures in runs]
        merged[name] = {"mean": float(np.mean(values)), "interval": interval(draws), "by_seed": values}
    return merged


def difference(runs: dict[str, list[dict[str, Any]]], name: str, other: str) -> dict[str, Any]:
    """Return the difference of two rows in each measure, with its interval under the same bootstrap draws.

    Args:
        runs: The measures of all runs of each configuration.
        name: The first row.
        other: The second row, which is subtracted.
    """
    import numpy as np

    def gap(measure: str, part: str) -> Any:
        first, second = (np.mean([run[measure][part] for run in runs[row]], axis=0) for row in (name, other))
        return first - second

    result: dict[str, Any] = {"row": name, "minus": other}
    for measure in COLUMNS:
        if all(measure in measures for measures in (*runs[name], *runs[other])):
            result[measure] = {"difference": float(gap(measure, "value")), "interval": interval(gap(measure, "draws"))}
    return result


def difference_line(entry: dict[str, Any]) -> str:
    """Return a line of Markdown with a `difference`; values are in bold if their interval excludes 0."""
    parts = []
    for name, (head, scale, digits) in COLUMNS.items():
        if name in entry and name not in ("h_y_given_x", "h_y", "nmi"):
            low, high = entry[name]["interval"]
            text = f"{scale * entry[name]['difference']:+.{digits}f} [{scale * low:+.{digits}f}, {scale * high:+.{digits}f}]"
            parts.append(f"{head} " + (f"**{text}**" if low * high > 0 else text))
    return f"- `{entry['row']}` minus `{entry['minus']}`: {', '.join(parts)}"


def rendered(readme: str, results: dict[str, Any]) -> str:
    """Return the text of a README with a new table.

    Args:
        readme: The text of the README.
        results: The content of results.json.

    Raises:
        InputError: The README does not have the marks.
    """
    commands = [
        f"- `{name}`, seeds {', '.join(map(str, entry['seeds']))}: `{entry['command']}`"
        for name, entry in results.items()
        if isinstance(entry, dict) and "command" in entry
    ]
    parts = [table(results), "\n".join(commands), "\n".join(map(difference_line, results["differences"]))]
    return marked(readme, "results.json", "\n\n".join(part for part in parts if part))


def table(results: dict[str, Any]) -> str:
    """Return the table of results.json in Markdown; real test speech is the last row."""
    rows = {name: entry for name, entry in results.items() if isinstance(entry, dict) and name != "real"}
    real = results["real"]
    accuracies = {"content_accuracy": real["digit_judge_accuracy"], "voice_accuracy": real["speaker_judge_accuracy"]}
    rows["*real test speech*"] = real | accuracies
    cells = [
        (name, *(cell(entry.get(key), scale, digits) for key, (_, scale, digits) in COLUMNS.items()))
        for name, entry in rows.items()
    ]
    return markdown_table(("row", *(head for head, _, _ in COLUMNS.values())), cells)


def cell(entry: Any, scale: float, digits: int) -> str:
    """Return the text of a cell.

    Args:
        entry: A number, a mean with its interval, or None.
        scale: The factor of all numbers.
        digits: The digits after the point.
    """
    if isinstance(entry, dict):
        return with_interval(entry["mean"], entry["interval"], scale, digits)
    return with_interval(entry, None, scale, digits)


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
