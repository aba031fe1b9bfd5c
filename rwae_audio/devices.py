"""The devices that networks can run on."""

from __future__ import annotations

import torch

from rwae_audio.files import InputError


def available_devices() -> list[str]:
    """Return the names that `find_device` accepts on this machine: `cpu`, then `cuda`, `cuda:0` …, and `mps`."""
    names = ["cpu"]
    if torch.cuda.is_available():
        names += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def find_device(name: str | torch.device) -> torch.device:
    """Return the device of this name. Raises InputError, which lists the available names, when it is not here."""
    names = available_devices()
    if str(name) not in names:
        raise InputError(f"the device {name} is not available here; expected {' or '.join(names)}")
    return torch.device(name)
