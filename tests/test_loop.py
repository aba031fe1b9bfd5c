"""The shared loop: averages, reading in blocks, stopping by the clock, losses that are no longer finite."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from rwae_audio.files import InputError
from rwae_audio.training.checkpoint import Position
from rwae_audio.training.loop import READ, Interrupted, TimeIsUp, train_loop


def train(
    update: Callable[[int], dict[str, torch.Tensor]],
    look: Callable[[dict[str, float]], object],
    save: Callable[[], object],
    position: Position,
    *,
    updates: int,
    evaluate_every: int,
    minutes: float | None = None,
) -> None:
    """Train a run that is made of these functions."""
    settings = SimpleNamespace(updates=updates, evaluate_every=evaluate_every)
    run = SimpleNamespace(update=update, look=look, save=save, position=position, settings=settings)
    train_loop(run, minutes=minutes)


def steps(value: Callable[[int], float] = float) -> Callable[[int], dict[str, torch.Tensor]]:
    return lambda step: {"loss": torch.tensor(value(step)), "gradient": torch.tensor(value(step))}


def test_averages_are_of_all_updates_since_the_last_look() -> None:
    seen, position = [], Position()
    train(steps(), seen.append, lambda: None, position, updates=35, evaluate_every=15)
    means = [sum(range(a, b)) / (b - a) for a, b in ((0, 15), (15, 30), (30, 35))]
    assert [values["train/loss"] for values in seen] == pytest.approx(means)
    assert position.step == 35


def test_time_that_is_up_leaves_a_checkpoint_and_the_run_goes_on() -> None:
    saved: list[int] = []
    position = Position()
    with pytest.raises(TimeIsUp, match="after update 1 of 9"):
        train(
            steps(),
            lambda values: None,
            lambda: saved.append(position.step),
            position,
            updates=9,
            evaluate_every=9,
            minutes=0.0,
        )
    assert saved == [1]
    assert position.sums == {"loss": 0.0, "gradient": 0.0, "updates": 1}
    seen: list[dict[str, float]] = []
    train(steps(), seen.append, lambda: None, position, updates=9, evaluate_every=9, minutes=5.0)
    assert [values["train/loss"] for values in seen] == [4.0]


def test_a_run_that_ends_as_its_time_is_up_has_ended() -> None:
    position = Position()
    train(steps(), lambda values: None, lambda: None, position, updates=1, evaluate_every=1, minutes=0.0)
    assert position.step == 1


@pytest.mark.parametrize("bad", [0, 3, READ, 2 * READ - 1])
def test_the_update_that_is_not_finite_is_named_before_anything_is_written(bad: int) -> None:
    looks: list[object] = []

    def value(step: int) -> float:
        return math.nan if step == bad else 1.0

    with pytest.raises(InputError, match=rf"no longer finite at update {bad};"):
        train(steps(value), looks.append, lambda: None, Position(), updates=2 * READ, evaluate_every=2 * READ)
    assert not looks


def test_sums_do_not_depend_on_where_a_run_was_stopped() -> None:
    def value(step: int) -> float:
        return 0.1 * (step % 7) + 1e-6 * step

    whole, parts = [], []
    train(steps(value), whole.append, lambda: None, Position(), updates=40, evaluate_every=40)
    position = Position()
    for _ in range(40):
        try:
            train(steps(value), parts.append, lambda: None, position, updates=40, evaluate_every=40, minutes=0.0)
        except TimeIsUp:
            continue
    assert parts == whole


@pytest.mark.parametrize("evaluate_every", [2, 4])
def test_ctrl_c_during_a_look_stops_after_it(evaluate_every: int) -> None:
    """Also during the last one, where no update follows."""
    position = Position()

    def look(values: dict[str, float]) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=f"after update {evaluate_every} of 4"):
        train(steps(), look, lambda: None, position, updates=4, evaluate_every=evaluate_every)
    assert position.step == evaluate_every
