"""Train AdaIN-VC, a baseline of voice conversion, on the same frames as the converter of this toolkit.

    python recipes/voice_conversion/train_adain_vc.py --data an4=DIR --data librispeech=DIR --out RUN
    python recipes/voice_conversion/train_adain_vc.py --resume RUN
    python recipes/voice_conversion/evaluate.py --data an4=DIR --list an4-dev --adain adain-vc=RUN/adain --rows adain-vc

RUN/adain/ always has the best model so far, which is the one with the smallest reconstruction error on development speakers.
"""

from __future__ import annotations

import argparse
import sys
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
)
from rwae_audio.files import only_one, write_json

NAME = "train_adain_vc.py"
COMMAND = f"python recipes/voice_conversion/{NAME}"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser, "a corpus to train on")
    add_test(parser)
    add_hold_out(parser)
    add_run(parser)
    options = parser.parse_args(argv)
    check_beside_resume(parser, options)
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    plan = resumed_plan(options, "latest.safetensors", COMMAND, test=list) if options.resume else new_plan(options)
    import torch  # slow to load, so only after the command line has been checked
    from adain_training import RunConfig, read_frames, train

    if options.threads:
        torch.set_num_threads(options.threads)
    config = RunConfig.of(plan["config"])
    folder = options.resume or new_folder(options.out, "adain-vc")
    with only_one(folder):
        speech = read_frames(plan, config)
        write_json(folder / "run.json", plan)
        say(NAME, f"{speech.hours:.2f} hours, {config.train.updates} updates, in {folder}")

        def training() -> int:
            train(config, speech, folder, plan["command"], minutes_left(options.minutes))
            return 0

        return stoppable(training, COMMAND, folder)


def new_plan(options: argparse.Namespace) -> dict[str, Any]:
    """Return the plan of a new run, which is the content of run.json."""
    return {"config": tables_of(None, options.set), **data_plan(options), "command": command_line(COMMAND)}


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
