"""Waveform → F0 contour at the log-mels' frames, and a contour moved into another voice's register."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rwae_audio.features import MelConfig
from rwae_audio.streaming import CHUNK, in_chunks

LOWEST, HIGHEST = 60.0, 500.0  # Hz
WINDOW = 0.03  # seconds of sound that are compared with what comes a period later
CANDIDATES = 6  # periods a frame
QUIET = 0.03  # of the recording's RMS: sound at this level correlates half as much as it would
BIAS = 0.1  # what a frame without a voice costs besides the best correlation in it
SWITCH, OCTAVE = 0.3, 0.5  # what it costs to begin or end a voice, and to move by an octave from one frame to the next
LONGER = 0.05  # of its correlation, that the longest period loses: two periods correlate as well as one
SPREAD = 6.0  # how many times as wide, or as narrow, a contour may become
HEARD = 50  # voiced frames that a voice's deviation is taken from, at least
OVERLAP = 64  # frames on either side of a chunk's that its path is found with: a choice further away decides nothing


class Register(NamedTuple):
    """Of a voice: how many voiced frames it was heard in, and the mean and standard deviation of ln F0 (Hz) over them."""

    frames: int
    mean: float
    deviation: float


def fundamental(samples: np.ndarray, config: MelConfig) -> np.ndarray:
    """F0 in Hz, 0 where there is no voice, of samples (N,): (1 + N // hop_length,), at the times of centred log-mels.

    Normalised cross-correlation at every lag, and the cheapest path over its peaks: Talkin, "A robust algorithm for pitch
    tracking (RAPT)", in "Speech coding and synthesis", 1995.
    """
    loudness = math.sqrt(float(np.square(samples, dtype=np.float64).mean())) if len(samples) else 0.0
    return np.concatenate([*fundamental_chunks([samples], config, loudness)])


def fundamental_chunks(blocks: Iterable[np.ndarray], config: MelConfig, loudness: float) -> Iterator[np.ndarray]:
    """`fundamental` of a waveform that comes in blocks (n,), its RMS known: (m,) frames at a time, in memory that does not
    grow with it."""
    kept, skip = torch.zeros(0, 2 * CANDIDATES), 0
    for chunk in in_chunks(_candidates(blocks, config, loudness), CHUNK, OVERLAP):
        begun = len(kept)
        kept = torch.cat([kept, chunk])
        settled = max(len(kept) - OVERLAP, begun) if len(chunk) >= CHUNK else len(kept)
        path = _path(kept.numpy())
        yield path[skip:settled]
        left = max(settled - OVERLAP, 0)
        kept, skip = kept[left:], settled - left
    if skip < len(kept):
        yield _path(kept.numpy())[skip:]


def _candidates(blocks: Iterable[np.ndarray], config: MelConfig, loudness: float) -> Iterator[Tensor]:
    """Of each frame (n, 2 · CANDIDATES): the frequencies at the highest peaks of its cross-correlation, in Hz, then how
    high these are; 0 where there are no more."""
    hop, window = config.hop_length, round(WINDOW * config.sample_rate)
    longest = math.ceil(config.sample_rate / LOWEST)
    size = window + longest  # of the samples that a frame looks at, about its centre
    kept, count, done = np.zeros(size // 2, dtype=np.float32), 0, 0
    for block in blocks:
        kept, count = np.concatenate([kept, np.asarray(block, dtype=np.float32)]), count + len(block)
        while len(kept) >= CHUNK * hop + size:
            yield _peaks(kept, CHUNK, window, longest, config, loudness)
            kept, done = kept[CHUNK * hop :], done + CHUNK
    left = 1 + count // hop - done
    for start in range(0, left, CHUNK):
        frames = min(CHUNK, left - start)
        part = kept[start * hop :][: frames * hop + size]
        yield _peaks(np.pad(part, (0, frames * hop + size - len(part))), frames, window, longest, config, loudness)


def _peaks(samples: np.ndarray, frames: int, window: int, longest: int, config: MelConfig, loudness: float) -> Tensor:
    """_candidates of the first `frames` frames of samples, of which the first frame looks at the first ones."""
    shortest = math.floor(config.sample_rate / HIGHEST)
    sound = torch.from_numpy(samples).unfold(0, window + longest, config.hop_length)[:frames].double()
    sound = sound - sound.mean(1, keepdim=True)
    length = 2 ** math.ceil(math.log2(window + longest))
    spectrum = torch.fft.rfft(sound[:, :window], length).conj() * torch.fft.rfft(sound, length)
    products = torch.fft.irfft(spectrum, length)[:, : longest + 1]
    energy = torch.nn.functional.pad(sound.square().cumsum(1), (1, 0))
    energy = energy[:, window : window + longest + 1] - energy[:, : longest + 1]
    floor = window * (QUIET * loudness) ** 2 + 1e-12
    correlation = products / ((energy[:, :1] + floor) * (energy + floor)).sqrt()

    lags = torch.arange(shortest, longest)
    before, here, after = (correlation[:, shortest + shift : longest + shift] for shift in (-1, 0, 1))
    peak = (here > before) & (here >= after) & (here > 0)
    bend = (before - 2 * here + after).clamp_max(-1e-12)
    shift = (before - after) / (2 * bend)  # of the parabola's top
    tops = (here - bend * shift.square() / 2).clamp_max(1.0)
    heights = torch.where(peak, tops * (1 - LONGER * lags / longest), torch.zeros(()).double())
    height, place = heights.topk(CANDIDATES, dim=1)
    shift = shift.gather(1, place)
    frequency = config.sample_rate / (lags[place] + shift.clamp(-0.5, 0.5))
    return torch.cat([torch.where(height > 0, frequency, torch.zeros(()).double()), height], dim=1).float()


def _path(candidates: np.ndarray) -> np.ndarray:
    """The F0s (T,) of the cheapest path over _candidates (T, 2 · CANDIDATES), 0 without a voice."""
    frequency, height = candidates[:, :CANDIDATES].astype(float), candidates[:, CANDIDATES:].astype(float)
    count, silent = len(frequency), CANDIDATES  # the last state: no voice
    own = np.concatenate([1 - height + 9 * (frequency == 0), BIAS + height.max(1, keepdims=True)], axis=1)
    octaves = np.log2(np.maximum(frequency, 1))
    move = np.full((max(count - 1, 0), CANDIDATES + 1, CANDIDATES + 1), SWITCH)
    move[:, :silent, :silent] = OCTAVE * np.abs(octaves[:-1, :, None] - octaves[1:, None, :])
    move[:, silent, silent] = 0
    cost, came = own[0], np.zeros((count, CANDIDATES + 1), dtype=int)
    for t in range(1, count):
        total = cost[:, None] + move[t - 1]
        came[t] = total.argmin(0)
        cost = total.min(0) + own[t]
    states = np.empty(count, dtype=int)
    states[-1] = cost.argmin()
    for t in range(count - 1, 0, -1):
        states[t - 1] = came[t, states[t]]
    return np.append(frequency, np.zeros((count, 1)), axis=1)[np.arange(count), states]


def register(contours: Iterable[np.ndarray]) -> Register | None:
    """Of F0s in Hz that come (n,) at a time, 0 without a voice; None where fewer than two frames have one."""
    voiced = (np.log(f0[f0 > 0]) for f0 in contours)
    return pooled(Register(len(logs), float(logs.mean()), float(logs.std())) for logs in voiced if len(logs))


def pooled(registers: Iterable[Register]) -> Register | None:
    """The register of all recordings together; None of fewer than two voiced frames."""
    known = np.array([*registers]).reshape(-1, 3)
    count = known[:, 0].sum()
    if count < 2:
        return None
    mean = float(known[:, 0] @ known[:, 1] / count)
    squares = known[:, 2] ** 2 + (known[:, 1] - mean) ** 2
    return Register(int(count), mean, math.sqrt(float(known[:, 0] @ squares / count)))


def moved(f0: np.ndarray, own: Register, other: Register) -> np.ndarray:
    """A contour F0 (T,) of a voice with its `own` register in the `other`'s: ln F0 with that mean and deviation, kept between
    LOWEST and HIGHEST; 0 stays 0. A flat voice's trembling is no melody: the deviation grows by no more than SPREAD, and is
    the voice's own where the other was hardly heard."""
    wider = other.deviation / max(own.deviation, 1e-3) if other.frames >= HEARD else 1.0
    logs = (np.log(np.maximum(f0, 1)) - own.mean) * np.clip(wider, 1 / SPREAD, SPREAD) + other.mean
    return np.where(f0 > 0, np.exp(logs).clip(LOWEST, HIGHEST), 0.0)
