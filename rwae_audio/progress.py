"""Work that may take long: in parts, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


DELAY = 1.0  # seconds: what is over by then needs no bar


def bar(total: int | None, words: str, unit: str) -> tqdm:
    """Return a progress bar on stderr, which shows itself after DELAY and only where stderr is a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=words, unit=f" {unit}", unit_scale=True, delay=DELAY, disable=None, leave=False)


def slices(count: int, size: int) -> Iterator[slice]:
    """Yield `count` places in parts of `size`, the last of which may be shorter."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
