"""R-WAE's bound on the Wasserstein distance W, computed on problems that are small enough for linear programmes.

A problem has finitely many sequences x_{1:T} with probabilities p(x), static codes z^c, and paths m = z^m_{1:T} of dynamic
codes, which are a Markov chain. The decoder G is deterministic, and the cost is c(x, G) = Σ_t ‖x_t − G(z^c, z^m_t)‖². There
are N sequences, A static codes, M dynamic codes at each step, and P = M^T paths.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from information import minimise
from scipy.optimize import linprog
from scipy.sparse import csr_matrix
from torch import Tensor

from rwae_audio.objectives.divergences import imq, squared_distances

STEPS, STATIC, DYNAMIC, DIM, VOICES = 3, 2, 2, 2, 2  # T, A, M, the dimensions of a frame, and voices
Family = Literal["separable", "independent", "dependent"]
Match = Literal["joint", "apart", "marginal"]


@dataclass(frozen=True)
class Problem:
    """A problem.

    Attributes:
        x: The sequences, (N, T, d).
        weights: The probability of each sequence, (N,).
        decodings: The decoded sequence of each pair of codes, (A, P, T, d).
        static_prior: The prior of z^c, (A,).
        path_prior: The prior of the paths, (P,).
        paths: The dynamic codes of each path, (P, T).
    """

    x: np.ndarray
    weights: np.ndarray
    decodings: np.ndarray
    static_prior: np.ndarray
    path_prior: np.ndarray
    paths: np.ndarray

    @property
    def cost(self) -> np.ndarray:
        """The cost c(x, G(z^c, m)) of each sequence and pair of codes, (N, A, P)."""
        return ((self.x[:, None, None] - self.decodings) ** 2).sum((-1, -2))


def random_problem(family: Family, rng: np.random.Generator) -> Problem:
    """Draw a problem with two voices and all 2^T texts: x_t = voice + sound_t + deviation(voice, sounds up to t).

    In the family `separable`, p(x) = p(voice) · p(text), and the coordinates that voice and z^c change are not those that
    sound and z^m_t change. In `independent`, p(x) = p(voice) · p(text), and sounds and G(z^c, z^m_t) are arbitrary vectors. In
    `dependent`, p(x) is arbitrary as well.

    Args:
        family: The family of the problem.
        rng: The random numbers.
    """
    paths = np.array(list(itertools.product(range(DYNAMIC), repeat=STEPS)))
    separable = family == "separable"
    axes = np.eye(DIM) if separable else np.ones((DIM, DIM))
    voices, sounds = (1.5 * rng.standard_normal((2, DIM)) * axis for axis in axes)
    deviation = 0.0 if separable else 0.3
    x = np.empty((2, len(paths), STEPS, DIM))
    for t in range(STEPS):
        prefixes, numbers = np.unique(paths[:, : t + 1], axis=0, return_inverse=True)
        deviations = deviation * rng.standard_normal((2, len(prefixes), DIM))
        x[:, :, t] = voices[:, None] + sounds[paths[:, t]] + deviations[:, numbers.ravel()]
    weights: np.ndarray = np.outer(rng.dirichlet([4, 4]), rng.dirichlet(np.full(len(paths), 2)))
    if family == "dependent":
        weights = rng.dirichlet(np.full(weights.size, 0.5)).reshape(weights.shape)
    codes_static = voices + 0.5 * rng.standard_normal((STATIC, DIM)) * axes[0]
    codes_dynamic = sounds + 0.5 * rng.standard_normal((DYNAMIC, DIM)) * axes[1]
    frames = codes_static[:, None] + codes_dynamic  # G(z^c, z^m_t), (A, M, d)
    if not separable:
        frames = frames + 0.7 * rng.standard_normal(frames.shape)
    first, following = rng.dirichlet([4] * DYNAMIC), rng.dirichlet([4] * DYNAMIC, size=DYNAMIC)
    path_prior = first[paths[:, 0]] * np.prod(
        [following[paths[:, t - 1], paths[:, t]] for t in range(1, STEPS)], axis=0
    )
    static_prior = rng.dirichlet([4] * STATIC)
    return Problem(x.reshape(-1, STEPS, DIM), weights.ravel(), frames[:, paths], static_prior, path_prior, paths)


def solve(cost: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """Solve a linear programme: minimise ⟨cost, q⟩ over q ≥ 0 with rows @ q.ravel() = values.

    Args:
        cost: The cost of each entry of q.
        rows: The coefficients of the constraints, (constraints, q.size).
        values: The right sides of the constraints.

    Returns:
        The optimal q, in the shape of `cost`, or None if no q is feasible.
    """
    result = linprog(cost.ravel(), A_eq=csr_matrix(rows), b_eq=values, method="highs", options={"maxiter": 500})
    return result.x.reshape(cost.shape) if result.status == 0 else None


def transport(cost: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
    """Return the Wasserstein distance between two discrete distributions, min ⟨cost, π⟩ over π with these marginals.

    Args:
        cost: The cost of each pair of points, (N, K).
        p: The probabilities of the first distribution, (N,).
        q: The probabilities of the second distribution, (K,).
    """
    n, k = cost.shape
    rows = np.vstack([np.kron(np.eye(n), np.ones(k)), np.kron(np.ones(n), np.eye(k))])
    plan = solve(cost, rows, np.concatenate([p, q]))
    assert plan is not None
    return float((plan * cost).sum())


def causality(problem: Problem) -> np.ndarray:
    """Return the constraints of causality, as rows (…, N · P) whose product with a causal q(m|x) is 0.

    A posterior is causal if q(m_{≤t}|x) depends on x_{≤t} alone, for all t < T.
    """
    n, p = len(problem.x), len(problem.paths)
    rows = []
    for t in range(1, STEPS):
        _, groups = np.unique(problem.x[:, :t].reshape(n, -1), axis=0, return_inverse=True)
        _, heads = np.unique(problem.paths[:, :t], axis=0, return_inverse=True)
        indicator = np.eye(heads.max() + 1)[:, heads.ravel()]  # (prefixes, P): the paths that begin with each prefix
        for group in range(groups.max() + 1):
            first, *rest = np.flatnonzero(groups.ravel() == group)
            for other in rest:
                block = np.zeros((len(indicator), n, p))
                block[:, first], block[:, other] = indicator, -indicator
                rows.append(block.reshape(len(indicator), -1))
    return np.concatenate(rows) if rows else np.zeros((0, n * p))


def causal_relaxation(problem: Problem) -> float:
    """Return the smallest E c over all q(z^c, m | x) with causal q(m|x) and aggregate Q = P(z^c) · P(m).

    z^c and m may depend on each other given x.
    """
    n, a, p = problem.cost.shape
    joint = np.outer(problem.static_prior, problem.path_prior).ravel()
    causal = np.kron(np.ones(a), causality(problem).reshape(-1, n, 1, p)).reshape(-1, n * a * p)
    rows = np.vstack([np.kron(np.eye(n), np.ones(a * p)), np.kron(problem.weights, np.eye(a * p)), causal])
    q = solve(
        problem.cost * problem.weights[:, None, None], rows, np.concatenate([np.ones(n), joint, np.zeros(len(causal))])
    )
    assert q is not None
    return float((q * problem.cost * problem.weights[:, None, None]).sum())


@dataclass(frozen=True)
class Factorised:
    """A factorised posterior.

    Attributes:
        cost: The cost E c.
        static: The posterior q(z^c|x), (N, A).
        dynamic: The posterior q(m|x), (N, P).
    """

    cost: float
    static: np.ndarray
    dynamic: np.ndarray


def factorised(problem: Problem, match: Match, starts: int, rng: np.random.Generator) -> Factorised:
    """Search for the smallest E c over posteriors of the paper's form, q(z^c|x) · ∏_t q(z^m_t | z^m_{<t}, x_{≤t}).

    The problem is bilinear. So linear programmes for the two factors alternate, from random feasible posteriors. All steps are
    feasible, and the result is an upper bound of the optimum. At the start z^m is independent of x, which is feasible for every
    `match`.

    Args:
        problem: The problem.
        match: The constraints on the aggregate Q besides Q_{z^c} = P. `apart`: Q_{z^m_t | z^m_{<t}} = P for every t, as in
            the paper. `joint`: z^c and z^m are also independent under Q. `marginal`: Q_{z^m_t} = P_{z^m_t} for every t, as in
            a penalty on single steps.
        starts: The number of random starts.
        rng: The random numbers.
    """
    n, a, p = problem.cost.shape
    causal, weights, ones = causality(problem), problem.weights[:, None], np.ones(n)
    cost = weights[:, :, None] * problem.cost
    simplex_c, simplex_m = np.kron(np.eye(n), np.ones(a)), np.kron(np.eye(n), np.ones(p))
    joint = np.outer(problem.static_prior, problem.path_prior)
    steps = np.eye(p)
    if match == "marginal":
        steps = np.concatenate([np.eye(DYNAMIC)[:, problem.paths[:, t]] for t in range(STEPS)])

    def best_static(q_m: np.ndarray, cost: np.ndarray) -> np.ndarray | None:
        mass = weights * q_m if match == "joint" else weights
        values = joint.T.ravel() if match == "joint" else problem.static_prior
        rows = np.vstack([simplex_c, *(np.kron(column, np.eye(a)) for column in mass.T)])
        return solve(cost, rows, np.concatenate([ones, values]))

    def best_dynamic(q_c: np.ndarray, cost: np.ndarray) -> np.ndarray | None:
        mass = weights * q_c if match == "joint" else weights
        values = joint.ravel() if match == "joint" else steps @ problem.path_prior
        rows = np.vstack([simplex_m, causal, *(np.kron(column, steps) for column in mass.T)])
        return solve(cost, rows, np.concatenate([ones, np.zeros(len(causal)), values]))

    best = Factorised(np.inf, np.empty(0), np.empty(0))
    for _ in range(starts):
        q_m: np.ndarray | None = np.tile(problem.path_prior, (n, 1))
        guess = np.einsum("nap,p->na", cost, problem.path_prior) + cost.mean() * a * rng.standard_normal((n, a))
        q_c = best_static(np.tile(problem.path_prior, (n, 1)), guess)
        assert q_c is not None
        if rng.random() < 0.5:  # a start in which z^c depends on the voice alone
            by_voice = (weights * q_c).reshape(VOICES, -1, a).sum(1) / weights.reshape(VOICES, -1).sum(1)[:, None]
            q_c = by_voice.repeat(n // VOICES, axis=0)
        value = np.inf
        for _ in range(30):  # a limit, since rounding errors let the cost decrease forever
            if q_m is None or q_c is None:
                break  # infeasible, since the constraints of the other factor hold only up to rounding
            before, value = value, float(np.einsum("nap,na,np->", cost, q_c, q_m))
            if value < best.cost:
                best = Factorised(value, q_c, q_m)
            if value > before - 1e-6:
                break
            q_m = best_dynamic(q_c, np.einsum("nap,na->np", cost, q_c))
            if q_m is not None:
                q_c = best_static(q_m, np.einsum("nap,np->na", cost, q_m))
    return best


def penalised(problem: Problem, beta: float, starts: int, generator: torch.Generator) -> float:
    """Search for the smallest E c + β · (MMD²(Q_{z^c}, P) + Σ_t MMD²_t) over posteriors of the paper's form.

    MMD² is that of the distributions, not of samples, with the toolkit's kernel; a code is the number 0 or 1. MMD²_t compares
    Q_{z^m_{≤t}} with Q_{z^m_{<t}} · P_{z^m_t | z^m_{<t}}. The posterior has logits for every z^m_{<t} and x_{≤t}, and so it is
    causal. The optimizer is L-BFGS in float64.

    Args:
        problem: The problem.
        beta: The weight β.
        starts: The number of random starts.
        generator: The random numbers.
    """
    n, a, p = problem.cost.shape
    cost, weights = torch.tensor(problem.cost * problem.weights[:, None, None]), torch.tensor(problem.weights)
    static_prior, paths = torch.tensor(problem.static_prior), torch.tensor(problem.paths)

    def kernel(codes: Tensor) -> Tensor:
        return imq(squared_distances(codes.double(), codes.double()), codes.shape[1], 0.25)

    steps, logits = [], [torch.randn(starts, n, a, generator=generator, dtype=torch.float64)]
    for t in range(STEPS):
        pasts, past = np.unique(problem.x[:, : t + 1].reshape(n, -1), axis=0, return_inverse=True)
        heads, head = np.unique(problem.paths[:, :t], axis=0, return_inverse=True)
        # P(z^m_t | z^m_{<t})
        conditional = torch.tensor(prefix_probabilities(problem, t + 1) / prefix_probabilities(problem, t))
        kernels = kernel(paths[:, : t + 1])
        steps.append((torch.tensor(past.reshape(-1, 1)), torch.tensor(head.ravel()), paths[:, t], conditional, kernels))
        shape = (starts, len(pasts), len(heads), DYNAMIC)
        logits.append(torch.randn(shape, generator=generator, dtype=torch.float64))

    def losses() -> Tensor:
        q_c = logits[0].softmax(-1)
        excess = weights @ q_c - static_prior
        penalty = torch.einsum("sa,ab,sb->s", excess, kernel(torch.arange(a)[:, None]), excess)
        q_m = torch.ones(starts, n, p, dtype=torch.float64)  # the probability of the prefix m_{≤t} of every path
        for t, (past, head, code, conditional, kernels) in enumerate(steps):
            before = weights @ q_m
            q_m = q_m * logits[1 + t].softmax(-1)[:, past, head, code]
            same_prefix = DYNAMIC ** (STEPS - 1 - t)  # the number of paths with the prefix of a path
            excess = (weights @ q_m - before * conditional) / same_prefix
            penalty = penalty + torch.einsum("sp,pr,sr->s", excess, kernels, excess)
        return torch.einsum("nap,sna,snp->s", cost, q_c, q_m) + beta * penalty

    minimise(lambda: losses().sum(), logits, rounds=1000)
    return float(losses().detach().min())


def prefix_probabilities(problem: Problem, t: int) -> np.ndarray:
    """Return the prior probability P(z^m_{≤t}) of the first t codes of every path, (P,)."""
    same_prefix = (problem.paths[:, None, :t] == problem.paths[None, :, :t]).all(-1)
    return same_prefix @ problem.path_prior


def levels(problem: Problem, rng: np.random.Generator) -> dict[str, float]:
    """Return W and the optima under each set of constraints on the posterior.

    `independence` is the distance W between the model's distribution P_G and the decoded Q_{z^c, z^m}, for the posterior of
    `apart`. `corrected` is (√apart + √independence)². It is an upper bound of W, since √W is a metric.

    Args:
        problem: The problem.
        rng: The random numbers of the searches.
    """
    codes = np.outer(problem.static_prior, problem.path_prior).ravel()
    apart, n = factorised(problem, "apart", 5, rng), len(problem.x)
    decodings = problem.decodings.reshape(len(codes), -1)
    between = ((decodings[:, None] - decodings) ** 2).sum(-1)
    aggregate = np.einsum("n,na,np->ap", problem.weights, apart.static, apart.dynamic).ravel()
    independence = transport(between, aggregate / aggregate.sum(), codes)
    return {
        "wasserstein": transport(problem.cost.reshape(n, -1), problem.weights, codes),
        "causal": causal_relaxation(problem),
        "joint": factorised(problem, "joint", 12, rng).cost,
        "apart": apart.cost,
        "marginal": factorised(problem, "marginal", 5, rng).cost,
        "independence": independence,
        "corrected": (apart.cost**0.5 + max(independence, 0.0) ** 0.5) ** 2,
    }
