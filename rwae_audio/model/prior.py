"""The dynamic prior p_ψ(z^m_t | z^m_{<t}), which predicts each dynamic code from the codes before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.devices import in_float32
from rwae_audio.model.config import ModelConfig
from rwae_audio.model.posterior import Network, append_vector, full_precision


class DynamicPrior(Network):
    """The prior p_ψ(z^m_t | z^m_{<t}[, a]): an LSTM that gives a diagonal Gaussian for each step.

    The code before the first step is zero. In a model with actions the action (B, A) is appended to each code.

    Args:
        config: The settings of the model. Below, d is its `dynamic_dim`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim = config.dynamic_dim
        self.lstm = nn.LSTM(config.dynamic_dim + config.actions, config.prior_hidden, batch_first=True)
        self.head = nn.Linear(config.prior_hidden, 2 * config.dynamic_dim)

    def forward(self, codes: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean and the variance of each step given the codes before it, each (B, T, d).

        Args:
            codes: The codes, (B, T, d).
            action: The action of each sequence, (B, A), or None in a model without actions.
        """
        history = F.pad(codes, (0, 0, 1, 0))[:, :-1]
        return self._gaussian(self.lstm(append_vector(history, action))[0])

    def step(
        self, previous: Tensor, memory: tuple[Tensor, Tensor] | None, action: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple]:
        """Predict one step.

        Args:
            previous: The code of the step before, (B, d).
            memory: The state of the LSTM after that step's prediction, or None at the first step.
            action: The action of each sequence, (B, A), or None in a model without actions.

        Returns:
            The mean (B, d), the variance (B, d) and the new state of the LSTM.
        """
        state, memory = self.lstm(append_vector(previous[:, None], action), memory)
        mean, variance = self._gaussian(state[:, 0])
        return mean, variance, memory

    def rollout(self, count: int, steps: int, generator: torch.Generator, action: Tensor | None = None) -> Tensor:
        """Sample sequences of codes (count, steps, d), each code given the samples before it.

        Each process draws its own sequences.
        """
        code = self.head.weight.new_zeros(count, self.dim)
        codes, memory = [], None
        for _ in range(steps):
            mean, variance, memory = self.step(code, memory, action)
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
            code = mean + variance.sqrt() * noise
            codes.append(code)
        return torch.stack(codes, dim=1)

    def _gaussian(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the variance (..., d) of LSTM states (..., prior_hidden)."""
        with full_precision(states):
            mean, log_variance = self.head(in_float32(states)).chunk(2, dim=-1)
        return mean, log_variance.clamp(-10, 5).exp()
