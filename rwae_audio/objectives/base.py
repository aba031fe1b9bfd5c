"""What every objective is: named, weighted terms whose sum is the loss, and perhaps critics with steps of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.distributed import gather
from rwae_audio.model import RWAE, Action, ModelConfig, Output
from rwae_audio.model.actions import one_hot
from rwae_audio.objectives.divergences import entropy, mmd, squared_distances
from rwae_audio.settings import Settings, at_least

AGREEMENT = 200.0  # weight of what an action says of its neighbour's


@dataclass(frozen=True)
class ObjectiveSettings(Settings):
    """What every objective can be set to.

    static_weight, dynamic_weight    β1 and β2 of R-WAE; the weights of the two KL terms of DSVAE
    """

    table: ClassVar[str] = "objective"
    name: str = ""
    static_weight: float = at_least(0, 10.0)
    dynamic_weight: float = at_least(0, 10.0)


@dataclass(frozen=True)
class ActionSettings(ObjectiveSettings):
    """The settings of an objective that has a prior of actions.

    action_weight    of the distance between actions and Cat(1/A), in a model that has any
    """

    action_weight: float = at_least(0, 50.0)


class Objective(nn.Module):
    """Called with a pass's output, it gives the terms; what it learns itself (critics) is trained by `step_critics`.

    Attributes:
        Settings: The class of its settings, which the table [objective] is resolved against.
        pairs: The pass must have a second window of each utterance (`Output.second`).
        by_segment: The dynamic code is one a segment.

    Raises ValueError for a model whose dynamic code is one a segment instead of a frame, or the other way round.
    """

    Settings: ClassVar[type[ObjectiveSettings]] = ObjectiveSettings
    pairs = False
    by_segment = False

    def __init__(self, config: Any, model: ModelConfig) -> None:
        super().__init__()
        if (model.dynamic_per == "segment") != self.by_segment:
            expected = "segment" if self.by_segment else "frame"
            raise ValueError(
                f'[objective] {config.name} has a dynamic code a {expected}; expected dynamic_per = "{expected}"'
            )
        if model.actions and not isinstance(config, ActionSettings):
            raise ValueError(f"[objective] {config.name} has no prior of actions; expected actions = 0")
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

    def action_terms(self, output: Output, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms of a model with actions, none of one without; at the start the cluster in the neighbour's place."""
        if output.action is None:
            return {}
        prior = self.config.action_weight * self.action_prior(output.action, generator)
        if output.clusters is not None:
            start = F.cross_entropy(output.action.logits, output.clusters, label_smoothing=0.1)
            return {"action": prior, "agreement": AGREEMENT * start}
        probabilities = gather(output.action.logits).softmax(-1)
        assert output.shapes is not None
        assert output.utterances is not None
        other = neighbours(gather(output.shapes), gather(output.utterances))
        return {
            "action": prior,
            "agreement": -AGREEMENT * agreement(probabilities, probabilities[other]),
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
