"""Train AdaIN-VC (adain_vc.py) on the frames that ours is trained on.

    python recipes/voice_conversion/train_adain_vc.py --data an4=DIR --data librispeech=DIR --out RUN
    python recipes/voice_conversion/train_adain_vc.py --resume RUN
    python recipes/voice_conversion/evaluate.py --data an4=DIR --list an4-dev --adain adain-vc=RUN/adain --rows adain-vc

RUN/adain/ is the best one on development speakers so far, at any time: the one with the least reconstruction error.
"""

from __future__ import annotations

import argparse
import sys

from train_vocoder import ended, old_plan, plan_of, run_arguments

from rwae_audio.commands.common import Parser, guarded, new_folder, say
from rwae_audio.commands.resume import check_beside_resume, minutes_left
from rwae_audio.files import only_one, write_json

NAME = "train_adain_vc.py"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    run_arguments(parser)
    options = parser.parse_args(argv)
    check_beside_resume(parser, options)
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    resumed = options.resume
    plan = old_plan(options, NAME) if resumed else plan_of(options, NAME)
    import torch  # slow to load, so only now that the command line is known to be right
    from adain_training import RunConfig, read_frames, train

    if options.threads:
        torch.set_num_threads(options.threads)
    config = RunConfig.of(plan["config"])
    folder = resumed or new_folder(options.out, "adain-vc")
    with only_one(folder):
        speech = read_frames(plan, config)
        write_json(folder / "run.json", plan)
        say(NAME, f"{speech.hours:.2f} hours, {config.train.updates} updates, in {folder}")
        return ended(
            lambda: train(config, speech, folder, plan["command"], minutes_left(options.minutes)), NAME, folder
        )


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
