"""The harmonics of log-mels: decoded envelopes get those of a given F0.

Windows of 64 ms resolve the harmonics of a voice, so log-mels show F0 as well as the spectral envelope. If a conversion
changes F0 and keeps the harmonics, the vocoder gets two pitches at once, and the result is hoarse and hard to understand. So
a model may see envelopes alone (`spectrum = "envelope"` in [mel]). Its conversions get the harmonics of a comb of sinusoids
with the new F0, as strong in each band as they are in the source.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.data.features import MelConfig, envelope_projection, mel_filters

LOWEST, HIGHEST, STEPS = 50.0, 700.0, 400  # the grid of F0 in Hz, a ninth of a semitone apart
BANDS = 0.0, 0.175, 0.35, 0.55, 1.0  # the limits of bands of mel bins, each with its own share of harmonics
LARGEST = 1.2  # largest share of harmonics in a band
SMOOTH = 9  # bins over which shares are averaged
FLOOR = 1e-6  # power between harmonics
PER_HERTZ = 4  # points of the window's spectrum in a hertz


class Harmonics(nn.Module):
    """The exchange of harmonics in log-mels with given settings.

    Args:
        mel: The settings of the log-mels.

    Attributes:
        combs: Log-mels (STEPS, n_mels) of combs of sinusoids with the F0s of the grid and the same power in every hertz.
        envelopes: The envelopes of the combs, (STEPS, n_mels).
        projection: The matrix of `envelope_projection`.
        bands: The membership (n_mels, len(BANDS) - 1) of each mel bin in the bands.
    """

    combs: Tensor
    envelopes: Tensor
    projection: Tensor
    bands: Tensor

    def __init__(self, mel: MelConfig) -> None:
        super().__init__()
        projection = envelope_projection(mel.n_mels)
        grid = combs(torch.from_numpy(np.geomspace(LOWEST, HIGHEST, STEPS)), mel)
        place = torch.arange(mel.n_mels)[:, None] / mel.n_mels
        bands = (place >= torch.tensor(BANDS[:-1])) & (place < torch.tensor(BANDS[1:]))
        self.register_buffer("projection", projection.float())
        self.register_buffer("combs", grid.float())
        self.register_buffer("envelopes", (grid @ projection).float())
        self.register_buffer("bands", bands.float())

    def forward(self, decoded: Tensor, source: Tensor, f0: Tensor, new_f0: Tensor) -> Tensor:
        """Return decoded log-mels (T, n_mels) with the harmonics of a new F0 instead of their own.

        Frames that are unvoiced in the source are returned as they are.

        Args:
            decoded: The log-mels of a decoder, (T, n_mels).
            source: The log-mels of the source, (T, n_mels), which tell how harmonic each band is.
            f0: F0 of the source in Hz, 0 in unvoiced frames, (T,).
            new_f0: F0 of the conversion, (T,).
        """
        old, new, voiced = grid_index(f0), grid_index(new_f0), ((f0 > 0) & (new_f0 > 0))[:, None]
        harmonics = self.shares(source, old) * (self.combs[new] - self.envelopes[old])
        return torch.where(voiced, decoded @ self.projection + harmonics, decoded)

    def shares(self, source: Tensor, index: Tensor) -> Tensor:
        """Return the share of harmonics (T, n_mels) in each bin of log-mels (T, n_mels), from 0 for noise to about 1.

        It is the regression of the log-mels' detail on that of the comb in each band, and changes smoothly over the bins.

        Args:
            source: The log-mels.
            index: The index (T,) of each frame's F0 in the grid.
        """
        detail, pattern = source - source @ self.projection, self.combs[index] - self.envelopes[index]
        power = (pattern.square() @ self.bands).clamp_min(1e-9)
        share = (((detail * pattern) @ self.bands) / power).clamp(0, LARGEST) @ self.bands.T
        return F.avg_pool1d(share[:, None], SMOOTH, 1, SMOOTH // 2, count_include_pad=False)[:, 0]

    def chunks(
        self, decoded: Iterable[Tensor], source: Iterable[Tensor], f0: Tensor, new_f0: Tensor
    ) -> Iterator[Tensor]:
        """Yield the frames of `forward` in chunks (n, n_mels) as long as those of the decoder.

        Args:
            decoded: The log-mels of the decoder, in chunks.
            source: The log-mels of the source, in chunks of any lengths.
            f0: F0 of the source, (T,).
            new_f0: F0 of the conversion, (T,).
        """
        pieces, waiting, first = iter(source), torch.zeros(0, len(self.projection)), 0
        for chunk in decoded:
            while len(waiting) < len(chunk):
                waiting = torch.cat([waiting, next(pieces)])
            part = slice(first, first + len(chunk))
            yield self(chunk, waiting[: len(chunk)], f0[part], new_f0[part])
            waiting, first = waiting[len(chunk) :], part.stop


def grid_index(f0: Tensor) -> Tensor:
    """Return the index (T,) of the nearest F0 in the grid for each F0 (T,) in Hz."""
    step = math.log(HIGHEST / LOWEST) / (STEPS - 1)
    return ((f0.clamp(LOWEST, HIGHEST) / LOWEST).log() / step).round().long()


def combs(f0: Tensor, mel: MelConfig) -> Tensor:
    """Return the log-mels (S, n_mels) of sinusoids at all multiples of each F0, float64, relative to a flat spectrum.

    They have the same power in every hertz. Each bin of the spectrum gets the power of the nearest sinusoid.

    Args:
        f0: F0 in Hz, (S,).
        mel: The settings of the log-mels.
    """
    filters = mel_filters(mel).double()
    bins = torch.arange(len(filters), dtype=torch.float64) * mel.sample_rate / mel.n_fft
    distance = (bins - (bins / f0[:, None]).round().clamp_min(1) * f0[:, None]).abs()
    lobe = window_power(mel)
    power = f0[:, None] * lobe[(distance * PER_HERTZ).round().long().clamp_max(len(lobe) - 1)] + FLOOR
    return (power ** (mel.power / 2) @ filters / filters.sum(0)).log()


def window_power(mel: MelConfig) -> Tensor:
    """Return the power spectrum of the analysis window at PER_HERTZ points in a hertz from 0, with maximum 1, float64."""
    window = torch.hann_window(mel.win_length, dtype=torch.float64)
    spectrum = torch.fft.rfft(window, mel.sample_rate * PER_HERTZ).abs().square()
    return spectrum / spectrum[0]
