"""Train an R-WAE on spoken digits, of which only the number is known: no word is looked at.

    python recipes/digits/train.py                                       the built-in demo: synthetic digits
    python recipes/digits/train.py --data digits=DIR                     Arabic spoken digits, see README.md
    python recipes/digits/train.py --config recipes/digits/conf/dsvae.toml --data digits=DIR --seed 1
    python recipes/digits/train.py --resume runs/digits-rwae-mmd+actions go on after an interruption

The run folder gets bundle/, metrics.jsonl and checkpoints/. The checkpoint is the one with the smallest error on the
development speakers. Order and batches depend on the recordings alone, never on their names.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.commands import resume
from rwae_audio.commands.common import Parser, guarded, new_folder, set_value
from rwae_audio.files import InputError, only_one, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from rwae_audio.data.corpora import Corpus
    from rwae_audio.data.features import Normaliser
    from rwae_audio.data.store import FrameStore
    from rwae_audio.training.trainer import RunConfig

NAME = "train.py"
HERE = Path(__file__).parent
CORPORA = ("digits", "demo-digits")
DEFAULT = HERE / "conf" / "rwae-mmd+actions.toml"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="conf/*.toml (rwae-mmd+actions)")
    parser.add_argument("--data", metavar="digits=DIR", help="the folder of the spoken digits (the built-in demo)")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="one setting, as in TOML")
    parser.add_argument("--seed", type=int, help="instead of the configuration's")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder (a new one in runs/)")
    resume.add_resume(parser)
    resume.add_minutes(parser)
    parser.add_argument("--threads", type=int, help="CPU threads (all cores)")
    options = parser.parse_args(argv)
    resume.check_beside_resume(parser, options)
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    plan = resumed_plan(options) if options.resume else new_plan(options)
    import torch  # slow to load, so only now that the command line is known to be right

    from rwae_audio.training.loop import Interrupted, TimeIsUp
    from rwae_audio.training.trainer import RunConfig

    if options.threads:
        torch.set_num_threads(options.threads)
    config = RunConfig.of(plan["config"])
    digits = prepare(plan, config)
    folder = options.resume or new_folder(options.out, f"{plan['corpus']}-{plan['name']}")
    with only_one(folder):
        write_json(folder / "run.json", plan)
        print(f"{plan['name']}, {config.train.updates} updates, seed {config.train.seed}, in {folder}", flush=True)
        try:
            train_run(digits, config, plan, folder, bool(options.resume), resume.minutes_left(options.minutes))
        except (Interrupted, KeyboardInterrupt) as stop:
            late = isinstance(stop, TimeIsUp)
            line = f"{stop or 'stopped'}; go on with: python recipes/digits/train.py --resume {folder}"
            print(line, file=sys.stdout if late else sys.stderr)
            return 0 if late else 130
    print(f"{folder / 'bundle'}: the model; measured by recipes/digits/results.py {folder}")
    return 0


def new_plan(options: argparse.Namespace) -> dict[str, Any]:
    """What run.json keeps: the configuration's tables, its name (the table's row), the corpus and its folder, the command."""
    from rwae_audio.settings import read_toml

    config: Path = options.config or DEFAULT
    tables = read_toml(config)
    for setting in options.set:
        set_value(tables, setting)
    if options.seed is not None:
        tables["train"] = {**tables.get("train", {}), "seed": options.seed}
    corpus, place = data_folder(options.data)
    words = [f"--data {corpus}=${corpus.upper()}"] if place else []
    if config != DEFAULT:
        words = [f"--config recipes/digits/conf/{config.name}", *words]
    words += [f"--set {setting}" for setting in options.set] + [f"--seed {tables.get('train', {}).get('seed', 0)}"]
    command = " ".join(["python recipes/digits/train.py", *words])
    return {"config": tables, "name": config.stem, "corpus": corpus, "folder": place, "command": command}


def data_folder(data: str | None) -> tuple[str, str]:
    """The corpus and its absolute folder, which the demo does not need. Raises InputError."""
    if data is None:
        print("no corpus was given (--data digits=DIR): training on the built-in synthetic digits", flush=True)
        return "demo-digits", ""
    corpus, _, place = data.partition("=")
    if corpus not in CORPORA or not place:
        raise InputError(f"--data {data}; expected digits=DIR")
    return corpus, str(Path(place).resolve())


def read_plan(folder: Path) -> dict[str, Any]:
    """What new_plan made of the run in this folder."""
    return resume.read_plan(folder, {"config": dict, "name": str, "corpus": str, "folder": str, "command": str})


def resumed_plan(options: argparse.Namespace) -> dict[str, Any]:
    """The plan of the run of --resume, with what --data and --set say now."""
    from rwae_audio.data.corpora import Source

    run, plan = options.resume, read_plan(options.resume)
    items = [options.data] if options.data else []
    here = Source(plan["corpus"], plan["folder"], plan["corpus"])
    plan["folder"] = resume.moved([here], items, run)[0].folder
    return resume.lengthened(plan, options.set, run, "checkpoints/latest.safetensors", "recipes/digits/train.py")


@dataclass(frozen=True)
class Digits:
    """A corpus of single words, with its log-mels, the training speakers' normaliser and all frames (U, T, n_mels),
    normalised, one row an utterance."""

    corpus: Corpus
    store: FrameStore
    normaliser: Normaliser
    frames: Tensor


def prepare(plan: dict[str, Any], config: RunConfig, folder: str | None = None) -> Digits:
    """Read the corpus (in `folder`, if it is not where it was) and make its frames, all as long as a training segment."""
    import torch

    from rwae_audio.data.corpora import read_corpus
    from rwae_audio.data.store import open_store

    place = folder or plan["folder"]
    corpus = read_corpus(plan["corpus"], Path(place) if place else None)
    resume.keep_content(plan, [corpus])
    for note in corpus.notes:
        print(f"{corpus.name}: {note}", flush=True)
    store = open_store([corpus], config.mel, progress=sys.stderr.isatty())
    size = config.mel.segment
    if wrong := [u for u, n in zip(store.utterances, store.lengths, strict=True) if n != size]:
        count = int(store.lengths[store.utterances.index(wrong[0])])
        raise InputError(f"{wrong[0].path} has {count} frames; expected {size}, [mel] segment, of every recording")
    rows = store.indices("train")
    normaliser = store.normaliser(rows)
    frames = normaliser(torch.from_numpy(store.frames.reshape(len(store.utterances), size, -1).copy()))
    return Digits(corpus, store, normaliser, frames)


def train_run(
    digits: Digits, config: RunConfig, plan: dict[str, Any], folder: Path, go_on: bool, minutes: float | None = None
) -> None:
    """Train, and leave the bundle. Raises TimeIsUp when the minutes are over before."""
    import numpy as np
    import torch

    from rwae_audio.data.store import Sampler
    from rwae_audio.inference.bundle import save_bundle
    from rwae_audio.inference.card import card
    from rwae_audio.randomness import generator
    from rwae_audio.training.trainer import train

    store, mel = digits.store, config.mel
    sampler = Sampler(store, store.indices("train"), mel.segment, config.model)
    development = Sampler(store, store.indices("dev"), mel.segment, config.model)
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
        resume=go_on,
        minutes=minutes,
        say=lambda line: print(line, flush=True),
        progress=True,
    )
    hours = len(store.indices("train")) * mel.segment * mel.hop_length / mel.sample_rate / 3600
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
