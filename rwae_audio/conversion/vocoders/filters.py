"""The filters of the neural vocoder: what they are before the network's correction, and the sum of the filtered sources."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.data.features import MelConfig, bin_positions

QUIETEST, LOUDEST = -16.0, 8.0  # nats, the range of the filters' log-gains


class FilteredSum(torch.autograd.Function):
    """The sum of the two filtered sources, a spectrum (B, T, bins), from complex spectra of the sources (B, T, bins).

    v, h, c, s are the four parts of the network's output (B, T, 4 · bins), and θ is the angle of 1 + 4c + 4is. The sum is
    exp(buzz_gain + 4v) · e^{iθ} · buzz + exp(hiss_gain + 4h) · noise, with exponents limited to QUIETEST … LOUDEST. The
    derivative of e^{iθ} is written out, since autograd would divide complex numbers.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, buzz_gain: Tensor, hiss_gain: Tensor, buzz: Tensor, noise: Tensor) -> Tensor:
        buzz_gain, hiss_gain, cosine, sine, scale = filter_parts(output, buzz_gain, hiss_gain)
        gain = buzz_gain.clamp(QUIETEST, LOUDEST).exp_().mul_(scale)
        filtered_buzz = torch.complex(gain * cosine, gain * sine).mul_(buzz)
        filtered_noise = noise * hiss_gain.clamp(QUIETEST, LOUDEST).exp_()
        ctx.save_for_backward(buzz_gain, hiss_gain, cosine, sine, scale, filtered_buzz, filtered_noise)
        return filtered_buzz + filtered_noise

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        buzz_gain, hiss_gain, cosine, sine, scale, filtered_buzz, filtered_noise = ctx.saved_tensors
        by_buzz, by_noise = gradient.conj() * filtered_buzz, gradient.conj() * filtered_noise
        angle = by_buzz.imag * scale.square()  # minus the derivative by θ, over the squared length of (cosine, sine)
        by_output = gradient.real.new_empty(*buzz_gain.shape[:-1], 4 * buzz_gain.shape[-1])
        parts = by_output.chunk(4, dim=-1)
        torch.mul(by_buzz.real, (buzz_gain >= QUIETEST) & (buzz_gain <= LOUDEST), out=parts[0])
        torch.mul(by_noise.real, (hiss_gain >= QUIETEST) & (hiss_gain <= LOUDEST), out=parts[1])
        torch.mul(sine, angle, out=parts[2])
        torch.mul(cosine, angle.neg_(), out=parts[3])
        return by_output.mul_(4), None, None, None, None


def filter_parts(output: Tensor, buzz_gain: Tensor, hiss_gain: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the corrected log-gains of buzz and hiss, and 1 + 4c, 4s and 1 / |1 + 4c + 4is| (see `FilteredSum`)."""
    parts = output.chunk(4, dim=-1)
    buzz_gain, hiss_gain = torch.add(buzz_gain, parts[0], alpha=4), torch.add(hiss_gain, parts[1], alpha=4)
    cosine, sine = 1 + 4 * parts[2], 4 * parts[3]
    return buzz_gain, hiss_gain, cosine, sine, (cosine.square() + sine.square()).clamp_min_(1e-12).rsqrt_()


def envelope_matrix(config: MelConfig) -> Tensor:
    """Return the matrix (n_mels, bins) that interpolates log-mels to a log-magnitude for each bin of the spectrum.

    The gains of the mel filters have to be subtracted from the log-mels before. Interpolation is linear between the centres
    of the filters.
    """
    frequencies = torch.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1, dtype=torch.float64)
    position = torch.from_numpy(bin_positions(frequencies.numpy(), config)).clamp(0, config.n_mels - 1)
    low = position.floor().long().clamp(max=config.n_mels - 2)
    weight = position - low
    one_hot = (
        F.one_hot(low, config.n_mels) * (1 - weight)[:, None] + F.one_hot(low + 1, config.n_mels) * weight[:, None]
    )
    return one_hot.T.float().contiguous()
