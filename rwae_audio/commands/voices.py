"""The target voices of rwae-vc: recordings of a speaker, or a file that rwae-embed wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rwae_audio.commands.common import notes_on
from rwae_audio.files import InputError

if TYPE_CHECKING:
    from rwae_audio.conversion.converter import Converter
    from rwae_audio.conversion.voice import Voice

SAVED = ".safetensors"  # the suffix of files that rwae-embed writes


class Target(NamedTuple):
    """The files of a target voice.

    Attributes:
        name: The name of the voice, which is a part of the names of output files.
        origin: The file or the folder of the voice, for messages.
        files: The recordings, or the file that rwae-embed wrote.
        saved: Whether the voice is in a file that rwae-embed wrote.
    """

    name: str
    origin: Path
    files: tuple[Path, ...]
    saved: bool = False


class TargetVoice(NamedTuple):
    """A target voice after it has been read.

    Attributes:
        voice: The static code with the pitch range.
        pitch: "target" if conversions get the pitch range of the voice, "keep" if they keep that of the source.
        warning: A message for the user about the pitch range, or "".
        notes: Messages for the user about the recordings.
    """

    voice: Voice
    pitch: str
    warning: str = ""
    notes: tuple[str, ...] = ()


def targets_in(folder: Path) -> tuple[list[Target], int]:
    """Return the voices in a folder, sorted by name, and the number of other entries.

    A voice is a subfolder with recordings of one speaker, a recording, or a file that rwae-embed wrote. Hidden entries are
    not voices.

    Raises:
        InputError: The folder does not exist or has no voices.
    """
    from rwae_audio.data.corpora.base import EXTRA_SUFFIXES, SUFFIXES, audio_files

    if not os.path.isdir(folder):
        state = "is not a folder" if os.path.exists(folder) else "does not exist"
        raise InputError(f"--targets {folder} {state}; expected a folder of voices")
    targets, entries = [], sorted(folder.iterdir())
    for path in entries:
        if path.name.startswith("."):
            continue
        if os.path.isdir(path):
            files = tuple(file for file, _ in audio_files(path, SUFFIXES + EXTRA_SUFFIXES))
            targets += [Target(path.name, path, files)] if files else []
        elif path.suffix.lower() in (SAVED, *SUFFIXES, *EXTRA_SUFFIXES):
            targets.append(Target(path.stem, path, (path,), path.suffix.lower() == SAVED))
    others = len(entries) - len(targets)
    if not targets:
        raise InputError(
            f"--targets {folder} has no voices ({others} other entries); expected recordings, subfolders with recordings, or "
            "files of rwae-embed"
        )
    return targets, others


def read_target(converter: Converter, target: Target, moves: bool, steps: int = 0) -> TargetVoice:
    """Read a target voice. Several recordings of it are pooled.

    Args:
        converter: The converter.
        target: The files of the voice.
        moves: Whether conversions should get the pitch range of the voice.
        steps: The number of updates of the voice's adaptation to its recordings, 0 for no adaptation.

    Raises:
        InputError: A file cannot be read, a recording is silent or too short, or the vocoder cannot be adapted.
    """
    from rwae_audio.conversion.adaptation import adapted, example, neural
    from rwae_audio.conversion.reading import read_file
    from rwae_audio.conversion.voice import pooled_voices, voice_of

    if steps:
        neural(converter)
    notes: list[str] = []
    if target.saved:
        voice = converter.load_voice(target.files[0])
    else:
        voices, examples = [], []
        for path in target.files:
            reading = read_file(path, converter.bundle.config.mel)  # not kept, since each reading has an open file
            voices.append(voice_of(converter.bundle, reading, moves))
            examples += [example(reading)] if steps else []
            notes += notes_on(path, reading)
        voice = pooled_voices(voices)
        if steps:
            voice = adapted(converter, voice, examples, steps)
    if not moves or voice.register is not None:
        return TargetVoice(voice, "target" if moves else "keep", notes=tuple(notes))
    names = ", ".join(map(str, target.files))
    warning = f"warning: the pitch range of the voice in {names} is unknown; the pitch of the source is kept"
    return TargetVoice(voice, "keep", warning, tuple(notes))
