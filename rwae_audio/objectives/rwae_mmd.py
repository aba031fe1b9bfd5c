"""R-WAE with MMD penalties (ICLR 2021, arXiv 2101.07496; the kernel is that of tolstikhin/wae)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.divergences import mmd
from rwae_audio.model import RWAE, Output, normal
from rwae_audio.objectives.config import ObjectiveConfig, squared_error


def rwae_mmd(
    config: ObjectiveConfig, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Weighted terms whose sum is the loss, for frames (B, T, n_mels):

    L = Σ_t E c(x_t, G(z^c, z^m_t)) + β1 · MMD²(Q_{z^c}, N(0, I)) + β2 · Σ_t MMD²(Q_{z^m_t}, P_{z^m_t | z̃^m_{<t}})

    The prior's samples follow the posterior's history, so the pair i = j shares one and is left out.
    """
    return {
        "reconstruction": squared_error(output.reconstruction, frames),
        "static": config.static_weight * static_penalty(output.static.sample, generator),
        "dynamic": config.dynamic_weight * dynamic_penalty(config, model, output.dynamic.sample, generator),
    }


def static_penalty(static: Tensor, generator: torch.Generator) -> Tensor:
    """MMD² between the aggregated posterior's samples (B, d) and as many of N(0, I)."""
    return mmd(static, normal(static.shape, generator, static))


def dynamic_penalty(config: ObjectiveConfig, model: RWAE, dynamic: Tensor, generator: torch.Generator) -> Tensor:
    """Σ_t MMD² between z̃^m_t and the prior's z^m_t given z̃^m_{<t}; `joint`: both beside z̃^m_{t-1}.

    dynamic: the posterior's samples, (B, T, d).
    """
    mean, variance = model.prior(dynamic)
    drawn = mean + variance.sqrt() * normal(mean.shape, generator, mean)
    scale = variance.detach().mean((0, 2)) if config.dynamic_scale == "prior" else 1.0
    q, p = dynamic.transpose(0, 1), drawn.transpose(0, 1)
    if config.dynamic_match == "joint":
        history = F.pad(q, (0, 0, 0, 0, 1, 0))[:-1]
        q, p = torch.cat([history, q], dim=-1), torch.cat([history, p], dim=-1)
    return mmd(q, p, scale, paired=True).sum()
