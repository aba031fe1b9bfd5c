"""From corpora to a run folder: frames, training, the bundle, the table, the pictures. What every recipe shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rwae_audio.data.corpora.base import Corpus
from rwae_audio.data.features import Normaliser
from rwae_audio.data.store import Batch, FrameStore, Sampler, open_store
from rwae_audio.distributed import first_one_first, local, rank, start
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
    """Everything that a run needs: frames, normaliser and crops of the training speakers, the benchmarks.

    dev, test: the benchmarks of each tested corpus, by its name; held_out: segments of the development speakers of all of
    them, on which collapse is watched; initial: the bundle that training begins with.
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
        """Of speech to train on."""
        mel = self.config.mel
        return float(self.store.lengths[self.train_rows].sum()) * mel.hop_length / mel.sample_rate / 3600

    def dynamic_mean(self, model: RWAE, most: int = 2048) -> np.ndarray:
        """The training speakers' mean dynamic vector (dynamic_dim,), over at most `most` utterances."""
        rows = self.train_rows[:: -(-len(self.train_rows) // most)]
        return dynamic_mean(self.store, rows, model, self.normaliser, self.config.mel)

    def row(self, bench: Benchmark, model: RWAE, replicates: int = 1000) -> Row:
        """A model's row of the table; `codes` and `collapsed`: the state of its codes on development speakers."""
        vectors = embed_rows(bench, model, self.normaliser, self.config.mel)
        report, scores = model_row(bench, vectors, self.dynamic_mean(model), replicates)
        state = code_state(model, *normalised(self.held_out, self.normaliser, next(model.parameters()).device))
        return {**report, "codes": state, "collapsed": collapsed_codes(state)}, scores

    def on_dev(self, model: RWAE) -> dict[str, float]:
        """Static and dynamic EER on the development speakers, means over the tested corpora.

        `score`, their distance, chooses the checkpoint. With several corpora, those of each are NAME/static_eer and
        NAME/dynamic_eer.
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
        each = {f"{name}/{code}": rate for name, found in rates.items() for code, rate in found.items()}
        return {**means, **(each if len(rates) > 1 else {}), "score": means["dynamic_eer"] - means["static_eer"]}

    def place(self, folder: Path, corpus: str) -> Path:
        """Where a run keeps what it says of a tested corpus: `folder`, with several corpora a folder in it for each."""
        return corpus_place(folder, corpus, self.test)


def corpus_place(folder: Path, corpus: str, tested: Collection[str]) -> Path:
    """The folder of a tested corpus in scores/ or plots/ of a run: `folder` itself when no other corpus is tested."""
    return folder / corpus if len(tested) > 1 else folder


def prepare(
    config: RunConfig,
    corpora: Sequence[Corpus],
    tested: Sequence[str],
    progress: bool = False,
    initial: Bundle | None = None,
) -> Experiment:
    """The frames of all corpora, trained on together; development and test speakers are those of the corpora `tested`.

    initial: whose weights and normaliser to begin with. Raises InputError when its frames or weights are of another kind.
    """
    if initial is not None:
        if initial.config.mel.frames() != config.mel.frames():
            raise InputError("the bundle to begin with has frames of another kind; expected those of [mel]")
        shapes = [
            {key: value.shape for key, value in model.state_dict().items()}
            for model in (new_model(config), initial.model)
        ]
        if shapes[0] != shapes[1]:
            raise InputError("the bundle to begin with has weights of other shapes; expected those of [model]")
    if config.model.actions:
        raise InputError(
            f"[model] actions is {config.model.actions}; expected 0: a recording has many, see recipes/digits/train.py"
        )
    start()
    local(config.train.batch)  # raises now what training would raise after all the reading
    with first_one_first():  # the store is built once
        store = open_store(corpora, config.mel, progress=progress)
    rows = store.indices("train")
    normaliser = initial.normaliser if initial is not None else store.normaliser(rows)
    pairs = objective_class(config.objective.name).pairs
    sampler = Sampler(store, rows, config.mel.segment, config.model, pairs)
    dev, test = (benchmarks(store, corpora, tested, split) for split in ("dev", "test"))
    heard = np.concatenate([bench.rows for bench in dev.values()])
    held_out = Sampler(store, heard, config.mel.segment, config.model).draw(128, generator(0, "held-out"))
    return Experiment(config, corpora, store, rows, normaliser, sampler, held_out, dev, test, initial)


def prepare_planned(
    config: RunConfig, plan: dict[str, Any], tell: Callable[[str], None] = lambda line: None
) -> Experiment:
    """Read the corpora of a plan, tell what is in them, and make their frames."""
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
    """Train; the run folder gets metrics.jsonl, checkpoints/ and tensorboard/. Returns the best model on dev.

    sound: What makes a waveform of log-mels (T, n_mels) for TensorBoard, as griffin_lim does.
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


def leave_bundle(
    experiment: Experiment, model: RWAE, folder: Path, meta: Mapping[str, Any], half: bool = False
) -> Bundle:
    """Write the run's bundle to folder/bundle (half: in float16), and read it back: what is tested is what is left."""
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
    """The tables of a run, one for each tested corpus: the model, called `name`, its static code of frames without speech,
    the untrained model, and no model at all."""
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


def leave_results(
    experiment: Experiment, model: RWAE, name: str, tables: Mapping[str, Mapping[str, Row]], folder: Path
) -> None:
    """eer.json (corpus → the model's row, `name`), table.json (corpus → all rows), scores/ and plots/."""
    said = {corpus: {key: report for key, (report, _) in rows.items()} for corpus, rows in tables.items()}
    write_json(folder / "table.json", said)
    for corpus, rows in tables.items():
        bench, scores_of = experiment.test[corpus], experiment.place(folder / "scores", corpus)
        scores_of.mkdir(parents=True, exist_ok=True)
        for key, (_, scores) in rows.items():
            for kind, values in scores.items():
                write_scores(scores_of / f"{key.replace(':', '-')}.{kind}.txt", bench.trials, values)
        plots_of = experiment.place(folder / "plots", corpus)
        plots_of.mkdir(parents=True, exist_ok=True)
        leave_plots(experiment, model, name, rows, bench, plots_of)
        leave_pictures(experiment, model, experiment.dev[corpus], plots_of)
    kept = {
        corpus: {key: value for key, value in rows[name].items() if key not in ("codes", "collapsed")}
        for corpus, rows in said.items()
    }
    write_json(folder / "eer.json", kept)  # what rwae-eer would say; last: a run with an eer.json is whole


def leave_plots(
    experiment: Experiment, model: RWAE, name: str, rows: Mapping[str, Row], bench: Benchmark, folder: Path
) -> None:
    """The DET curves of a table's rows, and the map of the test speakers' static codes."""
    target = bench.trials.target
    curves = {f"{key}, static": det_points(scores["static"], target) for key, (_, scores) in rows.items()}
    curves[f"{name}, dynamic"] = det_points(rows[name][1]["dynamic_plain"], target)
    plots.det(folder / "det.png", curves, "Synthetic speech" if bench.synthetic else "")
    vectors = embed_rows(bench, model, experiment.normaliser, experiment.config.mel)
    plots.speaker_map(folder / "speakers.png", vectors.static, bench.speakers, "Static codes of test speakers")


def leave_pictures(experiment: Experiment, model: RWAE, bench: Benchmark, folder: Path, count: int = 4) -> None:
    """Reconstructions and swaps of one utterance each of some development speakers, spread over their names (at most 2 s):
    corpora that name women f… and men m… show both."""
    mel = experiment.config.mel
    seconds = mel.hop_length / mel.sample_rate
    everyone = sorted(set(bench.speakers))
    chosen = [everyone[i] for i in np.linspace(0, len(everyone) - 1, min(count, len(everyone))).round().astype(int)]
    first = [bench.speakers.index(speaker) for speaker in chosen]
    bundle = Bundle(experiment.config, model, experiment.normaliser, np.zeros(0), "", False, {})
    frames = [bench.store.of(int(bench.rows[i])) for i in first]
    clips = [clip[: int(2 / seconds)] for clip in frames]
    codes = [bundle.encode(whole)[: len(clip)] for whole, clip in zip(frames, clips, strict=True)]
    voices = [bundle.voice(whole) for whole in frames]
    grid = [[bundle.decode(voice, code).numpy() for voice in voices] for code in codes]
    names = [bench.speakers[i] for i in first]
    originals = [clip.numpy() for clip in clips]
    pairs = [(names[i], originals[i], grid[i][i]) for i in range(len(names))]
    plots.reconstructions(folder / "reconstructions.png", pairs, seconds)
    plots.swaps(folder / "swaps.png", names, originals, grid, seconds)


def finish(
    experiment: Experiment, model: RWAE, folder: Path, name: str, meta: Mapping[str, Any], half: bool = False
) -> dict[str, dict[str, Row]]:
    """All that is left after training: bundle (half: in float16), tables (the model's row is called `name`), scores, plots.
    Returns the rows of each tested corpus."""
    write_json(folder / "config.json", experiment.config.tables())
    bundle = leave_bundle(experiment, model, folder, meta, half)
    tables = test_rows(experiment, bundle.model, name)
    leave_results(experiment, bundle.model, name, tables, folder)
    return tables
