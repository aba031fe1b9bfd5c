"""The plan of rwae-vc: a list of recordings with their output files, checked before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rwae_audio.commands.common import free_output
from rwae_audio.commands.voices import Target, targets_in
from rwae_audio.files import InputError


class Job(NamedTuple):
    """A conversion: the source recording, the output file and the target voice."""

    source: Path
    output: Path
    target: Target


class Failure(NamedTuple):
    """A failed conversion: the source recording, the reason of the failure and the name of the target voice."""

    source: str
    reason: str
    voice: str


class Plan(NamedTuple):
    """The work of one call of rwae-vc.

    Attributes:
        jobs: The conversions.
        skipped: Existing output files, which are not written again (--skip-existing).
        failed: Recordings in a folder that need a decoder which is not installed.
        others: The number of files in the folder of recordings or of voices that have another suffix.
        output: The output file or the output folder.
        folder: Whether the output is a folder. Then failed conversions are reported, and the others continue.
        shared: The source of all jobs if one recording is converted into several voices, otherwise None.
    """

    jobs: list[Job]
    skipped: list[Path]
    failed: list[Failure]
    others: int
    output: Path
    folder: bool
    shared: Path | None = None


def planned(source: Path, target: Target, output: Path | None, force: bool, skip: bool) -> Plan:
    """Plan the conversion of a recording, or of a folder of recordings, into one voice.

    Args:
        source: The recording or the folder.
        target: The target voice.
        output: The output file or folder; None for a name that consists of the names of source and voice.
        force: Whether existing output files are overwritten.
        skip: Whether existing output files are skipped.

    Raises:
        InputError: An input does not exist, or an output would overwrite a file.
    """
    for path in target.files:
        if not os.path.exists(path):
            raise InputError(f"{path} does not exist; expected a recording, or a file of rwae-embed for --voice")
    folder = os.path.isdir(source)
    plan = _folder_plan(source, output, target) if folder else _file_plan(source, output, target, force or skip)
    return _checked(plan, [source, *target.files], force, skip)


def planned_voices(source: Path, folder: Path, output: Path | None, force: bool, skip: bool) -> Plan:
    """Plan the conversion of one recording into every voice in a folder.

    Args:
        source: The recording.
        folder: The folder of voices.
        output: The output folder; None for a name that consists of the names of recording and folder.
        force: Whether existing output files are overwritten.
        skip: Whether existing output files are skipped.

    Raises:
        InputError: An input does not exist, or an output would overwrite a file.
    """
    targets, others = targets_in(folder)
    if os.path.isdir(source):
        raise InputError(f"{source} is a folder; expected one recording, as --targets has the voices")
    if not os.path.exists(source):
        raise InputError(f"{source} does not exist; expected a recording")
    output = _output_folder(output or Path(f"{source.stem}_as_{folder.resolve().name}"), "--targets has several voices")
    if output.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"--output {output} lies in --targets {folder}; expected a folder elsewhere")
    jobs = [Job(source, output / f"{source.stem}_as_{target.name}.wav", target) for target in targets]
    inputs = [source, *(path for target in targets for path in target.files)]
    return _checked(Plan(jobs, [], [], others, output, True, source), inputs, force, skip)


def recordings_in(folder: Path) -> tuple[list[str], int]:
    """Return the relative paths of the recordings below a folder, sorted, and the number of other files.

    Raises:
        InputError: There are no recordings.
    """
    from rwae_audio.data.corpora.base import EXTRA_SUFFIXES, SUFFIXES, audio_files

    recordings = sorted(name for _, name in audio_files(folder, SUFFIXES + EXTRA_SUFFIXES))
    files = {Path(parent, name) for parent, _, names in os.walk(folder) for name in names}
    others = len(files - {folder / name for name in recordings})
    if not recordings:
        raise InputError(f"{folder} has no recordings ({others} other files); expected {', '.join(SUFFIXES)}")
    return recordings, others


def _checked(plan: Plan, inputs: Sequence[Path], force: bool, skip: bool) -> Plan:
    """Return a plan without the jobs that are skipped.

    Raises InputError if outputs have the same path or are among the input files, or if they exist without `force`.
    """
    _refuse_clashes(plan.jobs, inputs)
    existing = {job.output for job in plan.jobs if os.path.isfile(job.output)}
    if skip:
        jobs = [job for job in plan.jobs if job.output not in existing]
        return plan._replace(jobs=jobs, skipped=[job.output for job in plan.jobs if job.output in existing])
    if existing and plan.folder and not force:
        raise InputError(
            f"{len(existing)} of {len(plan.jobs)} files are in {plan.output} already, the first {min(existing)}; "
            "expected another folder, --skip-existing or --force"
        )
    return plan


def _file_plan(source: Path, output: Path | None, target: Target, overwrite: bool) -> Plan:
    """Return the plan for one recording. Raises InputError as `planned` does."""
    if not os.path.exists(source):
        raise InputError(f"{source} does not exist; expected a recording, or a folder of them")
    name = f"{source.stem}_as_{target.name}.wav"
    if output is None:
        output = Path(name)
    elif os.path.isdir(output) or str(output).endswith(os.sep):
        output = output / name
    if output.suffix.lower() not in (".wav", ".flac"):
        raise InputError(f"--output {output}; expected a name that ends in .wav or .flac, or a folder that exists")
    free_output(output, overwrite)
    return Plan([Job(source, output, target)], [], [], 0, output, False)


def _folder_plan(source: Path, output: Path | None, target: Target) -> Plan:
    """Return the plan for a folder: each output is a .wav file with the relative path of its source."""
    output = _output_folder(output or Path(f"{source.resolve().name}_as_{target.name}"), "SOURCE is one")
    if output.resolve().is_relative_to(source.resolve()):
        raise InputError(f"--output {output} lies in SOURCE {source}; expected a folder elsewhere")
    names, others = recordings_in(source)
    failed = _unreadable([source / name for name in names], target.name)
    unreadable = {failure.source for failure in failed}
    readable = [name for name in names if str(source / name) not in unreadable]
    jobs = [Job(source / name, (output / name).with_suffix(".wav"), target) for name in readable]
    return Plan(jobs, [], failed, others, output, True)


def _output_folder(output: Path, reason: str) -> Path:
    """Return `output` if it can be an output folder. Raises InputError, with the reason why it has to be a folder."""
    if output.suffix.lower() in (".wav", ".flac") or (os.path.exists(output) and not os.path.isdir(output)):
        raise InputError(f"--output {output} is a file's name; expected a folder, as {reason}")
    if not os.path.isdir(output.parent):
        raise InputError(f"the folder {output.parent} does not exist; expected one to make {output.name} in")
    return output


def _unreadable(paths: Sequence[Path], voice: str) -> list[Failure]:
    """Return the recordings that cannot be read because PyAV is not installed."""
    from rwae_audio.data.audio import open_audio
    from rwae_audio.data.corpora.base import readable_suffixes

    failed = []
    for path in paths:
        if path.suffix.lower() not in readable_suffixes():
            try:
                open_audio(path)
            except InputError as error:
                failed.append(Failure(str(path), str(error), voice))
    return failed


def _refuse_clashes(jobs: Sequence[Job], inputs: Sequence[Path]) -> None:
    """Raise InputError if two outputs have the same path, or an output is one of the input files."""
    origins: dict[Path, Path] = {}
    several_voices = len({job.target for job in jobs}) > 1
    input_files = {_identity(path) for path in [*inputs, *(job.source for job in jobs)]}
    for source, output, target in jobs:
        origin = target.origin if several_voices else source
        if output in origins:
            raise InputError(f"{origins[output]} and {origin} would both become {output}; expected different names")
        origins[output] = origin
        if os.path.isdir(output):
            raise InputError(f"{output} is a folder; expected the name of a file")
        if os.path.exists(output) and _identity(output) in input_files:
            raise InputError(f"{output} is one of the files that are read; expected another name for the result")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and the inode of a file, which all its names share, or None for a broken link."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
