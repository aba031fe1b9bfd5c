"""rwae-eer: EER of a bundle's static and dynamic codes on a trial list, or of any system's score file."""

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
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained bundle (the shipped one)")
    parser.add_argument(
        "--scores", type=Path, metavar="FILE", help="write `enrol test score target|nontarget` (static)"
    )
    parser.add_argument("--from-scores", type=Path, metavar="FILE", help="report on a score file of any system instead")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
    options = parser.parse_args(argv)
    others = [name for name in ("trials", "audio_dir", "bundle", "scores") if getattr(options, name) is not None]
    if options.from_scores and others:
        parser.error(f"--from-scores stands alone; got --{others[0].replace('_', '-')} as well")
    if not options.from_scores and (options.trials is None or options.audio_dir is None):
        parser.error("expected --trials FILE and --audio-dir DIR, or --from-scores FILE")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return guarded(lambda: report_file(options) if options.from_scores else report_bundle(options), NAME)


def report_file(options: argparse.Namespace) -> int:
    """--from-scores."""
    from rwae_audio.verification import read_scores, report_scores

    said = report_scores(*read_scores(options.from_scores))
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
        free_output(options.scores, force=True)
        if os.path.exists(options.scores) and options.scores.samefile(options.trials):
            raise InputError(f"--scores {options.scores} is the trial list itself; expected another file")

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
