"""Train an R-WAE on speech, and run the speaker benchmark. This is `rwae-train` in a checkout."""

from __future__ import annotations

import sys

from rwae_audio.commands import train

COMMAND = "python recipes/timit/train.py"


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    return train.main(argv, COMMAND)


if __name__ == "__main__":
    sys.exit(main())
