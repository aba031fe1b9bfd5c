"""R-WAE+: the paper's objective, and what its model says besides: a sequence has *one* static code.

So any two windows of an utterance must give the same code, a constraint on the coupling that the paper never uses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.distributed import gather
from rwae_audio.model import RWAE, ModelConfig, Output
from rwae_audio.objectives.base import Objective, ObjectiveConfig, squared_error
from rwae_audio.objectives.rwae_mmd import dynamic_penalty, static_penalty

SHARPNESS = 2.0  # of the kernel exp(−t · ‖x − y‖²) on the unit sphere, Wang & Isola's t


class RwaePlus(Objective):
    """L = Σ_t E c(x_t, G(z^c, z^m_t)) + β1 · D(Q_{z^c}, P_{z^c}) + β2 · Σ_t MMD²(Q_{z^m_t}, P_{z^m_t}) + β3 · pair(z^c, z^c')

    z^c' is the code of another window of the same utterance. D is the MMD² of R-WAE for a Gaussian prior, and
    `uniformity` for one on the sphere. Raises ValueError where the static code does not come from `another` window.
    """

    pairs = True

    def __init__(self, config: ObjectiveConfig, model: ModelConfig) -> None:
        super().__init__(config, model)
        if model.static_from != "another":
            raise ValueError(f'[objective] rwae-plus needs static_from = "another"; it is "{model.static_from}"')
        self.sphere = model.static_prior == "sphere"

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        assert output.second is not None
        first, second = gather(output.static.sample), gather(output.second.sample)
        if self.sphere:
            static = (uniformity(first) + uniformity(second)) / 2
        else:
            static = static_penalty(output.static.sample, generator)
        if self.config.pair_cost == "contrast":
            pair = contrast(first, second, self.config.temperature)
        else:
            pair = (first - second).square().mean(1).mean()
        return {
            "reconstruction": squared_error(output.reconstruction, frames),
            "static": self.config.static_weight * static,
            "dynamic": self.config.dynamic_weight
            * dynamic_penalty(self.config, model, output.dynamic.sample, generator),
            "pair": self.config.pair_weight * pair,
        }


def uniformity(codes: Tensor) -> Tensor:
    """log mean_{i≠j} exp(−t ‖x_i − x_j‖²) of codes (n, d) scaled to the unit sphere: a scalar.

    The MMD² between codes and the uniform law, but for the logarithm: with that law its cross term is a constant. Wang &
    Isola, "Understanding contrastive representation learning through alignment and uniformity on the hypersphere", 2020.
    """
    return (-SHARPNESS * torch.pdist(F.normalize(codes, dim=1)).square()).logsumexp(0) - torch.tensor(
        len(codes) * (len(codes) - 1) / 2, dtype=codes.dtype
    ).log()


def contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """InfoNCE, both ways: which of the batch's second windows belongs to a first one? Codes (n, d) → scalar, nats.

    van den Oord, Li, Vinyals, "Representation learning with contrastive predictive coding", 2018; by the cosine.
    """
    similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    own = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
