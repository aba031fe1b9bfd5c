"""Weak supervision (Han et al. 2021, section 3.4): another objective's terms, with two terms of the action of a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.distributed import gather
from rwae_audio.model import RWAE, Action, ModelConfig, Output
from rwae_audio.model.actions import one_hot, word_shape
from rwae_audio.objectives.base import Objective, ObjectiveSettings
from rwae_audio.objectives.divergences import entropy, mmd, squared_distances
from rwae_audio.randomness import generator as random_numbers
from rwae_audio.settings import at_least

if TYPE_CHECKING:
    from rwae_audio.data.store import Sampler

AGREEMENT = 200.0  # weight of the agreement between the actions of neighbours
TEMPERATURES = 1.0, 0.3  # Gumbel-softmax temperature of the first and of the last update


@dataclass(frozen=True)
class ActionSettings(ObjectiveSettings):
    """The settings of an objective that can have a prior of actions.

    Attributes:
        action_weight: Weight of the distance between actions and Cat(1/A), in a model with actions.
        action_start: Updates in which an action is trained to be the k-means cluster of its utterance's sound.
    """

    action_weight: float = at_least(0, 50.0)
    action_start: int = at_least(0, 0)


class HasActions(Objective):
    """An objective that can have a prior of actions."""

    def action_prior(self, action: Action, generator: torch.Generator) -> Tensor:
        """Return KL(Q_a ‖ Cat(1/A)) + MMD²(Q_a, Cat(1/A)) of the aggregated posterior Q_a, over the global batch."""
        sample = gather(action.sample)
        drawn = torch.randint(sample.shape[-1], sample.shape[:1], generator=generator).to(sample.device)
        kl = math.log(sample.shape[-1]) - entropy(gather(action.logits).softmax(-1).mean(0))
        return kl + mmd(sample, one_hot(drawn, sample.shape[-1]).to(sample), 1 / sample.shape[-1])


class Actions(Objective):
    """The terms of another objective and, for the actions of its model, a prior term and an agreement term.

    In the first `action_start` updates an action is trained to be the cluster of its utterance. Later it is trained to
    agree with the action of the utterance that sounds most like it. Raises ValueError for an objective without a prior
    of actions.
    """

    clusters: Tensor

    def __init__(self, inner: Objective, model: ModelConfig) -> None:
        if not (isinstance(inner, HasActions) and isinstance(inner.config, ActionSettings)):
            raise ValueError(f"[objective] {inner.config.name} has no prior of actions; expected actions = 0")
        super().__init__(inner.config, model)
        self.inner, self.count, self.step = inner, model.actions, 0

    def meet(self, sampler: Sampler, seed: int) -> None:
        self.inner.meet(sampler, seed)
        if self.config.action_start:
            self.register_buffer("clusters", shape_clusters(sampler, self.count, seed), persistent=False)

    def begin(self, model: RWAE, step: int, updates: int) -> None:
        assert model.action_encoder is not None
        self.step = step
        model.action_encoder.temperature = temperature(step / updates)

    def joint_parameters(self) -> list[nn.Parameter]:
        return self.inner.joint_parameters()

    def step_critics(
        self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        return self.inner.step_critics(model, output, frames, generator)

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        assert output.action is not None
        assert output.utterances is not None
        terms = self.inner(model, output, frames, generator)
        prior = self.config.action_weight * self.inner.action_prior(output.action, generator)
        if self.step < self.config.action_start:
            clusters = self.clusters[output.utterances]
            lack = F.cross_entropy(output.action.logits, clusters, label_smoothing=0.1)
        else:
            assert output.raw_frames is not None
            probabilities = gather(output.action.logits).softmax(-1)
            other = neighbours(gather(word_shape(output.raw_frames)), gather(output.utterances))
            lack = -agreement(probabilities, probabilities[other])
        return {**terms, "action": prior, "agreement": AGREEMENT * lack}


def temperature(progress: float) -> float:
    """Return the temperature of the draw of an action at this share of the updates: it falls in equal ratios."""
    first, last = TEMPERATURES
    return first * (last / first) ** progress


def shape_clusters(sampler: Sampler, count: int, seed: int) -> Tensor:
    """Return the k-means cluster (U,) of each training utterance by the `word_shape` of its first segment."""
    from sklearn.cluster import KMeans

    shapes = word_shape(sampler.store.gather(sampler.starts, sampler.segment)).numpy()
    state = random_numbers(seed, "clusters").initial_seed() % 2**31
    return torch.from_numpy(KMeans(count, n_init=10, random_state=state).fit_predict(shapes)).long()


def neighbours(shapes: Tensor, utterances: Tensor) -> Tensor:
    """Return the index (B,) of the other sequence that sounds most like each one.

    shapes: (B, d), by `word_shape`. utterances: The utterance (B,) of each sequence, as one can be drawn twice.
    """
    distances = squared_distances(shapes, shapes)
    return distances.masked_fill(utterances[:, None] == utterances, math.inf).argmin(1)


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Return the mutual information of the actions of two sequences, by their probabilities (B, A): a scalar, nats.

    Ji, Henriques, Vedaldi, "Invariant Information Clustering for Unsupervised Image Classification and Segmentation", ICCV
    2019. It is highest (ln A) where both always have the same action and all actions are as frequent. Neighbours stand in
    for perturbed copies in Van Gansbeke et al., "SCAN: Learning to Classify Images without Labels", ECCV 2020.
    """
    joint = first.T @ second / len(first)
    joint = (joint + joint.T) / 2
    return 2 * entropy(joint.sum(0)) - entropy(joint.flatten())
