"""Train the neural vocoder: natural speech from its log-mels and F0, and from what a bundle's model makes of its log-mels.

    python recipes/voice_conversion/train_vocoder.py --data an4=DIR --data librispeech=DIR --out RUN
    python recipes/voice_conversion/train_vocoder.py --resume RUN

Losses: multi-resolution STFT (Yamamoto, Song, Kim, "Parallel WaveGAN", ICASSP 2020) and L1 between log-mels. Every second crop
has the model's reconstruction of its log-mels in the place of its own: the vocoder learns what a decoder leaves out.
RUN/vocoder/ is the best one on development speakers so far, at any time: the one with the least of these losses, or by the
judges (`--set train.judged=12`, extra `judge`); against discriminators and without judges, the last one. In bfloat16, where the
device has it, an update takes about 0.7 of the time (`--set train.precision=bf16`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rwae_audio.commands.common import Parser, guarded, new_folder, recorded, say, set_value
from rwae_audio.commands.data import add_data, add_hold_out, add_test, data_plan
from rwae_audio.commands.resume import (
    add_minutes,
    add_resume,
    check_beside_resume,
    lengthened,
    minutes_left,
    moved,
    read_plan,
)
from rwae_audio.files import only_one, write_json

NAME = "train_vocoder.py"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    run_arguments(parser)
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="whose model (the one in the package)")
    parser.add_argument("--init", type=Path, metavar="DIR", help="begin with the weights of this vocoder")
    options = parser.parse_args(argv)
    check_beside_resume(parser, options)
    return options


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of a training: on what, how, where to."""
    add_data(parser, "a corpus to train on")
    add_test(parser)
    add_hold_out(parser)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="one setting, as in TOML")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder (a new one in runs/)")
    add_resume(parser)
    add_minutes(parser)
    parser.add_argument("--threads", type=int, help="CPU threads (all cores)")


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    resumed = options.resume
    plan = old_plan(options, NAME) if resumed else new_plan(options)
    import torch  # slow to load, so only now that the command line is known to be right
    from vocoder_speech import read_speech
    from vocoder_training import RunConfig, train

    if options.threads:
        torch.set_num_threads(options.threads)
    config = RunConfig.of(plan["config"])
    folder = resumed or new_folder(options.out, "vocoder")
    with only_one(folder):
        speech = {split: read_speech(plan, split, config) for split in ("train", "dev")}
        write_json(folder / "run.json", plan)
        say(NAME, f"{speech['train'].seconds / 3600:.2f} hours, {config.train.updates} updates, in {folder}")
        return ended(lambda: train(config, speech, folder, plan, minutes_left(options.minutes)), NAME, folder)


def ended(training: Callable[[], None], script: str, folder: Path) -> int:
    """Train, and return the exit status: 0 at the end or when the minutes of --minutes are over, 130 on Ctrl-C."""
    from rwae_audio.training.loop import Interrupted, TimeIsUp

    try:
        training()
    except Interrupted as stop:
        late = isinstance(stop, TimeIsUp)
        line = f"{stop}; go on with: python recipes/voice_conversion/{script} --resume {folder}"
        print(line, file=sys.stdout if late else sys.stderr)
        return 0 if late else 130
    return 0


def new_plan(options: argparse.Namespace) -> dict[str, Any]:
    bundle = str(options.bundle.resolve()) if options.bundle else None
    init = str(options.init.resolve()) if options.init else None
    return {**plan_of(options, NAME), "bundle": bundle, "init": init}


def old_plan(options: argparse.Namespace, script: str) -> dict[str, Any]:
    """The plan of the run of --resume, with what --data and --set say now. Raises InputError."""
    from rwae_audio.data.corpora import planned_sources

    run = options.resume
    plan = read_plan(run, {"config": dict, "data": list, "test": list, "command": str})
    plan["data"] = moved(planned_sources(plan), options.data, run)
    return lengthened(plan, options.set, run, "latest.safetensors", f"recipes/voice_conversion/{script}")


def plan_of(options: argparse.Namespace, script: str) -> dict[str, Any]:
    """What run.json keeps: the settings, the corpora's folders, those with the development speakers, the speakers held out,
    the command."""
    tables: dict[str, Any] = {}
    for setting in options.set:
        set_value(tables, setting)
    return {
        "config": tables,
        **data_plan(options),
        "command": " ".join([f"python recipes/voice_conversion/{script}", *recorded(sys.argv[1:])]),
    }


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
