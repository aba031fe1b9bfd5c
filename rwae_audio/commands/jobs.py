"""The plan of rwae-vc: which recording becomes which file. All that it refuses is refused before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rwae_audio.commands.common import free_output
from rwae_audio.files import InputError


class Job(NamedTuple):
    """A recording, and the file that it becomes."""

    source: Path
    output: Path


class Failure(NamedTuple):
    """A recording that cannot be converted, and the reason."""

    source: str
    reason: str


class Plan(NamedTuple):
    """The work of one command.

    Attributes:
        jobs: What is to be converted.
        skipped: Outputs that exist and stay as they are.
        failed: Recordings of a folder that cannot be read here.
        others: The number of files in the folder that are no recordings by their names.
        output: The file or the folder that is written.
        folder: Whether the source is a folder.
    """

    jobs: list[Job]
    skipped: list[Path]
    failed: list[Failure]
    others: int
    output: Path
    folder: bool


def planned(source: Path, inputs: Sequence[Path], output: Path | None, voice: str, force: bool, skip: bool) -> Plan:
    """Plan the conversion of a recording or a folder of them.

    Args:
        inputs: The other files that are read.
        output: None for a name that is made of the source's and `voice`.
        force: Existing outputs are written over.
        skip: Existing outputs are left.

    Raises:
        InputError: For whatever is missing, or could be written over or lost.
    """
    for path in inputs:
        if not os.path.exists(path):
            raise InputError(f"{path} does not exist; expected a recording, or a file of rwae-embed for --voice")
    folder = os.path.isdir(source)
    plan = _folder_plan(source, output, voice) if folder else _file_plan(source, output, voice, force or skip)
    _refuse_clashes(plan.jobs, [source, *inputs])
    existing = {job.output for job in plan.jobs if os.path.isfile(job.output)}
    if skip:
        jobs = [job for job in plan.jobs if job.output not in existing]
        return plan._replace(jobs=jobs, skipped=[job.output for job in plan.jobs if job.output in existing])
    if existing and folder and not force:
        raise InputError(
            f"{len(existing)} of {len(plan.jobs)} files are in {plan.output} already, the first {min(existing)}; "
            "expected another folder, --skip-existing or --force"
        )
    return plan


def _file_plan(source: Path, output: Path | None, voice: str, over: bool) -> Plan:
    if not os.path.exists(source):
        raise InputError(f"{source} does not exist; expected a recording, or a folder of them")
    name = f"{source.stem}_as_{voice}.wav"
    if output is None:
        output = Path(name)
    elif os.path.isdir(output) or str(output).endswith(os.sep):
        output = output / name
    if output.suffix.lower() not in (".wav", ".flac"):
        raise InputError(f"--output {output}; expected a name that ends in .wav or .flac, or a folder that exists")
    free_output(output, over)
    return Plan([Job(source, output)], [], [], 0, output, False)


def _folder_plan(source: Path, output: Path | None, voice: str) -> Plan:
    """Plan a folder: each recording becomes the .wav of its name at the same place below the output."""
    from rwae_audio.data.corpora.base import EXTRA_SUFFIXES, SUFFIXES, audio_files

    output = output or Path(f"{source.resolve().name}_as_{voice}")
    if output.suffix.lower() in (".wav", ".flac") or (os.path.exists(output) and not os.path.isdir(output)):
        raise InputError(f"--output {output} is a file's name; expected a folder, as SOURCE is one")
    if not os.path.isdir(output.parent):
        raise InputError(f"the folder {output.parent} does not exist; expected one to make {output.name} in")
    if output.resolve().is_relative_to(source.resolve()):
        raise InputError(f"--output {output} lies in SOURCE {source}; expected a folder elsewhere")
    names = sorted(name for _, name in audio_files(source, SUFFIXES + EXTRA_SUFFIXES))
    others = {Path(place, name) for place, _, files in os.walk(source) for name in files} - {source / n for n in names}
    if not names:
        raise InputError(f"{source} has no recordings ({len(others)} other files); expected {', '.join(SUFFIXES)}")
    failed = _unreadable([source / name for name in names])
    reasons = {failure.source for failure in failed}
    jobs = [Job(source / n, (output / n).with_suffix(".wav")) for n in names if str(source / n) not in reasons]
    return Plan(jobs, [], failed, len(others), output, True)


def _unreadable(paths: Sequence[Path]) -> list[Failure]:
    """Return the files that are recordings by their names but for which PyAV is missing."""
    from rwae_audio.data.audio import open_audio
    from rwae_audio.data.corpora.base import readable_suffixes

    failed = []
    for path in paths:
        if path.suffix.lower() not in readable_suffixes():
            try:
                open_audio(path)
            except InputError as error:
                failed.append(Failure(str(path), str(error)))
    return failed


def _refuse_clashes(jobs: Sequence[Job], inputs: Sequence[Path]) -> None:
    """Raise InputError when two outputs are one, or an output is one of the files that are read."""
    sources: dict[Path, Path] = {}
    read = {_identity(path) for path in [*inputs, *(job.source for job in jobs)]}
    for source, output in jobs:
        if output in sources:
            raise InputError(f"{sources[output]} and {source} would both become {output}; expected names that differ")
        sources[output] = source
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
