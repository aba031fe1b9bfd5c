"""Divergences between sets of samples and between distributions: MMD, KL, mutual information, and critics.

MMD is the maximum mean discrepancy. Samples are tensors (..., n, d): n samples of d dimensions.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, LEARNING_RATE = 64, 1e-3  # hidden units of a critic, and the learning rate of its Adam
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # scales of the IMQ kernel, as in tolstikhin/wae


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared Euclidean distances (..., n, m) between samples x (..., n, d) and y (..., m, d)."""
    norms = x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :]
    return norms.sub(x @ y.transpose(-1, -2), alpha=2).clamp_min(0)


class _InverseMultiquadratic(torch.autograd.Function):
    """The kernel Σ_s C_s / (C_s + d) of squared distances d, with its derivative computed in the forward pass.

    Autograd would store seven tensors of (T, B, B) distances, one for each scale. That costs several times the backward
    pass of the networks.
    """

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
    """Return the inverse multiquadratic kernel Σ_s C_s / (C_s + ‖x − y‖²) with C_s = 2 · dim · variance · s, s in SCALES.

    Args:
        distances: Squared distances, (..., n, m).
        dim: Dimensions of the samples.
        variance: Variance of the prior, a number or (..., 1, 1). It gets no gradient.
    """
    constant = torch.as_tensor(2.0 * dim * variance, dtype=distances.dtype, device=distances.device)
    return _InverseMultiquadratic.apply(distances, constant.detach())


def mmd(q: Tensor, p: Tensor, variance: Tensor | float = 1.0, paired: bool = False) -> Tensor:
    """Return the unbiased estimate (...,) of the squared MMD with the IMQ kernel, which can be negative.

    It is mean_{i≠j} k(q_i, q_j) + mean_{i≠j} k(p_i, p_j) − 2 · mean k(q_i, p_j).

    Args:
        q: Samples of the first distribution, (..., n, d).
        p: Samples of the second distribution, (..., n, d).
        variance: Variance of the prior, a number or (...,).
        paired: Whether q_i and p_i depend on each other, as when they share a history. The pairs i = j are then left out
            of the last mean as well.
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
    """Return the divergence KL(q ‖ p) of diagonal Gaussians (..., d), summed over their dimensions: (...,), in nats."""
    variance_p = torch.as_tensor(variance_p, dtype=variance_q.dtype, device=variance_q.device)
    terms = (variance_p / variance_q).log() + (variance_q + (mean_q - mean_p) ** 2) / variance_p - 1
    return terms.sum(-1) / 2


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy (...,) of categoricals (..., A), in nats. Its gradient is finite at a probability of 0."""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1)


def log_densities(samples: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Return log N(samples_i | means_j, variances_j) + d/2 · ln 2π for all pairs (i, j) of diagonal Gaussians.

    Args:
        samples: (..., n, d).
        means: (..., n, d).
        variances: (..., n, d).

    Returns:
        The log-densities without their constant, (..., n, n), in nats.
    """
    precisions = 1 / variances
    squares = samples.square() @ precisions.mT - 2 * samples @ (means * precisions).mT
    constants = (means.square() * precisions + variances.log()).sum(-1)
    return -(squares + constants[..., None, :]) / 2


def mutual_information(first: Tensor, second: Tensor) -> Tensor:
    """Return the mutual information I(a; b) = E[log q(a, b) − log q(a) − log q(b)] of two codes of the same inputs.

    The codes are independent given the input x. An aggregated posterior is the mean of the posteriors over the batch:
    q(a, b) = 1/n · Σ_j q(a | x_j) · q(b | x_j). The estimate leaves out a constant, the logarithm of the data's size. Chen
    et al., "Isolating Sources of Disentanglement in Variational Autoencoders", NeurIPS 2018 (minibatch-weighted sampling).

    Args:
        first: log q(a_i | x_j), (..., n, n), as `log_densities` returns them.
        second: log q(b_i | x_j), (..., n, n).

    Returns:
        The information, (...,), in nats.
    """
    joint = (first + second).logsumexp(-1) - first.logsumexp(-1) - second.logsumexp(-1)
    return joint.mean(-1) + math.log(first.shape[-1])


class Critic(nn.Module):
    """A network with two hidden layers, from samples (..., dim) to scores or features (..., out), and its optimizer.

    Args:
        dim: Dimensions of the samples.
        out: Dimensions of the output.
        hidden: Hidden units of each layer.
        history: Whether the samples are codes (B, T, dim) whose scores depend on the codes before them, read by an LSTM.

    Attributes:
        optimizer: The Adam optimizer of the critic's own weights.
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
        """Return the output of the network.

        Args:
            samples: (..., dim); (B, T, dim) for a critic with a history.
            history: The codes, (B, T, dim), for a critic with a history. Step t depends on the codes before t.
        """
        if self.lstm is not None:
            assert history is not None
            states, _ = self.lstm(F.pad(history, (0, 0, 1, 0))[:, :-1])
            samples = torch.cat([states, samples], dim=-1)
        return self.layers(samples)

    def step(self, loss: Tensor, average: Callable[[Iterable[nn.Parameter]], None] = lambda parameters: None) -> None:
        """Make one update of the critic.

        Args:
            loss: The loss of the critic, computed from detached samples.
            average: Replaces the gradients by their means over processes.
        """
        self.optimizer.zero_grad()
        loss.backward()
        average(self.parameters())
        self.optimizer.step()
        self.optimizer.zero_grad()


@contextlib.contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Compute no gradients of the modules' weights inside the block. Gradients still pass through to the inputs."""
    for module in modules:
        module.requires_grad_(False)
    try:
        yield
    finally:
        for module in modules:
            module.requires_grad_(True)


def scaled_mmd(q: Tensor, p: Tensor, features: Critic, paired: bool = False, penalty: float = 10.0) -> Tensor:
    """Return the scaled squared MMD of learned features φ: MMD²(φ(q), φ(p)) / (1 + λ · E‖∇φ(z)‖_F² + E‖φ(z)‖²), z ~ p.

    The denominator bounds the gain from steeper or larger features. It gives the samples of the prior no gradient. Arbel,
    Sutherland, Bińkowski, Gretton, "On gradient regularizers for MMD GANs", NeurIPS 2018; here with the IMQ kernel.

    Args:
        q: Samples of the posterior, (..., n, d).
        p: Samples of the prior, (..., n, d).
        features: The network φ.
        paired: As in `mmd`.
        penalty: The weight λ of the gradient's norm.

    Returns:
        The scaled MMD, (...,).
    """
    samples = p.detach().flatten(0, -2)
    jacobian = torch.func.vmap(torch.func.jacrev(features.layers))(samples)
    scale = 1 + penalty * jacobian.square().sum((1, 2)).mean() + features(samples).square().sum(-1).mean()
    return mmd(features(q), features(p), 1.0, paired) / scale
