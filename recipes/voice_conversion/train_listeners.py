"""Train the listeners that judge words and voices while a converter is trained, with texts and speakers (extra `judge`).

    python recipes/voice_conversion/train_listeners.py --data an4=DIR --data librispeech=DIR --out runs/listeners
    python recipes/timit/train.py --config recipes/voice_conversion/converter-swaps.toml --init RUN/bundle --data … \
        --set 'objective.listeners="runs/listeners/listeners.safetensors"'

The phone listener learns the phones of utterances with a text, from a forced alignment. The voice listener learns the training
speakers. Their frames are those of the bundle with which the converter's training begins (--init). Both are tested on the
development speakers of --test. An update takes 0.1 to 0.3 s on one core in bfloat16. Without --data they learn the synthetic
demo corpus.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rwae_audio.commands.common import Parser, guarded, new_folder
from rwae_audio.commands.data import add_data, add_hold_out, add_test, data_plan
from rwae_audio.commands.runs import command_line, tell
from rwae_audio.files import ASSETS, only_one

NAME = "train_listeners.py"
FILE = "listeners.safetensors"  # the file in the run folder


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser, "a corpus to train on")
    add_test(parser)
    add_hold_out(parser)
    text = "the bundle whose frames and normaliser are used (default: the one in the package)"
    parser.add_argument("--init", type=Path, default=ASSETS / "bundle", metavar="BUNDLE", help=text)
    text = "the updates of the phone listener and of the voice listener (default: 2400 3000)"
    parser.add_argument("--updates", type=int, nargs=2, default=(2400, 3000), metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the seed of the run (default: 0)")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 if the device supports it")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder (default: a new one in runs/)")
    parser.add_argument("--threads", type=int, metavar="N", help="the number of CPU threads (default: all cores)")
    options = parser.parse_args(argv)
    if min(options.updates) < 1:
        parser.error(f"--updates {' '.join(map(str, options.updates))}; expected two numbers from 1")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    from rwae_audio.data.corpora import Source

    plan = {**data_plan(options, [Source("demo", "", "demo")]), "init": str(options.init)}
    import torch  # slow to load, so only after the command line has been checked
    from listeners_training import phone_classes, train_listeners

    from rwae_audio.evaluation.experiment import prepare_planned
    from rwae_audio.inference.bundle import load_bundle
    from rwae_audio.objectives.listeners import write_listeners

    if options.threads:
        torch.set_num_threads(options.threads)
    ready = prepare_planned(load_bundle(options.init).config, plan, tell)
    names, classes = phone_classes(ready)
    folder = new_folder(options.out, "listeners")
    with only_one(folder):
        listeners = train_listeners(ready, names, classes, options.updates, options.seed, options.bf16, tell)
        write_listeners(folder / FILE, listeners, command_line(f"python recipes/voice_conversion/{NAME}"))
    tell(f"{folder / FILE}: for [objective] listeners")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
