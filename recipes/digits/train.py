"""Train an R-WAE on spoken digits without labels; only the number of different digits is known.

    python recipes/digits/train.py                                       the built-in demo: synthetic digits
    python recipes/digits/train.py --data digits=DIR                     Arabic spoken digits, see README.md
    python recipes/digits/train.py --config recipes/digits/conf/dsvae.toml --data digits=DIR --seed 1
    python recipes/digits/train.py --resume runs/digits-rwae-mmd+actions continue after an interruption

The run folder gets bundle/, metrics.jsonl and checkpoints/. The bundle is the checkpoint with the smallest reconstruction
error on the development speakers. Batches depend on the content of the recordings, never on their names.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.commands.common import Parser, guarded, new_folder
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
from rwae_audio.files import InputError, only_one, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from rwae_audio.data.corpora import Corpus, Source
    from rwae_audio.data.features import Normaliser
    from rwae_audio.data.store import FrameStore
    from rwae_audio.model import RWAE
    from rwae_audio.training.trainer import RunConfig

NAME = "train.py"
COMMAND = "python recipes/digits/train.py"
HERE = Path(__file__).parent
DEFAULT = HERE / "conf" / "rwae-mmd+actions.toml"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file (default: conf/rwae-mmd+actions.toml)")
    text = "the folder of the spoken digits (default: the built-in demo)"
    parser.add_argument("--data", action="append", default=[], metavar="digits=DIR", help=text)
    parser.add_argument("--seed", type=int, metavar="N", help="the seed of the run (default: the configuration's)")
    add_run(parser)
    options = parser.parse_args(argv)
    check_beside_resume(parser, options)
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    latest = "checkpoints/latest.safetensors"
    plan = resumed_plan(options, latest, COMMAND, name=str) if options.resume else new_plan(options)
    import torch  # slow to load, so only after the command line has been checked

    from rwae_audio.training.trainer import RunConfig

    if options.threads:
        torch.set_num_threads(options.threads)
    config = RunConfig.of(plan["config"])
    digits = prepare(plan, config)
    folder = options.resume or new_folder(options.out, f"{digits.corpus.name}-{plan['name']}")
    with only_one(folder):
        write_json(folder / "run.json", plan)
        tell(f"{plan['name']}, {config.train.updates} updates, seed {config.train.seed}, in {folder}")

        def training() -> int:
            train_run(digits, config, plan, folder, bool(options.resume), minutes_left(options.minutes))
            print(f"{folder / 'bundle'}: the model; measured by recipes/digits/results.py {folder}")
            return 0

        return stoppable(training, COMMAND, folder)


def new_plan(options: argparse.Namespace) -> dict[str, Any]:
    """Return the plan of a new run, which is the content of run.json.

    The entry `name` is the name of the configuration, and of the row in the table.
    """
    config: Path = options.config or DEFAULT
    return {
        "config": tables_of(config, options.set, options.seed),
        "name": config.stem,
        "data": [source(options.data)],
        "command": command_line(COMMAND),
    }


def source(items: Sequence[str]) -> Source:
    """Return the source of --data, or the built-in demo. Raises InputError if --data is not one digits=DIR."""
    from rwae_audio.data.corpora import Source

    if not items:
        tell("no corpus was given (--data digits=DIR): training on the built-in synthetic digits")
        return Source("demo-digits", "", "demo-digits")
    reader, _, folder = items[0].partition("=")
    if reader != "digits" or not folder or len(items) > 1:
        raise InputError(f"--data {' --data '.join(items)}; expected digits=DIR")
    return Source("digits", str(Path(folder).resolve()), "digits")


@dataclass(frozen=True)
class Digits:
    """A corpus of single words.

    Attributes:
        corpus: The corpus.
        store: The log-mels of the corpus.
        normaliser: The mean and the deviation of the training speakers' log-mels.
        frames: The normalised log-mels of all utterances, (U, T, n_mels).
    """

    corpus: Corpus
    store: FrameStore
    normaliser: Normaliser
    frames: Tensor


def prepare(plan: dict[str, Any], config: RunConfig, folder: str | None = None) -> Digits:
    """Read the corpus of a run, and compute its log-mels.

    Args:
        plan: The content of run.json.
        config: The configuration.
        folder: The new folder of the corpus if it has moved, otherwise None.

    Raises:
        InputError: The corpus cannot be read or has changed, or a recording is not as long as a training segment.
    """
    import numpy as np
    import torch

    from rwae_audio.data.corpora import keep_content, planned_corpora, planned_sources
    from rwae_audio.data.store import open_store

    if folder:
        plan = {**plan, "data": [item._replace(folder=folder) for item in planned_sources(plan)]}
    (corpus,) = planned_corpora(plan)
    keep_content(plan, [corpus])
    for note in corpus.notes:
        tell(f"{corpus.name}: {note}")
    store = open_store([corpus], config.mel, progress=sys.stderr.isatty())
    size = config.mel.segment
    if wrong := [u for u, n in zip(store.utterances, store.lengths, strict=True) if n != size]:
        count = int(store.lengths[store.utterances.index(wrong[0])])
        raise InputError(f"{wrong[0].path} has {count} frames; expected {size}, [mel] segment, of every recording")
    rows = store.indices("train")
    normaliser = store.normaliser(rows)
    frames = normaliser(torch.from_numpy(store.frames.reshape(len(store.utterances), size, -1).astype(np.float32)))
    return Digits(corpus, store, normaliser, frames)


def train_run(
    digits: Digits, config: RunConfig, plan: dict[str, Any], folder: Path, resume: bool, minutes: float | None = None
) -> None:
    """Train a model, and write its bundle.

    Args:
        digits: The corpus.
        config: The configuration.
        plan: The plan of the run.
        folder: The run folder.
        resume: Whether the training continues from the latest checkpoint.
        minutes: The time in minutes after which the training stops with a checkpoint, or None.

    Raises:
        Interrupted: Ctrl-C was pressed; a checkpoint has been written.
        TimeIsUp: The minutes are over; a checkpoint has been written.
    """
    import torch

    from rwae_audio.data.store import Sampler
    from rwae_audio.randomness import generator
    from rwae_audio.training.trainer import train

    store, segment = digits.store, config.mel.segment
    sampler = Sampler(store, store.indices("train"), segment, config.model)
    development = Sampler(store, store.indices("dev"), segment, config.model)
    held_out = development.draw(256, generator(0, "held-out"))
    frames = digits.frames[torch.from_numpy(store.indices("dev"))]

    @torch.no_grad()
    def error(model: Any) -> dict[str, float]:
        training = model.training
        model.eval()
        error = float((model(frames).reconstruction - frames).square().mean())
        model.train(training)
        return {"score": -error}

    model = train(
        config,
        sampler,
        digits.normaliser,
        held_out,
        error,
        folder,
        resume=resume,
        minutes=minutes,
        say=tell,
        progress=True,
    )
    write_bundle(digits, config, plan, folder, model)


def write_bundle(digits: Digits, config: RunConfig, plan: dict[str, Any], folder: Path, model: RWAE) -> None:
    """Write config.json and the bundle of a trained model into the run folder. The arguments are those of `train_run`."""
    import numpy as np

    from rwae_audio.inference.bundle import save_bundle
    from rwae_audio.inference.card import card

    mel = config.mel
    hours = len(digits.store.indices("train")) * mel.segment * mel.hop_length / mel.sample_rate / 3600
    meta = {"command": plan["command"], "config": plan["name"]}
    if "before" in plan:
        meta["before"] = plan["before"]
    write_json(folder / "config.json", config.tables())
    text = card(config, [digits.corpus], hours, meta)
    mean = np.zeros(config.model.dynamic_dim)
    save_bundle(
        folder / "bundle",
        config,
        model,
        digits.normaliser,
        mean,
        synthetic=digits.corpus.synthetic,
        meta=meta,
        card=text,
    )


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
