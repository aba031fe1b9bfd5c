"""Weak supervision by actions: a wrapper that adds two terms of the action code to the terms of another objective.

Han et al., ICLR 2021, section 3.4. B sequences, A actions.
"""

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
    from rwae_audio.data.features import Normaliser
    from rwae_audio.data.store import Sampler

AGREEMENT = 200.0  # weight of the agreement between the actions of neighbours
CLUSTER_UPDATES = 200  # first updates, in which the action of an utterance is trained to be its k-means cluster
TEMPERATURES = 1.0, 0.3  # temperature of the Gumbel-softmax in the first and in the last update


@dataclass(frozen=True)
class ActionSettings(ObjectiveSettings):
    """The settings of an objective that can train a model with actions.

    Attributes:
        action_weight: Weight of the divergence between the actions and their prior Cat(1/A), in a model with actions.
    """

    action_weight: float = at_least(0, 50.0)


class HasActions(Objective):
    """The base of objectives that can train a model with actions."""

    def action_prior(self, action: Action, generator: torch.Generator) -> Tensor:
        """Return the divergence KL(Q_a ‖ Cat(1/A)) + MMD²(Q_a, Cat(1/A)) between actions and their prior, a scalar.

        Q_a is the aggregated posterior over the global batch.

        Args:
            action: The posterior of the action and its draw.
            generator: The generator of draws from the prior.
        """
        sample = gather(action.sample)
        drawn = torch.randint(sample.shape[-1], sample.shape[:1], generator=generator).to(sample.device)
        kl = math.log(sample.shape[-1]) - entropy(gather(action.logits).softmax(-1).mean(0))
        return kl + mmd(sample, one_hot(drawn, sample.shape[-1]).to(sample), 1 / sample.shape[-1])


class Actions(Objective):
    """The terms of another objective, a term for the prior of the actions, and a term for their agreement.

    In the first CLUSTER_UPDATES updates the agreement term trains the action to be the k-means cluster of its utterance.
    Later it trains the action to equal that of the utterance in the batch that sounds most alike.

    Args:
        inner: The other objective.
        model: The settings of the model.

    Attributes:
        clusters: The cluster of each training utterance, (U,).

    Raises:
        ValueError: The other objective cannot train a model with actions.
    """

    clusters: Tensor

    def __init__(self, inner: Objective, model: ModelConfig) -> None:
        if not (isinstance(inner, HasActions) and isinstance(inner.config, ActionSettings)):
            raise ValueError(
                f"[model] actions is {model.actions}; expected 0, as {inner.config.name} has no prior of actions"
            )
        super().__init__(inner.config, model)
        self.inner, self.count, self.step = inner, model.actions, 0

    def meet(self, sampler: Sampler, normaliser: Normaliser, seed: int) -> None:
        self.inner.meet(sampler, normaliser, seed)
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
        if self.step < CLUSTER_UPDATES:
            clusters = self.clusters[output.utterances]
            disagreement = F.cross_entropy(output.action.logits, clusters, label_smoothing=0.1)
        else:
            assert output.raw_frames is not None
            probabilities = gather(output.action.logits).softmax(-1)
            nearest = neighbours(gather(word_shape(output.raw_frames)), gather(output.utterances))
            disagreement = -agreement(probabilities, probabilities[nearest])
        return {**terms, "action": prior, "agreement": AGREEMENT * disagreement}


def temperature(progress: float) -> float:
    """Return the temperature of the action's draw, which falls geometrically during training.

    Args:
        progress: Share of the updates that have been made, from 0 to 1.
    """
    first, last = TEMPERATURES
    return first * (last / first) ** progress


def shape_clusters(sampler: Sampler, count: int, seed: int) -> Tensor:
    """Return the k-means cluster (U,) of each training utterance, by the `word_shape` of its first segment.

    Args:
        sampler: The sampler of the training utterances.
        count: The number of clusters.
        seed: The seed of the run.
    """
    from sklearn.cluster import KMeans

    shapes = word_shape(sampler.store.gather(sampler.starts, sampler.segment)).numpy()
    state = random_numbers(seed, "clusters").initial_seed() % 2**31
    return torch.from_numpy(KMeans(count, n_init=10, random_state=state).fit_predict(shapes)).long()


def neighbours(shapes: Tensor, utterances: Tensor) -> Tensor:
    """Return the index (B,) of each sequence's nearest neighbour, among the sequences of other utterances.

    Args:
        shapes: The sound of each sequence, (B, d), by `word_shape`.
        utterances: The utterance of each sequence, (B,). A batch can contain an utterance twice.
    """
    distances = squared_distances(shapes, shapes)
    return distances.masked_fill(utterances[:, None] == utterances, math.inf).argmin(1)


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Return the mutual information of the actions of paired sequences, a scalar in nats.

    Its maximum is ln A, for pairs that always have the same action if all actions are equally frequent. Ji, Henriques,
    Vedaldi, "Invariant Information Clustering for Unsupervised Image Classification and Segmentation", ICCV 2019. Pairs of
    neighbours instead of perturbed copies: Van Gansbeke et al., "SCAN: Learning to Classify Images without Labels", ECCV
    2020.

    Args:
        first: The probabilities of the actions of the first sequence of each pair, (B, A).
        second: Those of the second sequence, (B, A).
    """
    joint = first.T @ second / len(first)
    joint = (joint + joint.T) / 2
    return 2 * entropy(joint.sum(0)) - entropy(joint.flatten())
