"""Vocoders: log-mel frames → waveform. `new_vocoder` makes one by its name."""

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
        name: What --vocoder calls it.
        mel: The settings of the log-mels that it reads.
        takes_pitch: Whether it speaks at the F0 that it is given. Others find the pitch in the frames, or whisper.
    """

    @property
    def name(self) -> str: ...
    @property
    def mel(self) -> MelConfig: ...
    @property
    def takes_pitch(self) -> bool: ...

    def chunks(self, frames: Iterable[Tensor], f0: Tensor | None, seed: int) -> Iterator[Tensor]:
        """Yield samples (m,) at a time for T log-mels that come (n, n_mels) at a time; f0 (T,) in Hz, 0 without a voice."""


def new_vocoder(name: str | None, mel: MelConfig, device: str | torch.device = "cpu") -> AnyVocoder:
    """Return a vocoder for log-mels of these settings.

    Args:
        name: One of VOCODERS, or the folder of a neural vocoder. None takes the neural one if it reads these log-mels,
            and Griffin-Lim if not.

    Raises:
        InputError: When the name is unknown, its weights are missing, or it reads log-mels of other settings.
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
    """Raise InputError when a vocoder cannot read log-mels of these settings."""
    if vocoder.mel.frames() != mel.frames():
        raise InputError(
            "the vocoder reads other log-mels than the bundle's; expected griffin-lim, or a bundle with the vocoder's [mel]"
        )
