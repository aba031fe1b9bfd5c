"""rwae-vc: say what SOURCE says in the voice of TARGET (only with the consent of the voice's owner)."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rwae_audio.commands.common import Parser, free_output, guarded, read_speech, say, say_resampled
from rwae_audio.files import InputError

NAME = "rwae-vc"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a recording: its words are kept")
    parser.add_argument("targets", nargs="+", type=Path, metavar="TARGET", help="recordings of one speaker: the voice")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help=".wav or .flac (<source>_as_<target>.wav)")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained bundle (the shipped one)")
    parser.add_argument("--seed", type=int, default=0, help="of Griffin-Lim's first phases (0)")
    parser.add_argument("--force", action="store_true", help="overwrite OUT")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout: what was done")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return guarded(lambda: convert(options), NAME)


def convert(options: argparse.Namespace) -> int:
    output = options.output or Path(f"{options.source.stem}_as_{options.targets[0].stem}.wav")
    if output.suffix.lower() not in (".wav", ".flac"):
        raise InputError(f"--output {output}; expected a name that ends in .wav or .flac")
    free_output(output, options.force)

    from rwae_audio.audio import write_audio
    from rwae_audio.bundle import load_bundle
    from rwae_audio.conversion import convert_waveform, is_silent

    bundle = load_bundle(options.bundle)
    read = [read_speech(path, bundle, silence=i == 0) for i, path in enumerate([options.source, *options.targets])]
    source, *targets = (audio.samples for audio in read)
    began = time.perf_counter()
    samples = convert_waveform(bundle, source, targets, options.seed)
    seconds = time.perf_counter() - began
    gain = write_audio(output, samples, bundle.sample_rate)
    for path, audio in zip([options.source, *options.targets], read, strict=True):
        say_resampled(NAME, path, audio)
    if is_silent(source):
        say(NAME, f"warning: {options.source} is silent; {output} is as silent")
    if gain < 1:
        say(NAME, f"scaled down by {gain:.3f} so that nothing clips")
    duration = len(source) / bundle.sample_rate
    done = {
        "source": str(options.source),
        "targets": [str(path) for path in options.targets],
        "output": str(output),
        "sample_rate": bundle.sample_rate,
        "seconds": duration,
        "real_time_factor": seconds / duration,
        "gain": gain,
        "vocoder": "griffin-lim",
        "seed": options.seed,
        "bundle": bundle.digest,
    }
    if options.json:
        print(json.dumps(done))
    say(NAME, f"wrote {output}: {duration:.2f} s at {bundle.sample_rate} Hz, real-time factor {seconds / duration:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
