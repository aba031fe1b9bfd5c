"""Static information from a single element: Berman, Naiman, Arbiv, Fadlon, Azencot, "Sequential Disentanglement by
Extracting Static Information From A Single Sequence Element", ICML 2024, arXiv 2406.18131."""

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
    """The terms of DSVAE, and a sequence that the static code must give alone:

    + λ · Σ_t c(x_t, G(z^c, 0))

    What disentangles is in the networks: z^c is read off the feature h_1 of one frame, z^m_t off h_t − h_1. All frames are
    to be given, as in the published speech model, and λ is its ratio of this term's weight to the reconstruction's.
    z^m_1 sees a zero, where that model sees noise. Raises ValueError where the model's static code is of no single frame.
    """

    Settings = DbseSettings

    def __init__(self, config: DbseSettings, model: ModelConfig) -> None:
        super().__init__(config, model)
        if model.static_from != "frame":
            raise ValueError(f'[objective] dbse is given static_from "{model.static_from}"; expected "frame"')

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        alone = model.decoder(output.static.sample, torch.zeros_like(output.dynamic.sample))
        return {
            **super().forward(model, output, frames, generator),
            "static_alone": ALONE * squared_error(alone, frames),
        }
