"""The training loop: updates, evaluations, checkpoints, and stops on Ctrl-C or after a number of minutes.

Models, vocoders and baselines share it. Each of them provides a `Run` with three methods: one update, one evaluation
(`look`), one checkpoint (`save`).
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

READ = 10  # updates between two readings of the losses, for each of which the CPU waits for the device


class Interrupted(Exception):  # noqa: N818 (a requested stop, no error)
    """The stop of a run that the user requested. The checkpoint has been written."""


class TimeIsUp(Interrupted):
    """The stop of a run after its number of minutes. The checkpoint has been written."""


class Length(Protocol):
    """The settings of a run that the loop reads.

    Attributes:
        updates: Number of updates in all.
        evaluate_every: Number of updates between two evaluations.
    """

    @property
    def updates(self) -> int: ...
    @property
    def evaluate_every(self) -> int: ...


class Run(Protocol):
    """A run that the loop trains.

    Attributes:
        settings: The length of the run.
        position: The position of the run, which the loop updates.
    """

    @property
    def settings(self) -> Length: ...
    @property
    def position(self) -> Position: ...

    def update(self, step: int) -> Mapping[str, Tensor]:
        """Make one update and return scalars to log, among them `loss` and `gradient`, the norm of the gradient.

        Args:
            step: The number of the update, from 0.
        """

    def look(self, averages: dict[str, float]) -> None:
        """Evaluate the model and log the result. Only the first process calls it.

        Args:
            averages: The mean of each scalar since the last evaluation, by name.
        """

    def save(self) -> None:
        """Write the checkpoint from which the run can continue. Only the first process calls it."""


def train_loop(run: Run, *, minutes: float | None = None, progress: bool = False) -> None:
    """Make the remaining updates of a run, with an evaluation every `evaluate_every` updates and after the last one.

    Args:
        run: The run.
        minutes: The time after which the run stops, at the end of an update, or None.
        progress: Whether a progress bar is shown.

    Raises:
        Interrupted: The user pressed Ctrl-C or the process got SIGTERM. The checkpoint has been written.
        TimeIsUp: The minutes are over. The checkpoint has been written.
        InputError: The loss is not finite.
    """
    position, updates, evaluate_every = run.position, run.settings.updates, run.settings.evaluate_every
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    hide_bar = None if progress and rank() == 0 else True  # None: hidden unless stderr is a terminal
    bar = tqdm(total=updates, initial=position.step, unit="update", disable=hide_bar)
    readings = Readings(position)
    with interruptible() as interrupted, contextlib.closing(bar):
        while position.step < updates:
            readings.add(run.update(position.step))
            position.step += 1
            bar.update()
            evaluate = position.step % evaluate_every == 0 or position.step == updates
            if evaluate or position.step % READ == 0:
                bar.set_postfix(loss=f"{readings.read()['loss']:.0f}", refresh=False)
            if evaluate:
                if rank() == 0:
                    run.look(averages(position))
                position.sums = {}
                barrier()
                readings.begin()
            stop, late = readings.agreed(interrupted(), time.monotonic() >= deadline)  # also after an evaluation
            if stop or (late and position.step < updates):
                readings.read()
                if rank() == 0:
                    run.save()
                barrier()
                raise (Interrupted if stop else TimeIsUp)(f"stopped after update {position.step} of {updates}")


class Readings:
    """The scalars of the latest updates, which stay on their device until they are read.

    Args:
        position: The position of the run, which gets their sums and the seconds that the updates took.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        self.scalars: list[Mapping[str, Tensor]] = []
        self.device = torch.device("cpu")
        self.begin()

    def begin(self) -> None:
        """Start to measure the time of the next updates."""
        self.began = time.monotonic()

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Store the scalars of one update."""
        self.scalars.append({name: torch.as_tensor(value).detach() for name, value in scalars.items()})
        self.device = self.scalars[-1]["loss"].device

    def agreed(self, interrupted: bool, late: bool) -> tuple[bool, bool]:
        """Return whether any process was interrupted, and whether any process is past its deadline.

        Args:
            interrupted: Whether this process was interrupted.
            late: Whether this process is past its deadline.
        """
        shares = average_numbers({"interrupted": interrupted, "late": late}, self.device)
        return shares["interrupted"] > 0, shares["late"] > 0

    def read(self) -> dict[str, float]:
        """Add the stored scalars to the sums of the position, and return those of the last update.

        Raises:
            InputError: The norm of a gradient is not finite.
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
    """Return the mean of each scalar since the last evaluation, by the name `train/<scalar>`."""
    count = position.sums["updates"]
    return {f"train/{name}": total / count for name, total in position.sums.items() if name != "updates"}


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Record Ctrl-C and SIGTERM inside the block instead of raising, so that no update is interrupted.

    Yields:
        A function that returns whether a signal has arrived.
    """
    signals: list[int] = []
    handled = (signal.SIGINT, signal.SIGTERM)
    try:
        old_handlers = {number: signal.signal(number, lambda n, _: signals.append(n)) for number in handled}
    except ValueError:  # only the main thread can handle signals
        old_handlers = {}
    try:
        yield lambda: bool(signals)
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)


class MetricsLog:
    """A file of metrics with one JSON object a line.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def drop_after(self, step: int) -> None:
        """Drop the lines after update `step`, as a run that continues from a checkpoint must; all lines if `step` is 0."""
        text = self.path.read_text(encoding="utf-8") if step and self.path.exists() else ""
        lines = text.split("\n")[:-1]  # the last one is empty, or cut short by a kill or a full disk
        write_text(self.path, "".join(line + "\n" for line in lines if json.loads(line)["step"] <= step))

    def write(self, values: Mapping[str, float]) -> None:
        """Append a line with these values, among which `step` is the number of the update."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def clip_gradients(parameters: Iterable[torch.nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients down so that their joint norm is at most `limit`, and return the norm before."""
    return torch.nn.utils.clip_grad_norm_(parameters, limit)
