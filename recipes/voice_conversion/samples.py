"""Write a web page with conversions to listen to: source, target and the output of each system for some pairs of a list.

    python recipes/voice_conversion/samples.py --data an4=DIR                              samples.html in this folder
    python recipes/voice_conversion/samples.py --data an4=DIR --list an4-test --pairs 3 7 --rows rwae world --out page.html

The rows are those of evaluate.py (`world` needs the extra `judge`). The page is one file with all sounds and pictures. It has
recordings of a corpus, so it must not be published with the code.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from evaluate import add_systems, systems_of
from judging import spoken
from pairs import LISTS, chosen_pairs, heard_errors, heard_in

from rwae_audio.commands.common import Parser, free_output, guarded, say
from rwae_audio.files import write_text

NAME = "samples.py"
HERE = Path(__file__).resolve().parent
ROWS = ("copy-neural", "world", "rwae-reconstructed", "rwae-griffin-lim", "rwae-keep", "rwae")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222 }}
section {{ border-top: 1px solid #ccc; padding: 1em 0 }}
.row {{ display: flex; flex-wrap: wrap; gap: 1em }}
figure {{ margin: 0; width: 16em }}
figcaption {{ font-weight: 600 }}
img, audio {{ width: 100% }}
</style></head><body><h1>{title}</h1>
<p>Converted speech is synthetic; a voice is converted only with its owner's consent.
Log-mels: time to the right, 0 to 8 kHz upwards.</p>
{sections}
</body></html>
"""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="a corpus of the list")
    parser.add_argument("--list", choices=tuple(LISTS), default="an4-dev", help="the list of pairs (default: an4-dev)")
    parser.add_argument(
        "--pairs",
        type=int,
        nargs="+",
        default=[0, 1, 2, 3],
        metavar="N",
        help="the numbers of the pairs, from 0 (default: 0 1 2 3)",
    )
    rows = f"the systems (default: {' '.join(ROWS)})"
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="NAME", help=rows)
    add_systems(parser)
    out = "the page to write (default: samples.html)"
    parser.add_argument("--out", type=Path, default=Path("samples.html"), metavar="HTML", help=out)
    parser.add_argument("--force", action="store_true", help="overwrite an existing page")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    free_output(options.out, options.force)
    pairs = chosen_pairs(options.list, options.pairs)
    from rwae_audio.data.audio import load_audio
    from rwae_audio.data.corpora import corpus_sources

    systems = systems_of(options)
    utterances = heard_in(options.list, corpus_sources(options.data))
    sections, errors = [], heard_errors(HERE / "pairs")
    for pair in pairs:
        audio = {name: load_audio(utterances[name].path) for name in (pair.source, *pair.voice)}
        recordings = [audio[name] for name in pair.voice]
        cells = {"source": audio[pair.source], "target": recordings[0]}
        for name in options.rows:
            source = audio[spoken(pair, systems[name], errors)]
            cells[name] = np.asarray(systems[name].convert(source, recordings), dtype=np.float32)
        title = f"{utterances[pair.source].speaker} as {pair.target}: {utterances[pair.source].text or ''}"
        sections.append(section(title, cells))
        say(NAME, title)
    write_text(options.out, PAGE.format(title=f"Conversions: {options.list}", sections="\n".join(sections)))
    say(NAME, f"wrote {options.out}")
    return 0


def section(title: str, cells: dict[str, np.ndarray]) -> str:
    """Return the HTML of a pair.

    Args:
        title: The title of the section.
        cells: The samples (N,) of each recording by its name, at 16 kHz. Each has a picture and a player.
    """
    figures = [
        f'<figure><figcaption>{html.escape(name)}</figcaption><img alt="log-mels" src="{picture(samples)}">'
        f'<audio controls preload="none" src="{player(samples)}"></audio></figure>'
        for name, samples in cells.items()
    ]
    return f'<section><h2>{html.escape(title)}</h2><div class="row">{"".join(figures)}</div></section>'


def player(samples: np.ndarray) -> str:
    """Return samples (N,) at 16 kHz as a WAV file in a data URL; samples beyond ±1 are scaled down."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples / max(1.0, float(np.abs(samples).max(initial=0.0))), 16000, "PCM_16", format="WAV")
    return "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()


def picture(samples: np.ndarray) -> str:
    """Return the log-mels of samples (N,) at 16 kHz as a PNG file in a data URL."""
    import torch

    from rwae_audio.data.features import PRESETS, log_mel
    from rwae_audio.evaluation.plots import sheet

    mel = PRESETS["vocoder"]
    frames: Sequence[np.ndarray] = [log_mel(torch.from_numpy(np.asarray(samples, dtype=np.float32)), mel).numpy()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mels.png"
        sheet(path, [frames], [""], [""], mel.hop_length / mel.sample_rate, cell=(3.0, 1.5))
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
