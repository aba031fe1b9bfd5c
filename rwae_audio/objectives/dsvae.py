"""The recurrent VAE's objective on the same networks: Li & Mandt, "Disentangled Sequential Autoencoder", ICML 2018."""

from __future__ import annotations

import torch
from torch import Tensor

from rwae_audio.divergences import kl_gaussians
from rwae_audio.model import RWAE, Output
from rwae_audio.objectives.config import ObjectiveConfig, squared_error


def dsvae(
    config: ObjectiveConfig, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Weighted terms whose sum is the negative evidence bound (up to a constant), for frames (B, T, n_mels):

    −E log N(x | G, ½·I) + β1 · KL(q(z^c|x) ‖ N(0, I)) + β2 · Σ_t KL(q(z^m_t|x_{≤t}) ‖ p(z^m_t | z̃^m_{<t})), q factorised.
    Needs posteriors with a variance of their own. `generator` is not used: the KL terms are in closed form.
    """
    if "deterministic" in (model.config.static_posterior, model.config.dynamic_posterior):
        raise ValueError("[objective] dsvae needs posteriors with a variance; expected `fixed` or `learned`")
    static, dynamic = output.static, output.dynamic
    prior_mean, prior_variance = model.prior(dynamic.sample)
    static_kl = kl_gaussians(static.mean, static.variance, 0.0, 1.0).mean()
    dynamic_kl = kl_gaussians(dynamic.mean, dynamic.variance, prior_mean, prior_variance).sum(1).mean()
    return {
        "reconstruction": squared_error(output.reconstruction, frames),
        "static": config.static_weight * static_kl,
        "dynamic": config.dynamic_weight * dynamic_kl,
    }
