"""R-WAE with MMD penalties (ICLR 2021, arXiv 2101.07496; the kernel is that of tolstikhin/wae)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.distributed import average, gather
from rwae_audio.model import RWAE, Output, normal
from rwae_audio.objectives.actions import ActionSettings, HasActions
from rwae_audio.objectives.base import drawn_action, squared_error
from rwae_audio.objectives.divergences import mmd
from rwae_audio.settings import at_least


@dataclass(frozen=True)
class RwaeSettings(ActionSettings):
    """The settings of R-WAE with penalties of either kind.

    Attributes:
        prior_weight: Weight of the prior's log-likelihood of the codes, which moves the prior alone. An MMD or a critic
            leaves loosely fixed how the prior goes on from its own samples.
    """

    prior_weight: float = at_least(0, 0.0)


@dataclass(frozen=True)
class MmdSettings(RwaeSettings):
    """The settings of R-WAE with MMD penalties.

    Attributes:
        dynamic_match: A code is compared with its prior alone (`marginal`) or beside the code before it (`joint`).
    """

    name: str = "rwae-mmd"
    dynamic_match: Literal["marginal", "joint"] = "marginal"


class RwaeMmd(HasActions):
    """The objective of R-WAE with MMD penalties:

    L = Σ_t E c(x_t, G(z^c, z^m_t)) + β1 · MMD²(Q_{z^c}, N(0, I)) + β2 · Σ_t MMD²(Q_{z^m_t}, P_{z^m_t | z̃^m_{<t}})

    The prior's samples follow the posterior's history, so the pair i = j shares one and is left out.
    """

    Settings = MmdSettings

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        static = static_penalty(output.static.sample, generator)
        dynamic = dynamic_penalty(
            model, output.dynamic.sample, generator, drawn_action(output), self.config.dynamic_match
        )
        return {
            "reconstruction": squared_error(output.reconstruction, frames),
            "static": self.config.static_weight * static,
            "dynamic": self.config.dynamic_weight * dynamic,
            **prior_terms(self.config.prior_weight, model, output),
        }


def static_penalty(static: Tensor, generator: torch.Generator) -> Tensor:
    """Return MMD² between the aggregated posterior's samples (B, d) and as many of N(0, I), over the global batch."""
    return mmd(gather(static), gather(normal(static.shape, generator, static)))


def prior_draws(
    model: RWAE, dynamic: Tensor, generator: torch.Generator, action: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return draws of the prior given the posterior's history z̃^m_{<t} (and a), and its variance, each (B, T, d)."""
    mean, variance = model.prior(dynamic, action)
    return mean + variance.sqrt() * normal(mean.shape, generator, mean), variance


def with_history(codes: Tensor, history: Tensor) -> Tensor:
    """Return each code beside the one before it in the history, (B, T, 2d); a zero code stands before the first."""
    return torch.cat([F.pad(history, (0, 0, 1, 0))[:, :-1], codes], dim=-1)


def prior_terms(weight: float, model: RWAE, output: Output) -> dict[str, Tensor]:
    """Return −log p_ψ(z̃^m_t | z̃^m_{<t}[, a]), summed over frames, of codes taken as given; nothing without a weight."""
    if not weight:
        return {}
    codes, action = output.dynamic.sample.detach(), drawn_action(output)
    mean, variance = model.prior(codes, None if action is None else action.detach())
    lack = ((codes - mean).square() / variance + variance.log()).sum((1, 2)).mean() / 2
    return {"prior": weight * lack}


def dynamic_penalty(
    model: RWAE, dynamic: Tensor, generator: torch.Generator, action: Tensor | None = None, match: str = "marginal"
) -> Tensor:
    """Return Σ_t MMD² between z̃^m_t and the prior's z^m_t given z̃^m_{<t}, over the global batch.

    The kernel's variance is the prior's own mean variance, as it is. dynamic: the posterior's samples, (B, T, d); match:
    `joint` compares both beside z̃^m_{t-1}.
    """
    drawn, variance = prior_draws(model, dynamic, generator, action)
    scale = average(variance.detach().mean((0, 2)))
    q, p = gather(dynamic), gather(drawn)
    if match == "joint":
        q, p = with_history(q, q), with_history(p, q)
    return mmd(q.transpose(0, 1), p.transpose(0, 1), scale, paired=True).sum()
