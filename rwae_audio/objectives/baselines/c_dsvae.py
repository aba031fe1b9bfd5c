"""The contrastive VAE: Bai, Wang, Gomes, "Contrastively Disentangled Sequential Variational Autoencoder", NeurIPS 2021."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rwae_audio.data.perturb import equalised, warp_mels
from rwae_audio.distributed import gather
from rwae_audio.model import RWAE, Output
from rwae_audio.objectives.base import ObjectiveSettings
from rwae_audio.objectives.baselines.dsvae import Dsvae
from rwae_audio.objectives.baselines.s3vae import INFORMATION, shared_information, shuffled_static
from rwae_audio.objectives.rwae_plus import contrast

CONTRAST = 1.0  # γ, the weight of both contrasts
TEMPERATURE = 0.5  # of both contrasts
CHANNEL = 0.5  # standard deviation of the other voice's smooth curve over the mel axis, in deviations of a bin
WARP = 0.15  # its vocal tract: the mel axis is stretched by up to this


@dataclass(frozen=True)
class CDsvaeSettings(ObjectiveSettings):
    """The settings of C-DSVAE."""

    name: str = "c-dsvae"


class CDsvae(Dsvae):
    """The terms of DSVAE, a contrast for each code, and what they say of each other:

    + γ · NCE(z̄^c, z̄^c_+) + γ · NCE(z̄^m_{1:T}, z̄^m_{1:T,+}) + λ · mean_t I(z^c; z^m_t)

    z̄ are the posterior means. z̄^c_+ is that of the same frames in another order (what is said is destroyed, who speaks is
    kept), z̄^m_+ that of the same segment in another voice: smoothly equalised and with its mel axis warped, our stand-in
    for the paper's colour and blur. NCE is `contrast` over the batch, both ways, by the cosine, and T codes in a row are
    one vector. A dynamic encoder whose `dynamic_norm` is not `none` has the equaliser taken out already.
    """

    Settings = CDsvaeSettings

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        same_voice = shuffled_static(model, output, frames, generator).mean
        other_voice = warp_mels(equalised(frames, CHANNEL, generator), WARP, generator)
        same_words = model.encode_dynamic(other_voice, output.static.sample, None).mean

        def told_apart(codes: Tensor, positives: Tensor) -> Tensor:
            nce = contrast(gather(codes.flatten(1)), gather(positives.flatten(1)), TEMPERATURE)
            return CONTRAST * nce

        return {
            **super().forward(model, output, frames, generator),
            "static_contrast": told_apart(output.static.mean, same_voice),
            "dynamic_contrast": told_apart(output.dynamic.mean, same_words),
            "information": INFORMATION * shared_information(output).mean(),
        }
