"""Plot conversions as log-mels: the source, its conversion by the converter in the package, and a recording of the target.

    python recipes/voice_conversion/picture.py --data an4=DIR                              conversion.png in this folder
    python recipes/voice_conversion/picture.py --data an4=DIR --list an4-test --pairs 3 7 --out other.png

The recording of the target is the first one of the recordings from which its voice is computed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pairs import LISTS, chosen_pairs, heard_in

from rwae_audio.commands.common import Parser, guarded, say

NAME = "picture.py"
HERE = Path(__file__).resolve().parent


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="a corpus of the list")
    parser.add_argument("--list", choices=tuple(LISTS), default="an4-dev", help="the list of pairs (default: an4-dev)")
    numbers = "the numbers of the pairs, from 0 (default: 0 1)"
    parser.add_argument("--pairs", type=int, nargs="+", default=[0, 1], metavar="N", help=numbers)
    out = "the picture to write (default: conversion.png)"
    parser.add_argument("--out", type=Path, default=HERE / "conversion.png", metavar="PNG", help=out)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    from rwae_audio.conversion.converter import Converter
    from rwae_audio.data.audio import load_audio
    from rwae_audio.data.corpora import corpus_sources
    from rwae_audio.evaluation.plots import sheet

    pairs = chosen_pairs(options.list, options.pairs)
    utterances = heard_in(options.list, corpus_sources(options.data))
    converter = Converter.load()
    bundle, mel, rows, names = converter.bundle, converter.bundle.config.mel, [], []
    for pair in pairs:
        audio = (load_audio(utterances[name].path, mel.sample_rate) for name in (pair.source, *pair.voice))
        source, *recordings = audio
        converted = converter.convert(source, mel.sample_rate, converter.voice(recordings, mel.sample_rate))
        rows.append([bundle.frames(samples).numpy() for samples in (source, converted, recordings[0])])
        names.append(f"{utterances[pair.source].speaker} as {pair.target}")
    heads = ("source", "conversion", "target")
    sheet(options.out, rows, names, heads, mel.hop_length / mel.sample_rate, cell=(3.0, 1.9))
    say(NAME, f"{options.out}: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
