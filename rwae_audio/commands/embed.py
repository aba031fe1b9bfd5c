"""Write the codes of recordings into a safetensors file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rwae_audio.commands.common import DEVICE_HELP, Parser, free_output, guarded, notes_on, say
from rwae_audio.files import InputError

NAME = "rwae-embed"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="Tensors: static/AUDIO, (static_dim,), and with --dynamic also dynamic/AUDIO, (frames, dynamic_dim). Metadata: "
        "the SHA-256 of the bundle, the version, and for each recording its number of frames and its pitch range (voiced "
        "frames, mean and deviation of ln F0). `rwae-vc SOURCE --voice FILE` takes the voice of all recordings together.",
    )
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="recordings, each with one speaker")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="a .safetensors file")
    parser.add_argument("--dynamic", action="store_true", help="write the dynamic codes as well, one a frame")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained model (default: the one in the package)")
    parser.add_argument("--device", default="cpu", help=DEVICE_HELP)
    parser.add_argument("--force", action="store_true", help="overwrite FILE")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return guarded(lambda: embed(options), NAME)


def embed(options: argparse.Namespace) -> int:
    if options.output.suffix != ".safetensors":
        raise InputError(f"--output {options.output}; expected a name that ends in .safetensors")
    free_output(options.output, options.force)
    names = options.audio
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} is given twice; expected each recording once")
        if not name.isprintable():  # a tensor's name is UTF-8
            raise InputError(f"{name!r} has bytes that are no text; expected a name of letters that can be printed")

    import numpy as np
    import torch

    from rwae_audio.conversion.reading import read_file
    from rwae_audio.conversion.voice import voice_of, write_voices
    from rwae_audio.inference.bundle import load_bundle

    bundle = load_bundle(options.bundle, options.device)
    readings = {name: read_file(name, bundle.config.mel) for name in names}
    voices = {name: voice_of(bundle, reading) for name, reading in readings.items()}
    dynamic = {
        name: torch.from_numpy(bundle.embed(np.concatenate([*reading.samples()])).codes)
        for name, reading in readings.items()
        if options.dynamic
    }
    write_voices(options.output, bundle, voices, dynamic)
    for name, reading in readings.items():
        for note in notes_on(name, reading):
            say(NAME, note)
    kinds = "static and dynamic codes" if options.dynamic else "static codes"
    say(NAME, f"wrote the {kinds} of {len(names)} recordings to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
