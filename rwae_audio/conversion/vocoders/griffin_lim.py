"""The vocoder Griffin-Lim, which needs no weights: log-mels → waveform, with a whispering voice since it has no F0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from rwae_audio.data.features import MelConfig, log_mel, mel_filters
from rwae_audio.data.torch_audio import torchaudio
from rwae_audio.inference.streaming import CHUNK, in_chunks
from rwae_audio.randomness import generator

MOMENTUM = 0.99  # Perraudin, Balazs, Søndergaard 2013
OVERLAP = 16  # frames that two chunks share; the analysis window is four or five frames long
GLOBAL_GENERATOR = Lock()  # torchaudio uses PyTorch's global generator, so that one thread at a time may use it
FADE = 4  # frames in the middle of the overlap, in which one chunk fades out and the next one fades in


@dataclass(frozen=True)
class GriffinLim:
    """The vocoder Griffin-Lim for log-mels with any settings.

    Attributes:
        mel: The settings of the log-mels.
    """

    mel: MelConfig
    name = "griffin-lim"
    takes_pitch = False

    def chunks(self, frames: Iterable[Tensor], f0: Tensor | None = None, seed: int = 0) -> Iterator[Tensor]:
        """Yield the samples of log-mels that come in chunks (n, n_mels), (m,) at a time; `f0` is not used."""
        return griffin_lim_chunks(frames, self.mel, seed=seed)


def griffin_lim(log_mels: Tensor, config: MelConfig, iterations: int = 32, seed: int = 0) -> Tensor:
    """Return a waveform (N,), with N = hop_length · (T − 1), that approximates log-mels (T, n_mels).

    1. Non-negative least squares turn the mels into a spectrum. Frames at the floor become silent.
    2. torchaudio's fast Griffin-Lim algorithm finds phases, starting from random phases.
    3. One gain for the whole waveform restores the level, which drops if phases of overlapping frames are inconsistent.

    Args:
        log_mels: Log-mels (T, n_mels).
        config: The settings of the log-mels.
        iterations: The number of iterations of Griffin-Lim.
        seed: The seed of the initial phases.
    """
    return torch.cat([*griffin_lim_chunks([log_mels], config, iterations, seed, len(log_mels))])


def griffin_lim_chunks(
    pieces: Iterable[Tensor], config: MelConfig, iterations: int = 32, seed: int = 0, size: int | None = None
) -> Iterator[Tensor]:
    """Yield the samples of a recording of any length, (m,) at a time, in constant memory.

    Chunks of frames get their phases separately, and are joined by a crossfade.

    Args:
        pieces: Log-mels in pieces (n, n_mels).
        config: The settings of the log-mels.
        iterations: The number of iterations of Griffin-Lim.
        seed: The seed of the initial phases.
        size: The number of frames of a chunk, to which OVERLAP frames of the chunk before are added; CHUNK if None. A
            recording of fewer than size + OVERLAP frames is one chunk.
    """
    draws, frames, tail = generator(seed, "griffin-lim"), torch.zeros(0, config.n_mels), torch.zeros(0)
    position = torch.linspace(-0.5, 0.5, config.hop_length * (OVERLAP - 1)) * (OVERLAP - 1) / FADE
    fade = torch.sin((position + 0.5).clamp(0, 1) * torch.pi / 2)  # rises while `position` goes from -0.5 to 0.5
    for chunk in in_chunks(pieces, size or CHUNK, OVERLAP):
        frames = torch.cat([frames, chunk])
        samples = _reconstruction(frames, config, iterations, draws)
        if len(tail):  # the phases of both are unrelated, so that powers add up, and squares of the fades add up to 1
            samples[: len(fade)] = fade * samples[: len(fade)] + fade.flip(0) * tail
        finished = max(len(samples) - len(fade), 0)
        yield samples[:finished]
        frames, tail = frames[-OVERLAP:], samples[finished:]
    yield tail


def _reconstruction(log_mels: Tensor, config: MelConfig, iterations: int, draws: torch.Generator) -> Tensor:
    """Return the waveform of log-mels (T, n_mels); the seed of its initial phases comes from `draws`."""
    log_mels = log_mels.detach().float()
    spectrum = linear_spectrum(power(log_mels, config) ** (config.power / 2), config).T
    length = config.hop_length * (len(log_mels) - 1)
    with GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=draws)))
        samples = torchaudio().functional.griffinlim(
            spectrum,
            torch.hann_window(config.win_length),
            config.n_fft,
            config.hop_length,
            config.win_length,
            config.power,
            iterations,
            MOMENTUM,
            length,
            rand_init=True,
        )
    if length < config.shortest:
        return samples
    target, actual = (power(frames, config)[1:-1].sum() for frames in (log_mels, log_mel(samples, config)))
    return samples * (target / actual.clamp_min(1e-12)).sqrt().clamp(0.5, 2.0)


def power(log_mels: Tensor, config: MelConfig) -> Tensor:
    """Return the power in each mel band, (T, n_mels), from log-mels (T, n_mels); it is 0 at the floor."""
    mels = log_mels.exp()
    return torch.where(mels > 1.001 * config.floor, mels, torch.zeros(())) ** (2 / config.power)


def linear_spectrum(mels: Tensor, config: MelConfig, iterations: int = 50) -> Tensor:
    """Return the non-negative spectrum (T, 1 + n_fft // 2) with the mels nearest to given mels (T, n_mels).

    The algorithm is multiplicative updates (Lee & Seung 2001). `torchaudio.transforms.InverseMelScale` is faster, but less
    exact if mel filters are narrower than a bin: with windows of 25 ms its error is 0.54 nats instead of 0.07.

    Args:
        mels: The mels, (T, n_mels).
        config: The settings of the mels.
        iterations: The number of updates.
    """
    filters = mel_filters(config).T
    projected = mels @ filters
    linear = projected.clone()
    gram = filters.T @ filters
    for _ in range(iterations):
        linear = linear * projected / (linear @ gram).clamp_min(1e-20)
    return linear
