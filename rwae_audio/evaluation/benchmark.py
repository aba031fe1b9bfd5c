"""The speaker benchmark of a corpus: its trials, and a row of the table for a model and for what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rwae_audio.data.corpora.base import Corpus, hold_out, select_longest
from rwae_audio.data.corpora.plans import keep_content, planned_corpora
from rwae_audio.data.features import MelConfig, Normaliser, non_speech_mask
from rwae_audio.data.store import FrameStore
from rwae_audio.evaluation.verification import Trials, all_pairs, match_names, read_trials, report, restrict
from rwae_audio.files import InputError
from rwae_audio.inference.embedding import Embeddings, embed
from rwae_audio.model import RWAE

Row = tuple[dict[str, Any], dict[str, np.ndarray]]  # what eer.json says, and the scores behind it


@dataclass(frozen=True)
class Benchmark:
    """trials over `rows`, the store's row numbers of trials.names, in their order; partial: what every row of a table
    has to say of a corpus that is not all there, or nothing."""

    store: FrameStore
    rows: np.ndarray
    trials: Trials
    synthetic: bool
    partial: str = ""

    @property
    def starts(self) -> np.ndarray:
        return self.store.offsets[:-1][self.rows]

    @property
    def lengths(self) -> np.ndarray:
        return self.store.lengths[self.rows]

    @property
    def speakers(self) -> list[str]:
        return [self.store.utterances[row].speaker for row in self.rows]


def with_benchmark(corpus: Corpus) -> Corpus:
    """Return the corpus, with speakers held out for development and test where it has no such splits of its own.

    A corpus that has both needs no speakers to train on: it is there to be tested on.
    """
    splits = {utterance.split for utterance in corpus.utterances}
    if {"dev", "test"} <= splits:
        return corpus
    if "train" not in splits:
        raise InputError(f"{corpus.name} has only {' and '.join(sorted(splits))} speakers; expected some to train on")
    note = "has no development and test speakers of its own: some of its training speakers are held out"
    utterances = tuple(u for u in corpus.utterances if u.split == "train")
    return replace(corpus, utterances=hold_out(utterances), notes=(*corpus.notes, note))


def read_planned(plan: dict[str, Any]) -> list[Corpus]:
    """Read the corpora of a plan, those in its `test` with speakers to test on.

    Writes into the plan which utterances they have. Raises InputError when the run began with others.
    """
    corpora = planned_corpora(plan)
    keep_content(plan, corpora)
    return [with_benchmark(corpus) if corpus.name in plan["test"] else corpus for corpus in corpora]


def benchmarks(store: FrameStore, corpora: Sequence[Corpus], tested: Sequence[str], split: str) -> dict[str, Benchmark]:
    """The benchmark of each tested corpus, by its name, in the order of `tested`."""
    named = {corpus.name: corpus for corpus in corpora}
    return {name: benchmark(store, named[name], split) for name in tested}


def benchmark(store: FrameStore, corpus: Corpus, split: str, per_speaker: int = 8) -> Benchmark:
    """The corpus's own trial list of the split, or all pairs of its speakers' longest utterances.

    Of a corpus that is not all there (corpus.partial), what remains of its list; all pairs, when that has not both
    kinds of trial. The store may hold other corpora as well. Raises InputError when there are too few speakers.
    """
    mine = {(u.path, u.id): row for row, u in enumerate(store.utterances)}
    row_of = {u.id: mine[u.path, u.id] for u in corpus.utterances if (u.path, u.id) in mine}
    partial = corpus.partial
    if split in corpus.trial_lists:
        listed = read_trials(corpus.trial_lists[split])
        silent = {u.id: u.path for u in store.silent} if not partial else {}
        if mute := [silent[name] for name in listed.names if name in silent]:
            raise InputError(f"{mute[0]} is silent, and the trial list names it; expected speech")
        trials = restrict(listed, list(row_of)) if partial else match_names(listed, list(row_of))
        if partial:
            partial = f"{partial}; {len(trials):,} of the {len(listed):,} trials of its list remain"
        if trials.target.any() and not trials.target.all():
            rows = np.array([row_of[name] for name in trials.names])
            return Benchmark(store, rows, trials, corpus.synthetic, partial)
    utterances = [u for u in corpus.of(split) if u.id in row_of]
    lengths = {u.id: int(store.lengths[row_of[u.id]]) for u in utterances}
    chosen = select_longest(utterances, lengths, per_speaker)
    if len({u.speaker for u in chosen}) < 2:
        raise InputError(
            f"{corpus.name} has fewer than two {split} speakers with two utterances each; expected two or more"
        )
    trials = all_pairs([u.id for u in chosen], [u.speaker for u in chosen])
    if partial and split in corpus.trial_lists:
        partial = f"{partial}; all {len(trials):,} pairs of {len({u.speaker for u in chosen})} speakers instead"
    return Benchmark(store, np.array([row_of[u.id] for u in chosen]), trials, corpus.synthetic, partial)


def embed_rows(bench: Benchmark, model: RWAE, normaliser: Normaliser, mel: MelConfig) -> Embeddings:
    """The benchmark's utterances as vectors, in the order of trials.names."""
    return embed(model, normaliser, mel.segment, bench.store.frames, bench.starts, bench.lengths)


def dynamic_mean(
    store: FrameStore, rows: np.ndarray, model: RWAE, normaliser: Normaliser, mel: MelConfig
) -> np.ndarray:
    """The mean dynamic vector (dynamic_dim,) of the training utterances `rows`."""
    starts, lengths = store.offsets[:-1][rows], store.lengths[rows]
    return embed(model, normaliser, mel.segment, store.frames, starts, lengths).dynamic.mean(0)


def model_row(bench: Benchmark, vectors: Embeddings, mean: np.ndarray, replicates: int = 1000) -> Row:
    """Static and dynamic EER of a model's vectors."""
    return _row(bench, vectors.static, vectors.dynamic, mean, replicates)


def non_speech_row(
    bench: Benchmark, model: RWAE, normaliser: Normaliser, mel: MelConfig, replicates: int = 1000
) -> Row:
    """The static code of the frames without speech alone: what it knows of the channel.

    An utterance with fewer such frames than a segment gives its quietest ones.
    """
    kept = []
    for start, length in zip(bench.starts, bench.lengths, strict=True):
        frames = np.array(bench.store.frames[start : start + length])
        mask = non_speech_mask(frames, mel)
        if mask.sum() < min(mel.segment, length):
            mask = np.isin(np.arange(length), np.argsort(frames.mean(1), kind="stable")[: mel.segment])
        kept.append(frames[mask])
    lengths = np.array([len(frames) for frames in kept])
    vectors = embed(model, normaliser, mel.segment, np.concatenate(kept), np.cumsum(lengths) - lengths, lengths)
    return _row(bench, vectors.static, None, None, replicates)


def log_mel_rows(bench: Benchmark, normaliser: Normaliser, replicates: int = 1000) -> Mapping[str, Row]:
    """No model at all: the mean log-mel of an utterance, as the encoders see it (`log-mel`), and after that utterance's
    own mean and variance (over all frames and bins: a bin's own mean would leave nothing) are taken out (`log-mel-mvn`)."""
    plain, own = [], []
    for start, length in zip(bench.starts, bench.lengths, strict=True):
        frames = np.asarray(bench.store.frames[start : start + length], dtype=np.float64)
        frames = (frames - normaliser.mean.numpy()) / normaliser.deviation.numpy()
        plain.append(frames.mean(0))
        own.append((frames.mean(0) - frames.mean()) / frames.std())
    rows = {"log-mel": np.array(plain), "log-mel-mvn": np.array(own)}
    return {name: _row(bench, vectors, None, None, replicates) for name, vectors in rows.items()}


def _row(
    bench: Benchmark, static: np.ndarray, dynamic: np.ndarray | None, mean: np.ndarray | None, replicates: int
) -> Row:
    said, scores = report(static, dynamic, bench.trials, mean, synthetic=bench.synthetic, replicates=replicates)
    return (said | {"partial": bench.partial} if bench.partial else said), scores
