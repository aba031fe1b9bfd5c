"""A critic that scores whether a sequence of frames is speech in the voice of a static code.

An adversarial loss on log-mels as of Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, arXiv 1611.04076,
with the projection of Miyato & Koyama, "cGANs with Projection Discriminator", ICLR 2018, arXiv 1802.05637, and the matching of
features of Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", ICML 2016, arXiv 1512.09300.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from rwae_audio.distributed import mean_gradients
from rwae_audio.model.layers import over_time
from rwae_audio.model.posterior import Network

WIDTH, LEARNING_RATE = 256, 4e-4
SLOPE = 0.1  # of the rectifiers for negative values
MISMATCH = (
    0.5  # the weight of speech in another voice, against 1 for each kind of decoding and 2 for speech in its own voice
)


class Scores(NamedTuple):
    """The scores of sequences of frames, and the states that they come from.

    Attributes:
        score: About 1 for speech in its own voice and 0 for other sequences, (B, T / 4, 1).
        features: The states of all layers, each (B, T', WIDTH).
    """

    score: Tensor
    features: list[Tensor]


class FrameCritic(Network):
    """Four convolutions over the time of normalised frames, with an Adam of their own.

    The score of a state is a linear map of it plus its product with a linear map of the static code.
    """

    def __init__(self, n_mels: int, static_dim: int) -> None:
        super().__init__()
        shapes = ((n_mels, 3, 1), (WIDTH, 5, 2), (WIDTH, 5, 2), (WIDTH, 3, 1))  # channels, kernel, stride
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, WIDTH, kernel, stride, padding=kernel // 2))
            for channels, kernel, stride in shapes
        )
        self.score = nn.Linear(WIDTH, 1)
        self.voice = nn.Linear(static_dim, WIDTH)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=LEARNING_RATE, betas=(0.5, 0.9))

    def forward(self, frames: Tensor, static: Tensor) -> Scores:
        """Judge normalised frames (B, T, n_mels) by the static code (B, static_dim) of the voice that is expected."""
        states, features = frames, []
        for layer in self.layers:
            states = F.leaky_relu(over_time(layer, states), SLOPE)
            features.append(states)
        match = (states * self.voice(static)[:, None]).sum(-1, keepdim=True) / WIDTH**0.5
        return Scores(self.score(states) + match, features)

    def step(self, frames: Tensor, own: Tensor, decoded: Tensor, swapped: Tensor, other: Tensor) -> Tensor:
        """Make one step on detached tensors and return the loss, a scalar.

        Args:
            frames: Speech, (B, T, n_mels).
            own: The static codes of its voices, (B, static_dim).
            decoded: Reconstructions in these voices, (B, T, n_mels).
            swapped: Decodings of the same sequences in other voices, (B, T, n_mels).
            other: The static codes of the other voices, (B, static_dim).
        """
        sequences, voices = torch.cat([frames, decoded, swapped, frames]), torch.cat([own, own, other, other])
        speech, fake, converted, mismatched = self(sequences, voices).score.chunk(4)
        loss = 2 * (1 - speech).square().mean() + fake.square().mean() + converted.square().mean()
        loss = loss + MISMATCH * mismatched.square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        mean_gradients(self.parameters())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()
