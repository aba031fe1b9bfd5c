"""Train an R-WAE on speech and run the speaker benchmark: what `rwae-train` does, from a checkout."""

from __future__ import annotations

import sys

from rwae_audio.commands import train

COMMAND = "python recipes/timit/train.py"


def main(argv: list[str] | None = None) -> int:
    return train.main(argv, COMMAND)


if __name__ == "__main__":
    sys.exit(main())
