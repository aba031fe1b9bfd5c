"""The terms of each objective against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_up import SWITCHES

from rwae_audio.data.features import Normaliser
from rwae_audio.data.perturb import equalised, shuffled, warp_mels
from rwae_audio.inference.embedding import embed
from rwae_audio.model import RWAE, ModelConfig, Output, Posterior
from rwae_audio.objectives import OBJECTIVES, Objective, divergences, objective_settings
from rwae_audio.objectives.baselines import c_dsvae, dbse, fhvae, s3vae
from rwae_audio.objectives.baselines.dsvae import Dsvae
from rwae_audio.objectives.baselines.fhvae import VARIANCE, Fhvae
from rwae_audio.objectives.divergences import Critic, frozen, kl_gaussians, mmd, scaled_mmd
from rwae_audio.objectives.frame_critic import FrameCritic
from rwae_audio.objectives.rwae_gan import fake, real
from rwae_audio.objectives.rwae_mmd import RwaeMmd, dynamic_penalty, static_penalty
from rwae_audio.objectives.rwae_plus import RwaePlus, contrast
from rwae_audio.randomness import generator

SIZES = {"n_mels": 6, "static_dim": 4, "dynamic_dim": 3, "static_hidden": 8, "dynamic_hidden": 8}
SIZES |= {"prior_hidden": 8, "decoder_hidden": 8, "dynamic_offset_variance": 0.0}


def setting(**changes) -> tuple[RWAE, torch.Tensor]:
    torch.manual_seed(0)
    model = RWAE(ModelConfig(**{**SIZES, **changes})).double().train()
    return model, torch.randn(16, 5, 6, dtype=torch.float64, generator=generator(0, "frames"))


FURTHER = {  # terms of an objective, besides the three of all
    "rwae-plus": {"pair"},
    "fhvae": {"means", "discrimination"},
    "s3vae": {"consistency", "prediction", "information"},
    "c-dsvae": {"static_contrast", "dynamic_contrast", "information"},
    "dbse": {"static_alone"},
    "diffsda": {"denoising"},
}
WITHOUT_PENALTIES = {"diffsda"}  # objectives without the terms `static` and `dynamic`
WITHOUT_PRIOR = {"fhvae", "skd", "diffsda"}  # objectives that leave the dynamic prior alone


def passed(name: str, **changes) -> tuple[RWAE, torch.Tensor, Output]:
    """A model that the objective goes with, frames (16, 5, 6) of five utterances, and a pass as the trainer makes it."""
    model, frames = setting(**{"posterior": "learned", **SWITCHES[name], **changes})
    second = frames.flip(0) if OBJECTIVES[name].pairs else None
    output = model(frames, generator=generator(0, "noise"), second_frames=second)
    return model, frames, output._replace(utterances=torch.arange(16) % 5)


def made(name: str, model: RWAE, **settings) -> Objective:
    """The objective as it is before its first step, of five training utterances."""
    torch.manual_seed(1)
    objective = OBJECTIVES[name](objective_settings(name, **settings), model.config)
    if isinstance(objective, Fhvae):
        objective.initialise(torch.tensor([3, 1, 4, 1, 5]))
    return objective.double()


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_terms_are_finite_named_and_weighted(name: str) -> None:
    model, frames, output = passed(name)

    def terms(**weights: float) -> dict[str, torch.Tensor]:
        return made(name, model, **weights)(model, output, frames, generator(0, "prior"))

    once, more = terms(static_weight=1.0, dynamic_weight=1.0), terms(static_weight=3.0, dynamic_weight=0.5)
    penalties = {} if name in WITHOUT_PENALTIES else {"static": 3.0, "dynamic": 0.5}
    assert set(once) == {"reconstruction", *penalties} | FURTHER.get(name, set())
    assert all(more[term].item() == once[term].item() for term in set(once) - set(penalties))
    for term, factor in penalties.items():
        torch.testing.assert_close(more[term], factor * once[term])
    error = (
        sum(((output.reconstruction[b, t] - frames[b, t]) ** 2).sum().item() for b in range(16) for t in range(5)) / 16
    )
    assert once["reconstruction"].item() == pytest.approx(error)
    sum(once.values()).backward()
    trained = {part: weight.grad for part, weight in model.named_parameters() if not unused(name, part)}
    assert all(grad is not None and grad.isfinite().all() for grad in trained.values())


def unused(name: str, part: str) -> bool:
    return name in WITHOUT_PRIOR and part.startswith("prior.")


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_what_is_learned_with_the_model_has_a_gradient_and_critics_have_none(name: str) -> None:
    model, frames, output = passed(name)
    objective = made(name, model)
    sum(objective(model, output, frames, generator(0, "prior")).values()).backward()
    joint = {id(weight) for weight in objective.joint_parameters()}
    for weight in objective.parameters():
        assert (weight.grad is not None) == (id(weight) in joint)


def test_static_penalty_is_an_mmd_against_the_standard_normal() -> None:
    model, frames = setting()
    static = model(frames).static.sample
    drawn = torch.randn(static.shape, dtype=torch.float64, generator=generator(5, "prior"))
    torch.testing.assert_close(static_penalty(static, generator(5, "prior")), mmd(static, drawn))


@pytest.mark.parametrize("match", ["marginal", "joint"])
def test_dynamic_penalty_step_by_step(match: str) -> None:
    """Σ_t MMD² between z̃_t and what the prior draws after z̃_{<t}, the pair that shares a history left out."""
    model, frames = setting()
    codes = model(frames, generator=generator(0, "noise")).dynamic.sample
    noise = torch.randn(codes.shape, dtype=torch.float64, generator=generator(6, "prior"))
    expected, memory, previous = 0.0, None, torch.zeros(16, 3, dtype=torch.float64)
    for t in range(5):
        mean, variance, memory = model.prior.step(previous, memory)
        q, p = codes[:, t], mean + variance.sqrt() * noise[:, t]
        if match == "joint":
            q, p = torch.cat([previous, q], dim=1), torch.cat([previous, p], dim=1)
        expected += mmd(q, p, variance.mean().item(), paired=True).item()
        previous = codes[:, t]
    found = dynamic_penalty(model, codes, generator(6, "prior"), match=match)
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_joint_matching_sees_what_marginal_matching_cannot() -> None:
    """A posterior that repeats its last code, against a prior that draws anew: the same law at each step, but for history."""
    model, _ = setting()
    with torch.no_grad():
        for weight in model.prior.parameters():
            weight.zero_()  # the prior is N(0, I) whatever came before
    first = torch.randn(256, 1, 3, dtype=torch.float64, generator=generator(7, "first"))
    repeated = first.expand(-1, 6, -1)
    penalties = {
        match: dynamic_penalty(model, repeated, generator(8, "prior"), match=match).item()
        for match in ("marginal", "joint")
    }
    assert abs(penalties["marginal"]) < 0.15
    assert penalties["joint"] > 5 * abs(penalties["marginal"])


def test_gradient_of_rwae_reaches_prior_and_encoders() -> None:
    model, frames = setting()
    output = model(frames, generator=generator(0, "noise"))
    terms = RwaeMmd(objective_settings(), model.config)(model, output, frames, generator(0, "prior"))
    terms["dynamic"].backward(retain_graph=True)
    assert model.prior.head.weight.grad.any()
    assert model.dynamic_encoder.head.mean.weight.grad.any()
    assert model.decoder.frame.weight.grad is None
    assert model.static_encoder.head.mean.weight.grad is None


def test_dsvae_is_the_negative_bound_up_to_a_constant() -> None:
    """−log N(x | G, ½ I) is the squared error plus (T · n_mels / 2) · ln π; the KL terms are torch's."""
    model, frames = setting(posterior="learned")
    output = model(frames, generator=generator(0, "noise"))
    config = objective_settings("dsvae", static_weight=1.0, dynamic_weight=1.0)
    terms = Dsvae(config, model.config)(model, output, frames, generator(0, "prior"))
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


def test_dsvae_refuses_what_it_has_no_closed_form_for() -> None:
    with pytest.raises(ValueError, match="dynamic_offset_variance is 1; expected 0"):
        Dsvae(objective_settings("dsvae"), ModelConfig(**{**SIZES, "dynamic_offset_variance": 1.0}))


def test_fhvae_terms_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhvae, "DISCRIMINATION", 2.0)
    model, frames, output = passed("fhvae")
    objective = made("fhvae", model, static_weight=1.0, dynamic_weight=1.0)
    terms = objective(model, output, frames, generator(0, "prior"))
    normal, kl = torch.distributions.Normal, torch.distributions.kl_divergence
    table, counts = objective.means.detach(), torch.tensor([3, 1, 4, 1, 5], dtype=torch.float64)
    assert table.shape == (5, 4)
    expected = {"static": 0.0, "dynamic": 0.0, "means": 0.0, "discrimination": 0.0}
    for b in range(16):
        i = b % 5
        q = normal(output.static.mean[b], output.static.variance[b].sqrt())
        expected["static"] += kl(q, normal(table[i], 0.5)).sum().item() / 16
        one = normal(output.dynamic.mean[b, 0], output.dynamic.variance[b, 0].sqrt())
        expected["dynamic"] += kl(one, normal(torch.zeros(3), torch.ones(3))).sum().item() / 16
        constant = 4 / 2 * torch.log(torch.tensor(2 * torch.pi)).item()
        log_prior = normal(0.0, 1.0).log_prob(table[i]).sum().item() + constant
        expected["means"] -= log_prior / counts[i].item() / 16
        densities = torch.stack([normal(mean, 0.5).log_prob(q.mean).sum() for mean in table]).exp()
        expected["discrimination"] -= 2 * (densities[i] / densities.sum()).log().item() / 16
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value), name


def test_the_mean_of_an_utterance_of_fhvae_has_the_direction_of_its_static_vector() -> None:
    """Σ_n z̄2_n / (N + σ²) is where Σ_n log N(z̄2_n | μ2, σ²·I) + log N(μ2 | 0, I) is highest, and its cosine with the
    vector that the benchmark scores is 1."""
    model = passed("fhvae")[0].float()
    frames = torch.randn(30, 6, generator=generator(3, "frames"))
    normaliser = Normaliser(torch.zeros(6), torch.ones(6))
    vectors = embed(model, normaliser, 10, frames.numpy(), np.array([0]), np.array([30]))
    means = model.static_encoder(frames.unflatten(0, (3, 10)), None).mean.detach().double()
    closed = (means.sum(0) / (3 + VARIANCE)).requires_grad_()
    normal = torch.distributions.Normal
    (normal(closed, VARIANCE**0.5).log_prob(means).sum() + normal(0.0, 1.0).log_prob(closed).sum()).backward()
    assert closed.grad is not None
    assert closed.grad.abs().max() < 1e-9
    static = torch.from_numpy(vectors.static[0])
    assert torch.cosine_similarity(closed.detach(), static, dim=0).item() == pytest.approx(1, abs=1e-9)


def brute_information(output: Output) -> list[float]:
    """I(z^c; z^m_t) of each step, by torch's densities, pair by pair."""
    normal, count, found = torch.distributions.Normal, len(output.static.mean), []

    def densities(mean: torch.Tensor, variance: torch.Tensor, sample: torch.Tensor) -> list[list[torch.Tensor]]:
        laws = [normal(m, v.sqrt()) for m, v in zip(mean, variance, strict=True)]
        return [[law.log_prob(code).sum().exp() for law in laws] for code in sample]

    static = densities(*output.static)
    for t in range(output.dynamic.mean.shape[1]):
        dynamic, total = densities(*(part[:, t] for part in output.dynamic)), 0.0
        for of_static, of_dynamic in zip(static, dynamic, strict=True):
            joint = sum(a * b for a, b in zip(of_static, of_dynamic, strict=True)) / count
            total += (joint / (sum(of_static) / count) / (sum(of_dynamic) / count)).log().item() / count
        found.append(total)
    return found


def test_s3vae_terms_against_sums_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for constant, value in {"CONSISTENCY": 2.0, "MARGIN": 3.0, "PREDICTION": 4.0, "INFORMATION": 5.0}.items():
        monkeypatch.setattr(s3vae, constant, value)
    model, frames, output = passed("s3vae")
    window = torch.randn(16, 8, 6, dtype=torch.float64, generator=generator(1, "frames"))
    output = output._replace(static_frames=window)
    objective = made("s3vae", model, static_weight=1.0, dynamic_weight=1.0)
    terms = objective(model, output, frames, generator(0, "prior"))
    draw = generator(0, "prior")
    positive = model.static_encoder(shuffled(window, draw), draw).sample
    static = output.static.sample
    near, far = (static - positive).norm(dim=1), (static - static.roll(1, 0)).norm(dim=1)
    assert terms["consistency"].item() == pytest.approx(2 * (near - far + 3).clamp_min(0).mean().item(), rel=1e-4)
    weight, bias = objective.energy.weight[0], objective.energy.bias[0]
    errors = [
        (output.dynamic.sample[b, t] @ weight + bias - frames[b, t].mean()).item() ** 2
        for b in range(16)
        for t in range(5)
    ]
    assert terms["prediction"].item() == pytest.approx(4 * sum(errors) / 16)
    assert terms["information"].item() == pytest.approx(5 * sum(brute_information(output)))
    plain = made("dsvae", model, static_weight=1.0, dynamic_weight=1.0)(model, output, frames, generator(0, "prior"))
    assert {name: terms[name].item() for name in plain} == {name: term.item() for name, term in plain.items()}


def brute_contrast(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """InfoNCE both ways, odds by odds."""
    first, second = (x / x.norm(dim=1, keepdim=True) for x in (first, second))
    total = 0.0
    for i in range(len(first)):
        for one, others in ((first[i], second), (second[i], first)):
            odds = torch.stack([(one @ other / temperature).exp() for other in others])
            total -= (odds[i] / odds.sum()).log().item() / (2 * len(first))
    return total


def test_c_dsvae_terms_against_sums_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for constant, value in {"INFORMATION": 3.0, "CONTRAST": 2.0, "TEMPERATURE": 0.5}.items():
        monkeypatch.setattr(c_dsvae, constant, value)
    model, frames, output = passed("c-dsvae", dynamic_norm="none")
    objective = made("c-dsvae", model, static_weight=1.0, dynamic_weight=1.0)
    terms = objective(model, output, frames, generator(0, "prior"))
    draw = generator(0, "prior")
    mixed = shuffled(frames, draw)
    static = model.static_encoder(mixed, draw).mean
    dynamic = model.dynamic_encoder(warp_mels(equalised(frames, 0.5, draw), 0.15, draw), None).mean
    expected = brute_contrast(output.static.mean, static, 0.5)
    assert terms["static_contrast"].item() == pytest.approx(2 * expected)
    expected = brute_contrast(output.dynamic.mean.reshape(16, 15), dynamic.reshape(16, 15), 0.5)
    assert terms["dynamic_contrast"].item() == pytest.approx(2 * expected)
    assert terms["information"].item() == pytest.approx(3 * sum(brute_information(output)) / 5)


def test_dbse_gives_the_sequence_without_its_dynamic_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbse, "ALONE", 3.0)
    model, frames, output = passed("dbse")
    terms = made("dbse", model)(model, output, frames, generator(0, "prior"))
    expected = 0.0
    for b in range(16):
        alone = model.decoder(output.static.sample[b : b + 1], torch.zeros(1, 5, 3, dtype=torch.float64))
        expected += (alone[0] - frames[b]).square().sum().item() / 16
    assert terms["static_alone"].item() == pytest.approx(3 * expected)
    terms["static_alone"].backward()
    assert model.dynamic_encoder.head.mean.weight.grad is None


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dbse", {"static_from": "segment"}, 'static_from is "segment"; expected "frame"'),
        ("fhvae", {"static_from": "another"}, 'static_from and dynamic_sees_static are "another" and true'),
        ("fhvae", {"dynamic_sees_static": False}, 'expected "segment" and true'),
        ("fhvae", {"dynamic_per": "frame"}, 'dynamic_per is "frame"; expected "segment"'),
        ("dsvae", {"dynamic_per": "segment"}, 'dynamic_per is "segment"; expected "frame" for the objective dsvae'),
    ],
)
def test_objectives_refuse_the_networks_of_another_method(name: str, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OBJECTIVES[name](objective_settings(name), ModelConfig(**{**SIZES, **SWITCHES[name], **change}))


def critics_setting(name: str) -> tuple[RWAE, Objective, torch.Tensor, Output]:
    model, frames = setting()
    torch.manual_seed(1)
    objective = OBJECTIVES[name](objective_settings(name), model.config).double()
    return model, objective, frames, model(frames, generator=generator(0, "noise"))


@pytest.mark.parametrize("name", ["rwae-gan", "rwae-smmd"])
def test_critic_and_model_leave_no_gradient_in_each_other(name: str) -> None:
    model, objective, frames, output = critics_setting(name)
    before = [weight.clone() for weight in model.parameters()]
    objective.step_critics(model, output, frames, generator(0, "critic"))
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    critics = [weight.clone() for weight in objective.parameters()]
    sum(objective(model, output, frames, generator(0, "prior")).values()).backward()
    assert all(weight.grad is None for weight in objective.parameters())
    assert all(torch.equal(a, b) for a, b in zip(critics, objective.parameters(), strict=True))
    assert all(weight.grad is not None for weight in model.parameters())


def test_critic_losses_are_binary_cross_entropy() -> None:
    logits = torch.randn(50, generator=generator(0, "logits"))
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(real(logits), bce(logits, torch.ones(50)))
    torch.testing.assert_close(fake(logits), bce(logits, torch.zeros(50)))


@pytest.mark.slow
def test_a_trained_critic_tells_the_codes_from_the_prior_and_the_model_is_pushed_towards_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Codes shifted off the prior: the critic learns it, and the encoder's term falls along its own gradient."""
    monkeypatch.setattr(divergences, "LEARNING_RATE", 1e-2)
    torch.manual_seed(0)
    critic = Critic(2, 1, 16)
    for step in range(200):
        drawn, codes = (torch.randn(64, 2, generator=generator(step, name)) for name in "pq")
        critic.step(real(critic(drawn)) + fake(critic(codes + 2)))
    codes = (torch.randn(64, 2, generator=generator(0, "q")) + 2).requires_grad_()
    with frozen(critic):
        real(critic(codes)).backward()
    assert codes.grad is not None
    assert (codes.grad.mean(0) > 0).all()  # down the gradient is towards the prior
    with torch.no_grad():
        assert real(critic(codes - 2)) < 0.5 * real(critic(codes))


@pytest.mark.slow
def test_a_critic_judges_a_code_by_what_came_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated code against a fresh one: each alone has the same law, only the history tells them apart."""
    monkeypatch.setattr(divergences, "LEARNING_RATE", 1e-2)
    torch.manual_seed(0)
    critic = Critic(1, 1, 16, history=True)
    for step in range(300):
        first = torch.randn(64, 1, 1, generator=generator(step, "first"))
        codes = first.expand(-1, 4, -1)
        drawn = torch.randn(64, 4, 1, generator=generator(step, "drawn"))
        loss = real(critic(drawn, codes)) + fake(critic(codes, codes))
        critic.step(loss)
    assert loss.item() < 0.75 * 2 * torch.log(torch.tensor(2.0)).item()
    assert torch.equal(critic(codes, codes)[:, :3], critic(codes[:, :3], codes[:, :3]))  # causal


def test_scaled_mmd_is_mmd_over_its_scale_and_the_scale_moves_with_the_features() -> None:
    torch.manual_seed(0)
    features = Critic(3, 4, 16).double()
    q, p = (torch.randn(10, 3, dtype=torch.float64, generator=generator(0, name)) for name in "qp")
    for gain in (1.0, 5.0):
        with torch.no_grad():
            features.layers[-1].weight *= gain
        jacobians = [torch.autograd.functional.jacobian(features.layers, z) for z in p]
        steepness = sum(float(jacobian.square().sum()) for jacobian in jacobians) / 10
        scale = 1 + 10 * steepness + features(p).square().sum(-1).mean().item()
        plain = mmd(features(q), features(p))
        torch.testing.assert_close(scaled_mmd(q, p, features), plain / scale)
        if gain == 1.0:
            first = scale
    assert scale > 3 * first


def test_features_ascend() -> None:
    model, objective, frames, output = critics_setting("rwae-smmd")
    values = [objective.step_critics(model, output, frames, generator(0, "critic"))["features"] for _ in range(10)]
    assert values[-1] > values[0]


def plus(**settings: float) -> tuple[RWAE, Output, dict[str, torch.Tensor]]:
    """R-WAE+ on codes of two different windows: the model, its output, the terms."""
    model, frames = setting()
    output = model(frames, generator=generator(0, "noise"), second_frames=frames + 0.5)
    objective = RwaePlus(objective_settings("rwae-plus", **settings), model.config)
    return model, output, objective(model, output, frames, generator(0, "prior"))


def test_pair_terms_against_sums_by_hand() -> None:
    _, output, terms = plus(pair_weight=3.0, static_weight=2.0)
    first, second = output.static.sample, output.second.sample
    assert terms["pair"].item() == pytest.approx(3 * brute_contrast(first, second, 0.1))
    torch.testing.assert_close(terms["static"], 2 * static_penalty(first, generator(0, "prior")))


def test_telling_pairs_apart_costs_nothing() -> None:
    apart = torch.eye(8)
    assert contrast(apart, apart, 0.05).item() < 1e-6
    assert contrast(apart, apart.roll(1, 0), 0.05).item() > 10


def swap_terms(model: RWAE, output: Output, frames: torch.Tensor, **settings: float) -> dict[str, torch.Tensor]:
    objective = RwaePlus(objective_settings("rwae-plus", **settings), model.config).double()
    return objective.swap_terms(model, output, frames, generator(0, "swaps"))


def test_swaps_are_read_back_by_a_static_encoder_that_does_not_learn_from_them() -> None:
    model, output, terms = plus(swap_weight=2.0)
    voices, read = output.static.sample, []
    for i in range(16):  # each sequence is spoken in the voice of the one before it in the batch
        decoded = model.decoder(voices[i - 1][None], output.dynamic.sample[i : i + 1])
        read.append(model.static_encoder(decoded, None).mean[0])
    assert terms["swap"].item() == pytest.approx(2 * brute_contrast(torch.stack(read), voices.roll(1, 0), 0.1))
    codes = model.static_encoder(torch.randn(16, 5, 6, dtype=torch.float64), None)
    given = output._replace(static=Posterior(*(part.detach() for part in codes)))
    swap_terms(model, given, torch.zeros(16, 5, 6), swap_weight=1.0)["swap"].backward()
    assert model.decoder.lstm.weight_ih_l0.grad.any()
    assert all(weight.grad is None and weight.requires_grad for weight in model.static_encoder.parameters())


def test_reading_swaps_leaves_the_static_encoders_statistics_alone() -> None:
    model, frames = setting(static_network="residual", static_window=5)
    output = model(frames, generator=generator(0, "noise"), second_frames=frames + 0.5)
    before = {name: value.clone() for name, value in model.static_encoder.state_dict().items()}
    swap_terms(model, output, frames, swap_weight=1.0)["swap"].backward()
    assert model.static_encoder.training
    for name, value in model.static_encoder.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_speech_is_decoded_from_the_codes_of_its_swap() -> None:
    model, frames = setting()
    output = model(frames, generator=generator(0, "noise"), second_frames=frames + 0.5)
    terms = swap_terms(model, output, frames, swap_weight=3.0)
    assert set(terms) == {"swap", "back"}
    voices, noise = output.static.sample, generator(0, "swaps")
    swapped = model.decoder(voices.roll(1, 0), output.dynamic.sample).detach()
    back = model.decoder(voices, model.dynamic_encoder(swapped, noise).sample)
    torch.testing.assert_close(terms["back"], (back - frames).square().sum((1, 2)).mean())


@pytest.mark.slow
def test_a_frame_critic_learns_speech_and_its_voice_and_pushes_decodings_towards_speech() -> None:
    """Speech is smooth over time, with an offset that its voice has; decodings are noise."""
    torch.manual_seed(0)
    critic, noise = FrameCritic(6, 4), generator(0, "speech")

    def batch() -> tuple[torch.Tensor, ...]:
        voices = torch.randn(32, 4, generator=noise).sign()
        speech = voices[:, None, [0, 0, 1, 1, 2, 2]].expand(-1, 16, -1)
        return speech, voices, *(torch.randn(32, 16, 6, generator=noise) for _ in range(2)), voices.roll(1, 0)

    losses = [critic.step(*batch()).item() for _ in range(150)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    speech, own, decoded, _, other = batch()
    scores = [critic(*given).score.mean().item() for given in ((speech, own), (decoded, own), (speech, other))]
    assert scores[0] > scores[1] + 0.4
    assert scores[0] > scores[2] + 0.2
    assert all(weight.grad is None for weight in critic.parameters())
    decoded.requires_grad_()
    (1 - critic(decoded, own).score).square().mean().backward()
    assert critic(decoded - 2000 * decoded.grad, own).score.mean() > scores[1]


def test_terms_of_the_frame_critic() -> None:
    model, frames = setting()
    output = model(frames, generator=generator(0, "noise"), second_frames=frames + 0.5)
    torch.manual_seed(0)
    objective = RwaePlus(objective_settings("rwae-plus", critic_weight=5.0), model.config).double()
    terms = objective(model, output, frames, generator(0, "prior"))
    voices = output.static.sample
    for name, decoded, voice in (
        ("critic_own", output.reconstruction, voices),
        ("critic_swap", model.decoder(voices.roll(1, 0), output.dynamic.sample), voices.roll(1, 0)),
    ):
        score = objective.critic(decoded, voice).score
        torch.testing.assert_close(terms[name], 5 * (1 - score).square().mean())
    torch.stack([terms[name] for name in ("features", "critic_own", "critic_swap")]).sum().backward()
    assert model.decoder.lstm.weight_ih_l0.grad.any()
    assert all(weight.grad is None for weight in objective.critic.parameters())
    before = [weight.clone() for weight in model.parameters()]
    model.zero_grad()
    loss = objective.step_critics(model, output, frames, generator(0, "critic"))["critic"]
    assert loss > 0
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_second_window_moves_the_static_code_alone() -> None:
    model, frames = setting()
    alone = model(frames, generator=generator(0, "noise"))
    both = model(frames, generator=generator(0, "noise"), second_frames=frames + 1)
    torch.testing.assert_close(alone.reconstruction, both.reconstruction)
    terms = RwaePlus(objective_settings("rwae-plus"), model.config)(model, both, frames, generator(0, "prior"))
    terms["pair"].backward()
    assert model.static_encoder.lstm.weight_ih_l0.grad.any()
    assert model.dynamic_encoder.head.mean.weight.grad is None


def test_rwae_plus_refuses_one_window() -> None:
    with pytest.raises(ValueError, match="static_from is"):
        RwaePlus(objective_settings("rwae-plus"), ModelConfig(**{**SIZES, "static_from": "segment"}))
