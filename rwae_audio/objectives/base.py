"""The base of all objectives: named, weighted terms, the sum of which is the loss, and perhaps critics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from rwae_audio.model import RWAE, ModelConfig, Output
from rwae_audio.settings import Settings, at_least

if TYPE_CHECKING:
    from rwae_audio.data.store import Sampler


@dataclass(frozen=True)
class ObjectiveSettings(Settings):
    """The settings that every objective has.

    Attributes:
        name: The objective: `rwae-mmd`, `rwae-smmd`, `rwae-gan`, `rwae-plus`, a baseline, or `module:Class`.
        static_weight: β1, the weight of the penalty (of a VAE: the KL term) on z^c.
        dynamic_weight: β2, the weight of the penalty (of a VAE: the KL term) on z^m.
    """

    table: ClassVar[str] = "objective"
    name: str = ""
    static_weight: float = at_least(0, 10.0)
    dynamic_weight: float = at_least(0, 10.0)


class Objective(nn.Module):
    """A map from the output of a pass to the terms of the loss.

    Attributes:
        Settings: The class of its settings, which the table [objective] is resolved against.
        pairs: The pass must have a second window of each utterance (`Output.second`).
        by_segment: The dynamic code is one a segment.

    Raises ValueError for a model whose dynamic code is one a segment instead of a frame, or the other way round.
    """

    Settings: ClassVar[type[ObjectiveSettings]] = ObjectiveSettings
    pairs = False
    by_segment = False

    def __init__(self, config: Any, model: ModelConfig) -> None:
        super().__init__()
        if (model.dynamic_per == "segment") != self.by_segment:
            expected = "segment" if self.by_segment else "frame"
            raise ValueError(
                f'[objective] {config.name} has a dynamic code a {expected}; expected dynamic_per = "{expected}"'
            )
        self.config = config

    def meet(self, sampler: Sampler, seed: int) -> None:
        """Look at the training utterances before training, for what is learned or known an utterance."""

    def begin(self, model: RWAE, step: int, updates: int) -> None:
        """Prepare for update `step` of all `updates`, counted from 0, before the model's pass."""

    def joint_parameters(self) -> list[nn.Parameter]:
        """Return the weights of the objective that the model's optimizer trains, down the same loss."""
        return []

    def step_critics(
        self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Make one step of the critics on this pass of normalised frames (B, T, n_mels), and return values to log.

        No gradient is left in the model.
        """
        return {}

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the weighted terms, scalars by name, of a pass on normalised frames (B, T, n_mels).

        No gradient is left in the critics.
        """
        raise NotImplementedError


def drawn_action(output: Output) -> Tensor | None:
    """Return the action (B, A) that was drawn in this pass, or None in a model without actions."""
    return None if output.action is None else output.action.sample


def squared_error(reconstruction: Tensor, frames: Tensor) -> Tensor:
    """Return Σ_t c(x_t, G(z^c, z^m_t)) with c squared L2, averaged over the batch, of frames (B, T, n_mels)."""
    return (reconstruction - frames).square().sum((1, 2)).mean()
