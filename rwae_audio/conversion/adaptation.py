"""Adaptation: a voice that the decoder speaks more like a minute of its recordings.

A static code is one vector for all that a voice does to the spectrum. An adapted voice adds numbers of its own to the gains and
shifts by which z^c modulates the decoder (FiLM). All weights stay as they are.
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

STEPS = 60
BATCH = 8  # segments a step
LEARNING_RATE = 0.01


def adapted(bundle: Bundle, recordings: Sequence[Tensor], voice: Voice, steps: int = STEPS, seed: int = 0) -> Voice:
    """Return the voice with a modulation that lowers the reconstruction error of its recordings.

    Segments of the recordings are encoded as in training: the dynamic encoder hears them in other voices, and its codes have
    their noise. So the modulation learns the voice, and not what the codes leave of it.

    Args:
        recordings: Raw log-mels of the voice, (T, n_mels) each.
        steps: Updates of the modulation, by Adam.
        seed: Decides which segments are drawn, and how they are perturbed.

    Raises:
        InputError: When no recording is as long as a training segment, or the decoder has no modulation.
    """
    config, model, segment = bundle.config, bundle.model, bundle.config.mel.segment
    shape, device = modulation_shape(bundle), next(bundle.model.parameters()).device
    recordings = [frames for frames in recordings if len(frames) >= segment]
    if not recordings:
        raise InputError(f"no recording has {segment} frames; expected longer ones to adapt to, better a minute")
    perturbations = [one for one in config.train.perturb if isinstance(one, (Colour, Mel))]
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
    """Return BATCH segments (BATCH, segment, n_mels) of recordings (T, n_mels), drawn by their length."""
    rooms = torch.tensor([len(frames) - segment + 1 for frames in recordings])
    places = torch.randint(int(rooms.sum()), (BATCH,), generator=draw)
    ends = rooms.cumsum(0)
    which = torch.searchsorted(ends, places, right=True)
    starts = places - (ends - rooms)[which]
    return torch.stack(
        [recordings[i][start : start + segment] for i, start in zip(which.tolist(), starts.tolist(), strict=True)]
    )
