"""Columns of the ladder from outside judges: are the words kept, and is the voice taken, when codes are exchanged?

Utterances of the test speakers are decoded with the static code of an utterance of another speaker, and become sound as in
rwae-vc. Independent models (extra `judge`) judge the result: hama recognises phones, and resemblyzer computes voices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rwae_audio.conversion.converter import Converter
from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora import Corpus
from rwae_audio.evaluation import judges
from rwae_audio.inference.bundle import Bundle

EACH = 2  # utterances of each speaker that are decoded


def swap_columns(bundle: Bundle, corpus: Corpus, models: Any = judges) -> dict[str, Any]:
    """Return the column `swaps` of a run, with the means over EACH utterances of each test speaker of a corpus.

    The other speaker is the next one in the sorted order, so every speaker is a source and a target. Of each speaker the
    longest utterances are used: the first EACH are decoded, and the next two are references for the voice. With fewer than two
    speakers that have so many utterances there is no column.

        phones_own     phone error rate of utterances that are decoded with their own static code
        phones_swap    phone error rate of swaps
        taken          share of swaps whose voice is nearer to the other speaker than to that of the utterance
        cosine         cosine of the swaps with the other speaker
        steadiness     cosine of the first with the second half of a swap

    Phones are compared with those that are recognised in the recording.

    Args:
        bundle: The trained model.
        corpus: The tested corpus.
        models: The module of the judges, `rwae_audio.evaluation.judges` except in tests.
    """
    recognise, embed, converter = models.hama(), models.resemblyzer(), Converter(bundle)
    recordings = longest_recordings(corpus, EACH + 2)
    speakers = sorted(recordings)
    if len(speakers) < 2:
        return {}
    references = {speaker: unit(sum(map(embed, recordings[speaker][EACH:]))) for speaker in speakers}
    voices = {speaker: converter.voice(recordings[speaker][0], models.RATE) for speaker in speakers}
    rows = []
    for speaker, other in zip(speakers, [*speakers[1:], speakers[0]], strict=True):
        for samples in recordings[speaker][:EACH]:
            phones = recognise(samples)
            own, swap = (
                converter.convert(samples, models.RATE, voice)
                for voice in (converter.voice(samples, models.RATE), voices[other])
            )
            vector, middle = embed(swap), len(swap) // 2
            cosine = float(vector @ references[other])
            rows.append(
                {
                    "phones_own": models.phone_error_rate(phones, recognise(own)),
                    "phones_swap": models.phone_error_rate(phones, recognise(swap)),
                    "taken": float(cosine > vector @ references[speaker]),
                    "cosine": cosine,
                    "steadiness": float(embed(swap[:middle]) @ embed(swap[middle:])),
                }
            )
    return {"swaps": {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]}}


def longest_recordings(corpus: Corpus, count: int) -> dict[str, list[np.ndarray]]:
    """Return the samples of the longest utterances of each test speaker, by speaker, those of most samples first.

    Args:
        corpus: The corpus.
        count: The number of utterances. Speakers with fewer are left out.
    """
    recordings: dict[str, list[np.ndarray]] = {}
    for utterance in corpus.of("test"):
        recordings.setdefault(utterance.speaker, []).append(load_audio(utterance.path, judges.RATE))
    enough = {speaker: some for speaker, some in recordings.items() if len(some) >= count}
    return {speaker: sorted(some, key=len, reverse=True)[:count] for speaker, some in enough.items()}


def unit(vector: np.ndarray | Sequence[float]) -> np.ndarray:
    """Return a vector (d,), scaled to length 1."""
    return np.asarray(vector) / np.linalg.norm(vector)
