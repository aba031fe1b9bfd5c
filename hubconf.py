"""Entry points of torch.hub: `converter = torch.hub.load("owner/rwae-audio", "converter")`."""

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
    """Return a Converter: the one in the repository if `name` is None, or that of a folder or of a name on the Hub."""
    from rwae_audio import Converter

    if name is None:
        return Converter.load(device=device)
    return Converter.from_pretrained(name, revision, device)
