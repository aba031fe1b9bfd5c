"""Score files in every layout that systems write: read as meant, wrong lines named, what cannot be told refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rwae_audio.evaluation.scores import read_scores, write_scores
from rwae_audio.evaluation.trials import Trials, all_pairs, read_trials
from rwae_audio.evaluation.verification import report_scores
from rwae_audio.files import InputError

NAMES = ("s1/a.1.wav", "s1/b.wav", "s2/a.1.wav", "s2/b.2.flac")
PAIRS = [("a", "b", 2.5, True), ("a", "c", -0.5, False), ("b", "c", 1e-3, False)]


@pytest.fixture
def trials() -> Trials:
    return all_pairs(NAMES, ["s1", "s1", "s2", "s2"])


def written(folder: Path, text: str, name: str = "scores.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def triples(trials: Trials) -> list[tuple[str, str, bool]]:
    rows = zip(trials.enrol, trials.test, trials.target, strict=True)
    return [(trials.names[a], trials.names[b], bool(t)) for a, b, t in rows]


def table(line: str, head: str = "") -> str:
    """PAIRS in a format: {a}, {b} are the names, {s} the score, {n} 1 or 0, {t} True or False, {w} the word."""
    rows = [
        line.format(a=a, b=b, s=score, n=int(target), t=target, w="target" if target else "nontarget")
        for a, b, score, target in PAIRS
    ]
    return "\n".join([head, *rows] if head else rows) + "\n"


NAMED = {
    "kaldi": table("{a} {b} {s} {w}"),
    "kaldi-digits": table("{a} {b} {s} {n}"),
    "speechbrain": table("{a} {b} {n} {s}"),
    "voxceleb": table("{n} {a}\t{b}  {s}"),
    "blank lines and returns": table("{n} {a} {b} {s}\r\n\r"),
    "byte order mark": "\ufeff" + table("{n} {a} {b} {s}"),
    "comma": table("{a},{b},{s},{n}", "enrol,test,score,label"),
    "semicolon": table("{w};{s};{b};{a}", "key;score;test;enrollment"),
    "tab": table("{s}\t{a}\t{b}\t{t}", "Score\tEnrolment\tTest\tTarget"),
    "quotes and more columns": table('7, "{a}", "{b}", {s}, {n}', '"fold", "enroll", "test", "score", "label"'),
    "byte order mark and comma": "\ufeff" + table("{a},{b},{s},{n}", "enroll,test,score,label"),
}
NAMELESS = {
    "kaldi": table("{s} {w}"),
    "digits": table("{s} {n}"),
    "digits first": table("{n} {s}"),
    "comma": table("{n},{s}", "target,score"),
}


@pytest.mark.parametrize("layout", NAMED)
def test_every_layout_with_names_gives_the_same_trials(layout: str, tmp_path: Path) -> None:
    scores, trials, target = read_scores(written(tmp_path, NAMED[layout]))
    assert trials is not None
    assert triples(trials) == [(a, b, target) for a, b, _, target in PAIRS]
    assert scores.tolist() == [2.5, -0.5, 1e-3]
    assert target.tolist() == [True, False, False]


@pytest.mark.parametrize("layout", NAMELESS)
def test_every_layout_without_names_gives_the_same_scores(layout: str, tmp_path: Path) -> None:
    scores, trials, target = read_scores(written(tmp_path, NAMELESS[layout]))
    assert trials is None
    assert scores.tolist() == [2.5, -0.5, 1e-3]
    assert target.tolist() == [True, False, False]


def test_names_that_are_0_and_1_are_told_apart_by_later_lines(tmp_path: Path) -> None:
    """The first line fits three layouts; the second, with a score at its end and a name at its head, fits one."""
    scores, trials, _ = read_scores(written(tmp_path, "1 0 1 1\n2 1 0 0.5\n"))
    assert trials is not None
    assert triples(trials) == [("1", "0", True), ("2", "1", False)]
    assert scores.tolist() == [1, 0.5]


@pytest.mark.parametrize("text", ["1 1\n0 0\n1 0\n", "a b 1 1\na c 0 0\nb c 1 0\n"])
def test_decisions_beside_labels_of_the_same_kind_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"could be .*score label.*label score|could be .*label score") as caught:
        read_scores(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    words = text.replace(" 1\n", " target\n").replace(" 0\n", " nontarget\n")
    assert read_scores(written(tmp_path, words))[0].tolist() == [1, 0, 1]  # with words for labels it can be told


def test_scores_written_are_the_scores_read(trials: Trials, tmp_path: Path) -> None:
    """To the bit: codes of an untrained model have cosines that differ in the tenth digit only."""
    scores = 1 - 1e-9 * np.random.default_rng(0).random(len(trials))
    scores[0] = -1e-300
    write_scores(tmp_path / "scores.txt", trials, scores)
    read, named, target = read_scores(tmp_path / "scores.txt")
    assert named is not None
    assert triples(named) == triples(trials)
    assert np.array_equal(target, trials.target)
    assert np.array_equal(read, scores)
    fields = (tmp_path / "scores.txt").read_text().splitlines()[1].split()
    assert (fields[0], fields[1], fields[3]) == ("s1/a.1.wav", "s2/a.1.wav", "nontarget")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("a b 0.5 target\n0.5 nontarget\n", "line 2 has 2 fields"),
        ("0.5 target\na b 0.5 nontarget\n", "line 2 has 4 fields"),
        ("a 0.5 target\n", "line 1 is 'a 0.5 target'"),
        ("1 a b\n0 a c\n", "line 1 is '1 a b'"),
        ("a b\n", "line 1 is 'a b'"),
        ("a b 0.5 Target\n", "line 1 is"),
        ("a,b,0.5,1\n", "line 1 is"),
        ("\n0.5 target\n\n0.5 1\n", "line 4 has the label '1'"),
        ("0.5 1\n0.5 target\n", "line 2 has the label 'target'"),
        ("1 a b 0.5\n2 a c 0.5\n", "line 2 has the label '2'"),
        ("1 0\nx 1\n", "line 2 has the score 'x'"),
        ("nan target\n", "line 1 has the score 'nan'"),
        ("0.5 target\nnan nontarget\n", "line 2 has the score 'nan'"),
        ("0.5 target\n-inf nontarget\n", "line 2 has the score '-inf'"),
        ("0.5 target\n0,5 nontarget\n", "line 2 has the score '0,5'"),
        ("0.5 target\n1_0 nontarget\n", "line 2 has the score '1_0'"),
        ("0.5 target\n0.6 target\n", "2 target trials of 2"),
        ("0.5\0 target\n", "NUL"),
        ("a b 0.5\na c 0.5\n", "has no labels; expected a trial list"),
        ("score,label\n0.5,1\n0.5\n", "line 3 has 1 fields"),
        ("score,label\n0.5,1\nx,0\n", "line 3 has the score 'x'"),
        ("score,label\n0.5,yes\n", "line 2 has the label 'yes'"),
        ("score,label\n", "has no scores"),
        ("score,llr,label\n1,2,1\n", "line 1 names two columns for score"),
        ("enrol,score,label\na,2,1\n", "line 1 names the columns enrol, score, label"),
        ('score,label\n"0.5,1\n', "is not CSV"),
    ],
)
def test_a_wrong_score_file_is_named_with_its_line(text: str, expected: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=expected) as caught:
        read_scores(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["b.wav c.wav 3\na.wav c.wav 2\na.wav b.wav 1\nx y 9\n", "score,enrol,test\n3,b,c\n2,a,c\n1,a,b\n"]
)
def test_scores_without_labels_join_the_trial_list(text: str, tmp_path: Path) -> None:
    """In the order of the list, whatever the order of the scores; names may differ in their audio extension."""
    listed = read_trials(written(tmp_path, "1 a.flac b.flac\n0 b.flac c.flac\n0 a.flac c.flac\n", "list.txt"))
    scores, trials, target = read_scores(written(tmp_path, text), listed)
    assert trials is listed
    assert scores.tolist() == [1, 3, 2]
    assert target.tolist() == [True, False, False]
    assert report_scores(scores, trials, target)["eer"] == 1  # the target scores below both others


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b 1\n", "1 of 3 names in the trial list are unknown, the first c"),
        ("a b 1\nb a 1\nc a 1\n", "has no score of 1 of 2 trials, the first a c"),  # a pair has a direction
        ("a b 1\na c 2\na b 1\n", "has two scores of a b"),
        ("a b 1 target\na c 2 nontarget\n", "has labels; expected no trial list"),
        ("1 target\n2 nontarget\n", "has labels; expected no trial list"),
        ("a b 1\na c x\n", "line 2 has the score 'x'"),
    ],
)
def test_scores_that_do_not_fit_the_trial_list(text: str, expected: str, tmp_path: Path) -> None:
    listed = read_trials(written(tmp_path, "1 a b\n0 a c\n", "list.txt"))
    with pytest.raises(InputError, match=expected):
        read_scores(written(tmp_path, text), listed)


def test_a_long_join_is_quick_and_right(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    enrol, test = np.divmod(rng.permutation(300 * 300), 300)
    values = rng.permutation(len(enrol)).astype(float)
    lines = [f"u{a} v{b} {value}" for a, b, value in zip(enrol, test, values, strict=True)]
    order = rng.permutation(len(enrol))
    listed = read_trials(
        written(tmp_path, "".join(f"{int(enrol[i] == test[i])} u{enrol[i]} v{test[i]}\n" for i in order), "list.txt")
    )
    assert read_scores(written(tmp_path, "\n".join(lines)), listed)[0].tolist() == values[order].tolist()
