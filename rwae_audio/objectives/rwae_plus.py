"""The objective R-WAE+: R-WAE's with MMD penalties, and a contrast between the static codes of two windows of an utterance.

Any two windows of an utterance must give the same code. The paper's model implies it, and its objective never uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.distributed import gather, local, world_size
from rwae_audio.model import RWAE, ModelConfig, Output
from rwae_audio.objectives.base import Objective, ObjectiveSettings, squared_error
from rwae_audio.objectives.divergences import frozen
from rwae_audio.objectives.frame_critic import FrameCritic
from rwae_audio.objectives.listeners import Listeners, read_listeners
from rwae_audio.objectives.rwae_mmd import dynamic_penalty, static_penalty
from rwae_audio.settings import at_least

if TYPE_CHECKING:
    from rwae_audio.data.features import Normaliser
    from rwae_audio.data.store import Sampler

TEMPERATURE = 0.1  # of both contrasts
FEATURES = 2.0  # the weight of the matching of features, against 1 for the critic's score
PHONES, VOICES = 300.0, 800.0  # the weights of what each listener misses (recipes/voice_conversion/NOTES.md)


@dataclass(frozen=True)
class PlusSettings(ObjectiveSettings):
    """The settings of R-WAE+.

    A swap is the decoding of an utterance's dynamic codes with the static code of another one.

    Attributes:
        pair_weight: β3, the weight of the contrast between the static codes of two windows of an utterance.
        swap_weight: Weight of the contrast between the static code of a swap and the static code that it was decoded with.
            With it, speech must also be decoded again from the dynamic codes of its swap.
        critic_weight: Weight of a critic that tells speech from reconstructions and swaps.
        listeners: The file of two listeners, from recipes/voice_conversion/train_listeners.py. They hear whether
            reconstructions and swaps keep the phones and have the wanted voice. "" for none.
    """

    name: str = "rwae-plus"
    pair_weight: float = at_least(0, 100.0)
    swap_weight: float = at_least(0, 0.0)
    critic_weight: float = at_least(0, 0.0)
    listeners: str = ""


class RwaePlus(Objective):
    """The objective of R-WAE+:

    L = Σ_t E c(x_t, G) + β1 · MMD²(Q_{z^c}, N(0, I)) + β2 · Σ_t MMD²(Q_{z^m_t}, P_{z^m_t}) + β3 · NCE(z^c, z^c') [+ swaps]

    z^c' is the code of another window of the same utterance. With swaps x' = G(z^c of another utterance, z^m) there are up to
    five more terms: NCE(z^c(x'), z^c of the other), Σ_t c(x_t, G(z^c, z^m(x'))), a critic's loss on G and x', and what two
    listeners miss in G and x', the phones of x and the wanted voice.

    Raises ValueError where the static code does not come from `another` window.
    """

    Settings = PlusSettings
    pairs = True

    def __init__(self, config: PlusSettings, model: ModelConfig) -> None:
        super().__init__(config, model)
        if model.static_from != "another":
            raise ValueError(
                f'[model] static_from is "{model.static_from}"; expected "another" for the objective rwae-plus'
            )
        self.critic = FrameCritic(model.n_mels, model.static_dim) if config.critic_weight else None
        self.listeners: Listeners | None = None

    def meet(self, sampler: Sampler, normaliser: Normaliser, seed: int) -> None:
        if self.config.listeners:
            self.listeners = read_listeners(self.config.listeners, normaliser)

    def step_critics(
        self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if self.critic is None:
            return {}
        own, dynamic = output.static.sample.detach(), output.dynamic.sample.detach()
        other = of_others(own)
        with torch.no_grad():
            swapped = model.decoder(other, dynamic)
        return {"critic": self.critic.step(frames, own, output.reconstruction.detach(), swapped, other)}

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
        if config.swap_weight or config.critic_weight or self.listeners is not None:
            terms |= self.swap_terms(model, output, frames, generator)
        return terms

    def swap_terms(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the terms of swaps that have a weight, and those of the listeners."""
        config, own = self.config, output.static.sample
        other = of_others(own)
        swapped, terms = model.decoder(other, output.dynamic.sample), {}
        if config.swap_weight:
            decoded_static = gather(read_back(model, swapped))
            terms["swap"] = config.swap_weight * contrast(decoded_static, gather(other.detach()), TEMPERATURE)
            dynamic = model.encode_dynamic(swapped.detach(), own, generator).sample
            terms["back"] = squared_error(model.decoder(own, dynamic), frames)
        if self.critic is not None:
            with torch.no_grad():
                wanted = self.critic(frames, own).features
            with frozen(self.critic):
                scores = self.critic(output.reconstruction, own.detach())
                swap_scores = self.critic(swapped, other.detach())
            distances = [(a - b).abs().mean() for a, b in zip(scores.features, wanted, strict=True)]
            terms["features"] = FEATURES * config.critic_weight * torch.stack(distances).mean()
            for name, score in {"critic_own": scores.score, "critic_swap": swap_scores.score}.items():
                terms[name] = config.critic_weight * (1 - score).square().mean()
        return {**terms, **self.listener_terms(output, swapped, frames)}

    def listener_terms(self, output: Output, swapped: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """Return the terms of the listeners, {} without listeners.

        Args:
            output: The output of a pass.
            swapped: The swap of each utterance, with the static code of the one before it, (B, T, n_mels).
            frames: The normalised frames to reconstruct, (B, T, n_mels).
        """
        listeners = self.listeners
        if listeners is None:
            return {}
        assert output.static_frames is not None
        with torch.no_grad():
            phones, voices = listeners.phone(frames), listeners.voice(output.static_frames)
        return {
            "phones_own": PHONES * listeners.lost_words(output.reconstruction, phones),
            "phones_swap": PHONES * listeners.lost_words(swapped, phones),
            "voice_own": VOICES * listeners.lost_voices(output.reconstruction, voices),
            "voice_swap": VOICES * listeners.lost_voices(swapped, of_others(voices)),
        }


def of_others(codes: Tensor) -> Tensor:
    """Return the codes (B, d) of other utterances of the global batch, one for each of the codes (B, d)."""
    return gather(codes).roll(1, 0)[local(len(codes) * world_size())]


def read_back(model: RWAE, decoded: Tensor) -> Tensor:
    """Return the static codes (B, static_dim) of decoded frames (B, T, n_mels), by the static encoder as it is.

    Neither its weights nor its statistics learn from them.
    """
    training = model.static_encoder.training
    model.static_encoder.eval()  # its statistics are those of speech
    with frozen(model.static_encoder):
        read = model.static_encoder(decoded, None).mean
    model.static_encoder.train(training)
    return read


def contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE, both ways, of codes (n, d) of the first and the second windows of a batch: a scalar, nats.

    van den Oord, Li, Vinyals, "Representation learning with contrastive predictive coding", 2018; by the cosine.
    """
    similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    own = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
