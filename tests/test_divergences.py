"""MMD against brute force, their sign and MMD's gradient; KL against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from rwae_audio.objectives.divergences import (
    SCALES,
    imq,
    kl_gaussians,
    log_densities,
    mmd,
    mutual_information,
    squared_distances,
)
from rwae_audio.randomness import generator


def samples(n: int, d: int, purpose: str, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=generator(0, purpose)) + shift


def brute_force(q: torch.Tensor, p: torch.Tensor, variance: float, paired: bool) -> float:
    """The definition, pair by pair, in Python floats."""

    def kernel(x: list[float], y: list[float]) -> float:
        distance = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
        return sum((c := 2 * len(x) * variance * s) / (c + distance) for s in SCALES)

    qs, ps, n = q.tolist(), p.tolist(), len(q)
    within = [sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1)) for a in (qs, ps)]
    pairs = [(i, j) for i in range(n) for j in range(n) if not (paired and i == j)]
    return sum(within) - 2 * sum(kernel(qs[i], ps[j]) for i, j in pairs) / len(pairs)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("variance", [1.0, 0.3])
def test_mmd_against_brute_force(variance: float, paired: bool) -> None:
    q, p = samples(12, 5, "q", 0.4), samples(12, 5, "p")
    assert mmd(q, p, variance, paired).item() == pytest.approx(brute_force(q, p, variance, paired), abs=1e-12)


def test_mmd_of_stacked_samples_is_that_of_each() -> None:
    q, p = (torch.stack([samples(8, 3, f"{name}{t}") for t in range(4)]) for name in "qp")
    variance = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    together = mmd(q, p, variance, paired=True)
    for t in range(4):
        assert together[t].item() == pytest.approx(mmd(q[t], p[t], variance[t].item(), paired=True).item(), abs=1e-12)


@pytest.mark.parametrize("paired", [False, True])
def test_mmd_of_equal_laws_is_zero_on_average_with_both_signs(paired: bool) -> None:
    q, p = (samples(400 * 32, 4, name).unflatten(0, (400, 32)) for name in "qp")
    values = mmd(q, p, paired=paired)
    assert values.mean().abs() < 4 * values.std() / math.sqrt(len(values))
    assert (values > 0).any()
    assert (values < 0).any()


def test_leaving_the_shared_history_out_is_what_makes_the_paired_estimate_unbiased() -> None:
    """q_i and p_i lie around one common point: with i = j in, the cross term is too large, on average."""
    history, q, p = (samples(300 * 16, 3, name).unflatten(0, (300, 16)) for name in "hqp")
    paired, plain = (mmd(history + 0.1 * q, history + 0.1 * p, paired=together) for together in (True, False))
    error = paired.std() / math.sqrt(300)
    assert paired.mean().abs() < 4 * error
    assert plain.mean() < -4 * error


def test_mmd_sees_a_shift_and_grows_with_it() -> None:
    values = [mmd(samples(200, 4, "q", shift), samples(200, 4, "p")).item() for shift in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)
    assert values[1] > 5 * abs(values[0])


def test_mmd_gradient_against_finite_differences() -> None:
    q, p = samples(6, 3, "q").requires_grad_(), samples(6, 3, "p").requires_grad_()
    for paired in (False, True):
        assert torch.autograd.gradcheck(lambda q, p, paired=paired: mmd(q, p, 0.7, paired), (q, p), eps=1e-6, atol=1e-8)


def test_kernel_is_the_sum_over_scales() -> None:
    distances = torch.tensor([0.0, 1.0, 50.0], dtype=torch.float64)
    expected = sum(2 * 3 * 0.5 * s / (2 * 3 * 0.5 * s + distances) for s in SCALES)
    torch.testing.assert_close(imq(distances, 3, 0.5), expected)
    assert imq(distances, 3)[0].item() == pytest.approx(len(SCALES))


def test_squared_distances_against_cdist() -> None:
    x, y = samples(5, 4, "x"), samples(7, 4, "y")
    torch.testing.assert_close(squared_distances(x, y), torch.cdist(x, y) ** 2)


def test_kl_against_torch() -> None:
    mean_q, mean_p = samples(4, 3, "mq"), samples(4, 3, "mp")
    variance_q, variance_p = samples(4, 3, "vq").exp(), samples(4, 3, "vp").exp()
    ours = kl_gaussians(mean_q, variance_q, mean_p, variance_p)
    q = torch.distributions.Normal(mean_q, variance_q.sqrt())
    p = torch.distributions.Normal(mean_p, variance_p.sqrt())
    torch.testing.assert_close(ours, torch.distributions.kl_divergence(q, p).sum(-1))
    assert kl_gaussians(mean_q, variance_q, mean_q, variance_q).abs().max() < 1e-12


def test_mutual_information_identity_on_a_gaussian() -> None:
    """E_x KL(q(z|x) ‖ p(z)) = I_q(x; z) + KL(q(z) ‖ p(z)), for x ~ N(0, s²), q(z|x) = N(a·x, v), p = N(0, 1).

    In closed form: I = ½ ln(1 + a²s²/v), and q(z) = N(0, a²s² + v). The left side is averaged by Gauss-Hermite
    quadrature of kl_gaussians, which is exact for its polynomial in x.
    """
    import numpy as np

    points, weights = np.polynomial.hermite_e.hermegauss(20)
    for a, s, v in [(0.8, 1.5, 0.3), (0.1, 2.0, 1.0), (2.0, 0.7, 0.05)]:
        x = torch.from_numpy(s * points)[:, None]
        conditional = kl_gaussians(a * x, torch.full_like(x, v), 0.0, 1.0)
        left = float((conditional * torch.from_numpy(weights / weights.sum())).sum())
        information = 0.5 * math.log(1 + a**2 * s**2 / v)
        zero = torch.zeros(1, dtype=torch.float64)
        aggregated = kl_gaussians(zero, zero + a**2 * s**2 + v, 0.0, 1.0).item()
        assert left == pytest.approx(information + aggregated, abs=1e-10)


def test_densities_are_torchs_but_for_a_constant() -> None:
    draw = generator(0, "densities")
    samples, means = (torch.randn(3, 7, 4, dtype=torch.float64, generator=draw) for _ in range(2))
    variances = torch.rand(3, 7, 4, dtype=torch.float64, generator=draw) + 0.1
    laws = torch.distributions.Normal(means[:, None], variances[:, None].sqrt())
    expected = laws.log_prob(samples[:, :, None]).sum(-1) + 4 / 2 * math.log(2 * math.pi)
    torch.testing.assert_close(log_densities(samples, means, variances), expected)


def test_information_is_none_of_independent_codes_and_all_of_shared_ones() -> None:
    """Inputs that both codes tell apart share ln n nats; a code that says nothing shares none; Gaussians −½·ln(1 − ρ²)."""
    means = 100 * torch.arange(16.0, dtype=torch.float64)[:, None]
    certain = log_densities(means, means, torch.ones(16, 1, dtype=torch.float64))
    silent = torch.zeros(16, 16, dtype=torch.float64)
    assert mutual_information(certain, certain).item() == pytest.approx(math.log(16))
    assert mutual_information(certain, silent).item() == pytest.approx(0, abs=1e-9)
    draw = generator(0, "information")
    x, a, b = (torch.randn(1500, 1, dtype=torch.float64, generator=draw) for _ in range(3))
    noise = torch.full((1500, 1), 0.5, dtype=torch.float64)
    codes = [log_densities(x + 0.5**0.5 * part, x, noise) for part in (a, b)]
    exact = -math.log(1 - (1 / 1.5) ** 2) / 2  # of x plus one noise and x plus another
    assert mutual_information(*codes).item() == pytest.approx(exact, abs=0.06)
