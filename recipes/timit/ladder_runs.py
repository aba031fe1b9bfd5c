"""Measurement of a finished run for the ladder: its error rates, and probes that need its model and speech."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ladder_rows import KINDS, check_config, digest, half, keep, read_rows, run_name, same_list
from ladder_swaps import swap_columns
from robustness import Recordings, degraded_paths, score, static_codes

from rwae_audio.commands.runs import read_plan
from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora import Corpus, Source, by_corpus, planned_sources, read_corpora, relocated
from rwae_audio.data.features import MelConfig
from rwae_audio.data.store import open_store
from rwae_audio.evaluation.alignment import bytes_lost, phones_of
from rwae_audio.evaluation.benchmark import Benchmark, Row, benchmark, embed_rows, log_mel_rows, model_row
from rwae_audio.evaluation.experiment import corpus_place, prepare_planned
from rwae_audio.evaluation.probes import probe_report
from rwae_audio.evaluation.scores import read_scores, write_scores
from rwae_audio.evaluation.trials import Trials
from rwae_audio.evaluation.verification import Report, code_draws, report, report_codes
from rwae_audio.files import InputError, read_json, read_text, write_json
from rwae_audio.inference.bundle import Bundle, load_bundle
from rwae_audio.model import RWAE, parameters
from rwae_audio.training.trainer import new_model

BASE = "rwae-mmd"  # the system with whose networks and frames the untrained rows are computed
COPIED = ("codes", "collapsed", "partial", "parameters", "elsewhere")  # entries of table.json, besides the rates
UNTRAINED, FEATURES = "untrained", ("log-mel", "log-mel-mvn")  # the untrained rows


class Further(NamedTuple):
    """The measurements of a run besides its rates and probes.

    Attributes:
        elsewhere: Further corpora for tests. Those on which the run was trained are left out.
        degraded: A folder for degraded recordings, if the static EER on them is measured as well.
        judged: Whether independent models judge swaps.
        progress: Whether progress bars are shown.
    """

    elsewhere: tuple[Source, ...] = ()
    degraded: Path | None = None
    judged: bool = False
    progress: bool = False


def collect(
    run: Path, into: Path, data: Sequence[Source], further: Further, label: str | None = None
) -> list[tuple[str, str]]:
    """Measure a finished run, and add it to the ladder of each corpus on which it was tested.

    A run of BASE also adds the untrained rows that do not exist yet.

    Args:
        run: The run folder.
        into: The folder of the ladders, which are in into/CORPUS.
        data: New folders of the run's corpora, if they have moved.
        further: What is measured besides.
        label: The name of the row, if it is not that of the configuration.

    Returns:
        The corpus and the name of each run that was added.

    Raises:
        InputError: The run is not finished, or does not fit the ladder.
    """
    plan = read_plan(run, name=str, test=list)
    if not (run / "eer.json").is_file():
        raise InputError(f"{run} is not finished; expected a run with an eer.json, or train.py --resume {run}")
    tables, config = (read_json(run / f"{name}.json", "a finished run") for name in ("table", "config"))
    own, seed = plan["name"], config["train"]["seed"]
    names = {own: (label or own, None if plan.get("seedless") else seed)}
    if own == BASE:
        names |= {UNTRAINED: (UNTRAINED, seed), **{name: (name, None) for name in FEATURES}}
    plan["data"] = relocated(planned_sources(plan), data)
    trained_on = by_corpus(plan["data"])
    unheard = tuple(source for source in further.elsewhere if source.corpus not in trained_on)
    further = further._replace(elsewhere=unheard)
    added = []
    for test in plan["test"]:
        table, place = tables[test], into / test
        existing = read_rows(place)
        missing = [key for key in names if key in table and (key == own or run_name(*names[key]) not in existing)]
        scores = {key: read_rounded(run, plan["test"], test, key) for key in missing}
        for trials, _ in scores.values():
            same_list(run, digest(trials), place)
        check_config(place, *names[own], config)
        columns = model_columns(run, plan, test, further)
        rows = []
        for key, (trials, values) in scores.items():
            row = {"name": names[key][0], "seed": names[key][1], "test": test, "trial_list": digest(trials)}
            row |= training_columns(run, plan, test, table) if key == own else {}
            row |= report_codes(values, trials, code_draws(values, trials), synthetic=table[key]["synthetic"])
            row |= {name: table[key][name] for name in COPIED if name in table[key]}
            row |= columns[key]() if key in columns else {}
            rows.append((row, values))
        keep(place, scores[own][0], rows, {} if plan.get("seedless") else {names[own][0]: config})
        added += [(test, run_name(*names[key])) for key in missing]
    return added


def training_columns(run: Path, plan: Mapping[str, Any], test: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that only the run's own row has: its command, its times, and the EER of non-speech frames.

    Args:
        run: The run folder.
        plan: The plan of the run.
        test: The tested corpus.
        table: The reports of all rows of the corpus, from table.json.
    """
    command = re.sub(r" --(out|threads) \S+| --no-tensorboard", "", plan["command"])
    columns = {"command": command, "supervised": bool(plan.get("supervised")), **times(run / "metrics.jsonl")}
    if (key := f"{plan['name']}:non-speech") in table:
        trials, scores = read_rounded(run, plan["test"], test, key)
        columns["non_speech"] = report_codes(scores, trials, code_draws(scores, trials), synthetic=False)["static"]
    return columns


def model_columns(
    run: Path, plan: dict[str, Any], test: str, further: Further
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return a function for each row that computes the columns which need the model and speech.

    The trained and the untrained model have the columns `phone` and `speaker` (see probes.py), `parameters`, `elsewhere`,
    and `degraded` if there is a folder for degraded recordings. The trained model has `swaps` if these are judged.
    Log-mels have `elsewhere` alone. A run without a bundle has no such columns.

    Args:
        run: The run folder.
        plan: The plan of the run.
        test: The tested corpus.
        further: What is measured besides.
    """
    if not (run / "bundle").is_dir():
        return {}
    bundle = load_bundle(run / "bundle")
    ready = prepare_planned(bundle.config, plan)
    corpus = next(corpus for corpus in ready.corpora if corpus.name == test)
    has_labels = any(u.text or u.phones for u in corpus.utterances)
    phones = phones_of(corpus, progress=further.progress).phones if has_labels else {}
    mel, normaliser = bundle.config.mel, bundle.normaliser

    def elsewhere_columns(row: Callable[[Benchmark], Row]) -> dict[str, Any]:
        benches = {name: unseen_benchmark(folders, mel) for name, folders in by_corpus(further.elsewhere).items()}
        return {
            "elsewhere": {name: report_row(row(bench), bench, damaged) for name, (bench, damaged) in benches.items()}
        }

    def columns(model: RWAE, mean: np.ndarray) -> dict[str, Any]:
        probes = probe_report(ready.store, ready.train_rows, ready.test[test], model, normaliser, mel, phones)
        unseen = elsewhere_columns(lambda bench: model_row(bench, embed_rows(bench, model, normaliser, mel), mean, 0))
        if further.degraded:
            own = replace(bundle, model=model)
            unseen |= degraded_rates(own, corpus, ready.test[test], further.degraded / test)
        return {**probes, **unseen, "parameters": parameters(model)}

    def trained() -> dict[str, Any]:
        judged = swap_columns(bundle, corpus) if further.judged else {}
        return {**columns(bundle.model, bundle.dynamic_mean), **judged}

    def untrained() -> dict[str, Any]:
        model = new_model(bundle.config).eval()
        return columns(model, ready.dynamic_mean(model))

    def features(name: str) -> Callable[[], dict[str, Any]]:
        return lambda: elsewhere_columns(lambda bench: log_mel_rows(bench, normaliser, 0)[name])

    return {plan["name"]: trained, UNTRAINED: untrained, **{name: features(name) for name in FEATURES}}


def degraded_rates(bundle: Bundle, corpus: Corpus, bench: Benchmark, folder: Path) -> dict[str, Any]:
    """Return the column `degraded`: the mean static EER over the degradations of robustness.py, by side.

    Speakers who are no test speakers talk in the background.

    Args:
        bundle: The model.
        corpus: The tested corpus.
        bench: Its benchmark.
        folder: The folder of the degraded recordings, which are written if it does not exist.
    """
    talkers: dict[str, list[Path]] = {}
    for utterance in (u for u in corpus.utterances if u.split != "test"):
        talkers.setdefault(utterance.speaker, []).append(utterance.path)
    paths = [bench.store.utterances[row].path for row in bench.rows]
    recordings = Recordings(bench.trials.names, paths, [[*talkers.values()]] * len(paths), 0)
    vectors = {
        name: np.stack([*static_codes(bundle, files)]) for name, files in degraded_paths(recordings, folder).items()
    }
    return {"degraded": score(bench.trials, vectors, 200)["mean"]}


def report_row(row: Row, bench: Benchmark, left_out: int) -> Report:
    """Return the report of a row on another corpus, from scores in the precision of the ladder.

    Args:
        row: The report and the scores of the row.
        bench: The benchmark.
        left_out: The number of damaged recordings, which are left out.
    """
    scores = {kind: half(values) for kind, values in row[1].items()}
    draws = code_draws(scores, bench.trials)
    return {**report_codes(scores, bench.trials, draws, synthetic=bench.synthetic), "left_out": left_out}


@cache
def unseen_benchmark(folders: tuple[Source, ...], mel: MelConfig) -> tuple[Benchmark, int]:
    """Return the benchmark of a corpus that no system is trained on, and the number of damaged recordings left out.

    It has the test speakers with at least two utterances. If there are no test speakers, it has all speakers. Damaged
    recordings are those of NLTK's TIMIT sample that have lost bytes.

    Args:
        folders: The sources of the corpus.
        mel: The settings of the frames.
    """
    (corpus,) = read_corpora(folders)
    utterances = [replace(u, split="test") for u in corpus.of("test") or corpus.utterances]
    may_be_damaged = folders[0].reader == "timit"
    broken = [u for u in utterances if may_be_damaged and bytes_lost(load_audio(u.path, 16000))]
    for excluded in (broken, []):  # none are excluded if there would be fewer than two speakers
        intact = [u for u in utterances if u not in excluded]
        several = [u for u in intact if sum(v.speaker == u.speaker for v in intact) > 1]
        if len({u.speaker for u in several}) > 1 or not excluded:
            break
    corpus = replace(corpus, utterances=tuple(several))
    return benchmark(open_store([corpus], mel), corpus, "test"), len(excluded)


def leave_vectors(
    folder: Path,
    name: str,
    benches: Mapping[str, Benchmark],
    vectors: Mapping[str, np.ndarray],
    extra: Mapping[str, Any],
) -> dict[str, Report]:
    """Write the results of a system with one embedding for each utterance, and return its reports by corpus.

    Args:
        folder: The run folder, to which scores/, table.json and eer.json are written for `collect`.
        name: The name of the row.
        benches: The benchmark of each tested corpus.
        vectors: The embeddings (M, d) for each tested corpus.
        extra: Further entries of the row in table.json.
    """
    reports = {}
    for corpus, bench in benches.items():
        summary, scores = report(vectors[corpus], None, bench.trials, None, synthetic=bench.synthetic)
        place = corpus_place(folder / "scores", corpus, benches)
        place.mkdir(parents=True, exist_ok=True)
        write_scores(place / f"{name}.static.txt", bench.trials, scores["static"])
        reports[corpus] = summary
    write_json(folder / "table.json", {corpus: {name: {**summary, **extra}} for corpus, summary in reports.items()})
    write_json(folder / "eer.json", reports)
    return reports


def heard_elsewhere(
    elsewhere: Sequence[Source], mel: MelConfig, embed: Callable[[Benchmark], np.ndarray]
) -> dict[str, Report]:
    """Return the reports of a system with one embedding for each utterance on other corpora, by corpus.

    Args:
        elsewhere: The sources of the corpora.
        mel: The settings of the frames.
        embed: The function from a benchmark to the embeddings (M, d) of its utterances.
    """
    benches = {name: unseen_benchmark(folders, mel) for name, folders in by_corpus(elsewhere).items()}
    rows = {
        name: report(embed(bench), None, bench.trials, None, synthetic=False, replicates=0)
        for name, (bench, _) in benches.items()
    }
    return {name: report_row(rows[name], *benches[name]) for name in rows}


def read_rounded(run: Path, tests: Sequence[str], test: str, key: str) -> tuple[Trials, dict[str, np.ndarray]]:
    """Read the scores of a row of a run.

    Args:
        run: The run folder.
        tests: The names of all tested corpora of the run.
        test: The name of the tested corpus.
        key: The name of the row.

    Returns:
        The trials, and the scores (N,) by kind, in the precision of the ladder.

    Raises:
        InputError: A score file cannot be read.
    """
    place = corpus_place(run / "scores", test, tests)
    scores: dict[str, np.ndarray] = {}
    for kind in KINDS:
        path = place / f"{key.replace(':', '-')}.{kind}.txt"
        if kind == "static" or path.is_file():
            values, trials, _ = read_scores(path)
            scores[kind] = half(values)
    if trials is None:
        raise InputError(f"{path} has no names of utterances; expected scores of train.py")
    return trials, scores


def times(path: Path) -> dict[str, Any]:
    """Return the updates and the seconds of a run, and the seconds of 1,000 updates, from its metrics.jsonl."""
    if not path.is_file():
        return {}
    last = json.loads(read_text(path, "the log of a run").splitlines()[-1])
    seconds = last["seconds"] / last["step"]
    return {"updates": last["step"], "seconds": last["seconds"], "seconds_per_1000": 1000 * seconds}
