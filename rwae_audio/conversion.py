"""Waveform in, waveform out: what the source says, in the target's voice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rwae_audio.bundle import Bundle
from rwae_audio.vocoder import griffin_lim

SILENT = 1e-4  # a peak under this (-80 dBFS) is silence


def is_silent(samples: np.ndarray) -> bool:
    """Nothing to hear in samples (N,)?"""
    return float(np.abs(samples).max(initial=0.0)) < SILENT


def convert_waveform(bundle: Bundle, source: np.ndarray, targets: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """The source's words (N,) in the voice of the targets (each (M,)), all at the bundle's rate; (N,), float32.

    Griffin-Lim's phases depend on `seed`. The result is as loud as the source (RMS); a silent source gives silence. It is
    not limited to ±1: write_audio scales it down where it must. Raises InputError when a waveform is under one analysis
    window.
    """
    voices = [bundle.frames(target) for target in targets]
    frames = bundle.convert(bundle.frames(source), *voices)
    if is_silent(source):
        return np.zeros(len(source), dtype=np.float32)
    samples = griffin_lim(frames, bundle.config.mel, seed=seed)
    fitted = torch.zeros(len(source))
    count = min(len(source), len(samples))
    fitted[:count] = samples[:count]
    loudness = float(np.sqrt(np.mean(np.square(source, dtype=np.float64))))
    return (fitted * (loudness / fitted.square().mean().sqrt().clamp_min(1e-8))).numpy()
