"""Compute the static code of recordings, and with --dynamic also their dynamic codes, and write them into a file."""

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

    from rwae_audio.conversion.vocoders.crops import Recorded
    from rwae_audio.conversion.voice import Voice
    from rwae_audio.inference.bundle import Bundle

NAME = "rwae-embed"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="FILE has the tensors static/AUDIO, (static_dim,), and with --dynamic dynamic/AUDIO, (frames, dynamic_dim). "
        "With --adapt it has the vocoder's last layer besides, filters/weight and filters/bias. A recording in a folder is "
        "named DIR/its/path. The metadata are the SHA-256 of the bundle, the version, and the number of frames and the pitch "
        "range (voiced frames, mean and deviation of ln F0) of each recording. `rwae-vc SOURCE --voice FILE` converts into the "
        "voice of all recordings together. Exit status: 0 after success, 1 if files of a folder could not be read (they are "
        "named), 2 if the input is wrong.",
    )
    parser.add_argument(
        "audio", nargs="+", metavar="AUDIO", help="recordings, each with one speaker, or folders of them"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the .safetensors file to write"
    )
    parser.add_argument("--dynamic", action="store_true", help="write the dynamic codes as well, one for each frame")
    parser.add_argument(
        "--adapt",
        type=int,
        default=0,
        metavar="N",
        help="adapt the vocoder to the voice of all recordings together, in N steps, for `rwae-vc --voice FILE`; a minute of "
        "speech is enough, and 150 steps take about 20 s (default: 0)",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained model (default: the one in the package)")
    parser.add_argument("--device", default="cpu", help=DEVICE_HELP)
    parser.add_argument("--force", action="store_true", help="overwrite FILE")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = arguments(argv)
    return guarded(lambda: embed(options), NAME)


def embed(options: argparse.Namespace) -> int:
    """Embed all recordings and write the file. Returns the exit code."""
    if options.adapt < 0:
        raise InputError(f"--adapt {options.adapt}; expected 0 or more steps")
    if options.output.suffix != ".safetensors":
        raise InputError(f"--output {options.output}; expected a name that ends in .safetensors")
    free_output(options.output, options.force)
    names, others = names_of(options.audio)

    from rwae_audio.conversion.adaptation import adapted, neural
    from rwae_audio.conversion.converter import Converter
    from rwae_audio.conversion.voice import pooled_voices, write_voices

    converter = Converter.load(options.bundle, options.device)
    bundle = converter.bundle
    if options.adapt:
        neural(converter)
    voices: dict[str, Voice] = {}
    dynamic: dict[str, Tensor] = {}
    notes, failed, examples = [], [], []
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
        examples += [codes.example] if codes.example is not None else []
        notes += codes.notes
    if voices:
        filters = None
        if options.adapt:
            filters = adapted(converter, pooled_voices(voices.values()), examples, options.adapt).filters
        write_voices(options.output, bundle, voices, dynamic, filters)
    for line in [*failed, *notes]:
        say(NAME, line)
    kinds = "static and dynamic codes" if options.dynamic else "static codes"
    counts = {
        f"wrote the {kinds} of {len(voices)} recordings to {options.output}": voices,
        f"wrote nothing to {options.output}": not voices,
        f"could not read {len(failed)}": failed,
        f"skipped {others} other files (hidden, or without the suffix of a recording)": others,
    }
    say(NAME, "; ".join(text for text, applies in counts.items() if applies))
    return 1 if failed else 0


def names_of(words: list[str]) -> tuple[dict[str, bool], int]:
    """Return the names of all recordings, and the number of other files in the folders.

    Args:
        words: The recordings and folders of the command line.

    Returns:
        A dictionary from the name of each recording to whether it was found in a folder, and the number of other files.

    Raises:
        InputError: A folder has no recordings, a recording is named twice, or a name is not printable.
    """
    names, others = [], 0
    for word in words:
        if os.path.isdir(word):
            recordings, count = recordings_in(Path(word))
            names += [(os.path.join(word, name), True) for name in recordings]
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
    """Raise InputError if a name is not printable, since it cannot be the name of a tensor, which is UTF-8."""
    if not name.isprintable():
        raise InputError(f"{name!r} has bytes that are not text; expected a name of printable characters")


class Codes(NamedTuple):
    """The codes of a recording.

    Attributes:
        voice: The static code, with the pitch range.
        dynamic: The dynamic codes (T, dynamic_dim), or None.
        example: What an adaptation needs of the recording, or None.
        notes: Messages for the user.
    """

    voice: Voice
    dynamic: Tensor | None
    example: Recorded | None
    notes: list[str]


def codes_of(bundle: Bundle, name: str, options: argparse.Namespace) -> Codes:
    """Return the codes of a recording.

    Args:
        bundle: The bundle.
        name: The path of the recording.
        options: The options of the command, of which `dynamic` and `adapt` are used.

    Raises:
        InputError: The recording cannot be read, or its name is not printable.
    """
    import numpy as np
    import torch

    from rwae_audio.conversion.adaptation import example
    from rwae_audio.conversion.reading import read_file
    from rwae_audio.conversion.voice import voice_of

    check_name(name)
    reading = read_file(name, bundle.config.mel)
    codes = torch.from_numpy(bundle.embed(np.concatenate([*reading.samples()])).codes) if options.dynamic else None
    recording = example(reading) if options.adapt else None
    return Codes(voice_of(bundle, reading), codes, recording, notes_on(name, reading))


if __name__ == "__main__":
    sys.exit(main())
