"""rwae-eer: EER of a bundle's codes on a trial list, or of any system's vectors or scores."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rwae_audio.commands.common import Parser, free_output, guarded, say
from rwae_audio.files import InputError

if TYPE_CHECKING:
    from rwae_audio.bundle import Bundle
    from rwae_audio.trials import Trials

NAME = "rwae-eer"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__)
    parser.add_argument("--trials", type=Path, help="lines `1|0 enrol test`, or Kaldi's `enrol test target|nontarget`")
    parser.add_argument("--audio-dir", type=Path, metavar="DIR", help="the names in the list are paths below it")
    parser.add_argument(
        "--embeddings",
        type=Path,
        metavar="FILE",
        help="any system's vectors instead of audio: safetensors, a name a key",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained bundle (the shipped one)")
    parser.add_argument(
        "--scores", type=Path, metavar="FILE", help="write `enrol test score target|nontarget` (static)"
    )
    parser.add_argument("--from-scores", type=Path, metavar="FILE", help="report on a score file of any system instead")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
    options = parser.parse_args(argv)
    names = ("trials", "audio_dir", "bundle", "scores", "embeddings")
    given = {name: f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None}
    if options.from_scores and given:
        parser.error(f"--from-scores stands alone; got {next(iter(given.values()))} as well")
    if options.embeddings and (others := {"audio_dir", "bundle"} & set(given)):
        parser.error(f"--embeddings stands in for audio; got {given[min(others)]} as well")
    if options.embeddings and "trials" not in given:
        parser.error("--embeddings FILE goes with --trials FILE")
    if not (options.from_scores or options.embeddings or {"trials", "audio_dir"} <= set(given)):
        parser.error("expected --trials FILE and --audio-dir DIR, --trials and --embeddings, or --from-scores FILE")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    how = report_file if options.from_scores else report_embeddings if options.embeddings else report_bundle
    return guarded(lambda: how(options), NAME)


def report_file(options: argparse.Namespace) -> int:
    """--from-scores."""
    from rwae_audio.verification import read_scores, report_scores

    return _say_scores(report_scores(*read_scores(options.from_scores)), options)


def report_embeddings(options: argparse.Namespace) -> int:
    """--trials and --embeddings."""
    from rwae_audio.verification import cosine_scores, read_trials, report_scores, write_scores

    trials = read_trials(options.trials)
    trials, vectors = read_vectors(options.embeddings, trials)
    if options.scores:
        _scores_place(options)
    scores = cosine_scores(vectors, trials)
    said = report_scores(scores, trials, trials.target)
    if options.scores:
        write_scores(options.scores, trials, scores)
        say(NAME, f"wrote the scores to {options.scores}")
    return _say_scores(said, options)


def read_vectors(path: Path, trials: Trials) -> tuple[Trials, Any]:
    """The trials, named as in the file, and a vector (M, d) for each of their names, from a safetensors file with a key
    an utterance; keys as rwae-embed writes them (static/NAME) will do. Raises InputError."""
    import numpy as np

    from rwae_audio.files import read_tensors
    from rwae_audio.trials import match_names

    tensors = read_tensors(path, "a safetensors file with a vector a name")
    static = {key.removeprefix("static/"): value for key, value in tensors.items() if key.startswith("static/")}
    tensors = static or tensors
    trials = match_names(trials, list(tensors))
    first = tensors[trials.names[0]]
    for name in trials.names:
        shape = tuple(tensors[name].shape)
        if len(shape) != 1 or shape != tuple(first.shape):
            wanted = f"one vector a name, ({first.shape[-1] if first.ndim else 'd'},) for all"
            raise InputError(f"{path}: {name} has shape {shape}; expected {wanted}")
    return trials, np.stack([tensors[name].double().numpy() for name in trials.names])


def _say_scores(said: dict[str, Any], options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps(said))
        return 0
    span = said["interval"]
    between = f" [{100 * span[0]:.2f}, {100 * span[1]:.2f}]" if span else " (no names, no interval)"
    print(f"{said['trials']:,} trials, {said['target_trials']:,} of them target")
    print(
        f"EER {100 * said['eer']:.2f} %{between} at threshold {said['threshold']:.4g}; minDCF {said['min_dcf']:.3f} (P 0.05)"
    )
    return 0


def report_bundle(options: argparse.Namespace) -> int:
    """--trials and --audio-dir."""
    from rwae_audio.verification import format_table, read_trials, report, speakers_of, write_scores

    trials = read_trials(options.trials)
    paths = audio_paths(trials, options.audio_dir)
    speakers_of(trials)  # raises where the list contradicts itself, before minutes are spent on it
    if options.scores:
        _scores_place(options)

    from rwae_audio.bundle import load_bundle

    bundle = load_bundle(options.bundle)
    static, dynamic, resampled = embed_files(bundle, paths)
    said, scores = report(static, dynamic, trials, bundle.dynamic_mean, synthetic=bundle.synthetic)
    if resampled:
        say(NAME, f"resampled {resampled} of {len(paths)} files to {bundle.sample_rate} Hz")
    if options.scores:
        write_scores(options.scores, trials, scores["static"])
        say(NAME, f"wrote the static scores to {options.scores}")
    if options.json:
        print(json.dumps(said))
        return 0
    count = f"{said['trials']:,} trials, {said['target_trials']:,} of them target, {said['speakers']} speakers"
    print(f"{count}; static threshold {said['static']['threshold']:.4g}")
    print(format_table({bundle.config.objective.name: said}))
    return 0


def _scores_place(options: argparse.Namespace) -> None:
    """Raises InputError where --scores cannot be written, or would replace the trial list."""
    free_output(options.scores, force=True)
    if os.path.exists(options.scores) and options.scores.samefile(options.trials):
        raise InputError(f"--scores {options.scores} is the trial list itself; expected another file")


def audio_paths(trials: Trials, folder: Path) -> list[Path]:
    """The files of trials.names. Raises InputError for a name that leaves the folder, and for missing files."""
    if not os.path.isdir(folder):
        raise InputError(
            f"--audio-dir {folder} is not a folder; expected the folder that the trial list's names start from"
        )
    paths = []
    for name in trials.names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"the trial list names {name}; expected a path below {folder}")
        paths.append(folder / name)
    missing = [name for name, path in zip(trials.names, paths, strict=True) if not os.path.exists(path)]
    if missing:
        raise InputError(f"{len(missing)} of {len(paths)} files are not in {folder}, the first {missing[0]}")
    return paths


def embed_files(bundle: Bundle, paths: list[Path]) -> tuple[Any, Any, int]:
    """Static (M, d) and dynamic (M, e) vectors of the files, and how many were resampled. Raises InputError for
    silence: it has no speaker."""
    import numpy as np
    from tqdm import tqdm

    from rwae_audio.audio import read_audio
    from rwae_audio.conversion import is_silent

    static, dynamic, resampled = [], [], 0
    for path in tqdm(paths, desc="embedding", unit="file", disable=not sys.stderr.isatty(), leave=False):
        audio = read_audio(path, bundle.sample_rate)
        if is_silent(audio.samples):
            raise InputError(f"{path} is silent; expected speech")
        try:
            vectors = bundle.embed(audio.samples)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        resampled += audio.source_rate != audio.sample_rate
        static.append(vectors.static[0])
        dynamic.append(vectors.dynamic[0])
    return np.array(static), np.array(dynamic), resampled


if __name__ == "__main__":
    sys.exit(main())
