"""Log-mel frames → waveform."""

from __future__ import annotations

import torch
from torch import Tensor

from rwae_audio.features import MelConfig, hann, log_mel, mel_filters
from rwae_audio.randomness import generator

MOMENTUM = 0.99  # Perraudin, Balazs, Søndergaard 2013


def griffin_lim(log_mels: Tensor, config: MelConfig, iterations: int = 32, seed: int = 0) -> Tensor:
    """A waveform (N,), N = hop_length · (T − 1), whose log-mels are near log_mels (T, n_mels); centred frames only.

    Mel → linear by non-negative least squares, then the fast Griffin-Lim of torchaudio from random phases that depend
    on the seed alone, then one gain, since phases that do not fit together cost level. Frames at the floor stay silent.
    """
    from torchaudio.functional import griffinlim

    if not config.center:
        raise ValueError("Griffin-Lim needs centred frames; these have [mel] center = false")
    mels = log_mels.detach().float().exp()
    linear = linear_spectrum(torch.where(mels > 1.001 * config.floor, mels, torch.zeros(())), config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "griffin-lim").initial_seed() % 2**31)
        samples = griffinlim(
            linear.T,
            window=hann(config).float(),
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            win_length=config.n_fft,
            power=config.power,
            n_iter=iterations,
            momentum=MOMENTUM,
            length=config.hop_length * (log_mels.shape[0] - 1),
            rand_init=True,
        )
    if len(samples) < config.shortest:
        return samples
    wanted, got = (power(frames, config)[1:-1].sum() for frames in (log_mels, log_mel(samples, config)))
    return samples * (wanted / got.clamp_min(1e-12)).sqrt().clamp(0.5, 2.0)


def power(log_mels: Tensor, config: MelConfig) -> Tensor:
    """Mel power above the floor, (T, n_mels)."""
    mels = log_mels.detach().float().exp()
    return torch.where(mels > 1.001 * config.floor, mels, torch.zeros(())) ** (2 / config.power)


def linear_spectrum(mels: Tensor, config: MelConfig, iterations: int = 50) -> Tensor:
    """The non-negative spectrum (T, 1 + n_fft // 2) whose mels (T, n_mels) are nearest, by multiplicative updates.

    Lee & Seung 2001. A pseudo-inverse is quicker, but where mel filters are narrower than a bin (25 ms windows) it is
    ill-conditioned and its negative values, once clipped, leave the sound several dB too loud.
    """
    filters = mel_filters(config).T
    wanted = mels @ filters
    linear = wanted.clone()
    gram = filters.T @ filters
    for _ in range(iterations):
        linear = linear * wanted / (linear @ gram).clamp_min(1e-20)
    return linear
