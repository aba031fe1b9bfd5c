"""Compute the equal error rate (EER) of a bundle's codes on a trial list, or of any system's embeddings or scores."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from rwae_audio.commands.common import DEVICE_HELP, Parser, beyond_full_scale, free_output, guarded, say
from rwae_audio.files import InputError

if TYPE_CHECKING:
    from rwae_audio.evaluation.trials import Trials
    from rwae_audio.inference.bundle import Bundle

NAME = "rwae-eer"
NOTES = 5  # the largest number of messages about single files


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog=NAME,
        description=__doc__,
        epilog="The layout of a score file is recognised by its first lines: `enrol test score target|nontarget`, "
        "`enrol test 1|0 score`, `1|0 enrol test score`, `score target|nontarget`, `score 1|0`, or, with --trials, "
        "`enrol test score`. CSV files need a header line with the columns enrol, test, score and label. If all labels and "
        "scores are 0 or 1, the layout is ambiguous, and the file is refused. Names of utterances may differ in their audio "
        "suffix and in their Unicode form.",
    )
    parser.add_argument(
        "--trials", type=Path, help="a trial list: lines `1|0 enrol test` or `enrol test target|nontarget`"
    )
    parser.add_argument(
        "--audio-dir",
        type=Path,
        metavar="DIR",
        help="the folder of the recordings, to which names in the list are relative",
    )
    parser.add_argument(
        "--embeddings",
        type=Path,
        metavar="FILE",
        help="embeddings of any system instead of recordings: safetensors or npz with names as keys, a folder of npy "
        "files, or Kaldi's ark or scp (extra kaldi)",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained model (default: the one in the package)")
    parser.add_argument("--device", help=DEVICE_HELP)
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        help="write the scores of the static code to FILE, in lines `enrol test score target|nontarget`",
    )
    parser.add_argument(
        "--from-scores", type=Path, metavar="FILE", help="a score file of any system instead of recordings"
    )
    parser.add_argument(
        "--p-target",
        action="append",
        type=probability,
        metavar="P",
        help="a prior probability of target trials for minDCF; may be repeated (default: 0.05 and 0.01). The table always "
        "has minDCF at 0.05",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")
    options = parser.parse_args(argv)
    names = ("trials", "audio_dir", "bundle", "device", "scores", "embeddings")
    inputs = {name: f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None}
    if options.from_scores and (conflicts := [name for name in inputs if name != "trials"]):
        parser.error(f"--from-scores allows no other input but --trials; got {inputs[conflicts[0]]} as well")
    if options.embeddings and (conflicts := [name for name in inputs if name in ("audio_dir", "bundle", "device")]):
        parser.error(f"--embeddings replaces recordings; got {inputs[conflicts[0]]} as well")
    if options.embeddings and "trials" not in inputs:
        parser.error("--embeddings FILE needs --trials FILE")
    if not (options.from_scores or options.embeddings or {"trials", "audio_dir"} <= set(inputs)):
        parser.error("expected --trials FILE and --audio-dir DIR, --trials and --embeddings, or --from-scores FILE")
    return options


def probability(text: str) -> float:
    """Return the number in a text. Raises ArgumentTypeError unless it is between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def main(argv: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = arguments(argv)
    command = report_file if options.from_scores else report_embeddings if options.embeddings else report_bundle
    return guarded(lambda: command(options), NAME)


def report_file(options: argparse.Namespace) -> int:
    """Print the report of the score file of --from-scores; its labels may be those of --trials."""
    from rwae_audio.evaluation.verification import read_scores, read_trials, report_scores

    listed = read_trials(options.trials) if options.trials else None
    scores, trials, target = read_scores(options.from_scores, listed)
    return _print_report(report_scores(scores, trials, target, p_targets=_p_targets(options)), options)


def report_embeddings(options: argparse.Namespace) -> int:
    """Print the report of the embeddings of --embeddings on the trial list of --trials."""
    from rwae_audio.evaluation.vectors import read_vectors
    from rwae_audio.evaluation.verification import cosine_scores, read_trials, report_scores, write_scores

    trials, vectors = read_vectors(options.embeddings, read_trials(options.trials))
    if options.scores:
        _check_scores_path(options)
    scores = cosine_scores(vectors, trials)
    summary = report_scores(scores, trials, trials.target, p_targets=_p_targets(options))
    if options.scores:
        write_scores(options.scores, trials, scores)
        say(NAME, f"wrote the scores to {options.scores}")
    return _print_report(summary, options)


def _p_targets(options: argparse.Namespace) -> tuple[float, ...]:
    """Return the prior probabilities for minDCF."""
    from rwae_audio.evaluation.verification import P_TARGETS

    return tuple(options.p_target or P_TARGETS)


def _print_report(summary: dict[str, Any], options: argparse.Namespace) -> int:
    """Print the report of one system, and return the exit code 0."""
    if options.json:
        print(json.dumps(summary))
        return 0
    span = summary["interval"]
    interval = f" [{100 * span[0]:.2f}, {100 * span[1]:.2f}]" if span else " (no names, no interval)"
    print(f"{summary['trials']:,} trials, {summary['target_trials']:,} of them target")
    print(f"EER {100 * summary['eer']:.2f} %{interval} at threshold {summary['threshold']:.4g}; {_costs(summary)}")
    return 0


def _costs(summary: dict[str, Any]) -> str:
    """Return the minimum detection costs of a report as text."""
    return "minDCF " + ", ".join(f"{cost:.3f} (P {p_target})" for p_target, cost in summary["min_dcf_at"].items())


def report_bundle(options: argparse.Namespace) -> int:
    """Print the report of a bundle's codes on the trial list of --trials, with recordings in --audio-dir."""
    from rwae_audio.evaluation.tables import format_table
    from rwae_audio.evaluation.verification import read_trials, report, speakers_of, write_scores

    trials = read_trials(options.trials)
    paths = audio_paths(trials, options.audio_dir)
    speakers_of(trials)  # raises InputError for a contradictory list before all recordings are read
    if options.scores:
        _check_scores_path(options)

    from rwae_audio.inference.bundle import load_bundle

    bundle = load_bundle(options.bundle, options.device or "cpu")
    static, dynamic, resampled, notes = embed_files(bundle, paths)
    summary, scores = report(
        static, dynamic, trials, bundle.dynamic_mean, synthetic=bundle.synthetic, p_targets=_p_targets(options)
    )
    if resampled:
        say(NAME, f"resampled {resampled} of {len(paths)} files to {bundle.sample_rate} Hz")
    for note in notes[:NOTES]:
        say(NAME, note)
    if len(notes) > NOTES:
        say(NAME, f"there are {len(notes) - NOTES} more messages about other files")
    if options.scores:
        write_scores(options.scores, trials, scores["static"])
        say(NAME, f"wrote the static scores to {options.scores}")
    if options.json:
        print(json.dumps(summary))
        return 0
    count = f"{summary['trials']:,} trials, {summary['target_trials']:,} of them target, {summary['speakers']} speakers"
    print(f"{count}; static threshold {summary['static']['threshold']:.4g}, {_costs(summary['static'])}")
    print(format_table({bundle.config.objective.name: summary}))
    return 0


def _check_scores_path(options: argparse.Namespace) -> None:
    """Raise InputError if the file of --scores cannot be written, or is the trial list."""
    free_output(options.scores, force=True)
    if os.path.exists(options.scores) and options.scores.samefile(options.trials):
        raise InputError(f"--scores {options.scores} is the trial list; expected another file")


def audio_paths(trials: Trials, folder: Path) -> list[Path]:
    """Return the path of the recording of each utterance of a trial list.

    It is the file with the utterance's name, or a recording whose name matches by `same_names`.

    Args:
        trials: The trial list.
        folder: The folder of the recordings.

    Raises:
        InputError: A name is outside of the folder, or it matches no recording or several recordings.
    """
    from rwae_audio.data.corpora.base import EXTRA_SUFFIXES, SUFFIXES, audio_files
    from rwae_audio.evaluation.trials import same_names

    if not os.path.isdir(folder):
        raise InputError(
            f"--audio-dir {folder} is not a folder; expected the folder that the names in the trial list are relative to"
        )
    for name in trials.names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"the trial list names {name}; expected a path below {folder}")
    files = {name: name for name in trials.names if os.path.isfile(folder / name)}
    if len(files) < len(trials.names):
        recordings = (name for _, name in audio_files(folder, (*SUFFIXES, *EXTRA_SUFFIXES)))
        files = same_names(trials.names, list(dict.fromkeys([*files, *recordings])))
    missing = [name for name in trials.names if name not in files and not os.path.exists(folder / name)]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(trials.names)} files are not in {folder}, the first {missing[0]}; expected all"
        )
    return [folder / files.get(name, name) for name in trials.names]


class FileEmbeddings(NamedTuple):
    """The embeddings of recordings.

    Attributes:
        static: The static embeddings, (M, d).
        dynamic: The dynamic embeddings, (M, e).
        resampled: The number of recordings that were resampled.
        notes: Messages for the user.
    """

    static: Any
    dynamic: Any
    resampled: int
    notes: list[str]


def embed_files(bundle: Bundle, paths: list[Path]) -> FileEmbeddings:
    """Return the embeddings of recordings.

    Args:
        bundle: The bundle.
        paths: The paths of the recordings.

    Raises:
        InputError: A recording cannot be read, or is silent.
    """
    import numpy as np
    from tqdm import tqdm

    from rwae_audio.data.audio import read_audio
    from rwae_audio.data.level import FAR_BEYOND, speech_of

    static, dynamic, resampled, notes = [], [], 0, []
    for path in tqdm(paths, desc="embedding", unit="file", disable=not sys.stderr.isatty(), leave=False):
        audio = read_audio(path, bundle.sample_rate)
        level = speech_of(audio.samples, bundle.sample_rate).level
        if level.silent:
            raise InputError(f"{path} is silent; expected speech")
        try:
            embedding = bundle.embed(audio.samples)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        resampled += audio.source_rate != audio.sample_rate
        notes += [f"{path}: {note}" for note in audio.notes]
        if level.peak > FAR_BEYOND:
            notes.append(f"warning: {beyond_full_scale(path, level.peak)}")
        static.append(embedding.static[0])
        dynamic.append(embedding.dynamic[0])
    return FileEmbeddings(np.array(static), np.array(dynamic), resampled, notes)


if __name__ == "__main__":
    sys.exit(main())
