"""Measure a finished run folder for the ladder: its rates, and the columns that need its model and speech."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ladder_rows import KINDS, check_config, digest, half, keep, read_rows, run_name, same_list

from rwae_audio.commands.runs import read_plan
from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora import Source, by_corpus, planned_sources, read_corpora, relocated
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
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.model import RWAE, parameters
from rwae_audio.training.trainer import new_model

BASE = "rwae-mmd"  # the row whose runs give the rows without training: its networks, its frames
KEPT = ("codes", "collapsed", "partial", "parameters", "elsewhere")  # of what table.json says besides the rates
UNTRAINED, FEATURES = "untrained", ("log-mel", "log-mel-mvn")


def collect(
    run: Path,
    into: Path,
    data: Sequence[Source],
    elsewhere: Sequence[Source],
    label: str | None = None,
    progress: bool = False,
) -> list[tuple[str, str]]:
    """Measure a finished run, and keep it (and what it gives of the rows without training, unless they are there) under
    into/CORPUS, for each corpus that it was tested on. data: folders of its corpora, where they are not where they were;
    elsewhere: of corpora to test on as well, but for those that the run has heard; label: the row's name instead of its
    configuration's. Returns the corpus and the name of each run that was kept. Raises InputError."""
    plan = read_plan(run, name=str, test=list)
    if not (run / "eer.json").is_file():
        raise InputError(f"{run} is not finished; expected a run with an eer.json, or train.py --resume {run}")
    tables, config = (read_json(run / f"{name}.json", "a finished run") for name in ("table", "config"))
    own, seed = plan["name"], config["train"]["seed"]
    called = {own: (label or own, None if plan.get("seedless") else seed)}
    if own == BASE:
        called |= {UNTRAINED: (UNTRAINED, seed), **{name: (name, None) for name in FEATURES}}
    plan["data"] = relocated(planned_sources(plan), data)
    heard = by_corpus(plan["data"])
    new = [source for source in elsewhere if source.corpus not in heard]
    kept = []
    for test in plan["test"]:
        table, place = tables[test], into / test
        there = read_rows(place)
        missing = [key for key in called if key in table and (key == own or run_name(*called[key]) not in there)]
        scores = {key: read_rounded(run, plan["test"], test, key) for key in missing}
        for trials, _ in scores.values():
            same_list(run, digest(trials), place)
        check_config(place, *called[own], config)
        columns = measured(run, plan, test, new, progress)
        rows = []
        for key, (trials, values) in scores.items():
            row = {"name": called[key][0], "seed": called[key][1], "test": test, "trial_list": digest(trials)}
            row |= of_training(run, plan, test, table) if key == own else {}
            row |= report_codes(values, trials, code_draws(values, trials), synthetic=table[key]["synthetic"])
            row |= {name: table[key][name] for name in KEPT if name in table[key]}
            row |= columns[key]() if key in columns else {}
            rows.append((row, values))
        keep(place, scores[own][0], rows, {} if plan.get("seedless") else {called[own][0]: config})
        kept += [(test, run_name(*called[key])) for key in missing]
    return kept


def of_training(run: Path, plan: Mapping[str, Any], test: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """What only a run's own row says: its command, how long it took, and its code of the frames without speech."""
    command = re.sub(r" --(out|threads) \S+| --no-tensorboard", "", plan["command"])
    said = {"command": command, "supervised": bool(plan.get("supervised")), **times(run / "metrics.jsonl")}
    if (key := f"{plan['name']}:non-speech") in table:
        trials, scores = read_rounded(run, plan["test"], test, key)
        said["non_speech"] = report_codes(scores, trials, code_draws(scores, trials), synthetic=False)["static"]
    return said


def measured(
    run: Path, plan: dict[str, Any], test: str, elsewhere: Sequence[Source], progress: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    """The columns that need a model and speech, on the corpus `test`, to be called for: of the run's model and of the one it
    began as (`phone` and `speaker`: probes.py; `parameters`; `elsewhere`), and `elsewhere` of the log-mels; none of
    a run that leaves no bundle."""
    if not (run / "bundle").is_dir():
        return {}
    bundle = load_bundle(run / "bundle")
    ready = prepare_planned(bundle.config, plan)
    corpus = next(corpus for corpus in ready.corpora if corpus.name == test)
    spoken = any(u.text or u.phones for u in corpus.utterances)
    phones = phones_of(corpus, progress=progress).phones if spoken else {}
    mel, normaliser = bundle.config.mel, bundle.normaliser

    def there(row: Callable[[Benchmark], Row]) -> dict[str, Any]:
        places = {name: strangers(folders, mel) for name, folders in by_corpus(elsewhere).items()}
        return {"elsewhere": {name: hear(row(bench), bench, lost) for name, (bench, lost) in places.items()}}

    def columns(model: RWAE, mean: np.ndarray) -> dict[str, Any]:
        probed = probe_report(ready.store, ready.train_rows, ready.test[test], model, normaliser, mel, phones)
        heard = there(lambda bench: model_row(bench, embed_rows(bench, model, normaliser, mel), mean, 0))
        return {**probed, **heard, "parameters": parameters(model)}

    def untrained() -> dict[str, Any]:
        model = new_model(bundle.config).eval()
        return columns(model, ready.dynamic_mean(model))

    def features(name: str) -> Callable[[], dict[str, Any]]:
        return lambda: there(lambda bench: log_mel_rows(bench, normaliser, 0)[name])

    own = {plan["name"]: lambda: columns(bundle.model, bundle.dynamic_mean), UNTRAINED: untrained}
    return {**own, **{name: features(name) for name in FEATURES}}


def hear(row: Row, bench: Benchmark, left_out: int) -> Report:
    """What a row of another corpus says, of the scores as the ladder has them."""
    scores = {kind: half(values) for kind, values in row[1].items()}
    draws = code_draws(scores, bench.trials)
    return {**report_codes(scores, bench.trials, draws, synthetic=bench.synthetic), "left_out": left_out}


@cache
def strangers(folders: tuple[Source, ...], mel: MelConfig) -> tuple[Benchmark, int]:
    """The benchmark of a corpus that nothing is trained on, in these folders: of its test speakers, or of all where it has
    none, those with two utterances or more (of the LibriSpeech with one of most: the long speakers); and how many
    recordings of NLTK's TIMIT sample were left out because they lost bytes."""
    (corpus,) = read_corpora(folders)
    utterances = [replace(u, split="test") for u in corpus.of("test") or corpus.utterances]
    damaged = folders[0].reader == "timit"
    lost = [u for u in utterances if damaged and bytes_lost(load_audio(u.path, 16000))]
    for left in (lost, []):  # all of them stay if that would leave no trials of both kinds
        kept = [u for u in utterances if u not in left]
        several = [u for u in kept if sum(v.speaker == u.speaker for v in kept) > 1]
        if len({u.speaker for u in several}) > 1 or not left:
            break
    corpus = replace(corpus, utterances=tuple(several))
    return benchmark(open_store([corpus], mel), corpus, "test"), len(left)


def leave_vectors(
    folder: Path,
    name: str,
    benches: Mapping[str, Benchmark],
    vectors: Mapping[str, np.ndarray],
    extra: Mapping[str, Any],
) -> dict[str, Report]:
    """What is left of a system with one vector an utterance, (M, d) of each tested corpus: scores/, table.json (with
    `extra`) and eer.json in its run folder, from which `collect` makes rows. Returns the reports."""
    reports = {}
    for corpus, bench in benches.items():
        said, scores = report(vectors[corpus], None, bench.trials, None, synthetic=bench.synthetic)
        place = corpus_place(folder / "scores", corpus, benches)
        place.mkdir(parents=True, exist_ok=True)
        write_scores(place / f"{name}.static.txt", bench.trials, scores["static"])
        reports[corpus] = said
    write_json(folder / "table.json", {corpus: {name: {**said, **extra}} for corpus, said in reports.items()})
    write_json(folder / "eer.json", reports)
    return reports


def heard_elsewhere(
    elsewhere: Sequence[Source], mel: MelConfig, embed: Callable[[Benchmark], np.ndarray]
) -> dict[str, Report]:
    """`elsewhere` of such a system: embed gives the vectors (M, d) of a benchmark."""
    places = {name: strangers(folders, mel) for name, folders in by_corpus(elsewhere).items()}
    rows = {
        name: report(embed(bench), None, bench.trials, None, synthetic=False, replicates=0)
        for name, (bench, _) in places.items()
    }
    return {name: hear(rows[name], *places[name]) for name in rows}


def read_rounded(run: Path, tests: Sequence[str], test: str, key: str) -> tuple[Trials, dict[str, np.ndarray]]:
    """The trials of a run's row on the corpus `test` of those it was tested on, and its scores by kind as the ladder has
    them."""
    place = corpus_place(run / "scores", test, tests)
    found: dict[str, np.ndarray] = {}
    for kind in KINDS:
        path = place / f"{key.replace(':', '-')}.{kind}.txt"
        if kind == "static" or path.is_file():
            values, trials, _ = read_scores(path)
            found[kind] = half(values)
    if trials is None:
        raise InputError(f"{path} names no utterances; expected scores as train.py writes them")
    return trials, found


def times(path: Path) -> dict[str, Any]:
    """Updates, and seconds that a thousand of them took, from the last line of a dev log."""
    if not path.is_file():
        return {}
    last = json.loads(read_text(path, "a dev log").splitlines()[-1])
    each = last["seconds"] / last["step"]
    return {"updates": last["step"], "seconds": last["seconds"], "seconds_per_1000": 1000 * each}
