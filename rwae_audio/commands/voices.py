"""The voices that rwae-vc converts into: recordings of one speaker, or a file of rwae-embed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rwae_audio.commands.common import notes_on
from rwae_audio.files import InputError

if TYPE_CHECKING:
    from rwae_audio.conversion.converter import Converter
    from rwae_audio.conversion.voice import Voice

SAVED = ".safetensors"


class Target(NamedTuple):
    """A voice on the disk.

    Attributes:
        name: The name of the voice, in the names of results.
        origin: The folder or the file that it is.
        files: Its recordings, or the one file of rwae-embed.
        saved: Whether it is a file of rwae-embed.
    """

    name: str
    origin: Path
    files: tuple[Path, ...]
    saved: bool = False


class TargetVoice(NamedTuple):
    """A voice that has been read.

    Attributes:
        voice: The static code, with the pitch range.
        pitch: "target" where conversions move to its pitch range, "keep" where the source's pitch is left.
        warning: What a user should know of its pitch range, or "".
        notes: What a user should know of its recordings, a line each.
    """

    voice: Voice
    pitch: str
    warning: str = ""
    notes: tuple[str, ...] = ()


def targets_in(folder: Path) -> tuple[list[Target], int]:
    """Return the voices in a folder, sorted by name, and the number of other entries.

    A voice is a subfolder with recordings, which are pooled, or a recording, or a file of rwae-embed. Hidden entries are
    skipped.

    Raises:
        InputError: When it is no folder, or has no voices.
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
    """Read a voice; all recordings of it are pooled.

    Args:
        moves: Whether the pitch of a source is to move to the pitch range of the voice.
        steps: The steps by which the voice is adapted to its recordings, 0 for none.

    Raises:
        InputError: When one of its files cannot be read, or a recording is silent or too short.
    """
    import torch

    from rwae_audio.conversion.adaptation import adapted
    from rwae_audio.conversion.reading import read_file
    from rwae_audio.conversion.voice import pooled_voices, voice_of

    notes: list[str] = []
    if target.saved:
        voice = converter.load_voice(target.files[0])
    else:
        voices, frames = [], []
        for path in target.files:
            reading = read_file(path, converter.bundle.config.mel)  # let go after its turn, since it holds a file open
            voices.append(voice_of(converter.bundle, reading, moves))
            frames += [torch.cat([*reading.log_mels()])] if steps else []
            notes += notes_on(path, reading)
        voice = pooled_voices(voices)
        if steps:
            voice = adapted(converter.bundle, frames, voice, steps)
    if not moves or voice.register is not None:
        return TargetVoice(voice, "target" if moves else "keep", notes=tuple(notes))
    names = ", ".join(map(str, target.files))
    warning = f"warning: no pitch is known of the voice in {names}; the source's is kept"
    return TargetVoice(voice, "keep", warning, tuple(notes))
