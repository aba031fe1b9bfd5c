"""The report of a run: one HTML file with its settings, results, plots and sounds, which opens from disk."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rwae_audio
from rwae_audio.data.torch_audio import torchaudio
from rwae_audio.evaluation import plots
from rwae_audio.evaluation.benchmark import Row
from rwae_audio.evaluation.experiment import Experiment
from rwae_audio.evaluation.page import Html, definitions, element, page, picture, player, table
from rwae_audio.evaluation.swaps import swaps
from rwae_audio.evaluation.tables import HEADER, cells, with_interval
from rwae_audio.files import read_text, write_text
from rwae_audio.inference.bundle import Bundle, load_bundle
from rwae_audio.inference.card import commands
from rwae_audio.model import parameters
from rwae_audio.objectives import objective_settings
from rwae_audio.training.board import Sound
from rwae_audio.training.checkpoint import read_position
from rwae_audio.training.trainer import RunConfig

SOUNDS = 24  # at most, in all swaps together, so that the file stays small
COLUMNS = {
    "static EER %": "How often the static code takes two voices for one, or one for two. Low is good. Brackets hold 95\u00a0% "
    "intervals over speakers.",
    "dynamic EER %": "The same of the dynamic code. High is good, because it should not know who speaks; 50\u00a0% is chance.",
    "gap": "Dynamic minus static EER, in points, by which systems are ranked.",
    "minDCF": "The least cost of decisions by the static code where one trial in twenty is of one voice. Low is good; 1 is "
    "the cost of saying no to every trial.",
}
ROWS = {
    "{name}": "The trained model, with the weights of the best checkpoint.",
    "{name}:non-speech": "Its static code of frames without speech: what it knows of the microphone and the room.",
    "untrained": "The same networks before the first update.",
    "log-mel": "The mean of each utterance's log-mels, without a model.",
    "log-mel-mvn": "The same, after each utterance was brought to one mean and variance.",
}
TILES = {
    "static EER": "Who speaks, told by the static code: low is good.",
    "dynamic EER": "Who speaks, told by the dynamic code: high is good, 50\u00a0% is chance.",
    "gap": "Dynamic minus static EER: wide is good.",
}


def write_report(
    experiment: Experiment,
    folder: Path,
    plan: Mapping[str, Any],
    tables: Mapping[str, Mapping[str, Row]],
    sound: Sound | None = None,
) -> None:
    """Write folder/report.html, and folder/plots/training.png, of a finished run.

    Args:
        experiment: The configuration and data.
        folder: The run folder, with the bundle, plots and metrics.
        plan: The plan of the run, its run.json.
        tables: The rows of each tested corpus.
        sound: The vocoder of the swaps, from log-mels (T, n_mels) to a waveform, e.g. griffin_lim; None for no sound.
    """
    bundle, name = load_bundle(folder / "bundle"), str(plan["name"])
    looks = [json.loads(line) for line in read_text(folder / "metrics.jsonl", "the metrics").splitlines()]
    best = read_position(folder / "checkpoints" / "best.safetensors").step
    plots.training(folder / "plots" / "training.png", looks, best)
    sections = {
        "What was run": [*_run(experiment, bundle, looks, best)],
        "Results": [*_results(experiment, name, tables, folder)],
        "Training": [*_training(folder)],
        "Swaps": [*_swaps(experiment, bundle, sound)],
        "Static codes": [*_maps(experiment, folder)],
        "Settings": [element("p", "Settings in bold differ from the defaults."), settings_table(experiment.config)],
        "Card of the bundle": [element("pre", bundle.card.removeprefix("---").partition("\n---\n")[2].strip())],
    }
    title = f"Report of the run {folder.resolve().name}"
    write_text(folder / "report.html", page(title, [*_lead(experiment, name, tables)], sections))


def _lead(experiment: Experiment, name: str, tables: Mapping[str, Mapping[str, Row]]) -> Iterator[Html]:
    """Yield what stands below the title: a sentence, the three rates of each tested corpus, a warning."""
    config, speakers = experiment.config, len(set(experiment.store.speakers[experiment.train_rows]))
    text = (
        f"A model of speech with a static and a dynamic code ({config.objective.name}), trained for "
        f"{config.train.updates:,} updates on {experiment.hours:.2f} hours of {speakers} speakers, and tested on speakers "
        "that it never heard."
    )
    yield element("p", text, class_="lead")
    if all(corpus.synthetic for corpus in experiment.corpora):
        text = "All speech is synthetic: these numbers say nothing about people."
        yield element("p", text, class_="note")
    for corpus, rows in tables.items():
        report = rows[name][0]
        if len(tables) > 1:
            yield element("h3", corpus)
        tiles = [
            _tile(f"{code} EER", report[code]["eer"], report[code]["interval"], "%") for code in ("static", "dynamic")
        ]
        yield element("div", *tiles, _tile("gap", report["gap"], report["gap_interval"], "points"), class_="tiles")


def _tile(name: str, rate: float, interval: list[float] | None, unit: str) -> Html:
    """Return a rate in large figures, with its interval and what it means."""
    span = with_interval(rate, interval).partition(" ")[2]
    parts = [name, f"95\u00a0% interval {span}" if span else "", TILES[name]]
    return element(
        "div", element("b", f"{100 * rate:.1f} {unit}"), *(element("span", part) for part in parts), class_="tile"
    )


def _run(experiment: Experiment, bundle: Bundle, looks: list[dict[str, float]], best: int) -> Iterator[Html]:
    """Yield the commands, the facts of the run and a table of its corpora."""
    config = experiment.config
    yield element("pre", "\n".join(commands(bundle.meta)))
    changed = [f"{key} = {value}" for key, value, default in _values(config) if value != default]
    versions = {"rwae-audio": rwae_audio, "torch": torch, "torchaudio": torchaudio(), "numpy": np}
    yield definitions(
        [
            ("changed settings", ", ".join(changed) or "none"),
            ("seed", str(config.train.seed)),
            ("parameters", f"{parameters(bundle.model):,}"),
            ("training", f"{looks[-1]['step']:,} updates in {looks[-1]['seconds']:,.0f} s; best checkpoint {best:,}"),
            (
                "versions",
                ", ".join(f"{name} {module.__version__}" for name, module in versions.items())
                + f", Python {platform.python_version()}, {platform.system()} {platform.machine()}",
            ),
        ]
    )
    header = ("corpus", "", "speakers", "utterances", "hours")
    yield table(header, _corpora(experiment), words=(0, 1))


def _corpora(experiment: Experiment) -> Iterator[tuple[str, ...]]:
    """Yield a row for each split of each corpus: its speakers, its utterances and the hours of its speech."""
    store, mel = experiment.store, experiment.config.mel
    for corpus in experiment.corpora:
        own = np.array([name == corpus.name for name in store.corpora]) if store.corpora else True
        for split, use in {"train": "training", "dev": "development", "test": "test"}.items():
            if split == "train" or corpus.name in experiment.test:
                rows = np.array([u.split == split for u in store.utterances]) & own
                hours = store.lengths[rows].sum() * mel.hop_length / mel.sample_rate / 3600
                counts = (len(set(store.speakers[rows])), int(rows.sum()))
                yield (corpus.name, use, *(f"{count:,}" for count in counts), f"{hours:.2f}")


def _results(
    experiment: Experiment, name: str, tables: Mapping[str, Mapping[str, Row]], folder: Path
) -> Iterator[Html]:
    """Yield the table of each tested corpus with its DET curves, and what columns and rows mean."""
    for corpus, rows in tables.items():
        trials = experiment.test[corpus].trials
        text = (
            f"{corpus}: {len(trials):,} trials, {int(trials.target.sum()):,} of them of one voice, test speakers only."
        )
        yield element("p", text)
        yield table(HEADER, [cells(key, report) for key, (report, _) in rows.items()])
        if partial := next(iter(rows.values()))[0].get("partial"):
            yield element("p", f"Partial: {partial}", class_="note")
    yield definitions(COLUMNS.items())
    yield definitions((key.format(name=name), text) for key, text in ROWS.items())
    yield element(
        "p",
        "Each point of a curve is a threshold of the cosine. False alarms are trials of two voices that are taken for one, "
        "misses are trials of one voice that are taken for two.",
    )
    yield from _plots(experiment, folder, "det", "DET curves on the test speakers of")


def _training(folder: Path) -> Iterator[Html]:
    """Yield the curves of the training."""
    yield element(
        "p",
        "Each loss term is its mean since the point before. All else is measured on development speakers, by whom the best "
        "checkpoint is chosen. The last plot replaces a code by its mean: if the error hardly grows, the code has collapsed.",
    )
    yield picture((folder / "plots" / "training.png").read_bytes(), "Curves of training: losses, EERs, error, effects")


def _swaps(experiment: Experiment, bundle: Bundle, sound: Sound | None) -> Iterator[Html]:
    """Yield a table for each tested corpus: sources in rows, target voices in columns, a picture and a player a cell."""
    yield element(
        "p",
        "Each row is an utterance of a development speaker, at most two seconds long, and each column is a voice. Pictures "
        "are log-mels: time to the right, low frequencies at the bottom. All sounds, also the sources, are made by "
        "Griffin-Lim; the neural vocoder of rwae-vc sounds better. The speech is a corpus's: mind its licence "
        "before this page is passed on.",
    )
    count = next(n for n in (4, 3, 2) if n == 2 or len(experiment.dev) * n * (n + 1) <= SOUNDS)
    for corpus, bench in experiment.dev.items():
        names, originals, grid = swaps(bench, bundle, count)
        rows = []
        for name, original, row in zip(names, originals, grid, strict=True):
            limits = float(np.percentile(original, 1)), float(original.max())
            titles = [f"{name}, source", *(f"{name} as {voice}" for voice in names)]
            parts = [
                _cell(frames, title, limits, experiment, sound)
                for frames, title in zip([original, *row], titles, strict=True)
            ]
            rows.append((name, *parts))
        yield element("h3", corpus)
        header = ("", "source", *(f"as {name}" for name in names))
        yield element("div", table(header, rows, words=range(len(header))), class_="swaps")


def _cell(
    frames: np.ndarray, title: str, limits: tuple[float, float], experiment: Experiment, sound: Sound | None
) -> Html:
    """Return the picture of log-mels (T, n_mels), and a player where there is a vocoder."""
    mel, parts = experiment.config.mel, [picture(plots.thumbnail(frames, limits), title, "mels")]
    if sound is not None:
        parts.append(player(sound(torch.from_numpy(frames), mel).numpy(), mel.sample_rate, title))
    return element("div", *parts)


def _maps(experiment: Experiment, folder: Path) -> Iterator[Html]:
    """Yield the map of static codes of each tested corpus."""
    yield element(
        "p",
        "Each point is the static code of a test utterance on the two axes along which all codes differ most. Where the "
        "static code knows who speaks, the points of a speaker lie together.",
    )
    yield from _plots(experiment, folder, "speakers", "Map of the static codes of")


def _plots(experiment: Experiment, folder: Path, file: str, description: str) -> Iterator[Html]:
    """Yield a plot of each tested corpus."""
    for corpus in experiment.test:
        if len(experiment.test) > 1:
            yield element("h3", corpus)
        path = experiment.place(folder / "plots", corpus) / f"{file}.png"
        yield picture(path.read_bytes(), f"{description} {corpus}")


def settings_table(config: RunConfig) -> Html:
    """Return the table of all settings, with a mark where a setting has its default."""
    rows = [
        (key, value, "default") if value == default else (key, element("b", value), f"default: {default}")
        for key, value, default in _values(config)
    ]
    return table(("setting", "value", ""), rows, words=(0, 1, 2))


def _values(config: RunConfig) -> Iterator[tuple[str, str, str]]:
    """Yield each setting with its value and its default, that of the same objective."""
    defaults = RunConfig(objective=objective_settings(config.objective.name)).tables()
    for name, settings in config.tables().items():
        for key, value in settings.items():
            yield f"{name}.{key}", json.dumps(value), json.dumps(defaults[name][key])
