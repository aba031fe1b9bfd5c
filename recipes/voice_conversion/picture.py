"""conversion.png: the log-mels of a pair's source and target, and of the source's conversion by rwae-vc as it is.

    python recipes/voice_conversion/picture.py --data an4=DIR                                       conversion.png, here
    python recipes/voice_conversion/picture.py --data an4=DIR --list an4-test --pairs 3 7 --out other.png

The target's log-mels are those of the first of its recordings that are converted with.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pairs import LISTS, heard_in, read_pairs

from rwae_audio.commands.common import Parser, guarded, say
from rwae_audio.files import InputError

NAME = "picture.py"
HERE = Path(__file__).resolve().parent


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="an4, and timit for its list")
    parser.add_argument("--list", choices=tuple(LISTS), default="an4-dev", help="of pairs/ (an4-dev)")
    parser.add_argument("--pairs", type=int, nargs="+", default=[0, 1], metavar="N", help="which of them, from 0 (0 1)")
    parser.add_argument("--out", type=Path, default=HERE / "conversion.png", metavar="PNG", help="(conversion.png)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    from rwae_audio.conversion.converter import Converter
    from rwae_audio.data.audio import load_audio
    from rwae_audio.data.corpora import corpus_sources
    from rwae_audio.evaluation.plots import sheet

    pairs = read_pairs(HERE / "pairs" / f"{options.list}.csv")
    if wrong := [number for number in options.pairs if not 0 <= number < len(pairs)]:
        raise InputError(f"--pairs {wrong[0]}; expected numbers from 0 to {len(pairs) - 1}")
    utterances = heard_in(options.list, corpus_sources(options.data))
    converter = Converter.load()
    bundle, mel, rows, names = converter.bundle, converter.bundle.config.mel, [], []
    for pair in (pairs[number] for number in options.pairs):
        source, *voice = (load_audio(utterances[name].path, mel.sample_rate) for name in (pair.source, *pair.voice))
        converted = converter.convert(source, mel.sample_rate, converter.voice(voice, mel.sample_rate))
        rows.append([bundle.frames(samples).numpy() for samples in (source, converted, voice[0])])
        names.append(f"{utterances[pair.source].speaker} as {pair.target}")
    heads = ("source", "conversion", "target")
    sheet(options.out, rows, names, heads, mel.hop_length / mel.sample_rate, cell=(3.0, 1.9))
    say(NAME, f"{options.out}: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
