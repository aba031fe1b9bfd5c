"""The objective fhvae: the factorised hierarchical VAE, which learns a mean of the static code for each utterance.

Hsu, Zhang, Glass, "Unsupervised Learning of Disentangled and Interpretable Representations from Sequential Data",
NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.model import RWAE, ModelConfig, Output
from rwae_audio.objectives.base import ObjectiveSettings, squared_error
from rwae_audio.objectives.baselines.dsvae import Dsvae
from rwae_audio.objectives.divergences import kl_gaussians, squared_distances

if TYPE_CHECKING:
    from rwae_audio.data.features import Normaliser
    from rwae_audio.data.store import Sampler

DISCRIMINATION = 10.0  # α, the weight of the classification of utterances by their static codes
VARIANCE = 0.25  # σ², the variance of z2 around the mean of its utterance, as in the paper


@dataclass(frozen=True)
class FhvaeSettings(ObjectiveSettings):
    """The settings of FHVAE."""

    name: str = "fhvae"


class Fhvae(Dsvae):
    """The negative evidence lower bound of a segment x of utterance i, up to a constant, and a classification of i:

    −E log N(x | G, ½·I) + β1 · KL(q(z2|x) ‖ N(μ2_i, σ²·I)) + β2 · KL(q(z1|x, z2) ‖ N(0, I))
        − log N(μ2_i | 0, I) / N_i − α · log p(i | z̄2),    p(i | z2) = N(z2 | μ2_i, σ²·I) / Σ_j N(z2 | μ2_j, σ²·I)

    z2 is the static code and z1 the dynamic code, one of each for a segment. (The first public code swaps these names.) z̄2
    is the posterior mean. N_i is the number of segments of utterance i. The dynamic prior is not used.

    A new utterance with N segments has μ2 = Σ_n z̄2_n / (N + σ²). It has the direction of the static vector that `embed`
    computes, the mean of z̄2, so both have the same cosine scores.

    Attributes:
        means: μ2 of each training utterance, (U, static_dim), learned with the model.
        segments: The number of segments of each training utterance, (U,).

    Raises:
        ValueError: The model's z2 does not come from the segment, or its z1 does not depend on z2.
    """

    Settings = FhvaeSettings
    by_segment = True
    segments: Tensor

    def __init__(self, config: FhvaeSettings, model: ModelConfig) -> None:
        super().__init__(config, model)
        if model.static_from != "segment" or not model.dynamic_sees_static:
            settings = f'"{model.static_from}" and {str(model.dynamic_sees_static).lower()}'
            raise ValueError(
                f'[model] static_from and dynamic_sees_static are {settings}; expected "segment" and true for the '
                f"objective {config.name}"
            )
        self.dim = model.static_dim
        self.initialise(torch.ones(1))

    def meet(self, sampler: Sampler, normaliser: Normaliser, seed: int) -> None:
        self.initialise(sampler.segments)

    def initialise(self, segments: Tensor) -> None:
        """Draw new means from their prior, for utterances with these numbers of segments (U,)."""
        self.means = nn.Parameter(torch.randn(len(segments), self.dim))
        self.register_buffer("segments", segments.to(self.means.dtype), persistent=False)

    def joint_parameters(self) -> list[nn.Parameter]:
        return [self.means]

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        assert output.utterances is not None
        static, means = output.static, self.means[output.utterances]
        dynamic_mean, dynamic_variance = output.dynamic.mean[:, 0], output.dynamic.variance[:, 0]
        log_prior = -means.square().sum(1) / 2 / self.segments[output.utterances]
        log_likelihoods = -squared_distances(static.mean, self.means) / (2 * VARIANCE)
        static_kl = kl_gaussians(static.mean, static.variance, means, VARIANCE).mean()
        dynamic_kl = kl_gaussians(dynamic_mean, dynamic_variance, 0.0, 1.0).mean()
        return {
            "reconstruction": squared_error(output.reconstruction, frames),
            "static": self.config.static_weight * static_kl,
            "dynamic": self.config.dynamic_weight * dynamic_kl,
            "means": -log_prior.mean(),
            "discrimination": DISCRIMINATION * F.cross_entropy(log_likelihoods, output.utterances),
        }
