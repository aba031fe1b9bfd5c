"""Write a converter as ONNX networks into the folder OUT, for programs without PyTorch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rwae_audio.commands.common import Parser, guarded, say

NAME = "rwae-export"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="Files: static.onnx, dynamic.onnx, decoder.onnx and vocoder.onnx (up to the spectrum), settings.json and "
        "arrays.npz. Each network is checked against PyTorch on recordings of three lengths. Needs the extra `onnx`. "
        "recipes/voice_conversion/onnx_convert.py converts with such a folder.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained model (default: the one in the package)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return guarded(lambda: write(options), NAME)


def write(options: argparse.Namespace) -> int:
    from rwae_audio.conversion.converter import Converter
    from rwae_audio.conversion.export import export

    converter = Converter.load() if options.bundle is None else Converter.from_pretrained(options.bundle)
    for name, difference in export(converter, options.out).items():
        say(NAME, f"{name}.onnx differs from PyTorch by {difference:.1e} at most")
    say(NAME, f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
