"""Helpers of all commands: argument parsing, one-line error messages with exit code 2, and checks of output paths."""

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

DEVICE_HELP = "the device of the networks: cpu, cuda, cuda:1 or mps (default: cpu)"
SHIELD = "\0"  # a prefix with which no name looks like an option; arguments cannot contain a NUL byte


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors that suggest the nearest option."""

    def __init__(self, **settings: object) -> None:
        super().__init__(allow_abbrev=False, **settings)  # type: ignore[arg-type]
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def parse_args(self, args: list[str] | None = None, namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        """Parse a command line. Words after `--` are names, also if they look like options.

        Args:
            args: The words of the command line, those of this process if None.
            namespace: Not used.
        """
        words = sys.argv[1:] if args is None else list(args)
        end = words.index("--") if "--" in words else len(words)
        words, names = words[:end], words[end + 1 :]
        # options are checked first, as argparse would report a misspelt required option as missing
        for word in words:
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            if not self._is_valid(word, name):
                options = [option for option in self._option_string_actions if option.startswith("--")]
                self.error(f"unknown option {name}; {nearest(name, options)}")
        last = self._option_string_actions.get(words[-1]) if words and names else None
        if last is not None and last.nargs is None:  # the first name would become the value of this option
            self.error(f"argument {'/'.join(last.option_strings)}: expected one argument before --")
        # intermixed parsing, since options may stand between positional arguments
        parsed, unknown = self.parse_known_intermixed_args([*words, *(SHIELD + name for name in names)], namespace)
        if unknown:
            self.error(f"unknown argument {unknown[0].removeprefix(SHIELD)}; see {self.prog} --help")
        for action in self._get_positional_actions():
            setattr(parsed, action.dest, _unshielded(getattr(parsed, action.dest)))
        return parsed

    def _is_valid(self, word: str, name: str) -> bool:
        """Return whether a word is a known option, or a value by the rules of argparse."""
        value = not word.startswith("-") or word == "-" or " " in word or self._negative_number_matcher.match(word)
        return bool(value) or name in self._option_string_actions

    def error(self, message: str) -> NoReturn:
        """Print a message in one line and exit with 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def _unshielded(value: Any) -> Any:
    """Return the value of a positional argument, a text, a path or a list of them, without the SHIELD of names."""
    if isinstance(value, list):
        return [_unshielded(item) for item in value]
    return type(value)(str(value).removeprefix(SHIELD)) if isinstance(value, (str, Path)) else value


def recorded(words: list[str]) -> list[str]:
    """Return the words of a command line without paths of this computer, as they are written into results.

    `--option=VALUE` becomes two words. The folder of a corpus (NAME=DIR) becomes $CORPUS, and further folders of the corpus
    become $CORPUS_2 and $CORPUS_3.
    """
    from rwae_audio.data.corpora import READERS, corpus_sources

    separated = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    result: list[str] = []
    counts: Counter[tuple[str, str]] = Counter()
    for word in separated:
        name, _, folder = word.partition("=")
        if folder and result and result[-1] in ("--data", "--elsewhere"):
            corpus = corpus_sources([word])[0].corpus if name in READERS else name
            variable = re.sub(r"\W", "_", corpus).upper()
            counts[result[-1], variable] += 1
            count = counts[result[-1], variable]
            word = f"{name}=${variable}_{count}" if count > 1 else f"{name}=${variable}"
        result.append(word)
    return result


def say(command: str, message: str) -> None:
    """Print a message on stderr after the name of a command."""
    print(f"{command}: {message}", file=sys.stderr)


def _own_signal_stack() -> None:
    """Give signal handlers a separate stack, which Python does if faulthandler is enabled.

    Some matrix routines use the stack pointer for other purposes. If Ctrl-C interrupts such a routine, a handler on the
    normal stack overwrites the heap, and the process crashes instead of writing its checkpoint.
    """
    if not faulthandler.is_enabled() and sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


def guarded(command: Callable[[], int], name: str) -> int:
    """Run a command, and return its exit code.

    The exit code is 2 after an InputError or a full disk, which print one line. It is 130 after Ctrl-C and 0 after a closed
    pipe. Any other exception is a bug and is not caught.

    Args:
        command: The command.
        name: The name of the command in messages.
    """
    threading.excepthook = _in_thread
    _own_signal_stack()
    try:
        code = command()
        sys.stdout.flush()  # raises BrokenPipeError for a closed pipe
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
        say(
            name, f"cannot write{f' {error.filename}' if error.filename else ''}: {error.strerror}; expected free space"
        )
        try:
            sys.stdout.flush()
        except OSError:
            _drop_stdout()
        return 2


def _in_thread(error: threading.ExceptHookArgs) -> None:
    """Print the traceback of an exception in another thread, except for a full disk, which the main thread reports."""
    if not (isinstance(error.exc_value, OSError) and error.exc_value.errno in NO_ROOM):
        threading.__excepthook__(error)


def _drop_stdout() -> None:
    """Discard pending output. Otherwise the interpreter would try to write it at its end, and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def free_output(path: Path, force: bool) -> None:
    """Raise InputError unless a file can be written: its folder exists, and the file does not.

    Args:
        path: The file.
        force: Whether the file may exist; it will be overwritten.
    """
    if os.path.isdir(path):  # unlike Path, os.path raises no OSError for a name that is too long
        raise InputError(f"{path} is a folder; expected the name of a file")
    if not os.path.isdir(path.parent):
        raise InputError(f"the folder {path.parent} does not exist; expected one to write {path.name} to")
    if os.path.exists(path) and not force:
        raise InputError(f"{path} exists already; expected a new name, or --force")


def notes_on(path: str | Path, reading: Reading) -> list[str]:
    """Return messages for the user about a recording.

    Commands print them after success alone, so that an error message is the only line.

    Args:
        path: The name of the recording.
        reading: The recording.
    """
    from rwae_audio.data.level import FAR_BEYOND

    source_rate, rate = reading.source_rate, reading.mel.sample_rate
    notes = [f"resampled {path} {source_rate} → {rate} Hz"] if source_rate != rate else []
    notes += [f"{path}: {note}" for note in reading.notes]
    if reading.level.peak > FAR_BEYOND:
        notes.append(f"warning: {beyond_full_scale(path, reading.level.peak)}")
    return notes


def beyond_full_scale(path: str | Path, peak: float) -> str:
    """Return a warning about float samples beyond ±1, with their largest magnitude `peak`."""
    return f"{path} has samples up to {peak:.0f}; expected at most 1; its level was adjusted"


def set_value(tables: dict[str, Any], setting: str) -> None:
    """Change a setting in the tables of a configuration.

    Args:
        tables: The tables, which are changed.
        setting: The setting, such as `model.dynamic_dim=4`. The value is TOML; strings need no quotes.

    Raises:
        InputError: The setting has another form.
    """
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
    """Create the folder of a run, and return its path.

    Args:
        out: The folder, or None for a new folder in runs/.
        name: The name of the folder in runs/.

    Raises:
        InputError: The folder cannot be created, or it exists. It may exist if it has nothing but the lock of a run that
            was killed before it wrote its first file.
    """
    if out is None:
        out, count = Path("runs") / name, 2
        while out.exists():
            out, count = Path("runs") / f"{name}-{count}", count + 1
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        entries = {path.name for path in out.iterdir()} if out.is_dir() else set()
        if ".lock" not in entries or any(not name.startswith(".") for name in entries):
            raise InputError(f"{out} exists already; expected a new folder, or --resume {out}") from None
    except OSError as error:
        raise InputError(f"cannot make {out}: {error.strerror}; expected a folder that can be written to") from error
    return out
