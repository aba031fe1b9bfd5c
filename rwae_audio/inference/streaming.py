"""Encoding and decoding of recordings of any length, in chunks of frames and in constant memory.

A `Recording` is a function that returns an iterator over the log-mels of a recording, in chunks (n, n_mels). Each call
starts a new pass. The results equal those of the whole recording in one chunk. Models are in evaluation mode.
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

CHUNK = 1024  # frames that a network processes at once

Recording = Callable[[], Iterable[Tensor]]  # returns the log-mels from the start, in chunks (n, n_mels)


def in_chunks(pieces: Iterable[Tensor], size: int, least: int = 1) -> Iterator[Tensor]:
    """Cut the rows of pieces (n, d) into chunks of `size` rows.

    Args:
        pieces: The rows, in pieces of any length.
        size: The number of rows of a chunk.
        least: The smallest number of rows in the last chunk, unless there are fewer rows in all. The last chunk has up to
            size + least − 1 rows.
    """
    waiting = None
    for piece in pieces:
        waiting = piece if waiting is None else torch.cat([waiting, piece])
        while len(waiting) >= size + least:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting is not None and len(waiting):
        yield waiting


def in_context(apply: Callable[[Tensor], Tensor], pieces: Iterable[Tensor], context: int) -> Iterator[Tensor]:
    """Apply a function to rows that come in pieces. The results are those of one call on all rows.

    Args:
        apply: Maps rows (n, d) to rows (n, e).
        pieces: The rows, in pieces (n, d) of any length.
        context: The number of input rows before and after a row that its result depends on.

    Yields:
        The results, in pieces (m, e).
    """
    window, done, rest = torch.zeros(0), 0, None  # done: rows of the window whose results have been yielded
    for chunk in in_chunks(pieces, CHUNK, 2 * context):
        window = torch.cat([window, chunk]) if len(window) else chunk
        results = apply(window)
        final = max(len(window) - context, done)  # results from here on depend on rows that are still to come
        yield results[done:final]
        rest, first = results[final:], max(final - context, 0)
        window, done = window[first:], final - first
    if rest is not None:
        yield rest


def between_frames(rows: Iterable[Tensor]) -> Iterator[Tensor]:
    """Join rows of samples to a waveform that ends at the centre of the last frame.

    Args:
        rows: Rows of samples, in chunks (n, hop_length). Each row begins at the centre of a frame. The last row is left
            out.

    Yields:
        The samples, in blocks (m,).
    """
    last = None
    for part in rows:
        part = part if last is None else torch.cat([last, part])
        yield part[:-1].flatten()
        last = part[-1:]


def voice_of(model: RWAE, normaliser: Normaliser, segment: int, pieces: Iterable[Tensor]) -> tuple[Tensor, int]:
    """Return the static vector (static_dim,) of a recording, the mean over its windows, and its number of frames.

    Args:
        model: The model.
        normaliser: The normaliser of log-mels.
        segment: The number of frames of a training segment.
        pieces: The log-mels, in pieces (n, n_mels).
    """
    size = model.embedding_frames(segment)
    total, windows, frames = np.zeros(model.config.static_dim), 0, 0
    for chunk in in_chunks(pieces, _whole_windows(size), size):
        count = -(-len(chunk) // size)
        total += count * static_vectors(model, normaliser, segment, chunk.numpy(), *_one_utterance(chunk))[0]
        windows, frames = windows + count, frames + len(chunk)
    return torch.from_numpy(total / windows).float(), frames


def shared_frames(config: ModelConfig, segment: int) -> tuple[int, int]:
    """Return the overlap of the windows of dynamic codes, and the number of later frames that a code depends on.

    Args:
        config: The settings of the model.
        segment: The number of frames of a training segment.
    """
    overlap = 0 if config.by_segment else min(max(segment // 2, config.dynamic_look_ahead), segment - 1)
    return overlap, min(config.dynamic_look_ahead, overlap)


@torch.no_grad()
def codes_of(model: RWAE, normaliser: Normaliser, segment: int, recording: Recording) -> Iterator[Tensor]:
    """Yield the dynamic codes of a recording, in chunks (n, dynamic_dim).

    The encoder reads windows as long as a training segment. In longer ones the LSTMs would reach states that training
    never had. Two successive windows share half of their frames. A code is taken from the window with more frames before
    it. Codes that depend on the start of their segment (`by_segment`) come from windows without overlap.

    Args:
        model: The model.
        normaliser: The normaliser of log-mels.
        segment: The number of frames of a training segment.
        recording: The recording. It is read twice if the dynamic codes depend on the static one.
    """
    config = model.config
    static = torch.zeros(config.static_dim)
    if config.dynamic_sees_static:
        static = voice_of(model, normaliser, segment, recording())[0]
    overlap, ahead = shared_frames(config, segment)

    def codes(frames: Tensor) -> Tensor:
        arguments = frames.numpy(), *_one_utterance(frames), static[None].numpy()
        return torch.from_numpy(segment_codes(model, normaliser, segment, *arguments, overlap))

    step = _whole_windows(segment - overlap)
    frames, done = torch.zeros(0, config.n_mels), 0  # done: frames at the start of `frames` whose codes were yielded
    for piece in recording():
        frames = torch.cat([frames, piece])
        while len(frames) >= step + overlap + segment:  # leaves a window, so that windows lie as in one chunk
            yield codes(frames[: step + overlap])[done : step + overlap - ahead]
            frames, done = frames[step:], overlap - ahead
    if len(frames):
        yield codes(frames)[done:]


@torch.no_grad()
def frames_of(model: RWAE, normaliser: Normaliser, voice: Tensor, codes: Iterable[Tensor]) -> Iterator[Tensor]:
    """Decode codes that come in chunks.

    Args:
        model: The model.
        normaliser: The normaliser of log-mels.
        voice: A static code, (static_dim,).
        codes: Dynamic codes, in chunks (n, dynamic_dim).

    Yields:
        Log-mels, in chunks (n, n_mels).

    Raises:
        InputError: The model has actions, which are codes of whole recordings.
    """
    if model.config.actions:
        raise InputError(f"the model has {model.config.actions} actions; expected a model without actions to convert")
    device, memory = next(model.parameters()).device, None
    if model.decoder.context:
        decoded = in_context(
            lambda part: model.decoder(voice[None].to(device), part[None].to(device))[0].cpu(),
            codes,
            model.decoder.context,
        )
        yield from map(normaliser.inverse, decoded)
        return
    for chunk in in_chunks(codes, CHUNK):
        frames, memory = model.decoder.advance(voice[None].to(device), chunk[None].to(device), memory)
        yield normaliser.inverse(frames[0].cpu())


def _whole_windows(size: int) -> int:
    """Return a number of frames near CHUNK that is a multiple of the window's `size`.

    With such chunks, and a last chunk of at least a window, windows lie as in one chunk.
    """
    return size * max(1, CHUNK // size)


def _one_utterance(frames: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays `starts` and `lengths` of an utterance that is all of the frames."""
    return np.array([0]), np.array([len(frames)])
