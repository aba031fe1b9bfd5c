"""Perturbations of training speech: the list `[train] perturb`, each entry with the settings of its own class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch

from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.data.perturb import channelled, equalised, warp_frequencies, warp_mels
from rwae_audio.data.store import Batch
from rwae_audio.files import InputError
from rwae_audio.randomness import generator
from rwae_audio.settings import Settings, between, nearest, resolve
from rwae_audio.training.views import Views, raw_views

WHERE = "[train] perturb"


@dataclass(frozen=True, kw_only=True)
class Perturbation(Settings):
    """A random change of what the networks see, drawn anew in each update.

    Attributes:
        stream: The purpose of its random numbers, which depend on the seed and the step besides.
        of_normalised: Whether it changes normalised log-mels instead of raw ones.
    """

    name: str = ""
    stream: ClassVar[str]
    of_normalised: ClassVar[bool] = False

    @staticmethod
    def from_table(table: Any, where: str = WHERE) -> Perturbation:
        """Return the perturbation that an entry of the list describes. Raises InputError where none does."""
        if not isinstance(table, Mapping):
            raise InputError(f'{where} has {table!r}; expected a table with a name, as in {{ name = "tract" }}')
        name = table.get("name")
        if not isinstance(name, str) or name not in PERTURBATIONS:
            raise InputError(f"{where} has the name {name!r}; {nearest(str(name), list(PERTURBATIONS))}")
        return resolve(PERTURBATIONS[name], table, f"[{PERTURBATIONS[name].table}]")

    def apply(self, views: Views, noise: torch.Generator, mel: MelConfig) -> Views:
        """Return the views, perturbed."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Tract(Perturbation):
    """Another vocal tract: the frequency axis of all windows of an utterance is stretched (Jaitly & Hinton 2013).

    Attributes:
        factor: The axis is stretched by one factor an utterance, up to this far from 1.
    """

    table: ClassVar[str] = "train.perturb.tract"
    stream: ClassVar[str] = "tract"
    name: Literal["tract"] = "tract"
    factor: float = between(0, 0.5, 0.15, open_low=True)

    def apply(self, views: Views, noise: torch.Generator, mel: MelConfig) -> Views:
        """Return the views with all windows of an utterance in one other voice."""
        return views.together(lambda frames: warp_frequencies(frames, self.factor, noise, mel))


@dataclass(frozen=True, kw_only=True)
class Channel(Perturbation):
    """A channel: one window of the static encoder is recorded elsewhere than the other.

    An objective without a second window has its only window changed. A static code that is read off the segment itself
    has no window, and nothing changes.

    Attributes:
        kinds: What the window goes through, each with a chance of a half, in this order.
    """

    table: ClassVar[str] = "train.perturb.channel"
    stream: ClassVar[str] = "channel"
    name: Literal["channel"] = "channel"
    kinds: tuple[Literal["reverberation", "equaliser", "noise", "bandwidth"], ...] = (
        "reverberation",
        "equaliser",
        "noise",
        "bandwidth",
    )

    def apply(self, views: Views, noise: torch.Generator, mel: MelConfig) -> Views:
        """Return the views with one window of the static encoder through random channels."""
        view = "static_frames" if views.second_frames is None else "second_frames"
        window = getattr(views, view)
        if window is None:
            return views
        return replace(views, **{view: channelled(window, self.kinds, noise, mel)})


@dataclass(frozen=True, kw_only=True)
class Colour(Perturbation):
    """Another colour for the dynamic encoder: a smooth random curve over the mel axis, one a sequence.

    Attributes:
        deviation: Standard deviation of the curve, in nats.
    """

    table: ClassVar[str] = "train.perturb.colour"
    stream: ClassVar[str] = "colour"
    name: Literal["colour"] = "colour"
    deviation: float = between(0, 10, 0.5, open_low=True)

    def apply(self, views: Views, noise: torch.Generator, mel: MelConfig) -> Views:
        """Return the views with the dynamic encoder's input equalised."""
        return replace(views, dynamic_frames=equalised(views.dynamic_input, self.deviation, noise))


@dataclass(frozen=True, kw_only=True)
class Mel(Perturbation):
    """Another voice for the dynamic encoder alone: the mel axis of its normalised input is stretched.

    Attributes:
        factor: The axis is stretched by one factor a sequence, up to this far from 1.
    """

    table: ClassVar[str] = "train.perturb.mel"
    stream: ClassVar[str] = "warp"
    of_normalised: ClassVar[bool] = True
    name: Literal["mel"] = "mel"
    factor: float = between(0, 0.5, 0.15, open_low=True)

    def apply(self, views: Views, noise: torch.Generator, mel: MelConfig) -> Views:
        """Return the views with the dynamic encoder's input in another voice."""
        return replace(views, dynamic_frames=warp_mels(views.dynamic_input, self.factor, noise))


PERTURBATIONS: dict[str, type[Perturbation]] = {"tract": Tract, "channel": Channel, "colour": Colour, "mel": Mel}


def check_names(perturbations: Sequence[Perturbation]) -> None:
    """Raise ValueError where a perturbation is twice in a list: both would draw the same random numbers."""
    names = [perturbation.name for perturbation in perturbations]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{WHERE} has {twice[0]!r} twice; expected each name once")


def perturbed_views(
    batch: Batch, perturbations: Sequence[Perturbation], normaliser: Normaliser, mel: MelConfig, seed: int, step: int
) -> Views:
    """Return the normalised views of a batch that update `step` is made with.

    The perturbations of raw log-mels come first and those of normalised log-mels last, in the order of the list.
    """

    def perturbed(views: Views, of_normalised: bool) -> Views:
        for perturbation in perturbations:
            if perturbation.of_normalised == of_normalised:
                views = perturbation.apply(views, generator(seed, perturbation.stream, step), mel)
        return views

    return perturbed(perturbed(raw_views(batch), False).each(normaliser), True)
