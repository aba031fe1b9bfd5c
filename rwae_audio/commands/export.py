"""Write the networks of a converter into the folder OUT as ONNX files, for programs without PyTorch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rwae_audio.commands.common import Parser, guarded, say

NAME = "rwae-export"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="OUT has static.onnx, dynamic.onnx, decoder.onnx, vocoder.onnx (whose output is a spectrum), settings.json and "
        "arrays.npz. The results of each network are compared with PyTorch on "
        "recordings of three lengths. The extra `onnx` is needed. recipes/voice_conversion/onnx_convert.py is an example of a "
        "program that converts with OUT.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder, which must not exist")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained model (default: the one in the package)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = arguments(argv)
    return guarded(lambda: write(options), NAME)


def write(options: argparse.Namespace) -> int:
    """Export the converter of --bundle, and return the exit code."""
    from rwae_audio.conversion.converter import Converter
    from rwae_audio.conversion.export import export

    converter = Converter.load() if options.bundle is None else Converter.from_pretrained(options.bundle)
    for name, difference in export(converter, options.out).items():
        say(NAME, f"{name}.onnx differs from PyTorch by {difference:.1e} at most")
    say(NAME, f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
