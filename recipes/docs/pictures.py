"""Draw the two plots of the documentation's page on concepts, and write the example table of its tutorial.

python recipes/docs/pictures.py

Everything comes from files of the repository: the scores of the ladder, the bundle and the demo corpus of the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rwae_audio.evaluation.tables import format_table, marked
from rwae_audio.evaluation.verification import eer, eer_threshold, fold
from rwae_audio.files import read_tensors, read_text, whole_file, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGES = Path(__file__).resolve().parent / "pages"
TUTORIAL = PAGES / "tutorial.md"
LADDER = PAGES.parents[1] / "timit/ladder/an4"
SYSTEM = "rwae-mmd"  # the row of the ladder that the table shows, seed 0
SHOWN = "rwae-plus-0"  # the run of the ladder whose scores are plotted
SENTENCE = 1  # the number of the demo sentence whose codes are taken away


def example() -> str:
    """Return the table that the ladder's run of SYSTEM with seed 0 printed, as a block of code."""
    lines = read_text(LADDER / "runs.jsonl", "rows of the ladder").splitlines()
    runs = {(row["name"], row["seed"]): row for row in map(json.loads, lines)}
    row, none = runs[SYSTEM, 0], {"dynamic": None, "gap": None, "synthetic": False}
    reports: dict[str, Any] = {
        SYSTEM: row,
        f"{SYSTEM}:non-speech": {"static": row["non_speech"], **none},
        "untrained": runs["untrained", 0],
        "log-mel": runs["log-mel", None],
        "log-mel-mvn": runs["log-mel-mvn", None],
    }
    head = f"an4: {row['trials']:,} trials, {row['target_trials']} of them target, test speakers only"
    return f"```text\n{head}\n{format_table(reports)}\n```"


def figure(width: float, height: float) -> Figure:
    """Return an empty figure; sizes are in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(drawn: Figure, path: Path) -> None:
    """Write a figure as a PNG."""
    with whole_file(path) as temporary:
        drawn.savefig(temporary, dpi=110, format="png", metadata={"Software": None})
    print(path)


def draw_scores(path: Path) -> None:
    """Plot the scores of the two kinds of trials for each code of SHOWN, with the threshold of equal errors."""
    tensors = read_tensors(LADDER / "scores.safetensors", "the scores of a ladder")
    target = read_tensors(LADDER / "trials.safetensors", "a trial list")["target"].numpy().astype(bool)
    scores = {
        kind: tensors[f"{SHOWN}/{kind}"].double().numpy() for kind in ("static", "dynamic_plain", "dynamic_centred")
    }
    smaller = min(("dynamic_plain", "dynamic_centred"), key=lambda kind: fold(eer(scores[kind], target)))
    drawn = figure(9, 3.2)
    for axes, (code, kind) in zip(drawn.subplots(1, 2), (("static", "static"), ("dynamic", smaller)), strict=True):
        values = scores[kind]
        bins = np.linspace(*np.quantile(values, [0.001, 0.999]), 60)
        for which, name, colour in ((~target, "two speakers", "C1"), (target, "one speaker twice", "C0")):
            axes.hist(values[which], bins, density=True, alpha=0.6, color=colour, label=name)
        axes.axvline(eer_threshold(values, target), color="0.2", linestyle="--", label="threshold of equal errors")
        axes.set(
            title=f"{code} code: EER {100 * fold(eer(values, target)):.1f} %", xlabel="score of a trial", yticks=[]
        )
        axes.set_ylabel("share of the trials of a kind")
    axes.legend(frameon=False, fontsize=8)
    save(drawn, path)


def draw_codes(path: Path) -> None:
    """Plot a demo sentence, and what the bundle in the package decodes with both codes and with one of them.

    A code that is taken away is replaced by its mean over the twelve development speakers, as in the check for collapse.
    """
    import torch

    from rwae_audio.data.audio import load_audio
    from rwae_audio.data.corpora.demo import read_demo
    from rwae_audio.inference.bundle import load_bundle
    from rwae_audio.training.health import code_state

    bundle, corpus = load_bundle(), read_demo()
    paths = [u.path for u in corpus.of("dev") if u.path.stem == str(SENTENCE)]
    recordings = [bundle.normaliser(bundle.frames(load_audio(path))) for path in paths]
    frames = torch.stack([recording[: min(map(len, recordings))] for recording in recordings])
    state = code_state(bundle.model, frames, frames)
    with torch.no_grad():
        output = bundle.model(frames, frames)
        static, dynamic = output.static.mean, output.dynamic.mean
        means = static.mean(0).expand_as(static), dynamic.mean((0, 1)).expand_as(dynamic)
        decoded = [
            bundle.model.decoder(*codes)[0] for codes in ((static, dynamic), (means[0], dynamic), (static, means[1]))
        ]
    titles = ["a recording", "from both codes"]
    titles += [f"without {code}: error +{100 * state[f'{code}_effect']:.0f} %" for code in ("static", "dynamic")]
    drawn, seconds = figure(11, 2.6), frames.shape[1] * bundle.config.mel.hop_length / bundle.sample_rate
    shown = [bundle.normaliser.inverse(part).numpy() for part in (frames[0], *decoded)]
    limits = {"vmin": float(np.percentile(shown[0], 1)), "vmax": float(shown[0].max())}
    panels = drawn.subplots(1, 4, sharey=True)
    for axes, title, part in zip(panels, titles, shown, strict=True):
        extent = (0, seconds, 0, part.shape[1])
        axes.imshow(part.T, origin="lower", aspect="auto", cmap="magma", extent=extent, **limits)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("time, s")
    panels[0].set_ylabel("mel bin")
    save(drawn, path)


if __name__ == "__main__":
    write_text(TUTORIAL, marked(read_text(TUTORIAL, "the tutorial"), "table", example()))
    draw_scores(PAGES / "scores.png")
    draw_codes(PAGES / "codes.png")
