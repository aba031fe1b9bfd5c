"""R-WAE+: the paper's objective, and what its model says besides: a sequence has *one* static code.

So any two windows of an utterance must give the same code, a constraint on the coupling that the paper never uses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.distributed import gather, local, world_size
from rwae_audio.divergences import frozen, hsic, mmd
from rwae_audio.model import RWAE, ModelConfig, Output
from rwae_audio.objectives.base import Objective, ObjectiveConfig
from rwae_audio.objectives.rwae_gan import RwaeGan
from rwae_audio.objectives.rwae_mmd import dynamic_penalty, static_penalty

SHARPNESS = 2.0  # of the kernel exp(−t · ‖x − y‖²) on the unit sphere, Wang & Isola's t


class RwaePlus(Objective):
    """L = Σ_t E c(x_t, G(z^c, z^m_t)) + β1 · D(Q_{z^c}, P_{z^c}) + β2 · Σ_t MMD²(Q_{z^m_t}, P_{z^m_t}) + β3 · pair(z^c, z^c')

    z^c' is the code of another window of the same utterance. D is the MMD² of R-WAE for a Gaussian prior, and
    `uniformity` for one on the sphere. Terms that have no weight unless they are given one: `swap`, `independence`,
    `critics`. Raises ValueError where the static code does not come from `another` window.
    """

    pairs = True

    def __init__(self, config: ObjectiveConfig, model: ModelConfig) -> None:
        super().__init__(config, model)
        if model.static_from != "another":
            raise ValueError(f'[objective] rwae-plus needs static_from = "another"; it is "{model.static_from}"')
        self.sphere = model.static_prior == "sphere"
        if config.critic_weight and self.sphere:
            raise ValueError(
                '[objective] critic_weight is of critics for a Gaussian; expected static_prior = "gaussian"'
            )
        self.critics = RwaeGan(config, model) if config.critic_weight else None

    def step_critics(self, model: RWAE, output: Output, generator: torch.Generator) -> dict[str, Tensor]:
        return {} if self.critics is None else self.critics.step_critics(model, output, generator)

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        assert output.second is not None
        first, second = gather(output.static.sample), gather(output.second.sample)
        if self.sphere:
            static = (uniformity(first) + uniformity(second)) / 2
        else:
            static = static_penalty(output.static.sample, generator)
        if self.config.pair_cost == "contrast":
            pair = contrast(first, second, self.config.temperature)
        else:
            pair = (first - second).square().mean(1).mean()
        return {
            "reconstruction": cost(output.reconstruction, frames, self.config.cost),
            "static": self.config.static_weight * static,
            "dynamic": self.config.dynamic_weight
            * dynamic_penalty(self.config, model, output.dynamic.sample, generator),
            "pair": self.config.pair_weight * pair,
            **self.further_terms(model, output, generator),
        }

    def further_terms(self, model: RWAE, output: Output, generator: torch.Generator) -> dict[str, Tensor]:
        """Those that have a weight."""
        config, terms = self.config, {}
        if config.swap_weight:
            terms["swap"] = config.swap_weight * swap(model, output, config.temperature)
        if config.independence_weight:
            terms["independence"] = config.independence_weight * dependence(output, config.independence, generator)
        if self.critics is not None:
            judged = self.critics.judged(model, output, generator)
            terms["critics"] = config.critic_weight * (judged["static"] + judged["dynamic"])
        return terms


def cost(reconstruction: Tensor, frames: Tensor, kind: str) -> Tensor:
    """Σ_t c(x_t, G(z^c, z^m_t)), averaged over the batch, c by ObjectiveConfig's `cost`. Both (B, T, n_mels) → scalar."""
    error = reconstruction - frames
    if kind == "absolute":
        return error.abs().sum((1, 2)).mean()
    total = error.square().sum((1, 2)).mean()
    return total + error.diff(dim=1).square().sum((1, 2)).mean() if kind == "deltas" else total


def swap(model: RWAE, output: Output, temperature: float) -> Tensor:
    """Is the voice in what is decoded? `contrast` of the batch's static codes with those that the static encoder, taken as
    it is, reads off decodings of each with another sequence's dynamic codes: a scalar, nats."""
    static, dynamic = output.static.sample, output.dynamic.sample
    others = gather(dynamic).roll(1, 0)[local(len(dynamic) * world_size())]
    decoded = model.decoder(static, others)
    training = model.static_encoder.training
    model.static_encoder.eval()  # its statistics are those of speech
    with frozen(model.static_encoder):
        read = model.static_encoder(decoded, None).mean
    model.static_encoder.train(training)
    return contrast(gather(read), gather(static.detach()), temperature)


def dependence(output: Output, kind: str, generator: torch.Generator) -> Tensor:
    """What the posterior means of z^c and, averaged over a segment's frames, of z^m say of each other, both scaled to mean 0
    and variance 1 over the batch: `hsic`, or the `mmd`² from the batch with the second ones shuffled. A scalar."""
    static, dynamic = (
        (code - code.mean(0)) / code.std(0).clamp_min(1e-5)
        for code in (gather(output.static.mean), gather(output.dynamic.mean.mean(1)))
    )
    if kind == "hsic":
        return hsic(static, dynamic)
    order = torch.randperm(len(dynamic), generator=generator).to(dynamic.device)
    return mmd(torch.cat([static, dynamic], 1), torch.cat([static, dynamic[order]], 1))


def uniformity(codes: Tensor) -> Tensor:
    """log mean_{i≠j} exp(−t ‖x_i − x_j‖²) of codes (n, d) scaled to the unit sphere: a scalar.

    The MMD² between codes and the uniform law, but for the logarithm: with that law its cross term is a constant. Wang &
    Isola, "Understanding contrastive representation learning through alignment and uniformity on the hypersphere", 2020.
    """
    return (-SHARPNESS * torch.pdist(F.normalize(codes, dim=1)).square()).logsumexp(0) - torch.tensor(
        len(codes) * (len(codes) - 1) / 2, dtype=codes.dtype
    ).log()


def contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """InfoNCE, both ways: which of the batch's second windows belongs to a first one? Codes (n, d) → scalar, nats.

    van den Oord, Li, Vinyals, "Representation learning with contrastive predictive coding", 2018; by the cosine.
    """
    similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    own = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
