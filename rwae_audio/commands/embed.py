"""rwae-embed: the codes of recordings, as a safetensors file."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rwae_audio import __version__
from rwae_audio.commands.common import Parser, free_output, guarded, read_speech, say, say_resampled
from rwae_audio.files import InputError, write_tensors

NAME = "rwae-embed"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="Tensors: static/<AUDIO> (static_dim,) and with --dynamic also dynamic/<AUDIO> (frames, dynamic_dim), "
        "<AUDIO> as given. Metadata: the bundle's SHA-256 and this version.",
    )
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="recordings, each with one speaker")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="a .safetensors file")
    parser.add_argument("--dynamic", action="store_true", help="the dynamic codes as well, one a frame")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained bundle (the shipped one)")
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

    import torch

    from rwae_audio.bundle import load_bundle

    bundle = load_bundle(options.bundle)
    tensors, read = {}, {}
    for name in names:
        audio = read_speech(Path(name), bundle)
        frames = bundle.frames(audio.samples)
        tensors[f"static/{name}"] = bundle.voice(frames)
        if options.dynamic:
            tensors[f"dynamic/{name}"] = torch.from_numpy(bundle.embed(audio.samples).codes)
        read[name] = replace(
            audio, samples=audio.samples[:0].copy()
        )  # how it was read, not what: there may be thousands
    write_tensors(options.output, tensors, {"bundle": bundle.digest, "version": __version__})
    for name, audio in read.items():
        say_resampled(NAME, name, audio)
    kinds = "static and dynamic codes" if options.dynamic else "static codes"
    say(NAME, f"wrote the {kinds} of {len(names)} recordings to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
