"""A whole experiment: read corpora, train a model, run the speaker benchmark, and write bundle, tables and plots."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rwae_audio.data.corpora.base import Corpus
from rwae_audio.data.features import Normaliser
from rwae_audio.data.store import Batch, FrameStore, Sampler, open_store
from rwae_audio.distributed import first_process_first, local, rank, start
from rwae_audio.evaluation import plots
from rwae_audio.evaluation.benchmark import (
    Benchmark,
    Row,
    benchmarks,
    dynamic_mean,
    embed_rows,
    log_mel_rows,
    model_row,
    non_speech_row,
    read_planned,
)
from rwae_audio.evaluation.swaps import swaps
from rwae_audio.evaluation.verification import det_points, write_scores
from rwae_audio.files import InputError, write_json
from rwae_audio.inference.bundle import Bundle, load_bundle, save_bundle
from rwae_audio.inference.card import card
from rwae_audio.model import RWAE
from rwae_audio.objectives import objective_class
from rwae_audio.randomness import generator
from rwae_audio.training.board import Sound, TensorBoard
from rwae_audio.training.checkpoint import read_position
from rwae_audio.training.health import code_state, collapsed_codes
from rwae_audio.training.trainer import RunConfig, new_model, train
from rwae_audio.training.views import normalised


@dataclass(frozen=True)
class Experiment:
    """The configuration and the data of a run.

    Attributes:
        config: The configuration.
        corpora: The corpora.
        store: The frames of all corpora.
        train_rows: The indices of the training utterances in the store.
        normaliser: The normaliser of the training utterances, or the normaliser of `initial`.
        sampler: The sampler of training batches.
        held_out: Segments of development speakers, on which collapsed codes are detected.
        dev: The development benchmark of each tested corpus by its name.
        test: The test benchmark of each tested corpus by its name.
        initial: The bundle that training starts from, or None.
    """

    config: RunConfig
    corpora: Sequence[Corpus]
    store: FrameStore
    train_rows: np.ndarray
    normaliser: Normaliser
    sampler: Sampler
    held_out: Batch
    dev: Mapping[str, Benchmark]
    test: Mapping[str, Benchmark]
    initial: Bundle | None = None

    @property
    def hours(self) -> float:
        """The hours of training speech."""
        mel = self.config.mel
        return float(self.store.lengths[self.train_rows].sum()) * mel.hop_length / mel.sample_rate / 3600

    def dynamic_mean(self, model: RWAE, most: int = 2048) -> np.ndarray:
        """Return the mean dynamic embedding of at most `most` training utterances, (dynamic_dim,)."""
        rows = self.train_rows[:: -(-len(self.train_rows) // most)]
        return dynamic_mean(self.store, rows, model, self.normaliser, self.config.mel)

    def row(self, bench: Benchmark, model: RWAE, replicates: int = 1000) -> Row:
        """Return the report and the scores of a model on a benchmark.

        The entries `codes` and `collapsed` of the report describe the model's codes on development speakers. `replicates`
        is the number of bootstrap draws.
        """
        vectors = embed_rows(bench, model, self.normaliser, self.config.mel)
        report, scores = model_row(bench, vectors, self.dynamic_mean(model), replicates)
        state = code_state(model, *normalised(self.held_out, self.normaliser, next(model.parameters()).device))
        return {**report, "codes": state, "collapsed": collapsed_codes(state)}, scores

    def on_dev(self, model: RWAE) -> dict[str, float]:
        """Return the static and the dynamic EER on development speakers, averaged over the tested corpora.

        `score` is dynamic minus static EER, which selects the best checkpoint. If there are several tested corpora, their
        own rates are NAME/static_eer and NAME/dynamic_eer.
        """
        mean = self.dynamic_mean(model, most=256)
        rates = {}
        for name, bench in self.dev.items():
            vectors = embed_rows(bench, model, self.normaliser, self.config.mel)
            report, _ = model_row(bench, vectors, mean, replicates=0)
            rates[name] = {f"{code}_eer": report[code]["eer"] for code in ("static", "dynamic")}
        means = {
            code: float(np.mean([rate[code] for rate in rates.values()])) for code in ("static_eer", "dynamic_eer")
        }
        by_corpus = {f"{name}/{code}": rate for name, result in rates.items() for code, rate in result.items()}
        return {**means, **(by_corpus if len(rates) > 1 else {}), "score": means["dynamic_eer"] - means["static_eer"]}

    def place(self, folder: Path, corpus: str) -> Path:
        """Return the folder of a tested corpus inside `folder` (see `corpus_place`)."""
        return corpus_place(folder, corpus, self.test)


def corpus_place(folder: Path, corpus: str, tested: Collection[str]) -> Path:
    """Return the folder of a tested corpus inside a folder of a run, such as scores/ or plots/.

    Args:
        folder: The folder of the run. If there is one tested corpus, it is the result.
        corpus: The name of the corpus.
        tested: The names of all tested corpora.
    """
    return folder / corpus if len(tested) > 1 else folder


def prepare(
    config: RunConfig,
    corpora: Sequence[Corpus],
    tested: Sequence[str],
    progress: bool = False,
    initial: Bundle | None = None,
) -> Experiment:
    """Prepare an experiment: read the frames of all corpora, and build the normaliser, the sampler and the benchmarks.

    Args:
        config: The configuration.
        corpora: The corpora; the model is trained on all of them together.
        tested: The names of the corpora with the development and test speakers.
        progress: Whether a progress bar is shown.
        initial: The bundle with the initial weights and the normaliser, or None.

    Raises:
        InputError: The frames or weights of `initial` do not fit the configuration, or the model has actions.
    """
    if initial is not None:
        if initial.config.mel.frames() != config.mel.frames():
            raise InputError("the initial bundle has other frames; expected those of [mel]")
        shapes = [
            {key: value.shape for key, value in model.state_dict().items()}
            for model in (new_model(config), initial.model)
        ]
        if shapes[0] != shapes[1]:
            raise InputError("the initial bundle has weights of other shapes; expected those of [model]")
    if config.model.actions:
        raise InputError(
            f"[model] actions is {config.model.actions}; expected 0; recipes/digits/train.py trains with actions"
        )
    start()
    local(config.train.batch)  # raises InputError for the batch size before all recordings are read
    with first_process_first():  # so that the store is built once
        store = open_store(corpora, config.mel, progress=progress)
    rows = store.indices("train")
    normaliser = store.normaliser(rows) if initial is None else initial.normaliser
    pairs = objective_class(config.objective.name).pairs
    sampler = Sampler(store, rows, config.mel.segment, config.model, pairs)
    dev, test = (benchmarks(store, corpora, tested, split) for split in ("dev", "test"))
    dev_rows = np.concatenate([bench.rows for bench in dev.values()])
    held_out = Sampler(store, dev_rows, config.mel.segment, config.model).draw(128, generator(0, "held-out"))
    return Experiment(config, corpora, store, rows, normaliser, sampler, held_out, dev, test, initial)


def prepare_planned(
    config: RunConfig, plan: dict[str, Any], tell: Callable[[str], None] = lambda line: None
) -> Experiment:
    """Read the corpora of a run's plan, report their contents, and prepare the experiment.

    Args:
        config: The configuration.
        plan: The content of run.json, to which this adds a list of the corpora's utterances.
        tell: A function that gets each line of text for the user.

    Raises:
        InputError: A corpus cannot be read or has changed since the run began, and for the reasons of `prepare`.
    """
    initial = load_bundle(plan["init"]) if plan.get("init") else None
    corpora = read_planned(plan)
    for corpus in corpora:
        counts = [
            f"{split} {len(corpus.of(split))} ({len(corpus.speakers(split))})" for split in ("train", "dev", "test")
        ]
        tell(f"{corpus.name}: utterances (speakers): {', '.join(counts)}")
        for note in corpus.notes:
            tell(f"{corpus.name}: {note}")
    experiment = prepare(config, corpora, plan["test"], progress=True, initial=initial)
    silent = experiment.store.silent
    for utterance in silent[:5]:
        tell(f"{utterance.path} is silent and left out")
    if len(silent) > 5:
        tell(f"{len(silent)} recordings are silent and left out in all")
    short, window = experiment.sampler.left_out, experiment.sampler.window
    tell(f"training on {experiment.hours:.2f} hours; {short} utterances under {window} frames are left out")
    return experiment


def run(
    experiment: Experiment,
    folder: Path,
    *,
    resume: bool = False,
    minutes: float | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: bool = False,
    tensorboard: bool = True,
    sound: Sound | None = None,
) -> RWAE:
    """Train a model, and return the checkpoint that is best on development speakers.

    Args:
        experiment: The configuration and the data.
        folder: The run folder, to which metrics.jsonl, checkpoints/ and tensorboard/ are written.
        resume: Whether training continues from the latest checkpoint.
        minutes: The time limit in minutes, or None.
        say: A function that gets each line of text for the user.
        progress: Whether a progress bar is shown.
        tensorboard: Whether a TensorBoard log is written.
        sound: A vocoder for audio in TensorBoard, from log-mels (T, n_mels) to a waveform, e.g. griffin_lim.
    """
    board = None
    if tensorboard and rank() == 0:
        latest = folder / "checkpoints" / "latest.safetensors"
        step = read_position(latest).step if resume and latest.is_file() else 0
        board = TensorBoard(folder / "tensorboard", experiment.config.mel, step, sound)
    try:
        return train(
            experiment.config,
            experiment.sampler,
            experiment.normaliser,
            experiment.held_out,
            experiment.on_dev,
            folder,
            resume=resume,
            minutes=minutes,
            say=say,
            progress=progress,
            board=board,
            initial=experiment.initial.model if experiment.initial else None,
        )
    finally:
        if board is not None:
            board.close()


def write_bundle(
    experiment: Experiment, model: RWAE, folder: Path, meta: Mapping[str, Any], half: bool = False
) -> Bundle:
    """Write the bundle of a trained model, and return the bundle as it is read back from the disk.

    Args:
        experiment: The configuration and the data.
        model: The trained model.
        folder: The run folder; the bundle is written to its subfolder bundle/.
        meta: The metadata of the bundle.
        half: Whether the weights are written in float16.
    """
    synthetic = all(corpus.synthetic for corpus in experiment.corpora)
    mean = experiment.dynamic_mean(model)
    text = card(experiment.config, experiment.corpora, experiment.hours, meta)
    save_bundle(
        folder / "bundle",
        experiment.config,
        model,
        experiment.normaliser,
        mean,
        synthetic=synthetic,
        meta=meta,
        card=text,
        half=half,
    )
    return load_bundle(folder / "bundle")


def test_rows(experiment: Experiment, model: RWAE, name: str) -> dict[str, dict[str, Row]]:
    """Return the rows of the table of each tested corpus, by corpus and by name of the row.

    The rows are the model, the static code of non-speech frames, the untrained model and log-mels.

    Args:
        experiment: The configuration and the data.
        model: The trained model.
        name: The name of the model's row.
    """
    mel, untrained = experiment.config.mel, new_model(experiment.config).eval()
    return {
        corpus: {
            name: experiment.row(bench, model),
            f"{name}:non-speech": non_speech_row(bench, model, experiment.normaliser, mel),
            "untrained": experiment.row(bench, untrained),
            **log_mel_rows(bench, experiment.normaliser),
        }
        for corpus, bench in experiment.test.items()
    }


def write_results(
    experiment: Experiment, model: RWAE, name: str, tables: Mapping[str, Mapping[str, Row]], folder: Path
) -> None:
    """Write the results of a run: eer.json, table.json, scores/ and plots/.

    eer.json has the model's report of each tested corpus, and table.json the reports of all rows.

    Args:
        experiment: The configuration and the data.
        model: The trained model.
        name: The name of the model's row.
        tables: The rows of each tested corpus, from `test_rows`.
        folder: The run folder.
    """
    reports = {corpus: {key: report for key, (report, _) in rows.items()} for corpus, rows in tables.items()}
    write_json(folder / "table.json", reports)
    for corpus, rows in tables.items():
        bench, scores_folder = experiment.test[corpus], experiment.place(folder / "scores", corpus)
        scores_folder.mkdir(parents=True, exist_ok=True)
        for key, (_, scores) in rows.items():
            for kind, values in scores.items():
                write_scores(scores_folder / f"{key.replace(':', '-')}.{kind}.txt", bench.trials, values)
        plots_folder = experiment.place(folder / "plots", corpus)
        plots_folder.mkdir(parents=True, exist_ok=True)
        write_plots(experiment, model, name, rows, bench, plots_folder)
        write_pictures(experiment, model, experiment.dev[corpus], plots_folder)
    model_rows = {
        corpus: {key: value for key, value in rows[name].items() if key not in ("codes", "collapsed")}
        for corpus, rows in reports.items()
    }
    write_json(folder / "eer.json", model_rows)  # the last file of a run, so that a run with this file is complete


def write_plots(
    experiment: Experiment, model: RWAE, name: str, rows: Mapping[str, Row], bench: Benchmark, folder: Path
) -> None:
    """Plot the DET curves of all rows of a table, and the static codes of the speakers in its benchmark `bench`."""
    target = bench.trials.target
    curves = {f"{key}, static": det_points(scores["static"], target) for key, (_, scores) in rows.items()}
    curves[f"{name}, dynamic"] = det_points(rows[name][1]["dynamic_plain"], target)
    plots.det(folder / "det.png", curves, "Synthetic speech" if bench.synthetic else "")
    vectors = embed_rows(bench, model, experiment.normaliser, experiment.config.mel)
    plots.speaker_map(folder / "speakers.png", vectors.static, bench.speakers, "Static codes of test speakers")


def write_pictures(experiment: Experiment, model: RWAE, bench: Benchmark, folder: Path) -> None:
    """Plot reconstructions and swaps of an utterance of each of four development speakers.

    Args:
        experiment: The configuration and the data.
        model: The trained model.
        bench: The benchmark with the utterances.
        folder: The folder of the plots.
    """
    seconds = experiment.config.mel.hop_length / experiment.config.mel.sample_rate
    bundle = Bundle(experiment.config, model, experiment.normaliser, np.zeros(0), "", False, {})
    names, originals, grid = swaps(bench, bundle)
    pairs = [(name, originals[i], grid[i][i]) for i, name in enumerate(names)]
    plots.reconstructions(folder / "reconstructions.png", pairs, seconds)
    plots.swaps(folder / "swaps.png", names, originals, grid, seconds)


def finish(
    experiment: Experiment, model: RWAE, folder: Path, name: str, meta: Mapping[str, Any], half: bool = False
) -> dict[str, dict[str, Row]]:
    """Write the bundle, tables, scores and plots of a trained model, and return the rows of each tested corpus.

    Args:
        experiment: The configuration and data.
        model: The trained model.
        folder: The run folder.
        name: The name of the model's row.
        meta: The metadata of the bundle.
        half: Whether the bundle is in float16.
    """
    write_json(folder / "config.json", experiment.config.tables())
    bundle = write_bundle(experiment, model, folder, meta, half)
    tables = test_rows(experiment, bundle.model, name)
    write_results(experiment, bundle.model, name, tables, folder)
    return tables
