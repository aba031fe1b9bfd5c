"""Sequences that are decoded from codes of recordings, of the priors, or of both. N sequences, T frames, A actions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.inference.embedding import static_vectors
from rwae_audio.model import RWAE, Sample

BATCH = 500  # sequences that a network processes at once


class Codes(NamedTuple):
    """The codes of whole sequences.

    Attributes:
        static: Static codes, (N, static_dim).
        dynamic: Dynamic codes, (N, T, dynamic_dim).
        action: Actions, one-hot, (N, A); None in a model without actions.
    """

    static: Tensor
    dynamic: Tensor
    action: Tensor | None

    def repeated(self, times: int) -> Codes:
        """Return the codes with each sequence repeated `times` times in a row."""
        parts = (None if part is None else part.repeat_interleave(times, 0) for part in self)
        return Codes(*parts)  # type: ignore[arg-type]


@torch.no_grad()
def codes_of_all(model: RWAE, normaliser: Normaliser, mel: MelConfig, frames: Tensor) -> Codes:
    """Return the codes of sequences, the means of their posteriors and the likeliest actions.

    Args:
        model: The model, in evaluation mode.
        normaliser: The normaliser of log-mels.
        mel: The settings of the log-mels.
        frames: Raw log-mels, (N, T, n_mels).
    """
    rows, size, bins = frames.shape
    starts, lengths = np.arange(rows) * size, np.full(rows, size)
    flat = frames.reshape(-1, bins).numpy()
    static = torch.from_numpy(static_vectors(model, normaliser, mel.segment, flat, starts, lengths)).float()
    batches = zip(normaliser(frames).split(BATCH), static.split(BATCH), strict=True)
    dynamic = torch.cat([model.encode_dynamic(batch, voices, None).mean for batch, voices in batches])
    return Codes(static, dynamic, inferred(model, dynamic))


@torch.no_grad()
def inferred(model: RWAE, dynamic: Tensor) -> Tensor | None:
    """Return the likeliest actions (N, A), one-hot, of dynamic codes (N, T, dynamic_dim); None without actions."""
    if model.action_encoder is None:
        return None
    return torch.cat([model.action_encoder(batch, None).sample for batch in dynamic.split(BATCH)])


@torch.no_grad()
def decoded(model: RWAE, codes: Codes) -> Tensor:
    """Return the normalised frames (N, T, n_mels) that codes are decoded to."""
    static, dynamic = codes.static.split(BATCH), codes.dynamic.split(BATCH)
    action = [None] * len(static) if codes.action is None else codes.action.split(BATCH)
    return torch.cat([model.decoder(*batch) for batch in zip(static, dynamic, action, strict=True)])


def new_voices(model: RWAE, codes: Codes, draw: torch.Generator) -> Tensor:
    """Return normalised frames (N, T, n_mels) with the content of the codes and static codes from the prior.

    Args:
        model: The model, in evaluation mode.
        codes: The codes of N sequences.
        draw: The generator of the static codes.
    """
    static = torch.randn(codes.static.shape, generator=draw)
    return decoded(model, codes._replace(static=static))


def new_words(model: RWAE, codes: Codes, draw: torch.Generator) -> Tensor:
    """Return normalised frames (N, T, n_mels) with the static codes of `codes` and content from the prior.

    Args:
        model: The model, in evaluation mode.
        codes: The codes of N sequences.
        draw: The generator of the actions and the dynamic codes.
    """
    return model.sample(len(codes.static), codes.dynamic.shape[1], draw, static=codes.static).frames


def interpolated(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Return static codes (steps, static_dim), equally spaced from one code (static_dim,) to another, ends included."""
    return torch.lerp(first, second, torch.linspace(0, 1, steps)[:, None])


def log_mels(normaliser: Normaliser, sample: Sample | Tensor) -> Tensor:
    """Return the raw log-mels (N, T, n_mels) of a sample, or of normalised frames (N, T, n_mels)."""
    return normaliser.inverse(sample if isinstance(sample, Tensor) else sample.frames)
