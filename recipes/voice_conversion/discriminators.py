"""Who tells speech from what a vocoder makes, and what the vocoder learns from them.

    of spectrograms   Jang et al., "UnivNet", Interspeech 2021, arXiv 2106.07889: three resolutions, in logarithms
    of periods        Kong, Kim, Bae, "HiFi-GAN", NeurIPS 2020, arXiv 2010.05646: every p-th sample side by side

The losses are those of Siuzdak, "Vocos", ICLR 2024, arXiv 2306.00814: hinges, and the distance between the layers' states for
what is made and for what was recorded. Samples are (B, N).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

SIZES = (512, 1024, 2048)  # of the windows, in samples; a quarter of one apart
PERIODS = (2, 3, 5, 7, 11)
SLOPE = 0.1
FLOOR = 1e-3  # under this a magnitude is silence


class Judgement(NamedTuple):
    """score: how much like speech, anywhere in the samples, (B, ·); states: of each layer."""

    score: Tensor
    states: list[Tensor]


class SpectrogramDiscriminator(nn.Module):
    """Log-magnitudes (B, 1, T, bins) through strided convolutions over time and frequency."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        steps = ((1, 2), (1, 2), (2, 2), (1, 2))
        widths = (1, width // 2, width, width, width)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (3, 9), step, padding=(1, 4)))
            for before, after, step in zip(widths[:-1], widths[1:], steps, strict=True)
        )
        self.last = weight_norm(nn.Conv2d(width, 1, 3, padding=1))
        self.to(memory_format=torch.channels_last)  # on a CPU half as long again without it

    def forward(self, samples: Tensor) -> Judgement:
        spectrum = torch.stft(samples, self.size, self.size // 4, self.size, self.window, return_complex=True)
        magnitudes = (spectrum.real.square() + spectrum.imag.square() + FLOOR**2).sqrt()
        picture = magnitudes.log().transpose(1, 2)[:, None]
        return judged(picture.to(memory_format=torch.channels_last), self.layers, self.last)


class PeriodDiscriminator(nn.Module):
    """Samples, folded to (B, 1, N / p, p), through strided convolutions along time."""

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, width // 2, width, 2 * width, 2 * width)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (5, 1), (3, 1), padding=(2, 0)))
            for before, after in itertools.pairwise(widths)
        )
        self.last = weight_norm(nn.Conv2d(2 * width, 1, (3, 1), padding=(1, 0)))

    def forward(self, samples: Tensor) -> Judgement:
        samples = F.pad(samples, (0, -samples.shape[1] % self.period), mode="reflect")
        return judged(samples.view(len(samples), 1, -1, self.period), self.layers, self.last)


class Discriminators(nn.Module):
    """All of them, and their optimizer."""

    def __init__(self, width: int, learning_rate: float) -> None:
        super().__init__()
        self.each = nn.ModuleList(
            [SpectrogramDiscriminator(size, width) for size in SIZES]
            + [PeriodDiscriminator(period, width) for period in PERIODS]
        )
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=learning_rate, betas=(0.8, 0.99), weight_decay=0.01)

    def forward(self, samples: Tensor) -> list[Judgement]:
        return [one(samples) for one in self.each]

    def step(self, recorded: Tensor, made: Tensor) -> float:
        """One update of the discriminators alone: their hinge loss, Σ E max(0, 1 − D(recorded)) + E max(0, 1 + D(made))."""
        loss = torch.stack(
            [
                F.relu(1 - yes.score).mean() + F.relu(1 + no.score).mean()
                for yes, no in zip(self(recorded), self(made.detach()), strict=True)
            ]
        ).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def terms(self, recorded: Tensor, made: Tensor) -> dict[str, Tensor]:
        """What the vocoder is to lower: `adversarial`, E max(0, 1 − D(made)), and `matching`, the mean |difference| of the
        layers' states; each a mean over the discriminators."""
        with torch.no_grad():
            wanted = self(recorded)
        found = self(made)
        adversarial = [F.relu(1 - no.score).mean() for no in found]
        matching = [
            (state - goal).abs().mean()
            for yes, no in zip(wanted, found, strict=True)
            for goal, state in zip(yes.states, no.states, strict=True)
        ]
        return {"adversarial": torch.stack(adversarial).mean(), "matching": torch.stack(matching).mean()}


def judged(states: Tensor, layers: nn.ModuleList, last: nn.Module) -> Judgement:
    """(B, 1, H, W) through the layers."""
    seen = []
    for layer in layers:
        states = F.leaky_relu(layer(states), SLOPE)
        seen.append(states)
    return Judgement(last(states).flatten(1), seen)
