"""Log-mel frames → waveform by Griffin-Lim: no weights, no pitch, a whispered sound."""

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
OVERLAP = 16  # frames that two chunks share; the window reaches over four or five
GLOBAL_GENERATOR = Lock()  # torchaudio draws from it, for one thread at a time
FADE = 4  # frames, in the middle of these, in which one chunk's sound gives way to the next one's


@dataclass(frozen=True)
class GriffinLim:
    """The vocoder that needs no weights and is told no pitch; it reads log-mels of any kind.

    Attributes:
        mel: The settings of the log-mels.
    """

    mel: MelConfig
    name = "griffin-lim"
    takes_pitch = False

    def chunks(self, frames: Iterable[Tensor], f0: Tensor | None = None, seed: int = 0) -> Iterator[Tensor]:
        """Yield samples (m,) at a time for log-mels that come (n, n_mels) at a time; `f0` is not used."""
        return griffin_lim_chunks(frames, self.mel, seed=seed)


def griffin_lim(log_mels: Tensor, config: MelConfig, iterations: int = 32, seed: int = 0) -> Tensor:
    """Return a waveform (N,), N = hop_length · (T − 1), whose log-mels are near log_mels (T, n_mels).

    The mels become a spectrum by non-negative least squares, torchaudio's fast Griffin-Lim finds phases from random ones
    that depend on the seed alone, and one gain restores the level that phases which do not fit together cost. Frames at
    the floor stay silent.
    """
    return torch.cat([*griffin_lim_chunks([log_mels], config, iterations, seed, len(log_mels))])


def griffin_lim_chunks(
    pieces: Iterable[Tensor], config: MelConfig, iterations: int = 32, seed: int = 0, size: int | None = None
) -> Iterator[Tensor]:
    """Yield the samples of `griffin_lim`, (m,) at a time, for log-mels that come in pieces (n, n_mels).

    Memory does not grow with them. A chunk of `size` frames (CHUNK when None) begins OVERLAP frames early and fades in
    while the one before fades out; each has phases of its own. Fewer than size + OVERLAP frames are one chunk.
    """
    draws, frames, before = generator(seed, "griffin-lim"), torch.zeros(0, config.n_mels), torch.zeros(0)
    place = (
        torch.linspace(-0.5, 0.5, config.hop_length * (OVERLAP - 1)) * (OVERLAP - 1) / FADE
    )  # -0.5 to 0.5 in the fade
    fade = torch.sin((place + 0.5).clamp(0, 1) * torch.pi / 2)
    for chunk in in_chunks(pieces, size or CHUNK, OVERLAP):
        frames = torch.cat([frames, chunk])
        sound = _sound(frames, config, iterations, draws)
        if len(before):  # two sounds with phases of their own: their powers add up
            sound[: len(fade)] = fade * sound[: len(fade)] + fade.flip(0) * before
        settled = max(len(sound) - len(fade), 0)
        yield sound[:settled]
        frames, before = frames[-OVERLAP:], sound[settled:]
    yield before


def _sound(log_mels: Tensor, config: MelConfig, iterations: int, draws: torch.Generator) -> Tensor:
    """Return the waveform of log_mels (T, n_mels); `draws` gives the seed of its first phases."""
    log_mels = log_mels.detach().float()
    spectrum = linear_spectrum(power(log_mels, config) ** (config.power / 2), config).T
    length = config.hop_length * (len(log_mels) - 1)
    with GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=draws)))
        sound = torchaudio().functional.griffinlim(
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
        return sound
    wanted, actual = (power(frames, config)[1:-1].sum() for frames in (log_mels, log_mel(sound, config)))
    return sound * (wanted / actual.clamp_min(1e-12)).sqrt().clamp(0.5, 2.0)


def power(log_mels: Tensor, config: MelConfig) -> Tensor:
    """Return the mel power above the floor, (T, n_mels)."""
    mels = log_mels.exp()
    return torch.where(mels > 1.001 * config.floor, mels, torch.zeros(())) ** (2 / config.power)


def linear_spectrum(mels: Tensor, config: MelConfig, iterations: int = 50) -> Tensor:
    """Return the non-negative spectrum (T, 1 + n_fft // 2) whose mels (T, n_mels) are nearest.

    Multiplicative updates, Lee & Seung 2001. `torchaudio.transforms.InverseMelScale` is quicker, but on 25 ms windows,
    where mel filters are narrower than a bin, its sound has log-mels 0.54 away from the wanted ones instead of 0.07.
    """
    filters = mel_filters(config).T
    wanted = mels @ filters
    linear = wanted.clone()
    gram = filters.T @ filters
    for _ in range(iterations):
        linear = linear * wanted / (linear @ gram).clamp_min(1e-20)
    return linear
