"""rwae-embed: the codes of recordings, as a safetensors file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rwae_audio import __version__
from rwae_audio.commands.common import DEVICE_HELP, Parser, free_output, guarded, say, say_notes
from rwae_audio.files import InputError, write_tensors

NAME = "rwae-embed"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="Tensors: static/<AUDIO> (static_dim,) and with --dynamic also dynamic/<AUDIO> (frames, dynamic_dim), "
        "<AUDIO> as given. Metadata: the bundle's SHA-256, this version, how many frames each recording has, and its register "
        "(voiced frames, mean and deviation of ln F0). "
        "`rwae-vc SOURCE --voice FILE` speaks with the voice of all of them together.",
    )
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="recordings, each with one speaker")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="a .safetensors file")
    parser.add_argument("--dynamic", action="store_true", help="the dynamic codes as well, one a frame")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained bundle (the shipped one)")
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

    import torch

    from rwae_audio.conversion.converter import register_of_file, voice_of_file
    from rwae_audio.data.audio import load_audio, open_audio
    from rwae_audio.inference.bundle import load_bundle

    bundle = load_bundle(options.bundle, options.device)
    tensors, frames, registers = {}, {}, {}
    for name in names:
        tensors[f"static/{name}"], frames[name] = voice_of_file(bundle, Path(name))
        registers[name] = register_of_file(bundle, Path(name))
        if options.dynamic:
            codes = bundle.embed(load_audio(name, bundle.sample_rate)).codes
            tensors[f"dynamic/{name}"] = torch.from_numpy(codes)
    header = {"bundle": bundle.digest, "version": __version__, "frames": json.dumps(frames)}
    header["registers"] = json.dumps(registers)
    write_tensors(options.output, tensors, header)
    for name in names:
        say_notes(NAME, name, open_audio(name, bundle.sample_rate))
    kinds = "static and dynamic codes" if options.dynamic else "static codes"
    say(NAME, f"wrote the {kinds} of {len(names)} recordings to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
