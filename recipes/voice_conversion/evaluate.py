"""Conversions, judged by others (extra `judge`): whose voice it is, which words, how natural, how high.

    python recipes/voice_conversion/evaluate.py --data an4=DIR                                   200 pairs of test speakers
    python recipes/voice_conversion/evaluate.py --data an4=DIR --data timit=DIR --list timit     TIMIT's sentences
    python recipes/voice_conversion/evaluate.py --data kaldi=speechocean762 --list natural-test    natural sentences
    python recipes/voice_conversion/evaluate.py --data an4=DIR --list an4-dev --bundle new=RUN/bundle --rows rwae new
    python recipes/voice_conversion/evaluate.py --no-judge                                       the tables once more

Rows: the source unchanged, the target copied (fails on the words), WORLD, the source through a vocoder (`copy-`), the target
through it and judged as the target (`ceiling-`), a bundle's reconstructions, and its conversions (`rwae`: the bundle in the
package) as rwae-vc makes them, with the source's own pitch (`-keep`), by Griffin-Lim and with the voice adapted to a minute
(`-adapted`); with --adain those of AdaIN-VC, by the
same vocoder and with the same pitch. Where fetch_hifigan.py has left its weights, HiFi-GAN is a vocoder as well. What the
judges say of each pair is kept in results/<list>/<row>.csv as it comes, and of which list and weights in <row>.json; a row that
was stopped goes on, one with all pairs is not judged again, and one of other weights is refused.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pairs import LISTS, Pair, heard_errors, heard_in, read_pairs
from tables import ENCODERS, OWN, as_csv, read_csv, write_table

from rwae_audio.commands.common import Parser, guarded, say
from rwae_audio.data.corpora.base import Utterance
from rwae_audio.evaluation import judges
from rwae_audio.files import InputError, read_json, write_json, write_text
from rwae_audio.settings import nearest

NAME = "evaluate.py"
HERE = Path(__file__).resolve().parent
MINUTE = 60.0  # seconds of a target that its voice is adapted to
FEW = 4  # recordings of a source's speaker, of which the pairs have to name as many, or the others are taken as well


class System(NamedTuple):
    """A system that is judged, a row of the table.

    Attributes:
        convert: The function from a source (N,) and recordings of the target to samples (M,).
        of_target: The source is a recording of the target, and the target's own words are expected.
        weights: The SHA-256 of each file of weights.
        of_minute: The recordings of the target are about a minute instead of the three of the pair.
    """

    convert: Callable[[np.ndarray, Sequence[np.ndarray]], np.ndarray]
    of_target: bool = False
    weights: Mapping[str, str] = {}
    of_minute: bool = False


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="the corpora of the list")
    parser.add_argument("--list", choices=tuple(LISTS), default="an4-test", help="of pairs/ (an4-test)")
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=DIR", help="another row: this bundle's")
    parser.add_argument("--adain", action="append", default=[], metavar="NAME=DIR", help="a row: train_adain_vc.py's")
    parser.add_argument("--vocoder", type=Path, metavar="DIR", help="the neural one (the one in the package)")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--pairs", type=int, metavar="N", help="only the first N pairs")
    parser.add_argument(
        "--audio", type=Path, metavar="DIR", help="keep what is judged in DIR/<row>, with VERSA's lists"
    )
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

    from rwae_audio.data.corpora import corpus_sources

    rows = systems(named("--bundle", options.bundle), options.vocoder, named("--adain", options.adain))
    for name in options.rows or []:
        if name not in rows:
            raise InputError(f"--rows {name}; {nearest(name, list(rows))}")
    listed = HERE / "pairs" / f"{options.list}.csv"
    pairs, made_of = read_pairs(listed), {"list": sha256(listed)}
    natural = place / "natural.csv"
    same_weights(natural, made_of)
    for name in options.rows or rows:
        same_weights(place / f"{name}.csv", {**made_of, **rows[name].weights})
    everyone = Judges(heard_in(options.list, corpus_sources(options.data)), pairs, heard_errors(HERE / "pairs"))
    place.mkdir(parents=True, exist_ok=True)
    if not natural.is_file():
        write_json(natural.with_suffix(".json"), made_of)
        write_text(natural, as_csv(everyone.natural(), ("encoder", "same", "cosine")))
    for name in options.rows or rows:
        path, chosen, keep = place / f"{name}.csv", pairs[: options.pairs], options.audio and options.audio / name
        judged: list[Mapping[str, Any]] = [*read_csv(path)] if path.is_file() else []
        if len(judged) >= len(chosen):
            say(NAME, f"{name}: judged before" + (f", so nothing is kept in {keep}" if keep else ""))
            continue
        write_json(path.with_suffix(".json"), {**made_of, **rows[name].weights})
        for pair in tqdm(chosen[len(judged) :], name, disable=None):
            judged.append(everyone.judge(pair, rows[name], keep and audio_file(keep, len(judged), pair)))
            write_text(path, as_csv(judged))
        if keep:
            write_versa(keep, chosen, rows[name], everyone)
        say(NAME, f"{name}: {len(judged)} pairs")


def audio_file(folder: Path, number: int, pair: Pair) -> Path:
    """Return the file that the conversion of a pair is kept in."""
    return folder / f"{number}_{Path(pair.source).stem}_as_{pair.target}.wav"


def write_versa(folder: Path, pairs: Sequence[Pair], system: System, everyone: Judges) -> None:
    """Write pred.scp, gt.scp and text for VERSA (Shi et al. 2025) beside the conversions that a folder has.

    The reference (`gt`) of a conversion is a recording of its target, for measures of the voice. The text is the source's.
    """
    lists: dict[str, list[str]] = {"pred.scp": [], "gt.scp": [], "text": []}
    for number, pair in enumerate(pairs):
        file = audio_file(folder, number, pair)
        if file.is_file():
            reference = everyone.utterances[pair.references[0]].path
            text = everyone.utterances[spoken(pair, system, everyone.errors)].text
            for lines, value in zip(lists.values(), (file.resolve(), reference.resolve(), text), strict=True):
                lines.append(f"{file.stem} {value}\n")
    for name, lines in lists.items():
        write_text(folder / name, "".join(lines))


def same_weights(path: Path, wanted: Mapping[str, str]) -> None:
    """Raises InputError where a row that is there was made with other weights, or nobody knows with which."""
    if not path.is_file():
        return
    kept = path.with_suffix(".json")
    found = read_json(kept, "what a row was made with") if kept.is_file() else {}
    for what, digest in wanted.items():
        if (was := found.get(what)) != digest:
            came = f"{was[:12]}…" if was else "one that is not known"
            raise InputError(
                f"{path} was judged with {what} {came}; expected {digest[:12]}…, or another name or --into"
            )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def named(option: str, words: Sequence[str]) -> dict[str, str]:
    """Return the values NAME=DIR of an option by their names."""
    found: dict[str, str] = {}
    for word in words:
        name, _, folder = word.partition("=")
        if not name or not folder or name in found:
            raise InputError(f"{option} {word}; expected NAME=DIR, each name once")
        found[name] = folder
    return found


def systems(bundles: Mapping[str, str], vocoder: Path | None, baselines: Mapping[str, str]) -> dict[str, System]:
    """Return the system of each row."""
    import systems as made
    from adain_vc import load_adain

    from rwae_audio.conversion.vocoders.griffin_lim import GriffinLim
    from rwae_audio.conversion.vocoders.hifigan import load_hifigan, weights_path
    from rwae_audio.conversion.vocoders.neural import SHIPPED, load_vocoder
    from rwae_audio.inference.bundle import load_bundle

    own, neural = load_bundle(), load_vocoder(vocoder)
    voice = {"vocoder": sha256((vocoder or SHIPPED) / "vocoder.safetensors")}
    rows = {"source": System(made.unchanged), "target": System(made.copied), "world": System(made.world)}
    vocoders: dict[str, tuple[Any, dict[str, str]]] = {
        "griffin-lim": (GriffinLim(own.config.mel), {}),
        "neural": (neural, voice),
    }
    if weights_path().is_file():
        vocoders["hifigan"] = load_hifigan(), {"hifigan": sha256(weights_path())}
    for name, (one, weights) in vocoders.items():
        rows[f"copy-{name}"] = System(made.vocoded(own, one), False, weights)
        rows[f"ceiling-{name}"] = System(made.vocoded(own, one), True, weights)
    rows |= of_bundle(OWN, own, vocoders)
    for name, folder in bundles.items():
        unused([name], rows, f"--bundle {name}")
        more = of_bundle(name, load_bundle(folder), vocoders)
        unused(more, rows, f"--bundle {name}")
        rows |= more
    for name, folder in baselines.items():
        unused([name], rows, f"--adain {name}")
        weights = {"adain": sha256(Path(folder) / "model.safetensors"), **voice}
        rows[name] = System(made.adain(load_adain(Path(folder)), neural), False, weights)
    return rows


def unused(names: Iterable[str], rows: Mapping[str, System], option: str) -> None:
    """Raises InputError when an option's rows have the name of another."""
    for name in names:
        if name in rows or name == "natural":
            raise InputError(f"{option} is the name of another row, {name}; expected a new one")


def of_bundle(name: str, bundle: Any, vocoders: Mapping[str, tuple[Any, dict[str, str]]]) -> dict[str, System]:
    """A bundle's rows: by the neural vocoder its conversions, with the source's pitch, and its reconstructions; by each other
    vocoder its conversions."""
    import systems as made

    model, (neural, voice) = {"bundle": bundle.digest}, vocoders["neural"]
    others = {
        f"{name}-{other}": System(made.bundled(bundle, one), False, model | weights)
        for other, (one, weights) in vocoders.items()
        if other != "neural"
    }
    return {
        f"{name}-reconstructed": System(made.reconstructed(bundle, neural), False, model | voice),
        **others,
        f"{name}-keep": System(made.bundled(bundle, neural, "keep"), False, model | voice),
        f"{name}-adapted": System(made.adapted(bundle, neural), False, model | voice, of_minute=True),
        name: System(made.bundled(bundle, neural), False, model | voice),
    }


def spoken(pair: Pair, system: System, errors: Mapping[str, float]) -> str:
    """The utterance that a system says. Of the target it is the one of those converted with that was understood best as it was
    recorded (errors: CERs of those that were heard): the sources were chosen by that too."""
    return min(pair.voice, key=lambda name: errors.get(name, 1.0)) if system.of_target else pair.source


class Judges:
    """All of them, and what they say of the natural recordings, each asked once. errors: the CERs of those that were heard as
    they were recorded; opinions: the module with the judges."""

    def __init__(
        self,
        utterances: Mapping[str, Utterance],
        pairs: Sequence[Pair],
        errors: Mapping[str, float],
        opinions: Any = judges,
    ) -> None:
        self.utterances, self.pairs, self.errors, self.opinions = utterances, pairs, errors, opinions
        self.embed = {name: opinions.SPEAKERS[name]() for name in ENCODERS}
        self.hear = opinions.whisper(torch.get_num_threads())
        self.rate, self.rate_by_distillmos = opinions.dnsmos(), opinions.distillmos()
        self.samples: dict[str, np.ndarray] = {}
        self.vectors: dict[tuple[str, str], np.ndarray] = {}
        self.pitches: dict[str, np.ndarray] = {}

    def recording(self, name: str) -> np.ndarray:
        """The samples (N,) of an utterance."""
        from rwae_audio.data.audio import load_audio

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

    def minute(self, pair: Pair) -> list[str]:
        """Return the recordings of a pair's voice and others of the target, a minute in all where there are as many.

        Recordings that conversions into this target are compared with are left out.
        """
        compared = {name for other in self.pairs if other.target == pair.target for name in other.references}
        mine = [name for name in sorted(self.utterances) if self.utterances[name].speaker == pair.target]
        names = [*pair.voice, *(name for name in mine if name not in compared and name not in pair.voice)]
        seconds = np.cumsum([len(self.recording(name)) / self.opinions.RATE for name in names])
        return names[: max(len(pair.voice), 1 + int(np.searchsorted(seconds, MINUTE)))]

    def of_speaker(self, speaker: str, besides: str, count: int = 5) -> list[str]:
        """Return up to `count` utterances of a speaker, another one left out.

        They are of those that the pairs name, and if these are under FEW of those that were heard as well.
        """
        named, heard = ([n for n in by_speaker.get(speaker, []) if n != besides] for by_speaker in self.recordings)
        return [*named, *(heard if len(named) < FEW else [])][:count]

    @functools.cached_property
    def recordings(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The utterances of each speaker that the pairs name, and the others that were heard, sorted."""
        named = {name for pair in self.pairs for name in (pair.source, *pair.voice, *pair.references)}
        others = {name for name in self.errors if name in self.utterances} - named
        found: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
        for names, by_speaker in zip((named, others), found, strict=True):
            for name in sorted(names):
                by_speaker.setdefault(self.utterances[name].speaker, []).append(name)
        return found

    def judge(self, pair: Pair, system: System, keep: Path | None = None) -> dict[str, Any]:
        """Return the measures of one pair, by COLUMNS; keep: a file for the sound that was judged."""
        source = spoken(pair, system, self.errors)
        given = self.recording(source)
        voice = [self.recording(name) for name in (self.minute(pair) if system.of_minute else pair.voice)]
        made = np.asarray(system.convert(given, voice), dtype=np.float32)
        if keep is not None:
            self.keep(keep, made)
        said: dict[str, Any] = {"source": pair.source, "target": pair.target}
        own = self.of_speaker(self.utterances[pair.source].speaker, pair.source)
        for encoder in ENCODERS:
            vector = self.embed[encoder](made)
            said[f"{encoder}_target"] = float(vector @ self.voice(encoder, pair.references))
            said[f"{encoder}_source"] = float(vector @ self.voice(encoder, own)) if own else np.nan
        errors = self.opinions.character_errors(self.utterances[source].text or "", self.hear(made))
        said |= {"cer": errors.rate, **errors._asdict()}
        said |= {**self.rate(made)._asdict(), "distillmos": self.rate_by_distillmos(made)}
        theirs = np.concatenate([self.pitch(name) for name in pair.references])
        said |= self.opinions.pitch(self.pitch(source), self.opinions.fundamental(made), theirs)._asdict()
        said |= {"seconds": len(made) / self.opinions.RATE, "wanted_seconds": len(given) / self.opinions.RATE}
        return said | {"mcd": self.opinions.mel_cepstral_distortion(given, made)}

    def keep(self, file: Path, samples: np.ndarray) -> None:
        from rwae_audio.data.audio import write_audio

        file.parent.mkdir(parents=True, exist_ok=True)
        write_audio(file, samples, self.opinions.RATE)

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
