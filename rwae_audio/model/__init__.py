"""The networks of R-WAE and their codes. They know shapes; losses are in `objectives`."""

from __future__ import annotations

from rwae_audio.model.actions import Action
from rwae_audio.model.config import ModelConfig
from rwae_audio.model.posterior import Network, Output, Posterior, Standardise, normal
from rwae_audio.model.rwae import RWAE, Sample, parameters

__all__ = [
    "RWAE",
    "Action",
    "ModelConfig",
    "Network",
    "Output",
    "Posterior",
    "Sample",
    "Standardise",
    "normal",
    "parameters",
]
