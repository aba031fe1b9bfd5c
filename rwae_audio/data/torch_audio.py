"""Import of torchaudio on first use, which takes 0.1 s and fails with some builds of torch."""

from __future__ import annotations

from types import ModuleType

from rwae_audio.files import InputError

# 2.11.0 loads with torch 2.11 to 2.14, 2.11.1 only with 2.13 and later
INSTALL = "pip install --force-reinstall --index-url https://pypi.org/simple torch torchaudio==2.11.0"


def torchaudio() -> ModuleType:
    """Return torchaudio. Raises InputError, with the command that installs the pair, when it does not load."""
    try:
        import torchaudio as module
    except (ImportError, OSError) as error:
        import torch

        raise InputError(
            f"torchaudio does not load with torch {torch.__version__}; expected both from PyPI: {INSTALL}"
        ) from error
    return module
