"""What every objective is: named, weighted terms whose sum is the loss, and perhaps critics with steps of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.actions import one_hot
from rwae_audio.distributed import gather
from rwae_audio.divergences import entropy, mmd, squared_distances
from rwae_audio.model import RWAE, Action, ModelConfig, Output

Name = Literal["rwae-mmd", "rwae-smmd", "rwae-gan", "rwae-plus", "dsvae", "fhvae", "s3vae", "c-dsvae", "dbse"]
WITH_ACTIONS = ("rwae-mmd", "rwae-gan", "dsvae")  # the objectives that have a prior of actions


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which objective, and its weights.

    static_weight, dynamic_weight    β1 and β2 of R-WAE; the weights of the two KL terms of DSVAE
    dynamic_match    R-WAE compares z̃^m_t with its prior alone (`marginal`) or beside the code before it (`joint`)
    dynamic_scale    the kernel's σ² for z^m: the `prior`'s own mean variance, detached, or `unit`
    critic_*         of the latent critics (rwae-gan) and of the learned features (rwae-smmd): Adam's learning rate, the
                     width of their layers
    feature_dim      how many features rwae-smmd learns
    discriminative_weight    α of fhvae: how much an utterance must be told from the others by its static codes
    consistency_weight, margin, prediction_weight    of s3vae: static codes of the same frames in another order, nearer than
                     those of another utterance by the margin; a frame's energy, predicted from its dynamic code
    information_weight    of what a sequence's two codes say of each other (s3vae, c-dsvae)
    contrast_weight    of both contrasts of c-dsvae, at the `temperature`
    alone_weight    of what the static code of dbse gives without the dynamic one
    pair_weight, pair_cost, temperature    what rwae-plus asks of the static codes of two windows of an utterance: their
                     squared `distance`, or a `contrast` with the batch's other utterances at this temperature
    cost    of rwae-plus's reconstruction: the `squared` error of a frame, its `absolute` one, or the squared one of the frames
                     and of their differences in time (`deltas`)
    swap_weight      of rwae-plus: the static code, read back from a decoding with another utterance's dynamic codes, by the
                     same contrast
    independence, independence_weight    of rwae-plus: between the static code and the mean dynamic code, `hsic`, or `mmd` from
                     pairs that are shuffled
    critic_weight    of rwae-plus: the terms of rwae-gan beside the MMDs, weighted as there and by this
    prior_weight    of the prior's log-likelihood of the codes as they are: the part of KL(Q ‖ P_{z^m_t | z̃^m_{<t}}) that moves
                     the prior. An MMD or a critic alone leaves how it goes on from its own samples loosely fixed
    action_weight    of the distance between actions and Cat(1/A), in a model that has any
    agreement_weight    of what an utterance's action says of its neighbour's (`agreement`)
    """

    name: Name = "rwae-mmd"
    static_weight: float = 10.0
    dynamic_weight: float = 10.0
    dynamic_match: Literal["marginal", "joint"] = "marginal"
    dynamic_scale: Literal["prior", "unit"] = "prior"
    critic_learning_rate: float = 1e-3
    critic_hidden: int = 64
    feature_dim: int = 8
    discriminative_weight: float = 10.0
    consistency_weight: float = 10.0
    margin: float = 1.0
    prediction_weight: float = 10.0
    information_weight: float = 1.0
    contrast_weight: float = 1.0
    alone_weight: float = 5.0
    pair_weight: float = 10.0
    pair_cost: Literal["distance", "contrast"] = "distance"
    temperature: float = 0.1
    cost: Literal["squared", "absolute", "deltas"] = "squared"
    swap_weight: float = 0.0
    independence: Literal["hsic", "mmd"] = "hsic"
    independence_weight: float = 0.0
    critic_weight: float = 0.0
    prior_weight: float = 0.0
    action_weight: float = 50.0
    agreement_weight: float = 200.0

    def __post_init__(self) -> None:
        if self.static_weight < 0 or self.dynamic_weight < 0:
            weights = f"{self.static_weight} and {self.dynamic_weight}"
            raise ValueError(f"[objective] static_weight and dynamic_weight are {weights}; expected 0 or more")
        if self.pair_weight < 0 or self.temperature <= 0:
            given = f"{self.pair_weight} and {self.temperature}"
            raise ValueError(f"[objective] pair_weight and temperature are {given}; expected 0 or more, more than 0")
        for name in (
            "discriminative_weight",
            "consistency_weight",
            "margin",
            "prediction_weight",
            "information_weight",
            "contrast_weight",
            "alone_weight",
            "swap_weight",
            "independence_weight",
            "critic_weight",
            "prior_weight",
            "action_weight",
            "agreement_weight",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"[objective] {name} is {getattr(self, name)}; expected 0 or more")
        if not 0 < self.critic_learning_rate < 1:
            rate = self.critic_learning_rate
            raise ValueError(f"[objective] critic_learning_rate is {rate}; expected between 0 and 1")
        for name in ("critic_hidden", "feature_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"[objective] {name} is {getattr(self, name)}; expected 1 or more")


class Objective(nn.Module):
    """Called with a pass's output, it gives the terms; what it learns itself (critics) is trained by `step_critics`.

    pairs: the pass must have a second window of each utterance (`Output.second`). by_segment: the dynamic code is one a
    segment. Raises ValueError where the objective has no term for the model's codes: a static one on the sphere, a
    dynamic one a segment instead of a frame, or the other way round.
    """

    pairs = False
    by_segment = False

    def __init__(self, config: ObjectiveConfig, model: ModelConfig) -> None:
        super().__init__()
        if model.static_prior == "sphere" and not self.pairs:
            raise ValueError(f'[objective] {config.name} matches a Gaussian; expected static_prior = "gaussian"')
        if (model.dynamic_per == "segment") != self.by_segment:
            expected = "segment" if self.by_segment else "frame"
            raise ValueError(
                f'[objective] {config.name} has a dynamic code a {expected}; expected dynamic_per = "{expected}"'
            )
        if model.actions and config.name not in WITH_ACTIONS:
            expected = ", ".join(WITH_ACTIONS)
            raise ValueError(f"[objective] {config.name} has no prior of actions; expected {expected}, or actions = 0")
        self.config = config

    def meet(self, segments: Tensor) -> None:
        """Told before training how many segments each training utterance has, (U,): for what is learned an utterance."""

    def joint_parameters(self) -> list[nn.Parameter]:
        """What the objective learns together with the model, by the model's optimizer and down the same loss."""
        return []

    def step_critics(self, model: RWAE, output: Output, generator: torch.Generator) -> dict[str, Tensor]:
        """One step of the critics on the codes of this pass, and what to log. Leaves no gradient in the model."""
        return {}

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """frames (B, T, n_mels), normalised → term → weighted scalar. Leaves no gradient in the critics."""
        raise NotImplementedError

    def prior_terms(self, model: RWAE, output: Output) -> dict[str, Tensor]:
        """− log p_ψ(z̃^m_t | z̃^m_{<t}[, a]), summed over frames, of codes that are taken as given, where it has a weight."""
        if not self.config.prior_weight:
            return {}
        codes, action = output.dynamic.sample.detach(), drawn_action(output)
        mean, variance = model.prior(codes, None if action is None else action.detach())
        lack = ((codes - mean).square() / variance + variance.log()).sum((1, 2)).mean() / 2
        return {"prior": self.config.prior_weight * lack}

    def action_terms(self, output: Output, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms of a model with actions, none of one without; at the start the cluster in the neighbour's place."""
        if output.action is None:
            return {}
        prior = self.config.action_weight * self.action_prior(output.action, generator)
        if output.clusters is not None:
            start = F.cross_entropy(output.action.logits, output.clusters, label_smoothing=0.1)
            return {"action": prior, "agreement": self.config.agreement_weight * start}
        probabilities = gather(output.action.logits).softmax(-1)
        assert output.shapes is not None
        assert output.utterances is not None
        other = neighbours(gather(output.shapes), gather(output.utterances))
        return {
            "action": prior,
            "agreement": -self.config.agreement_weight * agreement(probabilities, probabilities[other]),
        }

    def action_prior(self, action: Action, generator: torch.Generator) -> Tensor:
        """KL(Q_a ‖ Cat(1/A)) + MMD²(Q_a, Cat(1/A)) of the aggregated posterior Q_a, over the global batch."""
        sample = gather(action.sample)
        drawn = torch.randint(sample.shape[-1], sample.shape[:1], generator=generator).to(sample.device)
        kl = math.log(sample.shape[-1]) - entropy(gather(action.logits).softmax(-1).mean(0))
        return kl + mmd(sample, one_hot(drawn, sample.shape[-1]).to(sample), 1 / sample.shape[-1])


def drawn_action(output: Output) -> Tensor | None:
    """The action (B, A) that was drawn in this pass, if the model has any."""
    return None if output.action is None else output.action.sample


def neighbours(shapes: Tensor, utterances: Tensor) -> Tensor:
    """Of each sequence: which other one, (B,), sounds most like it: shapes (B, d), by `word_shape`. utterances (B,): which
    they are, as one can be drawn twice."""
    distances = squared_distances(shapes, shapes)
    return distances.masked_fill(utterances[:, None] == utterances, math.inf).argmin(1)


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """The mutual information, in nats, of the actions of two sequences, by their probabilities (B, A): a scalar.

    Ji, Henriques, Vedaldi, "Invariant Information Clustering for Unsupervised Image Classification and Segmentation", ICCV
    2019. It is highest (ln A) where both always have the same action and all actions are as frequent. Of pairs of
    neighbours instead of perturbed copies: Van Gansbeke et al., "SCAN: Learning to Classify Images without Labels", ECCV 2020.
    """
    joint = first.T @ second / len(first)
    joint = (joint + joint.T) / 2
    return 2 * entropy(joint.sum(0)) - entropy(joint.flatten())


def squared_error(reconstruction: Tensor, frames: Tensor) -> Tensor:
    """Σ_t c(x_t, G(z^c, z^m_t)), c squared L2, averaged over the batch. Both (B, T, n_mels) → scalar."""
    return (reconstruction - frames).square().sum((1, 2)).mean()
