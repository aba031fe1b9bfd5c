"""The views of a batch: the frames of the same utterances that each network reads, perturbed or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from rwae_audio.data.features import Normaliser
from rwae_audio.data.store import Batch


@dataclass(frozen=True)
class Views:
    """Log-mels of the same B utterances for each network, all raw or all normalised.

    Attributes:
        frames: The segments to reconstruct, (B, T, n_mels).
        static_frames: The windows of the static encoder, (B, S, n_mels), or None if it reads `frames`.
        second_frames: Second windows for the static encoder, (B, S, n_mels), or None.
        dynamic_frames: A perturbed copy of `frames` for the dynamic encoder, (B, T, n_mels), or None.
    """

    frames: Tensor
    static_frames: Tensor | None = None
    second_frames: Tensor | None = None
    dynamic_frames: Tensor | None = None

    @property
    def present(self) -> dict[str, Tensor]:
        """The views that are not None, by name."""
        parts = {view.name: getattr(self, view.name) for view in fields(self)}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def dynamic_input(self) -> Tensor:
        """The frames that the dynamic encoder reads, (B, T, n_mels)."""
        return self.frames if self.dynamic_frames is None else self.dynamic_frames

    def each(self, change: Callable[[Tensor], Tensor]) -> Views:
        """Return the views with a function applied to each of them."""
        return replace(self, **{name: change(part) for name, part in self.present.items()})

    def together(self, change: Callable[[Tensor], Tensor]) -> Views:
        """Return the views with a function applied once to all of them, concatenated in time.

        Args:
            change: Maps frames (B, T, n_mels) to frames of the same shape. Each output frame depends on one input frame.
        """
        present = self.present
        changed = change(torch.cat([*present.values()], 1)).split([part.shape[1] for part in present.values()], 1)
        return replace(self, **dict(zip(present, changed, strict=True)))


def raw_views(batch: Batch) -> Views:
    """Return the raw log-mels of a batch as views."""
    return Views(batch.frames, batch.static_frames, batch.second_frames)


def normalised(batch: Batch, normaliser: Normaliser, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return the segments and the static encoder's windows (or None) of a batch, normalised, on a device."""
    views = raw_views(batch.to(device)).each(normaliser.to(device))
    return views.frames, views.static_frames
