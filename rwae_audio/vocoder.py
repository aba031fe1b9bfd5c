"""Log-mel frames → waveform."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from rwae_audio.features import MelConfig, hann, log_mel, mel_filters
from rwae_audio.randomness import generator
from rwae_audio.streaming import CHUNK, in_chunks

MOMENTUM = 0.99  # Perraudin, Balazs, Søndergaard 2013
OVERLAP = 16  # frames that two chunks share; the window reaches over four or five


def griffin_lim(log_mels: Tensor, config: MelConfig, iterations: int = 32, seed: int = 0) -> Tensor:
    """A waveform (N,), N = hop_length · (T − 1), whose log-mels are near log_mels (T, n_mels); centred frames only.

    Mel → linear by non-negative least squares, then the fast Griffin-Lim from random phases that depend on the seed alone,
    then one gain, since phases that do not fit together cost level. Frames at the floor stay silent.
    """
    return _sound(log_mels, config, iterations, generator(seed, "griffin-lim"), log_mels.new_zeros(0))


def griffin_lim_chunks(
    pieces: Iterable[Tensor], config: MelConfig, iterations: int = 32, seed: int = 0, size: int | None = None
) -> Iterator[Tensor]:
    """griffin_lim of log-mels that come in pieces (n, n_mels): its samples, (m,) at a time, in memory that does not grow
    with them; the same for fewer than size + OVERLAP frames. size: CHUNK, if it is None.

    A chunk of `size` frames starts OVERLAP earlier, with the phases of the sound that the one before has there, and
    fades in while that one fades out.
    """
    draws, frames, before = generator(seed, "griffin-lim"), torch.zeros(0, config.n_mels), torch.zeros(0)
    fade = torch.sin(torch.linspace(0, torch.pi / 2, config.hop_length * (OVERLAP - 1))).square()
    for chunk in in_chunks(pieces, size or CHUNK, OVERLAP):
        frames = torch.cat([frames, chunk])
        sound = _sound(frames, config, iterations, draws, before)
        if len(before):
            sound[: len(fade)] = fade * sound[: len(fade)] + (1 - fade) * before
        settled = max(len(sound) - len(fade), 0)
        yield sound[:settled]
        frames, before = frames[-OVERLAP:], sound[settled:]
    yield before


def _sound(log_mels: Tensor, config: MelConfig, iterations: int, draws: torch.Generator, before: Tensor) -> Tensor:
    """griffin_lim, its first phases those of `before` (n,), what is known of the sound's beginning, and drawn after it."""
    if not config.center:
        raise ValueError("Griffin-Lim needs centred frames; these have [mel] center = false")
    mels = log_mels.detach().float().exp()
    linear = linear_spectrum(torch.where(mels > 1.001 * config.floor, mels, torch.zeros(())), config)
    magnitude = linear.T ** (1 / config.power)
    window, length = hann(config).float(), config.hop_length * (len(log_mels) - 1)

    def spectrum(samples: Tensor) -> Tensor:
        return torch.stft(samples, config.n_fft, config.hop_length, window=window, return_complex=True)

    def samples(phases: Tensor) -> Tensor:
        return torch.istft(magnitude * phases, config.n_fft, config.hop_length, window=window, length=length)

    phases = torch.polar(torch.ones(()), 2 * torch.pi * torch.rand(magnitude.shape, generator=draws))
    if len(before):
        known = spectrum(before)
        phases[:, : known.shape[1]] = known / known.abs().clamp_min(1e-16)
    last = torch.zeros(())
    for _ in range(iterations):
        rebuilt = spectrum(samples(phases))
        phases = rebuilt - MOMENTUM / (1 + MOMENTUM) * last
        phases /= phases.abs() + 1e-16
        last = rebuilt
    sound = samples(phases)
    if len(sound) < config.shortest:
        return sound
    wanted, got = (power(frames, config)[1:-1].sum() for frames in (log_mels, log_mel(sound, config)))
    return sound * (wanted / got.clamp_min(1e-12)).sqrt().clamp(0.5, 2.0)


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
