"""Recordings of any length, a chunk of frames at a time: what is kept from one chunk to the next does not grow.

A `Recording` is called for its log-mels from the start, (n, n_mels) at a time, as often as there are passes over it. The
model is in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from rwae_audio.data.features import Normaliser
from rwae_audio.files import InputError
from rwae_audio.inference.embedding import segment_codes, static_vectors
from rwae_audio.model import RWAE, ModelConfig

CHUNK = 1024  # frames that go through a network at once

Recording = Callable[[], Iterable[Tensor]]


def in_chunks(pieces: Iterable[Tensor], size: int, least: int = 1) -> Iterator[Tensor]:
    """The rows of pieces (n, d), `size` at a time; the last ones are `least` to size + least − 1, or all, if there are
    fewer than that."""
    kept = None
    for piece in pieces:
        kept = piece if kept is None else torch.cat([kept, piece])
        while len(kept) >= size + least:
            yield kept[:size]
            kept = kept[size:]
    if kept is not None and len(kept):
        yield kept


def in_context(apply: Callable[[Tensor], Tensor], pieces: Iterable[Tensor], context: int) -> Iterator[Tensor]:
    """Yield what `apply` makes of all rows (n, d), (m, e) at a time.

    context: The number of rows on either side that a row of the result depends on.
    """
    known, skip, left = torch.zeros(0), 0, None
    for chunk in in_chunks(pieces, CHUNK, 2 * context):
        known = torch.cat([known, chunk]) if len(known) else chunk
        made = apply(known)
        settled = max(len(known) - context, skip)  # rows that no later one changes
        yield made[skip:settled]
        left, first = made[settled:], max(settled - context, 0)
        known, skip = known[first:], settled - first
    if left is not None:
        yield left


def between_frames(rows: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the samples (m,) at a time of rows (n, hop_length), each of which begins at the centre of a frame.

    After the centre of the last frame there is nothing: its row is left out.
    """
    last = None
    for part in rows:
        part = part if last is None else torch.cat([last, part])
        yield part[:-1].flatten()
        last = part[-1:]


def voice_of(model: RWAE, normaliser: Normaliser, segment: int, pieces: Iterable[Tensor]) -> tuple[Tensor, int]:
    """The static code (static_dim,) of a recording, the mean over its windows, and how many frames it has."""
    size = model.embedding_frames(segment)
    total, windows, frames = np.zeros(model.config.static_dim), 0, 0
    for chunk in in_chunks(pieces, _whole_windows(size), size):
        count = -(-len(chunk) // size)
        total += count * static_vectors(model, normaliser, segment, chunk.numpy(), *_alone(chunk))[0]
        windows, frames = windows + count, frames + len(chunk)
    return torch.from_numpy(total / windows).float(), frames


def shared_frames(config: ModelConfig, segment: int) -> tuple[int, int]:
    """Return how many frames two windows of codes share, and after how many more frames a code is taken."""
    overlap = 0 if config.by_segment else min(max(segment // 2, config.dynamic_look_ahead), segment - 1)
    return overlap, min(config.dynamic_look_ahead, overlap)


@torch.no_grad()
def codes_of(model: RWAE, normaliser: Normaliser, segment: int, recording: Recording) -> Iterator[Tensor]:
    """Yield the dynamic codes of a recording, (n, dynamic_dim) at a time.

    The encoder reads windows as long as the segments that it was trained on: over longer ones its LSTMs drift into states
    that they never had. Two windows share half of their frames, and a code comes from the one that has heard more before
    it. Codes that depend on where a segment begins are those of segments that share no frame.
    """
    config = model.config
    static = torch.zeros(config.static_dim)
    if config.dynamic_sees_static:
        static = voice_of(model, normaliser, segment, recording())[0]
    overlap, ahead = shared_frames(config, segment)

    def codes(frames: Tensor) -> Tensor:
        alone = _alone(frames)
        return torch.from_numpy(
            segment_codes(model, normaliser, segment, frames.numpy(), *alone, static[None].numpy(), overlap)
        )

    step = _whole_windows(segment - overlap)
    frames, done = torch.zeros(0, config.n_mels), 0  # done: frames at the start of `frames` that have their codes
    for piece in recording():
        frames = torch.cat([frames, piece])
        while len(frames) >= step + overlap + segment:  # what is left holds a window, as in one piece
            yield codes(frames[: step + overlap])[done : step + overlap - ahead]
            frames, done = frames[step:], overlap - ahead
    if len(frames):
        yield codes(frames)[done:]


@torch.no_grad()
def frames_of(
    model: RWAE, normaliser: Normaliser, voice: Tensor, codes: Iterable[Tensor], modulation: Tensor | None = None
) -> Iterator[Tensor]:
    """Yield the log-mels, (n, n_mels) at a time, of a voice (static_dim,) that says the codes (n, dynamic_dim).

    modulation: What the voice adds to the decoder's gains and shifts (see Decoder).
    """
    if model.config.actions:
        raise InputError(
            f"this model has {model.config.actions} actions, one a recording; expected one that converts any recording"
        )
    device, memory = next(model.parameters()).device, None
    modulation = None if modulation is None else modulation.to(device)
    if model.decoder.context:
        decoded = in_context(
            lambda part: model.decoder(voice[None].to(device), part[None].to(device), None, modulation)[0].cpu(),
            codes,
            model.decoder.context,
        )
        yield from map(normaliser.inverse, decoded)
        return
    for chunk in in_chunks(codes, CHUNK):
        frames, memory = model.decoder.advance(voice[None].to(device), chunk[None].to(device), memory)
        yield normaliser.inverse(frames[0].cpu())


def _whole_windows(size: int) -> int:
    """About CHUNK frames, in windows of `size`: with a last chunk of a window at least, windows fall as in one piece."""
    return size * max(1, CHUNK // size)


def _alone(chunk: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return np.array([0]), np.array([len(chunk)])
