"""Readers of corpora, from folders to tables of utterances, and the corpora of the options --data and --hold-out."""

from __future__ import annotations

from rwae_audio.data.corpora.base import Corpus, Phone, Utterance
from rwae_audio.data.corpora.plans import keep_content, planned_corpora, planned_sources
from rwae_audio.data.corpora.readers import BUILT_IN, NAMED_AFTER_FOLDER, READERS, read_corpus
from rwae_audio.data.corpora.sources import (
    HeldOut,
    Source,
    by_corpus,
    corpus_sources,
    read_corpora,
    read_hold_out,
    relocated,
)

__all__ = [
    "BUILT_IN",
    "NAMED_AFTER_FOLDER",
    "READERS",
    "Corpus",
    "HeldOut",
    "Phone",
    "Source",
    "Utterance",
    "by_corpus",
    "corpus_sources",
    "keep_content",
    "planned_corpora",
    "planned_sources",
    "read_corpora",
    "read_corpus",
    "read_hold_out",
    "relocated",
]
