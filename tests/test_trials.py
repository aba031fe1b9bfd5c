"""Trial lists and score files: read as written, wrong lines named, names never cut or mixed up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rwae_audio.evaluation.scores import read_scores
from rwae_audio.evaluation.trials import Trials, all_pairs, match_names, read_trials, speakers_of, write_trials
from rwae_audio.files import InputError

NAMES = ("s1/a.1.wav", "s1/b.wav", "s2/a.1.wav", "s2/b.2.flac")


@pytest.fixture
def trials() -> Trials:
    return all_pairs(NAMES, ["s1", "s1", "s2", "s2"])


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def triples(trials: Trials) -> list[tuple[str, str, bool]]:
    rows = zip(trials.enrol, trials.test, trials.target, strict=True)
    return [(trials.names[a], trials.names[b], bool(t)) for a, b, t in rows]


def test_all_pairs_are_each_pair_once(trials: Trials) -> None:
    assert triples(trials) == [
        (NAMES[i], NAMES[j], NAMES[i][:2] == NAMES[j][:2]) for i in range(4) for j in range(i + 1, 4)
    ]
    assert len(all_pairs([str(i) for i in range(192)], [str(i // 8) for i in range(192)])) == 18336


def test_what_is_written_is_read(trials: Trials, tmp_path: Path) -> None:
    write_trials(tmp_path / "list.txt", trials)
    assert triples(read_trials(tmp_path / "list.txt")) == triples(trials)
    assert (tmp_path / "list.txt").read_text().splitlines()[0] == "1 s1/a.1.wav s1/b.wav"


def test_both_formats_say_the_same(trials: Trials, tmp_path: Path) -> None:
    kaldi = "".join(f"{a}\t{b} {'target' if t else 'nontarget'}\r\n\n" for a, b, t in triples(trials))
    assert triples(read_trials(written(tmp_path, kaldi))) == triples(trials)


def test_a_kaldi_list_whose_first_name_is_a_number_is_kaldi(tmp_path: Path) -> None:
    read = read_trials(written(tmp_path, "1 2 target\n0 1 nontarget\n"))
    assert triples(read) == [("1", "2", True), ("0", "1", False)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("1 a b\n0 a c\n\n2 a d\n", "line 4 has the label '2'"),
        ("1 a b\n0 a\n", "line 2 has 2 fields"),
        ("1 a b\n0 a name with spaces.wav\n", "line 2 has 5 fields"),
        ("1 a b\na c nontarget\n", "line 2 has the label 'a'"),
        ("a b target\n0 a c\n", "line 2 has the label 'c'"),
        ("a b Target\n", "line 1 has the label 'Target'"),
        ("1 a b\0\n0 a c\n", "NUL"),
        (b"1 a \xff\xfe\n", "cannot be read as text"),
        ("1 a b\n1 a c\n", "2 target trials of 2"),
        ("0 a b\n", "0 target trials of 1"),
    ],
)
def test_a_wrong_trial_list_is_named_with_its_line(text: str | bytes, expected: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=expected) as caught:
        read_trials(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_list_and_a_folder_are_errors(tmp_path: Path) -> None:
    for read in (read_trials, read_scores):
        with pytest.raises(InputError, match="does not exist"):
            read(tmp_path / "none.txt")
        with pytest.raises(InputError, match="is a folder"):
            read(tmp_path)


def named(*names: str) -> Trials:
    return Trials(names, np.array([0]), np.array([len(names) - 1]), np.array([True]))


def test_names_match_themselves_or_another_audio_extension() -> None:
    known = ["s1/a.sph", "s2/a.sph", "s1/b.1.wav", "s1/b.2.wav"]
    asked = named("s2/a.wav", "s1/a.sph", "s1/b.2", "s1/b.1.flac")
    assert match_names(asked, known).names == ("s2/a.sph", "s1/a.sph", "s1/b.2.wav", "s1/b.1.wav")


def test_a_dot_in_a_name_is_no_extension() -> None:
    """`take.1` is not `take.wav`, and not `take.2`."""
    for known in (["take.wav"], ["take.2"]):
        with pytest.raises(InputError, match=r"1 of 1 names.*take\.1"):
            match_names(named("take.1"), known)
    with pytest.raises(InputError, match="unknown"):
        match_names(named("."), ["a.wav"])


def test_a_basename_alone_links_nothing() -> None:
    with pytest.raises(InputError, match=r"2 of 2 names in the trial list are unknown, the first a\.wav"):
        match_names(named("a.wav", "s3/a.wav"), ["s1/a.wav", "s2/a.wav"])


NFC, NFD = "jos\u00e9", "jose\u0301"  # the same word, composed and decomposed


def test_names_match_in_either_unicode_form() -> None:
    for name, known in ((NFC, NFD), (NFD, NFC)):
        asked = named(f"{name}/a.wav", f"{name}/b", f"x/{name}.flac")
        ids = [f"{known}/a.wav", f"{known}/b.ogg", f"x/{known}.wav"]
        assert match_names(asked, ids).names == tuple(ids)


def test_names_of_one_unicode_form_are_refused_only_where_they_are_confused() -> None:
    """Some disks hold both forms side by side."""
    both = [f"{NFC}.wav", f"{NFD}.wav"]
    assert match_names(named(*both), both).names == tuple(both)
    assert match_names(named(NFD, f"{NFC}.flac"), both).names == (both[1], both[0])  # each in its own form
    third = "u\u0308\u0301"  # neither composed nor the decomposed `\u01d8`
    composed, half = "\u01d8", "\u00fc\u0301"
    with pytest.raises(InputError, match=f"names {third}, which could be {composed} or {half}"):
        match_names(named(third), [composed, half])
    assert match_names(named(composed), [composed, half]).names == (composed,)
    with pytest.raises(InputError, match="in two ways"):
        match_names(named(NFC, NFD), [f"{NFC}.wav"])


def test_a_list_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert triples(read_trials(written(tmp_path, b"\xef\xbb\xbf1 a b\n0 a c\n"))) == [
        ("a", "b", True),
        ("a", "c", False),
    ]


def test_names_that_fit_twice_are_errors() -> None:
    with pytest.raises(InputError, match=r"could be a\.wav or a\.flac"):
        match_names(named("a.sph"), ["a.wav", "a.flac"])
    assert match_names(named("a.flac"), ["a.wav", "a.flac"]).names == ("a.flac",)
    with pytest.raises(InputError, match="in two ways"):
        match_names(named("a.wav", "a.flac"), ["a.sph"])


def test_speakers_are_what_target_trials_link() -> None:
    """a–b and b–c are one speaker's, so a–c needs no trial; d and e are in no target trial: a speaker each."""
    trials = Trials(
        tuple("abcde"), np.array([0, 1, 0, 3]), np.array([1, 2, 3, 4]), np.array([True, True, False, False])
    )
    speakers = speakers_of(trials)
    assert len(set(speakers[:3])) == 1
    assert len(set(speakers)) == 3


def test_a_list_that_contradicts_itself_is_an_error() -> None:
    trials = Trials(tuple("abc"), np.array([0, 1, 0]), np.array([1, 2, 2]), np.array([True, True, False]))
    with pytest.raises(InputError, match="the non-target trial a c has"):
        speakers_of(trials)
