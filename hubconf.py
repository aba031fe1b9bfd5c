"""Entry point of torch.hub for the voice converter: `torch.hub.load("owner/rwae-audio", "converter")`."""

from __future__ import annotations

from typing import Any

dependencies = [
    "torch",
    "torchaudio",
    "huggingface_hub",
    "numpy",
    "safetensors",
    "scipy",
    "soundfile",
    "soxr",
    "swift_f0",
]


def converter(name: str | None = None, revision: str | None = None, device: str = "cpu") -> Any:
    """Return a Converter.

    Args:
        name: A folder, or a repository on the Hugging Face Hub (`owner/name`). None for the converter in this repository.
        revision: A branch, a tag or a commit of the repository on the Hub; None for the newest.
        device: The device of the networks.
    """
    from rwae_audio import Converter

    if name is None:
        return Converter.load(device=device)
    return Converter.from_pretrained(name, revision, device)
