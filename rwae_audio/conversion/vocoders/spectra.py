"""Spectral losses of the vocoder's training: the power spectra of samples, and two distances between them.

Samples are (B, N), power spectra (B, T, bins). Everything here is float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.data.features import MelConfig, mel_filters

SIZES = (512, 1024, 2048)  # samples, the lengths of windows; the hop is a quarter of the length


class Spectra:
    """The power spectra of samples (B, N), each of which is computed once for all losses.

    A power spectrum is the squared magnitude of a centred short-time Fourier transform with a Hann window. Samples are
    reflected at both ends.
    """

    def __init__(self, samples: Tensor) -> None:
        self.samples = samples
        self.cache: dict[tuple[int, int, int], Tensor] = {}

    def power(self, size: int, hop: int | None = None, length: int | None = None) -> Tensor:
        """Return a power spectrum, (B, T, size / 2 + 1).

        Args:
            size: The size of the Fourier transform in samples.
            hop: The number of samples between two frames, `size` / 4 if None.
            length: The length of the window in samples, `size` if None.
        """
        length = length or size
        key = size, hop or size // 4, length
        if key not in self.cache:
            before = (size - length) // 2
            window = torch.hann_window(length, device=self.samples.device)
            window = F.pad(window, (before, size - length - before))
            padded = F.pad(self.samples[:, None], (size // 2, size // 2), mode="reflect")[:, 0]
            self.cache[key] = _Power.apply(padded, window, key[1])
        return self.cache[key]


class _Power(torch.autograd.Function):
    """The map from samples (B, N), a window (size,) and a hop to power spectra (B, T, size / 2 + 1).

    Its derivative needs one real transform. Autograd would compute a complex transform of twice the length, and add the
    frames one sample at a time.
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
        weighted[..., 0] *= 2  # all bins but the first and the last count twice in an inverse real transform
        weighted[..., -1] *= 2
        frames = torch.fft.irfft(weighted, len(window), norm="forward").mul_(window)
        return overlapped(frames, ctx.hop, ctx.length), None, None


def overlapped(frames: Tensor, hop: int, length: int) -> Tensor:
    """Return the sum of overlapping frames, (B, length).

    Args:
        frames: The frames, (B, T, size).
        hop: The number of samples between the starts of two frames.
        length: The number of samples of the result.
    """
    frames = F.pad(frames, (0, -frames.shape[-1] % hop)).unflatten(-1, (-1, hop))
    batch, count, parts, _ = frames.shape
    total = frames.new_zeros(batch, count + parts - 1, hop)
    for part in range(parts):
        total[:, part : part + count] += frames[:, :, part]
    total = total.flatten(1)
    return F.pad(total, (0, length - total.shape[1]))


def spectral_distance(output: Spectra, target: Spectra) -> Tensor:
    """Return the multi-resolution STFT loss, a scalar (Yamamoto, Song, Kim, "Parallel WaveGAN", ICASSP 2020).

    It is the mean over SIZES of ‖S' − S‖ / ‖S‖ + E |log S' − log S|. S' and S are the magnitudes of output and target. Powers
    are at least 1e-8, as in auraloss.
    """
    distances = []
    for size in SIZES:
        power, target_power = output.power(size).clamp_min(1e-8), target.power(size).clamp_min(1e-8)
        magnitude = target_power.sqrt()
        convergence = torch.linalg.vector_norm(magnitude - power.sqrt()) / torch.linalg.vector_norm(magnitude)
        distances.append(convergence + F.l1_loss(power.log(), target_power.log()) / 2)
    return torch.stack(distances).mean()


def mel_distance(output: Spectra, target: Spectra, mel: MelConfig) -> Tensor:
    """Return the mean absolute difference of the log-mels of output and target, a scalar in nats."""
    filters = mel_filters(mel).to(output.samples.device)

    def log_mels(spectra: Spectra) -> Tensor:
        magnitudes = (spectra.power(mel.n_fft, mel.hop_length, mel.win_length) + 1e-10).sqrt()
        return (magnitudes @ filters).clamp_min(1e-4).log()

    return F.l1_loss(log_mels(output), log_mels(target))
