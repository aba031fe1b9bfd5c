"""Pipes of rwae-vc: a recording from standard input, a WAV file to standard output."""

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
    """The files that stand for standard input and output, in a temporary folder, or None where they are not used."""

    source: Path | None
    output: Path | None

    def fill(self) -> None:
        """Read standard input to its end. Raises InputError when it cannot be read, as a folder cannot."""
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
        """Write the result, which is there as a whole, to standard output."""
        if self.output is not None:
            with self.output.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()

    def shown(self, path: str) -> str:
        """Return the name under which a user knows a path, or a message with it: stdin or stdout."""
        for pipe in (self.source, self.output):
            path = path if pipe is None else path.replace(str(pipe), pipe.stem)
        return path


@contextlib.contextmanager
def pipes(source: bool, output: bool) -> Iterator[Pipes]:
    """Provide the files of standard input and output; they are removed when the block ends.

    Args:
        source: Whether standard input is read.
        output: Whether standard output is written to.

    Raises:
        InputError: When one of them is a terminal, or closed; and with `stdin` in messages of the block.
    """
    for wanted, stream, name, ask in (
        (source, sys.stdin, "input", "a recording from a pipe or a file"),
        (output, sys.stdout, "output", "a pipe or a file to write sound to, or -o OUT"),
    ):
        if wanted and (stream is None or stream.isatty()):
            raise InputError(f"standard {name} is {'closed' if stream is None else 'a terminal'}; expected {ask}")
    if not (source or output):
        yield Pipes(None, None)
        return
    with tempfile.TemporaryDirectory(prefix="rwae-vc-") as name:
        both = Pipes(Path(name, "stdin") if source else None, Path(name, "stdout.wav") if output else None)
        if both.source is not None:
            both.source.touch()
        try:
            yield both
        except InputError as error:
            raise InputError(Pipes(both.source, None).shown(str(error))) from error
