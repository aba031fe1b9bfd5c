"""Lists of very many trials: the same numbers as by the plain way, in bounded memory, with a word of progress."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from rwae_audio import progress
from rwae_audio.commands import eer as command
from rwae_audio.evaluation import bootstrap, trials, verification
from rwae_audio.evaluation.bootstrap import bootstrap_eers
from rwae_audio.evaluation.rates import rates
from rwae_audio.evaluation.scores import read_scores, write_scores
from rwae_audio.evaluation.trials import Trials, all_pairs, read_trials, speakers_of, write_trials
from rwae_audio.evaluation.vectors import read_vectors
from rwae_audio.evaluation.verification import cosine_scores, eer, interval, report_scores
from rwae_audio.files import InputError


def plain_eers(scores: np.ndarray, listed: Trials, speakers: np.ndarray, replicates: int) -> np.ndarray:
    """Return bootstrap EERs (replicates,) by repeating each trial as often as it counts, draw by draw."""
    count = int(speakers.max()) + 1
    eers = []
    for copies in np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=replicates):
        one, other = copies[speakers[listed.enrol]], copies[speakers[listed.test]]
        times = np.where(listed.target, one, one * other)
        target = np.repeat(listed.target, times)
        both = target.any() and not target.all()
        eers.append(eer(np.repeat(scores, times), target) if both else np.nan)
    return np.array(eers)


def paper_list() -> Trials:
    """Return the 18,336 pairs of 24 speakers' 8 utterances."""
    return all_pairs([str(i) for i in range(192)], [str(i // 8) for i in range(192)])


def random_list(count: int, speakers: int, each: int = 5, seed: int = 0) -> Trials:
    """Return `count` trials of speakers with `each` utterances, half of them target, in any order."""
    rng = np.random.default_rng(seed)
    enrol, target = rng.integers(speakers * each, size=count), rng.random(count) < 0.5
    mate = enrol // each * each + (enrol + rng.integers(1, each, size=count)) % each
    stranger = (enrol + each * rng.integers(1, speakers, size=count)) % (speakers * each)
    names = tuple(f"s{i // each}/{i % each}.wav" for i in range(speakers * each))
    return Trials(names, enrol, np.where(target, mate, stranger), target)


def made_up_scores(listed: Trials, shift: float, decimals: int | None = None, seed: int = 0) -> np.ndarray:
    """Return normal scores (N,), those of target trials higher by `shift`, by more for some speakers."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal(len(listed.names))[speakers_of(listed)]
    scores = rng.standard_normal(len(listed)) + (shift + 0.5 * own[listed.enrol]) * listed.target
    return scores if decimals is None else scores.round(decimals)


# ---- the bootstrap


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0, 2.0, 4.0])
def test_the_bootstrap_is_the_plain_one_to_the_last_digit(shift: float, decimals: int | None) -> None:
    listed = paper_list()
    scores, speakers = made_up_scores(listed, shift, decimals), speakers_of(listed)
    quick, plain = bootstrap_eers(scores, listed, speakers, 40), plain_eers(scores, listed, speakers, 40)
    assert np.array_equal(quick, plain)
    assert interval(quick) == interval(plain)


def test_the_bootstrap_of_an4s_own_list_is_the_plain_one(corpora: Path) -> None:
    listed = read_trials(corpora / "an4/protocol/test_trials.txt")
    scores, speakers = made_up_scores(listed, 2.5), speakers_of(listed)
    assert np.array_equal(bootstrap_eers(scores, listed, speakers, 100), plain_eers(scores, listed, speakers, 100))


@pytest.mark.parametrize("length", [1, 2, 7, 100, 10**6])
@pytest.mark.parametrize("decimals", [None, 1, 0, -2])
def test_where_the_list_is_cut_makes_no_difference(
    length: int, decimals: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to one trial a stretch, and with all scores equal."""
    monkeypatch.setattr(bootstrap, "LENGTH", length)
    for speakers in (2, 3, 12):
        listed = random_list(400, speakers)
        scores, who = made_up_scores(listed, 1.5, decimals), speakers_of(listed)
        quick, plain = bootstrap_eers(scores, listed, who, 30), plain_eers(scores, listed, who, 30)
        assert np.array_equal(quick, plain, equal_nan=True)
        assert np.isnan(plain).any() == (speakers < 12)


def test_stretches_hold_every_trial_once_and_equal_scores_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "LENGTH", 50)
    listed = random_list(2000, 10)
    scores = made_up_scores(listed, 1.0, 2)
    scores[:300] = 0.5  # more of them than a stretch may have
    stretches = list(bootstrap._stretches(scores, listed, speakers_of(listed)))
    sizes = [len(stretch.enrol) for stretch in stretches]
    assert sum(sizes) == 2000
    ordered, edges = np.sort(scores), np.cumsum(sizes)
    assert (ordered[edges[:-1] - 1] < ordered[edges[:-1]]).all()
    assert all(size <= 100 or len(stretch.ends) == 1 for size, stretch in zip(sizes, stretches, strict=True))
    assert sum(int(kind.counts.sum()) for stretch in stretches for kind in stretch.kinds) == 2000


def test_the_bootstrap_of_a_long_list_takes_little_memory() -> None:
    """Its weights in all draws alone would have 800 MB."""
    listed = random_list(200_000, 300)
    scores, speakers = made_up_scores(listed, 2.0), speakers_of(listed)
    with at_most(60):
        assert len(bootstrap_eers(scores, listed, speakers, 500)) == 500


# ---- memory


@contextmanager
def at_most(megabytes: float) -> Iterator[None]:
    """Check that what happens inside allocates no more than this at once."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert peak < megabytes


def test_scoring_takes_memory_for_a_part_of_the_list_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors of both sides of all trials would have 300 MB."""
    listed = random_list(100_000, 100)
    vectors = np.random.default_rng(0).standard_normal((500, 192))
    with at_most(60):
        scores = cosine_scores(vectors, listed)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    some = slice(0, 100_000, 17)
    plain = np.einsum("nd,nd->n", unit[listed.enrol[some]], unit[listed.test[some]])
    assert np.array_equal(scores[some], plain)
    monkeypatch.setattr(verification, "CHUNK", 192 * 777)
    assert np.array_equal(scores, cosine_scores(vectors, listed))


def test_lists_and_scores_are_written_and_read_in_parts(tmp_path: Path) -> None:
    """A trial takes 17 bytes and its score 8; a list as Python's objects would have 7 MB."""
    listed = random_list(20_000, 100)
    scores = made_up_scores(listed, 1.0)
    with at_most(2):
        write_trials(tmp_path / "list.txt", listed)
        write_scores(tmp_path / "scores.txt", listed, scores)
    with at_most(4):
        again = read_trials(tmp_path / "list.txt")
    with at_most(4):
        read, named, target = read_scores(tmp_path / "scores.txt")
    assert named is not None
    assert np.array_equal(read, scores)
    for other in (again, named):
        assert np.array_equal(np.array(other.names)[other.enrol], np.array(listed.names)[listed.enrol])
        assert np.array_equal(np.array(other.names)[other.test], np.array(listed.names)[listed.test])
        assert np.array_equal(other.target, listed.target)
    assert np.array_equal(target, listed.target)


@pytest.mark.parametrize("batch", [1, 3, 256])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 a b\n0 a c\n1 a d\n2 a e\n1 a\n", "line 4 has the label '2'"),
        ("1 a b\n0 a c\n\n1 a\n2 a e\n", "line 4 has 2 fields"),
        ("a b 0.1 target\na c 0.2 nontarget\na d x target\na e 0.3\n", "line 3 has the score 'x'"),
        ("a b 0.1 target\na c 0.2 nontarget\n\na d 0.1\na e x target\n", "line 4 has 3 fields"),
        ("a b 0.1 1\na c 0.2 0\na d 0.1 0\na e 0.2 target\na e x\n", "line 4 has the label 'target'"),
    ],
)
def test_the_first_wrong_line_is_named_however_many_are_held(
    batch: int, text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "BATCH", batch)
    (tmp_path / "list.txt").write_text(text)
    read: Callable[[Path], object] = read_trials if text.startswith("1") else read_scores
    with pytest.raises(InputError, match=expected):
        read(tmp_path / "list.txt")


# ---- vectors


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, "npy"])
def test_vectors_of_several_types_are_read_as_numpy_reads_them(save: Callable[..., None] | str, tmp_path: Path) -> None:
    """A head that has been read before is not parsed again; it must not be taken for another one."""
    rng = np.random.default_rng(0)
    kinds = ["<f4", ">f4", "<f8", "<i2", "<f2", ">i8", "<u1"]
    vectors = {f"v{i}": (20 * rng.random(6)).astype(kinds[i % len(kinds)]) for i in range(40)}
    path = tmp_path / "v.npz"
    if callable(save):
        save(path, **vectors)
    else:
        path = tmp_path / "v"
        path.mkdir()
        for name, vector in vectors.items():
            np.save(path / f"{name}.npy", vector)
    names = tuple(vectors)
    listed = Trials(names, np.arange(39), np.arange(1, 40), np.arange(39) < 20)
    assert np.array_equal(read_vectors(path, listed)[1], np.array([vectors[name].astype(np.float64) for name in names]))


def test_a_vector_that_is_cut_short_after_a_whole_one_is_named(tmp_path: Path) -> None:
    listed = Trials(("a", "b", "c"), np.array([0, 0]), np.array([1, 2]), np.array([True, False]))
    for name in listed.names:
        np.save(tmp_path / f"{name}.npy", np.ones(8, dtype=np.float32))
    data = (tmp_path / "c.npy").read_bytes()
    (tmp_path / "c.npy").write_bytes(data[:-4])
    with pytest.raises(InputError, match=r"c\.npy cannot be read"):
        read_vectors(tmp_path, listed)
    (tmp_path / "c.npy").write_bytes(data + bytes(4))  # numpy reads what the head says
    assert read_vectors(tmp_path, listed)[1].tolist() == np.ones((3, 8)).tolist()


# ---- the command


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    """Return the command's words for a list and vectors of it."""
    listed = random_list(3000, 20)
    write_trials(tmp_path / "list.txt", listed)
    vectors = np.random.default_rng(0).standard_normal((100, 8))
    np.savez(tmp_path / "v.npz", **dict(zip(listed.names, vectors, strict=True)))
    return ["--trials", str(tmp_path / "list.txt"), "--embeddings", str(tmp_path / "v.npz"), "--json"]


class Terminal(io.StringIO):
    """What takes text as a terminal does."""

    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing in a pipe, and on a terminal nothing of what is over within a second."""
    scores = ["--scores", str(tmp_path / "s.txt")]
    expected = f"rwae-eer: wrote the scores to {tmp_path / 's.txt'}\n"
    for delay in (0, 1):
        monkeypatch.setattr(progress, "DELAY", delay)
        assert command.main([*asked, *scores]) == 0
        out, err = capsys.readouterr()
        assert (out.count("\n"), err) == (1, expected)
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        assert command.main([*asked, *scores]) == 0
        monkeypatch.undo()
        assert capsys.readouterr() == (out, "")
        shown = terminal.getvalue()
        assert shown.endswith(expected)
        stages = ("reading", "vectors", "scores", "bootstrap", "writing")
        assert [f"\r{stage}:" in shown for stage in stages] == [not delay] * len(stages)


def test_vectors_of_npz_are_judged_without_torch(asked: list[str]) -> None:
    """It takes two seconds and half a gigabyte."""
    code = f"import sys; from rwae_audio.commands import eer; eer.main({asked!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("}\nFalse\n")


def test_a_report_sorts_once_and_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = random_list(500, 10)
    scores = made_up_scores(listed, 1.0, 1)
    said = report_scores(scores, None, listed.target, p_targets=(0.5, 0.01))
    assert said["eer"] == eer(scores, listed.target)
    assert said["threshold"] == verification.eer_threshold(scores, listed.target)
    assert said["min_dcf"] == verification.min_dcf(scores, listed.target)
    assert said["min_dcf_at"] == {str(p): verification.min_dcf(scores, listed.target, p) for p in (0.5, 0.01)}
    calls = []
    monkeypatch.setattr(verification, "rates", lambda *of: calls.append(of) or rates(*of))
    report_scores(scores, None, listed.target)
    assert len(calls) == 1
