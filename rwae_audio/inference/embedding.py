"""Utterances → vectors, as the speaker benchmark defines them (Han et al. 2021; Hsu et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rwae_audio.data.features import Normaliser
from rwae_audio.model import RWAE

BATCH = 256  # windows encoded at once


class Embeddings(NamedTuple):
    """static (U, static_dim), dynamic (U, dynamic_dim): one vector an utterance; codes (N, dynamic_dim): one a frame."""

    static: np.ndarray
    dynamic: np.ndarray
    codes: np.ndarray


class Windows(NamedTuple):
    """Stretches of utterances that a network reads, in the order of time.

    Attributes:
        start: The first frame of each window, (W,).
        length: The number of its frames, (W,).
        first, stop: Codes of the frames first ≤ t < stop, counted from its start, are taken from this window, (W,) each.
        owner: The utterance of each window, (W,).
    """

    start: np.ndarray
    length: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    owner: np.ndarray


def windows(starts: np.ndarray, lengths: np.ndarray, size: int, overlap: int = 0, ahead: int = 0) -> Windows:
    """Return windows of `size` frames over utterances at `starts` (U,) of `lengths` (U,).

    The last window of an utterance is right-aligned. An utterance shorter than a window is one short window. A frame's code
    is taken from the first window that has heard the `ahead` frames after it.

    Args:
        overlap: The number of frames that a window shares with the next one, from `ahead` to size - 1.
    """
    hop = size - overlap
    counts = 1 + np.maximum(-(-(lengths - size) // hop), 0)
    owner = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    aligned = np.clip(np.minimum(number * hop, lengths[owner] - size), 0, None)
    length = np.minimum(lengths[owner], size)
    first = np.where(number > 0, (number - 1) * hop + size - ahead - aligned, 0)
    stop = length - ahead * (number < counts[owner] - 1)
    return Windows(starts[owner] + aligned, length, first, stop, owner)


@torch.no_grad()
def embed(
    model: RWAE, normaliser: Normaliser, segment: int, frames: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> Embeddings:
    """Vectors of the utterances frames[starts[u] : starts[u] + lengths[u]] of raw log-mels (N, n_mels).

    static: mean over non-overlapping windows of the posterior mean of z^c, windows as long as in training or as
    `embedding_window` says; dynamic: mean over frames of the posterior means of z^m, encoded in segments as in training,
    with the utterance's static vector where the dynamic encoder sees z^c; codes: those means, utterance after utterance,
    Σ lengths in all. The model is left in the mode that it came in.
    """
    starts, lengths = np.asarray(starts), np.asarray(lengths)
    training = model.training
    model.eval()
    static = static_vectors(model, normaliser, segment, frames, starts, lengths)
    codes = segment_codes(model, normaliser, segment, frames, starts, lengths, static)
    model.train(training)
    offsets = np.cumsum(lengths) - lengths
    dynamic = np.add.reduceat(codes.astype(np.float64), offsets, axis=0) / lengths[:, None]
    return Embeddings(static, dynamic, codes)


@torch.no_grad()
def static_vectors(
    model: RWAE, normaliser: Normaliser, segment: int, frames: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """The static vectors (U, static_dim) of `embed`, by a model in evaluation mode."""
    static_windows = windows(starts, lengths, model.embedding_frames(segment))
    static = np.zeros((len(lengths), model.config.static_dim))
    for rows in _chunks(len(static_windows.start)):
        batch, valid = _gather(model, normaliser, frames, static_windows, rows)
        np.add.at(static, static_windows.owner[rows], model.static_encoder(batch, None, valid).mean.cpu().numpy())
    return static / np.bincount(static_windows.owner, minlength=len(lengths))[:, None]


@torch.no_grad()
def segment_codes(
    model: RWAE,
    normaliser: Normaliser,
    segment: int,
    frames: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    static: np.ndarray,
    overlap: int = 0,
) -> np.ndarray:
    """Return the codes (Σ lengths, dynamic_dim) of `embed`, given static vectors (U, static_dim), in evaluation mode.

    With an overlap of as many frames or more as the dynamic encoder looks ahead, no code misses any of these.
    """
    voices = torch.from_numpy(static).float().to(next(model.parameters()).device)
    segments = windows(starts, lengths, segment, overlap, model.config.dynamic_look_ahead if overlap else 0)
    codes = np.zeros((int(lengths.sum()), model.config.dynamic_dim), dtype=np.float32)
    offsets = np.cumsum(lengths) - lengths
    for rows in _chunks(len(segments.start)):
        batch, valid = _gather(model, normaliser, frames, segments, rows)
        values = model.encode_dynamic(batch, voices[segments.owner[rows]], None, valid).mean.cpu().numpy()
        steps = np.arange(values.shape[1])
        taken = (steps >= segments.first[rows][:, None]) & (steps < segments.stop[rows][:, None])
        places = segments.start[rows] - starts[segments.owner[rows]] + offsets[segments.owner[rows]]
        codes[(places[:, None] + steps)[taken]] = values[taken]
    return codes


def _chunks(count: int) -> list[slice]:
    return [slice(i, min(i + BATCH, count)) for i in range(0, count, BATCH)]


def _gather(
    model: RWAE, normaliser: Normaliser, frames: np.ndarray, where: Windows, rows: slice
) -> tuple[Tensor, Tensor]:
    """Normalised frames (B, size, n_mels) of the windows `rows`, short ones padded with their last frame, and lengths (B,)."""
    length = where.length[rows]
    steps = np.minimum(np.arange(length.max()), length[:, None] - 1)
    batch = torch.from_numpy(frames[where.start[rows][:, None] + steps])
    device = next(model.parameters()).device
    return normaliser(batch).to(device), torch.from_numpy(length).to(device)
