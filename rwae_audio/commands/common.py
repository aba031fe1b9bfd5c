"""What every command does the same way: one line for what is wrong, exit 2, nothing on stdout that was not asked for."""

from __future__ import annotations

import argparse
import faulthandler
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rwae_audio import __version__
from rwae_audio.files import NO_ROOM, InputError
from rwae_audio.settings import nearest

if TYPE_CHECKING:
    from rwae_audio.conversion.reading import Reading

DEVICE_HELP = "the device that the networks run on: cpu, cuda, cuda:1 or mps (cpu)"
SHIELD = "\0"  # no word of a command line holds a NUL, so a name behind one is never taken for an option


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line that names the nearest option."""

    def __init__(self, **settings: object) -> None:
        super().__init__(allow_abbrev=False, **settings)  # type: ignore[arg-type]
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def parse_args(self, args: list[str] | None = None, namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        words = sys.argv[1:] if args is None else list(args)
        end = words.index("--") if "--" in words else len(words)
        words, names = words[:end], words[end + 1 :]
        # options first: a misspelt one that is required would otherwise be reported as missing
        for word in words:
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            if not self._may_stand(word, name):
                known = [option for option in self._option_string_actions if option.startswith("--")]
                self.error(f"unknown option {name}; {nearest(name, known)}")
        last = self._option_string_actions.get(words[-1]) if words and names else None
        if last is not None and last.nargs is None:  # it would take the first name as its value
            self.error(f"argument {'/'.join(last.option_strings)}: expected one argument before --")
        # intermixed, or an option between two positional arguments would cut them short
        options, unknown = self.parse_known_intermixed_args([*words, *(SHIELD + name for name in names)], namespace)
        if unknown:
            self.error(f"unknown argument {unknown[0].removeprefix(SHIELD)}; see {self.prog} --help")
        for action in self._get_positional_actions():
            setattr(options, action.dest, _unshielded(getattr(options, action.dest)))
        return options

    def _may_stand(self, word: str, name: str) -> bool:
        """Is the word a known option, or (as argparse sees it) none at all: a lone dash, a negative number, a phrase?"""
        none = not word.startswith("-") or word == "-" or " " in word or self._negative_number_matcher.match(word)
        return bool(none) or name in self._option_string_actions

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _unshielded(value: Any) -> Any:
    """Return the value of a positional argument, a text, a path or a list of them, without the NUL before its names."""
    if isinstance(value, list):
        return [_unshielded(item) for item in value]
    return type(value)(str(value).removeprefix(SHIELD)) if isinstance(value, (str, Path)) else value


def recorded(words: list[str]) -> list[str]:
    """A command line's words as they mean the same on another disk: `--option=VALUE` as two, the folder of a corpus
    (NAME=DIR) as $CORPUS, and the second and third of that name as $CORPUS_2 and $CORPUS_3."""
    from rwae_audio.data.corpora import READERS, corpus_sources

    parted = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    found: list[str] = []
    seen: Counter[tuple[str, str]] = Counter()
    for word in parted:
        name, _, place = word.partition("=")
        if place and found and found[-1] in ("--data", "--elsewhere"):
            corpus = corpus_sources([word])[0].corpus if name in READERS else name
            variable = re.sub(r"\W", "_", corpus).upper()
            seen[found[-1], variable] += 1
            count = seen[found[-1], variable]
            word = f"{name}=${variable}_{count}" if count > 1 else f"{name}=${variable}"
        found.append(word)
    return found


def say(command: str, message: str) -> None:
    """A line for people, on stderr."""
    print(f"{command}: {message}", file=sys.stderr)


def _own_signal_stack() -> None:
    """Give signals a stack of their own, for which faulthandler is what Python has.

    Matrix routines that use the stack pointer for something else are met in the middle by a Ctrl-C: its frame would land
    on the heap, and the process die of it instead of writing its checkpoint.
    """
    if not faulthandler.is_enabled() and sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


def guarded(command: Callable[[], int], name: str) -> int:
    """Run it; a user's error or a full disk is one line and 2, Ctrl-C 130, a closed pipe 0; a bug shows its traceback."""
    threading.excepthook = _in_thread
    _own_signal_stack()
    try:
        code = command()
        sys.stdout.flush()  # a closed pipe shows here, not when the interpreter ends
        return code
    except InputError as error:
        say(name, " ".join(str(error).split("\n")))
        return 2
    except KeyboardInterrupt:
        say(name, "interrupted")
        return 130
    except BrokenPipeError:
        _drop_stdout()
        return 0
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        say(name, f"cannot write{f' {error.filename}' if error.filename else ''}: {error.strerror}; expected room to")
        try:
            sys.stdout.flush()
        except OSError:
            _drop_stdout()
        return 2


def _in_thread(error: threading.ExceptHookArgs) -> None:
    """What went wrong in another thread, but for a full disk: the main thread meets that itself, and says it."""
    if not (isinstance(error.exc_value, OSError) and error.exc_value.errno in NO_ROOM):
        threading.__excepthook__(error)


def _drop_stdout() -> None:
    """Let what is still to be written go nowhere: the interpreter would fail once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def free_output(path: Path, force: bool) -> None:
    """Raises InputError unless `path` can be written: its folder is there, and it is not, or `force` says over it."""
    if os.path.isdir(path):  # os.path's answer is no where Path's is an OSError: for a name that is too long
        raise InputError(f"{path} is a folder; expected the name of a file")
    if not os.path.isdir(path.parent):
        raise InputError(f"the folder {path.parent} does not exist; expected one to write {path.name} to")
    if os.path.exists(path) and not force:
        raise InputError(f"{path} is there already; expected a new name, or --force")


def say_notes(command: str, path: str | Path, reading: Reading) -> None:
    """Say what a user should be told of a file, once all has gone well: an error is to be the only line."""
    from rwae_audio.data.level import FAR_BEYOND

    if reading.source_rate != reading.mel.sample_rate:
        say(command, f"resampled {path} {reading.source_rate} → {reading.mel.sample_rate} Hz")
    for note in reading.notes:
        say(command, f"{path}: {note}")
    if reading.level.peak > FAR_BEYOND:
        say(command, f"warning: {beyond_full_scale(path, reading.level.peak)}")


def beyond_full_scale(path: str | Path, peak: float) -> str:
    """Return the warning about a file of float samples that were written at another scale."""
    return f"{path} has samples up to {peak:.0f}; expected at most 1; it was brought to level"


def set_value(tables: dict[str, Any], setting: str) -> None:
    """`model.dynamic_dim=4` into the tables, the value as TOML has it (a bare word is taken as a string)."""
    from rwae_audio.settings import tomllib

    path, _, value = setting.partition("=")
    table, _, key = path.partition(".")
    if not value or not key:
        raise InputError(f"--set {setting}; expected TABLE.KEY=VALUE")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    tables[table] = {**tables.get(table, {}), key: parsed}


def new_folder(out: Path | None, name: str) -> Path:
    """`out`, or a free name in runs/. It must not be there, or hold but the lock of a run killed before its first file."""
    if out is None:
        out, count = Path("runs") / name, 2
        while out.exists():
            out, count = Path("runs") / f"{name}-{count}", count + 1
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        held = {path.name for path in out.iterdir()} if out.is_dir() else set()
        if ".lock" not in held or any(not name.startswith(".") for name in held):
            raise InputError(f"{out} is there already; expected a new folder, or --resume {out}") from None
    except OSError as error:
        raise InputError(f"cannot make {out}: {error.strerror}; expected a folder that can be written to") from error
    return out
