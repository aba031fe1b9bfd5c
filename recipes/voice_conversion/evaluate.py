"""Judge converted speech by independent models (extra `judge`): voice, words, quality and pitch.

    python recipes/voice_conversion/evaluate.py --data an4=DIR                                   200 pairs of test speakers
    python recipes/voice_conversion/evaluate.py --data an4=DIR --data timit=DIR --list timit     TIMIT's sentences
    python recipes/voice_conversion/evaluate.py --data kaldi=speechocean762 --list natural-test    natural sentences
    python recipes/voice_conversion/evaluate.py --data an4=DIR --list an4-dev --bundle new=RUN/bundle --rows rwae new
    python recipes/voice_conversion/evaluate.py --no-judge                                       only the tables

The table has a row for each system:

    source, target        the source unchanged; a recording of the target unchanged
    world                 WORLD, which moves F0 and stretches the spectral envelope
    copy-VOCODER          the source through a vocoder
    ceiling-VOCODER       a recording of the target through a vocoder, judged by its own words
    rwae                  conversion by the bundle in the package, as rwae-vc does it
    rwae-keep             the same with the pitch of the source
    rwae-adapted          the same with a voice that is adapted to a minute of the target
    rwae-VOCODER          the same with another vocoder
    rwae-reconstructed    conversion of the source into its own voice
    NAME, NAME-keep …     the same rows for another bundle (--bundle NAME=DIR)
    NAME                  conversion by AdaIN-VC (--adain NAME=DIR), with the neural vocoder

VOCODER is neural, griffin-lim or, if fetch_hifigan.py has been run, hifigan. The measures of each pair are written to
results/<list>/<row>.csv at once. So an interrupted row continues with the next pair, and a finished row is not judged again.
<row>.json has the SHA-256 of the list and of all weights; with other weights the row is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from judging import Judges, spoken
from pairs import LISTS, Pair, heard_errors, heard_in, read_pairs
from systems import System, named_systems
from tables import as_csv, read_csv, write_table

from rwae_audio.commands.common import Parser, guarded, say
from rwae_audio.files import InputError, read_json, sha256, write_json, write_text
from rwae_audio.settings import nearest

NAME = "evaluate.py"
HERE = Path(__file__).resolve().parent


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="a corpus of the list")
    parser.add_argument(
        "--list", choices=tuple(LISTS), default="an4-test", help="the list of pairs (default: an4-test)"
    )
    add_systems(parser)
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="judge only these rows")
    parser.add_argument("--pairs", type=int, metavar="N", help="judge only the first N pairs")
    parser.add_argument(
        "--audio", type=Path, metavar="DIR", help="write the conversions to DIR/<row>, with lists for VERSA"
    )
    parser.add_argument(
        "--into", type=Path, default=HERE / "results", metavar="DIR", help="the folder of results (default: results/)"
    )
    parser.add_argument("--no-judge", action="store_true", help="only write the table of the rows in the results")
    return parser.parse_args(argv)


def add_systems(parser: argparse.ArgumentParser) -> None:
    """Add the options for further systems to a parser: --bundle, --adain and --vocoder."""
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=DIR", help="a bundle, for further rows")
    parser.add_argument(
        "--adain",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a model of train_adain_vc.py, for a further row",
    )
    parser.add_argument(
        "--vocoder", type=Path, metavar="DIR", help="the neural vocoder (default: the one in the package)"
    )


def systems_of(options: argparse.Namespace) -> dict[str, System]:
    """Return all systems by the names of their rows, with those of the options of `add_systems`.

    Raises:
        InputError: A model cannot be read, a name is used twice, or --rows has an unknown name.
    """
    bundles, baselines = named_folders("--bundle", options.bundle), named_folders("--adain", options.adain)
    systems = named_systems(bundles, options.vocoder, baselines)
    for name in options.rows or []:
        if name not in systems:
            raise InputError(f"--rows {name}; {nearest(name, list(systems))}")
    return systems


def named_folders(option: str, words: Sequence[str]) -> dict[str, str]:
    """Return the folders of an option with values NAME=DIR, by name.

    Args:
        option: The name of the option.
        words: Its values.

    Raises:
        InputError: A value has another form, or a name occurs twice.
    """
    folders: dict[str, str] = {}
    for word in words:
        name, _, folder = word.partition("=")
        if not name or not folder or name in folders:
            raise InputError(f"{option} {word}; expected NAME=DIR, each name once")
        folders[name] = folder
    return folders


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    folder = options.into / options.list
    if not options.no_judge:
        judge_rows(options, folder)
    print(write_table(folder, options.list))
    return 0


def judge_rows(options: argparse.Namespace, folder: Path) -> None:
    """Judge all pairs that are not in the results yet.

    Args:
        options: The parsed command line.
        folder: The folder of the results of the list.

    Raises:
        InputError: A corpus of the list is missing, or a row has other weights than before.
    """
    from tqdm import tqdm

    from rwae_audio.data.corpora import corpus_sources

    systems = systems_of(options)
    systems = {name: systems[name] for name in options.rows or systems}
    list_path = HERE / "pairs" / f"{options.list}.csv"
    pairs, list_digest = read_pairs(list_path), {"list": sha256(list_path)}
    natural = folder / "natural.csv"
    check_digests(natural, list_digest)
    digests = {name: {**list_digest, **system.weights} for name, system in systems.items()}
    for name in systems:
        check_digests(folder / f"{name}.csv", digests[name])
    judges = Judges(heard_in(options.list, corpus_sources(options.data)), pairs, heard_errors(HERE / "pairs"))
    folder.mkdir(parents=True, exist_ok=True)
    if not natural.is_file():
        write_json(natural.with_suffix(".json"), list_digest)
        write_text(natural, as_csv(judges.natural(), ("encoder", "same", "cosine")))
    pairs = pairs[: options.pairs]
    for name, system in systems.items():
        path, audio = folder / f"{name}.csv", options.audio and options.audio / name
        rows: list[Mapping[str, Any]] = [*read_csv(path)] if path.is_file() else []
        if len(rows) >= len(pairs):
            say(NAME, f"{name}: judged before" + (f", so no conversions are written to {audio}" if audio else ""))
            continue
        write_json(path.with_suffix(".json"), digests[name])
        for pair in tqdm(pairs[len(rows) :], name, disable=None):
            rows.append(judges.judge(pair, system, audio and audio_file(audio, len(rows), pair)))
            write_text(path, as_csv(rows))
        if audio:
            write_versa(audio, pairs, system, judges)
        say(NAME, f"{name}: {len(rows)} pairs")


def check_digests(path: Path, digests: Mapping[str, str]) -> None:
    """Raise InputError if a row exists that was judged with another list or with other weights.

    Args:
        path: The CSV file of the row. The JSON file beside it has the digests of the row.
        digests: The SHA-256 of the list and of all weights by name.
    """
    if not path.is_file():
        return
    digest_path = path.with_suffix(".json")
    known = read_json(digest_path, "the digests of a row") if digest_path.is_file() else {}
    for name, digest in digests.items():
        if (earlier := known.get(name)) != digest:
            earlier = f"{earlier[:12]}…" if earlier else "of unknown digest"
            raise InputError(
                f"{path} was judged with {name} {earlier}; expected {digest[:12]}…, or another name or --into"
            )


def audio_file(folder: Path, number: int, pair: Pair) -> Path:
    """Return the path of the conversion of a pair, which has the index `number` in its list."""
    return folder / f"{number}_{Path(pair.source).stem}_as_{pair.target}.wav"


def write_versa(folder: Path, pairs: Sequence[Pair], system: System, judges: Judges) -> None:
    """Write pred.scp, gt.scp and text, the lists for VERSA (Shi et al. 2025), into a folder of conversions.

    The reference (`gt`) of a conversion is a recording of its target, for measures of the voice. The text is the source's.

    Args:
        folder: The folder of the conversions.
        pairs: The pairs.
        system: The system that made the conversions.
        judges: The judges, which have all utterances.
    """
    lists: dict[str, list[str]] = {"pred.scp": [], "gt.scp": [], "text": []}
    for number, pair in enumerate(pairs):
        file = audio_file(folder, number, pair)
        if file.is_file():
            reference = judges.utterances[pair.references[0]].path
            text = judges.utterances[spoken(pair, system, judges.errors)].text
            for lines, value in zip(lists.values(), (file.resolve(), reference.resolve(), text), strict=True):
                lines.append(f"{file.stem} {value}\n")
    for name, lines in lists.items():
        write_text(folder / name, "".join(lines))


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
