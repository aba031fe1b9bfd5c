"""A grid of swaps: an utterance of each of a few speakers, decoded in the voice of each speaker."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rwae_audio.evaluation.benchmark import Benchmark
from rwae_audio.inference.bundle import Bundle


class Swaps(NamedTuple):
    """Utterances of some speakers, and each of them in the voice of each.

    Attributes:
        names: The speakers.
        originals: The log-mels (T, n_mels) of an utterance of each.
        grid: The log-mels (T, n_mels) of utterance i in the voice of speaker j at [i][j].
    """

    names: list[str]
    originals: list[np.ndarray]
    grid: list[list[np.ndarray]]


def swaps(bench: Benchmark, bundle: Bundle, count: int = 4) -> Swaps:
    """Return swaps of utterances of some speakers of a benchmark, at most 2 s long.

    The speakers are spread over the sorted names, so that corpora which name women f… and men m… show both.

    Args:
        bench: The benchmark.
        bundle: The trained model.
        count: The largest number of speakers, with one utterance each.
    """
    speakers, mel = sorted(set(bench.speakers)), bundle.config.mel
    chosen = [speakers[i] for i in np.linspace(0, len(speakers) - 1, min(count, len(speakers))).round().astype(int)]
    frames = [bench.store.of(int(bench.rows[bench.speakers.index(speaker)])) for speaker in chosen]
    clips = [clip[: 2 * mel.sample_rate // mel.hop_length] for clip in frames]
    codes = [bundle.encode(utterance)[: len(clip)] for utterance, clip in zip(frames, clips, strict=True)]
    voices = [bundle.voice(utterance) for utterance in frames]
    grid = [[bundle.decode(voice, code).numpy() for voice in voices] for code in codes]
    return Swaps(chosen, [clip.numpy() for clip in clips], grid)
