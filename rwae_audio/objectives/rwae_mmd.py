"""The objective rwae-mmd: R-WAE with MMD penalties on the codes.

Han et al., ICLR 2021, arXiv 2101.07496; the kernel is that of tolstikhin/wae. B sequences, T frames, d dimensions of a
dynamic code.
"""

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
    """The settings that rwae-mmd and rwae-gan share.

    Attributes:
        prior_weight: Weight of the codes' negative log-likelihood under the dynamic prior, which trains the prior alone.
            Without it, sequences that are sampled from the prior are only loosely constrained.
    """

    prior_weight: float = at_least(0, 0.0)


@dataclass(frozen=True)
class MmdSettings(RwaeSettings):
    """The settings of R-WAE with MMD penalties.

    Attributes:
        dynamic_match: Samples that the MMD compares: single codes (`marginal`), or pairs of a code and the code before it
            (`joint`).
    """

    name: str = "rwae-mmd"
    dynamic_match: Literal["marginal", "joint"] = "marginal"


class RwaeMmd(HasActions):
    """The objective of R-WAE with MMD penalties:

    L = Σ_t E c(x_t, G(z^c, z^m_t)) + β1 · MMD²(Q_{z^c}, N(0, I)) + β2 · Σ_t MMD²(Q_{z^m_t}, P_{z^m_t | z̃^m_{<t}})

    z̃ are codes of the posterior. The prior's sample i depends on the history of posterior i, so the MMD leaves out pairs
    with equal i.
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
    """Return the squared MMD between static codes (B, static_dim) and draws from N(0, I), over the global batch."""
    return mmd(gather(static), gather(normal(static.shape, generator, static)))


def prior_draws(
    model: RWAE, dynamic: Tensor, generator: torch.Generator, action: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw codes from the dynamic prior, each given the posterior's codes before it.

    Args:
        model: The model.
        dynamic: Dynamic codes of the posterior, (B, T, d).
        generator: The generator of the draws.
        action: The action of each sequence, (B, A), or None in a model without actions.

    Returns:
        The draws and the variance of the prior, each (B, T, d).
    """
    mean, variance = model.prior(dynamic, action)
    return mean + variance.sqrt() * normal(mean.shape, generator, mean), variance


def with_history(codes: Tensor, history: Tensor) -> Tensor:
    """Concatenate each history code of step t − 1 with the code of step t: (B, T, 2d). The code before the first is zero.

    Args:
        codes: (B, T, d).
        history: (B, T, d).
    """
    return torch.cat([F.pad(history, (0, 0, 1, 0))[:, :-1], codes], dim=-1)


def prior_terms(weight: float, model: RWAE, output: Output) -> dict[str, Tensor]:
    """Return the term `prior`, the negative log-likelihood of detached codes under the dynamic prior.

    It is the sum over frames without the normal density's constant. Without a weight there is no term.

    Args:
        weight: The weight of the term.
        model: The model.
        output: The output of a pass.
    """
    if not weight:
        return {}
    codes, action = output.dynamic.sample.detach(), drawn_action(output)
    mean, variance = model.prior(codes, None if action is None else action.detach())
    negative_log_likelihood = ((codes - mean).square() / variance + variance.log()).sum((1, 2)).mean() / 2
    return {"prior": weight * negative_log_likelihood}


def dynamic_penalty(
    model: RWAE, dynamic: Tensor, generator: torch.Generator, action: Tensor | None = None, match: str = "marginal"
) -> Tensor:
    """Return the squared MMD between dynamic codes and draws of the dynamic prior, summed over frames: a scalar.

    It is computed over the global batch. The kernel's variance is the mean variance of the prior in each frame.

    Args:
        model: The model.
        dynamic: Dynamic codes of the posterior, (B, T, d).
        generator: The generator of the prior's draws.
        action: The action of each sequence, (B, A), or None in a model without actions.
        match: The setting `dynamic_match`.
    """
    draws, variance = prior_draws(model, dynamic, generator, action)
    scale = average(variance.detach().mean((0, 2)))
    q, p = gather(dynamic), gather(draws)
    if match == "joint":
        q, p = with_history(q, q), with_history(p, q)
    return mmd(q.transpose(0, 1), p.transpose(0, 1), scale, paired=True).sum()
