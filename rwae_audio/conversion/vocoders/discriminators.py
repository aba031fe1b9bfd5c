"""Discriminators, networks that tell speech from a vocoder's output, and the losses that the vocoder learns from them.

    spectrograms   Jang et al., "UnivNet", Interspeech 2021, arXiv 2106.07889: three resolutions, in logarithms
    periods        Kong, Kim, Bae, "HiFi-GAN", NeurIPS 2020, arXiv 2010.05646: every p-th sample side by side

The losses are those of Siuzdak, "Vocos", ICLR 2024, arXiv 2306.00814: hinges, and the distance between the layers' states for
what is generated and for what was recorded. Each discriminator judges a picture of the samples. Pictures, scores and losses are
float32. The layers may run in bfloat16 (see Network), and then their states, and the differences between states, are rounded
to it.
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
SLOPE = 0.1
FLOOR = 1e-3  # under this a magnitude is silence


class Judgement(NamedTuple):
    """The output of a discriminator for samples.

    Attributes:
        score: How much they are like speech, anywhere in the samples, float32.
        states: The states of each layer, in the layers' precision.
    """

    score: Tensor
    states: list[Tensor]


class Discriminator(Network):
    """A picture of samples → a Judgement, through strided convolutions and a last one."""

    layers: nn.ModuleList
    last: nn.Module

    def picture(self, spectra: Spectra) -> Tensor:
        """Return the picture of samples that the layers see."""
        raise NotImplementedError

    def convolved(self, layer: nn.Module, states: Tensor) -> Tensor:
        """Return states, or a picture, through a layer."""
        return layer(states)

    def forward(self, states: Tensor) -> Judgement:
        seen = []
        for layer in self.layers:
            states = F.leaky_relu(self.convolved(layer, states), SLOPE, inplace=True)
            seen.append(states)
        return Judgement(self.convolved(self.last, states), seen)


class SpectrogramDiscriminator(Discriminator):
    """Log-magnitudes (B, 1, T, bins) through strided convolutions over time and frequency."""

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
        """Return the log-magnitudes (B, 1, T, bins).

        Their channel lies innermost in memory, and so do those of the layers: a CPU takes half as long again without it.
        The weights stay as they are: a fused optimizer takes theirs and its own averages, read from a checkpoint, to lie alike.
        """
        picture = (spectra.power(self.size) + FLOOR**2).log() / 2
        return picture[:, None].to(memory_format=torch.channels_last)


class PeriodDiscriminator(Discriminator):
    """Every p-th sample, (B · p, N / p, 1), through strided convolutions over time, which all p share."""

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, width // 2, width, 2 * width, 2 * width)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(before, after, 5, 3, padding=2)) for before, after in itertools.pairwise(widths)
        )
        self.last = weight_norm(nn.Conv1d(2 * width, 1, 3, padding=1))

    def picture(self, spectra: Spectra) -> Tensor:
        """Return the samples (B · p, N / p, 1), reflected at the end where they do not come out even."""
        samples = F.pad(spectra.samples, (0, -spectra.samples.shape[1] % self.period), mode="reflect")
        return samples.unflatten(1, (-1, self.period)).transpose(1, 2).flatten(0, 1)[..., None]

    def convolved(self, layer: nn.Module, states: Tensor) -> Tensor:
        """Return states (B · p, T, ·) through a layer."""
        return over_time(layer, states)


class Discriminators(nn.Module):
    """All discriminators, and their optimizer."""

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
        """Return each discriminator's picture of samples (B, N)."""
        return [one.picture(samples) for one in self.each]

    def forward(self, pictures: list[Tensor]) -> list[Judgement]:
        return [one(picture) for one, picture in zip(self.each, pictures, strict=True)]

    def step(self, recorded: list[Tensor], generated: list[Tensor]) -> Tensor:
        """Make one update of the discriminators alone, from pictures of samples that were recorded and generated.

        Returns the hinge loss, the mean over them of E max(0, 1 − D(recorded)) + E max(0, 1 + D(generated)).
        """
        with parametrize.cached():
            judgements = zip(self(recorded), self([picture.detach() for picture in generated]), strict=True)
        scores = [(yes.score, no.score) for yes, no in judgements]
        loss = torch.stack([F.relu(1 - yes).mean() + F.relu(1 + no).mean() for yes, no in scores]).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def terms(self, recorded: list[Tensor], generated: list[Tensor]) -> dict[str, Tensor]:
        """Return the losses of the vocoder, each a mean over the discriminators, whose weights get no gradient.

        Returns:
            `adversarial`, E max(0, 1 − D(generated)), and `matching`, the mean |difference| of the layers' states.
        """
        with frozen(self), parametrize.cached():
            with torch.no_grad():
                target = self(recorded)
            judgements = self(generated)
        adversarial = [F.relu(1 - no.score).mean() for no in judgements]
        matching = [
            _MeanDistance.apply(state, goal)
            for yes, no in zip(target, judgements, strict=True)
            for goal, state in zip(yes.states, no.states, strict=True)
        ]
        return {"adversarial": torch.stack(adversarial).mean(), "matching": torch.stack(matching).mean()}


class _MeanDistance(torch.autograd.Function):
    """The mean |difference| of two tensors, a scalar in float32. The gradient is of the first one, in its memory format.

    Autograd would leave a gradient in another format than the states', and the next operation would be slow.
    """

    @staticmethod
    def forward(ctx: Any, state: Tensor, goal: Tensor) -> Tensor:
        difference = state - goal
        distance = difference.abs().sum(dtype=torch.float32) / goal.numel()
        ctx.save_for_backward(difference.sign_())
        return distance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (sign,) = ctx.saved_tensors
        return sign * (gradient / sign.numel()), None
