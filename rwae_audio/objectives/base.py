"""What every objective is: named, weighted terms whose sum is the loss, and perhaps critics with steps of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rwae_audio.model import RWAE, ModelConfig, Output

Name = Literal["rwae-mmd", "rwae-smmd", "rwae-gan", "rwae-plus", "dsvae", "fhvae", "s3vae", "c-dsvae", "dbse"]


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which objective, and its weights.

    static_weight, dynamic_weight    β1 and β2 of R-WAE; the weights of the two KL terms of DSVAE
    dynamic_match    R-WAE compares z̃^m_t with its prior alone (`marginal`) or beside the code before it (`joint`)
    dynamic_scale    the kernel's σ² for z^m: the `prior`'s own mean variance, detached, or `unit`
    critic_*         of the latent critics (rwae-gan) and of the learned features (rwae-smmd): Adam's learning rate, the
                     width of their layers
    feature_dim      how many features rwae-smmd learns
    discriminative_weight    α of fhvae: how much an utterance must be told from the others by its static codes
    consistency_weight, margin, prediction_weight    of s3vae: static codes of the same frames in another order, nearer than
                     those of another utterance by the margin; a frame's energy, predicted from its dynamic code
    information_weight    of what a sequence's two codes say of each other (s3vae, c-dsvae)
    contrast_weight    of both contrasts of c-dsvae, at the `temperature`
    alone_weight    of what the static code of dbse gives without the dynamic one
    pair_weight, pair_cost, temperature    what rwae-plus asks of the static codes of two windows of an utterance: their
                     squared `distance`, or a `contrast` with the batch's other utterances at this temperature
    """

    name: Name = "rwae-mmd"
    static_weight: float = 10.0
    dynamic_weight: float = 10.0
    dynamic_match: Literal["marginal", "joint"] = "marginal"
    dynamic_scale: Literal["prior", "unit"] = "prior"
    critic_learning_rate: float = 1e-3
    critic_hidden: int = 64
    feature_dim: int = 8
    discriminative_weight: float = 10.0
    consistency_weight: float = 10.0
    margin: float = 1.0
    prediction_weight: float = 10.0
    information_weight: float = 1.0
    contrast_weight: float = 1.0
    alone_weight: float = 5.0
    pair_weight: float = 10.0
    pair_cost: Literal["distance", "contrast"] = "distance"
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.static_weight < 0 or self.dynamic_weight < 0:
            weights = f"{self.static_weight} and {self.dynamic_weight}"
            raise ValueError(f"[objective] static_weight and dynamic_weight are {weights}; expected 0 or more")
        if self.pair_weight < 0 or self.temperature <= 0:
            given = f"{self.pair_weight} and {self.temperature}"
            raise ValueError(f"[objective] pair_weight and temperature are {given}; expected 0 or more, more than 0")
        for name in (
            "discriminative_weight",
            "consistency_weight",
            "margin",
            "prediction_weight",
            "information_weight",
            "contrast_weight",
            "alone_weight",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"[objective] {name} is {getattr(self, name)}; expected 0 or more")
        if not 0 < self.critic_learning_rate < 1:
            rate = self.critic_learning_rate
            raise ValueError(f"[objective] critic_learning_rate is {rate}; expected between 0 and 1")
        for name in ("critic_hidden", "feature_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"[objective] {name} is {getattr(self, name)}; expected 1 or more")


class Objective(nn.Module):
    """Called with a pass's output, it gives the terms; what it learns itself (critics) is trained by `step_critics`.

    pairs: the pass must have a second window of each utterance (`Output.second`). by_segment: the dynamic code is one a
    segment. Raises ValueError where the objective has no term for the model's codes: a static one on the sphere, a
    dynamic one a segment instead of a frame, or the other way round.
    """

    pairs = False
    by_segment = False

    def __init__(self, config: ObjectiveConfig, model: ModelConfig) -> None:
        super().__init__()
        if model.static_prior == "sphere" and not self.pairs:
            raise ValueError(f'[objective] {config.name} matches a Gaussian; expected static_prior = "gaussian"')
        if (model.dynamic_per == "segment") != self.by_segment:
            expected = "segment" if self.by_segment else "frame"
            raise ValueError(
                f'[objective] {config.name} has a dynamic code a {expected}; expected dynamic_per = "{expected}"'
            )
        self.config = config

    def meet(self, segments: Tensor) -> None:
        """Told before training how many segments each training utterance has, (U,): for what is learned an utterance."""

    def joint_parameters(self) -> list[nn.Parameter]:
        """What the objective learns together with the model, by the model's optimizer and down the same loss."""
        return []

    def step_critics(self, model: RWAE, output: Output, generator: torch.Generator) -> dict[str, float]:
        """One step of the critics on the codes of this pass, and what to log. Leaves no gradient in the model."""
        return {}

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """frames (B, T, n_mels), normalised → term → weighted scalar. Leaves no gradient in the critics."""
        raise NotImplementedError


def squared_error(reconstruction: Tensor, frames: Tensor) -> Tensor:
    """Σ_t c(x_t, G(z^c, z^m_t)), c squared L2, averaged over the batch. Both (B, T, n_mels) → scalar."""
    return (reconstruction - frames).square().sum((1, 2)).mean()
