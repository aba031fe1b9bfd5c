"""The objective R-WAE+: the paper's, with a contrast that holds a sequence to *one* static code.

Any two windows of an utterance must give the same code. The paper's model implies it, and its objective never uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.distributed import gather, local, world_size
from rwae_audio.model import RWAE, ModelConfig, Output
from rwae_audio.objectives.base import Objective, ObjectiveSettings, squared_error
from rwae_audio.objectives.divergences import frozen
from rwae_audio.objectives.rwae_mmd import dynamic_penalty, static_penalty
from rwae_audio.settings import at_least

TEMPERATURE = 0.1  # of both contrasts


@dataclass(frozen=True)
class PlusSettings(ObjectiveSettings):
    """The settings of R-WAE+.

    Attributes:
        pair_weight: β3, the weight of the contrast between the static codes of two windows of an utterance.
        swap_weight: Weight of the contrast with static codes read back from decodings of other utterances' dynamic codes.
    """

    name: str = "rwae-plus"
    pair_weight: float = at_least(0, 100.0)
    swap_weight: float = at_least(0, 0.0)


class RwaePlus(Objective):
    """The objective of R-WAE+:

    L = Σ_t E c(x_t, G) + β1 · MMD²(Q_{z^c}, N(0, I)) + β2 · Σ_t MMD²(Q_{z^m_t}, P_{z^m_t}) + β3 · NCE(z^c, z^c') [+ swap]

    z^c' is the code of another window of the same utterance. Raises ValueError where the static code does not come from
    `another` window.
    """

    Settings = PlusSettings
    pairs = True

    def __init__(self, config: PlusSettings, model: ModelConfig) -> None:
        super().__init__(config, model)
        if model.static_from != "another":
            raise ValueError(f'[objective] rwae-plus needs static_from = "another"; it is "{model.static_from}"')

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        assert output.second is not None
        config, first, second = self.config, gather(output.static.sample), gather(output.second.sample)
        static = static_penalty(output.static.sample, generator)
        dynamic = dynamic_penalty(model, output.dynamic.sample, generator)
        terms = {
            "reconstruction": squared_error(output.reconstruction, frames),
            "static": config.static_weight * static,
            "dynamic": config.dynamic_weight * dynamic,
            "pair": config.pair_weight * contrast(first, second, TEMPERATURE),
        }
        if config.swap_weight:
            terms["swap"] = config.swap_weight * swap(model, output, TEMPERATURE)
        return terms


def swap(model: RWAE, output: Output, temperature: float) -> Tensor:
    """Return the contrast of static codes with those read back from decodings, a scalar, nats.

    Each static code is decoded with the dynamic codes of another sequence. The static encoder that reads the decoding is
    taken as it is.
    """
    static, dynamic = output.static.sample, output.dynamic.sample
    others = gather(dynamic).roll(1, 0)[local(len(dynamic) * world_size())]
    decoded = model.decoder(static, others)
    training = model.static_encoder.training
    model.static_encoder.eval()  # its statistics are those of speech
    with frozen(model.static_encoder):
        read = model.static_encoder(decoded, None).mean
    model.static_encoder.train(training)
    return contrast(gather(read), gather(static.detach()), temperature)


def contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE, both ways, of codes (n, d) of the first and the second windows of a batch: a scalar, nats.

    van den Oord, Li, Vinyals, "Representation learning with contrastive predictive coding", 2018; by the cosine.
    """
    similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    own = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
