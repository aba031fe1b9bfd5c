"""The settings of every objective, and the cost that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which objective, and its weights.

    static_weight, dynamic_weight    β1 and β2 of R-WAE; the weights of the two KL terms of DSVAE
    dynamic_match    R-WAE compares z̃^m_t with its prior alone (`marginal`) or beside the code before it (`joint`)
    dynamic_scale    the kernel's σ² for z^m: the `prior`'s own mean variance, detached, or `unit`
    """

    name: Literal["rwae-mmd", "dsvae"] = "rwae-mmd"
    static_weight: float = 10.0
    dynamic_weight: float = 10.0
    dynamic_match: Literal["marginal", "joint"] = "marginal"
    dynamic_scale: Literal["prior", "unit"] = "prior"

    def __post_init__(self) -> None:
        if self.static_weight < 0 or self.dynamic_weight < 0:
            weights = f"{self.static_weight} and {self.dynamic_weight}"
            raise ValueError(f"[objective] static_weight and dynamic_weight are {weights}; expected 0 or more")


def squared_error(reconstruction: Tensor, frames: Tensor) -> Tensor:
    """Σ_t c(x_t, G(z^c, z^m_t)), c squared L2, averaged over the batch. Both (B, T, n_mels) → scalar."""
    return (reconstruction - frames).square().sum((1, 2)).mean()
