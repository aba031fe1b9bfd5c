"""Every layout in which people have the corpora, made small; the real ones where they are; and what is not a corpus."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rwae_audio.data.corpora import BUILT_IN, READERS, read_corpus
from rwae_audio.data.corpora.an4 import read_an4
from rwae_audio.data.corpora.base import (
    EXTRA_SUFFIXES,
    SUFFIXES,
    Corpus,
    Utterance,
    audio_files,
    hold_out,
    once_each,
    readable_suffixes,
    select_longest,
)
from rwae_audio.data.corpora.folder import read_folder
from rwae_audio.data.corpora.librispeech import read_librispeech
from rwae_audio.files import InputError

KINDS = {".sph": "NIST", ".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}


def sound(path: Path, kind: str | None = None) -> None:
    """A tenth of a second, readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(1600, 0.1), 16000, format=kind or KINDS[path.suffix])


def note(corpus: Corpus, pattern: str) -> bool:
    return any(re.search(pattern, text) for text in corpus.notes)


def splits(corpus: Corpus) -> dict[str, tuple[str, ...]]:
    return {split: corpus.speakers(split) for split in ("train", "dev", "test")}


# AN4


def an4(root: Path, suffix: str = ".sph") -> Path:
    """Eleven training and two test speakers, two utterances each, as released."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for part, speakers in (("train", [f"f{c}aa" for c in "abcdefghijk"]), ("test", ["mzaa", "mzbb"])):
        for speaker in speakers:
            for i in (1, 2):
                sound(root / "wav" / f"an4{'test' * (part == 'test')}_clstk" / speaker / f"an{i}-{speaker}-b{suffix}")
                start, end = ("<s> ", " </s>") if part == "train" else ("", "")  # as released
                lists[part].append(f"{start}RUBOUT G {i}{end} (an{i}-{speaker}-b)")
    (root / "etc").mkdir()
    for part, lines in lists.items():
        (root / "etc" / f"an4_{part}.transcription").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("suffix", [".sph", ".wav", ".flac"])
def test_an4_official_tree(suffix: str, tmp_path: Path) -> None:
    corpus = read_an4(an4(tmp_path / "an4", suffix))
    assert len(corpus.utterances) == 26
    assert splits(corpus) == {
        "train": tuple(f"f{c}aa" for c in "abcdfghik"),
        "dev": ("feaa", "fjaa"),
        "test": ("mzaa", "mzbb"),
    }
    assert {u.text for u in corpus.utterances} == {"RUBOUT G 1", "RUBOUT G 2"}
    first = corpus.utterances[0]
    assert first.id == f"an4_clstk/faaa/an1-faaa-b{suffix}"
    assert first.path == tmp_path / "an4" / "wav" / first.id
    assert corpus.trial_lists == {}
    assert note(corpus, "official one, every fifth training speaker")
    assert read_an4(tmp_path).utterances == corpus.utterances  # its parent named


def test_an4_protocol_is_used_where_it_is_there(tmp_path: Path) -> None:
    root = an4(tmp_path / "an4")
    (root / "protocol").mkdir()
    for split, speakers in (("train", "faaa fbaa"), ("dev", "fcaa"), ("test", "fdaa mzaa")):
        (root / "protocol" / f"{split}_speakers.txt").write_text(speakers.replace(" ", "\n") + "\n")
    (root / "protocol" / "test_trials.txt").write_text("1 a b\n")
    corpus = read_an4(root)
    assert splits(corpus) == {"train": ("faaa", "fbaa"), "dev": ("fcaa",), "test": ("fdaa", "mzaa")}
    assert corpus.trial_lists == {"test": root / "protocol" / "test_trials.txt"}
    assert note(corpus, "speaker split: protocol/")
    assert note(corpus, "16 utterances")
    (root / "protocol" / "dev_speakers.txt").write_text("faaa\n")
    with pytest.raises(InputError, match="lists speaker faaa as train and dev; expected one split"):
        read_an4(root)
    (root / "protocol" / "dev_speakers.txt").unlink()
    with pytest.raises(InputError, match=r"dev_speakers\.txt does not exist; expected a list of AN4's speakers"):
        read_an4(root)


def test_an4_in_two_formats_is_read_once_and_without_etc_has_no_text(tmp_path: Path) -> None:
    root = an4(tmp_path / "an4", ".wav")
    sound(root / "wav" / "an4_clstk" / "faaa" / "an1-faaa-b.sph")
    for path in (root / "etc").iterdir():
        path.unlink()
    corpus = read_an4(root)
    assert len(corpus.utterances) == 26
    assert corpus.utterances[0].id == "an4_clstk/faaa/an1-faaa-b.sph"
    assert note(corpus, "1 files: the same utterance")
    assert {u.text for u in corpus.utterances} == {None}


def test_an4_counts_what_it_does_not_read(tmp_path: Path) -> None:
    root = an4(tmp_path / "an4")
    stray = root / "wav" / "an4_clstk" / "stray.sph"
    sound(stray)
    for name in ("fxaa/an1-fxaa-b.mp3", "faaa/an3-faaa-b.mp3"):
        sound(root / "wav" / "an4_clstk" / name)
    corpus = read_an4(root)
    assert len(corpus.utterances) == 26
    assert note(corpus, r"2 files .*\(\.mp3\); .*: fxaa$")
    assert note(corpus, r"1 files .*an4_clstk/stray\.sph$")


def test_real_an4(corpora: Path) -> None:
    corpus = read_an4(corpora / "an4")
    assert {split: len(speakers) for split, speakers in splits(corpus).items()} == {"train": 44, "dev": 16, "test": 24}
    assert Counter(u.id.split("/")[0] for u in corpus.utterances) == {"an4_clstk": 948, "an4test_clstk": 130}
    assert all(u.text for u in corpus.utterances)
    assert len({u.speaker for u in corpus.utterances}) == 84
    ids = {u.id for u in corpus.of("test")}
    lines = corpus.trial_lists["test"].read_text().splitlines()
    assert len(lines) == 18336
    assert {name for line in lines for name in line.split()[1:]} <= ids


def test_real_an4_by_its_official_split(corpora: Path, tmp_path: Path) -> None:
    for name in ("wav", "etc"):
        (tmp_path / name).symlink_to(corpora / "an4" / name)
    corpus = read_an4(tmp_path)
    assert {split: len(speakers) for split, speakers in splits(corpus).items()} == {"train": 60, "dev": 14, "test": 10}
    assert len(corpus.of("test")) == 130
    assert corpus.trial_lists == {}


# LibriSpeech


def librispeech(root: Path) -> Path:
    for subset, speaker in (
        ("train-clean-100", "26"),
        ("train-other-500", "27"),
        ("dev-clean", "84"),
        ("test-other", "367"),
    ):
        for chapter in ("495", "496"):
            for i in range(2):
                sound(root / subset / speaker / chapter / f"{speaker}-{chapter}-{i:04}.flac")
        lines = "".join(f"{speaker}-495-{i:04} WORD {i}\n" for i in range(2))
        (root / subset / speaker / "495" / f"{speaker}-495.trans.txt").write_text(lines)
    (root / "README.TXT").write_text("not a subset")
    return root


def test_librispeech_subsets(tmp_path: Path) -> None:
    root = librispeech(tmp_path / "LibriSpeech")
    corpus = read_librispeech(root)
    assert splits(corpus) == {"train": ("26", "27"), "dev": ("84",), "test": ("367",)}
    assert len(corpus.utterances) == 16
    text = {u.id: u.text for u in corpus.utterances}
    assert text["dev-clean/84/495/84-495-0001.flac"] == "WORD 1"
    assert text["dev-clean/84/496/84-496-0001.flac"] is None
    assert note(corpus, "^8 of 16 utterances have no text")
    assert all(u.path == root / u.id for u in corpus.utterances)
    assert read_librispeech(tmp_path).utterances == corpus.utterances  # its parent named
    one = read_librispeech(root / "dev-clean")  # one subset named
    assert one.utterances == corpus.of("dev")


def test_librispeech_in_folders_that_are_called_like_subsets(tmp_path: Path) -> None:
    corpus = read_librispeech(librispeech(tmp_path / "test-drive"))
    assert splits(corpus) == {"train": ("26", "27"), "dev": ("84",), "test": ("367",)}
    sound(tmp_path / "test-drive" / "dev-clean" / "84" / "stray.flac")
    sound(tmp_path / "test-drive" / "dev-clean" / "84" / "495" / "99-495-0000.flac")  # not its speaker's
    again = read_librispeech(tmp_path / "test-drive")
    assert again.utterances == corpus.utterances
    assert note(again, "2 files .*: dev-clean/84/stray.flac, dev-clean/84/495/99-495-0000.flac$")


def test_librispeech_in_another_format(tmp_path: Path) -> None:
    root = librispeech(tmp_path / "LibriSpeech")
    sound(root / "dev-clean" / "84" / "495" / "84-495-0000.ogg")  # beside its FLAC
    sound(root / "dev-clean" / "84" / "495" / "84-495-0007.ogg")
    (root / "dev-clean" / "85" / "1").mkdir(parents=True)
    (root / "dev-clean" / "85" / "1" / "85-1-0000.raw").write_bytes(bytes(9))
    corpus = read_librispeech(root)
    assert len(corpus.utterances) == 17
    assert "dev-clean/84/495/84-495-0007.ogg" in {u.id for u in corpus.utterances}
    assert note(corpus, "1 files: the same utterance")
    assert note(corpus, r"1 files .*\(\.raw\); .*: 85$")
    assert "(dev-clean, test-other, train-clean-100, train-other-500)" in corpus.credit


def test_real_librispeech(corpora: Path) -> None:
    corpus = read_librispeech(corpora / "librispeech")
    assert len(corpus.speakers("train")) == 251
    assert {u.split for u in corpus.utterances} == {"train"}
    assert any(u.text for u in corpus.utterances)


# a folder of recordings


def test_folder_of_any_formats_with_text_beside(tmp_path: Path) -> None:
    for name in ("anna/a.wav", "anna/b.flac", "ben/deep/a.ogg", "ben/a.mp3", "ben/B.WAV"):
        sound(tmp_path / name, KINDS[Path(name).suffix.lower()])
    (tmp_path / "anna" / "a.txt").write_text("hello there\n")
    (tmp_path / "readme.txt").write_text("mine")
    sound(tmp_path / ".cache" / "x.wav")
    sound(tmp_path / "anna" / "._a.wav")  # what macOS leaves
    corpus = read_folder(tmp_path)
    assert {u.id: (u.speaker, u.split, u.text) for u in corpus.utterances} == {
        "anna/a.wav": ("anna", "train", "hello there"),
        "anna/b.flac": ("anna", "train", None),
        "ben/B.WAV": ("ben", "train", None),
        "ben/a.mp3": ("ben", "train", None),
        "ben/deep/a.ogg": ("ben", "train", None),
    }
    assert note(corpus, "^2 speakers, fewer than 6: all are for training")


def test_folder_reads_an_utterance_in_two_formats_once(tmp_path: Path) -> None:
    """Two copies of one recording would be a target trial that is always right."""
    for name in ("anna/a.wav", "anna/a.mp3", "ben/a.mp3"):
        sound(tmp_path / name)
    corpus = read_folder(tmp_path)
    assert [u.id for u in corpus.utterances] == ["anna/a.wav", "ben/a.mp3"]
    assert note(corpus, "1 files: the same utterance")


def test_folder_holds_speakers_out_by_their_names(tmp_path: Path) -> None:
    for i in range(20):
        for name in ("same.wav", "other.wav"):
            sound(tmp_path / f"s{i}" / name)
    corpus = read_folder(tmp_path)
    assert len({(u.id, u.path) for u in corpus.utterances}) == 40  # equal names in two folders are two utterances
    assert {split: len(speakers) for split, speakers in splits(corpus).items()} == {"train": 12, "dev": 3, "test": 5}
    assert note(corpus, "held out by a hash of their names")
    sound(tmp_path / "s3" / "more.wav")
    assert splits(read_folder(tmp_path)) == splits(corpus)


@pytest.mark.parametrize("with_av", [False, True])
def test_folder_counts_what_it_does_not_read(with_av: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: with_av or None)
    assert readable_suffixes() == (SUFFIXES + EXTRA_SUFFIXES if with_av else SUFFIXES)
    for name in ("anna/a.wav", "anna/b.WAV"):
        sound(tmp_path / name, "WAV")
    for name in ("anna/c.m4a", "bob/a.m4a", "eve/a.M4A", "eve/b.docx", "notes", "anna/a.txt", "anna/.hidden.m4a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    corpus = read_folder(tmp_path)
    if with_av:
        assert {u.speaker for u in corpus.utterances} == {"anna", "bob", "eve"}
        assert note(corpus, r"2 files .*\(\.docx, no suffix\)$")
    else:
        assert [u.id for u in corpus.utterances] == ["anna/a.wav", "anna/b.WAV"]
        kinds = r"\(\.m4a: install rwae-audio\[formats\]; \.docx, no suffix\)"
        assert note(corpus, rf"5 files .* {kinds}; .*: bob, eve$")


def test_folder_of_unread_files_alone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "a.m4a").write_text("x")
    with pytest.raises(InputError, match=r"found bob/; .*1 files .*\.m4a: install rwae-audio\[formats\]"):
        read_folder(tmp_path)


def test_folder_with_files_outside_and_without_any(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no <speaker>/<utterance>\.wav.*; found an empty folder"):
        read_folder(tmp_path)
    sound(tmp_path / "stray.wav")
    with pytest.raises(
        InputError, match=rf"stray\.wav lies in no speaker's folder; expected {tmp_path}/<speaker>/stray"
    ):
        read_folder(tmp_path)


# all of them


@pytest.mark.parametrize(
    ("name", "looked_for"),
    [
        ("an4", r"wav/an4_clstk/ \(CMU AN4\)"),
        ("librispeech", r"train-\*/, dev-\*/ or test-\*/ .*\(LibriSpeech\)"),
        ("timit", r"TRAIN/ and TEST/ \(TIMIT\), and no dr1-fvmh0/ \(NLTK's sample\)"),
        ("folder", r"<speaker>/<utterance>\.wav"),
    ],
)
def test_what_is_not_the_corpus_is_told_what_was_looked_for_and_found(
    name: str, looked_for: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"has no {looked_for}.*; found an empty folder$"):
        read_corpus(name, tmp_path)
    for entry in "abcdef":
        (tmp_path / entry).mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=rf"has no {looked_for}.*; found a/, b/, c/, d/, e/ and 2 more$") as error:
        read_corpus(name, tmp_path)
    assert "\n" not in str(error.value)


def test_a_tree_without_audio_is_told_so(tmp_path: Path) -> None:
    for folder in ("wav/an4_clstk/fash", "train-clean-100/26/495", "TRAIN/DR1/FCJF0", "TEST/DR1/MDAB0"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("an4", "librispeech", "timit"):
        with pytest.raises(InputError, match=r"has no .*; found "):
            read_corpus(name, tmp_path)


def test_names_and_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no corpus 'libri'; did you mean 'librispeech'"):
        read_corpus("libri", tmp_path)
    with pytest.raises(InputError, match="the folder of an4, None, is missing"):
        read_corpus("an4")
    (tmp_path / "file").write_text("x")
    for name in set(READERS) - set(BUILT_IN):
        with pytest.raises(
            InputError, match=rf"the folder of {name}, .*/none, is missing; expected the corpus's folder"
        ):
            read_corpus(name, tmp_path / "none")
        with pytest.raises(InputError, match="file, is not a folder; expected the corpus's folder"):
            read_corpus(name, tmp_path / "file")


def test_ids_of_different_corpora_do_not_collide(tmp_path: Path) -> None:
    sound(tmp_path / "folder" / "26" / "26-495-0000.flac")
    sound(tmp_path / "timit" / "TRAIN" / "DR1" / "MADEUP0" / "SX1.WAV", "NIST")
    trees = {"an4": an4, "librispeech": librispeech, "timit": Path, "folder": Path}
    found = [read_corpus(name, make(tmp_path / name)) for name, make in trees.items()]
    for corpus in found:
        assert corpus.credit
        assert len({u.id for u in corpus.utterances}) == len(corpus.utterances)
        assert all(u.path.as_posix().endswith(u.id) for u in corpus.utterances)
    for one, other in combinations(found, 2):
        assert not {u.id for u in one.utterances} & {u.id for u in other.utterances}


def test_audio_files_are_sorted_and_once_each_keeps_the_best(tmp_path: Path) -> None:
    for name in ("b/a.wav", "a/z.wav", "a/a.mp3", "a/a.flac", "a/a.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    files = list(audio_files(tmp_path))
    assert [name for _, name in files] == ["a/a.flac", "a/a.mp3", "a/z.wav", "b/a.wav"]
    kept, passed = once_each(files)
    assert [name for _, name in kept] == ["a/a.flac", "a/z.wav", "b/a.wav"]
    assert passed == 1


def utterances(counts: dict[str, int]) -> list[Utterance]:
    return [Utterance(f"{s}/{i}.wav", s, "train", Path("x")) for s, n in counts.items() for i in range(n)]


@pytest.mark.parametrize("count", [6, 7, 13, 40])
def test_hold_out_is_by_speaker_and_by_names_alone(count: int) -> None:
    everyone = utterances({f"s{i}": 3 for i in range(count)})
    held = hold_out(everyone)
    of = {split: {u.speaker for u in held if u.split == split} for split in ("train", "dev", "test")}
    assert sum(map(len, of.values())) == count
    assert min(len(of["dev"]), len(of["test"]), len(of["train"])) >= 2
    assert len(of["test"]) == max(2, round(0.25 * count))
    assert {u.id: u.split for u in hold_out(everyone[::-1])} == {u.id: u.split for u in held}


def test_hold_out_needs_six_speakers() -> None:
    with pytest.raises(InputError, match="there are 5 speakers; expected at least 6"):
        hold_out(utterances({f"s{i}": 3 for i in range(5)}))


def test_the_longest_utterances_of_each_speaker() -> None:
    lengths = {"a/0.wav": 5, "a/1.wav": 9, "a/2.wav": 9, "a/3.wav": 7, "b/0.wav": 99, "c/0.wav": 1, "c/1.wav": 1}
    chosen = select_longest(utterances({"a": 4, "b": 1, "c": 2}), lengths, per_speaker=3)
    assert [u.id for u in chosen] == ["a/1.wav", "a/2.wav", "a/3.wav", "c/0.wav", "c/1.wav"]
