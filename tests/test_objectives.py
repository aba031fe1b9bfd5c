"""The terms of each objective against their definitions."""

from __future__ import annotations

import pytest
import torch

from rwae_audio.divergences import kl_gaussians, mmd
from rwae_audio.model import RWAE, ModelConfig
from rwae_audio.objectives import OBJECTIVES, ObjectiveConfig
from rwae_audio.objectives.rwae_mmd import dynamic_penalty, static_penalty
from rwae_audio.randomness import generator

SIZES = {"n_mels": 6, "static_dim": 4, "dynamic_dim": 3, "static_hidden": 8, "dynamic_hidden": 8}
SIZES |= {"prior_hidden": 8, "decoder_hidden": 8}


def setting(**changes) -> tuple[RWAE, torch.Tensor]:
    torch.manual_seed(0)
    model = RWAE(ModelConfig(**{**SIZES, **changes})).double().train()
    return model, torch.randn(16, 5, 6, dtype=torch.float64, generator=generator(0, "frames"))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_terms_are_finite_named_and_weighted(name: str) -> None:
    model, frames = setting(static_posterior="learned", dynamic_posterior="learned")
    output = model(frames, generator=generator(0, "noise"))

    def terms(**weights: float) -> dict[str, torch.Tensor]:
        config = ObjectiveConfig(name=name, **weights)
        return OBJECTIVES[name](config, model, output, frames, generator(0, "prior"))

    once, more = terms(static_weight=1.0, dynamic_weight=1.0), terms(static_weight=3.0, dynamic_weight=0.5)
    assert set(once) == {"reconstruction", "static", "dynamic"}
    torch.testing.assert_close(more["static"], 3 * once["static"])
    torch.testing.assert_close(more["dynamic"], 0.5 * once["dynamic"])
    error = (
        sum(float(((output.reconstruction[b, t] - frames[b, t]) ** 2).sum()) for b in range(16) for t in range(5)) / 16
    )
    assert once["reconstruction"].item() == pytest.approx(error)
    sum(once.values()).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_static_penalty_is_an_mmd_against_the_standard_normal() -> None:
    model, frames = setting()
    static = model(frames).static.sample
    drawn = torch.randn(static.shape, dtype=torch.float64, generator=generator(5, "prior"))
    torch.testing.assert_close(static_penalty(static, generator(5, "prior")), mmd(static, drawn))


@pytest.mark.parametrize("scale", ["prior", "unit"])
@pytest.mark.parametrize("match", ["marginal", "joint"])
def test_dynamic_penalty_step_by_step(match: str, scale: str) -> None:
    """Σ_t MMD² between z̃_t and what the prior draws after z̃_{<t}, the pair that shares a history left out."""
    model, frames = setting()
    codes = model(frames, generator=generator(0, "noise")).dynamic.sample
    config = ObjectiveConfig(dynamic_match=match, dynamic_scale=scale)
    noise = torch.randn(codes.shape, dtype=torch.float64, generator=generator(6, "prior"))
    expected, memory, previous = 0.0, None, torch.zeros(16, 3, dtype=torch.float64)
    for t in range(5):
        mean, variance, memory = model.prior.step(previous, memory)
        q, p = codes[:, t], mean + variance.sqrt() * noise[:, t]
        if match == "joint":
            q, p = torch.cat([previous, q], dim=1), torch.cat([previous, p], dim=1)
        expected += mmd(q, p, variance.mean().item() if scale == "prior" else 1.0, paired=True).item()
        previous = codes[:, t]
    assert dynamic_penalty(config, model, codes, generator(6, "prior")).item() == pytest.approx(expected, abs=1e-9)


def test_joint_matching_sees_what_marginal_matching_cannot() -> None:
    """A posterior that repeats its last code, against a prior that draws anew: the same law at each step, but for history."""
    model, _ = setting()
    with torch.no_grad():
        for weight in model.prior.parameters():
            weight.zero_()  # the prior is N(0, I) whatever came before
    first = torch.randn(256, 1, 3, dtype=torch.float64, generator=generator(7, "first"))
    repeated = first.expand(-1, 6, -1)
    penalties = {
        match: dynamic_penalty(ObjectiveConfig(dynamic_match=match), model, repeated, generator(8, "prior")).item()
        for match in ("marginal", "joint")
    }
    assert abs(penalties["marginal"]) < 0.15
    assert penalties["joint"] > 5 * abs(penalties["marginal"])


def test_gradient_of_rwae_reaches_prior_and_encoders() -> None:
    model, frames = setting()
    output = model(frames, generator=generator(0, "noise"))
    terms = OBJECTIVES["rwae-mmd"](ObjectiveConfig(), model, output, frames, generator(0, "prior"))
    terms["dynamic"].backward(retain_graph=True)
    assert model.prior.head.weight.grad.any()
    assert model.dynamic_encoder.head.mean.weight.grad.any()
    assert model.decoder.frame.weight.grad is None
    assert model.static_encoder.head.mean.weight.grad is None


def test_dsvae_is_the_negative_bound_up_to_a_constant() -> None:
    """−log N(x | G, ½ I) is the squared error plus (T · n_mels / 2) · ln π; the KL terms are torch's."""
    model, frames = setting(static_posterior="learned", dynamic_posterior="learned", standardise=False)
    output = model(frames, generator=generator(0, "noise"))
    config = ObjectiveConfig(name="dsvae", static_weight=1.0, dynamic_weight=1.0)
    terms = OBJECTIVES["dsvae"](config, model, output, frames, generator(0, "prior"))
    normal = torch.distributions.Normal(output.reconstruction, 0.5**0.5)
    likelihood = normal.log_prob(frames).sum((1, 2)).mean()
    constant = 5 * 6 / 2 * torch.log(torch.tensor(torch.pi, dtype=torch.float64))
    torch.testing.assert_close(terms["reconstruction"] + constant, -likelihood)
    static = output.static
    torch.testing.assert_close(terms["static"], kl_gaussians(static.mean, static.variance, 0.0, 1.0).mean())
    prior = torch.distributions.Normal(
        *(x if i == 0 else x.sqrt() for i, x in enumerate(model.prior(output.dynamic.sample)))
    )
    posterior = torch.distributions.Normal(output.dynamic.mean, output.dynamic.variance.sqrt())
    torch.testing.assert_close(terms["dynamic"], torch.distributions.kl_divergence(posterior, prior).sum((1, 2)).mean())


def test_dsvae_refuses_a_posterior_without_variance() -> None:
    model, frames = setting(static_posterior="deterministic")
    with pytest.raises(ValueError, match="dsvae needs posteriors with a variance"):
        OBJECTIVES["dsvae"](ObjectiveConfig(name="dsvae"), model, model(frames), frames, generator(0, "prior"))
