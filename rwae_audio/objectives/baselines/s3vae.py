"""The self-supervised sequential VAE: Zhu, Min, Kadav, Graf, "S3VAE: Self-Supervised Sequential VAE for Representation
Disentanglement and Data Generation", CVPR 2020."""

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

CONSISTENCY = 10.0  # λ1, the weight of the triplets
MARGIN = 1.0  # of the triplets
PREDICTION = 10.0  # λ2
INFORMATION = 1.0  # λ3


@dataclass(frozen=True)
class S3vaeSettings(ObjectiveSettings):
    """The settings of S3VAE."""

    name: str = "s3vae"


class S3vae(Dsvae):
    """The terms of DSVAE, and three by which the sequence supervises itself:

    + λ1 · max(0, ‖z^c − z^c_+‖ − ‖z^c − z^c_−‖ + margin)        z^c_+ of the same frames in another order
    + λ2 · Σ_t (w·z^m_t + b − e_t)²                              e_t: the frame's energy, the mean of its log-mels
    + λ3 · Σ_t I(z^c; z^m_t)                                     over the batch

    z^c_− is the code of the sequence before it in the batch, now and then of the same utterance. The paper has z^m_t predict a
    frame's volume; we take the normalised log-mels' mean as it is, where classes of it would need thresholds that nobody
    gives. The predictor (w, b) is linear and learned with the model.
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
    """Return the static posterior of the frames that the static encoder saw, in another order.

    frames: (B, T, n_mels), those of the pass.
    """
    seen = frames if output.static_frames is None else output.static_frames
    return model.static_encoder(shuffled(seen, generator), generator)


def shared_information(output: Output) -> Tensor:
    """Return I(z^c; z^m_t) over the global batch, (T,), nats."""
    mean, variance, sample = (gather(part) for part in output.static)
    means, variances, samples = (gather(part).transpose(0, 1) for part in output.dynamic)
    return mutual_information(log_densities(sample, mean, variance), log_densities(samples, means, variances))
