"""Reader of the built-in demo corpus: sentences of synthetic speakers.

recipes/demo/make_demo_corpus.py made it with eSpeak NG; CC0.
"""

from __future__ import annotations

from pathlib import Path

from rwae_audio.data.corpora.base import Corpus, Phone, Utterance
from rwae_audio.files import ASSETS, InputError, read_json

CREDIT = "Built-in demo corpus: synthetic speech made with eSpeak NG; texts and recordings CC0."
DEMO = ASSETS / "demo"


def read_demo(folder: Path | None = None) -> Corpus:
    """Read the demo corpus: 44 training, 12 development and 24 test speakers with 10 sentences each.

    Args:
        folder: A copy of the corpus, or None for the corpus in the package.

    Raises:
        InputError: The folder is not the demo corpus.
    """
    folder = DEMO if folder is None else folder
    table = read_json(folder / "utterances.json", "the demo corpus's table")
    try:
        utterances = tuple(_utterance(folder, row) for row in table["utterances"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / 'utterances.json'} is not the demo corpus's table ({error!r})") from error
    notes = ("synthetic speech, made with eSpeak NG",)
    return Corpus("demo", utterances, {}, notes, synthetic=True, credit=CREDIT)


def _utterance(folder: Path, row: dict) -> Utterance:
    """Return the utterance of a row of the table. Its phones are `start label start label … end`, in milliseconds."""
    words = row["phones"].split()
    times, labels = [int(word) / 1000 for word in words[::2]], words[1::2]
    phones = tuple(Phone(start, end, label) for start, end, label in zip(times, times[1:], labels, strict=False))
    return Utterance(row["file"], row["speaker"], row["split"], folder / row["file"], row["text"], phones)
