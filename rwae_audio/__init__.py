"""Disentangled Recurrent Wasserstein Autoencoder for speech: the voice and the content as two codes.

Example:
    import rwae_audio

    converter = rwae_audio.Converter.load()
    voice = converter.voice(["bob.wav"])
    sound = converter.convert(rwae_audio.load_audio("alice.wav"), 16000, voice)  # alice's words in bob's voice, 16 kHz
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_MODULE_OF = {  # the module of each public name, imported on first use so that --help does not wait for torch
    "Converter": "conversion.converter",
    "Bundle": "inference.bundle",
    "InputError": "files",
    "MelConfig": "data.features",
    "ModelConfig": "model",
    "RWAE": "model",
    "eer": "evaluation.verification",
    "resample": "data.audio",
    "griffin_lim": "conversion.vocoders.griffin_lim",
    "load_audio": "data.audio",
    "load_bundle": "inference.bundle",
    "load_hifigan": "conversion.vocoders.hifigan",
    "load_vocoder": "conversion.vocoders.neural",
    "log_mel": "data.features",
    "min_dcf": "evaluation.verification",
    "write_audio": "data.audio",
}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rwae_audio' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rwae_audio.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
