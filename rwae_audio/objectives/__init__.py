"""What a model is trained to do: one file a row of the comparison, chosen by `[objective] name`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rwae_audio.model import RWAE, Output
from rwae_audio.objectives.config import ObjectiveConfig
from rwae_audio.objectives.dsvae import dsvae
from rwae_audio.objectives.rwae_mmd import rwae_mmd

Objective = Callable[[ObjectiveConfig, RWAE, Output, Tensor, torch.Generator], dict[str, Tensor]]

OBJECTIVES: dict[str, Objective] = {"rwae-mmd": rwae_mmd, "dsvae": dsvae}

__all__ = ["OBJECTIVES", "Objective", "ObjectiveConfig"]
