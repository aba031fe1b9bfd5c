"""Distances between two sets of samples. Knows samples, not models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # tolstikhin/wae, the IMQ kernel of its MMD


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(..., n, d), (..., m, d) → (..., n, m)."""
    cross = x @ y.transpose(-1, -2)
    return (x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * cross).clamp_min(0)


class _InverseMultiquadratic(torch.autograd.Function):
    """Σ_s C_s / (C_s + d) and its derivative in one sweep, in place: what autograd would keep for seven scales of
    (T, B, B) distances costs several times the networks' own backward pass."""

    @staticmethod
    def forward(ctx: Any, distances: Tensor, constant: Tensor) -> Tensor:
        kernel, slope = torch.zeros_like(distances), torch.zeros_like(distances)
        for scale in SCALES:
            ratio = (distances / (constant * scale)).add_(1).reciprocal_()  # C / (C + d)
            kernel.add_(ratio)
            slope.sub_(ratio.square_().div_(constant * scale))  # d/dd of it: −C / (C + d)²
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
    off_diagonal = ~torch.eye(n, dtype=torch.bool, device=q.device)

    def mean(kernel: Tensor, distinct: bool) -> Tensor:
        if not distinct:
            return kernel.mean((-1, -2))
        return (kernel * off_diagonal).sum((-1, -2)) / (n * (n - 1))

    within_q = mean(imq(squared_distances(q, q), dim, variance), True)
    within_p = mean(imq(squared_distances(p, p), dim, variance), True)
    return within_q + within_p - 2 * mean(imq(squared_distances(q, p), dim, variance), paired)


def kl_gaussians(mean_q: Tensor, variance_q: Tensor, mean_p: Tensor | float, variance_p: Tensor | float) -> Tensor:
    """KL(N(mean_q, variance_q) ‖ N(mean_p, variance_p)) of diagonal Gaussians, summed over the last axis: (...,), nats."""
    variance_p = torch.as_tensor(variance_p, dtype=variance_q.dtype, device=variance_q.device)
    terms = (variance_p / variance_q).log() + (variance_q + (mean_q - mean_p) ** 2) / variance_p - 1
    return terms.sum(-1) / 2
