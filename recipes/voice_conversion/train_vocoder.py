"""Train the neural vocoder: natural speech from its log-mels and F0, and from what a bundle's model makes of its log-mels.

    python recipes/voice_conversion/train_vocoder.py --data an4=DIR --data librispeech=DIR --out RUN
    python recipes/voice_conversion/train_vocoder.py --resume RUN

Losses: multi-resolution STFT (Yamamoto, Song, Kim, "Parallel WaveGAN", ICASSP 2020) and L1 between log-mels. Every second crop
has the model's reconstruction of its log-mels in the place of its own: the vocoder learns what a decoder leaves out.
RUN/vocoder/ is the best one on development speakers so far, at any time: the one with the least of these losses, or by the
judges (`--set train.judged=12`, extra `judge`). Against discriminators and without judges it is the last one. In bfloat16,
where the device has it, an update takes about 0.7 of the time (`--set train.precision=bf16`).
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
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser, "a corpus to train on")
    add_test(parser)
    add_hold_out(parser)
    add_run(parser)
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="the bundle whose model decodes (default: the one in the package)"
    )
    parser.add_argument("--init", type=Path, metavar="DIR", help="begin with the weights of the vocoder in this folder")
    options = parser.parse_args(argv)
    check_beside_resume(parser, options)
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    plan = resumed_plan(options, "latest.safetensors", COMMAND, test=list) if options.resume else new_plan(options)
    import torch  # slow to load, so only now that the command line is known to be right

    from rwae_audio.conversion.vocoders.settings import RunConfig
    from rwae_audio.conversion.vocoders.speech import read_speech
    from rwae_audio.conversion.vocoders.training import train_vocoder

    if options.threads:
        torch.set_num_threads(options.threads)
    config = RunConfig.of(plan["config"])
    folder = options.resume or new_folder(options.out, "vocoder")
    with only_one(folder):
        speech = {split: read_speech(plan, split, config) for split in ("train", "dev")}
        write_json(folder / "run.json", plan)
        say(NAME, f"{speech['train'].seconds / 3600:.2f} hours, {config.train.updates} updates, in {folder}")

        def training() -> int:
            minutes = minutes_left(options.minutes)
            train_vocoder(config, speech, folder, plan, minutes=minutes, say=tell)
            return 0

        return stoppable(training, COMMAND, folder)


def new_plan(options: argparse.Namespace) -> dict[str, Any]:
    """Return what run.json keeps: the settings, the corpora and speakers, the bundle, the vocoder to begin with."""
    return {
        "config": tables_of(None, options.set),
        **data_plan(options),
        "command": command_line(COMMAND),
        "bundle": str(options.bundle.resolve()) if options.bundle else None,
        "init": str(options.init.resolve()) if options.init else None,
    }


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
