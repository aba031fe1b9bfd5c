"""Standard input and output of rwae-vc: a recording from a pipe, and a WAV file to a pipe."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rwae_audio.files import NO_ROOM, InputError

PIPE = "-"


class Pipes(NamedTuple):
    """Temporary files that stand for standard input and output.

    Attributes:
        source: The file for standard input, or None if it is not used.
        output: The file for standard output, or None if it is not used.
    """

    source: Path | None
    output: Path | None

    def fill(self) -> None:
        """Copy standard input into its file. Raises InputError if it cannot be read."""
        if self.source is None:
            return
        try:
            with self.source.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            raise InputError(f"standard input cannot be read ({error.strerror}); expected a recording") from error

    def empty(self) -> None:
        """Copy the finished file to standard output."""
        if self.output is not None:
            with self.output.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()

    def shown(self, path: str) -> str:
        """Return a path or a message, with the paths of temporary files replaced by `stdin` and `stdout`."""
        for pipe in (self.source, self.output):
            path = path if pipe is None else path.replace(str(pipe), pipe.stem)
        return path


@contextlib.contextmanager
def pipes(source: bool, output: bool) -> Iterator[Pipes]:
    """Provide temporary files for standard input and output, which are removed when the block ends.

    Args:
        source: Whether standard input is read.
        output: Whether standard output is written.

    Raises:
        InputError: Standard input or output is closed or a terminal. InputErrors of the block are raised again, with
            `stdin` in the place of the temporary path.
    """
    for used, stream, name, expected in (
        (source, sys.stdin, "input", "a recording from a pipe or a file"),
        (output, sys.stdout, "output", "a pipe or a file to write sound to, or -o OUT"),
    ):
        if used and (stream is None or stream.isatty()):
            raise InputError(f"standard {name} is {'closed' if stream is None else 'a terminal'}; expected {expected}")
    if not (source or output):
        yield Pipes(None, None)
        return
    with tempfile.TemporaryDirectory(prefix="rwae-vc-") as name:
        files = Pipes(Path(name, "stdin") if source else None, Path(name, "stdout.wav") if output else None)
        if files.source is not None:
            files.source.touch()
        try:
            yield files
        except InputError as error:
            raise InputError(Pipes(files.source, None).shown(str(error))) from error
