"""Training in bfloat16: networks alone, near float32, resumed bit for bit, and float32 where there is no such arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import SWITCHES
from made_up_training import CONFIG, MODEL, metrics, run
from torch import nn

from rwae_audio.devices import has_bf16, in_float32
from rwae_audio.model import RWAE, ModelConfig, Output
from rwae_audio.model.layers import over_time
from rwae_audio.model.posterior import Network
from rwae_audio.objectives import OBJECTIVES, objective_settings
from rwae_audio.training import trainer
from rwae_audio.training.loop import Interrupted
from rwae_audio.training.perturbations import Channel

CPU = torch.device("cpu")
needs_bf16 = pytest.mark.skipif(not has_bf16(CPU), reason="this CPU has no bfloat16 arithmetic")
CONVOLUTIONAL = {"static_network": "residual", "decoder": "convolutional"}


def bf16(name: str = "rwae-plus", **switches: Any) -> trainer.RunConfig:
    model = replace(MODEL, **{**SWITCHES[name], **switches})
    channel = (Channel(kinds=("noise",)),) if name == "rwae-plus" else ()
    settings = replace(CONFIG.train, precision="bf16", perturb=(*CONFIG.train.perturb, *channel))
    return replace(CONFIG, model=model, objective=objective_settings(name), train=settings)


@needs_bf16
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_resumed_run_in_bf16_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path, name: str) -> None:
    config = bf16(name)
    whole = run(tmp_path / "whole", config)
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", config, stop_at=4)
    resumed = run(tmp_path / "parts", config, resume=True)
    for (key, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    single = run(tmp_path / "single", replace(config, train=replace(config.train, precision="float32")))
    assert not all(map(torch.equal, whole.state_dict().values(), single.state_dict().values()))


@needs_bf16
@pytest.mark.parametrize("switches", [{}, {**CONVOLUTIONAL, "static_hidden": 64}], ids=["recurrent", "convolutional"])
def test_a_first_update_in_bf16_is_near_that_in_float32(tmp_path: Path, switches: dict[str, Any]) -> None:
    config = bf16(**switches)
    lines = []
    for precision in ("float32", "bf16"):
        settings = replace(config.train, precision=precision, updates=1, batch=32)
        run(tmp_path / precision, replace(config, train=settings))
        lines += metrics(tmp_path / precision)
    single, half = lines
    for name in ("train/reconstruction", "train/pair", "train/dynamic", "train/gradient"):
        assert half[name] != single[name], name
        assert half[name] == pytest.approx(single[name], rel=0.02), name


@needs_bf16
def test_networks_run_in_bf16_and_everything_else_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear layers and LSTMs get bfloat16; codes, reconstructions, losses, weights and looks are float32."""
    inside, looks = set(), []
    linear = nn.functional.linear

    def watched(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        result = linear(states, weight, bias)
        (inside.add if torch.is_grad_enabled() else looks.append)(result.dtype)
        return result

    monkeypatch.setattr(nn.functional, "linear", watched)
    objective = OBJECTIVES["rwae-plus"].forward

    def checked(self: Any, model: RWAE, output: Output, *more: Any) -> dict[str, torch.Tensor]:
        codes = [*output.static, *output.dynamic, output.reconstruction]
        terms = objective(self, model, output, *more)
        assert {value.dtype for value in [*codes, *terms.values(), *model.state_dict().values()]} <= {
            torch.float32,
            torch.int64,  # batches that a standardisation has counted
        }
        return terms

    monkeypatch.setattr(OBJECTIVES["rwae-plus"], "forward", checked)
    run(tmp_path, bf16(**CONVOLUTIONAL))
    assert inside == {torch.bfloat16, torch.float32}  # float32: the heads of the posteriors
    assert set(looks) == {torch.float32}


def test_without_bf16_arithmetic_the_run_says_so_and_goes_on_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    lines: list[str] = []
    config = bf16()
    fallen = run(tmp_path / "a", config, say=lines.append)
    assert [line for line in lines if "bfloat16" in line] == [lines[0]]
    single = run(tmp_path / "b", replace(config, train=replace(config.train, precision="float32")))
    assert all(map(torch.equal, fallen.state_dict().values(), single.state_dict().values()))


def test_a_network_gives_float32_and_leaves_other_types_alone() -> None:
    class Half(Network):
        def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return values @ values, torch.arange(2)

    network, values = Half(), torch.randn(3, 3)
    network.autocast = lambda: torch.autocast("cpu", torch.bfloat16)
    product, count = network(values)
    assert (product.dtype, count.dtype) == (torch.float32, torch.int64)
    assert not torch.equal(product, values @ values)
    torch.testing.assert_close(product, values @ values, atol=0.05, rtol=0.05)
    assert in_float32(values.double()).dtype == torch.float64


@pytest.mark.parametrize("shape", [(8, 12, 5, 2, 2, 1, 1), (8, 8, 7, 1, 3, 1, 8), (6, 4, 3, 1, 4, 4, 1)])
def test_over_time_is_nn_conv1d(shape: tuple[int, ...]) -> None:
    inputs, outputs, kernel, stride, padding, dilation, groups = shape
    layer = nn.Conv1d(inputs, outputs, kernel, stride, padding, dilation, groups)
    states = torch.randn(3, 21, inputs)
    torch.testing.assert_close(over_time(layer, states), layer(states.transpose(1, 2)).transpose(1, 2))


def test_a_padded_sequence_has_the_code_that_it_has_alone() -> None:
    """Networks skip the mask where nothing is padded; a mask of ones must give the same."""
    torch.manual_seed(0)
    model = RWAE(ModelConfig(static_network="residual", static_hidden=16)).eval()
    frames = torch.randn(2, 40, 80)
    whole = model.static_encoder(frames, None).mean
    masked = model.static_encoder(frames, None, torch.tensor([40, 40])).mean
    torch.testing.assert_close(whole, masked)
