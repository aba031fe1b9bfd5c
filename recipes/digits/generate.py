"""Generate spoken digits from the priors: pictures of samples, of actions in several voices, of interpolations, and sounds.

    python recipes/digits/generate.py --bundle runs/digits-rwae-mmd+actions/bundle --out generated

Actions are numbers without names: a listener has to find out which word an action is. For a model without actions, the
prior draws the words.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rwae_audio.commands.common import Parser, guarded, new_folder

NAME = "generate.py"
VOICES = 6  # columns of the grid


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle of a run of train.py")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="a new folder for all outputs (default: a new one in runs/)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the seed of all random numbers (default: 0)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    import torch

    from rwae_audio.conversion.vocoders.griffin_lim import griffin_lim
    from rwae_audio.data.audio import write_audio
    from rwae_audio.evaluation import plots
    from rwae_audio.inference.bundle import load_bundle
    from rwae_audio.inference.generation import Codes, decoded, interpolated, log_mels
    from rwae_audio.randomness import generator

    bundle = load_bundle(options.bundle)
    model, mel, normaliser = bundle.model, bundle.config.mel, bundle.normaliser
    folder = new_folder(options.out, "generated")
    seconds, size = mel.hop_length / mel.sample_rate, mel.segment

    def grid_of(rows: int, columns: int, actions: torch.Tensor | None, static: torch.Tensor, draw: str) -> torch.Tensor:
        """Return log-mels (rows, columns, T, n_mels) for actions and static codes, both (rows · columns, …)."""
        sample = model.sample(rows * columns, size, generator(options.seed, draw), static, actions)
        return log_mels(normaliser, sample).unflatten(0, (rows, columns))

    count = bundle.config.model.actions
    words = count or 10
    sample = model.sample(48, size, generator(options.seed, "contact sheet"))
    cells = log_mels(normaliser, sample).unflatten(0, (6, 8)).numpy()
    plots.sheet(folder / "samples.png", list(cells), [""] * 6, [""] * 8, seconds)

    voices = torch.randn(VOICES, bundle.config.model.static_dim, generator=generator(options.seed, "voices"))
    actions = torch.arange(words).repeat_interleave(VOICES) if count else None
    grid = grid_of(words, VOICES, actions, voices.repeat(words, 1), "grid")
    names = [f"action {a}" if count else f"word {a}" for a in range(words)]
    plots.sheet(
        folder / "actions_voices.png", list(grid.numpy()), names, [f"voice {v}" for v in range(VOICES)], seconds
    )

    path = interpolated(voices[0], voices[1], 8)
    spoken = model.sample(3, size, generator(options.seed, "between"), None, torch.arange(3) if count else None)
    codes = Codes(spoken.static, spoken.dynamic, spoken.action).repeated(len(path))._replace(static=path.repeat(3, 1))
    between = log_mels(normaliser, decoded(model, codes)).unflatten(0, (3, len(path)))
    heads = ["voice 0", *[""] * 6, "voice 1"]
    plots.sheet(folder / "between_voices.png", list(between.numpy()), names[:3], heads, seconds)

    (folder / "sounds").mkdir()
    for a, row in enumerate(grid):
        for v, frames in enumerate(row):
            sound = griffin_lim(frames, mel, seed=options.seed).numpy()
            write_audio(folder / "sounds" / f"{names[a].replace(' ', '-')}-voice-{v}.wav", sound, mel.sample_rate)
    for name in ("samples.png", "actions_voices.png", "between_voices.png", "sounds"):
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
