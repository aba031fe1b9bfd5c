"""The objective s3vae: DSVAE with three self-supervised terms.

Zhu, Min, Kadav, Graf, "S3VAE: Self-Supervised Sequential VAE for Representation Disentanglement and Data Generation",
CVPR 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.data.perturb import shuffled
from rwae_audio.distributed import gather
from rwae_audio.model import RWAE, ModelConfig, Output, Posterior
from rwae_audio.objectives.base import ObjectiveSettings
from rwae_audio.objectives.baselines.dsvae import Dsvae
from rwae_audio.objectives.divergences import log_densities, mutual_information

CONSISTENCY = 10.0  # λ1, the weight of the triplet loss
MARGIN = 1.0  # margin of the triplet loss
PREDICTION = 10.0  # λ2, the weight of the prediction of energy
INFORMATION = 1.0  # λ3, the weight of the mutual information


@dataclass(frozen=True)
class S3vaeSettings(ObjectiveSettings):
    """The settings of S3VAE."""

    name: str = "s3vae"


class S3vae(Dsvae):
    """The terms of DSVAE, and three self-supervised terms:

    + λ1 · max(0, ‖z^c − z^c_+‖ − ‖z^c − z^c_−‖ + margin)
    + λ2 · Σ_t (w·z^m_t + b − e_t)²
    + λ3 · Σ_t I(z^c; z^m_t)

    z^c_+ is the code of the same frames in another order. z^c_− is the code of the sequence before in the batch, which can
    be from the same utterance. e_t is the energy of a frame, the mean of its normalised log-mels. A linear layer (w, b),
    learned with the model, predicts it. The paper predicts classes of the volume but gives no thresholds for them. The
    mutual information is estimated over the batch.

    Attributes:
        energy: The linear layer that predicts the energy.
    """

    Settings = S3vaeSettings

    def __init__(self, config: S3vaeSettings, model: ModelConfig) -> None:
        super().__init__(config, model)
        self.energy = nn.Linear(model.dynamic_dim, 1)

    def joint_parameters(self) -> list[nn.Parameter]:
        return list(self.energy.parameters())

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        positive = gather(shuffled_static(model, output, frames, generator).sample)
        static = gather(output.static.sample)
        triplet = F.triplet_margin_loss(static, positive, static.roll(1, 0), margin=MARGIN)
        predicted = self.energy(output.dynamic.sample)[..., 0]
        return {
            **super().forward(model, output, frames, generator),
            "consistency": CONSISTENCY * triplet,
            "prediction": PREDICTION * (predicted - frames.mean(2)).square().sum(1).mean(),
            "information": INFORMATION * shared_information(output).sum(),
        }


def shuffled_static(model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> Posterior:
    """Return the static posterior of the static encoder's input with its frames in random order.

    Args:
        model: The model.
        output: The output of a pass.
        frames: The frames of the pass, (B, T, n_mels), the input if `output` has no window of its own.
        generator: The generator of the order and of the draw.
    """
    window = frames if output.static_frames is None else output.static_frames
    return model.static_encoder(shuffled(window, generator), generator)


def shared_information(output: Output) -> Tensor:
    """Return the mutual information I(z^c; z^m_t) of each frame over the global batch, (T,), in nats."""
    mean, variance, sample = (gather(part) for part in output.static)
    means, variances, samples = (gather(part).transpose(0, 1) for part in output.dynamic)
    return mutual_information(log_densities(sample, mean, variance), log_densities(samples, means, variances))
