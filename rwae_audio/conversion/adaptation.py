"""Adaptation of a voice to about a minute of its recordings, by a few updates of numbers that belong to the voice.

The static code z^c of a voice modulates the decoder: it sets gains and shifts of the decoder's states (FiLM). An adapted
voice adds learned numbers, its *modulation*, to these gains and shifts. The weights of the model do not change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rwae_audio.conversion.voice import Voice, modulation_shape
from rwae_audio.data.store import Batch
from rwae_audio.files import InputError
from rwae_audio.inference.bundle import Bundle
from rwae_audio.randomness import generator
from rwae_audio.training.perturbations import Colour, Mel, perturbed_views

STEPS = 60  # updates
BATCH = 8  # segments of an update
LEARNING_RATE = 0.01


def adapted(bundle: Bundle, recordings: Sequence[Tensor], voice: Voice, steps: int = STEPS, seed: int = 0) -> Voice:
    """Return a voice with a modulation that reduces the reconstruction error of its recordings.

    Segments of the recordings are encoded as in training: the input of the dynamic encoder is perturbed, and its codes are
    noisy. So the voice has to come from the modulation, since the dynamic codes have little of it.

    Args:
        bundle: The bundle.
        recordings: The log-mels of recordings of the voice, not normalised, (T, n_mels) each.
        voice: The voice without modulation.
        steps: The number of updates of the modulation, by Adam.
        seed: The seed of the drawn segments, of their perturbations and of the noise.

    Raises:
        InputError: No recording is as long as a training segment, or the decoder of the bundle has no modulation.
    """
    config, model, segment = bundle.config, bundle.model, bundle.config.mel.segment
    shape, device = modulation_shape(bundle), next(bundle.model.parameters()).device
    recordings = [frames for frames in recordings if len(frames) >= segment]
    if not recordings:
        raise InputError(f"no recording has {segment} frames; expected longer recordings, best a minute in all")
    perturbations = [perturbation for perturbation in config.train.perturb if isinstance(perturbation, (Colour, Mel))]
    modulation = torch.zeros(shape, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([modulation], lr=LEARNING_RATE)
    static = voice.code.to(device).expand(BATCH, -1)
    for step in range(steps):
        frames = draw_segments(recordings, segment, generator(seed, "adapt", step))
        batch = Batch(frames, None, None, torch.zeros(BATCH, dtype=torch.long))
        views = perturbed_views(batch, perturbations, bundle.normaliser, config.mel, seed, step).each(
            lambda part: part.to(device)
        )
        with torch.no_grad():
            codes = model.encode_dynamic(views.dynamic_input, static, generator(seed, "noise", step)).sample
        error = (model.decoder(static, codes, None, modulation) - views.frames).square().mean()
        (modulation.grad,) = torch.autograd.grad(error, [modulation])
        optimizer.step()
    return voice._replace(modulation=modulation.detach().cpu())


def draw_segments(recordings: Sequence[Tensor], segment: int, draw: torch.Generator) -> Tensor:
    """Draw segments of recordings. Each possible segment has the same probability.

    Args:
        recordings: The log-mels of the recordings, (T, n_mels) each.
        segment: The number of frames of a segment.
        draw: The random numbers.

    Returns:
        The segments, (BATCH, segment, n_mels).
    """
    counts = torch.tensor([len(frames) - segment + 1 for frames in recordings])  # possible segments of each recording
    numbers = torch.randint(int(counts.sum()), (BATCH,), generator=draw)
    ends = counts.cumsum(0)
    rows = torch.searchsorted(ends, numbers, right=True)
    starts = numbers - (ends - counts)[rows]
    return torch.stack(
        [recordings[row][start : start + segment] for row, start in zip(rows.tolist(), starts.tolist(), strict=True)]
    )
