"""The factorised hierarchical VAE: Hsu, Zhang, Glass, "Unsupervised Learning of Disentangled and Interpretable
Representations from Sequential Data", NeurIPS 2017."""

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
    from rwae_audio.data.store import Sampler

DISCRIMINATION = 10.0  # α, the weight of telling an utterance from the others by its static codes
VARIANCE = 0.25  # σ² of z2 around its utterance's μ2, whose own variance is 1; the paper's


@dataclass(frozen=True)
class FhvaeSettings(ObjectiveSettings):
    """The settings of FHVAE."""

    name: str = "fhvae"


class Fhvae(Dsvae):
    """The negative bound of a segment x of utterance i (up to a constant), and what tells i from the other utterances:

    −E log N(x | G, ½·I) + β1 · KL(q(z2|x) ‖ N(μ2_i, σ²·I)) + β2 · KL(q(z1|x, z2) ‖ N(0, I))
        − log N(μ2_i | 0, I) / N_i − α · log p(i | z̄2),    p(i | z2) = N(z2 | μ2_i, σ²·I) / Σ_j N(z2 | μ2_j, σ²·I)

    z2 is the static code, z1 the dynamic one, both one a segment (the first public code calls them the other way round);
    z̄2 is q's mean; μ2 is a table with a row an utterance, learned with the model; N_i is how many segments i has. The
    dynamic prior has no part in it. An utterance that is not in the table has μ2 = Σ_n z̄2_n / (N + σ²): this is the mean
    over its N segments but for its length, so for the cosine it is the static vector that `embed` gives.

    Raises ValueError for a model whose z2 is not the segment's own, or whose z1 does not see it.
    """

    Settings = FhvaeSettings
    by_segment = True
    segments: Tensor

    def __init__(self, config: FhvaeSettings, model: ModelConfig) -> None:
        super().__init__(config, model)
        if model.static_from != "segment" or not model.dynamic_sees_static:
            given = f'"{model.static_from}" and {str(model.dynamic_sees_static).lower()}'
            raise ValueError(
                f'[objective] fhvae is given static_from and dynamic_sees_static {given}; expected "segment" and true'
            )
        self.dim = model.static_dim
        self.hold(torch.ones(1))

    def meet(self, sampler: Sampler, seed: int) -> None:
        self.hold(sampler.segments)

    def hold(self, segments: Tensor) -> None:
        """Make a new table for utterances that have so many segments each, (U,)."""
        self.means = nn.Parameter(torch.randn(len(segments), self.dim))  # at first, as its prior has it
        self.register_buffer("segments", segments.to(self.means.dtype), persistent=False)

    def joint_parameters(self) -> list[nn.Parameter]:
        return [self.means]

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        assert output.utterances is not None
        static, own = output.static, self.means[output.utterances]
        one = output.dynamic.mean[:, 0], output.dynamic.variance[:, 0]
        log_prior = -own.square().sum(1) / 2 / self.segments[output.utterances]
        likelihoods = -squared_distances(static.mean, self.means) / (2 * VARIANCE)
        return {
            "reconstruction": squared_error(output.reconstruction, frames),
            "static": self.config.static_weight * kl_gaussians(static.mean, static.variance, own, VARIANCE).mean(),
            "dynamic": self.config.dynamic_weight * kl_gaussians(*one, 0.0, 1.0).mean(),
            "means": -log_prior.mean(),
            "discrimination": DISCRIMINATION * F.cross_entropy(likelihoods, output.utterances),
        }
