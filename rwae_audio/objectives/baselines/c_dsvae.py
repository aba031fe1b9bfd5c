"""The objective c-dsvae: DSVAE with a contrastive term for each code.

Bai, Wang, Gomes, "Contrastively Disentangled Sequential Variational Autoencoder", NeurIPS 2021.
"""

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
CHANNEL = 0.5  # standard deviation of the random equaliser, in standard deviations of a mel bin
WARP = 0.15  # largest relative stretch of the mel axis


@dataclass(frozen=True)
class CDsvaeSettings(ObjectiveSettings):
    """The settings of C-DSVAE."""

    name: str = "c-dsvae"


class CDsvae(Dsvae):
    """The terms of DSVAE, a contrastive term for each code, and the mutual information of both codes:

    + γ · NCE(z̄^c, z̄^c_+) + γ · NCE(z̄^m_{1:T}, z̄^m_{1:T,+}) + λ · mean_t I(z^c; z^m_t)

    z̄ are posterior means. z̄^c_+ is the mean for the same frames in another order, which changes the content and not the
    voice. z̄^m_+ is the mean for the same segment in another voice, with a random equaliser and a stretched mel axis. They
    stand in for the colour distortion and the blur of images in the paper. The equaliser has no effect if `dynamic_norm`
    is not "none". NCE is `contrast` over the batch, for which the T dynamic codes of a segment are one vector.
    """

    Settings = CDsvaeSettings

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        static_positives = shuffled_static(model, output, frames, generator).mean
        other_voice = warp_mels(equalised(frames, CHANNEL, generator), WARP, generator)
        dynamic_positives = model.encode_dynamic(other_voice, output.static.sample, None).mean

        def nce(codes: Tensor, positives: Tensor) -> Tensor:
            return contrast(gather(codes.flatten(1)), gather(positives.flatten(1)), TEMPERATURE)

        return {
            **super().forward(model, output, frames, generator),
            "static_contrast": CONTRAST * nce(output.static.mean, static_positives),
            "dynamic_contrast": CONTRAST * nce(output.dynamic.mean, dynamic_positives),
            "information": INFORMATION * shared_information(output).mean(),
        }
