"""Vocoders, which turn log-mels into a waveform: their common protocol, and `new_vocoder`, which loads one by its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rwae_audio.data.features import PRESETS, MelConfig
from rwae_audio.devices import find_device
from rwae_audio.files import InputError

VOCODERS = ("neural", "griffin-lim", "hifigan")


class AnyVocoder(Protocol):
    """The protocol of all vocoders.

    Attributes:
        name: The name of the vocoder for --vocoder.
        mel: The settings of its log-mels.
        takes_pitch: Whether the vocoder uses a given F0. Other vocoders guess the pitch from the frames, or whisper.
    """

    @property
    def name(self) -> str:
        """The name of the vocoder."""

    @property
    def mel(self) -> MelConfig:
        """The settings of the log-mels."""

    @property
    def takes_pitch(self) -> bool:
        """Whether the vocoder uses a given F0."""

    def chunks(self, frames: Iterable[Tensor], f0: Tensor | None, seed: int) -> Iterator[Tensor]:
        """Yield the samples of a recording of any length, (m,) at a time.

        Args:
            frames: Log-mels in chunks (n, n_mels), T frames in all.
            f0: F0 in Hz, 0 in unvoiced frames, (T,), or None.
            seed: The seed of the vocoder's random numbers.
        """


def new_vocoder(name: str | None, mel: MelConfig, device: str | torch.device = "cpu") -> AnyVocoder:
    """Return a vocoder for log-mels with the given settings.

    Args:
        name: One of VOCODERS, or the folder of a neural vocoder. None stands for the neural vocoder in the package if it
            has these settings, and otherwise for Griffin-Lim.
        mel: The settings of the log-mels.
        device: The device of the vocoder's network.

    Raises:
        InputError: The name is unknown, the weights are missing, or the vocoder has log-mels with other settings.
    """
    from rwae_audio.conversion.vocoders.griffin_lim import GriffinLim

    if name == "griffin-lim" or (name is None and mel.frames() != PRESETS["vocoder"].frames()):
        return GriffinLim(mel)
    vocoder: AnyVocoder
    if name == "hifigan":
        from rwae_audio.conversion.vocoders.hifigan import load_hifigan

        vocoder = load_hifigan().to(find_device(device))
    else:
        from rwae_audio.conversion.vocoders.neural import load_vocoder

        folder = None if name in (None, "neural") else Path(str(name))
        if folder is not None and not folder.is_dir():
            raise InputError(f"vocoder {name}; expected {', '.join(VOCODERS)}, or the folder of a neural vocoder")
        vocoder = load_vocoder(folder).to(find_device(device))
    check_vocoder(vocoder, mel)
    return vocoder


def check_vocoder(vocoder: AnyVocoder, mel: MelConfig) -> None:
    """Raise InputError unless the settings of a vocoder's log-mels are `mel`."""
    if vocoder.mel.frames() != mel.frames():
        raise InputError(
            "the vocoder reads other log-mels than the bundle's; expected griffin-lim, or a bundle with the vocoder's [mel]"
        )
