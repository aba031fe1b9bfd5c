"""Resume = uninterrupted, checkpoints are whole, collapse is said in words."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import SWITCHES
from made_up_training import CONFIG, MODEL, metrics, run, store
from safetensors import safe_open
from safetensors.torch import save_file

from rwae_audio.data.features import Normaliser
from rwae_audio.data.perturb import CHANNELS
from rwae_audio.data.store import Batch, Sampler
from rwae_audio.files import InputError
from rwae_audio.model import RWAE, Output
from rwae_audio.objectives import OBJECTIVES, ObjectiveSettings, objective_settings
from rwae_audio.randomness import generator
from rwae_audio.training import trainer
from rwae_audio.training.checkpoint import RunState, load_checkpoint
from rwae_audio.training.health import code_state, collapse_warning
from rwae_audio.training.loop import Interrupted, interruptible
from rwae_audio.training.perturbations import PERTURBATIONS, Channel, Colour, Mel, Perturbation, Tract, perturbed_views
from rwae_audio.training.trainer import (
    RunConfig,
    TrainConfig,
    learning_rate,
    new_model,
    new_objective,
    train,
)
from rwae_audio.training.views import Views

CHOSEN = {name: objective_settings(name) for name in sorted(OBJECTIVES)}
CHOSEN["rwae-plus, swaps"] = objective_settings("rwae-plus", swap_weight=1.0, critic_weight=1.0)


@pytest.mark.parametrize("objective", CHOSEN.values(), ids=CHOSEN)
@pytest.mark.parametrize("stop_at", [0, 1, 4, 5])  # inside an epoch and at its end
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path, objective: ObjectiveSettings, stop_at: int
) -> None:
    model = replace(MODEL, **{"dynamic_offset_variance": 4.0, **SWITCHES[objective.name]})
    perturb = (*CONFIG.train.perturb, Channel(kinds=("equaliser",)), Colour(deviation=0.2))
    train = replace(CONFIG.train, perturb=perturb)
    config = replace(CONFIG, model=model, objective=objective, train=train)
    whole = run(tmp_path / "whole", config)
    with pytest.raises(Interrupted, match=f"update {stop_at + 1} of 8"):
        run(tmp_path / "parts", config, stop_at=stop_at)
    resumed = run(tmp_path / "parts", config, resume=True)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    latest = [(tmp_path / part / "checkpoints/latest.safetensors").read_bytes() for part in ("whole", "parts")]
    tensors = [blob[8 + int.from_bytes(blob[:8], "little") :] for blob in latest]
    assert tensors[0] == tensors[1]


def test_the_best_checkpoint_is_returned(tmp_path: Path) -> None:
    model = run(tmp_path, scores=[1.0, 3.0, 2.0])
    found = {}
    for name in ("best", "latest"):
        kept = new_model(CONFIG)
        position = load_checkpoint(tmp_path / f"checkpoints/{name}.safetensors", CONFIG, RunState(kept))
        found[name] = position.step, list(kept.state_dict().values())
    assert (found["best"][0], found["latest"][0]) == (6, 8)
    assert all(map(torch.equal, model.state_dict().values(), found["best"][1]))
    assert not all(map(torch.equal, model.state_dict().values(), found["latest"][1]))


def test_the_best_checkpoint_can_be_that_of_the_least_error(tmp_path: Path) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, choose="error", updates=12, evaluate_every=2))
    run(tmp_path, config)
    lines = metrics(tmp_path)
    collapsed = [-line["dev/score"] - line["dev/error"] for line in lines]  # codes that a new model does not use yet
    assert collapsed == pytest.approx([round(count) for count in collapsed], abs=1e-9)
    assert max(collapsed) <= 2.1
    state = RunState(new_model(config))
    position = load_checkpoint(tmp_path / "checkpoints/best.safetensors", config, state)
    assert position.step == max(lines, key=lambda line: line["dev/score"])["step"]


def test_the_dynamic_encoder_alone_hears_another_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A curve of its own on each sequence, the same in all frames of it, and in none of the others' inputs."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    forward = RWAE.forward

    def watched(model: RWAE, frames: torch.Tensor, *args: Any, **more: Any) -> Output:
        if model.training:
            seen.append((frames, more["dynamic_frames"]))
        return forward(model, frames, *args, **more)

    monkeypatch.setattr(RWAE, "forward", watched)
    run(tmp_path, replace(CONFIG, train=replace(CONFIG.train, updates=2, perturb=(Colour(deviation=0.5),))))
    for frames, dynamic_frames in seen:
        curves = dynamic_frames - frames
        torch.testing.assert_close(curves, curves[:, :1].expand_as(curves), atol=1e-4, rtol=0)
        assert curves[:, 0].std(0).min() > 0.01
    assert not torch.allclose(seen[0][1] - seen[0][0], seen[1][1] - seen[1][0])


def test_one_window_of_the_static_encoder_goes_through_a_channel() -> None:
    channel = Channel(kinds=("equaliser",))
    window = torch.randn(64, 5, 8, generator=generator(0, "frames"))
    pairs, alone, neither = Views(window, window, window), Views(window, window), Views(window)

    def through(views: Views, step: int) -> Views:
        return channel.apply(views, generator(0, "channel", step), CONFIG.mel)

    first, again, later = (through(pairs, step) for step in (3, 3, 4))
    assert first.frames is window
    assert first.static_frames is window
    assert first.second_frames is not None
    assert 0.2 < (first.second_frames != window).any(2).any(1).float().mean() < 0.8
    assert torch.equal(first.second_frames, again.second_frames)
    assert not torch.equal(first.second_frames, later.second_frames)
    assert torch.equal(through(alone, 3).static_frames, first.second_frames)
    assert through(neither, 3) is neither


def test_every_channel_has_a_name_in_the_settings() -> None:
    assert Channel().kinds == tuple(CHANNELS)


def test_perturbations_follow_the_order_of_the_list_and_normalised_frames_come_last() -> None:
    window = torch.randn(6, 5, 8, generator=generator(0, "frames"))
    batch, normaliser = Batch(window, window, None, torch.arange(6)), Normaliser(torch.ones(8), 2 * torch.ones(8))

    def views(*perturb: Perturbation, step: int = 1) -> Views:
        return perturbed_views(batch, perturb, normaliser, CONFIG.mel, 0, step)

    tract, colour, mel = Tract(factor=0.3), Colour(), Mel()
    plain = views()
    assert torch.equal(plain.frames, normaliser(window))
    assert plain.dynamic_frames is None
    whole = views(tract, colour, mel)
    assert torch.equal(whole.frames, views(tract).frames)  # each has random numbers of its own
    assert torch.equal(whole.dynamic_input, views(tract, mel, colour).dynamic_input)  # normalised frames come last
    assert not torch.allclose(whole.dynamic_input, views(colour, tract, mel).dynamic_input)
    assert not torch.equal(whole.dynamic_input, views(tract, colour, mel, step=2).dynamic_input)


@pytest.mark.parametrize(
    ("perturb", "says"),
    [
        (["tract"], r"\[train\] perturb has 'tract'; expected a table"),
        ([{"factor": 0.1}], r"\[train\] perturb has the name None; expected one of channel, colour, mel, tract"),
        ([{"name": ["tract"]}], r"\[train\] perturb has the name \['tract'\]; did you mean 'tract'\?"),
        ([{"name": "trakt"}], r"\[train\] perturb has the name 'trakt'; did you mean 'tract'\?"),
        ([{"name": "tract", "factr": 0.1}], r"\[train\.perturb\.tract\] has no setting 'factr'; did you mean 'factor'"),
        ([{"name": "mel", "factor": 0}], r"\[train\.perturb\.mel\] factor is 0\.0; expected more than 0 and less than"),
        ([{"name": "colour", "deviation": "x"}], r"\[train\.perturb\.colour\] deviation is 'x'; expected float"),
        ([{"name": "channel", "kinds": ["fog"]}], r"\[train\.perturb\.channel\] kinds is 'fog'; expected one of"),
        ([{"name": "mel"}, {"name": "mel"}], r"\[train\] perturb has 'mel' twice; expected each name once"),
        ({"name": "mel"}, r"\[train\] perturb is \{'name': 'mel'\}; expected a list"),
    ],
)
def test_a_perturbation_that_does_not_fit_is_one_line(perturb: Any, says: str) -> None:
    with pytest.raises(InputError, match=f"^{says}") as error:
        RunConfig.of({"train": {"perturb": perturb}})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_perturbation_is_read_as_it_is_written(name: str) -> None:
    config = RunConfig.of({"train": {"perturb": [{"name": name}]}})
    assert config.train.perturb == (PERTURBATIONS[name](),)
    assert RunConfig.of(json.loads(json.dumps(config.tables()))) == config


def test_training_moves_the_loss_down(tmp_path: Path) -> None:
    run(tmp_path, replace(CONFIG, train=TrainConfig(updates=60, batch=16, evaluate_every=20, learning_rate=1e-2)))
    lines = metrics(tmp_path)
    assert lines[-1]["train/loss"] < 0.95 * lines[0]["train/loss"]


def test_batches_depend_on_seed_and_step_alone() -> None:
    sampler = Sampler(store(), np.arange(12), 6, MODEL)
    first, again, other = (sampler.draw(5, generator(1, "batch", step)) for step in (3, 3, 4))
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.static_frames, again.static_frames)
    assert not torch.equal(first.frames, other.frames)


def test_new_weights_depend_on_the_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (new_model(replace(CONFIG, train=TrainConfig(seed=seed))) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    weights = [model.decoder.frame.weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_resume_refuses_another_configuration_and_what_is_not_whole(tmp_path: Path) -> None:
    run(tmp_path)
    latest = tmp_path / "checkpoints/latest.safetensors"
    changed = replace(CONFIG, model=replace(MODEL, feedback=True))
    with pytest.raises(InputError, match=r"\[model\] feedback = False, this run has True"):
        load_checkpoint(latest, changed, RunState(new_model(changed)))
    latest.write_bytes(latest.read_bytes()[:-10])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_checkpoint(latest, CONFIG, RunState(new_model(CONFIG)))
    with pytest.raises(InputError, match="does not exist"):
        load_checkpoint(tmp_path / "none.safetensors", CONFIG, RunState(new_model(CONFIG)))


def test_a_checkpoint_that_lacks_a_newer_setting_goes_on(tmp_path: Path) -> None:
    run(tmp_path)
    latest = tmp_path / "checkpoints/latest.safetensors"
    with safe_open(latest, framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tables = json.loads(header["config"])
    assert tables["model"].pop("dynamic_sees_static") is False
    save_file(tensors, latest, {**header, "config": json.dumps(tables)})
    assert load_checkpoint(latest, CONFIG, RunState(new_model(CONFIG))).step == 8
    changed = replace(CONFIG, model=replace(MODEL, dynamic_sees_static=True))
    with pytest.raises(InputError, match="dynamic_sees_static = False, this run has True"):
        load_checkpoint(latest, changed, RunState(new_model(changed)))


def test_a_table_of_other_utterances_is_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, model=replace(MODEL, **SWITCHES["fhvae"]), objective=objective_settings("fhvae"))
    run(tmp_path, config)
    latest = tmp_path / "checkpoints/latest.safetensors"
    fewer = Sampler(store(), np.arange(11), config.mel.segment, config.model)
    state = RunState(
        new_model(config), objective=new_objective(config, (fewer, Normaliser(torch.zeros(8), torch.ones(8))))
    )
    with pytest.raises(InputError, match=r"objective.means has shape \(12, 4\), in this run \(11, 4\)"):
        load_checkpoint(latest, config, state)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no longer finite"):
        run(tmp_path, replace(CONFIG, objective=objective_settings(static_weight=1e38)))


def test_a_code_that_the_decoder_ignores_is_collapsed() -> None:
    model = new_model(CONFIG)
    batch = Sampler(store(), np.arange(12), 6, MODEL).draw(32, generator(0, "batch"))
    with torch.no_grad():
        model.decoder.lstm.weight_ih_l0[:, :4] = 0  # the static code's columns
        model.dynamic_encoder.head.mean.weight *= 50
        model.decoder.lstm.weight_ih_l0[:, 4:] *= 20
        model.decoder.frame.weight *= 50
    state = code_state(model, batch.frames, batch.static_frames)
    assert abs(state["static_effect"]) < 1e-6
    assert abs(state["dynamic_effect"]) > 1e-3
    assert "static code has collapsed" in collapse_warning("static", state, "fixed")
    assert "posterior noisy, mean variance 0.5" in collapse_warning("static", state, "fixed")
    assert "deterministic" in collapse_warning("static", {**state, "static_variance": 0.01}, "fixed")
    assert ['"fixed"' in collapse_warning("static", state, kind) for kind in ("learned", "fixed")] == [True, False]


def test_a_small_posterior_variance_is_called_deterministic_and_no_collapse(tmp_path: Path) -> None:
    lines: list[str] = []
    config = replace(CONFIG, model=replace(MODEL, dynamic_variance=0.01, dynamic_offset_variance=0.0))
    run(tmp_path, config, say=lines.append)
    told = [line for line in lines if line.startswith("update")]
    assert all("dynamic posterior deterministic" in line and "static posterior" not in line for line in told)


def test_signals_are_remembered_and_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
    assert signal.getsignal(signal.SIGINT) is before


def test_another_voice_is_one_in_all_windows_of_an_utterance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segment, static window and second window of an utterance are stretched by one factor, drawn anew."""
    seen: list[list[torch.Tensor]] = []
    forward = RWAE.forward

    def watched(model: RWAE, frames: torch.Tensor, static_frames: torch.Tensor, *args: Any, **more: Any) -> Output:
        if model.training:
            seen.append([frames, static_frames, more["second_frames"]])
        return forward(model, frames, static_frames, *args, **more)

    def ramp(self: Sampler, size: int, noise: torch.Generator, part: slice) -> Batch:
        return Batch(*(torch.arange(8.0).expand(size, length, 8) for length in (6, 10, 10)), torch.arange(size))

    monkeypatch.setattr(RWAE, "forward", watched)
    config = replace(
        CONFIG,
        objective=objective_settings("rwae-plus"),
        train=replace(CONFIG.train, updates=2, perturb=(Tract(factor=0.3),)),
    )
    monkeypatch.setattr(Sampler, "draw", ramp)
    monkeypatch.setattr(f"{train.__module__}.normalised", lambda batch, *_: (batch.frames, batch.static_frames))
    data = store()
    sampler = Sampler(data, np.arange(12), config.mel.segment, config.model, pairs=True)
    held_out = Batch(torch.randn(4, 6, 8), torch.randn(4, 10, 8), None, torch.arange(4))
    identity = Normaliser(torch.zeros(8), torch.ones(8))
    train(config, sampler, identity, held_out, lambda model: {"score": 0.0}, tmp_path)
    # bin 1 shows what its frequency times the factor is in bins
    factors = [[part[:, 0, 1] for part in parts] for parts in seen]
    for frames, static_frames, second_frames in factors:
        torch.testing.assert_close(frames, static_frames)
        torch.testing.assert_close(frames, second_frames)
        assert 0.05 < (frames - 1).abs().max() <= 1.0
    assert len(factors) == 2
    assert not torch.equal(factors[0][0], factors[1][0])


def test_learning_rate_warms_up_and_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainConfig(updates=100, learning_rate=1e-2)
    assert learning_rate(settings, 0) == pytest.approx(1e-2 / 50)
    monkeypatch.setattr(trainer, "WARMUP", 10)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(1e-2, rel=0.05)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-5
    cosine = [1e-2 * (1 + math.cos(math.pi * step / 100)) / 2 for step in range(100)]
    assert rates[10:] == pytest.approx(cosine[10:])


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"train": {"updatez": 3}}, r"\[train\] has no setting 'updatez'; did you mean 'updates'"),
        ({"train": {"updates": "many"}}, "expected int"),
        ({"train": {"updates": 0}}, "expected 1 or more"),
        ({"model": {"decoder": "recurent"}}, "did you mean 'recurrent'"),
        ({"models": {}}, r"table \[models\]"),
        ({"objective": {"static_weight": -1.0}}, r"\[objective\] static_weight is -1\.0; expected 0 or more"),
        ({"objective": "rwae-plus"}, r"\[objective\] is 'rwae-plus'; expected a table of settings"),
        ({"objective": 3}, r"\[objective\] is 3; expected a table of settings"),
        ({"objective": {"name": 3}}, r"\[objective\] name is 3; expected one of rwae-mmd, "),
        ({"mel": {"preset": "papre"}}, "did you mean 'paper'"),
        ({"model": {"n_mels": 40}}, r"\[model\] has no setting 'n_mels'; expected it in \[mel\]"),
        ({"objective": {"name": "dsvae"}}, "dynamic_offset_variance is 8; expected 0"),
    ],
)
def test_bad_configuration_is_answered_in_one_line(tables: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        RunConfig.of(tables)
    assert "\n" not in str(error.value)


def test_configuration_survives_json() -> None:
    assert RunConfig.of(json.loads(json.dumps(CONFIG.tables()))) == CONFIG
