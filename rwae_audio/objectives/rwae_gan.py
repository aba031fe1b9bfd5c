"""R-WAE with latent critics (ICLR 2021, arXiv 2101.07496; WAE-GAN: Tolstikhin et al., ICLR 2018)."""

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
    """The objective of R-WAE with latent critics:

    L = Σ_t E c(x_t, G) − β1 · E log D^c(z̃^c) + β2 · Σ_t [− E log D^m(z̃^m_t | z̃^m_{<t}) − E log(1 − D^m(z^m_t | z̃^m_{<t}))]

    The critics D minimise BCE(prior, 1) + BCE(posterior, 0); the encoder's loss is the non-saturating one. The dynamic
    prior is learned, so it moves towards the posterior as the posterior moves towards it: its draws are the last term.
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
            drawn_static = normal(static.shape, generator, static)
            drawn_dynamic, _ = prior_draws(model, dynamic, generator, drawn_action(output))
        static_loss = real(self.static_critic(drawn_static)) + fake(self.static_critic(static))
        self.static_critic.step(static_loss, mean_gradients)
        dynamic_loss = real(self.dynamic_critic(drawn_dynamic, dynamic)) + fake(self.dynamic_critic(dynamic, dynamic))
        self.dynamic_critic.step(dynamic_loss, mean_gradients)
        return {"static_critic": static_loss.detach(), "dynamic_critic": dynamic_loss.detach()}

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "reconstruction": squared_error(output.reconstruction, frames),
            **self.judged(model, output, generator),
            **prior_terms(self.config.prior_weight, model, output),
        }

    def judged(self, model: RWAE, output: Output, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the terms `static` and `dynamic` by the critics of both codes."""
        dynamic = output.dynamic.sample
        drawn, _ = prior_draws(model, dynamic, generator, drawn_action(output))
        with frozen(self.static_critic, self.dynamic_critic):
            static_term = real(self.static_critic(output.static.sample))
            # the history is given: a code is judged for what it is, not for how it makes later ones look
            history = dynamic.detach()
            dynamic_term = real(self.dynamic_critic(dynamic, history)) + fake(self.dynamic_critic(drawn, history))
        return {
            "static": self.config.static_weight * static_term,
            "dynamic": self.config.dynamic_weight * dynamic.shape[1] * dynamic_term,
        }


def real(logits: Tensor) -> Tensor:
    """Return −E log σ(logits), which is low where the critic takes the samples for the prior's."""
    return F.softplus(-logits).mean()


def fake(logits: Tensor) -> Tensor:
    """Return −E log(1 − σ(logits)), which is low where the critic takes the samples for the posterior's."""
    return F.softplus(logits).mean()
