"""Readers of corpora: each turns a folder into a table of utterances. READERS is all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rwae_audio.config import nearest
from rwae_audio.corpora.an4 import read_an4
from rwae_audio.corpora.base import Corpus, Phone, Utterance
from rwae_audio.corpora.demo import read_demo
from rwae_audio.corpora.digits import read_demo_digits, read_digits
from rwae_audio.corpora.folder import read_folder
from rwae_audio.corpora.kaldi import read_kaldi
from rwae_audio.corpora.librispeech import read_librispeech
from rwae_audio.corpora.timit import read_timit
from rwae_audio.files import InputError

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


def read_corpus(name: str, folder: Path | None = None, **options: bool) -> Corpus:
    """The corpus `name` in `folder` (the built-in ones need none). options: TIMIT's `with_sa` and `partial`, as
    read_timit has them. Raises InputError."""
    if name not in READERS:
        raise InputError(f"there is no corpus {name!r}; {nearest(name, sorted(READERS))}")
    if given := [option.replace("_", "-") for option, value in options.items() if value and name != "timit"]:
        raise InputError(f"--{given[0]} is an option of timit; {name} has none")
    if name in BUILT_IN and folder is None:
        return READERS[name]()
    if folder is None or not folder.is_dir():
        what = "missing" if folder is None or not folder.exists() else "not a folder"
        raise InputError(f"the folder of {name}, {folder}, is {what}; expected the corpus's folder")
    return READERS[name](folder, **options) if name == "timit" else READERS[name](folder)


def corpus_folders(items: Sequence[str], option: str = "--data") -> dict[str, str]:
    """What `--data NAME=DIR` (or another option) says, given once or more: corpus → its absolute folder. Raises
    InputError."""
    folders: dict[str, str] = {}
    for item in items:
        name, _, place = item.partition("=")
        if not place or name not in READERS:
            raise InputError(f"{option} {item}; expected NAME=DIR, {nearest(name, sorted(READERS))}")
        if name in folders:
            raise InputError(f"{option} {name} is given twice; expected each corpus once")
        folders[name] = str(Path(place).resolve())
    return folders


__all__ = ["READERS", "Corpus", "Phone", "Utterance", "corpus_folders", "read_corpus"]
