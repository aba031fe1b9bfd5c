"""Progress bars, and the division of long work into parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


DELAY = 1.0  # seconds before a bar is shown: shorter work needs none


def bar(total: int | None, words: str, unit: str) -> tqdm:
    """Return a progress bar on stderr, shown after DELAY and only when stderr is a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=words, unit=f" {unit}", unit_scale=True, delay=DELAY, disable=None, leave=False)


def slices(count: int, size: int) -> Iterator[slice]:
    """Yield slices of `size` that cover range(count); the last may be shorter."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
