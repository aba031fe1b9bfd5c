"""TIMIT as people have it: 630 speakers with the official ids in every layout, what is missing, NLTK's sample."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from timit_trees import STYLES, sample, small, tree

from rwae_audio.data.corpora import read_corpus
from rwae_audio.data.corpora.base import Corpus, Phone
from rwae_audio.data.corpora.timit import LISTS, read_timit
from rwae_audio.data.features import MelConfig
from rwae_audio.data.store import open_store
from rwae_audio.evaluation.benchmark import benchmark
from rwae_audio.evaluation.trials import all_pairs, read_trials
from rwae_audio.files import InputError


def note(corpus: Corpus, pattern: str) -> bool:
    return any(re.search(pattern, text) for text in corpus.notes)


def listed(name: str) -> list[str]:
    return (LISTS / f"{name}.txt").read_text().split()


@pytest.fixture
def copy(timit_tree: Path, tmp_path: Path) -> Path:
    """A tree that a test may take files from."""
    shutil.copytree(timit_tree, tmp_path / "TIMIT", copy_function=os.link)
    return tmp_path / "TIMIT"


# the lists


def test_the_lists_of_speakers_are_the_official_ones() -> None:
    """Core test: 2 men and a woman of each of 8 regions; Kaldi's development speakers; nobody in two lists."""
    train, dev, core = (listed(f"{split}_speakers") for split in ("train", "dev", "core_test"))
    assert (len(train), len(dev), len(core)) == (462, 50, 24)
    assert len({*train, *dev, *core}) == 462 + 50 + 24
    assert all(re.fullmatch(r"[fm][a-z]{3}\d", speaker) for speaker in train + dev + core)
    assert Counter(speaker[0] for speaker in train) == {"m": 326, "f": 136}
    assert Counter(speaker[0] for speaker in core) == {"m": 16, "f": 8}
    official = """mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0
        mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 mnjm0 fdhc0 mjln0 mpam0 fmld0"""
    assert set(core) == set(official.split())


def test_the_trial_list_is_all_pairs_of_the_core_test() -> None:
    names = listed("core_test_utterances")
    speakers = [name.split("/")[2] for name in names]
    assert set(Counter(speakers).values()) == {8}
    assert {speaker.lower() for speaker in speakers} == set(listed("core_test_speakers"))
    assert Counter(name.split("/")[3][:2] for name in names) == {"SX": 24 * 5, "SI": 24 * 3}
    assert Counter(name.split("/")[1] for name in names) == {f"DR{i}": 24 for i in range(1, 9)}
    trials, pairs = read_trials(LISTS / "core_test_trials.txt"), all_pairs(names, speakers)
    assert (len(trials), int(trials.target.sum())) == (18336, 672)
    assert trials.names == pairs.names
    for one, other in ((trials.enrol, pairs.enrol), (trials.test, pairs.test), (trials.target, pairs.target)):
        assert np.array_equal(one, other)


# all 630 speakers


@pytest.mark.parametrize("style", STYLES)
def test_every_layout_gives_the_same_table(style: str, timit_tree: Path, timit_pool: Path, tmp_path: Path) -> None:
    corpus = read_timit(tree(tmp_path / "made" / "data", timit_pool, style))
    assert {split: len(corpus.of(split)) for split in ("train", "dev", "test")} == {
        "train": 3696,
        "dev": 400,
        "test": 192,
    }
    assert {split: len(corpus.speakers(split)) for split in ("train", "dev", "test")} == {
        "train": 462,
        "dev": 50,
        "test": 24,
    }
    official = read_timit(timit_tree)
    assert [(u.id, u.speaker, u.split) for u in corpus.utterances] == [
        (u.id, u.speaker, u.split) for u in official.utterances
    ]
    assert (corpus.partial, corpus.trial_lists) == ("", {"test": LISTS / "core_test_trials.txt"})
    ending = {"official": ".WAV", "lower": ".wav", "beside": ".WAV.wav", "riff": ".WAV.wav"}[style]
    assert all(u.path.name.endswith(ending) and u.path.is_file() for u in corpus.utterances)
    assert soundfile.info(corpus.utterances[0].path).format == ("WAV" if ending == ".WAV.wav" else "NIST")
    assert note(corpus, "1072 utterances of SA1 and SA2")
    assert note(corpus, "940 utterances of TEST speakers in neither list")
    assert note(corpus, "6300 files: the same utterance") == (style == "beside")
    for place in (tmp_path, tmp_path / "made"):
        assert read_timit(place).utterances == corpus.utterances


def test_labels_are_read(timit_tree: Path) -> None:
    corpus = read_timit(timit_tree)
    assert all(u.text == "She had" and len(u.phones or ()) == 7 for u in corpus.utterances)
    first = corpus.utterances[0]
    assert re.fullmatch(r"TEST/DR1/FAKS0/SI\d+\.WAV", first.id)
    assert (first.phones or ())[:2] == (Phone(0, 0.1, "h#"), Phone(0.1, 0.25, "sh"))
    assert first.words == (Phone(0.1, 0.4, "she"), Phone(0.4, 0.725, "had"))


def test_sa_can_be_kept(timit_tree: Path) -> None:
    corpus = read_timit(timit_tree, with_sa=True)
    assert {split: len(corpus.of(split)) for split in ("train", "dev", "test")} == {
        "train": 4620,
        "dev": 500,
        "test": 240,
    }


@pytest.mark.parametrize("with_sa", [False, True])
def test_the_benchmark_is_the_committed_list(with_sa: bool, timit_tree: Path, tmp_path: Path) -> None:
    corpus = read_timit(timit_tree, with_sa=with_sa)
    corpus = replace(corpus, utterances=corpus.of("test"))
    bench = benchmark(open_store([corpus], MelConfig(), tmp_path), corpus, "test")
    assert (len(bench.trials), int(bench.trials.target.sum())) == (18336, 672)
    trials = read_trials(LISTS / "core_test_trials.txt")
    assert bench.trials.names == trials.names
    assert np.array_equal(bench.trials.target, trials.target)
    assert [bench.store.utterances[row].id for row in bench.rows] == list(trials.names)
    assert len(set(bench.speakers)) == 24
    assert bench.partial == ""


def test_the_same_utterance_under_two_names_is_read_once(copy: Path, timit_pool: Path) -> None:
    folder = copy / "TRAIN" / "DR1" / "FCJF0"
    os.link(timit_pool / "0.wav", folder / "SX37.wav")
    sentence = next(path.stem for path in folder.glob("SX*.WAV"))
    os.link(timit_pool / "0.wav", folder / f"{sentence}.wav")
    (folder / "SX37.wav").unlink()
    (folder / "copy of SX1.WAV").write_bytes(b"")
    corpus = read_timit(copy)
    assert len(corpus.utterances) == 3696 + 400 + 192
    assert [u.path.name for u in corpus.utterances if u.id == f"TRAIN/DR1/FCJF0/{sentence}.WAV"] == [f"{sentence}.wav"]
    assert note(corpus, "1 files: the same utterance exists twice")


# where it lies


@pytest.mark.parametrize("place", ["TIMIT", "data", "timit/data", "LDC93S1/TIMIT/data", "archive/data"])
def test_it_is_found_by_the_folder_it_lies_in(place: str, timit_pool: Path, tmp_path: Path) -> None:
    small(tmp_path / place, timit_pool)
    (tmp_path / "an4" / "wav").mkdir(parents=True)
    corpus = read_timit(tmp_path)
    assert [u.path.parent.parent.parent.parent for u in corpus.utterances] == [tmp_path / place] * 12
    assert read_timit(tmp_path / place).utterances == corpus.utterances


def test_two_of_them_are_one_too_many(timit_pool: Path, tmp_path: Path) -> None:
    for name in ("TIMIT", "timit_riff"):
        small(tmp_path / name, timit_pool)
    with pytest.raises(InputError, match=r"holds TIMIT twice, in .*/TIMIT and .*/timit_riff; expected one of them"):
        read_timit(tmp_path)


# what is missing


def test_missing_files_are_listed(copy: Path) -> None:
    (copy / "TEST/DR1/MDAB0/SX139.WAV").unlink()
    (copy / "TEST/DR8/FMLD0/SI822.WAV").unlink()
    (copy / "TEST/DR8/FMLD0/SI822.WAV").symlink_to("nowhere.WAV")
    next((copy / "TEST/DR1/FAKS0").glob("SX*.WAV")).unlink()
    shutil.rmtree(copy / "TRAIN/DR2/MARC0")
    shutil.rmtree(copy / "TEST/DR1/MRJO0")  # in neither list
    (copy / "TRAIN/DR1/FCJF0/SA1.WAV").unlink()
    files = r"TRAIN/MARC0 \(8 of 8\), TEST/FAKS0 \(1 of 8\), TEST/DR1/MDAB0/SX139.WAV, TEST/DR8/FMLD0/SI822.WAV"
    expected = "462 training, 50 development, 24 core-test speakers, 8 utterances each, or --partial"
    with pytest.raises(InputError, match=rf"^11 files of TIMIT are not in .*/TIMIT: {files}; expected {expected}$"):
        read_timit(copy)
    with pytest.raises(InputError, match=r"^14 files .* TRAIN/FCJF0 \(1 of 10\), TRAIN/MARC0 \(10 of 10\)"):
        read_timit(copy, with_sa=True)
    corpus = read_timit(copy, partial=True)
    assert corpus.partial == "TIMIT without 11 of 4,288 files"
    assert note(corpus, rf"^11 files of TIMIT are not in .*: {files}$")
    assert len(corpus.utterances) == 4288 - 11


def test_a_part_of_the_core_test_leaves_a_part_of_the_trials(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "TRAIN")
    for speaker in ("DR1/MDAB0", "DR2/MTAS1"):
        shutil.rmtree(copy / "TEST" / speaker)
    (copy / "TEST/DR1/MWBT0/SX23.WAV").unlink()
    with pytest.raises(InputError, match=r"^3,713 files .*: TRAIN/FAEM0 \(8 of 8\), .* and 474 more; expected"):
        read_timit(copy)
    corpus = read_timit(copy, partial=True)
    corpus = replace(corpus, utterances=corpus.of("test"))
    bench = benchmark(open_store([corpus], MelConfig(), tmp_path), corpus, "test")
    left = 22 * 8 - 1
    assert len(bench.trials) == left * (left - 1) // 2
    assert [bench.store.utterances[row].id for row in bench.rows] == list(bench.trials.names)
    remain = f"{len(bench.trials):,} of the 18,336 trials of its list remain"
    assert bench.partial == f"TIMIT without 3,713 of 4,288 files; {remain}"


def test_other_sentence_numbers_are_said(copy: Path, tmp_path: Path) -> None:
    folder = copy / "TEST/DR1/MDAB0"
    (folder / "SX139.WAV").rename(folder / "SX1.WAV")
    corpus = read_timit(copy)
    assert note(corpus, "the core test .* official sentence numbers")
    corpus = replace(corpus, utterances=corpus.of("test"))
    bench = benchmark(open_store([corpus], MelConfig(), tmp_path), corpus, "test")
    assert (len(bench.trials), int(bench.trials.target.sum()), bench.partial) == (18336, 672, "")


def test_other_speakers_stand_in(timit_pool: Path, tmp_path: Path) -> None:
    for part in ("TRAIN", "TEST"):
        for i in range(30):
            folder = tmp_path / part / f"DR{i % 8 + 1}" / f"M{part[1]}{chr(65 + i % 26)}{i // 26}X0"
            folder.mkdir(parents=True)
            for sentence in ("SA1", "SX1", "SX2"):
                os.link(timit_pool / "0.nist", folder / f"{sentence}.WAV")
    corpus = read_timit(tmp_path)
    assert note(corpus, "no official core-test speaker: the first 24 of TEST")
    assert [len(corpus.speakers(split)) for split in ("train", "dev", "test")] == [30, 6, 24]
    assert (corpus.partial, corpus.trial_lists) == ("", {})


# NLTK's sample


def test_nltk_sample_layout(timit_pool: Path, tmp_path: Path) -> None:
    sample(tmp_path / "nltk" / "timit", timit_pool)
    for folder in (tmp_path / "nltk", tmp_path / "nltk" / "timit"):
        corpus = read_timit(folder)
        assert {split: corpus.speakers(split) for split in ("train", "dev")} == {"train": (), "dev": ()}
        assert corpus.speakers("test") == ("fvmh0", "mbgt0")
        assert corpus.utterances[0].id == "TRAIN/DR1/FVMH0/SI600.WAV"
        assert note(corpus, "NLTK's sample")
        assert len(corpus.utterances) == 6
        assert {(u.text, u.phones, u.words) for u in corpus.utterances} == {(None, None, None)}
    bench = benchmark(open_store([corpus], MelConfig(), tmp_path), corpus, "test")
    said = "0 of the 18,336 trials of its list remain; all 15 pairs of 2 speakers instead"
    assert bench.partial == f"NLTK's sample of TIMIT; {said}"


def test_real_sample(corpora: Path) -> None:
    corpus = read_timit(corpora / "timit_sample")
    assert Counter(u.speaker for u in corpus.utterances) == dict.fromkeys(corpus.speakers("test"), 8)
    assert len(corpus.speakers("test")) == 4
    assert set(corpus.speakers("test")) <= set(listed("train_speakers"))
    for u in corpus.utterances:
        assert u.text
        assert u.phones
        assert u.words
        assert all(a.end == b.start for a, b in zip(u.phones, u.phones[1:], strict=False))
        assert u.phones[-1].end <= soundfile.info(u.path).duration + 0.05
        assert "".join(word.label for word in u.words) == re.sub(r"[^a-z']", "", u.text.lower())
    assert len(read_timit(corpora / "timit_sample" / "timit", with_sa=True).utterances) == 40


# what is wrong


def test_labels_that_are_malformed(timit_pool: Path, tmp_path: Path) -> None:
    folder = small(tmp_path, timit_pool) / "TRAIN/DR1/FAAX0"
    for kind, what in (("PHN", "phone"), ("WRD", "word")):
        labels = folder / f"SX1.{kind}"
        labels.unlink()  # it is a link
        for line in ("800 sh", "x 800 sh", "900 800 sh", ""):
            labels.write_text(f"0 800 h#\n{line}\n")
            with pytest.raises(
                InputError, match=rf"SX1\.{kind}, line 2 is .*; expected `first-sample last-sample {what}`"
            ):
                read_timit(tmp_path)
        labels.unlink()
    text = folder / "SX1.TXT"
    text.unlink()
    for content in ("", "0 1600", "She had your dark suit."):
        text.write_text(content)
        with pytest.raises(InputError, match=r"SX1\.TXT is .*; expected `first-sample last-sample words`"):
            read_timit(tmp_path)


def test_the_options_are_of_timit_alone(tmp_path: Path, timit_tree: Path) -> None:
    assert len(read_corpus("timit", timit_tree, with_sa=True, partial=True).utterances) == 5360
    for option in ("with_sa", "partial"):
        with pytest.raises(InputError, match=f"--{option.replace('_', '-')} is an option of timit; folder has none"):
            read_corpus("folder", tmp_path, **{option: True})
