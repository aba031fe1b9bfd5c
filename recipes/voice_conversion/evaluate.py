"""Conversions, judged by others (extra `judge`): whose voice it is, which words, how natural, how high.

    python recipes/voice_conversion/evaluate.py --data an4=DIR                                   200 pairs of test speakers
    python recipes/voice_conversion/evaluate.py --data an4=DIR --data timit=DIR --list timit     TIMIT's sentences
    python recipes/voice_conversion/evaluate.py --data an4=DIR --list an4-dev --bundle new=RUN/bundle --rows rwae new
    python recipes/voice_conversion/evaluate.py --no-judge                                       the tables once more

Rows: the source unchanged, the target copied (fails on the words), WORLD, the source through a vocoder (`copy-`), the target
through it and judged as the target (`ceiling-`), a bundle's reconstructions, and its conversions (`rwae`: the bundle in the
package) as rwae-vc makes them, with the source's own pitch (`-keep`) and by Griffin-Lim; with --adain those of AdaIN-VC, by the
same vocoder and with the same pitch. What the judges say of each pair is kept in results/<list>/<row>.csv; a row whose file
has all pairs is not judged again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pairs import LISTS, Pair, heard_in, read_pairs
from tables import ENCODERS, as_csv, read_csv, write_table

from rwae_audio.commands.common import Parser, guarded, say
from rwae_audio.config import nearest
from rwae_audio.corpora.base import Utterance
from rwae_audio.files import InputError, write_text

NAME = "evaluate.py"
HERE = Path(__file__).resolve().parent
OWN = "rwae"  # the bundle in the package


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="an4, and timit for its list")
    parser.add_argument("--list", choices=tuple(LISTS), default="an4-test", help="of pairs/ (an4-test)")
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=DIR", help="another row: this bundle's")
    parser.add_argument("--adain", action="append", default=[], metavar="NAME=DIR", help="a row: train_adain_vc.py's")
    parser.add_argument("--vocoder", type=Path, metavar="DIR", help="the neural one (the one in the package)")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--pairs", type=int, metavar="N", help="only the first N pairs")
    parser.add_argument("--audio", type=Path, metavar="DIR", help="keep what was judged there: DIR/<row>/<pair>.wav")
    parser.add_argument(
        "--into", type=Path, default=HERE / "results", metavar="DIR", help="what the judges said (results/)"
    )
    parser.add_argument("--no-judge", action="store_true", help="only make the table from the rows that are there")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    place = options.into / options.list
    if not options.no_judge:
        judge_rows(options, place)
    print(write_table(place, options.list))
    return 0


def judge_rows(options: argparse.Namespace, place: Path) -> None:
    """Judge every row that has no file yet, pair by pair."""
    from tqdm import tqdm

    from rwae_audio.corpora import corpus_folders

    rows = systems(named("--bundle", options.bundle), options.vocoder, named("--adain", options.adain))
    for name in options.rows or []:
        if name not in rows:
            raise InputError(f"--rows {name}; {nearest(name, list(rows))}")
    pairs = read_pairs(HERE / "pairs" / f"{options.list}.csv")
    judges = Judges(heard_in(options.list, corpus_folders(options.data)), pairs)
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "natural.csv").is_file():
        write_text(place / "natural.csv", as_csv(judges.natural(), ("encoder", "same", "cosine")))
    for name in options.rows or rows:
        path, chosen, keep = place / f"{name}.csv", pairs[: options.pairs], options.audio and options.audio / name
        if path.is_file() and len(read_csv(path)) >= len(chosen):
            continue
        convert, of_target = rows[name]
        judged = [judges.judge(pair, convert, of_target, keep) for pair in tqdm(chosen, name, disable=None)]
        write_text(path, as_csv(judged))
        say(NAME, f"{name}: {len(judged)} pairs")


def named(option: str, words: Sequence[str]) -> dict[str, str]:
    """NAME=DIR, each, of an option."""
    found: dict[str, str] = {}
    for word in words:
        name, _, folder = word.partition("=")
        if not name or not folder or name in found:
            raise InputError(f"{option} {word}; expected NAME=DIR, each name once")
        found[name] = folder
    return found


def systems(
    bundles: Mapping[str, str], vocoder: Path | None, baselines: Mapping[str, str]
) -> dict[str, tuple[Any, bool]]:
    """Row → its system, and whether it is asked to be the target saying the target's words."""
    import systems as made
    from adain_vc import load_adain

    from rwae_audio.bundle import load_bundle
    from rwae_audio.neural_vocoder import load_vocoder

    own, neural = load_bundle(), load_vocoder(vocoder)
    rows = {"source": (made.unchanged, False), "target": (made.copied, False), "world": (made.world, False)}
    for name, one in (("griffin-lim", None), ("neural", neural)):
        rows |= {f"copy-{name}": (made.vocoded(own, one), False), f"ceiling-{name}": (made.vocoded(own, one), True)}
    for name, folder in baselines.items():
        if name in (*rows, OWN):
            raise InputError(f"--adain {name} is the name of another row; expected a new one")
        rows[name] = (made.adain(load_adain(Path(folder)), neural), False)
    for name in (*rows, OWN):
        if name in bundles:
            raise InputError(f"--bundle {name} is the name of another row; expected a new one")
    for name, bundle in {OWN: own, **{name: load_bundle(folder) for name, folder in bundles.items()}}.items():
        rows |= {
            f"{name}-reconstructed": (made.reconstructed(bundle, neural), False),
            f"{name}-griffin-lim": (made.bundled(bundle, None), False),
            f"{name}-keep": (made.bundled(bundle, neural, "keep"), False),
            name: (made.bundled(bundle, neural), False),
        }
    return rows


class Judges:
    """All of them, and what they say of the natural recordings, each asked once."""

    def __init__(self, utterances: Mapping[str, Utterance], pairs: Sequence[Pair]) -> None:
        from rwae_audio import judges

        self.opinions = judges
        self.utterances, self.pairs = utterances, pairs
        self.embed = {name: judges.SPEAKERS[name]() for name in ENCODERS}
        self.hear, self.rate = judges.whisper(threads=2), judges.dnsmos()
        self.samples: dict[str, np.ndarray] = {}
        self.vectors: dict[tuple[str, str], np.ndarray] = {}
        self.pitches: dict[str, np.ndarray] = {}

    def recording(self, name: str) -> np.ndarray:
        """The samples (N,) of an utterance."""
        from rwae_audio.audio import load_audio

        if name not in self.samples:
            self.samples[name] = load_audio(self.utterances[name].path)
        return self.samples[name]

    def vector(self, encoder: str, name: str) -> np.ndarray:
        """An encoder's vector (256,) of an utterance."""
        if (encoder, name) not in self.vectors:
            self.vectors[encoder, name] = self.embed[encoder](self.recording(name))
        return self.vectors[encoder, name]

    def pitch(self, name: str) -> np.ndarray:
        """The F0 (T,) of an utterance."""
        if name not in self.pitches:
            self.pitches[name] = self.opinions.fundamental(self.recording(name))
        return self.pitches[name]

    def voice(self, encoder: str, names: Sequence[str]) -> np.ndarray:
        """The mean of utterances' vectors, a unit vector (256,)."""
        mean = np.mean([self.vector(encoder, name) for name in names], axis=0)
        return mean / np.linalg.norm(mean)

    def of_speaker(self, speaker: str, besides: str, count: int = 5) -> list[str]:
        """Up to `count` utterances of a speaker of the list, another one left out."""
        known = {name for pair in self.pairs for name in (pair.source, *pair.voice, *pair.references)}
        return [n for n in sorted(known) if self.utterances[n].speaker == speaker and n != besides][:count]

    def judge(self, pair: Pair, convert: Any, of_target: bool, keep: Path | None) -> dict[str, Any]:
        """What all of them say of one pair, by COLUMNS."""
        source = pair.voice[0] if of_target else pair.source
        given, voice = self.recording(source), [self.recording(name) for name in pair.voice]
        made = np.asarray(convert(given, voice), dtype=np.float32)
        if keep is not None:
            self.keep(keep, pair, made)
        said: dict[str, Any] = {"source": pair.source, "target": pair.target}
        own = self.of_speaker(self.utterances[pair.source].speaker, pair.source)
        for encoder in ENCODERS:
            vector = self.embed[encoder](made)
            said[f"{encoder}_target"] = float(vector @ self.voice(encoder, pair.references))
            said[f"{encoder}_source"] = float(vector @ self.voice(encoder, own)) if own else np.nan
        said["cer"] = self.opinions.character_error_rate(self.utterances[source].text or "", self.hear(made))
        said |= self.rate(made)._asdict()
        theirs = np.concatenate([self.pitch(name) for name in pair.references])
        said |= self.opinions.pitch(self.pitch(source), self.opinions.fundamental(made), theirs)._asdict()
        said |= {"seconds": len(made) / self.opinions.RATE, "wanted_seconds": len(given) / self.opinions.RATE}
        return said | {"mcd": self.opinions.mel_cepstral_distortion(given, made)}

    def keep(self, folder: Path, pair: Pair, samples: np.ndarray) -> None:
        from rwae_audio.audio import write_audio

        folder.mkdir(parents=True, exist_ok=True)
        name = f"{Path(pair.source).stem}_as_{pair.target}.wav"
        write_audio(folder / name, samples, self.opinions.RATE)

    def natural(self) -> list[dict[str, Any]]:
        """Natural trials of the same shape: each utterance of a target against five others of each target."""
        everyone = sorted({name for pair in self.pairs for name in (*pair.voice, *pair.references)})
        speakers = sorted({self.utterances[name].speaker for name in everyone})
        rows = []
        for encoder in ENCODERS:
            for name in everyone:
                for speaker in speakers:
                    cosine = float(self.vector(encoder, name) @ self.voice(encoder, self.of_speaker(speaker, name)))
                    same = int(self.utterances[name].speaker == speaker)
                    rows.append({"encoder": encoder, "same": same, "cosine": cosine})
        return rows


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
