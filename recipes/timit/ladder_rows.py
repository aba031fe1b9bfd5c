"""The results of all runs of a ladder: reading and writing of the files in ladder/<test>/.

runs.jsonl           a line for each run: its name and seed, its rates with their intervals, all other columns
conf/NAME.toml       the configuration of a system for train.py: differences from the defaults, without the seed
scores.safetensors   a tensor NAME-SEED/KIND (N,) for each run and kind of score, float16, in the order of the trial list
trials.safetensors   the list of N trials, which is the same for all runs

All rates of the ladder are computed from these scores, and all tables from these files.
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
    """The results of a run.

    Attributes:
        row: The line of the run in runs.jsonl.
        scores: The scores (N,) by kind.
        draws: The bootstrap draws (replicates,) of the EER by code.
        config: The tables of the configuration, empty for a system that is not trained here.
    """

    row: dict[str, Any]
    scores: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    config: dict[str, Any]


def run_name(name: str, seed: int | None) -> str:
    """Return the name of a run of the system `name`: NAME-SEED, or NAME for a system without random numbers."""
    return name if seed is None else f"{name}-{seed}"


def half(scores: np.ndarray) -> np.ndarray:
    """Return scores (N,) in float16, minus their median and divided by their deviation.

    Error rates do not depend on this scaling. Without it, cosines near 1 would be equal in float16.
    """
    return ((scores - np.median(scores)) / (np.std(scores) or 1.0)).astype(np.float16)


def digest(trials: Trials) -> str:
    """Return a digest of a trial list, sixteen hexadecimal digits, from its lines `1|0 enrol test` in order."""
    rows = zip(trials.target, trials.enrol, trials.test, strict=True)
    lines = "".join(f"{int(target)} {trials.names[a]} {trials.names[b]}\n" for target, a, b in rows)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def read_rows(place: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of runs.jsonl in a folder by the names of the runs, {} if there is no such file.

    Raises:
        InputError: A line is not JSON.
    """
    path = place / "runs.jsonl"
    if not path.is_file():
        return {}
    try:
        rows = [json.loads(line) for line in read_text(path, "rows of the ladder").splitlines()]
    except json.JSONDecodeError as error:
        raise InputError(f"{path} has a line that is not JSON ({error}); expected rows of the ladder") from error
    return {run_name(row["name"], row["seed"]): row for row in rows}


def read_runs(place: Path) -> list[Run]:
    """Return the results of all runs in a folder. Raises InputError for a run with another trial list."""
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
    """Return the tables of the configuration of the system `name`, {} if it is not trained here."""
    path = place / "conf" / f"{name}.toml"
    return RunConfig.of(read_toml(path)).tables() if path.is_file() else {}


def check_config(place: Path, name: str, seed: int | None, config: Mapping[str, Any]) -> None:
    """Raise InputError if other seeds of a system were trained with another configuration.

    Args:
        place: The folder of the ladder.
        name: The name of the system.
        seed: The seed of the new run.
        config: The configuration of the new run, as tables.
    """
    other_seeds = [row for row in read_rows(place).values() if row["name"] == name and row["seed"] != seed]
    if other_seeds and (existing := read_config(place, name)):
        same_settings(name, [existing, config])


def keep(
    place: Path,
    trials: Trials,
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, np.ndarray]]],
    configs: Mapping[str, Mapping[str, Any]],
) -> None:
    """Add runs to a ladder, and replace runs with the same names.

    runs.jsonl is written last, since a run with a line there must have all its other files.

    Args:
        place: The folder of the ladder.
        trials: The trial list.
        rows: The line of each run, and its scores (N,) by kind.
        configs: The configurations by the names of systems.
    """
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
        lines = read_rows(place) | {run_name(row["name"], row["seed"]): dict(row) for row, _ in rows}
        ordered = sorted(lines.values(), key=lambda row: (row["name"], row["seed"] or 0))
        write_text(place / "runs.jsonl", "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in ordered))


def differences(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of a configuration that differ from the defaults, without the seed.

    The defaults of [objective] are those of the objective that the configuration names.
    """
    tables = RunConfig.of(config).tables()
    objective = tables["objective"]["name"]
    defaults = {**RunConfig.of({}).tables(), "objective": asdict(objective_settings(objective))}
    defaults["train"]["seed"] = tables["train"]["seed"]
    if objective != DEFAULT:
        defaults["objective"]["name"] = DEFAULT
    changed = {
        table: {key: value for key, value in values.items() if value != defaults[table][key]}
        for table, values in tables.items()
    }
    return {table: values for table, values in changed.items() if values}


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return tables of numbers, strings, lists and tables as the text of a TOML file."""
    parts = (
        f"[{name}]\n" + "".join(f"{key} = {toml_value(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )
    return "\n".join(parts)


def toml_value(value: Any) -> str:
    """Return a value as TOML; its strings and numbers are written as in JSON."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {toml_value(part)}' for key, part in value.items())} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(value)


def read_list(place: Path) -> Trials:
    """Return the trial list of the ladder in a folder."""
    tensors = read_tensors(place / "trials.safetensors", "rows of the ladder beside their trial list")
    names = bytes(tensors["names"].numpy()).decode().split("\n")
    enrol, test = (tensors[side].long().numpy() for side in ("enrol", "test"))
    return Trials(tuple(names), enrol, test, tensors["target"].numpy())


def write_list(place: Path, trials: Trials) -> None:
    """Write the trial list of the ladder in a folder, unless it exists."""
    if not (place / "trials.safetensors").is_file():
        names = np.frombuffer("\n".join(trials.names).encode(), dtype=np.uint8).copy()
        enrol, test = (torch.from_numpy(side.astype(np.int32)) for side in (trials.enrol, trials.test))
        tensors = {"names": torch.from_numpy(names), "enrol": enrol, "test": test}
        write_tensors(place / "trials.safetensors", {**tensors, "target": torch.from_numpy(trials.target.copy())})


def same_list(run: str | Path, list_digest: Any, place: Path) -> None:
    """Raise InputError if a run has another trial list than the ladder in a folder.

    Args:
        run: The name of the run in messages.
        list_digest: The `digest` of the run's trial list.
        place: The folder of the ladder.
    """
    if (place / "trials.safetensors").is_file() and list_digest != (expected := digest(read_list(place))):
        raise InputError(
            f"{run} was scored on another trial list ({list_digest}); expected that of {place} ({expected})"
        )
