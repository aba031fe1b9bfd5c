"""The static and the dynamic vector of each utterance, by which the speaker benchmark compares voices.

The static vector is the mean of the static code over windows. The dynamic vector is the mean of the dynamic codes over
frames. Hsu et al. 2017; Han et al. 2021. U utterances, W windows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rwae_audio.data.features import Normaliser
from rwae_audio.model import RWAE
from rwae_audio.progress import slices

BATCH = 256  # windows that are encoded at once


class Embeddings(NamedTuple):
    """The vectors and codes of utterances.

    Attributes:
        static: The static vector of each utterance, (U, static_dim).
        dynamic: The dynamic vector of each utterance, (U, dynamic_dim).
        codes: The dynamic code of each frame, utterance after utterance, (Σ lengths, dynamic_dim).
    """

    static: np.ndarray
    dynamic: np.ndarray
    codes: np.ndarray


class Windows(NamedTuple):
    """Windows of utterances, in the order of time.

    A frame can lie in several windows. Its code is taken from the window with first ≤ t < stop, for t counted from the
    start of the window.

    Attributes:
        start: The first frame of each window, (W,).
        length: The number of frames of each window, (W,).
        first: The first frame whose code is taken from the window, (W,).
        stop: The end of the frames whose codes are taken from the window, (W,).
        owner: The index of the utterance of each window, (W,).
    """

    start: np.ndarray
    length: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    owner: np.ndarray


def windows(starts: np.ndarray, lengths: np.ndarray, size: int, overlap: int = 0, ahead: int = 0) -> Windows:
    """Return the windows that cover some utterances.

    The last window of an utterance ends with it. An utterance that is shorter than a window is one short window. The code
    of a frame is taken from the first window that contains the frame and the `ahead` frames after it.

    Args:
        starts: The first frame of each utterance, (U,).
        lengths: The number of frames of each utterance, (U,).
        size: The number of frames of a window.
        overlap: The number of frames that two successive windows share, from `ahead` to size − 1.
        ahead: The number of later frames that a code depends on.
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
    """Return the vectors and codes of utterances. Codes are posterior means.

    Static codes are those of non-overlapping windows of `RWAE.embedding_frames` frames. Dynamic codes are those of
    segments as long as in training. A dynamic encoder that depends on z^c gets the utterance's static vector.

    Args:
        model: The model, left in the mode that it came in.
        normaliser: The normaliser of log-mels.
        segment: The number of frames of a training segment.
        frames: Raw log-mels, (N, n_mels). Those of utterance u are frames[starts[u] : starts[u] + lengths[u]].
        starts: The first frame of each utterance, (U,).
        lengths: The number of frames of each utterance, (U,).
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
    """Return the static vectors (U, static_dim) of `embed`, by a model in evaluation mode."""
    static_windows = windows(starts, lengths, model.embedding_frames(segment))
    sums = np.zeros((len(lengths), model.config.static_dim))
    for rows in slices(len(static_windows.start), BATCH):
        batch, batch_lengths = _gather(model, normaliser, frames, static_windows, rows)
        codes = model.static_encoder(batch, None, batch_lengths).mean.cpu().numpy()
        np.add.at(sums, static_windows.owner[rows], codes)
    return sums / np.bincount(static_windows.owner, minlength=len(lengths))[:, None]


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
    """Return the dynamic codes (Σ lengths, dynamic_dim) of `embed`, by a model in evaluation mode.

    Args:
        model: As in `embed`.
        normaliser: As in `embed`.
        segment: As in `embed`.
        frames: As in `embed`.
        starts: As in `embed`.
        lengths: As in `embed`.
        static: The static vector of each utterance, (U, static_dim).
        overlap: The number of frames that two successive segments share. If it is at least `dynamic_look_ahead`, every
            code is computed with all later frames that it depends on.
    """
    voices = torch.from_numpy(static).float().to(next(model.parameters()).device)
    segments = windows(starts, lengths, segment, overlap, model.config.dynamic_look_ahead if overlap else 0)
    codes = np.zeros((int(lengths.sum()), model.config.dynamic_dim), dtype=np.float32)
    offsets = np.cumsum(lengths) - lengths
    for rows in slices(len(segments.start), BATCH):
        batch, batch_lengths = _gather(model, normaliser, frames, segments, rows)
        means = model.encode_dynamic(batch, voices[segments.owner[rows]], None, batch_lengths).mean.cpu().numpy()
        steps = np.arange(means.shape[1])
        taken = (steps >= segments.first[rows][:, None]) & (steps < segments.stop[rows][:, None])
        positions = segments.start[rows] - starts[segments.owner[rows]] + offsets[segments.owner[rows]]
        codes[(positions[:, None] + steps)[taken]] = means[taken]
    return codes


def _gather(
    model: RWAE, normaliser: Normaliser, frames: np.ndarray, chosen: Windows, rows: slice
) -> tuple[Tensor, Tensor]:
    """Return normalised frames (B, size, n_mels) and lengths (B,) of some windows, on the model's device.

    Short windows are padded with their last frame.
    """
    length = chosen.length[rows]
    steps = np.minimum(np.arange(length.max()), length[:, None] - 1)
    batch = torch.from_numpy(frames[chosen.start[rows][:, None] + steps])
    device = next(model.parameters()).device
    return normaliser(batch).to(device), torch.from_numpy(length).to(device)
