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
    """start (W,), length (W,): frames of each window; fresh (W,): from where on it is not in the window before it;
    owner (W,): its utterance."""

    start: np.ndarray
    length: np.ndarray
    fresh: np.ndarray
    owner: np.ndarray


def windows(starts: np.ndarray, lengths: np.ndarray, size: int) -> Windows:
    """Non-overlapping windows of `size` frames over utterances at `starts` (U,) of `lengths` (U,).

    The last window of an utterance is right-aligned; an utterance shorter than a window is one short window.
    """
    counts = -(-lengths // size)
    owner = np.repeat(np.arange(len(lengths)), counts)
    within = (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)) * size
    aligned = np.clip(np.minimum(within, lengths[owner] - size), 0, None)
    return Windows(starts[owner] + aligned, np.minimum(lengths[owner], size), within - aligned, owner)


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
) -> np.ndarray:
    """The codes (Σ lengths, dynamic_dim) of `embed`, by a model in evaluation mode, given static vectors (U, static_dim)."""
    voices = torch.from_numpy(static).float().to(next(model.parameters()).device)
    segments = windows(starts, lengths, segment)
    codes = np.zeros((int(lengths.sum()), model.config.dynamic_dim), dtype=np.float32)
    offsets = np.cumsum(lengths) - lengths
    for rows in _chunks(len(segments.start)):
        batch, valid = _gather(model, normaliser, frames, segments, rows)
        values = model.encode_dynamic(batch, voices[segments.owner[rows]], None, valid).mean.cpu().numpy()
        steps = np.arange(values.shape[1])
        keep = (steps >= segments.fresh[rows][:, None]) & (steps < segments.length[rows][:, None])
        first = segments.start[rows] - starts[segments.owner[rows]] + offsets[segments.owner[rows]]
        codes[(first[:, None] + steps)[keep]] = values[keep]
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
