"""The theory recipe: linear programmes against hand and assignment, the bound, the information identity, its README."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment

from rwae_audio.files import InputError, read_json
from rwae_audio.objectives.divergences import imq, kl_gaussians, mmd

HERE = Path(__file__).parent.parent / "recipes/theory"
sys.path.insert(0, str(HERE))

import bound  # noqa: E402
import information  # noqa: E402
import theory  # noqa: E402


def test_distance_by_hand() -> None:
    """Points 0 and 1 with ¾ and ¼, against 0 and 2 with ½ each: ¼ goes from 0 to 2, ¼ from 1 to 2."""
    cost = np.array([[0.0, 4.0], [1.0, 1.0]])
    assert bound.transport(cost, np.array([0.75, 0.25]), np.array([0.5, 0.5])) == pytest.approx(0.25 * 4 + 0.25 * 1)


def test_distance_is_the_assignment_of_equal_samples() -> None:
    cost = np.random.default_rng(0).random((12, 12))
    weights = np.full(12, 1 / 12)
    assert bound.transport(cost, weights, weights) == pytest.approx(cost[linear_sum_assignment(cost)].mean())


@pytest.mark.parametrize("family", theory.FAMILIES)
def test_constrained_optimum_bounds_the_distance(family: bound.Family) -> None:
    """Whatever is matched: a product of codes is a coupling; codes matched apart are one on separable data only."""
    for i in range(2):
        problem = theory.problem(family, i)
        found = bound.levels(problem, np.random.default_rng(i))
        assert found["wasserstein"] <= found["causal"] + 1e-6
        assert found["causal"] <= found["joint"] + 1e-6
        assert found["marginal"] <= found["apart"] + 1e-6
        assert found["wasserstein"] <= found["corrected"] + 1e-6
        if family == "separable":
            assert found["apart"] == pytest.approx(found["causal"], abs=1e-6)


@pytest.mark.parametrize("match", ["joint", "apart"])
def test_posteriors_are_feasible(match: bound.Match) -> None:
    problem = theory.problem("dependent", 1)
    found = bound.factorised(problem, match, 2, np.random.default_rng(0))
    joint = np.einsum("n,na,np->ap", problem.weights, found.static, found.dynamic)
    assert joint.sum(1) == pytest.approx(problem.static_prior, abs=1e-6)
    assert joint.sum(0) == pytest.approx(problem.path_prior, abs=1e-6)
    if match == "joint":
        assert joint == pytest.approx(np.outer(problem.static_prior, problem.path_prior), abs=1e-6)
    # q(z^m_1 | x) is the same for all x that begin alike
    first = found.dynamic.reshape(len(problem.x), bound.DYNAMIC, -1).sum(-1)
    for start in np.unique(problem.x[:, 0], axis=0):
        alike = first[(problem.x[:, 0] == start).all(-1)]
        assert len(alike) > 1
        assert alike == pytest.approx(np.broadcast_to(alike[0], alike.shape), abs=1e-6)


def test_penalised_optimum_rises_towards_the_constrained_one() -> None:
    problem = theory.problem("separable", theory.SHOWN)
    limit = bound.factorised(problem, "apart", 2, np.random.default_rng(0)).cost
    losses = [bound.penalised(problem, beta, 1, torch.Generator().manual_seed(0)) for beta in (0.1, 1.0, 5.0)]
    assert losses[0] < losses[1] < losses[2] < limit + 1e-3


def drawn_codes(model: information.Linear, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The dynamic posterior's means (count, T) for fresh data, its variances (T,), and draws (count, T)."""
    source = torch.Generator().manual_seed(0)
    root = torch.linalg.cholesky(information.data_covariance())
    x = torch.randn(count, len(root), generator=source, dtype=torch.float64) @ root.T
    means = x @ (model.parts["w_t"] * model.causal).T
    variances = model.floor + model.parts["s"][1:].exp()
    return means, variances, means + variances.sqrt() * torch.randn(means.shape, generator=source, dtype=torch.float64)


def test_information_identity() -> None:
    """E KL(q(z|x) ‖ p(z)) = I(x; z) + KL(q(z) ‖ p(z)), each side computed its own way; and the left one by sampling."""
    model = information.Linear(0.1, seed=3)
    terms = {name: float(term) for name, term in model.terms().items()}
    for code in ("static", "dynamic"):
        right = terms[f"{code}_information"] + terms[f"{code}_aggregate_kl"]
        assert terms[f"{code}_kl"] == pytest.approx(right, rel=1e-9)
    means, variances, codes = drawn_codes(model, 100_000)
    rho = 0.99 * model.parts["r"].tanh()
    prior_mean = torch.cat([torch.zeros(len(codes), 1), rho * codes[:, :-1]], dim=1)
    prior_variance = torch.cat([torch.ones(1), (1 - rho**2).expand(information.STEPS - 1)])
    sampled = kl_gaussians(means, variances.expand_as(means), prior_mean, prior_variance).mean()
    assert terms["dynamic_kl"] == pytest.approx(float(sampled), rel=0.01)


@pytest.mark.parametrize("variance", [0.1, 1.0, 30.0])
def test_expected_kernel_is_its_integral(variance: float) -> None:
    """Over x − y ~ N(0, variance), of the kernel that the objective uses."""

    def integrand(d: float) -> float:
        kernel = imq(torch.tensor([[d**2]], dtype=torch.float64), 1, 0.7)
        return float(kernel) * math.exp(-(d**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    found = information.expected_imq(torch.tensor(variance).double(), torch.tensor(0.7).double())
    assert float(found) == pytest.approx(quad(integrand, -12 * variance**0.5, 12 * variance**0.5)[0], rel=1e-6)


def test_mmd_of_gaussians() -> None:
    one = torch.ones((), dtype=torch.float64)
    assert float(information.gaussian_mmd(one, one, one)) == pytest.approx(0, abs=1e-12)
    source = torch.Generator().manual_seed(0)
    draws = [[scale * torch.randn(500, 1, generator=source) for scale in (2.0, 1.0)] for _ in range(20)]
    sampled = np.mean([float(mmd(q, p)) for q, p in draws])
    assert float(information.gaussian_mmd(4 * one, one, one)) == pytest.approx(sampled, rel=0.15)


def test_distance_of_gaussians() -> None:
    a, b = torch.diag(torch.tensor([4.0, 1.0])).double(), torch.diag(torch.tensor([1.0, 0.0])).double()
    assert float(information.gaussian_wasserstein(a, b)) == pytest.approx((2 - 1) ** 2 + 1)


def test_estimator_of_information() -> None:
    """x ~ N(0, 1), z = x + noise of variance ¼: I = ½ ln 5."""
    found = []
    for seed in range(4):
        source = torch.Generator().manual_seed(seed)
        mean = torch.randn(1000, 1, generator=source)
        sample = mean + 0.5 * torch.randn(1000, 1, generator=source)
        found.append(information.mixture_information(sample, mean, torch.full_like(mean, 0.25)))
    assert np.mean(found) == pytest.approx(math.log(5) / 2, abs=0.05)


def test_vae_forgets_and_rwae_does_not() -> None:
    """Along growing weights; R-WAE's static code ends at ½ ln(1 / variance), what a code of variance 1 can hold."""
    betas = [1.0, 10.0, 100.0]
    vae, rwae = information.sweep("vae", 0.0, betas), information.sweep("rwae-kl", 0.1, betas)
    for code in ("static_information", "dynamic_information"):
        kept = [row[code] for row in vae]
        assert kept[0] > kept[1] >= kept[2] - 1e-6
        assert kept[2] == pytest.approx(0, abs=1e-3)
    assert rwae[-1]["static_information"] == pytest.approx(math.log(10) / 2, abs=0.02)
    assert rwae[-1]["dynamic_information"] > 4
    assert rwae[-1]["loss"] > rwae[-1]["wasserstein"]


def test_readme_is_rendered_from_the_results() -> None:
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    assert readme == theory.rendered(readme, read_json(HERE / "results.json", "the results of this recipe"))
    with pytest.raises(InputError, match="no marks"):
        theory.rendered("no marks", read_json(HERE / "results.json", "the results of this recipe"))
    assert (HERE / "theory.png").stat().st_size < 200_000


def test_out_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        theory.main(["--out", str(tmp_path / "missing")])
