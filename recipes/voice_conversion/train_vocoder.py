"""Train the neural vocoder on recorded speech, from F0 and from log-mels that are natural or decoded by a bundle's model.

    python recipes/voice_conversion/train_vocoder.py --data an4=DIR --data librispeech=DIR --out RUN
    python recipes/voice_conversion/train_vocoder.py --resume RUN

The losses are the multi-resolution STFT loss (Yamamoto, Song, Kim, "Parallel WaveGAN", ICASSP 2020) and the L1 distance of
log-mels. Every second crop has decoded log-mels, so that the vocoder learns to add the details that a decoder leaves out.
With `--set train.moved=0.5` every second crop has the log-mels of a copy at another pitch, so that it learns to follow F0.
If they are decoded as well, the copy is a conversion into another voice, and it is decoded in the own voice.
With `--set vocoder.voice=64`, the static dimensions of the bundle, the vocoder gets the static code of a recording as well. So
it restores what a decoder blurs in a voice. It serves other bundles without this code.

RUN/vocoder/ always has the best vocoder so far. It is the one with the smallest losses on development speakers, or with the
best ratings of judges (`--set train.judged=12`, extra `judge`). With discriminators and without judges it is the last one.
RUN/speech/ has the speech as it was read, so that `--resume` need not read it again.
An update in bfloat16 takes about 0.7 of the time if the device supports it (`--set train.precision=bf16`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rwae_audio.commands.common import Parser, guarded, new_folder, say
from rwae_audio.commands.data import add_data, add_hold_out, add_test, data_plan
from rwae_audio.commands.runs import (
    add_run,
    check_beside_resume,
    command_line,
    minutes_left,
    resumed_plan,
    stoppable,
    tables_of,
    tell,
)
from rwae_audio.files import only_one, write_json

NAME = "train_vocoder.py"
COMMAND = f"python recipes/voice_conversion/{NAME}"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser, "a corpus to train on")
    add_test(parser)
    add_hold_out(parser)
    add_run(parser)
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="the bundle that decodes log-mels (default: the one in the package)"
    )
    parser.add_argument(
        "--init",
        type=Path,
        metavar="DIR",
        help="start from the weights of the vocoder in this folder, which may have fewer blocks",
    )
    options = parser.parse_args(argv)
    check_beside_resume(parser, options)
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    plan = resumed_plan(options, "latest.safetensors", COMMAND, test=list) if options.resume else new_plan(options)
    import torch  # slow to load, so only after the command line has been checked

    from rwae_audio.conversion.vocoders.settings import RunConfig
    from rwae_audio.conversion.vocoders.speech import stored_speech
    from rwae_audio.conversion.vocoders.training import train_vocoder

    if options.threads:
        torch.set_num_threads(options.threads)
    config = RunConfig.of(plan["config"])
    folder = options.resume or new_folder(options.out, "vocoder")
    with only_one(folder):
        speech = {split: stored_speech(plan, split, config, folder / "speech") for split in ("train", "dev")}
        write_json(folder / "run.json", plan)
        say(NAME, f"{speech['train'].seconds / 3600:.2f} hours, {config.train.updates} updates, in {folder}")

        def training() -> int:
            minutes = minutes_left(options.minutes)
            train_vocoder(config, speech, folder, plan, minutes=minutes, say=tell)
            return 0

        return stoppable(training, COMMAND, folder)


def new_plan(options: argparse.Namespace) -> dict[str, Any]:
    """Return the plan of a new run, which is the content of run.json."""
    return {
        "config": tables_of(None, options.set),
        **data_plan(options),
        "command": command_line(COMMAND),
        "bundle": str(options.bundle.resolve()) if options.bundle else None,
        "init": str(options.init.resolve()) if options.init else None,
    }


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
