"""R-WAE with MMD penalties (ICLR 2021, arXiv 2101.07496; the kernel is that of tolstikhin/wae)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.distributed import average, gather
from rwae_audio.divergences import mmd
from rwae_audio.model import RWAE, Output, normal
from rwae_audio.objectives.base import Objective, ObjectiveConfig, drawn_action, squared_error


class RwaeMmd(Objective):
    """L = Σ_t E c(x_t, G(z^c, z^m_t)) + β1 · MMD²(Q_{z^c}, N(0, I)) + β2 · Σ_t MMD²(Q_{z^m_t}, P_{z^m_t | z̃^m_{<t}})

    The prior's samples follow the posterior's history, so the pair i = j shares one and is left out.
    """

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        static = static_penalty(output.static.sample, generator)
        dynamic = dynamic_penalty(self.config, model, output.dynamic.sample, generator, drawn_action(output))
        return {
            "reconstruction": squared_error(output.reconstruction, frames),
            "static": self.config.static_weight * static,
            "dynamic": self.config.dynamic_weight * dynamic,
            **self.prior_terms(model, output),
            **self.action_terms(output, generator),
        }


def static_penalty(static: Tensor, generator: torch.Generator) -> Tensor:
    """MMD² between the aggregated posterior's samples (B, d) and as many of N(0, I), over the global batch."""
    return mmd(gather(static), gather(normal(static.shape, generator, static)))


def prior_draws(
    model: RWAE, dynamic: Tensor, generator: torch.Generator, action: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the prior draws after the posterior's history z̃^m_{<t} (and given a), and its variance, each (B, T, d)."""
    mean, variance = model.prior(dynamic, action)
    return mean + variance.sqrt() * normal(mean.shape, generator, mean), variance


def with_history(codes: Tensor, history: Tensor) -> Tensor:
    """Each code beside the one before it: (B, T, d), (B, T, d) → (B, T, 2d); a zero code stands before the first."""
    return torch.cat([F.pad(history, (0, 0, 1, 0))[:, :-1], codes], dim=-1)


def dynamic_penalty(
    config: ObjectiveConfig, model: RWAE, dynamic: Tensor, generator: torch.Generator, action: Tensor | None = None
) -> Tensor:
    """Σ_t MMD² between z̃^m_t and the prior's z^m_t given z̃^m_{<t}, over the global batch; `joint`: both beside z̃^m_{t-1}.

    dynamic: the posterior's samples, (B, T, d).
    """
    drawn, variance = prior_draws(model, dynamic, generator, action)
    scale = average(variance.detach().mean((0, 2))) if config.dynamic_scale == "prior" else 1.0
    q, p = gather(dynamic), gather(drawn)
    if config.dynamic_match == "joint":
        q, p = with_history(q, q), with_history(p, q)
    return mmd(q.transpose(0, 1), p.transpose(0, 1), scale, paired=True).sum()
