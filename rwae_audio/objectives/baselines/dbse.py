"""The objective dbse: a VAE whose static code comes from a single frame.

Berman, Naiman, Arbiv, Fadlon, Azencot, "Sequential Disentanglement by Extracting Static Information From A Single
Sequence Element", ICML 2024, arXiv 2406.18131.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rwae_audio.model import RWAE, ModelConfig, Output
from rwae_audio.objectives.base import ObjectiveSettings, squared_error
from rwae_audio.objectives.baselines.dsvae import Dsvae

ALONE = 5.0  # λ, the weight of the reconstruction from the static code alone


@dataclass(frozen=True)
class DbseSettings(ObjectiveSettings):
    """The settings of DBSE."""

    name: str = "dbse"


class Dbse(Dsvae):
    """The terms of DSVAE, and the error of frames that are decoded from the static code alone:

    + λ · Σ_t c(x_t, G(z^c, 0))

    The networks disentangle the codes: z^c depends on the feature h_1 of the first frame, z^m_t on h_t − h_1. All frames
    are to be reconstructed from z^c, as in the published speech model, whose ratio of weights is λ. There the input of
    z^m_1 is noise; here it is zero.

    Raises:
        ValueError: The model's `static_from` is not "frame".
    """

    Settings = DbseSettings

    def __init__(self, config: DbseSettings, model: ModelConfig) -> None:
        super().__init__(config, model)
        if model.static_from != "frame":
            raise ValueError(
                f'[model] static_from is "{model.static_from}"; expected "frame" for the objective {config.name}'
            )

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        alone = model.decoder(output.static.sample, torch.zeros_like(output.dynamic.sample))
        return {
            **super().forward(model, output, frames, generator),
            "static_alone": ALONE * squared_error(alone, frames),
        }
