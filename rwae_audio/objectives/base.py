"""The base class of all objectives. An objective computes the named, weighted terms whose sum is the loss of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from rwae_audio.model import RWAE, ModelConfig, Output
from rwae_audio.settings import Settings, at_least

if TYPE_CHECKING:
    from rwae_audio.data.features import Normaliser
    from rwae_audio.data.store import Sampler


@dataclass(frozen=True)
class ObjectiveSettings(Settings):
    """The settings that every objective has.

    Attributes:
        name: The objective: `rwae-mmd`, `rwae-smmd`, `rwae-gan`, `rwae-plus`, a baseline, or `module:Class`.
        static_weight: β1, the weight of the penalty on z^c; in a VAE, of its KL term.
        dynamic_weight: β2, the weight of the penalty on z^m; in a VAE, of its KL term.
    """

    table: ClassVar[str] = "objective"
    name: str = ""
    static_weight: float = at_least(0, 10.0)
    dynamic_weight: float = at_least(0, 10.0)


class Objective(nn.Module):
    """An objective, which computes the terms of the loss from the output of the model.

    Args:
        config: The settings of the objective, an instance of `Settings`.
        model: The settings of the model.

    Attributes:
        Settings: The class of the settings in the table [objective].
        pairs: Whether the objective needs a second window of each utterance (`Output.second`).
        by_segment: Whether the objective expects one dynamic code for each segment instead of each frame.

    Raises:
        ValueError: The model's `dynamic_per` does not match `by_segment`.
    """

    Settings: ClassVar[type[ObjectiveSettings]] = ObjectiveSettings
    pairs = False
    by_segment = False

    def __init__(self, config: Any, model: ModelConfig) -> None:
        super().__init__()
        if (model.dynamic_per == "segment") != self.by_segment:
            expected = "segment" if self.by_segment else "frame"
            raise ValueError(
                f'[model] dynamic_per is "{model.dynamic_per}"; expected "{expected}" for the objective {config.name}'
            )
        self.config = config

    def meet(self, sampler: Sampler, normaliser: Normaliser, seed: int) -> None:
        """Set up what depends on the training utterances, such as a parameter for each of them. Called before training.

        Args:
            sampler: The sampler of the training utterances.
            normaliser: The normaliser of the frames.
            seed: The seed of the run.
        """

    def begin(self, model: RWAE, step: int, updates: int) -> None:
        """Prepare an update. Called before the model's pass.

        Args:
            model: The model.
            step: The number of the update, from 0.
            updates: The number of all updates.
        """

    def joint_parameters(self) -> list[nn.Parameter]:
        """Return the weights of the objective that are trained together with the model, on the same loss."""
        return []

    def step_critics(
        self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Make one update of the critics on the codes and the frames of a pass. The model gets no gradient.

        Args:
            model: The model.
            output: The output of the pass.
            frames: The normalised frames to reconstruct, (B, T, n_mels).
            generator: The generator of draws from the priors.

        Returns:
            Scalars to log, by name.
        """
        return {}

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the weighted terms of the loss of a pass, scalars by name. The critics get no gradient.

        The arguments are those of `step_critics`.
        """
        raise NotImplementedError


def drawn_action(output: Output) -> Tensor | None:
    """Return the drawn action (B, A) of a pass, or None in a model without actions."""
    return None if output.action is None else output.action.sample


def squared_error(reconstruction: Tensor, frames: Tensor) -> Tensor:
    """Return the squared error of frames (B, T, n_mels), summed over frames and bins and averaged over sequences."""
    return (reconstruction - frames).square().sum((1, 2)).mean()
