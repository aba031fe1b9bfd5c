"""The plan of rwae-vc: which recording becomes which file. All that it refuses is refused before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rwae_audio.commands.common import free_output
from rwae_audio.commands.voices import Target, targets_in
from rwae_audio.files import InputError


class Job(NamedTuple):
    """A recording, the file that it becomes, and the voice of that file."""

    source: Path
    output: Path
    target: Target


class Failure(NamedTuple):
    """A recording that cannot be converted, the reason, and the name of the voice."""

    source: str
    reason: str
    voice: str


class Plan(NamedTuple):
    """The work of one command.

    Attributes:
        jobs: What is to be converted.
        skipped: Outputs that exist and stay as they are.
        failed: Recordings of a folder that cannot be read here.
        others: The number of files in the folder that are no recordings, or no voices, by their names.
        output: The file or the folder that is written.
        folder: Whether a folder of results is written. Then what is bad is left out and named.
        shared: The recording that is the source of all jobs, with several voices; otherwise None.
    """

    jobs: list[Job]
    skipped: list[Path]
    failed: list[Failure]
    others: int
    output: Path
    folder: bool
    shared: Path | None = None


def planned(source: Path, target: Target, output: Path | None, force: bool, skip: bool) -> Plan:
    """Plan the conversion of a recording or a folder of them into one voice.

    Args:
        output: None for a name that is made of the source's and the voice's.
        force: Existing outputs are written over.
        skip: Existing outputs are left.

    Raises:
        InputError: For whatever is missing, or could be written over or lost.
    """
    for path in target.files:
        if not os.path.exists(path):
            raise InputError(f"{path} does not exist; expected a recording, or a file of rwae-embed for --voice")
    folder = os.path.isdir(source)
    plan = _folder_plan(source, output, target) if folder else _file_plan(source, output, target, force or skip)
    return _allowed(plan, [source, *target.files], force, skip)


def planned_voices(source: Path, folder: Path, output: Path | None, force: bool, skip: bool) -> Plan:
    """Plan the conversion of one recording into every voice in a folder; arguments and errors as those of `planned`."""
    targets, others = targets_in(folder)
    if os.path.isdir(source):
        raise InputError(f"{source} is a folder; expected one recording, as --targets has the voices")
    if not os.path.exists(source):
        raise InputError(f"{source} does not exist; expected a recording")
    output = _output_folder(output or Path(f"{source.stem}_as_{folder.resolve().name}"), "--targets has several voices")
    if output.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"--output {output} lies in --targets {folder}; expected a folder elsewhere")
    jobs = [Job(source, output / f"{source.stem}_as_{target.name}.wav", target) for target in targets]
    read = [source, *(path for target in targets for path in target.files)]
    return _allowed(Plan(jobs, [], [], others, output, True, source), read, force, skip)


def recordings_in(folder: Path) -> tuple[list[str], int]:
    """Return the relative paths of the recordings below a folder, sorted, and the number of other files.

    Raises:
        InputError: When there are no recordings.
    """
    from rwae_audio.data.corpora.base import EXTRA_SUFFIXES, SUFFIXES, audio_files

    names = sorted(name for _, name in audio_files(folder, SUFFIXES + EXTRA_SUFFIXES))
    others = {Path(place, name) for place, _, files in os.walk(folder) for name in files} - {folder / n for n in names}
    if not names:
        raise InputError(f"{folder} has no recordings ({len(others)} other files); expected {', '.join(SUFFIXES)}")
    return names, len(others)


def _allowed(plan: Plan, read: Sequence[Path], force: bool, skip: bool) -> Plan:
    """Return a plan without the outputs that stay. Raises InputError when it would write over what it may not."""
    _refuse_clashes(plan.jobs, read)
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


def _file_plan(source: Path, output: Path | None, target: Target, over: bool) -> Plan:
    if not os.path.exists(source):
        raise InputError(f"{source} does not exist; expected a recording, or a folder of them")
    name = f"{source.stem}_as_{target.name}.wav"
    if output is None:
        output = Path(name)
    elif os.path.isdir(output) or str(output).endswith(os.sep):
        output = output / name
    if output.suffix.lower() not in (".wav", ".flac"):
        raise InputError(f"--output {output}; expected a name that ends in .wav or .flac, or a folder that exists")
    free_output(output, over)
    return Plan([Job(source, output, target)], [], [], 0, output, False)


def _folder_plan(source: Path, output: Path | None, target: Target) -> Plan:
    """Plan a folder: each recording becomes the .wav of its name at the same place below the output."""
    output = _output_folder(output or Path(f"{source.resolve().name}_as_{target.name}"), "SOURCE is one")
    if output.resolve().is_relative_to(source.resolve()):
        raise InputError(f"--output {output} lies in SOURCE {source}; expected a folder elsewhere")
    names, others = recordings_in(source)
    failed = _unreadable([source / name for name in names], target.name)
    reasons = {failure.source for failure in failed}
    jobs = [Job(source / n, (output / n).with_suffix(".wav"), target) for n in names if str(source / n) not in reasons]
    return Plan(jobs, [], failed, others, output, True)


def _output_folder(output: Path, why: str) -> Path:
    """Return a folder that results can be written to. Raises InputError where it is a file's name, with the reason `why`."""
    if output.suffix.lower() in (".wav", ".flac") or (os.path.exists(output) and not os.path.isdir(output)):
        raise InputError(f"--output {output} is a file's name; expected a folder, as {why}")
    if not os.path.isdir(output.parent):
        raise InputError(f"the folder {output.parent} does not exist; expected one to make {output.name} in")
    return output


def _unreadable(paths: Sequence[Path], voice: str) -> list[Failure]:
    """Return the files that are recordings by their names but for which PyAV is missing."""
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
    """Raise InputError when two outputs are one, or an output is one of the files that are read."""
    origins: dict[Path, Path] = {}
    several = len({job.target for job in jobs}) > 1
    read = {_identity(path) for path in [*inputs, *(job.source for job in jobs)]}
    for source, output, target in jobs:
        origin = target.origin if several else source
        if output in origins:
            raise InputError(f"{origins[output]} and {origin} would both become {output}; expected names that differ")
        origins[output] = origin
        if os.path.isdir(output):
            raise InputError(f"{output} is a folder; expected the name of a file")
        if os.path.exists(output) and _identity(output) in read:
            raise InputError(f"{output} is one of the files that are read; expected another name for the result")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what a file is under any of its names, or None if it is not there (a link that leads nowhere)."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
