"""The objective rwae-smmd: R-WAE with an MMD penalty on the static code and a scaled MMD on the dynamic codes.

Han et al., ICLR 2021, arXiv 2101.07496; scaled MMD: Arbel, Sutherland, Bińkowski, Gretton, NeurIPS 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rwae_audio.distributed import gather, mean_gradients
from rwae_audio.model import RWAE, ModelConfig, Output
from rwae_audio.objectives.base import Objective, ObjectiveSettings, squared_error
from rwae_audio.objectives.divergences import Critic, frozen, scaled_mmd
from rwae_audio.objectives.rwae_mmd import prior_draws, static_penalty, with_history

FEATURES = 8  # number of learned features


@dataclass(frozen=True)
class SmmdSettings(ObjectiveSettings):
    """The settings of R-WAE with scaled MMD penalties.

    Attributes:
        dynamic_match: Samples that the MMD compares: single codes (`marginal`), or pairs of a code and the code before it
            (`joint`).
    """

    name: str = "rwae-smmd"
    dynamic_match: Literal["marginal", "joint"] = "marginal"


class RwaeSmmd(Objective):
    """The objective of R-WAE with scaled MMD penalties:

    L = Σ_t E c(x_t, G) + β1 · MMD²(Q_{z^c}, N(0, I)) + β2 · max_φ Σ_t SMMD²_φ(Q_{z^m_t}, P_{z^m_t | z̃^m_{<t}})

    φ are learned features of z^m_t, or of z^m_{t-1} and z^m_t if `dynamic_match` is "joint". They are trained to increase
    the last term, which the encoders and the prior decrease. z̃ are codes of the posterior.

    Attributes:
        features: The network φ, with FEATURES outputs.
    """

    Settings = SmmdSettings

    def __init__(self, config: SmmdSettings, model: ModelConfig) -> None:
        super().__init__(config, model)
        inputs = model.dynamic_dim * (2 if config.dynamic_match == "joint" else 1)
        self.features = Critic(inputs, FEATURES)

    def step_critics(
        self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            dynamic = output.dynamic.sample.detach()
            draws, _ = prior_draws(model, dynamic, generator)
        penalty = self.penalty(dynamic, draws)
        self.features.step(-penalty, mean_gradients)
        return {"features": penalty.detach()}

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        static = static_penalty(output.static.sample, generator)
        draws, _ = prior_draws(model, output.dynamic.sample, generator)
        with frozen(self.features):
            dynamic = self.penalty(output.dynamic.sample, draws)
        return {
            "reconstruction": squared_error(output.reconstruction, frames),
            "static": self.config.static_weight * static,
            "dynamic": self.config.dynamic_weight * dynamic,
        }

    def penalty(self, dynamic: Tensor, draws: Tensor) -> Tensor:
        """Return the scaled MMD between codes and draws of the prior, both (B, T, d), summed over frames: a scalar."""
        dynamic, draws = gather(dynamic), gather(draws)
        if self.config.dynamic_match == "joint":
            dynamic, draws = with_history(dynamic, dynamic), with_history(draws, dynamic)
        return scaled_mmd(dynamic.transpose(0, 1), draws.transpose(0, 1), self.features, paired=True).sum()
