"""The objective rwae-gan: R-WAE with adversarial critics on the codes.

Han et al., ICLR 2021, arXiv 2101.07496; WAE-GAN: Tolstikhin et al., ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.distributed import mean_gradients
from rwae_audio.model import RWAE, ModelConfig, Output, normal
from rwae_audio.objectives.actions import HasActions
from rwae_audio.objectives.base import drawn_action, squared_error
from rwae_audio.objectives.divergences import Critic, frozen
from rwae_audio.objectives.rwae_mmd import RwaeSettings, prior_draws, prior_terms


@dataclass(frozen=True)
class GanSettings(RwaeSettings):
    """The settings of R-WAE with latent critics."""

    name: str = "rwae-gan"


class RwaeGan(HasActions):
    """The objective of R-WAE with critics D^c and D^m on the static and the dynamic codes:

    L = Σ_t E c(x_t, G) − β1 · E log D^c(z̃^c) + β2 · Σ_t [− E log D^m(z̃^m_t | z̃^m_{<t}) − E log(1 − D^m(z^m_t | z̃^m_{<t}))]

    z̃ are codes of the posterior, z^m_t is a draw of the dynamic prior. The critics minimise the binary cross-entropy, with
    1 for the prior and 0 for the posterior. The encoders' loss is the non-saturating one. The last term trains the
    dynamic prior, which is learned, to resemble the posterior.

    Attributes:
        static_critic: D^c, from codes (B, static_dim) to logits (B, 1).
        dynamic_critic: D^m, from codes (B, T, dynamic_dim) and their history to logits (B, T, 1).
    """

    Settings = GanSettings

    def __init__(self, config: GanSettings, model: ModelConfig) -> None:
        super().__init__(config, model)
        self.static_critic = Critic(model.static_dim, 1)
        self.dynamic_critic = Critic(model.dynamic_dim, 1, history=True)

    def step_critics(
        self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            static, dynamic = output.static.sample.detach(), output.dynamic.sample.detach()
            static_draws = normal(static.shape, generator, static)
            dynamic_draws, _ = prior_draws(model, dynamic, generator, drawn_action(output))
        static_loss = real(self.static_critic(static_draws)) + fake(self.static_critic(static))
        self.static_critic.step(static_loss, mean_gradients)
        dynamic_loss = real(self.dynamic_critic(dynamic_draws, dynamic)) + fake(self.dynamic_critic(dynamic, dynamic))
        self.dynamic_critic.step(dynamic_loss, mean_gradients)
        return {"static_critic": static_loss.detach(), "dynamic_critic": dynamic_loss.detach()}

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "reconstruction": squared_error(output.reconstruction, frames),
            **self.adversarial_terms(model, output, generator),
            **prior_terms(self.config.prior_weight, model, output),
        }

    def adversarial_terms(self, model: RWAE, output: Output, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the terms `static` and `dynamic`, which train encoders and prior against the critics."""
        dynamic = output.dynamic.sample
        draws, _ = prior_draws(model, dynamic, generator, drawn_action(output))
        with frozen(self.static_critic, self.dynamic_critic):
            static_term = real(self.static_critic(output.static.sample))
            # detached: a code is trained by its own score, not by the scores of later codes that depend on it
            history = dynamic.detach()
            dynamic_term = real(self.dynamic_critic(dynamic, history)) + fake(self.dynamic_critic(draws, history))
        return {
            "static": self.config.static_weight * static_term,
            "dynamic": self.config.dynamic_weight * dynamic.shape[1] * dynamic_term,
        }


def real(logits: Tensor) -> Tensor:
    """Return the loss −E log σ(logits) of a critic for samples of the prior; low if it recognises them as such."""
    return F.softplus(-logits).mean()


def fake(logits: Tensor) -> Tensor:
    """Return the loss −E log(1 − σ(logits)) of a critic for codes of the posterior; low if it recognises them as such."""
    return F.softplus(logits).mean()
