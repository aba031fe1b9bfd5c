"""What every training loop here needs: to be stopped between two updates, a log that can be gone on with, gradients that
are finite."""

from __future__ import annotations

import contextlib
import json
import math
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch

from rwae_audio.files import InputError, write_text


class Interrupted(Exception):  # noqa: N818 (no error: what was asked for)
    """The run was asked to stop; its checkpoint is written."""


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C (and SIGTERM) are remembered, not raised: an update is done or not done, never half."""
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
    """JSON lines; when a run goes on, lines after its checkpoint are dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def drop_after(self, step: int) -> None:
        """Keep the lines up to update `step`: none of them at 0."""
        text = self.path.read_text(encoding="utf-8") if step and self.path.exists() else ""
        lines = text.split("\n")[:-1]  # the last one is empty, or cut short by a kill or a full disk
        write_text(self.path, "".join(line + "\n" for line in lines if json.loads(line)["step"] <= step))

    def write(self, values: Mapping[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def clip_gradients(learned: Iterable[torch.nn.Parameter], most: float, step: int) -> float:
    """Their norm, before it is brought down to `most`. Raises InputError when it is not finite at this update."""
    norm = float(torch.nn.utils.clip_grad_norm_(learned, most))
    if not math.isfinite(norm):
        raise InputError(f"the loss is no longer finite at update {step}; expected a lower [train] learning_rate")
    return norm
