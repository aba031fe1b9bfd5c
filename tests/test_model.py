"""The networks' invariants: padding, the prior's two ways, every switch, the paper's causality."""

from __future__ import annotations

import itertools

import pytest
import torch

from rwae_audio.model import RWAE, ModelConfig
from rwae_audio.model.decoder import Decoder
from rwae_audio.randomness import generator

SMALL = {"n_mels": 10, "static_dim": 4, "dynamic_dim": 3, "static_hidden": 8, "dynamic_hidden": 8}
SMALL |= {"prior_hidden": 8, "decoder_hidden": 8}


def small(**changes) -> RWAE:
    torch.manual_seed(0)
    return RWAE(ModelConfig(**{**SMALL, **changes})).eval()


def frames(count: int = 3, steps: int = 9) -> torch.Tensor:
    return torch.randn(count, steps, 10, generator=generator(1, "frames"))


OF_ONE_FRAME = {"static_from": "frame", "dynamic_norm": "none"}
WAYS = [
    {"static_network": network, "dynamic_norm": norm, "feedback": feedback}
    for network in ("recurrent", "recurrent-last")
    for norm in ("none", "mean", "instance")
    for feedback in (False, True)
]


@pytest.mark.parametrize(
    "way",
    [
        *WAYS,
        {"dynamic_sees_static": True},
        {"dynamic_per": "segment"},
        OF_ONE_FRAME,
        *({"dynamic_look_ahead": 3, "dynamic_norm": norm} for norm in ("none", "instance")),
    ],
    ids=str,
)
def test_padded_batch_equals_its_members(way: dict) -> None:
    members_alone(small(**way))


def test_padded_batch_equals_its_members_with_attention() -> None:
    model = small(static_network="residual").train()
    for step in range(10):  # statistics that are not those of the first batch
        model(3 * frames(4, 12) + 1, generator=generator(step, "noise"))
    members_alone(model.eval())


def members_alone(model: RWAE) -> None:
    """A padded batch gives each of its members what it has alone."""
    lengths = torch.tensor([9, 4, 7])
    padded = frames()
    for row, length in enumerate(lengths):
        padded[row, length:] = 100.0  # whatever stands in the padding must not matter
    batch = model(padded, lengths=lengths)
    for row, length in enumerate(lengths):
        alone = model(padded[row : row + 1, :length])
        torch.testing.assert_close(batch.static.mean[row], alone.static.mean[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(batch.dynamic.mean[row, :length], alone.dynamic.mean[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(batch.reconstruction[row, :length], alone.reconstruction[0], atol=1e-5, rtol=0)


SWITCHES = itertools.product(["fixed", "learned"], ["recurrent", "frame", "convolutional"], [False, True])


@pytest.mark.parametrize("network", ["recurrent", "recurrent-last", "residual"])
def test_every_static_encoder_trains_every_weight(network: str) -> None:
    model = small(static_network=network).train()
    output = model(frames(4, 5), frames(4, 8), generator(0, "noise"))
    (output.static.sample * torch.randn(4, 1, generator=generator(1, "weights"))).sum().backward()
    encoder = dict(model.static_encoder.named_parameters())
    assert [name for name, weight in encoder.items() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize(("posterior", "decoder", "feedback"), SWITCHES)
def test_every_switch_trains_every_weight(posterior: str, decoder: str, feedback: bool) -> None:
    model = small(posterior=posterior, decoder=decoder, feedback=feedback).train()
    for steps in (1, 5):
        output = model(frames(4, steps), frames(4, 6), generator(0, "noise"))
        assert output.reconstruction.shape == (4, steps, 10)
        mean, variance = model.prior(output.dynamic.sample)
        model.zero_grad()
        (output.reconstruction.square().sum() + mean.square().sum() + variance.sum()).backward()
    silent = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert silent == []


def test_posterior_kinds_have_the_variance_they_say() -> None:
    for kind in ("fixed", "learned"):
        posterior = small(posterior=kind, static_variance=0.5)(frames(2000), generator=generator(0, "noise")).static
        assert posterior.variance.mean().item() == pytest.approx(0.5)
        assert (posterior.sample - posterior.mean).var().item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("feedback", [False, True])
def test_frames_share_an_offset_noise(feedback: bool) -> None:
    """Of the draws' deviation from their means, the part that all frames share has the variance that was asked for."""
    model = small(dynamic_variance=0.5, dynamic_offset_variance=2.0, feedback=feedback)
    posterior = model(frames(400, 9), generator=generator(0, "noise")).dynamic
    noise = posterior.sample - posterior.mean
    assert posterior.variance.mean().item() == pytest.approx(2.5)
    assert noise.var().item() == pytest.approx(2.5, rel=0.1)
    assert (noise[:, 3] * noise[:, 7]).mean().item() == pytest.approx(2.0, rel=0.15)


def test_without_a_generator_the_codes_are_the_means() -> None:
    output = small()(frames())
    assert torch.equal(output.static.sample, output.static.mean)
    assert torch.equal(output.dynamic.sample, output.dynamic.mean)


def test_prior_step_by_step_equals_the_prior_at_once() -> None:
    model = small()
    codes = torch.randn(5, 7, 3, generator=generator(2, "codes"))
    mean, variance = model.prior(codes)
    memory, previous = None, torch.zeros(5, 3)
    for t in range(7):
        step_mean, step_variance, memory = model.prior.step(previous, memory)
        torch.testing.assert_close(step_mean, mean[:, t], atol=1e-6, rtol=0)
        torch.testing.assert_close(step_variance, variance[:, t], atol=1e-6, rtol=0)
        previous = codes[:, t]


def test_rollout_follows_the_prior() -> None:
    """Scoring a rollout with the prior at once gives standard normal residuals."""
    model = small()
    codes = model.prior.rollout(4000, 6, generator(3, "rollout"))
    mean, variance = model.prior(codes)
    residual = (codes - mean) / variance.sqrt()
    assert residual.mean((0, 1)).abs().max() < 0.05
    assert (residual.var((0, 1)) - 1).abs().max() < 0.05


@pytest.mark.parametrize("feedback", [False, True])
def test_dynamic_posterior_is_causal(feedback: bool) -> None:
    """q(z^m_t | z^m_{<t}, x_{≤t}): a change of later frames does not reach earlier codes."""
    model = small(dynamic_norm="none", feedback=feedback)
    first, second = frames(), frames()
    second[:, 5:] += 1
    codes = [model(x).dynamic.mean for x in (first, second)]
    torch.testing.assert_close(codes[0][:, :5], codes[1][:, :5], atol=1e-6, rtol=0)
    assert not torch.allclose(codes[0][:, 5:], codes[1][:, 5:], atol=1e-4)


def test_feedback_reaches_the_next_code() -> None:
    """With feedback the draw at t moves the mean at t + 1; without it the means do not depend on the draws."""
    for feedback in (False, True):
        model = small(feedback=feedback)
        one, other = (model(frames(), generator=generator(seed, "noise")).dynamic.mean for seed in (0, 1))
        torch.testing.assert_close(one[:, 0], other[:, 0])
        assert torch.allclose(one[:, 1:], other[:, 1:], atol=1e-5) == (not feedback)


def test_the_full_posterior_sees_the_static_code() -> None:
    """q(z^m | z^c, x): another z^c, another z^m from the same frames; the factorised one does not look."""
    for full in (False, True):
        model = small(dynamic_sees_static=full).train()
        codes = [model.dynamic_encoder(frames(), None, None, torch.full((3, 4), value)).mean for value in (0.0, 1.0)]
        assert torch.equal(*codes) == (not full)
        output = model(frames(), frames(3, 6), generator(0, "noise"))
        again = model.dynamic_encoder(frames(), None, None, output.static.sample).mean
        torch.testing.assert_close(again, output.dynamic.mean)
        output.dynamic.mean.square().sum().backward()
        assert (model.static_encoder.head.mean.weight.grad is not None) == full


def test_a_code_a_segment_is_one_draw_that_its_frames_share() -> None:
    model = small(dynamic_per="segment", dynamic_offset_variance=0.0)
    for steps in (1, 9):
        posterior = model(frames(400, steps), generator=generator(0, "noise")).dynamic
        assert all(
            part.shape == (400, steps, 3) and torch.equal(part, part[:, :1].expand_as(part)) for part in posterior
        )
        noise = (posterior.sample - posterior.mean)[:, 0]
        assert noise.var().item() == pytest.approx(0.25, rel=0.1)
    with pytest.raises(ValueError, match="feedback is true; expected false"):
        small(dynamic_per="segment", feedback=True)


def test_the_static_code_of_one_frame_and_what_is_left_without_it() -> None:
    """DBSE: z^c depends on h_1 alone, z^m_t on h_s − h_1, s ≤ t: what is added to all features changes z^c and no z^m."""
    model = small(**OF_ONE_FRAME)
    first, second = model(frames()), model(frames(3, 9) + torch.eye(9)[0][None, :, None])
    assert not torch.allclose(first.static.mean, second.static.mean, atol=1e-4)
    features = model.static_encoder.features(frames())
    head = model.static_encoder.head.mean(torch.tanh(model.static_encoder.first(features[:, 0])))
    torch.testing.assert_close(first.static.mean, head)
    torch.testing.assert_close(first.dynamic.mean, model.dynamic_encoder(features - features[:, :1], None).mean)
    with torch.no_grad():
        model.static_encoder.features.project.bias += 1
    moved = model(frames())
    torch.testing.assert_close(moved.dynamic.mean, first.dynamic.mean, atol=1e-5, rtol=0)
    assert not torch.allclose(moved.static.mean, first.static.mean, atol=1e-3)
    with pytest.raises(ValueError, match='dynamic_norm is "mean"; expected "none"'):
        small(static_from="frame")


def test_instance_norm_takes_level_and_range_out() -> None:
    model = small(dynamic_norm="instance")
    x = frames(2, 30)
    torch.testing.assert_close(model(x).dynamic.mean, model(3 * x + 2).dynamic.mean, atol=1e-3, rtol=0)
    assert not torch.allclose(
        small(dynamic_norm="mean")(x).dynamic.mean, small(dynamic_norm="mean")(3 * x).dynamic.mean
    )


def test_frame_decoder_has_no_memory_and_the_recurrent_one_has() -> None:
    for kind in ("frame", "recurrent"):
        model = small(decoder=kind)
        static, dynamic = torch.ones(1, 4), torch.randn(1, 6, 3, generator=generator(4, "codes"))
        changed = dynamic.clone()
        changed[:, 2] += 1
        same = model.decoder(static, dynamic)[:, 4] - model.decoder(static, changed)[:, 4]
        assert bool(same.abs().max() < 1e-6) == (kind == "frame")


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("feedback", [False, True])
def test_a_code_sees_the_frames_up_to_its_look_ahead_and_no_later_one(ahead: int, feedback: bool) -> None:
    model = small(dynamic_look_ahead=ahead, feedback=feedback, dynamic_norm="none")
    inputs = frames(1, 12).requires_grad_()
    codes = model.dynamic_encoder(inputs, None).mean
    assert codes.shape == (1, 12, 3)
    codes[0, 5].sum().backward()
    assert inputs.grad[0].abs().sum(1).nonzero()[:, 0].tolist() == list(range(5 + ahead + 1))


def test_the_convolutional_decoder_sees_its_context_and_hears_the_voice_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Decoder, "BLOCKS", 2)
    model = small(decoder="convolutional")
    assert model.decoder.context == 9
    static, dynamic = torch.ones(1, 4, requires_grad=True), torch.randn(1, 40, 3, generator=generator(4, "codes"))
    dynamic.requires_grad_()
    decoded = model.decoder(static, dynamic)
    decoded[0, 20].sum().backward()
    assert dynamic.grad[0].abs().sum(1).nonzero()[:, 0].tolist() == list(range(11, 30))
    assert static.grad.ne(0).all()
    other = model.decoder(-static, dynamic) - decoded
    assert other.abs().amax(2).gt(0).all()


@pytest.mark.parametrize(
    "change",
    [
        {"static_dim": 0},
        {"dynamic_variance": 0.0},
        {"static_variance": -1.0},
        {"static_network": "residual", "static_from": "frame", "dynamic_norm": "none"},
        {"static_hidden": 6, "static_network": "residual"},
        {"dynamic_look_ahead": -1},
        {"dynamic_look_ahead": 2, "dynamic_per": "segment"},
        {"dynamic_look_ahead": 2, "static_from": "frame", "dynamic_norm": "none"},
    ],
)
def test_impossible_sizes_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        ModelConfig(**change)
