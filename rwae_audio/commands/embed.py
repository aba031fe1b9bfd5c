"""Write the codes of recordings into a safetensors file."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rwae_audio.commands.common import DEVICE_HELP, Parser, free_output, guarded, notes_on, say
from rwae_audio.commands.jobs import recordings_in
from rwae_audio.files import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from rwae_audio.conversion.voice import Voice
    from rwae_audio.inference.bundle import Bundle

NAME = "rwae-embed"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="Tensors: static/AUDIO, (static_dim,), and with --dynamic also dynamic/AUDIO, (frames, dynamic_dim). Metadata: "
        "the SHA-256 of the bundle, the version, and for each recording its number of frames and its pitch range (voiced "
        "frames, mean and deviation of ln F0). `rwae-vc SOURCE --voice FILE` takes the voice of all recordings together. A "
        "recording in a folder is called DIR/its/path. Exit status: 0 if all went well, 1 if some files of a folder could not "
        "be read (each is named), 2 for a mistake in the input.",
    )
    parser.add_argument(
        "audio", nargs="+", metavar="AUDIO", help="recordings, each with one speaker, or folders of them"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="a .safetensors file")
    parser.add_argument("--dynamic", action="store_true", help="write the dynamic codes as well, one a frame")
    parser.add_argument(
        "--adapt",
        type=int,
        default=0,
        metavar="N",
        help="fit the voice of all recordings together to them in N steps, better with a minute of speech; 60 take about 20 s, "
        "and `rwae-vc --voice FILE` speaks with it (default: 0)",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained model (default: the one in the package)")
    parser.add_argument("--device", default="cpu", help=DEVICE_HELP)
    parser.add_argument("--force", action="store_true", help="overwrite FILE")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return guarded(lambda: embed(options), NAME)


def embed(options: argparse.Namespace) -> int:
    if options.adapt < 0:
        raise InputError(f"--adapt {options.adapt}; expected 0 or more steps")
    if options.output.suffix != ".safetensors":
        raise InputError(f"--output {options.output}; expected a name that ends in .safetensors")
    free_output(options.output, options.force)
    names, others = names_of(options.audio)

    from rwae_audio.conversion.adaptation import adapted
    from rwae_audio.conversion.voice import modulation_shape, pooled_voices, write_voices
    from rwae_audio.inference.bundle import load_bundle

    bundle = load_bundle(options.bundle, options.device)
    if options.adapt:
        modulation_shape(bundle)
    voices: dict[str, Voice] = {}
    dynamic: dict[str, Tensor] = {}
    notes, failed, frames = [], [], []
    for name, in_folder in names.items():
        try:
            codes = codes_of(bundle, name, options)
        except InputError as error:
            if not in_folder:
                raise
            failed.append(str(error))
            continue
        voices[name] = codes.voice
        dynamic |= {name: codes.dynamic} if codes.dynamic is not None else {}
        frames += [codes.frames] if codes.frames is not None else []
        notes += codes.notes
    if voices:
        modulation = None
        if options.adapt:
            modulation = adapted(bundle, frames, pooled_voices(voices.values()), options.adapt).modulation
        write_voices(options.output, bundle, voices, dynamic, modulation)
    for line in [*failed, *notes]:
        say(NAME, line)
    kinds = "static and dynamic codes" if options.dynamic else "static codes"
    counts = {
        f"wrote the {kinds} of {len(voices)} recordings to {options.output}": voices,
        f"wrote nothing to {options.output}": not voices,
        f"could not read {len(failed)}": failed,
        f"skipped {others} other files (hidden, or without the suffix of a recording)": others,
    }
    say(NAME, "; ".join(text for text, holds in counts.items() if holds))
    return 1 if failed else 0


def names_of(words: list[str]) -> tuple[dict[str, bool], int]:
    """Return the names of all recordings, each with whether it comes from a folder, and the number of a folder's other files.

    Raises:
        InputError: When a folder has no recordings, or a recording is given twice or by a name that is no text.
    """
    names, others = [], 0
    for word in words:
        if os.path.isdir(word):
            found, count = recordings_in(Path(word))
            names += [(os.path.join(word, name), True) for name in found]
            others += count
        else:
            names.append((word, False))
    for name, count in Counter(name for name, _ in names).items():
        if count > 1:
            raise InputError(f"{name} is given twice; expected each recording once")
    for name, in_folder in names:
        if not in_folder:
            check_name(name)
    return dict(names), others


def check_name(name: str) -> None:
    """Raise InputError for a name that a tensor cannot have, since it is no UTF-8."""
    if not name.isprintable():
        raise InputError(f"{name!r} has bytes that are no text; expected a name of letters that can be printed")


class Codes(NamedTuple):
    """The codes of a recording.

    Attributes:
        voice: The static code, with the pitch range.
        dynamic: The dynamic codes (T, dynamic_dim), or None.
        frames: The raw log-mels (T, n_mels), or None where no voice is adapted to them.
        notes: What a user should know of the recording, a line each.
    """

    voice: Voice
    dynamic: Tensor | None
    frames: Tensor | None
    notes: list[str]


def codes_of(bundle: Bundle, name: str, options: argparse.Namespace) -> Codes:
    """Return the codes of a recording. Raises InputError when it cannot be read or its name is no text."""
    import numpy as np
    import torch

    from rwae_audio.conversion.reading import read_file
    from rwae_audio.conversion.voice import voice_of

    check_name(name)
    reading = read_file(name, bundle.config.mel)
    codes = torch.from_numpy(bundle.embed(np.concatenate([*reading.samples()])).codes) if options.dynamic else None
    frames = torch.cat([*reading.log_mels()]) if options.adapt else None
    return Codes(voice_of(bundle, reading), codes, frames, notes_on(name, reading))


if __name__ == "__main__":
    sys.exit(main())
