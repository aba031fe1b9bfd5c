"""Power spectra of samples, each computed once for all losses, and the two losses that compare them.

Samples are (B, N), power spectra (B, T, bins). Everything here is float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.data.features import MelConfig, mel_filters

SIZES = (512, 1024, 2048)  # of the windows, in samples; a quarter of one apart


class Spectra:
    """The power spectra of samples (B, N), kept once computed.

    Each is the squared magnitude of a centred short-time Fourier transform, reflected at both ends, with a Hann window.
    """

    def __init__(self, samples: Tensor) -> None:
        self.samples = samples
        self.known: dict[tuple[int, int, int], Tensor] = {}

    def power(self, size: int, hop: int | None = None, length: int | None = None) -> Tensor:
        """Return the spectrum (B, T, size / 2 + 1), windows of `length` (size) samples every `hop` (a quarter of it)."""
        length = length or size
        key = size, hop or size // 4, length
        if key not in self.known:
            before = (size - length) // 2
            window = torch.hann_window(length, device=self.samples.device)
            window = F.pad(window, (before, size - length - before))
            padded = F.pad(self.samples[:, None], (size // 2, size // 2), mode="reflect")[:, 0]
            self.known[key] = _Power.apply(padded, window, key[1])
        return self.known[key]


class _Power(torch.autograd.Function):
    """Samples (B, N), a window (size,) and a hop → power spectra (B, T, size / 2 + 1).

    The derivative is one real transform. Autograd would take a complex one, twice as long, of spectra filled up with zeros,
    and add the frames up one sample at a time.
    """

    @staticmethod
    def forward(ctx: Any, samples: Tensor, window: Tensor, hop: int) -> Tensor:
        spectrum = torch.fft.rfft(samples.unfold(1, len(window), hop) * window)
        ctx.save_for_backward(spectrum, window)
        ctx.hop, ctx.length = hop, samples.shape[1]
        squares = torch.view_as_real(spectrum).square()
        return squares[..., 0] + squares[..., 1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        spectrum, window = ctx.saved_tensors
        weighted = spectrum * gradient
        weighted[..., 0] *= 2  # the other bins count twice in the inverse of a real transform
        weighted[..., -1] *= 2
        frames = torch.fft.irfft(weighted, len(window), norm="forward").mul_(window)
        return overlapped(frames, ctx.hop, ctx.length), None, None


def overlapped(frames: Tensor, hop: int, length: int) -> Tensor:
    """Add up frames (B, T, size), each `hop` samples after the one before: (B, length)."""
    frames = F.pad(frames, (0, -frames.shape[-1] % hop)).unflatten(-1, (-1, hop))
    batch, count, parts, _ = frames.shape
    total = frames.new_zeros(batch, count + parts - 1, hop)
    for part in range(parts):
        total[:, part : part + count] += frames[:, :, part]
    total = total.flatten(1)
    return F.pad(total, (0, length - total.shape[1]))


def spectral_distance(output: Spectra, target: Spectra) -> Tensor:
    """Return the multi-resolution STFT loss: a scalar, the mean over SIZES of ‖S' − S‖ / ‖S‖ + E |log S' − log S|.

    S are magnitudes (Yamamoto, Song, Kim, "Parallel WaveGAN", ICASSP 2020), with auraloss's floor.
    """
    distances = []
    for size in SIZES:
        power, goal = output.power(size).clamp_min(1e-8), target.power(size).clamp_min(1e-8)
        magnitude = goal.sqrt()
        convergence = torch.linalg.vector_norm(magnitude - power.sqrt()) / torch.linalg.vector_norm(magnitude)
        distances.append(convergence + F.l1_loss(power.log(), goal.log()) / 2)
    return torch.stack(distances).mean()


def mel_distance(output: Spectra, target: Spectra, mel: MelConfig) -> Tensor:
    """Return the mean |difference| of the log-mels: a scalar, nats."""
    filters = mel_filters(mel).to(output.samples.device)

    def log_mels(spectra: Spectra) -> Tensor:
        magnitudes = (spectra.power(mel.n_fft, mel.hop_length, mel.win_length) + 1e-10).sqrt()
        return (magnitudes @ filters).clamp_min(1e-4).log()

    return F.l1_loss(log_mels(output), log_mels(target))
