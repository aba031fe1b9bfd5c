"""Import of torchaudio on first use, which takes 0.1 s and fails with some versions and builds of torch."""

from __future__ import annotations

from types import ModuleType

from rwae_audio.files import InputError

# torchaudio 2.11.0 loads with torch 2.11 to 2.14, 2.11.1 with 2.13 and later
INSTALL = "pip install --upgrade --force-reinstall --index-url https://pypi.org/simple torch torchaudio"


def torchaudio() -> ModuleType:
    """Return torchaudio. Raises InputError, with the command that installs the pair, when it does not load."""
    try:
        import torchaudio as module
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: built for another version of CUDA
        import torch

        raise InputError(
            f"torchaudio does not load with torch {torch.__version__}; expected both from PyPI: {INSTALL}, "
            "or torchaudio==2.11.0 for torch 2.11 and 2.12"
        ) from error
    return module
