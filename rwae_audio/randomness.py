"""Random generators, one for each purpose, so that draws for one purpose do not change those for another."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, purpose: str, step: int = 0) -> torch.Generator:
    """Return a CPU generator that depends on its arguments alone, so that a resumed run draws the same numbers.

    Args:
        seed: The seed of the run.
        purpose: The purpose of the numbers, such as "batch".
        step: The number of the update, from 0.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
