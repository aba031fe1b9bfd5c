"""The code of the action: what it is inferred from, how it is drawn, what its terms say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from made_up import SWITCHES
from scipy.fft import dct

from rwae_audio.data.features import Normaliser
from rwae_audio.evaluation.experiment import prepare
from rwae_audio.files import InputError
from rwae_audio.inference.generation import Codes, codes_of_all, decoded, interpolated, new_voices, new_words
from rwae_audio.inference.streaming import frames_of
from rwae_audio.model import RWAE, ModelConfig
from rwae_audio.model.actions import Action, ActionEncoder, cosines, gumbel_softmax, one_hot, word_shape
from rwae_audio.objectives import OBJECTIVES, actions, build_objective, objective_settings
from rwae_audio.objectives.actions import Actions, agreement, neighbours, temperature
from rwae_audio.objectives.divergences import mmd
from rwae_audio.objectives.rwae_mmd import prior_terms
from rwae_audio.randomness import generator
from rwae_audio.training.trainer import RunConfig

SIZES = {"n_mels": 6, "static_dim": 4, "dynamic_dim": 3, "static_hidden": 8, "dynamic_hidden": 8, "prior_hidden": 8}
SIZES |= {"decoder_hidden": 8, "dynamic_offset_variance": 0.0}
WITH_ACTIONS = ("rwae-mmd", "rwae-gan", "dsvae")  # the objectives that have a prior of actions


def new_model(actions: int = 5, **changes) -> RWAE:
    torch.manual_seed(0)
    return RWAE(ModelConfig(**{**SIZES, **changes, "actions": actions})).double().train()


def frames_like(count: int = 16, steps: int = 9) -> torch.Tensor:
    return torch.randn(count, steps, 6, dtype=torch.float64, generator=generator(0, "frames"))


def test_the_shape_of_a_word_is_that_of_its_cepstra() -> None:
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(30, 16)) - 6
    frames[8:22] += 6
    energy = frames.mean(1)
    loud = np.flatnonzero(energy >= energy.max() - 0.45 * (energy.max() - energy.min()))
    kept = frames[max(loud[0] - 1, 0) : loud[-1] + 2]
    at = np.linspace(0, len(kept) - 1, 20)
    cepstra = dct(kept, norm="ortho")[:, :13]
    expected = np.stack([np.interp(at, np.arange(len(kept)), column) for column in cepstra.T], 1)
    expected = (expected - expected.mean(0)) / expected.std(0)
    found = word_shape(torch.from_numpy(frames)[None])[0].view(20, 13)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_the_shape_of_a_word_knows_neither_when_nor_how_loud_it_was() -> None:
    quiet = torch.full((2, 40, 8), -9.0)
    word = torch.randn(12, 8, generator=generator(0, "word"))
    quiet[0, 5:17] = word
    quiet[1, 23:35] = word + 0.7
    shapes = word_shape(quiet, cepstra=5)
    one, other = (shape.view(20, 5)[:, 1:] for shape in shapes)  # the first cepstrum is the level
    torch.testing.assert_close(one, other, atol=0.3, rtol=0)
    torch.testing.assert_close(cosines(8, 5), torch.from_numpy(dct(np.eye(8), norm="ortho")[:, :5]).float())


def test_a_relaxed_draw_is_a_draw() -> None:
    """By the Gumbel-max trick the largest component is each action as often as its probability says."""
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0]).repeat(20_000, 1)
    drawn = gumbel_softmax(logits, 0.5, generator(0, "gumbel"))
    torch.testing.assert_close(drawn.sum(1), torch.ones(20_000))
    shares = one_hot(drawn.argmax(1), 4).mean(0)
    torch.testing.assert_close(shares, logits[0].softmax(0), atol=0.012, rtol=0)
    colder = gumbel_softmax(logits, 0.05, generator(0, "gumbel"))
    assert colder.amax(1).mean() > 0.95 > drawn.amax(1).mean()


def test_an_action_is_one_hot_without_noise_and_the_same_alone_or_in_a_batch() -> None:
    encoder = ActionEncoder(ModelConfig(**SIZES, actions=5)).double().eval()
    codes = torch.randn(3, 11, 3, dtype=torch.float64, generator=generator(0, "codes"))
    lengths = torch.tensor([11, 7, 9])
    padded = codes.clone()
    padded[1, 7:], padded[2, 9:] = 100.0, -100.0
    whole = encoder(padded, None, lengths)
    assert (whole.sample.sum(1) == 1).all()
    assert (whole.sample.argmax(1) == whole.logits.argmax(1)).all()
    for i, length in enumerate(lengths):
        torch.testing.assert_close(encoder(codes[i : i + 1, :length], None).logits[0], whole.logits[i])
    moved = encoder(codes + torch.randn(3, 1, 3, dtype=torch.float64), None)
    torch.testing.assert_close(moved.logits, encoder(codes, None).logits)  # what is constant over time is not content


def test_agreement_is_the_mutual_information() -> None:
    sure = one_hot(torch.arange(4).repeat(3), 4).double()
    assert float(agreement(sure, sure)) == pytest.approx(math.log(4))
    assert float(agreement(sure, torch.full_like(sure, 0.25))) == pytest.approx(0, abs=1e-12)
    first, second = (torch.rand(50, 4, dtype=torch.float64).softmax(1) for _ in range(2))
    joint = sum(torch.outer(a, b) for a, b in zip(first, second, strict=True)) / 50
    joint = (joint + joint.T) / 2
    own = joint.sum(0)
    brute = sum(joint[i, j] * (joint[i, j] / (own[i] * own[j])).log() for i in range(4) for j in range(4))
    assert float(agreement(first, second)) == pytest.approx(float(brute))


def test_the_agreement_of_the_sure_can_be_followed_down() -> None:
    logits = torch.tensor([[200.0, 0.0, -200.0], [-200.0, 200.0, 0.0]], requires_grad=True)
    probabilities = logits.softmax(1)
    assert agreement(probabilities, probabilities).item() == pytest.approx(math.log(2))
    agreement(probabilities, probabilities).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_neighbour_is_the_nearest_other_utterance() -> None:
    shapes = torch.tensor([[0.0], [0.1], [5.0], [5.2], [0.0]])
    assert neighbours(shapes, torch.tensor([7, 1, 2, 3, 7])).tolist() == [1, 0, 3, 2, 1]


@pytest.mark.parametrize("name", WITH_ACTIONS)
def test_actions_have_terms_and_a_prior(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "AGREEMENT", 3.0)
    monkeypatch.setattr(actions, "CLUSTER_UPDATES", 0)
    learned = {"posterior": "learned"} if name == "dsvae" else {}
    model, frames = new_model(**learned), frames_like()
    objective = build_objective(objective_settings(name, action_weight=2.0), model.config).double()
    assert isinstance(objective, Actions)
    objective.begin(model, 30, 100)
    assert model.action_encoder is not None
    assert model.action_encoder.temperature == temperature(0.3)
    output = model(frames, generator=generator(0, "posterior"))
    output = output._replace(utterances=torch.arange(16), raw_frames=frames)
    terms = objective(model, output, frames, generator(0, "prior"))
    assert set(terms) >= {"reconstruction", "static", "dynamic", "action", "agreement"}
    assert output.action is not None
    probabilities = output.action.logits.softmax(1)
    other = neighbours(word_shape(frames), output.utterances)
    torch.testing.assert_close(terms["agreement"], -3 * agreement(probabilities, probabilities[other]))
    given = (probabilities * (5 * probabilities).log()).sum(1).mean()
    mean = probabilities.mean(0)
    aggregate = (mean * (5 * mean).log()).sum()
    action = objective.inner.action_prior(output.action, generator(0, "action"))
    if name == "dsvae":  # no draw
        torch.testing.assert_close(terms["action"], 2 * action)
    if name == "dsvae":
        torch.testing.assert_close(action, given)
    else:
        drawn = one_hot(torch.randint(5, (16,), generator=generator(0, "action")), 5).double()
        torch.testing.assert_close(action, aggregate + mmd(output.action.sample, drawn, 0.2))
    sum(terms.values()).backward()
    for network in (model.action_encoder, model.dynamic_encoder, model.prior, model.decoder):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters()), network


def test_at_the_start_the_action_is_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "AGREEMENT", 3.0)
    monkeypatch.setattr(actions, "CLUSTER_UPDATES", 2)
    model, frames = new_model(), frames_like()
    objective = build_objective(objective_settings(), model.config)
    output = model(frames, generator=generator(0, "posterior"))
    clusters = torch.arange(16) % 5
    objective.clusters = clusters
    output = output._replace(utterances=torch.arange(16), raw_frames=frames)
    objective.begin(model, 1, 100)
    terms = objective(model, output, frames, generator(0, "prior"))
    assert output.action is not None
    right = torch.full((16, 5), 0.1 / 5, dtype=torch.float64)
    right[torch.arange(16), clusters] += 0.9
    expected = -3 * (right * output.action.logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(terms["agreement"], expected)
    objective.begin(model, 2, 100)
    later = objective(model, output, frames, generator(0, "prior"))
    probabilities = output.action.logits.softmax(1)
    other = neighbours(word_shape(frames), torch.arange(16))
    torch.testing.assert_close(later["agreement"], -3 * agreement(probabilities, probabilities[other]))


def test_the_prior_learns_from_codes_that_stay_as_they_are() -> None:
    model, frames = new_model(), frames_like()
    output = model(frames, generator=generator(0, "posterior"))
    term = prior_terms(2.0, model, output)["prior"]
    mean, variance = model.prior(output.dynamic.sample, output.action.sample)
    expected = -torch.distributions.Normal(mean, variance.sqrt()).log_prob(output.dynamic.sample).sum((1, 2)).mean()
    torch.testing.assert_close(term, 2 * (expected - 9 * 3 * math.log(2 * math.pi) / 2))
    term.backward()
    learning = {
        name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert learning == {"prior"}
    assert prior_terms(0.0, model, output) == {}
    for name in ("rwae-mmd", "rwae-gan"):
        for weight in (0.0, 2.0):
            objective = OBJECTIVES[name](objective_settings(name, prior_weight=weight), model.config).double()
            terms = objective(model, output, frames, generator(0, "prior"))
            assert ("prior" in terms) == bool(weight)
            torch.testing.assert_close(terms.get("prior", term), term)


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - set(WITH_ACTIONS)))
def test_other_objectives_have_no_actions(name: str) -> None:
    tables = {"model": {**SWITCHES[name], "actions": 4}, "objective": {"name": name}}
    with pytest.raises(InputError, match=f"{name} has no prior of actions"):
        RunConfig.of(tables)
    for wrong in (1, -3):
        with pytest.raises(InputError, match="actions is"):
            RunConfig.of({"model": {"actions": wrong}})


def test_samples_are_of_the_actions_and_voices_asked_for() -> None:
    model = new_model().float().eval()
    draw = generator(0, "sample")
    free = model.sample(400, 7, draw)
    assert free.frames.shape == (400, 7, 6)
    assert free.dynamic.shape == (400, 7, 3)
    assert free.action is not None
    shares = free.action.mean(0)
    assert ((shares > 0.1) & (shares < 0.3)).all()
    assert abs(float(free.static.std()) - 1) < 0.1
    wanted, voices = torch.tensor([3, 0, 4]), torch.randn(3, 4)
    asked = model.sample(3, 7, generator(1, "sample"), voices, wanted)
    assert asked.action is not None
    assert asked.action.argmax(1).tolist() == [3, 0, 4]
    assert torch.equal(asked.static, voices)
    torch.testing.assert_close(asked.frames, model.decoder(voices, asked.dynamic, asked.action))
    other = model.sample(3, 7, generator(1, "sample"), voices, torch.tensor([1, 1, 1]))
    assert not torch.allclose(other.dynamic, asked.dynamic)  # the prior knows the action
    for wrong in (torch.tensor([5]), torch.tensor([-1])):
        with pytest.raises(ValueError, match="expected numbers from 0 to 4"):
            model.sample(1, 7, draw, actions=wrong)
    with pytest.raises(ValueError, match="the model has no actions"):
        new_model(actions=0).sample(1, 7, draw, actions=torch.tensor([0]))
    assert new_model(actions=0).float().sample(2, 7, draw).action is None


def test_the_prior_steps_as_it_scores_with_an_action() -> None:
    model = new_model().eval()
    codes, action = torch.randn(3, 6, 3, dtype=torch.float64), one_hot(torch.tensor([0, 3, 4]), 5).double()
    mean, variance = model.prior(codes, action)
    memory, previous = None, torch.zeros(3, 3, dtype=torch.float64)
    for t in range(6):
        step_mean, step_variance, memory = model.prior.step(previous, memory, action)
        torch.testing.assert_close((step_mean, step_variance), (mean[:, t], variance[:, t]))
        previous = codes[:, t]


def test_one_code_is_kept_when_the_other_is_drawn() -> None:
    model = new_model().float().eval()
    normaliser, raw = Normaliser(torch.zeros(6), torch.ones(6)), frames_like(5, 9).float()
    mel = RunConfig.of({"mel": {"n_mels": 6, "segment": 9}, "model": {"actions": 5}}).mel
    codes = codes_of_all(model, normaliser, mel, raw)
    torch.testing.assert_close(codes.dynamic, model.encode_dynamic(raw, codes.static, None).mean)
    assert codes.action is not None
    twice = codes.repeated(2)
    assert torch.equal(twice.static[0], twice.static[1])
    assert torch.equal(twice.static[2], codes.static[1])
    torch.testing.assert_close(decoded(model, codes), model.decoder(*codes))
    voices = new_voices(model, codes, generator(0, "voices"))
    drawn = torch.randn(codes.static.shape, generator=generator(0, "voices"))
    torch.testing.assert_close(voices, model.decoder(drawn, codes.dynamic, codes.action))
    words = new_words(model, codes, generator(0, "words"))
    again = model.sample(5, 9, generator(0, "words"), static=codes.static)
    torch.testing.assert_close(words, again.frames)
    assert Codes(codes.static, codes.dynamic, None).repeated(3).action is None
    way = interpolated(codes.static[0], codes.static[1], 5)
    torch.testing.assert_close(
        way[[0, 2, 4]], torch.stack([codes.static[0], codes.static[:2].mean(0), codes.static[1]])
    )


def test_the_temperature_falls_from_its_start_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "TEMPERATURES", (2.0, 0.5))
    assert temperature(0.0) == 2.0
    assert temperature(0.5) == pytest.approx(1.0)
    assert temperature(1.0) == pytest.approx(0.5)


def test_a_recording_of_many_words_is_refused() -> None:
    model = new_model().float().eval()
    with pytest.raises(InputError, match="the model has 5 actions"):
        next(frames_of(model, Normaliser(torch.zeros(6), torch.ones(6)), torch.zeros(4), [torch.zeros(3, 3)]))
    assert isinstance(model(frames_like().float()).action, Action)
    with pytest.raises(InputError, match="actions is 4; expected 0"):
        prepare(RunConfig.of({"model": {"actions": 4}}), [], "demo")
