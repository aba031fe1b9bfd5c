"""Phones by forced alignment: near the hand labels, kept, and honest about what is left out."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rwae_audio.data.audio import load_audio, write_audio
from rwae_audio.data.corpora import Corpus, Phone, Utterance, read_corpus
from rwae_audio.evaluation import alignment
from rwae_audio.evaluation.alignment import (
    FOLD,
    SILENCE,
    STEP,
    Aligner,
    LeftOutError,
    align_corpus,
    bytes_lost,
    classes_at,
    folding,
    phones_of,
)
from rwae_audio.files import InputError

PHONES = (Phone(0.0, 0.1, "h#"), Phone(0.1, 0.3, "ao"), Phone(0.3, 0.4, "q"), Phone(0.4, 0.5, "tcl"))


def test_folding_has_lee_and_hons_39_classes() -> None:
    assert len({to for to in FOLD.values() if to is not None}) == 39
    assert len([label for label in FOLD if label == label.lower() and label != "sil"]) == 61  # TIMIT's own


def test_folding_knows_timit_and_arpabet_and_leaves_others_alone() -> None:
    assert folding(["ao", "zh", "q", "h#"]) == {"ao": "aa", "zh": "sh", "q": None, "h#": SILENCE}
    assert folding(["AO", "ZH", "SIL"]) == {"AO": "aa", "ZH": "sh", "SIL": SILENCE}
    assert folding(["a#", "D", "d", "h#"]) == {"a#": "a#", "D": "D", "d": "d", "h#": SILENCE}


def test_classes_at() -> None:
    times = np.array([-0.01, 0.0, 0.099, 0.1, 0.299, 0.35, 0.4, 0.5, 0.6])
    assert classes_at(PHONES, times, FOLD).tolist() == ["", "sil", "sil", "aa", "aa", "", "sil", "", ""]
    assert classes_at((), times, FOLD).tolist() == [""] * 9


def test_bytes_lost() -> None:
    rng = np.random.default_rng(0)
    tone = (0.1 * np.sin(np.arange(16000) * 0.1) * 32768 + rng.normal(0, 30, 16000)).astype("<i2")
    shifted = np.frombuffer(tone.tobytes()[1:-1], "<i2")
    assert not bytes_lost(tone / 32768.0)
    assert not bytes_lost(rng.uniform(-0.5, 0.5, 16000))  # loud white noise, but not at full scale
    assert bytes_lost(np.concatenate([tone[:8000], shifted]) / 32768.0)
    assert not bytes_lost(np.zeros(100))


def test_pocketsphinx_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(InputError, match=r"pip install 'rwae-audio\[judge\]'"):
        align_corpus(Corpus("own", ()), tmp_path)


def test_hand_labels_come_first(tmp_path: Path) -> None:
    demo = read_corpus("demo")
    unlabelled = replace(demo, utterances=(replace(demo.utterances[0], phones=None), *demo.utterances[1:]))
    found = phones_of(unlabelled, tmp_path)
    assert found.left_out == {"without phones": 1}
    assert found.phones[demo.utterances[1].path] == demo.utterances[1].phones
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    pytest.importorskip("pocketsphinx")
    return Aligner("RUBOUT  R AH B AW T\nFLURB F L ER B\nFLURB(2) F L UH R B\n\n")


def test_dictionary(aligner: Aligner) -> None:
    lookup = aligner.decoder.lookup_word
    assert aligner.words("Flurb, don't 'tis\nsemi-heights.") == ["flurb", "don't", "'tis", "semi", "heights"]
    assert (lookup("flurb"), lookup("flurb(2)"), lookup("rubout")) == ("F L ER B", "F L UH R B", "R AH B AW T")
    with pytest.raises(LeftOutError, match="not in the dictionary"):
        aligner.words("yes xqzzt")
    with pytest.raises(LeftOutError, match="without text"):
        aligner.words(" ... ")


def test_text_that_cannot_be_said_in_the_time(aligner: Aligner) -> None:
    with pytest.raises(LeftOutError, match="not aligned"):
        aligner.align(np.zeros(3200, dtype=np.float32), "she had your dark suit in greasy wash water all year")


def test_timit_sample_agrees_with_its_hand_labels(aligner: Aligner, corpora: Path) -> None:
    timit = read_corpus("timit", corpora / "timit_sample")
    named = {f"{u.path.parent.name}/{u.path.name}": u for u in timit.utterances}
    chosen = [named["dr1-mcpm0/sx384.wav"], named["dr5-ftlg0/sx33.wav"]]
    found = {u.path: aligner.align(load_audio(u.path), u.text or "") for u in chosen}
    for utterance in chosen:  # closures of stops are silence by hand, and a part of the stop in an alignment
        times = np.arange(STEP / 2, utterance.phones[-1].end, STEP)
        hand, aligned = (classes_at(phones, times, FOLD) for phones in (utterance.phones, found[utterance.path]))
        labelled = (hand != "") & (aligned != "")
        assert (hand == aligned)[labelled].mean() > 0.6
        assert (hand == aligned)[labelled & (hand != SILENCE)].mean() > 0.7
    for phones in found.values():
        assert phones[0].start == 0
        assert all(a.end == b.start < b.end for a, b in itertools.pairwise(phones))
    first = chosen[0]  # what came before has no influence
    assert aligner.align(load_audio(first.path), first.text or "") == found[first.path]
    damaged = named["dr1-fvmh0/sx386.wav"]
    with pytest.raises(LeftOutError, match="damaged audio"):
        aligner.align(load_audio(damaged.path), damaged.text or "")


def test_an4_is_aligned_once_and_counted(corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pocketsphinx")
    an4 = read_corpus("an4", corpora / "an4")
    texts = {u.text: u for u in an4.utterances}
    yes, rubout = (next(u for text, u in texts.items() if text and word in text.split()) for word in ("YES", "RUBOUT"))
    mute = replace(an4.utterances[0], id="mute", text=None)
    unknown = replace(an4.utterances[1], id="unknown", text="YES XQZZT")
    small = replace(an4, utterances=(yes, rubout, mute, unknown))
    first = align_corpus(small, tmp_path)
    assert first.left_out == {"without text": 1, "a word is not in the dictionary": 1}
    assert set(first.phones) == {yes.path, rubout.path}
    labels = [phone.label for phone in first.phones[yes.path] if phone.label != "SIL"]
    assert {"Y", "EH", "S"} <= set(labels)
    files = list(tmp_path.iterdir())
    assert [file.name.startswith("an4-phones-") for file in files] == [True]

    def never(*_: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(alignment, "Aligner", never)
        assert align_corpus(small, tmp_path) == first
        assert phones_of(small, tmp_path) == first
        with pytest.raises(AssertionError, match="decoded again"):
            align_corpus(replace(small, utterances=(replace(yes, text="NO"), rubout)), tmp_path)
    assert list(tmp_path.iterdir()) == files  # what failed left nothing
    align_corpus(replace(small, utterances=(replace(yes, text="NO"), rubout)), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_corpus_without_a_dictionary_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    write_audio(tmp_path / "a.wav", np.zeros(8000), 16000)
    own = Corpus("own", (Utterance("a.wav", "s", "train", tmp_path / "a.wav", "..."),))
    assert align_corpus(own, tmp_path / "new" / "cache").left_out == {"without text": 1}
