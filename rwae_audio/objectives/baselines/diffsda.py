"""The objective diffsda: the codes are what a denoiser of frames has to know.

Zisling, Naiman, Berman, Suwajanakorn, Azencot, "DiffSDA: Unsupervised Diffusion Sequential Disentanglement Across
Modalities", 2025, arXiv 2510.05717. Noise, scales and weights are those of Karras, Aittala, Aila, Laine, "Elucidating the
Design Space of Diffusion-Based Generative Models" (EDM), NeurIPS 2022. B sequences, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rwae_audio.model import RWAE, ModelConfig, Output, normal
from rwae_audio.model.decoder import Decoder
from rwae_audio.objectives.base import Objective, ObjectiveSettings, squared_error

DATA = 1.0  # σ_data, the deviation of normalised log-mels
# ln σ has the mean and the deviation of the released speech model, whose σ_data is 0.5: −0.4 + ln 2, and 1
LOG_MEAN, LOG_DEVIATION = 0.3, 1.0


@dataclass(frozen=True)
class DiffsdaSettings(ObjectiveSettings):
    """The settings of DiffSDA. It has no penalties, so `static_weight` and `dynamic_weight` have no effect."""

    name: str = "diffsda"


class Diffsda(Objective):
    """The weighted error of frames that are denoised given their codes, and the error of the decoder:

    Σ_t λ(σ_t) · c(x_t, D(x_t + σ_t·n_t, σ_t, z^c, z^m_t)) + Σ_t c(x_t, G(z̃^c, z̃^m_t)),    ln σ_t ~ N(0.3, 1)

    n is standard normal noise, and each frame has a σ of its own, as in the released code. λ is the weight of EDM. z̃ are
    codes without a gradient, so the encoders learn from the denoiser D alone. The decoder G is D at infinite noise, where
    D knows the codes alone. There is no KL term, so a learned variance falls to its lower bound.

    D is a decoder of the kind and the size of G; the paper's denoiser is larger and has skip connections and dropout. A
    recurrent D also reads earlier noised frames; the paper's reads each frame alone. The paper's codes come from one
    bidirectional LSTM; ours come from the two encoders of the model. The paper decodes by many steps from noise; G
    decodes in one step. The diffusion model of the codes, which is the paper's prior, is left out.

    Attributes:
        denoiser: The decoder that also reads the noised frame and ln σ beside each dynamic code.
    """

    Settings = DiffsdaSettings

    def __init__(self, config: DiffsdaSettings, model: ModelConfig) -> None:
        super().__init__(config, model)
        self.denoiser = Decoder(replace(model, dynamic_dim=model.dynamic_dim + model.n_mels + 1))

    def joint_parameters(self) -> list[nn.Parameter]:
        return list(self.denoiser.parameters())

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        static, dynamic = output.static.sample, output.dynamic.sample
        sigma = (LOG_MEAN + LOG_DEVIATION * normal((*frames.shape[:2], 1), generator, frames)).exp()
        noised = frames + sigma * normal(frames.shape, generator, frames)
        error = (self.denoised(static, dynamic, noised, sigma) - frames).square()
        weight = 1 / DATA**2 + 1 / sigma.square()
        return {
            "reconstruction": squared_error(model.decoder(static.detach(), dynamic.detach()), frames),
            "denoising": (weight * error).sum((1, 2)).mean(),
        }

    def denoised(self, static: Tensor, dynamic: Tensor, noised: Tensor, sigma: Tensor) -> Tensor:
        """Return the denoiser's estimate of frames, (B, T, n_mels), with the scales of EDM.

        Args:
            static: z^c, (B, static_dim).
            dynamic: z^m, (B, T, dynamic_dim).
            noised: The frames with noise, (B, T, n_mels).
            sigma: The deviation of the noise of each frame, (B, T, 1).
        """
        deviation = (sigma.square() + DATA**2).sqrt()  # of the noised frames
        state = self.denoiser(static, torch.cat([dynamic, noised / deviation, sigma.log() / 4], dim=-1))
        return (DATA / deviation).square() * noised + sigma * DATA / deviation * state
