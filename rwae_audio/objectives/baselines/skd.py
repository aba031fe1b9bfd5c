"""The objective skd: an autoencoder whose dynamic codes follow a linear operator with eigenvalues away from 1.

Berman, Naiman, Azencot, "Multifactor Sequential Disentanglement via Structured Koopman Autoencoders", ICLR 2023, arXiv
2303.17264. B sequences, T frames, d dimensions of a dynamic code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.distributed import gather
from rwae_audio.model import RWAE, Output
from rwae_audio.objectives.base import Objective, ObjectiveSettings, squared_error

RECONSTRUCTION = 15.0  # λ_rec of the released code, in which λ_pred and λ_eig are 1
THRESHOLD = 0.5  # ε, the largest real part of an eigenvalue without penalty, as in the released code
RIDGE = 1e-4  # relative to the mean square of the codes
TOLERANCE = 1e-3  # relative singular value of the eigenvectors under which they count as dependent


@dataclass(frozen=True)
class SkdSettings(ObjectiveSettings):
    """The settings of SKD. `static_weight` is λ_eig and `dynamic_weight` is λ_pred."""

    name: str = "skd"


class Skd(Objective):
    """The loss of the structured Koopman autoencoder, times T · n_mels / λ_rec:

    Σ_t c(x_t, G) + T · n_mels / λ_rec · [ λ_pred · (mean (z^m_{t+1} − A·z^m_t)² + mean (x_{t+1} − G(z^c, A·z^m_t))²)
        + λ_eig · (1/d) Σ_i ρ(Re μ_i) ],    ρ(r) = r if r > ε, else 0

    z^m are posterior means, μ are the eigenvalues of A, and the other means are over all elements. A is the solution of
    least squares over the batch, and has a gradient. There is no KL term, so a learned variance falls to its lower bound.

    In the paper one code a frame has static and dynamic parts, which are told apart by the eigenvalues of one operator.
    Here z^c is one vector for all frames, so its block is the identity and needs no penalty. The released code compares
    the decoded prediction with the reconstruction; here it is compared with the frames. The released code has dropout on
    the codes; here there is none. The ridge of the least squares is ours as well.
    """

    Settings = SkdSettings

    def forward(self, model: RWAE, output: Output, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        codes = output.dynamic.mean
        operator = linear_operator(gather(codes))
        predicted = codes[:, :-1] @ operator.T
        # the first code stays, so that a recurrent decoder reads a whole sequence
        decoded = model.decoder(output.static.sample, torch.cat([codes[:, :1], predicted], dim=1))
        code_error, frame_error = F.mse_loss(predicted, codes[:, 1:]), F.mse_loss(decoded[:, 1:], frames[:, 1:])
        scale = frames[0].numel() / RECONSTRUCTION
        return {
            "reconstruction": squared_error(output.reconstruction, frames),
            "static": self.config.static_weight * scale * spectral_penalty(operator),
            "dynamic": self.config.dynamic_weight * scale * (code_error + frame_error),
        }


def linear_operator(codes: Tensor) -> Tensor:
    """Return the matrix A (d, d) that predicts each code from the code before it, A·z_t ≈ z_{t+1}.

    A minimises the squared error over all steps of all sequences, with a small ridge.

    Args:
        codes: (B, T, d).
    """
    before, after = codes[:, :-1].flatten(0, 1), codes[:, 1:].flatten(0, 1)
    gram = before.T @ before
    ridge = RIDGE * gram.diagonal().mean() + torch.finfo(gram.dtype).eps
    regularised = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(regularised, before.T @ after).T


def spectral_penalty(operator: Tensor) -> Tensor:
    """Return the mean over eigenvalues of their real parts, of which those up to THRESHOLD count as 0: a scalar.

    Args:
        operator: (d, d).
    """
    values = eigenvalues(operator.cpu())  # few numbers, and some devices have no eigenvalues
    return F.threshold(values.real, THRESHOLD, 0.0).mean().to(operator.device)


def eigenvalues(operator: Tensor) -> Tensor:
    """Return the eigenvalues (d,) of a matrix (d, d), complex numbers with a finite gradient.

    The gradient of an eigenvalue is the product of its left and right eigenvector. Where eigenvectors are dependent, as
    they can be for a repeated eigenvalue, left ones do not exist. A pseudoinverse of the right ones stands in for them.
    """
    with torch.no_grad():
        values, right = torch.linalg.eig(operator.nan_to_num())  # which rejects values that are not finite
        left = torch.linalg.pinv(right, rtol=TOLERANCE)
    change = (operator - operator.detach()).to(values.dtype)  # zero, and its gradient is that of the operator
    return values + (left @ change @ right).diagonal()
