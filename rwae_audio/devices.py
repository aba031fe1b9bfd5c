"""The devices on which networks can run, whether they have bfloat16, and its conversion to float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rwae_audio.files import InputError


def available_devices() -> list[str]:
    """Return the names of the devices of this machine: `cpu`, then `cuda`, `cuda:0` …, and `mps`."""
    names = ["cpu"]
    if torch.cuda.is_available():
        names += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def find_device(name: str | torch.device) -> torch.device:
    """Return the device with this name. Raises InputError, with the available names, if it is not available."""
    names = available_devices()
    if str(name) not in names:
        raise InputError(f"the device {name} is not available here; expected {' or '.join(names)}")
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 arithmetic, as most GPUs and CPUs with AVX512-BF16 or AMX have."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def bf16_or_float32(precision: str, device: torch.device, say: Callable[[str], None]) -> bool:
    """Return whether networks train in bfloat16.

    Args:
        precision: The setting `precision`, "bf16" or "float32".
        device: The device on which the networks train.
        say: Gets a line of text if `precision` is "bf16" and the device has no bfloat16 arithmetic.
    """
    if precision != "bf16":
        return False
    if has_bf16(device):
        return True
    say(f"this {device.type} has no bfloat16 arithmetic: training in float32")
    return False


def in_float32(values: Any) -> Any:
    """Convert 16-bit floats to float32 in a tensor or in a (named) tuple of tensors; other values stay unchanged."""
    if isinstance(values, Tensor):
        return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
    if isinstance(values, tuple):
        parts = [in_float32(value) for value in values]
        return type(values)(*parts) if hasattr(values, "_fields") else tuple(parts)
    return values
