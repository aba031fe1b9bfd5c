"""The views of a batch: what each network sees of the same utterances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from rwae_audio.data.features import Normaliser
from rwae_audio.data.store import Batch


@dataclass(frozen=True)
class Views:
    """Log-mels of the same B utterances, raw or normalised.

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

    @property
    def present(self) -> dict[str, Tensor]:
        """The views that are not None, by name."""
        parts = {view.name: getattr(self, view.name) for view in fields(self)}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def dynamic_input(self) -> Tensor:
        """The frames that the dynamic encoder sees."""
        return self.frames if self.dynamic_frames is None else self.dynamic_frames

    def each(self, change: Callable[[Tensor], Tensor]) -> Views:
        """Return the views with `change` made to each of them."""
        return replace(self, **{name: change(part) for name, part in self.present.items()})

    def together(self, change: Callable[[Tensor], Tensor]) -> Views:
        """Return the views with all windows changed in one call, one after another in time.

        change: Maps frames (B, T, n_mels) to frames of the same shape, each frame on its own.
        """
        present = self.present
        changed = change(torch.cat([*present.values()], 1)).split([part.shape[1] for part in present.values()], 1)
        return replace(self, **dict(zip(present, changed, strict=True)))


def raw_views(batch: Batch) -> Views:
    """Return the raw log-mels of a batch as views."""
    return Views(batch.frames, batch.static_frames, batch.second_frames)


def normalised(batch: Batch, normaliser: Normaliser, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return the segment and the static encoder's window of a batch, normalised, on the model's device."""
    views = raw_views(batch.to(device)).each(normaliser.to(device))
    return views.frames, views.static_frames
