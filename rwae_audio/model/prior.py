"""p_ψ(z^m_t | z^m_{<t}): how codes follow each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.model.config import ModelConfig
from rwae_audio.model.posterior import Network, full_precision, in_float32


class DynamicPrior(Network):
    """p_ψ(z^m_t | z^m_{<t}[, a]): an LSTM that emits a diagonal Gaussian a step; the first step follows a zero code.

    action (B, A), in a model with actions: stands beside each code.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim = config.dynamic_dim
        self.lstm = nn.LSTM(config.dynamic_dim + config.actions, config.prior_hidden, batch_first=True)
        self.head = nn.Linear(config.prior_hidden, 2 * config.dynamic_dim)

    def forward(self, codes: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """codes (B, T, d) → mean and variance (B, T, d) of each step given the codes before it."""
        history = F.pad(codes, (0, 0, 1, 0))[:, :-1]
        return self._gaussian(self.lstm(beside(history, action))[0])

    def step(
        self, previous: Tensor, memory: tuple[Tensor, Tensor] | None, action: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple]:
        """previous (B, d), the LSTM's memory → mean and variance (B, d) of the next code, and the new memory."""
        state, memory = self.lstm(beside(previous[:, None], action), memory)
        mean, variance = self._gaussian(state[:, 0])
        return mean, variance, memory

    def rollout(self, count: int, steps: int, generator: torch.Generator, action: Tensor | None = None) -> Tensor:
        """Codes (count, steps, d) drawn from the prior on its own samples, for this process alone."""
        code = self.head.weight.new_zeros(count, self.dim)
        codes, memory = [], None
        for _ in range(steps):
            mean, variance, memory = self.step(code, memory, action)
            code = mean + variance.sqrt() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(
                mean.device
            )
            codes.append(code)
        return torch.stack(codes, dim=1)

    def _gaussian(self, states: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(states):
            mean, log_variance = self.head(in_float32(states)).chunk(2, dim=-1)
        return mean, log_variance.clamp(-10, 5).exp()


def beside(codes: Tensor, constant: Tensor | None) -> Tensor:
    """codes (B, T, d), each with its sequence's constant (B, e) after it: (B, T, d + e)."""
    if constant is None:
        return codes
    return torch.cat([codes, constant[:, None].expand(-1, codes.shape[1], -1)], dim=-1)
