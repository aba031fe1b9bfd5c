"""The objective dsvae: the evidence lower bound of the recurrent VAE.

Li & Mandt, "Disentangled Sequential Autoencoder", ICML 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rwae_audio.model import RWAE, Action, ModelConfig, Output
from rwae_audio.objectives.actions import ActionSettings, HasActions
from rwae_audio.objectives.base import ObjectiveSettings, drawn_action, squared_error
from rwae_audio.objectives.divergences import entropy, kl_gaussians


@dataclass(frozen=True)
class DsvaeSettings(ActionSettings):
    """The settings of DSVAE. The weights are those of the KL terms."""

    name: str = "dsvae"


class Dsvae(HasActions):
    """The negative evidence lower bound, up to a constant:

    −E log N(x | G, ½·I) + β1 · KL(q(z^c|x) ‖ N(0, I)) + β2 · Σ_t KL(q(z^m_t|x_{≤t}[, z^c]) ‖ p(z^m_t | z̃^m_{<t}))

    z̃ are codes of the posterior. The dynamic posterior depends on z^c if the model has `dynamic_sees_static`.

    Raises:
        ValueError: The frames of a segment share noise (`dynamic_offset_variance`), for which the KL term of z^m has no
            such closed form.
    """

    Settings: ClassVar[type[ObjectiveSettings]] = DsvaeSettings

    def __init__(self, config: Any, model: ModelConfig) -> None:
        super().__init__(config, model)
        if model.dynamic_offset_variance:
            raise ValueError(
                f"[model] dynamic_offset_variance is {model.dynamic_offset_variance:g}; expected 0 for the objective "
                f"{config.name}, whose KL term assumes that the noise of frames is independent"
            )

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        static, dynamic = output.static, output.dynamic
        prior_mean, prior_variance = model.prior(dynamic.sample, drawn_action(output))
        static_kl = kl_gaussians(static.mean, static.variance, 0.0, 1.0).mean()
        dynamic_kl = kl_gaussians(dynamic.mean, dynamic.variance, prior_mean, prior_variance).sum(1).mean()
        return {
            "reconstruction": squared_error(output.reconstruction, frames),
            "static": self.config.static_weight * static_kl,
            "dynamic": self.config.dynamic_weight * dynamic_kl,
        }

    def action_prior(self, action: Action, generator: torch.Generator) -> Tensor:
        """Return E_x KL(q(a | x) ‖ Cat(1/A)), the term of the evidence lower bound, a scalar.

        R-WAE compares the aggregated posterior with the prior instead.
        """
        return math.log(action.logits.shape[-1]) - entropy(action.logits.softmax(-1)).mean()
