"""Probes: they find what is there, and nothing in noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import SWITCHES, TINY
from scipy.stats import binom

from rwae_audio.data.corpora import Corpus, read_corpus
from rwae_audio.data.corpora.base import Phone
from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.data.store import FrameStore, open_store
from rwae_audio.evaluation import probes
from rwae_audio.evaluation.alignment import SILENCE, phones_of
from rwae_audio.evaluation.benchmark import Benchmark, benchmark
from rwae_audio.evaluation.probes import (
    folds,
    phone_probe,
    phone_report,
    probe_report,
    speaker_probe_gru,
    speaker_probe_linear,
)
from rwae_audio.files import InputError
from rwae_audio.model import RWAE, ModelConfig
from rwae_audio.settings import resolve

RNG = np.random.default_rng
CLASSES = np.array(["aa", "iy", "s", "t"])


def frames(count: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (N, 5) around a centre of their class; the first class is as common as the others together."""
    rng = RNG(seed)
    y = np.where(rng.random(count) < 0.5, 0, rng.integers(1, 4, count))
    return RNG(9).standard_normal((4, 5))[y] + spread * rng.standard_normal((count, 5)), CLASSES[y]


def test_phone_probe_separates_what_can_be_separated() -> None:
    result = phone_probe(*frames(2000, 0.1, 0), *frames(500, 0.1, 1))
    assert result.accuracy > 0.99
    assert (result.classes, result.train_frames, result.test_frames) == (4, 2000, 500)


def test_phone_probe_on_noise_says_the_commonest_class() -> None:
    (train_x, train_y), (test_x, test_y) = frames(4000, 1, 0), frames(1000, 1, 1)
    rng = RNG(2)
    result = phone_probe(rng.standard_normal(train_x.shape), train_y, rng.standard_normal(test_x.shape), test_y)
    assert result.majority == (test_y == "aa").mean()
    assert abs(result.accuracy - result.majority) < 0.03


def test_phone_probe_does_not_depend_on_scale_or_order() -> None:
    (train_x, train_y), (test_x, test_y) = frames(1500, 1.0, 0), frames(600, 1.0, 1)
    plain = phone_probe(train_x, train_y, test_x, test_y)
    scale, shift, order = np.array([1e3, 1, 1e-3, -5, 1]), np.array([100, 0, 3, 0, -1]), RNG(3).permutation(1500)
    other = phone_probe((train_x * scale + shift)[order], train_y[order], test_x * scale + shift, test_y)
    assert abs(plain.accuracy - other.accuracy) <= 2 / 600
    assert phone_probe(train_x, train_y, test_x, test_y) == plain


def test_phone_probe_is_scikit_learns_logistic_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    (train_x, train_y), (test_x, test_y) = frames(800, 1.0, 0), frames(800, 1.0, 1)
    x, held_out = ((values - train_x.mean(0)) / train_x.std(0) for values in (train_x, test_x))
    theirs = linear_model.LogisticRegression(max_iter=1000, tol=1e-8).fit(x, train_y).predict(held_out)
    accuracy = phone_probe(train_x, train_y, test_x, test_y).accuracy
    assert abs(accuracy - (theirs == test_y).mean()) <= 2 / 800


def test_silence_is_never_counted() -> None:
    (train_x, train_y), (test_x, test_y) = frames(1000, 0.1, 0), frames(400, 0.1, 1)
    plain = phone_probe(train_x, train_y, test_x, test_y)
    silent = np.full((3000, 5), 50.0)
    for label in (SILENCE, ""):
        pause = np.full(3000, label)
        more = phone_probe(
            np.concatenate([silent, train_x]),
            np.concatenate([pause, train_y]),
            np.concatenate([test_x, silent]),
            np.concatenate([test_y, pause]),
        )
        assert more == plain
        with pytest.raises(InputError, match="0 training"):
            phone_probe(silent, pause, test_x, test_y)


def test_phone_probe_draws_at_most_so_many_frames_and_counts_unknown_classes_as_wrong() -> None:
    (train_x, train_y), (test_x, test_y) = frames(1000, 0.1, 0), frames(400, 0.1, 1)
    result = phone_probe(train_x, train_y, test_x, test_y, most=300)
    assert result.train_frames == 300
    assert result == phone_probe(train_x, train_y, test_x, test_y, most=300)
    known = train_y != "t"
    assert phone_probe(train_x[known], train_y[known], test_x, test_y).accuracy <= (test_y != "t").mean()


def test_folds_hold_each_utterance_out_once_and_each_speaker_out_of_each_fold_once() -> None:
    speakers = [f"s{i % 5}" for i in range(40)]
    places = folds(speakers)
    for place in range(8):
        assert sorted(s for s, p in zip(speakers, places, strict=True) if p == place) == [f"s{i}" for i in range(5)]
    assert folds(["a"] * 10).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]


def test_speaker_probes_never_see_the_utterance_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def linear(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray) -> np.ndarray:
        assert not set(train_x[:, 0]) & set(test_x[:, 0])
        seen.extend(test_x[:, 0])
        return np.zeros(len(test_x), dtype=int)

    monkeypatch.setattr(probes, "_linear", linear)
    speaker_probe_linear([np.full((9, 1), i) for i in range(24)], [f"s{i // 8}" for i in range(24)])
    assert sorted(seen) == list(range(24))


def test_linear_speaker_probe_finds_means_and_deviations() -> None:
    rng, speakers = RNG(0), [f"s{i // 8}" for i in range(32)]
    by_mean = [rng.standard_normal((60, 3)) + 2 * np.eye(4)[i // 8, :3] for i in range(32)]
    by_deviation = [rng.standard_normal((60, 3)) * (1 + 2 * np.eye(4)[i // 8, :3]) for i in range(32)]
    for codes in (by_mean, by_deviation):
        result = speaker_probe_linear(codes, speakers)
        assert result.accuracy > 0.95
        assert result.chance == 0.25


def in_order(period: int, rng: np.random.Generator) -> np.ndarray:
    """Codes (120, 2): a wave and its double, their values the same for all periods; only the order differs."""
    time = np.arange(120) * period / 120 + rng.random()
    return np.stack([np.cos(2 * np.pi * time), np.cos(4 * np.pi * time)], 1)


def test_gru_probe_hears_the_order_that_the_linear_probe_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "GRU_UPDATES", 120)
    rng, speakers = RNG(0), [f"s{i // 8}" for i in range(24)]
    codes = [in_order((6, 15, 40)[i // 8], rng) for i in range(24)]
    assert speaker_probe_linear(codes, speakers).accuracy < 0.6
    assert speaker_probe_gru(codes, speakers).accuracy > 0.9


def test_probes_of_noise_are_at_chance_and_repeat_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "GRU_UPDATES", 30)
    rng, speakers = RNG(1), [f"s{i // 8}" for i in range(48)]
    codes = [rng.standard_normal((30 + i, 2)) for i in range(48)]  # some are shorter than a stretch
    low, high = binom.interval(0.999, 48, 1 / 6)
    for probe in (speaker_probe_linear, speaker_probe_gru):
        result = probe(codes, speakers)
        assert low <= 48 * result.accuracy <= high
        assert result.chance == 1 / 6
        assert probe(codes, speakers) == result


def test_networks_side_by_side_are_torchs_gru() -> None:
    draw = torch.Generator().manual_seed(0)
    nets, frames = probes._GRUs(3, 5, 4, draw), torch.randn(3, 6, 7, 5, generator=draw)
    theirs = torch.nn.GRU(5, probes.GRU_HIDDEN, batch_first=True)
    with torch.no_grad():
        for name, value in (("weight_ih", nets.of_input), ("weight_hh", nets.of_state)):
            getattr(theirs, f"{name}_l0").copy_(value[1].T)
        theirs.bias_ih_l0.copy_(nets.input_bias[1, 0])
        theirs.bias_hh_l0.copy_(nets.state_bias[1, 0])
        expected = theirs(frames[1])[0].mean(1) @ nets.out[1] + nets.out_bias[1]
        torch.testing.assert_close(nets(frames)[1], expected)
        torch.testing.assert_close(nets(frames[1:2], slice(1, 2))[0], expected)


def test_centres_of_segments() -> None:
    assert probes._centres(np.array([3, 2]), 1).tolist() == [0, 1, 2, 3, 4]
    # 0 to 9 · 10 to 19, then 13 to 22 aligned right, whose centre lies in the one before · 3 frames · 0 to 9, 9 to 18
    assert probes._centres(np.array([23, 3, 19]), 10).tolist() == [5, 15, 24, 31, 40]


def some_of_the_demo(
    folder: Path, mel: MelConfig, train: int, test: int
) -> tuple[FrameStore, Mapping[Path, tuple[Phone, ...]], np.ndarray, Benchmark]:
    """Store, phones, training utterances and benchmark of so many of the demo corpus' speakers."""
    demo = read_corpus("demo")
    speakers = [*demo.speakers("train")[:train], *demo.speakers("test")[:test]]
    small = Corpus("demo", tuple(u for u in demo.utterances if u.speaker in speakers), synthetic=True)
    store = open_store([small], mel, folder)
    return store, phones_of(small).phones, store.indices("train"), benchmark(store, small, "test")


def test_of_a_code_a_segment_the_phone_at_its_centre_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mel = MelConfig()
    store, phones, rows, bench = some_of_the_demo(tmp_path, mel, 2, 2)
    torch.manual_seed(0)
    model = RWAE(resolve(ModelConfig, {**TINY, **SWITCHES["fhvae"]}, "[model]")).eval()
    asked = []

    def probe(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> probes.PhoneProbe:
        assert (len(train_x), len(test_x)) == (len(train_y), len(test_y))
        asked.append((len(train_x), test_x))
        return probes.PhoneProbe(0.5, 0.25, 4, len(train_x), len(test_x))

    monkeypatch.setattr(probes, "phone_probe", probe)
    report = phone_report(store, rows, bench, model, Normaliser.fit(store.frames), mel, phones)
    assert report["per"] == "segment"
    counts = [len(probes._centres(store.lengths[side], mel.segment)) for side in (rows, bench.rows)]
    assert [(train, len(test)) for train, test in asked] == [tuple(counts)] * 3
    z_m, _, log_mel = (test for _, test in asked)
    np.testing.assert_array_equal(log_mel[0], store.of(bench.rows[0])[mel.segment // 2])
    assert len(np.unique(z_m[:5], axis=0)) == 5


def test_report_of_the_demo_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mel = MelConfig()
    store, phones, rows, bench = some_of_the_demo(tmp_path, mel, 6, 4)
    torch.manual_seed(0)
    model = RWAE(resolve(ModelConfig, TINY, "[model]")).eval()
    normaliser = Normaliser.fit(store.frames)
    monkeypatch.setattr(probes, "MOST_FRAMES", 6000)
    monkeypatch.setattr(probes, "GRU_UPDATES", 20)
    silenced = {path: labels for path, labels in phones.items() if path != store.utterances[rows[0]].path}
    report = probe_report(store, rows, bench, model, normaliser, mel, silenced)
    phone, speaker = report["phone"], report["speaker"]
    assert phone["left_out"] == {"train": 1, "test": 0}
    assert phone["majority"] < phone["z_m"] < 1  # an untrained recurrent net still passes a part of its input on
    assert phone["majority"] + 0.2 < phone["log_mel"] < 1
    assert 0 < phone["z_c"] < phone["log_mel"]  # one code a window says less than the frame itself
    assert 0 < phone["test_frames"] < bench.lengths.sum()
    assert (speaker["speakers"], speaker["utterances"], speaker["chance"]) == (4, 32, 0.25)
    assert 0 <= speaker["gru"] <= 1
    without = probe_report(store, rows, bench, model, normaliser, mel, {})
    assert without["phone"] == {"left_out": {"train": len(rows), "test": 32}}
    assert without["speaker"] == speaker


def test_a_held_static_code_is_its_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rwae_audio.model.rwae.EMBEDDING_WINDOW", TINY["static_window"])
    demo = read_corpus("demo")
    mel, store = MelConfig(), open_store([demo], MelConfig(), tmp_path)
    torch.manual_seed(0)
    model = RWAE(resolve(ModelConfig, TINY, "[model]")).eval()
    normaliser, rows, size = Normaliser.fit(store.frames), np.arange(2), TINY["static_window"]
    held = np.split(probes._static_codes(store, rows, model, normaliser, mel), [store.lengths[0]])[1]
    frames = normaliser(store.of(1))
    assert len(held) == len(frames) > size
    assert len(frames) % size
    with torch.no_grad():
        for first, last in ((0, frames[:size]), (len(frames) // size * size, frames[-size:])):
            expected = model.static_encoder(last[None], None, None).mean[0]
            np.testing.assert_allclose(held[first], expected, atol=1e-5)
            np.testing.assert_array_equal(held[first], held[min(first + size, len(held)) - 1])
