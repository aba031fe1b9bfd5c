"""Read and write the rows of a ladder. What is kept of finished runs lies in ladder/<test>/:

runs.jsonl           a line a run: its name and seed, its rates with their intervals, all columns
conf/NAME.toml       the configuration of a row as train.py takes it: differences from the defaults, without the seed
scores.safetensors   a tensor NAME-SEED/KIND (N,) a run and kind of score, float16, in the order of the trial list
trials.safetensors   the trial list of N trials that all runs are scored on

All rates of the ladder are those of these scores, and all tables are made from these files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rwae_audio.evaluation.comparison import same_settings
from rwae_audio.evaluation.trials import Trials
from rwae_audio.evaluation.verification import code_draws
from rwae_audio.files import InputError, only_one, read_tensors, read_text, write_tensors, write_text
from rwae_audio.objectives import DEFAULT, objective_settings
from rwae_audio.settings import read_toml
from rwae_audio.training.trainer import RunConfig

KINDS = ("static", "dynamic_plain", "dynamic_centred")


@dataclass(frozen=True)
class Run:
    """A run that was kept: its line, its scores (N,) by kind, draws of its EERs (replicates,) by code, and the tables of
    its row's configuration, empty for a system that is not trained here."""

    row: dict[str, Any]
    scores: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    config: dict[str, Any]


def run_name(name: str, seed: int | None) -> str:
    """What a run of the row `name` is called: NAME-SEED, or NAME of a system that nothing is drawn for."""
    return name if seed is None else f"{name}-{seed}"


def half(scores: np.ndarray) -> np.ndarray:
    """Scores (N,) minus their median, over their deviation, in float16. No rate depends on either, and float16 could
    not tell cosines near 1 apart."""
    return ((scores - np.median(scores)) / (np.std(scores) or 1.0)).astype(np.float16)


def digest(trials: Trials) -> str:
    """Sixteen hexadecimal digits that tell this trial list from others: of the lines `1|0 enrol test`, in their order."""
    rows = zip(trials.target, trials.enrol, trials.test, strict=True)
    lines = "".join(f"{int(target)} {trials.names[a]} {trials.names[b]}\n" for target, a, b in rows)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def read_rows(place: Path) -> dict[str, dict[str, Any]]:
    """The lines of runs.jsonl under `place` by the name of their run; none where there is no such file."""
    path = place / "runs.jsonl"
    if not path.is_file():
        return {}
    try:
        rows = [json.loads(line) for line in read_text(path, "rows of the ladder").splitlines()]
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not a JSON object a line ({error}); expected rows of the ladder") from error
    return {run_name(row["name"], row["seed"]): row for row in rows}


def read_runs(place: Path) -> list[Run]:
    """All runs that are kept under `place`. Raises InputError for one that was scored on another list."""
    rows = read_rows(place)
    if not rows:
        return []
    trials, tensors = read_list(place), read_tensors(place / "scores.safetensors", "the scores of a ladder")
    runs = []
    for name, row in rows.items():
        same_list(name, row.get("trial_list"), place)
        scores = {kind: tensors[key].double().numpy() for kind in KINDS if (key := f"{name}/{kind}") in tensors}
        if not scores:
            raise InputError(f"{place / 'scores.safetensors'} has no scores of {name}; expected those of all runs")
        runs.append(Run(row, scores, code_draws(scores, trials), read_config(place, row["name"])))
    return runs


def read_config(place: Path, name: str) -> dict[str, Any]:
    """The whole tables of a row's configuration; none of a system that is not trained here."""
    path = place / "conf" / f"{name}.toml"
    return RunConfig.of(read_toml(path)).tables() if path.is_file() else {}


def check_config(place: Path, name: str, seed: int | None, config: Mapping[str, Any]) -> None:
    """Raises InputError when other seeds of the row `name` were trained by another configuration than this one."""
    others = [row for row in read_rows(place).values() if row["name"] == name and row["seed"] != seed]
    if others and (kept := read_config(place, name)):
        same_settings(name, [kept, config])


def keep(
    place: Path,
    trials: Trials,
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, np.ndarray]]],
    configs: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write runs to `place`, in the place of those of the same name: the line and the scores (N,) by kind of each, and
    the configurations by the names of rows. The lines come last: a run that is not among them is not there."""
    (place / "conf").mkdir(parents=True, exist_ok=True)
    with only_one(place):
        write_list(place, trials)
        for name, config in configs.items():
            write_text(place / "conf" / f"{name}.toml", toml(differences(config)))
        path = place / "scores.safetensors"
        tensors = read_tensors(path, "the scores of a ladder") if path.is_file() else {}
        for row, scores in rows:
            name = run_name(row["name"], row["seed"])
            tensors |= {f"{name}/{kind}": torch.from_numpy(values) for kind, values in scores.items()}
        write_tensors(path, tensors)
        kept = read_rows(place) | {run_name(row["name"], row["seed"]): dict(row) for row, _ in rows}
        ordered = sorted(kept.values(), key=lambda row: (row["name"], row["seed"] or 0))
        write_text(place / "runs.jsonl", "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in ordered))


def differences(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a configuration has otherwise than the defaults, without its seed, and the name of its objective.

    The defaults of [objective] are those of the objective that it names.
    """
    tables = RunConfig.of(config).tables()
    objective = tables["objective"]["name"]
    plain = {**RunConfig.of({}).tables(), "objective": asdict(objective_settings(objective))}
    plain["train"]["seed"] = tables["train"]["seed"]
    if objective != DEFAULT:
        plain["objective"]["name"] = DEFAULT
    other = {table: {k: v for k, v in values.items() if v != plain[table][k]} for table, values in tables.items()}
    return {table: values for table, values in other.items() if values}


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of plain values as TOML."""
    parts = (
        f"[{name}]\n" + "".join(f"{key} = {toml_value(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )
    return "\n".join(parts)


def toml_value(value: Any) -> str:
    """A plain value as TOML, whose strings and numbers are those of JSON."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {toml_value(part)}' for key, part in value.items())} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(value)


def read_list(place: Path) -> Trials:
    """The trial list that all runs under `place` are scored on."""
    tensors = read_tensors(place / "trials.safetensors", "rows of the ladder beside their trial list")
    names = bytes(tensors["names"].numpy()).decode().split("\n")
    enrol, test = (tensors[side].long().numpy() for side in ("enrol", "test"))
    return Trials(tuple(names), enrol, test, tensors["target"].numpy())


def write_list(place: Path, trials: Trials) -> None:
    """Write the trial list of `place`, unless it is there."""
    if not (place / "trials.safetensors").is_file():
        names = np.frombuffer("\n".join(trials.names).encode(), dtype=np.uint8).copy()
        enrol, test = (torch.from_numpy(side.astype(np.int32)) for side in (trials.enrol, trials.test))
        tensors = {"names": torch.from_numpy(names), "enrol": enrol, "test": test}
        write_tensors(place / "trials.safetensors", {**tensors, "target": torch.from_numpy(trials.target.copy())})


def same_list(what: str | Path, came: Any, place: Path) -> None:
    """Raises InputError when a list with the digest `came` is not the one of the runs under `place`."""
    if (place / "trials.safetensors").is_file() and came != (expected := digest(read_list(place))):
        raise InputError(f"{what} was scored on another trial list ({came}); expected that of {place} ({expected})")
