"""Sampling from the priors, as log-mels: whole sequences, or one code kept and the other drawn anew."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.inference.embedding import static_vectors
from rwae_audio.model import RWAE, Sample

BATCH = 500  # sequences that go through a network at once


class Codes(NamedTuple):
    """The codes of whole sequences: static (N, static_dim), dynamic (N, T, dynamic_dim), action (N, A), one-hot, or None."""

    static: Tensor
    dynamic: Tensor
    action: Tensor | None

    def repeated(self, times: int) -> Codes:
        """Return each sequence's codes `times` times, one after the other."""
        parts = (None if part is None else part.repeat_interleave(times, 0) for part in self)
        return Codes(*parts)  # type: ignore[arg-type]


@torch.no_grad()
def codes_of_all(model: RWAE, normaliser: Normaliser, mel: MelConfig, frames: Tensor) -> Codes:
    """The posteriors' means for sequences of raw log-mels (N, T, n_mels); the action is the likeliest one."""
    rows, size, bins = frames.shape
    starts, lengths = np.arange(rows) * size, np.full(rows, size)
    flat = frames.reshape(-1, bins).numpy()
    static = torch.from_numpy(static_vectors(model, normaliser, mel.segment, flat, starts, lengths)).float()
    parts = zip(normaliser(frames).split(BATCH), static.split(BATCH), strict=True)
    dynamic = torch.cat([model.encode_dynamic(part, voice, None).mean for part, voice in parts])
    return Codes(static, dynamic, inferred(model, dynamic))


@torch.no_grad()
def inferred(model: RWAE, dynamic: Tensor) -> Tensor | None:
    """The likeliest actions (N, A), one-hot, of dynamic codes (N, T, dynamic_dim), of a model that has any."""
    if model.action_encoder is None:
        return None
    return torch.cat([model.action_encoder(part, None).sample for part in dynamic.split(BATCH)])


@torch.no_grad()
def decoded(model: RWAE, codes: Codes) -> Tensor:
    """Normalised frames (N, T, n_mels)."""
    static, dynamic = codes.static.split(BATCH), codes.dynamic.split(BATCH)
    action = [None] * len(static) if codes.action is None else codes.action.split(BATCH)
    return torch.cat([model.decoder(*part) for part in zip(static, dynamic, action, strict=True)])


def new_voices(model: RWAE, codes: Codes, draw: torch.Generator) -> Tensor:
    """Say what the codes say, each in a voice from the prior: normalised frames (N, T, n_mels)."""
    voices = torch.randn(codes.static.shape, generator=draw)
    return decoded(model, codes._replace(static=voices))


def new_words(model: RWAE, codes: Codes, draw: torch.Generator) -> Tensor:
    """The codes' voices, each saying what the prior says: normalised frames (N, T, n_mels)."""
    return model.sample(len(codes.static), codes.dynamic.shape[1], draw, static=codes.static).frames


def interpolated(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Voices (steps, static_dim) on the way from one voice (static_dim,) to another, both ends among them."""
    return torch.lerp(first, second, torch.linspace(0, 1, steps)[:, None])


def log_mels(normaliser: Normaliser, sample: Sample | Tensor) -> Tensor:
    """Raw log-mels (N, T, n_mels) of what was sampled."""
    return normaliser.inverse(sample if isinstance(sample, Tensor) else sample.frames)
