"""Views of a batch: what each network sees of the same utterances, perturbed as the configuration says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rwae_audio.data.features import Normaliser
from rwae_audio.data.perturb import channelled, equalised, warp_frequencies, warp_mels
from rwae_audio.data.store import Batch
from rwae_audio.randomness import generator

if TYPE_CHECKING:
    from rwae_audio.training.trainer import RunConfig


@dataclass(frozen=True)
class Views:
    """Normalised log-mels of the same B utterances, on the model's device.

    Attributes:
        frames: (B, T, n_mels), the target of the reconstruction.
        static_frames: (B, S, n_mels), the static encoder's window; None where it is `frames`.
        second_frames: (B, S, n_mels), another window for the static encoder, or None.
        dynamic_frames: (B, T, n_mels), a perturbed copy of `frames` for the dynamic encoder, or None.
    """

    frames: Tensor
    static_frames: Tensor | None = None
    second_frames: Tensor | None = None
    dynamic_frames: Tensor | None = None


def normalised(batch: Batch, normaliser: Normaliser, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return the segment and the static encoder's window of a batch as the model wants them."""
    plain = views(batch.to(device), normaliser.to(device))
    return plain.frames, plain.static_frames


def views(batch: Batch, normaliser: Normaliser) -> Views:
    """Return the views of a batch without any perturbation."""
    static, second = (None if part is None else normaliser(part) for part in (batch.static_frames, batch.second_frames))
    return Views(normaliser(batch.frames), static, second)


def perturbed_views(batch: Batch, normaliser: Normaliser, config: RunConfig, step: int) -> Views:
    """Return the views of a batch that update `step` is made with.

    First the voice of an utterance changes, alike in all its windows. Then one window of the static encoder goes through
    another channel, and last what the dynamic encoder sees changes alone.
    """
    settings = config.train

    def noise(purpose: str) -> torch.Generator:
        return generator(settings.seed, purpose, step)

    if settings.tract_warp:
        batch = in_one(batch, lambda frames: warp_frequencies(frames, settings.tract_warp, noise("tract"), config.mel))
    batch = through_channels(batch, config, step)
    seen = views(batch, normaliser)
    heard = None
    if settings.colour:
        heard = normaliser(equalised(batch.frames, settings.colour, noise("colour")))
    if settings.mel_warp:
        heard = warp_mels(seen.frames if heard is None else heard, settings.mel_warp, noise("warp"))
    return replace(seen, dynamic_frames=heard)


def in_one(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Return the batch with all its windows changed in one call, one after another in time.

    change: Maps frames (B, T, n_mels) to frames of the same shape, each frame on its own.
    """
    parts = {name: getattr(batch, name) for name in ("frames", "static_frames", "second_frames")}
    present = {name: part for name, part in parts.items() if part is not None}
    changed = change(torch.cat([*present.values()], 1)).split([part.shape[1] for part in present.values()], 1)
    return replace(batch, **dict(zip(present, changed, strict=True)))


def through_channels(batch: Batch, config: RunConfig, step: int) -> Batch:
    """Return the batch with one window of the static encoder through random channels, and the other one as it was.

    An objective without a second window has its only one changed. A static code that is read off the segment itself has
    no window, and nothing changes.
    """
    settings = config.train
    name = "static_frames" if batch.second_frames is None else "second_frames"
    window = getattr(batch, name)
    if window is None or not settings.channel:
        return batch
    noise = generator(settings.seed, "channel", step)
    return replace(batch, **{name: channelled(window, settings.channel, noise, config.mel)})
