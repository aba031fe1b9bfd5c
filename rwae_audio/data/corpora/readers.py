"""The readers of corpora by name, and `read_corpus`, which calls one of them."""

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

BUILT_IN = ("demo", "demo-digits")  # readers of corpora in the package, which need no folder
NAMED_AFTER_FOLDER = ("folder", "kaldi")  # readers whose corpora are named after their folders


def read_corpus(name: str, folder: Path | None = None, **options: bool) -> Corpus:
    """Read a corpus.

    Args:
        name: The name of the reader, one of READERS.
        folder: The folder of the corpus, or None for the built-in corpora.
        options: TIMIT's `with_sa` and `partial`, as in `read_timit`.

    Raises:
        InputError: There is no such reader, folder or option, or the folder is not that corpus.
    """
    if name not in READERS:
        raise InputError(f"there is no corpus {name!r}; {nearest(name, sorted(READERS))}")
    if unknown := [option.replace("_", "-") for option, value in options.items() if value and name != "timit"]:
        raise InputError(f"--{unknown[0]} is an option of timit; {name} has none")
    if name in BUILT_IN and folder is None:
        return READERS[name]()
    try:
        exists, is_folder = folder is not None and folder.exists(), folder is not None and folder.is_dir()
    except (OSError, ValueError):  # a name that is too long, or has a NUL byte
        exists = is_folder = False
    if folder is None or not is_folder:
        problem = "not a folder" if exists else "missing"
        raise InputError(f"the folder of {name}, {folder}, is {problem}; expected the corpus's folder")
    return READERS[name](folder, **options) if name == "timit" else READERS[name](folder)
