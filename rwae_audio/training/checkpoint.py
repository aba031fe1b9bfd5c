"""Checkpoints: all that a run needs to go on with the bits it would have had, in one file, whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rwae_audio.files import InputError, write_tensors

LENGTH = ("train", "updates")  # the setting in which a checkpoint may differ from the run that goes on with it


class Configuration(Protocol):
    """The settings of a run."""

    @classmethod
    def of(cls, tables: dict[str, Any]) -> Configuration:
        """Return the configuration of plain tables."""

    def tables(self) -> dict[str, Any]:
        """Return plain tables for JSON, from which `of` makes the same configuration."""


@dataclass
class Position:
    """The position of a run, which goes into the checkpoint beside the weights."""

    step: int = 0
    best_score: float = -1e9
    best_step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunState:
    """The parts of a run that a checkpoint holds: the model, the objective with its critics, and their optimizers."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer | None = None
    objective: torch.nn.Module | None = None

    def modules(self) -> dict[str, torch.nn.Module]:
        """Return the modules by their prefixes in the checkpoint."""
        return {"model": self.model, **({} if self.objective is None else {"objective": self.objective})}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers by their prefixes in the checkpoint."""
        found = {"optimizer": self.optimizer} if self.optimizer is not None else {}
        for name, module in self.objective.named_modules() if self.objective is not None else ():
            own = getattr(module, "optimizer", None)
            if isinstance(own, torch.optim.Optimizer):
                found[f"optimizer-{name.replace('.', '-')}"] = own
        return found


def save_checkpoint(path: Path, config: Configuration, state: RunState, position: Position) -> None:
    """Weights, optimizers and position in one safetensors file (the JSON in its header), whole or not at all.

    All randomness is drawn from (seed, purpose, step), so the seed and the step are the generators' whole state.
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


def _read(path: Path, with_tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header and the tensors of a checkpoint."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a checkpoint to go on from")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = file.keys() if with_tensors else ()
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole checkpoint ({error})") from error
    except OSError as error:  # which says "not found" of what may not be read
        raise InputError(f"{path} cannot be read; expected a checkpoint, readable by you") from error
    if not {"config", "position"} <= set(header):
        raise InputError(f"{path} has no position in its header; expected a run's checkpoint")
    return header, tensors


def read_position(path: Path) -> Position:
    """The position alone. Raises InputError when there is no checkpoint."""
    return Position(**json.loads(_read(path, with_tensors=False)[0]["position"]))


def load_checkpoint(path: Path, config: Configuration, state: RunState) -> Position:
    """Load what save_checkpoint has written into `state`.

    Raises InputError when there is no checkpoint, or when it belongs to another configuration. The number of updates may
    differ: a run can be made longer.
    """
    header, tensors = _read(path)
    saved = type(config).of(json.loads(header["config"])).tables()  # a setting that is newer than the file: its default
    wanted = config.tables()
    for table in wanted:
        for key, value in wanted[table].items():
            if (was := saved[table].get(key)) != value and (table, key) != LENGTH:
                raise InputError(
                    f"{path} was trained with [{table}] {key} = {was}, this run has {value}; expected the same"
                )

    def part(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}

    for prefix, module in state.modules().items():
        for name, value in module.state_dict().items():
            if (found := tensors[f"{prefix}.{name}"].shape) != value.shape:  # a table with a row an utterance
                raise InputError(
                    f"{path}: {prefix}.{name} has shape {tuple(found)}, this run's {tuple(value.shape)}; "
                    "expected the corpora of the run that it goes on with"
                )
        module.load_state_dict(part(prefix))
    for prefix, optimizer in state.optimizers().items():
        values: dict[int, dict[str, Tensor]] = {}
        for name, value in part(prefix).items():
            index, key = name.split(".")
            values.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": values})
    return Position(**json.loads(header["position"]))
