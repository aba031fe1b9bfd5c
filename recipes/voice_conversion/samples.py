"""samples.html: to hear and see some pairs of a list: source, target, and what each system makes of them.

    python recipes/voice_conversion/samples.py --data an4=DIR                                     samples.html, here
    python recipes/voice_conversion/samples.py --data an4=DIR --list an4-test --pairs 3 7 --rows rwae world --out there.html

Rows as of evaluate.py (extra `judge` for WORLD). One file that opens from disk: sound and pictures are in it. The recordings
are a corpus's: the page is not to be passed on with the code.
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
from evaluate import named, spoken, systems
from pairs import LISTS, heard_errors, heard_in, read_pairs

from rwae_audio.commands.common import Parser, free_output, guarded, say
from rwae_audio.files import InputError, write_text
from rwae_audio.settings import nearest

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
Log-mels: time to the right, 0 to 8 kHz up.</p>
{sections}
</body></html>
"""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="an4, and timit for its list")
    parser.add_argument("--list", choices=tuple(LISTS), default="an4-dev", help="of pairs/ (an4-dev)")
    parser.add_argument(
        "--pairs", type=int, nargs="+", default=[0, 1, 2, 3], metavar="N", help="which of them (0 1 2 3)"
    )
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="NAME", help=f"({' '.join(ROWS)})")
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=DIR", help="another row: this bundle's")
    parser.add_argument("--adain", action="append", default=[], metavar="NAME=DIR", help="a row: train_adain_vc.py's")
    parser.add_argument("--vocoder", type=Path, metavar="DIR", help="the neural one (the one in the package)")
    parser.add_argument("--out", type=Path, default=Path("samples.html"), metavar="HTML", help="(samples.html)")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    free_output(options.out, options.force)
    pairs = read_pairs(HERE / "pairs" / f"{options.list}.csv")
    if wrong := [number for number in options.pairs if not 0 <= number < len(pairs)]:
        raise InputError(f"--pairs {wrong[0]}; expected numbers from 0 to {len(pairs) - 1}")
    from rwae_audio.data.audio import load_audio
    from rwae_audio.data.corpora import corpus_sources

    known = systems(named("--bundle", options.bundle), options.vocoder, named("--adain", options.adain))
    for name in options.rows:
        if name not in known:
            raise InputError(f"--rows {name}; {nearest(name, list(known))}")
    utterances = heard_in(options.list, corpus_sources(options.data))
    sections, errors = [], heard_errors(HERE / "pairs")
    for number in options.pairs:
        pair = pairs[number]
        audio = {name: load_audio(utterances[name].path) for name in (pair.source, *pair.voice)}
        voice = [audio[name] for name in pair.voice]
        cells = {"source": audio[pair.source], "target": voice[0]}
        for name in options.rows:
            system = known[name]
            given = audio[spoken(pair, system, errors)]
            cells[name] = np.asarray(system.convert(given, voice), dtype=np.float32)
        head = f"{utterances[pair.source].speaker} as {pair.target}: {utterances[pair.source].text or ''}"
        sections.append(section(head, cells))
        say(NAME, head)
    write_text(options.out, PAGE.format(title=f"Conversions: {options.list}", sections="\n".join(sections)))
    say(NAME, f"wrote {options.out}")
    return 0


def section(head: str, cells: dict[str, np.ndarray]) -> str:
    """A pair: each name with its samples (N,), 16 kHz, as a picture and a player."""
    figures = [
        f'<figure><figcaption>{html.escape(name)}</figcaption><img alt="log-mels" src="{picture(samples)}">'
        f'<audio controls preload="none" src="{player(samples)}"></audio></figure>'
        for name, samples in cells.items()
    ]
    return f'<section><h2>{html.escape(head)}</h2><div class="row">{"".join(figures)}</div></section>'


def player(samples: np.ndarray) -> str:
    """Samples (N,), 16 kHz, as a WAV in an address; where they exceed ±1 they are scaled."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples / max(1.0, float(np.abs(samples).max(initial=0.0))), 16000, "PCM_16", format="WAV")
    return "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()


def picture(samples: np.ndarray) -> str:
    """The log-mels of samples (N,), 16 kHz, as a PNG in an address."""
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
