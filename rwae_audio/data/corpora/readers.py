"""All readers of corpora: each turns a folder into a table of utterances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rwae_audio.data.corpora.an4 import read_an4
from rwae_audio.data.corpora.base import Corpus
from rwae_audio.data.corpora.demo import read_demo
from rwae_audio.data.corpora.digits import read_demo_digits, read_digits
from rwae_audio.data.corpora.folder import read_folder
from rwae_audio.data.corpora.kaldi import read_kaldi
from rwae_audio.data.corpora.librispeech import read_librispeech
from rwae_audio.data.corpora.timit import read_timit
from rwae_audio.files import InputError
from rwae_audio.settings import nearest

READERS: dict[str, Callable[..., Corpus]] = {
    "an4": read_an4,
    "demo": read_demo,
    "demo-digits": read_demo_digits,
    "digits": read_digits,
    "folder": read_folder,
    "kaldi": read_kaldi,
    "librispeech": read_librispeech,
    "timit": read_timit,
}

BUILT_IN = ("demo", "demo-digits")  # in the package: no folder is needed
NAMED_AFTER_FOLDER = ("folder", "kaldi")  # readers of anybody's corpora: these are called after their folder


def read_corpus(name: str, folder: Path | None = None, **options: bool) -> Corpus:
    """The corpus that the reader `name` finds in `folder` (the built-in ones need none). options: TIMIT's `with_sa` and
    `partial`, as read_timit has them. Raises InputError."""
    if name not in READERS:
        raise InputError(f"there is no corpus {name!r}; {nearest(name, sorted(READERS))}")
    if given := [option.replace("_", "-") for option, value in options.items() if value and name != "timit"]:
        raise InputError(f"--{given[0]} is an option of timit; {name} has none")
    if name in BUILT_IN and folder is None:
        return READERS[name]()
    try:
        there, is_folder = folder is not None and folder.exists(), folder is not None and folder.is_dir()
    except (OSError, ValueError):  # a name that is too long, or has a NUL byte
        there = is_folder = False
    if folder is None or not is_folder:
        what = "not a folder" if there else "missing"
        raise InputError(f"the folder of {name}, {folder}, is {what}; expected the corpus's folder")
    return READERS[name](folder, **options) if name == "timit" else READERS[name](folder)
