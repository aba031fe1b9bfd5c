"""Checkpoints: one safetensors file with all that a run needs to continue, to the same bits as without interruption."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rwae_audio.files import InputError, open_tensors, read_header, read_tensors, write_tensors

EXPECTED = "the checkpoint of a run"
LENGTH = ("train", "updates")  # the only setting in which a resumed run may differ from its checkpoint


class Configuration(Protocol):
    """The settings of a run."""

    @classmethod
    def of(cls, tables: dict[str, Any]) -> Configuration:
        """Return the configuration of plain tables."""

    def tables(self) -> dict[str, Any]:
        """Return plain tables for JSON, from which `of` makes the same configuration."""


@dataclass
class Position:
    """The position of a run in its training, which a checkpoint holds beside the weights.

    Attributes:
        step: Number of updates that have been made.
        best_score: Best score on the development speakers so far; higher is better.
        best_step: The update with that score.
        seconds: Time that the updates have taken.
        sums: Sum of each logged scalar since the last evaluation, and the number of updates in it.
    """

    step: int = 0
    best_score: float = -1e9
    best_step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunState:
    """The parts of a run that a checkpoint holds.

    Attributes:
        model: The model.
        optimizer: The optimizer of the model, or None to leave it out.
        objective: The objective with its critics and their optimizers, or None to leave it out.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer | None = None
    objective: torch.nn.Module | None = None

    def modules(self) -> dict[str, torch.nn.Module]:
        """Return the modules by their prefixes in the checkpoint."""
        return {"model": self.model, **({} if self.objective is None else {"objective": self.objective})}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers by their prefixes in the checkpoint."""
        optimizers = {"optimizer": self.optimizer} if self.optimizer is not None else {}
        for name, module in self.objective.named_modules() if self.objective is not None else ():
            optimizer = getattr(module, "optimizer", None)
            if isinstance(optimizer, torch.optim.Optimizer):
                optimizers[f"optimizer-{name.replace('.', '-')}"] = optimizer
        return optimizers


def save_checkpoint(path: Path, config: Configuration, state: RunState, position: Position) -> None:
    """Write a checkpoint, whole or not at all. Its header holds the configuration and the position as JSON.

    Generators are not saved: each is made from (seed, purpose, step).
    """
    tensors: dict[str, Tensor] = {}
    for prefix, module in state.modules().items():
        tensors |= {f"{prefix}.{name}": value.contiguous() for name, value in module.state_dict().items()}
    for prefix, optimizer in state.optimizers().items():
        for index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                copy = torch.as_tensor(value).clone(memory_format=torch.contiguous_format)
                tensors[f"{prefix}.{index}.{key}"] = copy
    header = {"position": json.dumps(asdict(position)), "config": json.dumps(config.tables())}
    write_tensors(path, tensors, header)


def _header(path: Path) -> dict[str, str]:
    """Return the header of a checkpoint. Raises InputError unless the file is a whole checkpoint."""
    open_tensors(path, EXPECTED)  # raises InputError for a missing or damaged file
    header = read_header(path)
    if not {"config", "position"} <= set(header):
        raise InputError(f"{path} has no position in its header; expected {EXPECTED}")
    return header


def read_position(path: Path) -> Position:
    """Return the position in a checkpoint. Raises InputError unless the file is a whole checkpoint."""
    return Position(**json.loads(_header(path)["position"]))


def load_checkpoint(path: Path, config: Configuration, state: RunState) -> Position:
    """Load a checkpoint into the modules and optimizers of a run.

    Args:
        path: The checkpoint.
        config: The configuration of the run. Its number of updates may differ from that of the checkpoint.
        state: The parts of the run to load.

    Returns:
        The position in the checkpoint.

    Raises:
        InputError: The file is not a whole checkpoint, or it belongs to another configuration or to other corpora.
    """
    header = _header(path)
    saved = type(config).of(json.loads(header["config"])).tables()  # settings newer than the file get their defaults
    wanted = config.tables()
    for table in wanted:
        for key, value in wanted[table].items():
            if (old := saved[table].get(key)) != value and (table, key) != LENGTH:
                raise InputError(
                    f"{path} was trained with [{table}] {key} = {old}, this run has {value}; expected the same"
                )
    tensors = read_tensors(path, EXPECTED)

    def part(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}

    for prefix, module in state.modules().items():
        for name, value in module.state_dict().items():
            # shapes differ for parameters of single utterances, as in FHVAE
            if (old_shape := tensors[f"{prefix}.{name}"].shape) != value.shape:
                raise InputError(
                    f"{path}: {prefix}.{name} has shape {tuple(old_shape)}, in this run {tuple(value.shape)}; "
                    "expected a checkpoint of the same corpora"
                )
        module.load_state_dict(part(prefix))
    for prefix, optimizer in state.optimizers().items():
        values: dict[int, dict[str, Tensor]] = {}
        for name, value in part(prefix).items():
            index, key = name.split(".")
            values.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": values})
    return Position(**json.loads(header["position"]))
