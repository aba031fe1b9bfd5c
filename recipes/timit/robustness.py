"""Measure the EER of speaker embeddings on degraded recordings: level, hum, codecs, noise, reverberation.

    python recipes/timit/robustness.py --trials FILE --audio-dir DIR [--bundle DIR]      the table for a bundle's static code
    python recipes/timit/robustness.py --trials FILE --audio-dir DIR --write DEGRADED    only write the degraded recordings
    python recipes/timit/robustness.py --trials FILE --embeddings VECTORS                the table for another system

The second recording of each trial is degraded (test side), or both recordings are (both sides). DEGRADED has a folder for each
condition. VECTORS has a file with the embeddings of each condition, such as plain.safetensors, in any format that
`rwae-eer --embeddings` reads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from degradations import CONDITIONS, PLAIN, RATE, Condition, babblers, write_recording
from tqdm import tqdm

from rwae_audio.commands.common import Parser, guarded, new_folder, recorded, say
from rwae_audio.commands.eer import audio_paths
from rwae_audio.data.audio import load_audio
from rwae_audio.evaluation.trials import Trials, read_trials, speakers_of
from rwae_audio.evaluation.vectors import read_vectors
from rwae_audio.evaluation.verification import bootstrap_eers, cosine_scores, eer, interval
from rwae_audio.files import InputError, whole_folder, write_json, write_text
from rwae_audio.randomness import generator

if TYPE_CHECKING:
    from rwae_audio.inference.bundle import Bundle

NAME = "robustness.py"
SIDES = {"test": "test side", "both": "both sides"}  # side of a trial → its label
Embed = Callable[[Sequence[Path]], Iterable[np.ndarray]]  # the paths of recordings → their embeddings (d,)
Vectors = dict[str, np.ndarray]  # name of a condition → embeddings (M, d) in the order of trials.names


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=Path, required=True, metavar="FILE", help="a trial list, as for rwae-eer")
    parser.add_argument(
        "--audio-dir",
        type=Path,
        metavar="DIR",
        help="the folder of the recordings, to which names in the list are relative",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained model (default: the one in the package)")
    parser.add_argument("--ecapa", type=Path, metavar="RUN", help="a run folder of ecapa.py, for a further row")
    text = "a folder with embeddings of another system, a file for each condition; its name is the name of the row"
    parser.add_argument("--embeddings", type=Path, action="append", default=[], metavar="DIR", help=text)
    parser.add_argument("--write", type=Path, metavar="DIR", help="only write the degraded recordings")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the folder of the report (default: a new one in runs/)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the seed of the degradations (default: 0)")
    replicates = "the number of bootstrap draws of speakers (default: 200)"
    parser.add_argument("--replicates", type=int, default=200, metavar="N", help=replicates)
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="the number of CPU threads (default: 2)")
    options = parser.parse_args(argv)
    if options.audio_dir is None and (options.write or not options.embeddings):
        parser.error("expected --audio-dir DIR, or --embeddings DIR with embeddings of degraded recordings")
    if options.write and (options.embeddings or options.ecapa or options.bundle or options.out):
        parser.error("--write allows no other options than --trials, --audio-dir and --seed")
    if min(options.threads, options.replicates) < 1:
        parser.error("expected --threads and --replicates of at least 1")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    import torch

    torch.set_num_threads(options.threads)
    trials = read_trials(options.trials)
    speakers_of(trials)  # raises InputError for a contradictory list before all recordings are read
    for folder in (options.write, options.out):
        if folder is not None and folder.exists():
            raise InputError(f"{folder} exists already; expected a new folder")
    rows = {folder.resolve().name: read_conditions(folder, trials) for folder in options.embeddings}
    if len(rows) < len(options.embeddings):
        raise InputError("--embeddings has two folders with the same name, which names a row; expected different names")
    if options.audio_dir is not None:
        paths = audio_paths(trials, options.audio_dir)
        recordings = Recordings(trials.names, paths, babblers(trials, paths, options.audio_dir), options.seed)
        if options.write:
            write_all(recordings, options.write)
            return 0
        rows = {**embed_all(recordings, systems(options, rows)), **rows}
    report = {
        "command": portable(sys.argv[1:]),
        "seed": options.seed,
        "trials": len(trials),
        "target_trials": int(trials.target.sum()),
        "replicates": options.replicates,
        "rows": {name: score(trials, vectors, options.replicates) for name, vectors in rows.items()},
    }
    write_report(new_folder(options.out, "robustness"), report)
    return 0


def portable(words: list[str]) -> str:
    """Return the command line without paths of this computer: the parent folder of an absolute path becomes $DIR."""
    names = [f"$DIR/{Path(word).name}" if Path(word).is_absolute() else word for word in recorded(words)]
    return " ".join(["python recipes/timit/robustness.py", *names])


@dataclass(frozen=True)
class Recordings:
    """The recordings of a trial list.

    Attributes:
        names: The names of the utterances.
        paths: The path of each recording.
        pools: The possible background talkers of each recording, from `babblers`.
        seed: The seed of all random numbers.
    """

    names: tuple[str, ...]
    paths: list[Path]
    pools: list[list[list[Path]]]
    seed: int

    def write(self, condition: Condition, folder: Path, bar: tqdm) -> list[Path]:
        """Write all recordings in a condition, and return their paths.

        Args:
            condition: The condition.
            folder: The folder of the degraded recordings.
            bar: The progress bar.

        Raises:
            InputError: Two recordings would have the same path.
        """
        written = [folder / condition.place(name) for name in self.names]
        if len(set(written)) < len(written):
            path = next(path for path in written if written.count(path) > 1)
            raise InputError(f"the trial list has two recordings that become {path.name}; expected names that differ")
        for name, source, path, pool in zip(self.names, self.paths, written, self.pools, strict=True):
            rng = np.random.default_rng(generator(self.seed, f"{condition.name}/{name}").initial_seed())
            chosen = rng.permutation(len(pool))[: condition.talkers]
            talkers = [load_audio(pool[i][int(rng.integers(len(pool[i])))], RATE) for i in chosen]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_recording(path, condition.degrade(load_audio(source, RATE), rng, talkers), condition)
            bar.update()
        return written


def degraded_paths(recordings: Recordings, folder: Path) -> dict[str, list[Path]]:
    """Return the paths of all recordings in each condition below a folder, and write them first if it does not exist."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_all(recordings, folder)
    return {
        condition.name: [folder / condition.name / condition.place(name) for name in recordings.names]
        for condition in CONDITIONS
    }


def write_all(recordings: Recordings, folder: Path) -> None:
    """Write a folder for each condition into a new folder, whole or not at all."""
    count = len(recordings.paths)
    with whole_folder(folder) as temporary, progress(len(CONDITIONS) * count, "degrading") as bar:
        for condition in CONDITIONS:
            recordings.write(condition, temporary / condition.name, bar)
    say(NAME, f"wrote {len(CONDITIONS)} conditions of {count} recordings to {folder}")


def embed_all(recordings: Recordings, embedders: Mapping[str, Embed]) -> dict[str, Vectors]:
    """Return the embeddings of all systems in all conditions. The degraded recordings are temporary files.

    Args:
        recordings: The recordings.
        embedders: The function of each system from paths to embeddings.
    """
    rows: dict[str, Vectors] = {name: {} for name in embedders}
    with progress(len(CONDITIONS) * len(recordings.paths) * (1 + len(embedders)), "degrading, embedding") as bar:
        for condition in CONDITIONS:
            with tempfile.TemporaryDirectory() as place:
                paths = recordings.write(condition, Path(place) / condition.name, bar)
                for name, embed in embedders.items():
                    vectors = []
                    for vector in embed(paths):
                        vectors.append(vector)
                        bar.update()
                    rows[name][condition.name] = np.stack(vectors)
    return rows


def progress(total: int, words: str) -> tqdm:
    """Return a progress bar with `total` steps, which is shown only on a terminal."""
    return tqdm(total=total, desc=words, unit="file", disable=not sys.stderr.isatty(), leave=False)


def systems(options: argparse.Namespace, taken: Collection[str]) -> dict[str, Embed]:
    """Return the systems that embed recordings, by name. Systems that are not installed are left out, with a message.

    Args:
        options: The parsed command line.
        taken: The names of other rows.

    Raises:
        InputError: The name of a system is the name of another row.
    """
    from rwae_audio.inference.bundle import load_bundle

    bundle = load_bundle(options.bundle)
    embedders: dict[str, Embed] = {bundle.config.objective.name: lambda paths: static_codes(bundle, paths)}
    try:
        from resemblyzer import VoiceEncoder, preprocess_wav

        embed = VoiceEncoder("cpu", verbose=False).embed_utterance
        embedders["d-vector"] = lambda paths: (embed(preprocess_wav(load_audio(path, RATE))) for path in paths)
    except ImportError as error:
        say(NAME, f"d-vector is left out: resemblyzer cannot be imported ({error}); pip install 'rwae-audio[judge]'")
    if options.ecapa is None:
        say(NAME, "ecapa is left out; expected --ecapa RUN, a run folder of ecapa.py")
    else:
        from ecapa import embedder

        embedders["ecapa"] = embedder(options.ecapa)
    if clashes := set(taken) & set(embedders):
        raise InputError(f"--embeddings {min(clashes)} has the name of another row; expected another folder name")
    return embedders


def static_codes(bundle: Bundle, paths: Iterable[Path]) -> Iterator[np.ndarray]:
    """Yield the static code (static_dim,) of each recording."""
    from rwae_audio.conversion.reading import read_file
    from rwae_audio.conversion.voice import voice_of

    for path in paths:
        yield voice_of(bundle, read_file(path, bundle.config.mel), register=False).code.numpy()


def read_conditions(folder: Path, trials: Trials) -> Vectors:
    """Read the embeddings of another system in all conditions.

    Args:
        folder: The folder, with a file for each condition.
        trials: The trial list.

    Raises:
        InputError: The embeddings of a condition are missing, or their lengths differ between conditions.
    """
    if not folder.is_dir():
        raise InputError(f"--embeddings {folder} is not a folder; expected one with a file for each condition")
    files = {path.stem: path for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
    missing = [condition.name for condition in CONDITIONS if condition.name not in files]
    if missing:
        raise InputError(f"--embeddings {folder} has no embeddings of {', '.join(missing)}; expected a file for each")
    vectors = {condition.name: read_vectors(files[condition.name], trials)[1] for condition in CONDITIONS}
    if len({matrix.shape[1] for matrix in vectors.values()}) > 1:
        raise InputError(
            f"--embeddings {folder} has embeddings of several lengths; expected the same length in all conditions"
        )
    return vectors


def score(trials: Trials, vectors: Vectors, replicates: int) -> dict[str, Any]:
    """Return the EER and its interval for each condition and side, and for `mean`, the mean over all degradations.

    Args:
        trials: The trial list.
        vectors: The embeddings in each condition.
        replicates: The number of bootstrap draws.
    """
    speakers = speakers_of(trials)
    pairs = replace(trials, names=trials.names * 2, test=trials.test + len(trials.names))
    report: dict[str, Any] = {}
    draws: dict[str, list[np.ndarray]] = {side: [] for side in SIDES}
    for name, degraded in vectors.items():
        report[name] = {}
        for side, enrol in (("test", vectors[PLAIN]), ("both", degraded)):
            scores = cosine_scores(np.concatenate([enrol, degraded]), pairs)
            eers = bootstrap_eers(scores, trials, speakers, replicates)
            report[name][side] = {"eer": eer(scores, trials.target), "interval": interval(eers)}
            if name != PLAIN:
                draws[side].append(eers)
    report["mean"] = {}
    for side in SIDES:
        rate = float(np.mean([report[name][side]["eer"] for name in vectors if name != PLAIN]))
        report["mean"][side] = {"eer": rate, "interval": interval(np.mean(draws[side], axis=0))}
    return report


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Print the table, and write robustness.json, robustness.md and robustness.png into a folder."""
    from rwae_audio.evaluation.plots import robustness
    from rwae_audio.evaluation.tables import aligned, markdown_table, with_interval

    labels = {condition.name: condition.label for condition in CONDITIONS} | {"mean": "mean of the degradations"}
    header = ["recording", *(f"{row}, {side}" for row in report["rows"] for side in SIDES.values())]
    cells = []
    for name, label in labels.items():
        rates = (values[name][side] for values in report["rows"].values() for side in SIDES)
        cells.append([label, *(with_interval(rate["eer"], rate["interval"]) for rate in rates)])
    print("\n".join(aligned([header, *cells])))
    lines = ["EER in %, with 95 % intervals of a bootstrap over speakers.", "", markdown_table(header, cells)]
    lines += ["", f"{report['trials']:,} trials, seed {report['seed']}: `{report['command']}`", ""]
    write_json(folder / "robustness.json", report)
    write_text(folder / "robustness.md", "\n".join(lines))
    robustness(folder / "robustness.png", labels, report["rows"], SIDES)
    say(NAME, f"wrote robustness.json, robustness.md and robustness.png to {folder}")


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
