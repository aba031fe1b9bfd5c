"""The benchmark of a corpus: the right utterances, in the right order, and rows that are what they are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import TINY

from rwae_audio.data.corpora.base import Corpus, Utterance
from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.data.store import FrameStore
from rwae_audio.evaluation.benchmark import (
    Benchmark,
    benchmark,
    dynamic_mean,
    embed_rows,
    log_mel_rows,
    model_row,
    non_speech_row,
    with_benchmark,
)
from rwae_audio.evaluation.verification import cosine_scores, eer
from rwae_audio.files import InputError
from rwae_audio.inference.embedding import embed
from rwae_audio.model import RWAE, ModelConfig
from rwae_audio.settings import resolve

MEL = MelConfig(segment=10)


def made_up(name: str = "own", speakers: int = 5, split: str = "test") -> Corpus:
    """`speakers` speakers; speaker i has i + 1 utterances."""
    return Corpus(
        name,
        tuple(
            Utterance(f"s{i}/{j}.wav", f"s{i}", split, Path(f"/{name}/s{i}/{j}.wav"))  # type: ignore[arg-type]
            for i in range(speakers)
            for j in range(i + 1)
        ),
    )


def stored(*corpora: Corpus) -> FrameStore:
    """Every utterance 20 to 47 frames of noise around a level of its own."""
    utterances = tuple(u for corpus in corpora for u in corpus.utterances)
    rng = np.random.default_rng(0)
    lengths = [20 + (7 * i) % 28 for i in range(len(utterances))]
    frames = [rng.standard_normal(80) + rng.standard_normal((n, 80)) for n in lengths]
    return FrameStore(np.concatenate(frames).astype(np.float32), np.cumsum([0, *lengths]), utterances)


@pytest.fixture
def model() -> RWAE:
    torch.manual_seed(0)
    return RWAE(resolve(ModelConfig, TINY, "[model]")).eval()


def test_all_pairs_of_each_speakers_longest_utterances() -> None:
    """Another corpus of the same names lies before it in the store; a speaker with one utterance is left out."""
    other, corpus = made_up("other"), made_up()
    store = stored(other, corpus)
    bench = benchmark(store, corpus, "test", per_speaker=3)
    assert [store.utterances[row].id for row in bench.rows] == list(bench.trials.names)
    assert all(store.utterances[row].path.parts[1] == "own" for row in bench.rows)
    assert bench.lengths.tolist() == [int(store.lengths[row]) for row in bench.rows]
    assert bench.starts.tolist() == [int(store.offsets[row]) for row in bench.rows]
    length = {u.id: int(store.lengths[row]) for row, u in enumerate(store.utterances) if u.path.parts[1] == "own"}
    for speaker in ("s1", "s2", "s3", "s4"):
        mine = [name for name in bench.trials.names if name.startswith(speaker)]
        left_out = [n for n in length if n.startswith(speaker) and n not in mine]
        assert len(mine) == min(3, int(speaker[1]) + 1)
        assert max((length[n] for n in left_out), default=0) <= min(length[n] for n in mine)
    assert "s0" not in bench.speakers
    pairs = len(bench.rows) * (len(bench.rows) - 1) // 2
    assert len(bench.trials) == pairs == 55
    who = np.array(bench.speakers)
    assert np.array_equal(bench.trials.target, who[bench.trials.enrol] == who[bench.trials.test])


def test_a_corpus_brings_its_own_list(tmp_path: Path) -> None:
    """In the list's own order, its names with another extension than the files'."""
    (tmp_path / "list.txt").write_text("0 s4/1.sph s1/1.sph\n1 s1/1.sph s1/0.wav\n")
    corpus = replace(made_up(), trial_lists={"test": tmp_path / "list.txt"})
    store = stored(corpus)
    bench = benchmark(store, corpus, "test")
    assert bench.trials.names == ("s4/1.wav", "s1/1.wav", "s1/0.wav")
    assert [store.utterances[row].id for row in bench.rows] == list(bench.trials.names)
    assert bench.speakers == ["s4", "s1", "s1"]


def test_too_few_speakers_are_an_error() -> None:
    corpus = made_up(speakers=2)
    with pytest.raises(InputError, match="own has fewer than two test speakers with two utterances"):
        benchmark(stored(corpus), corpus, "test")
    with pytest.raises(InputError, match="fewer than two dev speakers"):
        benchmark(stored(corpus), corpus, "dev")


def test_speakers_are_held_out_where_the_corpus_does_not_say() -> None:
    corpus = with_benchmark(made_up(speakers=12, split="train"))
    splits = [set(corpus.speakers(split)) for split in ("train", "dev", "test")]
    assert all(len(split) >= 2 for split in splits)
    assert len(set.union(*splits)) == sum(map(len, splits)) == 12
    assert "held out" in corpus.notes[-1]
    assert with_benchmark(corpus) is corpus
    with pytest.raises(InputError, match="own has only test speakers; expected some to train on"):
        with_benchmark(made_up())


@pytest.fixture
def bench() -> Benchmark:
    corpus = made_up()
    return benchmark(stored(made_up("other", 3), corpus), replace(corpus, synthetic=True), "test")


def test_a_models_row_is_the_report_of_its_vectors(bench: Benchmark, model: RWAE) -> None:
    normaliser = Normaliser.fit(bench.store.frames)
    vectors = embed_rows(bench, model, normaliser, MEL)
    for i, row in enumerate(bench.rows):
        frames = bench.store.of(int(row)).numpy()
        alone = embed(model, normaliser, 10, frames, np.array([0]), np.array([len(frames)]))
        np.testing.assert_allclose(vectors.static[i], alone.static[0], atol=1e-6)
        np.testing.assert_allclose(vectors.dynamic[i], alone.dynamic[0], atol=1e-6)
    mean = dynamic_mean(bench.store, bench.rows, model, normaliser, MEL)
    np.testing.assert_allclose(mean, vectors.dynamic.mean(0), atol=1e-6)
    said, scores = model_row(bench, vectors, mean, replicates=20)
    assert said["static"]["eer"] == eer(cosine_scores(vectors.static, bench.trials), bench.trials.target)
    assert said["synthetic"] is True
    np.testing.assert_allclose(scores["dynamic_centred"], cosine_scores(vectors.dynamic - mean, bench.trials))


def test_log_mel_rows_are_the_plain_formulas(bench: Benchmark) -> None:
    normaliser = Normaliser.fit(bench.store.frames)
    rows = log_mel_rows(bench, normaliser, replicates=0)
    means, own = [], []
    for row in bench.rows:
        frames = normaliser(bench.store.of(int(row))).double().numpy()
        means.append(frames.mean(0))
        own.append(((frames - frames.mean()) / frames.std()).mean(0))
    for name, vectors in (("log-mel", means), ("log-mel-mvn", own)):
        expected = cosine_scores(np.array(vectors), bench.trials)
        np.testing.assert_allclose(rows[name][1]["static"], expected, atol=1e-5)
        assert rows[name][0]["dynamic"] is None


def test_a_recordings_level_is_gone_after_mvn(bench: Benchmark) -> None:
    """Louder (an offset of all log-mels) and more dynamic (a factor) change nothing in `log-mel-mvn`."""
    normaliser = Normaliser(torch.zeros(80), torch.ones(80))
    frames = bench.store.frames.copy()
    for i, row in enumerate(bench.rows):
        frames[bench.store.offsets[row] : bench.store.offsets[row + 1]] *= 1 + i / 10
        frames[bench.store.offsets[row] : bench.store.offsets[row + 1]] += i
    louder = replace(bench, store=replace(bench.store, frames=frames))
    before, after = (log_mel_rows(b, normaliser, replicates=0) for b in (bench, louder))
    np.testing.assert_allclose(before["log-mel-mvn"][1]["static"], after["log-mel-mvn"][1]["static"], atol=1e-5)
    assert not np.allclose(before["log-mel"][1]["static"], after["log-mel"][1]["static"], atol=1e-2)


def test_the_non_speech_row_hears_no_speech(bench: Benchmark, model: RWAE) -> None:
    """Whatever is said in the loud frames, the row stays; 12 quiet frames open every utterance."""
    rng = np.random.default_rng(1)
    rows = []
    quiet = (-9 + rng.standard_normal((len(bench.rows), 12, 80)) / 10).astype(np.float32)
    normaliser = Normaliser(torch.full((80,), -5.0), torch.full((80,), 3.0))
    for _ in range(2):
        frames = bench.store.frames.copy()
        for i, row in enumerate(bench.rows):
            first, last = bench.store.offsets[row], bench.store.offsets[row + 1]
            frames[first : first + 12] = quiet[i]
            frames[first + 12 : last] = rng.standard_normal((last - first - 12, 80))
        changed = replace(bench, store=replace(bench.store, frames=frames))
        rows.append(non_speech_row(changed, model, normaliser, MEL, replicates=0))
    np.testing.assert_allclose(rows[0][1]["static"], rows[1][1]["static"], atol=1e-9)
    assert rows[0][0]["dynamic"] is None


def test_an_utterance_without_pauses_gives_its_quietest_segment(bench: Benchmark, model: RWAE) -> None:
    normaliser = Normaliser.fit(bench.store.frames)
    _, scores = non_speech_row(bench, model, normaliser, MEL, replicates=0)
    vectors = []
    for row in bench.rows:
        frames = bench.store.of(int(row)).numpy()
        quietest = frames[np.sort(np.argsort(frames.mean(1), kind="stable")[:10])]
        vectors.append(embed(model, normaliser, 10, quietest, np.array([0]), np.array([10])).static[0])
    np.testing.assert_allclose(scores["static"], cosine_scores(np.array(vectors), bench.trials), atol=1e-5)
