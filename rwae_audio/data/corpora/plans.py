"""The corpora in the plan of a run (run.json): their folders, and digests of their utterances at the start of the run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from rwae_audio.data.corpora.base import Corpus
from rwae_audio.data.corpora.readers import READERS
from rwae_audio.data.corpora.sources import HeldOut, Source, read_corpora
from rwae_audio.files import InputError


def planned_sources(plan: Mapping[str, Any]) -> list[Source]:
    """Return the sources of a plan, which JSON stores as lists."""
    return [Source(*item) for item in plan["data"]]


def planned_corpora(plan: Mapping[str, Any]) -> list[Corpus]:
    """Read the corpora of a plan.

    Args:
        plan: The plan, with the sources `data`, the speakers `hold_out`, and options of readers by their names.
    """
    options = {reader: plan[reader] for reader in READERS if reader in plan}
    return read_corpora(planned_sources(plan), [HeldOut(*item) for item in plan.get("hold_out", [])], options)


def keep_content(plan: dict[str, Any], corpora: Iterable[Corpus]) -> None:
    """Record the utterances of the corpora in the plan. Raises InputError if the plan has recorded other utterances."""
    recorded = plan.get("content", {})
    content = {corpus.name: _content(corpus) for corpus in corpora}
    for name, new in content.items():
        if (old := recorded.get(name, new)) != new:
            counts = f"{new['utterances']:,} instead of {old['utterances']:,}"
            raise InputError(f"{name} has other utterances than when the run began ({counts}); expected the same")
    plan["content"] = content


def _content(corpus: Corpus) -> dict[str, object]:
    """Return the number of utterances, and a digest of their ids, speakers, splits, starts and ends in their order."""
    lines = (f"{u.id}\t{u.speaker}\t{u.split}\t{u.start}\t{u.end}\n" for u in corpus.utterances)
    return {
        "utterances": len(corpus.utterances),
        "sha256": hashlib.sha256("".join(lines).encode()).hexdigest()[:16],
    }
