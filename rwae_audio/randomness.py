"""Random generators, one for each purpose, so that the draws of one part never shift those of another."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, purpose: str, step: int = 0) -> torch.Generator:
    """Return a CPU generator that depends on (seed, purpose, step) alone, so that a resumed run draws the same numbers."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
