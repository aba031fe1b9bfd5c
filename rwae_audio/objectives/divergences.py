"""Distances between two sets of samples. Knows samples, not models."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, LEARNING_RATE = 64, 1e-3  # of critics: their layers, and Adam's rate
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # tolstikhin/wae, the IMQ kernel of its MMD


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(..., n, d), (..., m, d) → (..., n, m)."""
    norms = x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :]
    return norms.sub(x @ y.transpose(-1, -2), alpha=2).clamp_min(0)


class _InverseMultiquadratic(torch.autograd.Function):
    """Σ_s C_s / (C_s + d) and its derivative in one sweep, in place: what autograd would keep for seven scales of
    (T, B, B) distances costs several times the networks' own backward pass."""

    @staticmethod
    def forward(ctx: Any, distances: Tensor, constant: Tensor) -> Tensor:
        kernel, slope = torch.zeros_like(distances), torch.zeros_like(distances)
        total = torch.empty_like(distances)
        for scaled in (constant * scale for scale in SCALES):
            torch.add(distances, scaled, out=total)
            kernel.addcdiv_(scaled, total)  # C / (C + d)
            slope.addcdiv_(scaled, total.square_(), value=-1)  # its derivative by d: −C / (C + d)²
        ctx.save_for_backward(slope)
        return kernel

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.saved_tensors[0], None


def imq(distances: Tensor, dim: int, variance: Tensor | float = 1.0) -> Tensor:
    """Inverse multiquadratic kernel Σ_s C_s / (C_s + ‖x − y‖²), C_s = 2 · dim · variance · s, summed over WAE's scales.

    distances: squared, (..., n, m); variance: the prior's, a number or (..., 1, 1), taken as constant.
    """
    constant = torch.as_tensor(2.0 * dim * variance, dtype=distances.dtype, device=distances.device)
    return _InverseMultiquadratic.apply(distances, constant.detach())


def mmd(q: Tensor, p: Tensor, variance: Tensor | float = 1.0, paired: bool = False) -> Tensor:
    """Unbiased MMD² between samples q (..., n, d) and p (..., n, d), with the IMQ kernel: (...,).

    mean_{i≠j} k(q_i, q_j) + mean_{i≠j} k(p_i, p_j) − 2 · mean k(q_i, p_j); it can be negative. With `paired`, q_i and
    p_i share a history (they are not independent), and i = j is left out of the cross term as well.
    variance: the prior's, a number or (...,).
    """
    n, dim = q.shape[-2:]
    if isinstance(variance, Tensor):
        variance = variance[..., None, None]

    def mean(kernel: Tensor, distinct: bool) -> Tensor:
        if not distinct:
            return kernel.mean((-1, -2))
        return (kernel.sum((-1, -2)) - kernel.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))

    within_q = mean(imq(squared_distances(q, q), dim, variance), True)
    within_p = mean(imq(squared_distances(p, p), dim, variance), True)
    return within_q + within_p - 2 * mean(imq(squared_distances(q, p), dim, variance), paired)


def kl_gaussians(mean_q: Tensor, variance_q: Tensor, mean_p: Tensor | float, variance_p: Tensor | float) -> Tensor:
    """KL(N(mean_q, variance_q) ‖ N(mean_p, variance_p)) of diagonal Gaussians, summed over the last axis: (...,), nats."""
    variance_p = torch.as_tensor(variance_p, dtype=variance_q.dtype, device=variance_q.device)
    terms = (variance_p / variance_q).log() + (variance_q + (mean_q - mean_p) ** 2) / variance_p - 1
    return terms.sum(-1) / 2


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy (...,) of categoricals (..., A) in nats. Its slope is finite where one of them is 0 in float32."""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1)


def log_densities(samples: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """log N(samples_i | means_j, variances_j) of diagonal Gaussians, each (..., n, d) → (..., n, n), but for the constant
    −d/2 · ln 2π."""
    precisions = 1 / variances
    squares = samples.square() @ precisions.mT - 2 * samples @ (means * precisions).mT
    own = (means.square() * precisions + variances.log()).sum(-1)
    return -(squares + own[..., None, :]) / 2


def mutual_information(first: Tensor, second: Tensor) -> Tensor:
    """I(a; b) = E[log q(a, b) − log q(a) − log q(b)], nats, of codes a_i, b_i of the same input: (...,).

    first, second: log q(a_i | x_j) and log q(b_i | x_j), (..., n, n), as log_densities gives them. Given x the codes are
    independent, and each aggregate is the mean over the batch: q(a, b) = 1/n · Σ_j q(a | x_j) · q(b | x_j).

    The minibatch-weighted sampling of Chen et al., "Isolating Sources of Disentanglement in Variational Autoencoders",
    NeurIPS 2018, but for its constant, the log of the data's size.
    """
    joint = (first + second).logsumexp(-1) - first.logsumexp(-1) - second.logsumexp(-1)
    return joint.mean(-1) + math.log(first.shape[-1])


class Critic(nn.Module):
    """Two hidden layers over samples (..., dim) → (..., out), with an Adam of its own.

    With `history` the samples are (B, T, dim) and are judged given the codes before them, read by an LSTM.
    """

    def __init__(self, dim: int, out: int, hidden: int = WIDTH, history: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, hidden, batch_first=True) if history else None
        self.layers = nn.Sequential(
            nn.Linear(dim + hidden * history, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, out),
        )
        self.optimizer = torch.optim.Adam(self.parameters(), lr=LEARNING_RATE, betas=(0.5, 0.9))

    def forward(self, samples: Tensor, history: Tensor | None = None) -> Tensor:
        """history (B, T, dim): the codes; step t is given those before t."""
        if self.lstm is not None:
            assert history is not None
            states, _ = self.lstm(F.pad(history, (0, 0, 1, 0))[:, :-1])
            samples = torch.cat([states, samples], dim=-1)
        return self.layers(samples)

    def step(self, loss: Tensor, average: Callable[[Iterable[nn.Parameter]], None] = lambda parameters: None) -> None:
        """One update of the critic alone: `loss` must be made of detached samples. Where several processes have a loss
        each, `average` makes their gradients one."""
        self.optimizer.zero_grad()
        loss.backward()
        average(self.parameters())
        self.optimizer.step()
        self.optimizer.zero_grad()


@contextlib.contextmanager
def frozen(*critics: nn.Module) -> Iterator[None]:
    """Gradients pass through the critics, or other networks, and none stays in them."""
    for critic in critics:
        critic.requires_grad_(False)
    try:
        yield
    finally:
        for critic in critics:
            critic.requires_grad_(True)


def scaled_mmd(q: Tensor, p: Tensor, features: Critic, paired: bool = False, penalty: float = 10.0) -> Tensor:
    """SMMD² on learned features φ, (...,): MMD²(φ(q), φ(p)) / (1 + λ · E‖∇φ(z)‖_F² + E‖φ(z)‖²), z ~ p, λ = `penalty`.

    q, p (..., n, d). Arbel et al. 2018, with the IMQ kernel. The scale bounds what steeper features can gain: without
    it they would win by growing. The prior's samples in it are taken as given.
    """
    given = p.detach().flatten(0, -2)
    jacobian = torch.func.vmap(torch.func.jacrev(features.layers))(given)
    scale = 1 + penalty * jacobian.square().sum((1, 2)).mean() + features(given).square().sum(-1).mean()
    return mmd(features(q), features(p), 1.0, paired) / scale
