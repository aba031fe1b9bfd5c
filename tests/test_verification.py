"""The benchmark's arithmetic against other libraries, brute force, and cases worked by hand."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from rwae_audio.evaluation import bootstrap
from rwae_audio.evaluation.bootstrap import bootstrap_weights
from rwae_audio.evaluation.rates import rates
from rwae_audio.evaluation.scores import write_scores
from rwae_audio.evaluation.trials import Trials, all_pairs, speakers_of
from rwae_audio.evaluation.verification import (
    bootstrap_eers,
    cosine_scores,
    det_points,
    eer,
    eer_threshold,
    fold,
    interval,
    min_dcf,
    report,
    report_scores,
)
from rwae_audio.files import InputError


def voices(speakers: int = 24, each: int = 8, spread: float = 1.0, seed: int = 0) -> tuple[np.ndarray, Trials]:
    """Vectors of speakers around their own centres, and all pairs of them."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.standard_normal((speakers, 16)), each, axis=0)
    names = [f"s{i // each}/{i % each}.wav" for i in range(speakers * each)]
    return centres + spread * rng.standard_normal(centres.shape), all_pairs(names, [name[:3] for name in names])


@pytest.fixture(scope="module")
def long_list() -> tuple[np.ndarray, Trials]:
    """18,336 trials with an EER of some 15 %."""
    vectors, trials = voices(spread=1.2)
    return cosine_scores(vectors, trials), trials


@pytest.mark.slow
def test_eer_is_speechbrains_and_quicker(long_list: tuple[np.ndarray, Trials]) -> None:
    from speechbrain.utils.metric_stats import EER

    scores, trials = long_list
    assert len(scores) == 18336
    began = time.perf_counter()
    ours = eer(scores, trials.target)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    theirs, _ = EER(torch.from_numpy(scores[trials.target]), torch.from_numpy(scores[~trials.target]))
    assert ours == pytest.approx(theirs, abs=0.0015)
    assert 0.05 < ours < 0.3
    assert seconds < (time.perf_counter() - began) / 10


@pytest.mark.parametrize("decimals", [1, 2, 6])
@pytest.mark.parametrize("seed", range(5))
def test_eer_is_the_root_of_the_interpolated_rates(decimals: int, seed: int) -> None:
    """Coarse scores tie; the ROC is built by counting, and scipy finds where it crosses the diagonal."""
    from scipy.optimize import brentq

    rng = np.random.default_rng(seed)
    target = rng.random(200) < 0.2
    scores = (rng.standard_normal(200) + 1.5 * target).round(decimals)
    thresholds = [*np.unique(scores), np.inf]
    miss = [np.mean(scores[target] < t) for t in thresholds]
    false_alarm = [np.mean(scores[~target] >= t) for t in thresholds]
    steps = np.arange(len(thresholds))
    root = brentq(lambda x: np.interp(x, steps, miss) - np.interp(x, steps, false_alarm), 0, steps[-1], xtol=1e-13)
    assert eer(scores, target) == pytest.approx(np.interp(root, steps, miss), abs=1e-10)
    np.testing.assert_allclose(rates(scores, target)[1], miss)
    np.testing.assert_allclose(rates(scores, target)[2], false_alarm)
    np.testing.assert_allclose(np.stack(det_points(scores, target)), [false_alarm, miss])


@pytest.mark.parametrize(
    ("targets", "others", "rate", "threshold"),
    [
        ([3, 4], [1, 2], 0, 3),
        ([1, 2], [3, 4], 1, 3),
        ([7], [7, 7, 7], 1 / 2, 7),  # all tied: a coin
        ([1, 3], [2], 1 / 2, 2.5),
        ([1, 3, 4, 5], [0, 0.5, 1.5, 2], 1 / 4, 2),
        ([2, 3], [1, 2], 1 / 4, 2.5),  # the tie at 2 runs from (0, 1/2) to (1/2, 0): half way
        ([1, 1, 2], [0, 1], 2 / 7, 1 + 3 / 7),  # from (0, 1/2) to (2/3, 0): they meet at 3/7 of it
    ],
)
def test_eer_of_cases_worked_by_hand(targets: list[float], others: list[float], rate: float, threshold: float) -> None:
    scores = np.array([*targets, *others], dtype=float)
    target = np.arange(len(scores)) < len(targets)
    for order in (np.arange(len(scores)), np.arange(len(scores))[::-1]):  # the order of a list says nothing
        assert eer(scores[order], target[order]) == pytest.approx(rate, abs=1e-12)
    assert eer(-scores, target) == pytest.approx(1 - rate, abs=1e-12)
    assert eer_threshold(scores, target) == pytest.approx(threshold, abs=1e-12)


def test_eer_does_not_move_with_a_rising_map_of_the_scores(long_list: tuple[np.ndarray, Trials]) -> None:
    scores, trials = long_list
    assert eer(np.arctanh(scores), trials.target) == eer(scores, trials.target)


def test_the_threshold_gives_the_rate(long_list: tuple[np.ndarray, Trials]) -> None:
    scores, trials = long_list
    rate, threshold = eer(scores, trials.target), eer_threshold(scores, trials.target)
    assert np.mean(scores[trials.target] < threshold) == pytest.approx(rate, abs=1 / 672)
    assert np.mean(scores[~trials.target] >= threshold) == pytest.approx(rate, abs=1 / 672)


@pytest.mark.parametrize("seed", range(5))
def test_min_dcf_is_the_least_cost_over_all_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.random(300) < 0.1
    scores = (rng.standard_normal(300) + 2 * target).round(1)
    costs = [
        0.05 * np.mean(scores[target] < t) + 0.95 * np.mean(scores[~target] >= t) for t in [*np.unique(scores), np.inf]
    ]
    assert min_dcf(scores, target) == pytest.approx(min(costs) / 0.05)
    assert min_dcf(scores, target, p_target=0.99, c_fa=3) == pytest.approx(
        min(
            0.99 * np.mean(scores[target] < t) + 0.03 * np.mean(scores[~target] >= t)
            for t in [*np.unique(scores), np.inf]
        )
        / 0.03
    )


def test_min_dcf_of_known_cases() -> None:
    target = np.array([True, True, False, False])
    assert min_dcf(np.array([3.0, 4, 1, 2]), target) == 0
    assert min_dcf(np.array([1.0, 2, 3, 4]), target) == 1  # nothing beats rejecting everything
    assert min_dcf(np.array([7.0, 7, 7, 7]), target) == 1


def test_min_dcf_of_two_priors_worked_by_hand() -> None:
    """Above 4 lie half of the targets; above 1 all of them, and a tenth of the others."""
    scores = np.array([5.0, 2, *[0] * 9, 4])
    target = np.arange(12) < 2
    summary = report_scores(scores, None, target)
    assert list(summary["min_dcf_at"]) == ["0.05", "0.01"]
    assert summary["min_dcf_at"]["0.05"] == summary["min_dcf"] == pytest.approx(0.5)
    assert summary["min_dcf_at"]["0.01"] == pytest.approx(0.5)
    at = report_scores(scores, None, target, p_targets=(0.5, 0.2))["min_dcf_at"]
    assert at == {"0.5": pytest.approx(0.1), "0.2": pytest.approx(0.8 * 0.1 / 0.2)}  # accepting all above 1 is cheaper


def test_a_weight_is_a_repetition() -> None:
    rng = np.random.default_rng(0)
    target = rng.random(60) < 0.4
    scores = (rng.standard_normal(60) + target).round(1)
    weights = rng.integers(0, 4, (3, 60))
    for row in weights:
        expected = eer(np.repeat(scores, row), np.repeat(target, row))
        assert eer(scores, target, row) == pytest.approx(expected, abs=1e-12)
    together = rates(scores, target, weights)
    np.testing.assert_allclose(together[1][1], rates(scores, target, weights[1])[1])


def test_bootstrap_weights_are_what_rebuilding_the_list_gives() -> None:
    """Speakers drawn with replacement, their utterances copied, all pairs made anew, but for those of two copies."""
    vectors, trials = voices(speakers=6, each=3)
    scores, speakers = cosine_scores(vectors, trials), speakers_of(trials)
    of_pair = {(a, b): score for a, b, score in zip(trials.enrol, trials.test, scores, strict=True)}
    utterances = [np.flatnonzero(speakers == s) for s in range(6)]
    for drawn, weights, fast in zip(
        np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=5),
        bootstrap_weights(trials, speakers, 5, seed=3),
        bootstrap_eers(scores, trials, speakers, 5, seed=3),
        strict=True,
    ):
        copies = [(s, copy) for s in range(6) for copy in range(drawn[s])]
        names = [(who, utterance) for who in copies for utterance in utterances[who[0]]]
        rebuilt, target = [], []
        for i, (one, a) in enumerate(names):
            for other, b in names[i + 1 :]:
                if one == other or one[0] != other[0]:
                    rebuilt.append(of_pair[a, b])
                    target.append(one == other)
        assert weights[trials.target].sum() == sum(target)
        assert weights[~trials.target].sum() == len(target) - sum(target)
        assert fast == pytest.approx(eer(np.array(rebuilt), np.array(target)), abs=1e-12)


def test_the_same_seed_draws_the_same_speakers_for_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, trials = voices(speakers=8, each=3)
    speakers = speakers_of(trials)
    scores = cosine_scores(vectors, trials)
    first = bootstrap_eers(scores, trials, speakers, 250)
    assert np.array_equal(first, bootstrap_eers(2 * scores + 1, trials, speakers, 250))
    assert not np.array_equal(first, bootstrap_eers(scores, trials, speakers, 250, seed=1))
    monkeypatch.setattr(bootstrap, "COPIES", 7 * 8)  # of very many speakers, fewer draws are weighted at once
    assert np.array_equal(first, bootstrap_eers(scores, trials, speakers, 250))


def test_intervals_hold_the_rate_and_narrow_with_more_speakers() -> None:
    spans = []
    for count in (6, 40):
        vectors, trials = voices(speakers=count, each=4, spread=1.2)
        scores = cosine_scores(vectors, trials)
        low, high = interval(bootstrap_eers(scores, trials, speakers_of(trials), 300)) or [0, 0]
        assert low < eer(scores, trials.target) < high
        spans.append(high - low)
    assert spans[1] < spans[0]
    assert interval(np.zeros(0)) is None
    assert interval(np.full(3, np.nan)) is None
    assert interval(np.array([0.1, np.nan, 0.1])) == [0.1, 0.1]


def test_draws_of_a_single_speaker_have_no_rate() -> None:
    vectors, trials = voices(speakers=2, each=3)
    draws = bootstrap_eers(cosine_scores(vectors, trials), trials, speakers_of(trials), 100)
    drawn = np.random.default_rng(0).multinomial(2, [0.5, 0.5], size=100)
    assert np.array_equal(np.isnan(draws), (drawn == 0).any(1))


def test_fold() -> None:
    assert fold(0.7) == pytest.approx(0.3)
    np.testing.assert_allclose(fold(np.array([0.0, 0.5, 1.0])), [0, 0.5, 0])


def test_cosine_is_torchs() -> None:
    vectors, trials = voices(speakers=3, each=2)
    expected = torch.cosine_similarity(*(torch.from_numpy(vectors[i]) for i in (trials.enrol, trials.test)))
    np.testing.assert_allclose(cosine_scores(vectors, trials), expected, atol=1e-12)
    np.testing.assert_allclose(cosine_scores(1e-30 * vectors, trials), expected, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_named(value: float) -> None:
    vectors, trials = voices(speakers=3, each=2)
    vectors[3] = value
    with pytest.raises(InputError, match=r"s1/1\.wav has a vector"):
        cosine_scores(vectors, trials)


def test_the_report_is_made_of_these_parts() -> None:
    static, trials = voices(speakers=10, each=4)
    offset = np.full(16, 3.0)  # a common offset hides what the dynamic vectors know of the speaker
    dynamic = voices(speakers=10, each=4, spread=1.5)[0] + offset
    said, scores = report(static, dynamic, trials, offset, synthetic=True, replicates=100)
    assert said["trials"] == len(trials) == 780
    assert (said["target_trials"], said["speakers"], said["synthetic"]) == (60, 10, True)
    assert said["static"]["eer"] == eer(cosine_scores(static, trials), trials.target)
    assert said["static"]["min_dcf"] == min_dcf(scores["static"], trials.target)
    plain, centred = (fold(eer(cosine_scores(d, trials), trials.target)) for d in (dynamic, dynamic - offset))
    assert (said["dynamic"]["plain"], said["dynamic"]["centred"]) == (plain, centred)
    assert centred < plain
    assert said["dynamic"]["eer"] == centred
    assert said["dynamic"]["min_dcf"] == min_dcf(scores["dynamic_centred"], trials.target)
    assert said["gap"] == centred - said["static"]["eer"]
    for span, rate in (
        (said["static"]["interval"], said["static"]["eer"]),
        (said["dynamic"]["interval"], centred),
        (said["gap_interval"], said["gap"]),
    ):
        assert span[0] < rate < span[1]
    assert np.array_equal(scores["dynamic_plain"], cosine_scores(dynamic, trials))


def test_an_inverted_dynamic_code_leaks_as_much() -> None:
    """Every speaker's utterances point away from each other: EER over one half, reported folded."""
    trials = all_pairs(["a/0", "a/1", "b/0", "b/1"], ["a", "a", "b", "b"])
    dynamic = np.array([[1, 0], [-1, 0], [0, 1], [0, -1.0]])
    said, _ = report(np.eye(4) + 1, dynamic, trials, np.zeros(2), synthetic=False, replicates=0)
    assert said["dynamic"]["eer"] == said["dynamic"]["plain"] == 0
    assert said["static"]["eer"] == 0.5
    assert said["gap"] == -0.5
    assert said["static"]["interval"] is said["dynamic"]["interval"] is said["gap_interval"] is None


def test_a_score_file_of_a_system_gives_its_static_row(tmp_path: Path) -> None:
    from rwae_audio.evaluation.scores import read_scores

    vectors, trials = voices(speakers=6, each=3)
    said, scores = report(vectors, None, trials, None, synthetic=False)
    assert said["dynamic"] is said["gap"] is None
    write_scores(tmp_path / "scores.txt", trials, scores["static"])
    again = report_scores(*read_scores(tmp_path / "scores.txt"))
    assert again == {"trials": len(trials), "target_trials": 18, **said["static"]}
    nameless = report_scores(scores["static"], None, trials.target)
    assert nameless == {**again, "interval": None}


def test_the_lists_of_an4_are_all_pairs_of_their_speakers_utterances(corpora: Path) -> None:
    from rwae_audio.evaluation.trials import read_trials

    for split, speakers, count in (("dev", 16, 8128), ("test", 24, 18336)):
        trials = read_trials(corpora / f"an4/protocol/{split}_trials.txt")
        assert np.bincount(speakers_of(trials)).tolist() == [8] * speakers
        assert len(trials) == count
        assert trials.target.sum() == speakers * 8 * 7 / 2
