"""The perturbations of training speech that `[train] perturb` lists, each a class with its settings."""

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
    """A random perturbation of the frames that the networks read, drawn anew in each update.

    Attributes:
        name: The name in the configuration.
        stream: The purpose of the random numbers (see rwae_audio.randomness).
        of_normalised: Whether the perturbation applies to normalised log-mels instead of raw ones.
    """

    name: str = ""
    stream: ClassVar[str]
    of_normalised: ClassVar[bool] = False

    @staticmethod
    def from_table(table: Any, where: str = WHERE) -> Perturbation:
        """Return the perturbation of an entry of the list.

        Args:
            table: The entry, a table with the name and the settings of the perturbation.
            where: The name of the list in messages.

        Raises:
            InputError: The name is unknown, or a setting is invalid.
        """
        if not isinstance(table, Mapping):
            raise InputError(f'{where} has {table!r}; expected a table with a name, as in {{ name = "tract" }}')
        name = table.get("name")
        if not isinstance(name, str) or name not in PERTURBATIONS:
            raise InputError(f"{where} has the name {name!r}; {nearest(str(name), list(PERTURBATIONS))}")
        return resolve(PERTURBATIONS[name], table, f"[{PERTURBATIONS[name].table}]")

    def apply(self, views: Views, noise: torch.Generator, mel: MelConfig) -> Views:
        """Return the perturbed views.

        Args:
            views: The views, normalised if `of_normalised`.
            noise: The generator of the perturbation.
            mel: The settings of the log-mels.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Tract(Perturbation):
    """Another vocal tract for each utterance: the frequency axis of all its windows is stretched by one factor.

    Jaitly & Hinton, "Vocal tract length perturbation improves speech recognition", 2013.

    Attributes:
        factor: Largest change of the frequency axis: its stretch is drawn from 1 − factor to 1 + factor.
    """

    table: ClassVar[str] = "train.perturb.tract"
    stream: ClassVar[str] = "tract"
    name: Literal["tract"] = "tract"
    factor: float = between(0, 0.5, 0.15, open_low=True)

    def apply(self, views: Views, noise: torch.Generator, mel: MelConfig) -> Views:
        """Return the views with all windows of an utterance stretched in frequency."""
        return views.together(lambda frames: warp_frequencies(frames, self.factor, noise, mel))


@dataclass(frozen=True, kw_only=True)
class Channel(Perturbation):
    """Another recording channel for one of the static encoder's two windows.

    With a single window it is that one. Without a window (`static_from` "segment" or "frame") nothing changes.

    Attributes:
        kinds: The distortions of the window in their order, each applied with probability 1/2.
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
        """Return the views with one window of the static encoder distorted."""
        view = "static_frames" if views.second_frames is None else "second_frames"
        window = getattr(views, view)
        if window is None:
            return views
        return replace(views, **{view: channelled(window, self.kinds, noise, mel)})


@dataclass(frozen=True, kw_only=True)
class Colour(Perturbation):
    """A random equaliser for the dynamic encoder: a smooth curve over the mel axis is added to each sequence.

    Attributes:
        deviation: Standard deviation of the curve over the mel bins, in nats.
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
    """Another voice for the dynamic encoder: the mel axis of each normalised sequence is stretched by one factor.

    Attributes:
        factor: Largest change of the mel axis: its stretch is drawn from 1 − factor to 1 + factor.
    """

    table: ClassVar[str] = "train.perturb.mel"
    stream: ClassVar[str] = "warp"
    of_normalised: ClassVar[bool] = True
    name: Literal["mel"] = "mel"
    factor: float = between(0, 0.5, 0.15, open_low=True)

    def apply(self, views: Views, noise: torch.Generator, mel: MelConfig) -> Views:
        """Return the views with the dynamic encoder's input stretched along the mel axis."""
        return replace(views, dynamic_frames=warp_mels(views.dynamic_input, self.factor, noise))


PERTURBATIONS: dict[str, type[Perturbation]] = {"tract": Tract, "channel": Channel, "colour": Colour, "mel": Mel}


def check_names(perturbations: Sequence[Perturbation]) -> None:
    """Raise ValueError if a list has a perturbation twice, as both would draw the same random numbers."""
    names = [perturbation.name for perturbation in perturbations]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{WHERE} has {repeated[0]!r} twice; expected each name once")


def perturbed_views(
    batch: Batch, perturbations: Sequence[Perturbation], normaliser: Normaliser, mel: MelConfig, seed: int, step: int
) -> Views:
    """Return the normalised and perturbed views of a batch.

    Perturbations of raw log-mels are applied first and those of normalised log-mels last, each in the order of the list.

    Args:
        batch: The batch of raw log-mels.
        perturbations: The list `[train] perturb`.
        normaliser: The normaliser of log-mels.
        mel: The settings of the log-mels.
        seed: The seed of the run.
        step: The number of the update.
    """

    def perturbed(views: Views, of_normalised: bool) -> Views:
        for perturbation in perturbations:
            if perturbation.of_normalised == of_normalised:
                views = perturbation.apply(views, generator(seed, perturbation.stream, step), mel)
        return views

    return perturbed(perturbed(raw_views(batch), False).each(normaliser), True)
