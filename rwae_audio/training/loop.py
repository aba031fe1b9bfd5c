"""The loop that every training here shares: updates, looks at the development set, checkpoints, and ways to stop.

Whoever trains brings three functions: one update, one look, one checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from rwae_audio.distributed import average_numbers, barrier, rank
from rwae_audio.files import InputError, write_text
from rwae_audio.training.checkpoint import Position

READ = 10  # updates after which the losses are read: until then nothing waits for the device


class Interrupted(Exception):  # noqa: N818 (no error: what was asked for)
    """The run was asked to stop; its checkpoint is written."""


class TimeIsUp(Interrupted):
    """The run has used the minutes that it was given; its checkpoint is written."""


class Length(Protocol):
    """The settings of a run that the loop reads: how many updates, and how many between two looks."""

    @property
    def updates(self) -> int: ...
    @property
    def evaluate_every(self) -> int: ...


class Run(Protocol):
    """A run that the loop trains.

    Attributes:
        settings: How long the run is.
        position: Where the run stands; the loop keeps it up to date.
    """

    @property
    def settings(self) -> Length: ...
    @property
    def position(self) -> Position: ...

    def update(self, step: int) -> Mapping[str, Tensor]:
        """Make the update of a step, counted from 0. Return scalars to log, among them `loss` and `gradient`."""

    def look(self, averages: dict[str, float]) -> None:
        """Take the averages of these scalars since the last look. The first process alone calls it."""

    def save(self) -> None:
        """Write the checkpoint that the run goes on with. The first process alone calls it."""


def train_loop(run: Run, *, minutes: float | None = None, progress: bool = False) -> None:
    """Make the updates of a run that are left, with a look every `evaluate_every` of them and after the last one.

    Args:
        minutes: The time from now after which the run stops, whole updates later.

    Raises:
        Interrupted: On Ctrl-C or SIGTERM, once the checkpoint is written.
        TimeIsUp: When the minutes are over, once the checkpoint is written.
        InputError: When the loss is no longer finite.
    """
    position, updates, evaluate_every = run.position, run.settings.updates, run.settings.evaluate_every
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    quiet = None if progress and rank() == 0 else True
    bar = tqdm(total=updates, initial=position.step, unit="update", disable=quiet)
    readings = Readings(position)
    with interruptible() as stopped, contextlib.closing(bar):
        while position.step < updates:
            readings.add(run.update(position.step))
            position.step += 1
            bar.update()
            epoch = position.step % evaluate_every == 0 or position.step == updates
            if epoch or position.step % READ == 0:
                bar.set_postfix(loss=f"{readings.read()['loss']:.0f}", refresh=False)
            if epoch:
                if rank() == 0:
                    run.look(averages(position))
                position.sums = {}
                barrier()
                readings.begin()
            asked, late = readings.agreed(stopped(), time.monotonic() >= deadline)  # also during the look
            if asked or (late and position.step < updates):
                readings.read()
                if rank() == 0:
                    run.save()
                barrier()
                raise (Interrupted if asked else TimeIsUp)(f"stopped after update {position.step} of {updates}")


class Readings:
    """The scalars of the latest updates, left on their device until they are read.

    Attributes:
        position: Gets their sums and the seconds that the updates took.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        self.scalars: list[Mapping[str, Tensor]] = []
        self.device = torch.device("cpu")
        self.begin()

    def begin(self) -> None:
        """Start the clock."""
        self.began = time.monotonic()

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Keep the scalars of one update."""
        self.scalars.append({name: torch.as_tensor(value).detach() for name, value in scalars.items()})
        self.device = self.scalars[-1]["loss"].device

    def agreed(self, asked: bool, late: bool) -> tuple[bool, bool]:
        """Return whether any of the processes was asked to stop, and whether any has run out of time."""
        answers = average_numbers({"asked": asked, "late": late}, self.device)
        return answers["asked"] > 0, answers["late"] > 0

    def read(self) -> dict[str, float]:
        """Add the scalars that are left to the position's sums, in their order, and return those of the last update.

        Raises InputError when the norm of a gradient is not finite.
        """
        if not self.scalars:
            return {}
        names, device = list(self.scalars[0]), self.device
        table = torch.stack([torch.stack([row[name].to(device).float() for name in names]) for row in self.scalars])
        rows = [average_numbers(dict(zip(names, row, strict=True)), device) for row in table.tolist()]
        first, self.scalars = self.position.step - len(rows), []
        for i, row in enumerate(rows):
            if not math.isfinite(row["gradient"]):
                raise InputError(
                    f"the loss is no longer finite at update {first + i}; expected a lower [train] learning_rate"
                )
            for name, value in {**row, "updates": 1}.items():
                self.position.sums[name] = self.position.sums.get(name, 0.0) + value
        self.position.seconds += time.monotonic() - self.began
        self.begin()
        return rows[-1]


def averages(position: Position) -> dict[str, float]:
    """Return the mean of each scalar since the last look, named `train/…`."""
    count = position.sums["updates"]
    return {f"train/{name}": total / count for name, total in position.sums.items() if name != "updates"}


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Remember Ctrl-C and SIGTERM instead of raising: an update is made or not made, never half."""
    seen: list[int] = []
    try:
        old = {number: signal.signal(number, lambda n, _: seen.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs us there stops us there
        old = {}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class MetricsLog:
    """A file of JSON lines. When a run goes on, lines after its checkpoint are dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def drop_after(self, step: int) -> None:
        """Keep the lines up to update `step`: none of them at 0."""
        text = self.path.read_text(encoding="utf-8") if step and self.path.exists() else ""
        lines = text.split("\n")[:-1]  # the last one is empty, or cut short by a kill or a full disk
        write_text(self.path, "".join(line + "\n" for line in lines if json.loads(line)["step"] <= step))

    def write(self, values: Mapping[str, float]) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def clip_gradients(learned: Iterable[torch.nn.Parameter], most: float) -> Tensor:
    """Bring the norm of all gradients down to `most`, and return what it was before."""
    return torch.nn.utils.clip_grad_norm_(learned, most)
