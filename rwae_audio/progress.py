"""Progress bars, and the division of long work into parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


DELAY = 1.0  # seconds after which a bar is shown


def bar(total: int | None, words: str, unit: str) -> tqdm:
    """Return a progress bar on stderr. It is shown after DELAY, and only if stderr is a terminal.

    Args:
        total: The number of units of work, or None if it is unknown.
        words: The description of the work.
        unit: The name of a unit.
    """
    from tqdm import tqdm

    return tqdm(total=total, desc=words, unit=f" {unit}", unit_scale=True, delay=DELAY, disable=None, leave=False)


def slices(count: int, size: int) -> Iterator[slice]:
    """Yield slices of length `size` that cover range(count). The last one may be shorter."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
