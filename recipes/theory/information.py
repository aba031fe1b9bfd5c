"""The information I(x; z) in the codes of each objective, on a linear-Gaussian problem where it has a closed form.

    x_t = a · c + b · m_t + noise,  c ~ N(0, 1),  m_t an AR(1) chain of variance 1,  t = 1 … T,  x_t in R²

Encoders and decoder are linear, posteriors and priors are Gaussian, and every code is a number:

    z^c = ⟨w, x_{1:T}⟩ + noise,  z^m_t = ⟨w_t, x_{≤t}⟩ + noise,  x̂_t = g · z^c + h · z^m_t

The prior of z^m is AR(1) with a learned coefficient and variance 1. So every term of every objective is a function of a few
numbers, which is minimised without sampling. Information is in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rwae_audio.model import RWAE, ModelConfig
from rwae_audio.objectives import OBJECTIVES, objective_settings
from rwae_audio.objectives.divergences import SCALES, squared_distances
from rwae_audio.randomness import generator

STEPS, DIM = 4, 2
STATIC_AXIS, DYNAMIC_AXIS = (1.5, 0.5), (-0.5, 1.0)  # a, b
COEFFICIENT, NOISE = 0.6, 0.3  # the coefficient of the AR(1) chain; the standard deviation of the noise
FIXED_VARIANCE = 0.1  # the variance of R-WAE's posteriors
BETAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
UPDATES, BATCH, LEARNING_RATE = 450, 96, 1e-2
Closed = Literal["vae", "rwae-kl", "rwae-mmd"]
Trained = Literal["dsvae", "rwae-mmd", "rwae-mmd-learned"]
NETWORK = ModelConfig(
    n_mels=DIM,
    static_dim=1,
    dynamic_dim=1,
    static_hidden=16,
    dynamic_hidden=16,
    prior_hidden=16,
    decoder_hidden=16,
    static_from="segment",
    static_stride=1,
    static_network="recurrent-last",
    posterior="fixed",
    static_variance=FIXED_VARIANCE,
    dynamic_norm="none",
    dynamic_variance=FIXED_VARIANCE,
    dynamic_offset_variance=0.0,
    feedback=False,
    decoder="frame",
)


def chain(coefficient: Tensor) -> Tensor:
    """Return the covariance (T, T) of a stationary AR(1) chain of variance 1."""
    times = torch.arange(STEPS, dtype=torch.float64)
    return coefficient ** (times[:, None] - times).abs()


def data_covariance() -> Tensor:
    """Return the covariance of x_{1:T}, (2 T, 2 T), with the two coordinates of a step beside each other."""
    a, b = (torch.tensor(axis, dtype=torch.float64) for axis in (STATIC_AXIS, DYNAMIC_AXIS))
    static = torch.kron(torch.ones(STEPS, STEPS, dtype=torch.float64), torch.outer(a, a))
    dynamic = torch.kron(chain(torch.tensor(COEFFICIENT, dtype=torch.float64)), torch.outer(b, b))
    return static + dynamic + NOISE**2 * torch.eye(STEPS * DIM, dtype=torch.float64)


def draw_data(count: int, source: torch.Generator) -> Tensor:
    """Draw sequences, (count, T, 2), float32, with the random numbers of `source`."""
    root = torch.linalg.cholesky(data_covariance())
    return (
        (torch.randn(count, STEPS * DIM, generator=source, dtype=torch.float64) @ root.T).float().view(-1, STEPS, DIM)
    )


def expected_imq(variance: Tensor, prior_variance: Tensor) -> Tensor:
    """Return the expectation E k(x, y) of the toolkit's kernel in one dimension, for x − y ~ N(0, variance).

    E C / (C + D²) = √(π C / 2 v) · erfcx(√(C / 2 v)) for D ~ N(0, v); C = 2 · prior_variance · s, summed over scales s.

    Args:
        variance: The variance of x − y, (...,).
        prior_variance: The variance of the prior, which sets the scales of the kernel, (...,).
    """
    ratios = (torch.tensor(SCALES, dtype=variance.dtype) * (prior_variance / variance)[..., None]).sqrt()  # √(C / 2 v)
    return math.sqrt(math.pi) * (ratios * torch.special.erfcx(ratios)).sum(-1)


def gaussian_mmd(q: Tensor, p: Tensor, prior_variance: Tensor) -> Tensor:
    """Return MMD² between N(0, q) and N(0, p) with the toolkit's kernel, whose scales are set by `prior_variance`."""
    within = expected_imq(2 * q, prior_variance) + expected_imq(2 * p, prior_variance)
    return within - 2 * expected_imq(q + p, prior_variance)


def gaussian_wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Return the Wasserstein distance (squared L2 cost) between N(0, a) and N(0, b): tr(a + b − 2 (a^½ b a^½)^½).

    It is a lower bound of the distance between other distributions with these covariances (Gelbrich 1990).

    Args:
        a: The covariance of the first distribution, (d, d).
        b: The covariance of the second distribution, (d, d).
    """
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return a.trace() + b.trace() - 2 * torch.linalg.eigvalsh(root @ b @ root).clamp_min(0).sqrt().sum()


class Linear:
    """A linear-Gaussian autoencoder."""

    def __init__(self, floor: float, seed: int = 0) -> None:
        """Draw the initial parameters with a seed. Posterior variances are learned and at least `floor`."""
        source = generator(seed, "theory/linear")
        shapes = {
            "w": (1, STEPS * DIM),
            "w_t": (STEPS, STEPS * DIM),
            "g": (DIM,),
            "h": (DIM,),
            "s": (1 + STEPS,),
            "r": (),
        }
        self.parts = {
            name: 0.3 * torch.randn(shape, generator=source, dtype=torch.float64) for name, shape in shapes.items()
        }
        self.floor, self.covariance = floor, data_covariance()
        self.causal = torch.ones(STEPS, STEPS, dtype=torch.float64).tril().repeat_interleave(DIM, dim=1)

    def terms(self) -> dict[str, Tensor]:
        """Return all terms of the objectives.

        Returns:
            `error` is the squared error, and `wasserstein` is W(P_D, P_G), which has no gradient. For each code, `information`
            is I(x; z), `kl` is E KL(q(z|x) ‖ p), `aggregate_kl` is KL(Q ‖ p), and `mmd` is MMD² as in `rwae-mmd`. For z^m,
            KL(Q ‖ p) is Σ_t E KL(Q_{z^m_t|z^m_{<t}} ‖ P_{z^m_t|z^m_{<t}}).
        """
        w, w_t, g, h = self.parts["w"], self.parts["w_t"] * self.causal, self.parts["g"], self.parts["h"]
        noise = self.floor + self.parts["s"].exp()
        rho = 0.99 * self.parts["r"].tanh()
        codes = torch.cat([w, w_t])  # (1 + T, 2 T)
        means = codes @ self.covariance @ codes.T  # the covariance of the means of the posteriors
        total = means + noise.diag()  # the covariance of the codes

        decoder = torch.cat([g.repeat(STEPS)[:, None], torch.kron(torch.eye(STEPS, dtype=h.dtype), h[:, None])], dim=1)
        cross = decoder @ codes @ self.covariance
        error = self.covariance.trace() - 2 * cross.trace() + (decoder @ total @ decoder.T).trace()

        def information(part: slice) -> Tensor:
            return (total[part, part].logdet() - noise[part].log().sum()) / 2

        static, dynamic = slice(0, 1), slice(1, None)
        q, s = total[dynamic, dynamic], noise[dynamic]
        v = torch.cat([torch.ones(1, dtype=q.dtype), (1 - rho**2).expand(STEPS - 1)])  # prior variances, given the past
        before = torch.cat([torch.zeros(1, dtype=q.dtype), q.diag()[:-1]])  # E (z^m_{t-1})²
        lagged = torch.cat([torch.zeros(1, dtype=q.dtype), q.diagonal(1)])  # E z^m_{t-1} z^m_t
        squares = q.diag() - s - 2 * rho * lagged + rho**2 * before  # E (mean of q − mean of p)²
        prior = chain(rho)
        joint = torch.linalg.solve(prior, q).trace() - STEPS + prior.logdet() - q.logdet()
        unit, z = torch.ones((), dtype=q.dtype), total[0, 0]
        generated = decoder @ torch.block_diag(unit[None, None], prior) @ decoder.T
        return {
            "error": error,
            "wasserstein": gaussian_wasserstein(self.covariance, generated.detach()),
            "static_information": information(static),
            "static_kl": (z - 1 - noise[0].log()) / 2,
            "static_aggregate_kl": (z - 1 - z.log()) / 2,
            "static_mmd": gaussian_mmd(z, unit, unit),
            "dynamic_information": information(dynamic),
            "dynamic_kl": ((v / s).log() + (s + squares) / v - 1).sum() / 2,  # the sum over steps, as in `dsvae`
            "dynamic_aggregate_kl": joint / 2,
            "dynamic_mmd": gaussian_mmd(q.diag(), rho**2 * before + v, v.detach()).sum(),
        }


def sweep(objective: Closed, floor: float, betas: Sequence[float] = BETAS) -> list[dict[str, float]]:
    """Return the terms at the minimum of error + β · (static + dynamic regulariser) for every β.

    The search begins at β = 1. The minimum for one β is the start of the search for the next larger or smaller β.

    Args:
        objective: The objective, which sets the regulariser.
        floor: The smallest posterior variance.
        betas: The weights β.
    """
    kind = {"vae": "kl", "rwae-kl": "aggregate_kl", "rwae-mmd": "mmd"}[objective]
    rows: dict[float, dict[str, float]] = {}
    for branch in ([beta for beta in betas if beta >= 1], [beta for beta in reversed(betas) if beta < 1]):
        model = Linear(floor)
        for beta in branch:

            def loss(beta: float = beta, model: Linear = model) -> Tensor:
                terms = model.terms()
                return terms["error"] + beta * (terms[f"static_{kind}"] + terms[f"dynamic_{kind}"])

            minimise(loss, list(model.parts.values()))
            terms = {name: float(term.detach()) for name, term in model.terms().items()}
            rows[beta] = {"beta": beta, "loss": float(loss().detach()), **terms}
    return [rows[beta] for beta in betas]


def minimise(loss: Callable[[], Tensor], parameters: Sequence[Tensor], rounds: int = 300) -> None:
    """Change parameters to a minimum of a smooth loss, by L-BFGS with a strong Wolfe line search.

    Args:
        loss: The loss as a function of the current parameters.
        parameters: The parameters, which are changed in place.
        rounds: The largest number of iterations.
    """
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=rounds,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        history_size=30,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def train(name: Trained, beta: float) -> RWAE:
    """Train a small model of the toolkit on the linear-Gaussian data, with new data for every update.

    R-WAE compares (z̃^m_{t-1}, z̃^m_t) with (z̃^m_{t-1}, z^m_t), since the conditional depends on the step before alone.

    Args:
        name: The objective. The posterior variances of `rwae-mmd` are fixed, those of the others are learned.
        beta: The weight β of the regularisers.
    """
    config = NETWORK
    if name != "rwae-mmd":
        config = replace(config, posterior="learned")
    weights = {"static_weight": beta, "dynamic_weight": beta}
    settings = objective_settings("dsvae", **weights)
    if name != "dsvae":
        settings = objective_settings("rwae-mmd", **weights, dynamic_match="joint")
    objective = OBJECTIVES[settings.name](settings, config)
    torch.manual_seed(0)  # the layers' initial weights come from the global generator
    model = RWAE(config)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    data, noise = generator(0, "theory/data"), generator(0, "theory/noise")
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, UPDATES)
    for _ in range(UPDATES):
        frames = draw_data(BATCH, data)
        terms = objective(model, model(frames, generator=noise), frames, noise)
        optimizer.zero_grad()
        sum(terms.values(), torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def measure(model: RWAE, count: int = 2048) -> dict[str, float]:
    """Return the squared error of a model on new sequences, I of both codes, mean posterior variances, and bounds of W.

    `wasserstein_high` is the exact W between samples, `count` / 2 data sequences and as many rollouts of the prior. It is too
    large on average. `wasserstein_zero` is the same for two samples of the data, although their true W is 0.
    `wasserstein_low` is Gelbrich's bound, from the covariance of the data and that of 50,000 rollouts.
    """
    frames, second_sample = (
        draw_data(count, generator(1, "theory/data")),
        draw_data(count // 2, generator(2, "theory/data")),
    )
    source = generator(1, "theory/noise")
    static, dynamic, reconstruction = model(frames, generator=source)[:3]
    rollouts = model.decoder(torch.randn(50_000, 1, generator=source), model.prior.rollout(50_000, STEPS, source))
    return {
        "error": float((reconstruction - frames).square().sum((1, 2)).mean()),
        "static_information": mixture_information(static.sample, static.mean, static.variance),
        "dynamic_information": mixture_information(
            *(part.flatten(1) for part in (dynamic.sample, dynamic.mean, dynamic.variance))
        ),
        "static_variance": float(static.variance.mean()),
        "dynamic_variance": float(dynamic.variance.mean()),
        "wasserstein_low": float(gaussian_wasserstein(data_covariance(), rollouts.flatten(1).double().T.cov())),
        "wasserstein_high": sample_distance(frames[: count // 2], rollouts[: count // 2]),
        "wasserstein_zero": sample_distance(frames[: count // 2], second_sample),
    }


def mixture_information(sample: Tensor, mean: Tensor, variance: Tensor) -> float:
    """Return an estimate of I(x; z) in nats: mean_i [log q(z_i|x_i) − log (1/N) Σ_j q(z_i|x_j)], z_i ~ q(z|x_i).

    See Hoffman & Johnson 2016, "ELBO surgery", and van den Oord et al. 2018. Its expectation is at most I and at most ln N.

    Args:
        sample: The draws z_i, (N, d).
        mean: The means of the posteriors, which are diagonal Gaussians, (N, d).
        variance: The variances of the posteriors, (N, d).
    """
    z, mean, variance = sample.double(), mean.double(), variance.double()
    squares = (z[:, None] - mean) ** 2 / variance + variance.log()  # (N, N, d)
    logs = -squares.sum(-1) / 2
    return float((logs.diagonal() - logs.logsumexp(1) + math.log(len(z))).mean())


def sample_distance(x: Tensor, y: Tensor) -> float:
    """Return the Wasserstein distance between two samples, (n, T, d) each, which is the cost of the cheapest assignment."""
    cost = squared_distances(x.flatten(1).double(), y.flatten(1).double()).numpy()
    return float(cost[linear_sum_assignment(cost)].mean())
