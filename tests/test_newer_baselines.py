"""SKD and DiffSDA: the linear operator and its eigenvalues, the denoiser, and which loss trains which network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up import SWITCHES
from made_up_training import CONFIG, MODEL, metrics, run

from rwae_audio.model import RWAE, ModelConfig, Output
from rwae_audio.objectives import objective_settings
from rwae_audio.objectives.baselines import diffsda, skd
from rwae_audio.objectives.baselines.diffsda import Diffsda
from rwae_audio.objectives.baselines.skd import Skd, eigenvalues, linear_operator, spectral_penalty
from rwae_audio.randomness import generator

NAMES = ("skd", "diffsda")
SIZES = dict.fromkeys(("static_hidden", "dynamic_hidden", "prior_hidden", "decoder_hidden"), 8)
DECODERS = ("recurrent", "frame", "convolutional")


def passed(count: int = 16, **changes: object) -> tuple[RWAE, torch.Tensor, Output]:
    """A model in float64, frames (count, 5, 6), and a pass with draws."""
    torch.manual_seed(0)
    settings = {"n_mels": 6, "static_dim": 4, "dynamic_dim": 3, "posterior": "learned"}
    model = RWAE(ModelConfig(**{**settings, **SIZES, **SWITCHES["skd"], **changes})).double().train()
    frames = torch.randn(count, 5, 6, dtype=torch.float64, generator=generator(0, "frames"))
    return model, frames, model(frames, generator=generator(0, "noise"))


def denoising(model: RWAE) -> Diffsda:
    torch.manual_seed(1)
    return Diffsda(objective_settings("diffsda"), model.config).double()


def turned(modulus: float, angle: float) -> torch.Tensor:
    """The matrix (2, 2) whose eigenvalues are modulus · exp(±i · angle)."""
    cosine, sine = modulus * math.cos(angle), modulus * math.sin(angle)
    return torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)


def followed(operator: torch.Tensor, sequences: int = 20, steps: int = 8) -> torch.Tensor:
    """Codes (sequences, steps, d) that follow an operator exactly, from random first codes."""
    codes = [torch.randn(sequences, len(operator), dtype=torch.float64, generator=generator(0, "codes"))]
    for _ in range(steps - 1):
        codes.append(codes[-1] @ operator.T)
    return torch.stack(codes, dim=1)


# The linear operator


def test_the_operator_of_codes_that_follow_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = torch.block_diag(turned(0.9, 0.7), torch.tensor([[0.8, 0.3], [0.0, -0.5]], dtype=torch.float64))
    codes = followed(operator)
    torch.testing.assert_close(linear_operator(codes), operator, rtol=0, atol=0.01)
    torch.testing.assert_close(linear_operator(codes.float()), operator.float(), rtol=0, atol=0.01)
    monkeypatch.setattr(skd, "RIDGE", 0.0)
    torch.testing.assert_close(linear_operator(codes), operator, rtol=0, atol=1e-9)


def test_the_operator_is_the_least_squares_solution_at_any_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.randn(12, 6, 3, dtype=torch.float64, generator=generator(1, "codes"))
    torch.testing.assert_close(linear_operator(0.01 * codes), linear_operator(codes), rtol=0, atol=1e-9)
    monkeypatch.setattr(skd, "RIDGE", 0.0)
    solution = torch.linalg.lstsq(codes[:, :-1].reshape(-1, 3), codes[:, 1:].reshape(-1, 3)).solution
    torch.testing.assert_close(linear_operator(codes), solution.T)


@pytest.mark.parametrize("codes", [torch.zeros(4, 5, 3), torch.ones(4, 5, 3)], ids=["zero", "equal"])
def test_codes_without_rank_have_an_operator_with_a_finite_gradient(codes: torch.Tensor) -> None:
    codes.requires_grad_()
    spectral_penalty(linear_operator(codes)).backward()
    assert codes.grad is not None
    assert codes.grad.isfinite().all()


# The spectral penalty


def test_the_spectral_penalty_counts_real_parts_over_the_threshold() -> None:
    def penalty(*blocks: torch.Tensor) -> float:
        return spectral_penalty(torch.block_diag(*blocks)).item()

    def single(value: float) -> torch.Tensor:
        return torch.tensor([[value]], dtype=torch.float64)

    assert penalty(single(0.49), single(-0.99), single(0.0)) == 0
    assert penalty(turned(0.99, 1.1)) == 0  # 0.99 · cos 1.1 is 0.45
    assert penalty(single(0.9), single(0.2), single(0.7)) == pytest.approx(1.6 / 3)
    assert penalty(turned(0.9, 0.3), single(0.1)) == pytest.approx(2 * 0.9 * math.cos(0.3) / 3)


def test_what_is_constant_over_a_segment_is_penalised() -> None:
    """Codes of one value for a segment have the eigenvalue 1, codes that change at random have none over the threshold."""
    noise = torch.randn(64, 10, 4, dtype=torch.float64, generator=generator(2, "codes"))
    assert spectral_penalty(linear_operator(noise)).item() == 0
    constant = torch.cat([noise[..., :3], noise[:, :1, 3:].expand(-1, 10, -1)], dim=-1)
    assert spectral_penalty(linear_operator(constant)).item() == pytest.approx(1 / 4, rel=0.02)


def test_the_gradient_of_eigenvalues_is_torchs() -> None:
    matrix = torch.randn(6, 6, dtype=torch.float64, generator=generator(3, "matrix"))
    gradients = []
    for function in (eigenvalues, torch.linalg.eigvals):
        leaf = matrix.clone().requires_grad_()
        values = function(leaf)
        (values.real.cos() + values.imag.square()).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(eigenvalues(matrix), torch.linalg.eigvals(matrix))


@pytest.mark.parametrize(
    "matrix",
    [torch.eye(3), torch.zeros(3, 3), torch.tensor([[0.9, 1.0, 0.0], [0.0, 0.9, 1.0], [0.0, 0.0, 0.9]])],
    ids=["identity", "zero", "jordan"],
)
def test_repeated_eigenvalues_have_a_finite_gradient(matrix: torch.Tensor) -> None:
    for nudge in (0.0, 1e-7):
        leaf = (matrix + nudge * torch.randn(3, 3, generator=generator(4, "nudge"))).requires_grad_()
        spectral_penalty(leaf).backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.norm() < 1e4


def test_an_operator_that_is_not_finite_has_a_penalty_that_is_not() -> None:
    """Then the run ends with a line on the loss, as for the other objectives."""
    assert spectral_penalty(torch.full((3, 3), math.nan)).isnan()


def test_terms_of_skd_against_sums_by_hand() -> None:
    model, frames, output = passed()
    objective = Skd(objective_settings("skd", static_weight=2.0, dynamic_weight=3.0), model.config)
    terms = objective(model, output, frames, generator(0, "prior"))
    codes = output.dynamic.mean
    operator = linear_operator(codes)
    code_error = frame_error = 0.0
    for b in range(16):
        predicted = [codes[b, 0], *(operator @ codes[b, t] for t in range(4))]
        decoded = model.decoder(output.static.sample[b : b + 1], torch.stack(predicted)[None])[0]
        for t in range(1, 5):
            code_error += (predicted[t] - codes[b, t]).square().sum().item() / (16 * 4 * 3)
            frame_error += (decoded[t] - frames[b, t]).square().sum().item() / (16 * 4 * 6)
    scale = 5 * 6 / 15
    assert terms["dynamic"].item() == pytest.approx(3 * scale * (code_error + frame_error))
    assert terms["static"].item() == pytest.approx(2 * scale * spectral_penalty(operator).item())


# The denoiser


@pytest.mark.parametrize("kind", DECODERS)
def test_without_noise_the_denoiser_returns_its_input(kind: str) -> None:
    model, frames, output = passed(decoder=kind)
    sigma = torch.full((16, 5, 1), 1e-9, dtype=torch.float64)
    found = denoising(model).denoised(output.static.sample, output.dynamic.sample, frames, sigma)
    torch.testing.assert_close(found, frames, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", DECODERS)
def test_under_infinite_noise_the_denoiser_decodes_the_codes(kind: str) -> None:
    model, frames, output = passed(decoder=kind)
    objective, codes = denoising(model), (output.static.sample, output.dynamic.sample)
    sigma = torch.full((16, 5, 1), 1e9, dtype=torch.float64)
    noise = sigma * torch.randn(frames.shape, dtype=torch.float64, generator=generator(5, "noise"))
    found, other = (objective.denoised(*codes, signal + noise, sigma) for signal in (frames, frames.flip(0)))
    torch.testing.assert_close(found, other, rtol=0, atol=1e-6)
    changed = objective.denoised(codes[0].flip(0), codes[1], frames + noise, sigma)
    assert not torch.allclose(found, changed, rtol=0, atol=1e-3)


def test_the_weight_makes_every_noise_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the network is silent, the scales alone make the best linear estimate of white frames: its error is 1."""
    model, frames, output = passed(count=4000)
    objective = denoising(model)
    monkeypatch.setattr(objective.denoiser, "forward", lambda static, dynamic: torch.zeros_like(frames))
    for mean in (-3.0, 0.0, 3.0):
        monkeypatch.setattr(diffsda, "LOG_MEAN", mean)
        term = objective(model, output, frames, generator(0, "prior"))["denoising"]
        assert term.item() == pytest.approx(5 * 6, rel=0.02)


def test_the_denoiser_is_of_the_decoders_kind_and_reads_the_noised_frame() -> None:
    for kind in DECODERS:
        model, *_ = passed(decoder=kind)
        objective = denoising(model)
        shapes = [
            {name: w.shape for name, w in part.named_parameters()} for part in (model.decoder, objective.denoiser)
        ]
        assert set(shapes[0]) == set(shapes[1])
        differing = [name for name in shapes[0] if shapes[0][name] != shapes[1][name]]
        assert len(differing) == 1
        assert shapes[1][differing[0]][1] == shapes[0][differing[0]][1] + 6 + 1
        assert objective.joint_parameters() == list(objective.denoiser.parameters())


def test_encoders_learn_from_the_denoiser_alone() -> None:
    for term, learning in {"reconstruction": {"decoder"}, "denoising": {"static_encoder", "dynamic_encoder"}}.items():
        model, frames, output = passed()
        objective = denoising(model)
        objective(model, output, frames, generator(0, "prior"))[term].backward()
        found = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
        assert found == learning
        assert all((weight.grad is not None) == (term == "denoising") for weight in objective.parameters())


def test_the_generator_alone_decides_on_the_noise() -> None:
    model, frames, output = passed()
    objective, terms = denoising(model), []
    for seed in (0, 0, 1):
        torch.manual_seed(len(terms))
        terms.append({k: v.item() for k, v in objective(model, output, frames, generator(seed, "prior")).items()})
    assert terms[0] == terms[1]
    assert terms[0]["denoising"] != terms[2]["denoising"]
    assert terms[0]["reconstruction"] == terms[2]["reconstruction"]


# Runs


@pytest.mark.parametrize("name", NAMES)
def test_runs_depend_on_the_seed_and_stay_finite(name: str, tmp_path: Path) -> None:
    """With deterministic codes, as in the configurations of the package."""
    switches = {"posterior": "learned", "static_variance": 1e-4, "dynamic_variance": 1e-4}
    model = replace(MODEL, **SWITCHES[name], **switches)
    config = replace(CONFIG, model=model, objective=objective_settings(name))
    other = replace(config, train=replace(config.train, seed=1))
    for folder, chosen in {"a": config, "b": config, "c": other}.items():
        run(tmp_path / folder, chosen)
    first, again, different = (metrics(tmp_path / folder) for folder in "abc")
    assert first == again
    assert first != different
    assert all(math.isfinite(value) for line in first for value in line.values())
    assert first[-1]["train/reconstruction"] < first[0]["train/reconstruction"]
