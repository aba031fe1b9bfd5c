"""Adaptation of a voice to its recordings: the last layer of the vocoder learns how they sound.

The vocoder restores what a decoder blurs, and knows voices in general. For one voice its last layer, which sets the filters of
each frame, is trained on recordings of it. Their log-mels are decoded from codes, as those of conversions are. For every second
crop the codes are those of a copy at another pitch, since a source has another pitch as well. The losses are the spectral ones
of the vocoder's training.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rwae_audio.conversion.fitting import fitted_codes
from rwae_audio.conversion.reading import Reading
from rwae_audio.conversion.vocoders.crops import (
    Recorded,
    at_another_pitch,
    draw,
    joined,
    recorded,
    shortest_for_training,
)
from rwae_audio.conversion.vocoders.neural import Vocoder
from rwae_audio.conversion.vocoders.settings import TrainConfig
from rwae_audio.conversion.vocoders.spectra import Spectra, mel_distance, spectral_distance
from rwae_audio.conversion.voice import Filters, Voice
from rwae_audio.files import InputError
from rwae_audio.inference.bundle import Bundle
from rwae_audio.randomness import generator

if TYPE_CHECKING:
    from rwae_audio.conversion.converter import Converter

SETTINGS = TrainConfig(batch=8, frames=48, decoded=1.0, moved=0.5, learning_rate=3e-4)


def neural(converter: Converter) -> Vocoder:
    """Return the vocoder of a converter. Raises InputError if it is not the neural one, which alone can be adapted."""
    if not isinstance(converter.vocoder, Vocoder):
        raise InputError(f"the vocoder is {converter.vocoder.name}; expected the neural one to adapt a voice")
    return converter.vocoder


def example(reading: Reading) -> Recorded:
    """Return what an adaptation needs of a recording: its samples, F0 and log-mels, without a static code."""
    log_mels, no_code = torch.cat([*reading.log_mels()]), torch.zeros(0)
    return recorded(np.concatenate([*reading.speech()]), reading.f0.numpy(), [log_mels], no_code, reading.mel)


def with_decoded(one: Recorded, voice: Voice, bundle: Bundle, vocoder: Vocoder, draws: torch.Generator) -> Recorded:
    """Return a recording with all log-mels that the adaptation draws.

    Args:
        one: The recording, from `example`.
        voice: The voice, with which it is decoded.
        bundle: The bundle.
        vocoder: The vocoder, which makes a copy of the recording at another pitch.
        draws: The random numbers of this pitch.

    Returns:
        The recording with log-mels (4, T, n_mels): its own, decoded ones, those of the copy, and the copy's decoded.
    """
    natural = torch.from_numpy(one.log_mels[0]).float()
    moved = at_another_pitch(vocoder, natural, one.f0, draws)
    natural_decoded, moved_decoded = (
        bundle.decode(voice.code, fitted_codes(bundle, voice.code, frames)) for frames in (natural, moved)
    )
    return one._replace(log_mels=torch.stack([natural, natural_decoded, moved, moved_decoded]).half().numpy())


def with_filters(vocoder: Vocoder, filters: Filters) -> Vocoder:
    """Return a copy of a vocoder with the last layer of an adapted voice. Raises InputError if it has another shape."""
    adapted, head = copy.deepcopy(vocoder), vocoder.network.head
    if (filters.weight.shape, filters.bias.shape) != (head.weight.shape, head.bias.shape):
        raise InputError(f"the filters have the shape {(*filters.weight.shape,)}; expected {(*head.weight.shape,)}")
    adapted.network.head.load_state_dict({"weight": filters.weight, "bias": filters.bias})
    return adapted


def adapted(converter: Converter, voice: Voice, examples: Sequence[Recorded], steps: int, seed: int = 0) -> Voice:
    """Return a voice with filters that are adapted to its recordings.

    Args:
        converter: The converter, whose weights stay as they are.
        voice: The voice.
        examples: Its recordings, from `example`. Those that are shorter than a crop are left out.
        steps: The number of updates, by Adam.
        seed: The seed of the drawn crops and of the vocoder's random numbers.

    Raises:
        InputError: All recordings are too short, or the vocoder is not the neural one.
    """
    vocoder, mel = neural(converter).of(voice.code, converter.bundle.digest), converter.bundle.config.mel
    least = max(SETTINGS.frames, 1 + shortest_for_training(mel) // mel.hop_length)
    examples = [one for one in examples if len(one.f0) >= least]
    if not examples:
        raise InputError(f"no recording has {least} frames; expected longer recordings, best a minute in all")
    draws, settings = generator(seed, "moved"), replace(SETTINGS, seed=seed)
    speech = joined([with_decoded(one, voice, converter.bundle, vocoder, draws) for one in examples], mel)
    trained = copy.deepcopy(vocoder).requires_grad_(False)
    head = trained.network.head.requires_grad_(True)
    optimizer = torch.optim.Adam(head.parameters(), lr=settings.learning_rate, betas=(0.8, 0.99))
    for step in range(steps):
        log_mels, f0, samples = (part.to(head.weight.device) for part in draw(speech, settings, step)[:3])
        output = Spectra(trained(log_mels, f0, generator(seed, "sources", step), trained.voice))
        target = Spectra(samples)
        loss = spectral_distance(output, target) + settings.mel_weight * mel_distance(output, target, mel)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weight, bias = (part.detach().half().cpu() for part in (head.weight, head.bias))
    return voice._replace(filters=Filters(vocoder.digest, weight, bias))
