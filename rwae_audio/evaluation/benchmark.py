"""The speaker benchmark of a corpus: its trials, and the error rates of a model and of log-mel baselines on them."""

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

Row = tuple[dict[str, Any], dict[str, np.ndarray]]  # the output of `verification.report`: a report, and scores by kind


@dataclass(frozen=True)
class Benchmark:
    """The trials of a split of a corpus, with M utterances in a frame store.

    Attributes:
        store: The frame store.
        rows: The index in the store of each utterance, in the order of trials.names, (M,).
        trials: The trials.
        synthetic: Whether the speech is synthetic.
        partial: A note for the tables that tells what an incomplete corpus lacks, or "".
    """

    store: FrameStore
    rows: np.ndarray
    trials: Trials
    synthetic: bool
    partial: str = ""

    @property
    def starts(self) -> np.ndarray:
        """The first frame of each utterance in the store, (M,)."""
        return self.store.offsets[:-1][self.rows]

    @property
    def lengths(self) -> np.ndarray:
        """The number of frames of each utterance, (M,)."""
        return self.store.lengths[self.rows]

    @property
    def speakers(self) -> list[str]:
        """The speaker of each utterance."""
        return [self.store.utterances[row].speaker for row in self.rows]


def with_benchmark(corpus: Corpus) -> Corpus:
    """Return a corpus that has a development split and a test split.

    If one of them is missing, some training speakers are held out for both.

    Raises:
        InputError: A split is missing, and there are no training speakers to hold out.
    """
    splits = {utterance.split for utterance in corpus.utterances}
    if {"dev", "test"} <= splits:
        return corpus
    if "train" not in splits:
        raise InputError(f"{corpus.name} has only {' and '.join(sorted(splits))} speakers; expected some to train on")
    note = "no development and test speakers in the corpus: some of its training speakers are held out"
    utterances = tuple(u for u in corpus.utterances if u.split == "train")
    return replace(corpus, utterances=hold_out(utterances), notes=(*corpus.notes, note))


def read_planned(plan: dict[str, Any]) -> list[Corpus]:
    """Read the corpora of a run's plan; corpora in its `test` get development and test speakers (`with_benchmark`).

    This adds a list of the corpora's utterances to the plan.

    Raises:
        InputError: The run began with other utterances.
    """
    corpora = planned_corpora(plan)
    keep_content(plan, corpora)
    return [with_benchmark(corpus) if corpus.name in plan["test"] else corpus for corpus in corpora]


def benchmarks(store: FrameStore, corpora: Sequence[Corpus], tested: Sequence[str], split: str) -> dict[str, Benchmark]:
    """Return the benchmark of each tested corpus by name.

    Args:
        store: The frame store of all corpora.
        corpora: The corpora.
        tested: The names of the tested corpora.
        split: "dev" or "test".
    """
    named = {corpus.name: corpus for corpus in corpora}
    return {name: benchmark(store, named[name], split) for name in tested}


def benchmark(store: FrameStore, corpus: Corpus, split: str, per_speaker: int = 8) -> Benchmark:
    """Return the benchmark of a split of a corpus.

    Its trials are those of the corpus's own trial list. Without a list they are all pairs of utterances, from the longest
    utterances of each speaker. An incomplete corpus (corpus.partial) has the trials of its list whose recordings exist, or
    all pairs if target or non-target trials are missing.

    Args:
        store: The frame store, which may hold other corpora as well.
        corpus: The corpus.
        split: "dev" or "test".
        per_speaker: The largest number of utterances of a speaker if the trials are all pairs.

    Raises:
        InputError: There are too few speakers, or a recording of the trial list is silent.
    """
    all_rows = {(u.path, u.id): row for row, u in enumerate(store.utterances)}
    row_of = {u.id: all_rows[u.path, u.id] for u in corpus.utterances if (u.path, u.id) in all_rows}
    partial = corpus.partial
    if split in corpus.trial_lists:
        listed = read_trials(corpus.trial_lists[split])
        silent = {u.id: u.path for u in store.silent} if not partial else {}
        if mute := [silent[name] for name in listed.names if name in silent]:
            raise InputError(f"{mute[0]} of the trial list is silent; expected speech")
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
    """Return the embeddings of the utterances of a benchmark, in the order of trials.names.

    Args:
        bench: The benchmark.
        model: The model.
        normaliser: The normaliser of the frames.
        mel: The settings of the frames.
    """
    return embed(model, normaliser, mel.segment, bench.store.frames, bench.starts, bench.lengths)


def dynamic_mean(
    store: FrameStore, rows: np.ndarray, model: RWAE, normaliser: Normaliser, mel: MelConfig
) -> np.ndarray:
    """Return the mean dynamic embedding of training utterances, (dynamic_dim,).

    Args:
        store: The frame store.
        rows: The indices of the utterances in the store.
        model: The model.
        normaliser: The normaliser of the frames.
        mel: The settings of the frames.
    """
    starts, lengths = store.offsets[:-1][rows], store.lengths[rows]
    return embed(model, normaliser, mel.segment, store.frames, starts, lengths).dynamic.mean(0)


def model_row(bench: Benchmark, vectors: Embeddings, mean: np.ndarray, replicates: int = 1000) -> Row:
    """Return the report and the scores of a model's static and dynamic embeddings.

    Args:
        bench: The benchmark.
        vectors: The embeddings, from `embed_rows`.
        mean: The mean dynamic embedding of training speakers, (dynamic_dim,).
        replicates: The number of bootstrap draws; 0 for no intervals.
    """
    return _row(bench, vectors.static, vectors.dynamic, mean, replicates)


def non_speech_row(
    bench: Benchmark, model: RWAE, normaliser: Normaliser, mel: MelConfig, replicates: int = 1000
) -> Row:
    """Return the report and the scores of a model's static code, computed from non-speech frames alone.

    A low EER means that the static code identifies recording conditions. If an utterance has fewer non-speech frames than
    a segment, its quietest frames are used.

    Args:
        bench: The benchmark.
        model: The model.
        normaliser: The normaliser of the frames.
        mel: The settings of the frames.
        replicates: The number of bootstrap draws; 0 for no intervals.
    """
    selected = []
    for start, length in zip(bench.starts, bench.lengths, strict=True):
        frames = np.array(bench.store.frames[start : start + length])
        mask = non_speech_mask(frames, mel)
        if mask.sum() < min(mel.segment, length):
            mask = np.isin(np.arange(length), np.argsort(frames.mean(1), kind="stable")[: mel.segment])
        selected.append(frames[mask])
    lengths = np.array([len(frames) for frames in selected])
    vectors = embed(model, normaliser, mel.segment, np.concatenate(selected), np.cumsum(lengths) - lengths, lengths)
    return _row(bench, vectors.static, None, None, replicates)


def log_mel_rows(bench: Benchmark, normaliser: Normaliser, replicates: int = 1000) -> Mapping[str, Row]:
    """Return the reports and the scores of two embeddings without a model: mean log-mels of utterances.

    `log-mel` is the mean normalised log-mel. For `log-mel-mvn` the utterance is normalised by its own mean and deviation
    first. These are taken over all frames and bins, since the mean of each bin is the embedding itself.

    Args:
        bench: The benchmark.
        normaliser: The normaliser of the frames.
        replicates: The number of bootstrap draws; 0 for no intervals.
    """
    plain, standardised = [], []
    for start, length in zip(bench.starts, bench.lengths, strict=True):
        frames = np.asarray(bench.store.frames[start : start + length], dtype=np.float64)
        frames = (frames - normaliser.mean.numpy()) / normaliser.deviation.numpy()
        plain.append(frames.mean(0))
        standardised.append((frames.mean(0) - frames.mean()) / frames.std())
    rows = {"log-mel": np.array(plain), "log-mel-mvn": np.array(standardised)}
    return {name: _row(bench, vectors, None, None, replicates) for name, vectors in rows.items()}


def _row(
    bench: Benchmark, static: np.ndarray, dynamic: np.ndarray | None, mean: np.ndarray | None, replicates: int
) -> Row:
    summary, scores = report(static, dynamic, bench.trials, mean, synthetic=bench.synthetic, replicates=replicates)
    return (summary | {"partial": bench.partial} if bench.partial else summary), scores
