"""A finished run folder → a row folder of the ladder: config.json, metrics.jsonl, row.json, scores.safetensors.

scores.safetensors: `static`, and of a model with two codes `dynamic_plain` and `dynamic_centred`, float16, in the order
of the trial list, which is trials.safetensors beside the row folders. All rates of the ladder are those of these scores.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train import old_plan, prepare

from rwae_audio.alignment import bytes_lost, phones_of
from rwae_audio.audio import load_audio
from rwae_audio.benchmark import Benchmark, Row, benchmark, embed_rows, log_mel_rows, model_row
from rwae_audio.bundle import load_bundle
from rwae_audio.corpora import Source, by_corpus, planned_sources, read_corpora, relocated
from rwae_audio.experiment import corpus_place
from rwae_audio.features import MelConfig
from rwae_audio.files import (
    InputError,
    read_json,
    read_tensors,
    read_text,
    whole_folder,
    write_json,
    write_tensors,
)
from rwae_audio.model import RWAE, parameters
from rwae_audio.probes import probe_report
from rwae_audio.scores import read_scores, write_scores
from rwae_audio.store import open_store
from rwae_audio.trainer import new_model
from rwae_audio.trials import Trials
from rwae_audio.verification import Report, code_draws, report, report_codes

KINDS = ("static", "dynamic_plain", "dynamic_centred")
BASE = "rwae-mmd"  # the row whose runs give the rows without training: its networks, its frames
KEPT = ("codes", "collapsed", "partial", "parameters", "elsewhere")  # of what table.json says besides the rates
UNTRAINED, FEATURES = "untrained", ("log-mel", "log-mel-mvn")


@dataclass(frozen=True)
class Run:
    """A row folder, read: what row.json says, its scores (N,) by kind, draws of its EERs (replicates,), its configuration."""

    folder: Path
    row: dict[str, Any]
    scores: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    config: dict[str, Any]


def row_folder(place: Path, name: str, seed: int | None) -> Path:
    """Where the row of one run is kept: NAME-SEED, or NAME of a system that nothing is drawn for."""
    return place / (name if seed is None else f"{name}-{seed}")


def half(scores: np.ndarray) -> np.ndarray:
    """Scores (N,), less their median and over their deviation, in float16. No rate depends on either, and float16 could
    not tell cosines near 1 apart."""
    return ((scores - np.median(scores)) / (np.std(scores) or 1.0)).astype(np.float16)


def collect(
    run: Path,
    into: Path,
    data: Sequence[Source],
    elsewhere: Sequence[Source],
    label: str | None = None,
    progress: bool = False,
) -> list[Path]:
    """Measure a finished run, and write its row folder (and those that it gives of the rows without training, unless
    they are there) under into/CORPUS, for each corpus that it was tested on. data: folders of its corpora, where they are
    not where they were; elsewhere: of corpora to test on as well, but for those that the run has heard; label: the row's
    name instead of its configuration's. Returns the folders written. Raises InputError."""
    plan = old_plan(run)
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
    written = []
    for test in plan["test"]:
        table, place = tables[test], into / test
        folders = {key: row_folder(place, *called[key]) for key in called if key in table}
        missing = {key: folder for key, folder in folders.items() if key == own or not (folder / "row.json").is_file()}
        scores = {key: read_rounded(run, plan["test"], test, key) for key in missing}
        for trials, _ in scores.values():
            same_list(run, digest(trials), place)
        columns = measured(run, plan, test, new, progress)
        for key, folder in missing.items():
            trials, values = scores[key]
            row = {"name": called[key][0], "seed": called[key][1], "test": test, "trial_list": digest(trials)}
            row |= of_training(run, plan, test, table) if key == own else {}
            row |= report_codes(values, trials, code_draws(values, trials), synthetic=table[key]["synthetic"])
            row |= {name: table[key][name] for name in KEPT if name in table[key]}
            row |= columns[key]() if key in columns else {}
            write_list(place, trials)
            write_row(folder, row, values, config, run / "metrics.jsonl" if key == own else None)
        written += missing.values()
    return written


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
    began as (`phone` and `speaker`: rwae_audio.probes; `parameters`; `elsewhere`), and `elsewhere` of the log-mels; none of
    a run that leaves no bundle."""
    if not (run / "bundle").is_dir():
        return {}
    bundle = load_bundle(run / "bundle")
    ready = prepare(bundle.config, plan, tell=lambda line: None)
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


def digest(trials: Trials) -> str:
    """Of the lines `1|0 enrol test`, in their order."""
    rows = zip(trials.target, trials.enrol, trials.test, strict=True)
    lines = "".join(f"{int(target)} {trials.names[a]} {trials.names[b]}\n" for target, a, b in rows)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def read_runs(place: Path) -> list[Run]:
    """All row folders under `place`. Raises InputError for one that was scored on another list than its neighbours."""
    runs, trials = [], read_list(place)
    for folder in sorted(path.parent for path in place.glob("[!.]*/row.json")):
        row, config = (read_json(folder / f"{name}.json", "a row of the ladder") for name in ("row", "config"))
        same_list(folder, row.get("trial_list"), place)
        scores = read_row_scores(folder)
        runs.append(Run(folder, row, scores, code_draws(scores, trials), config))
    return runs


def read_row_scores(folder: Path) -> dict[str, np.ndarray]:
    """The scores (N,) of a row folder by kind."""
    tensors = read_tensors(folder / "scores.safetensors", "the scores of a row")
    return {kind: tensors[kind].double().numpy() for kind in KINDS if kind in tensors}


def read_list(place: Path) -> Trials:
    """The trial list that all rows under `place` are scored on."""
    tensors = read_tensors(place / "trials.safetensors", "rows of the ladder beside their trial list")
    names = bytes(tensors["names"].numpy()).decode().split("\n")
    enrol, test = (tensors[side].long().numpy() for side in ("enrol", "test"))
    return Trials(tuple(names), enrol, test, tensors["target"].numpy())


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


def same_list(where: Path, came: Any, place: Path) -> None:
    """Raises InputError when a list with the digest `came` is not the one of the rows under `place`."""
    if (place / "trials.safetensors").is_file() and came != (expected := digest(read_list(place))):
        raise InputError(f"{where} was scored on another trial list ({came}); expected that of {place} ({expected})")


def times(path: Path) -> dict[str, Any]:
    """Updates, and seconds that a thousand of them took, from the last line of a dev log."""
    if not path.is_file():
        return {}
    last = json.loads(read_text(path, "a dev log").splitlines()[-1])
    each = last["seconds"] / last["step"]
    return {"updates": last["step"], "seconds": last["seconds"], "seconds_per_1000": 1000 * each}


def write_row(
    folder: Path,
    row: Mapping[str, Any],
    scores: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    metrics: Path | None,
) -> None:
    """The row folder, whole or not at all."""
    tensors = {kind: torch.from_numpy(values) for kind, values in scores.items()}
    with whole_folder(folder) as temporary:
        write_tensors(temporary / "scores.safetensors", tensors)
        write_json(temporary / "config.json", config)
        if metrics is not None and metrics.is_file():
            shutil.copyfile(metrics, temporary / "metrics.jsonl")
        write_json(temporary / "row.json", row)


def write_list(place: Path, trials: Trials) -> None:
    """The trial list of `place`, unless it is there."""
    if not (place / "trials.safetensors").is_file():
        place.mkdir(parents=True, exist_ok=True)
        names = np.frombuffer("\n".join(trials.names).encode(), dtype=np.uint8).copy()
        enrol, test = (torch.from_numpy(side.astype(np.int32)) for side in (trials.enrol, trials.test))
        tensors = {"names": torch.from_numpy(names), "enrol": enrol, "test": test}
        write_tensors(place / "trials.safetensors", {**tensors, "target": torch.from_numpy(trials.target.copy())})
