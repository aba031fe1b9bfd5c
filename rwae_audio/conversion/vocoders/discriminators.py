"""Discriminators, which distinguish recorded speech from a vocoder's output, and the adversarial losses of the vocoder.

    spectrograms   Jang et al., "UnivNet", Interspeech 2021, arXiv 2106.07889: log-magnitudes at three resolutions
    periods        Kong, Kim, Bae, "HiFi-GAN", NeurIPS 2020, arXiv 2010.05646: every p-th sample side by side

The losses are those of Siuzdak, "Vocos", ICLR 2024, arXiv 2306.00814. They are hinge losses, and the distance between the
states of the layers for generated and for recorded samples. The input of a discriminator, a representation of the samples,
is called its *picture*. Pictures, scores and losses are float32. The layers may run in bfloat16 (see Network); then their
states and the differences of states are bfloat16.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from rwae_audio.conversion.vocoders.spectra import SIZES, Spectra
from rwae_audio.model.layers import over_time
from rwae_audio.model.posterior import Network
from rwae_audio.objectives.divergences import frozen

PERIODS = (2, 3, 5, 7, 11)
SLOPE = 0.1  # of the leaky ReLUs
FLOOR = 1e-3  # magnitudes under this are treated as silence


class Judgement(NamedTuple):
    """The output of a discriminator for samples.

    Attributes:
        score: The similarity to recorded speech, at several positions in the samples, float32.
        states: The states of each layer, in the precision of the layers.
    """

    score: Tensor
    states: list[Tensor]


class Discriminator(Network):
    """The base of all discriminators: strided convolutions over a picture of samples, and a last convolution."""

    layers: nn.ModuleList
    last: nn.Module

    def picture(self, spectra: Spectra) -> Tensor:
        """Return the picture of samples, which is the input of the layers."""
        raise NotImplementedError

    def convolved(self, layer: nn.Module, states: Tensor) -> Tensor:
        """Return the output of a layer for states or for a picture."""
        return layer(states)

    def forward(self, picture: Tensor) -> Judgement:
        """Return the score and the states of all layers for a picture."""
        states, all_states = picture, []
        for layer in self.layers:
            states = F.leaky_relu(self.convolved(layer, states), SLOPE, inplace=True)
            all_states.append(states)
        return Judgement(self.convolved(self.last, states), all_states)


class SpectrogramDiscriminator(Discriminator):
    """A discriminator with strided convolutions over time and frequency of log-magnitudes (B, 1, T, bins)."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        steps = ((1, 2), (1, 2), (2, 2), (1, 2))
        widths = (1, width // 2, width, width, width)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (3, 9), step, padding=(1, 4)))
            for before, after, step in zip(widths[:-1], widths[1:], steps, strict=True)
        )
        self.last = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def picture(self, spectra: Spectra) -> Tensor:
        """Return the log-magnitudes of samples, (B, 1, T, bins).

        The memory format is channels-last, which the layers keep. Otherwise they take half as long again on a CPU. Weights
        keep their format, since a fused optimizer needs weights and averages of one format, also after a checkpoint.
        """
        picture = (spectra.power(self.size) + FLOOR**2).log() / 2
        return picture[:, None].to(memory_format=torch.channels_last)


class PeriodDiscriminator(Discriminator):
    """A discriminator with strided convolutions over time of every p-th sample, (B · p, N / p, 1)."""

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, width // 2, width, 2 * width, 2 * width)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(before, after, 5, 3, padding=2)) for before, after in itertools.pairwise(widths)
        )
        self.last = weight_norm(nn.Conv1d(2 * width, 1, 3, padding=1))

    def picture(self, spectra: Spectra) -> Tensor:
        """Return every p-th sample, (B · p, N / p, 1); samples are reflected at the end to a multiple of p."""
        samples = F.pad(spectra.samples, (0, -spectra.samples.shape[1] % self.period), mode="reflect")
        return samples.unflatten(1, (-1, self.period)).transpose(1, 2).flatten(0, 1)[..., None]

    def convolved(self, layer: nn.Module, states: Tensor) -> Tensor:
        """Return the output of a layer for states (B · p, T, ·)."""
        return over_time(layer, states)


class Discriminators(nn.Module):
    """All discriminators of a vocoder's training, and their optimizer."""

    def __init__(self, width: int, learning_rate: float) -> None:
        super().__init__()
        self.each: Iterable[Discriminator] = nn.ModuleList(  # type: ignore[assignment]
            [SpectrogramDiscriminator(size, width) for size in SIZES]
            + [PeriodDiscriminator(period, width) for period in PERIODS]
        )
        self.optimizer = torch.optim.AdamW(
            self.parameters(), lr=learning_rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True
        )

    def pictures(self, samples: Spectra) -> list[Tensor]:
        """Return the picture of samples (B, N) for each discriminator."""
        return [discriminator.picture(samples) for discriminator in self.each]

    def forward(self, pictures: list[Tensor]) -> list[Judgement]:
        """Return the judgement of each discriminator for its picture."""
        return [discriminator(picture) for discriminator, picture in zip(self.each, pictures, strict=True)]

    def step(self, recorded: list[Tensor], generated: list[Tensor]) -> Tensor:
        """Make one update of the discriminators.

        Args:
            recorded: The pictures of recorded samples.
            generated: The pictures of samples that the vocoder generated.

        Returns:
            The hinge loss E max(0, 1 − D(recorded)) + E max(0, 1 + D(generated)), the mean over all discriminators.
        """
        with parametrize.cached():
            judgements = zip(self(recorded), self([picture.detach() for picture in generated]), strict=True)
        scores = [(real.score, fake.score) for real, fake in judgements]
        loss = torch.stack([F.relu(1 - real).mean() + F.relu(1 + fake).mean() for real, fake in scores]).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def terms(self, recorded: list[Tensor], generated: list[Tensor]) -> dict[str, Tensor]:
        """Return the adversarial losses of the vocoder. The weights of the discriminators get no gradient.

        Args:
            recorded: The pictures of recorded samples.
            generated: The pictures of samples that the vocoder generated.

        Returns:
            `adversarial`, which is E max(0, 1 − D(generated)), and `matching`, the mean absolute difference of the layers'
            states. Both are means over all discriminators.
        """
        with frozen(self), parametrize.cached():
            with torch.no_grad():
                targets = self(recorded)
            judgements = self(generated)
        adversarial = [F.relu(1 - judgement.score).mean() for judgement in judgements]
        matching = [
            _MeanDistance.apply(state, target_state)
            for target, judgement in zip(targets, judgements, strict=True)
            for target_state, state in zip(target.states, judgement.states, strict=True)
        ]
        return {"adversarial": torch.stack(adversarial).mean(), "matching": torch.stack(matching).mean()}


class _MeanDistance(torch.autograd.Function):
    """The mean absolute difference of two tensors, a scalar in float32, with a gradient for the first tensor alone.

    The gradient has the memory format of the tensor. Autograd would return another format, which slows down the next
    operation.
    """

    @staticmethod
    def forward(ctx: Any, state: Tensor, target: Tensor) -> Tensor:
        difference = state - target
        distance = difference.abs().sum(dtype=torch.float32) / target.numel()
        ctx.save_for_backward(difference.sign_())
        return distance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (sign,) = ctx.saved_tensors
        return sign * (gradient / sign.numel()), None
