"""Kaldi's layout: its tables, segments of recordings, splits, and one line for each table that contradicts another."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rwae_audio.data.audio import duration, load_audio, read_audio
from rwae_audio.data.corpora.base import Corpus
from rwae_audio.data.corpora.folder import read_folder
from rwae_audio.data.corpora.kaldi import SPEECHOCEAN, read_kaldi
from rwae_audio.data.features import MelConfig
from rwae_audio.data.store import open_store
from rwae_audio.evaluation.benchmark import benchmark, with_benchmark
from rwae_audio.evaluation.trials import match_names, read_trials
from rwae_audio.files import InputError

FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS")}


def sound(path: Path, seconds: float = 0.5, rate: int = 16000, seed: int = 0) -> None:
    """Noise through a slow filter, so that lossy formats keep it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(int(seconds * rate))
    kind, subtype = FORMATS[path.suffix.lower()]
    soundfile.write(path, 0.3 * np.convolve(noise, np.ones(8) / 8, "same"), rate, format=kind, subtype=subtype)


def table(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))


def data_set(place: Path, root: Path, speakers: str) -> None:
    """Two recordings a speaker, with texts and genders; paths relative to `root`."""
    names = [(f"{speaker}-{i}", speaker) for speaker in speakers.split() for i in (1, 2)]
    for name, speaker in names:
        sound(root / "WAVE" / speaker / f"{name}.wav")
    table(place / "wav.scp", *(f"{name}\tWAVE/{speaker}/{name}.wav" for name, speaker in names))
    table(place / "utt2spk", *(f"{name} {speaker}" for name, speaker in names))
    table(place / "text", *(f"{name} SAID BY  {speaker}" for name, speaker in names[1:]))
    table(place / "spk2gender", *(f"{speaker} {'fm'[i % 2]}" for i, speaker in enumerate(speakers.split())))


def splits(corpus: Corpus) -> dict[str, tuple[str, ...]]:
    return {split: corpus.speakers(split) for split in ("train", "dev", "test")}


def test_one_data_folder(tmp_path: Path) -> None:
    data_set(tmp_path, tmp_path, "s1 s2 s3")
    corpus = read_kaldi(tmp_path)
    assert corpus.name == tmp_path.name
    assert [(u.id, u.speaker, u.text) for u in corpus.utterances[:3]] == [
        ("WAVE/s1/s1-1.wav", "s1", None),
        ("WAVE/s1/s1-2.wav", "s1", "SAID BY  s1"),
        ("WAVE/s2/s2-1.wav", "s2", "SAID BY  s2"),
    ]
    assert all(u.path == tmp_path / u.id and (u.start, u.end) == (0.0, None) for u in corpus.utterances)
    assert splits(corpus) == {"train": ("s1", "s2", "s3"), "dev": (), "test": ()}
    assert corpus.notes == ("2 female and 1 male speakers", "3 training speakers, fewer than 6: none is held out")
    assert corpus.credit == f"Recordings in Kaldi's layout from {tmp_path.name}."
    assert corpus.trial_lists == {}


def test_optional_tables_may_be_missing(tmp_path: Path) -> None:
    data_set(tmp_path, tmp_path, "s1 s2 s3 s4 s5 s6")
    for name in ("text", "spk2gender"):
        (tmp_path / name).unlink()
    corpus = read_kaldi(tmp_path)
    assert {u.text for u in corpus.utterances} == {None}
    assert {split: len(speakers) for split, speakers in splits(corpus).items()} == {"train": 2, "dev": 2, "test": 2}
    assert corpus.notes == ("dev and test speakers held out by a hash of their names",)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"train": "a b", "dev": "c", "test": "d e"}, {"train": "a b", "dev": "c", "test": "d e"}),
        ({"train": "a b", "test": "d e"}, {"train": "a b", "dev": "", "test": "d e"}),
        ({"test": "d e"}, {"train": "", "dev": "", "test": "d e"}),
    ],
)
def test_splits_are_the_folders(folders: dict[str, str], expected: dict[str, str], tmp_path: Path) -> None:
    for split, speakers in folders.items():
        data_set(tmp_path / split, tmp_path, speakers)
    assert splits(read_kaldi(tmp_path)) == {split: tuple(names.split()) for split, names in expected.items()}


def test_a_split_that_is_missing_is_held_out_of_the_training_speakers(tmp_path: Path) -> None:
    data_set(tmp_path / "train", tmp_path, "a b c d e f g h")
    data_set(tmp_path / "test", tmp_path, "x y")
    corpus = read_kaldi(tmp_path)
    assert splits(corpus)["test"] == ("x", "y")
    assert len(splits(corpus)["dev"]) == 2
    assert len(splits(corpus)["train"]) == 6
    assert with_benchmark(corpus) == corpus
    alone = read_kaldi(tmp_path / "train")  # paths relative to its parent
    assert {u.id for u in alone.utterances} == {u.id for u in corpus.utterances if u.speaker not in "xy"}


def test_protocol_is_used_where_it_is_there(tmp_path: Path) -> None:
    data_set(tmp_path / "train", tmp_path, "a b c d")
    data_set(tmp_path / "test", tmp_path, "d2 e f")
    for split, names in {"train": ("a", "e"), "dev": ("b", "c"), "test": ("d2", "f")}.items():
        table(tmp_path / "protocol" / f"{split}_speakers.txt", *names)
    trials = ("1 WAVE/d2/d2-1.WAV WAVE/d2/d2-2.WAV", "0 WAVE/d2/d2-1.WAV WAVE/f/f-2.WAV")
    table(tmp_path / "protocol" / "test_trials.txt", *trials)
    corpus = read_kaldi(tmp_path)
    assert splits(corpus) == {"train": ("a", "e"), "dev": ("b", "c"), "test": ("d2", "f")}
    assert any("2 utterances" in note and "protocol/" in note for note in corpus.notes)
    store = open_store([corpus], MelConfig(), tmp_path / "cache")
    bench = benchmark(store, corpus, "test")
    assert bench.trials.names == ("WAVE/d2/d2-1.wav", "WAVE/d2/d2-2.wav", "WAVE/f/f-2.wav")
    assert bench.speakers == ["d2", "d2", "f"]


def test_recordings_elsewhere_and_with_blanks_in_their_names(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    for path in (root / "my clips" / "a b.wav", root / "c.wav", elsewhere / "d.wav", elsewhere / "e.wav"):
        sound(path)
    places = ("my clips/a b.wav", f"{root}/c.wav", f"{elsewhere}/d.wav", "../elsewhere/e.wav")
    table(root / "wav.scp", *(f"u{i} {place}" for i, place in enumerate(places)))
    table(root / "utt2spk", *(f"u{i} s" for i in range(4)))
    ids = {u.id: u.path for u in read_kaldi(root).utterances}
    assert ids == {
        "my_clips/a_b.wav": root / "my clips" / "a b.wav",
        "c.wav": root / "c.wav",
        "u2": elsewhere / "d.wav",
        "u3": elsewhere / "e.wav",
    }


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    data_set(tmp_path, tmp_path, "a b")
    table(
        tmp_path / "utt2spk", *(tmp_path / "utt2spk").read_text().splitlines(), "a-3 a", "x-1 eve", "x-2 eve", "y bob"
    )
    sound(tmp_path / "WAVE" / "a" / "a-9.wav")
    notes = read_kaldi(tmp_path).notes
    assert any(re.search("4 utterances of utt2spk .*: bob, eve$", note) for note in notes)
    assert any(re.search(r"1 recordings .*wav\.scp: WAVE/a/a-9\.wav$", note) for note in notes)


@pytest.mark.parametrize(
    ("name", "text", "credit"),
    [
        ("README.md", "# speechocean762: a corpus\n", SPEECHOCEAN),
        ("LICENSE", "\nCC BY 4.0, by us\nmore\n", "its LICENSE begins: CC BY 4.0, by us"),
        ("README", "\n", "Recordings in Kaldi's layout from mine."),
    ],
)
def test_the_credit_is_that_of_what_is_there(name: str, text: str, credit: str, tmp_path: Path) -> None:
    data_set(tmp_path / "mine" / "train", tmp_path / "mine", "a b")
    (tmp_path / "mine" / name).write_text(text)
    assert credit in read_kaldi(tmp_path / "mine").credit
    assert read_kaldi(tmp_path / "mine" / "train").credit == read_kaldi(tmp_path / "mine").credit


# segments


def segmented(root: Path, suffix: str = ".wav", rate: int = 16000) -> Path:
    for i in (1, 2):
        sound(root / f"r{i}{suffix}", 3.0, rate, seed=i)
    table(root / "wav.scp", f"r1 r1{suffix}", f"r2 r2{suffix}")
    table(root / "segments", "a-1 r1 0.25 1.5", "a-2 r1 1.5 3.2", "b-1 r2 2 -1", "b-2 r2 0 3.0")
    table(root / "utt2spk", "a-1 a", "a-2 a", "b-1 b", "b-2 b")
    table(root / "text", "a-1 ONE", "b-1 TWO")
    return root


def test_segments_are_stretches_of_recordings(tmp_path: Path) -> None:
    corpus = read_kaldi(segmented(tmp_path))
    assert [(u.id, u.path.name, u.start, u.end, u.text) for u in corpus.utterances] == [
        ("a-1", "r1.wav", 0.25, 1.5, "ONE"),
        ("a-2", "r1.wav", 1.5, None, None),  # its end, 0.2 s after the recording's, is within Kaldi's tolerance
        ("b-1", "r2.wav", 2.0, None, "TWO"),
        ("b-2", "r2.wav", 0.0, 3.0, None),
    ]
    store = open_store([corpus], MelConfig(), tmp_path / "cache")
    whole, _ = soundfile.read(tmp_path / "r1.wav", dtype="int16")
    for name, samples in {"a-1": whole[4000:24000], "a-2": whole[24000:]}.items():  # the stretches as files
        (tmp_path / "cut" / "a").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "cut" / "a" / f"{name}.wav", samples, 16000)
    cut = open_store([read_folder(tmp_path / "cut")], MelConfig(), tmp_path / "cache")
    assert torch.equal(store.of(0), cut.of(0))
    assert torch.equal(store.of(1), cut.of(1))


def test_other_segments_get_a_store_of_their_own(tmp_path: Path) -> None:
    first = open_store([read_kaldi(segmented(tmp_path))], MelConfig(), tmp_path / "cache")
    table(tmp_path / "segments", "a-1 r1 0.25 2.5", "a-2 r1 1.5 3.2", "b-1 r2 2 -1", "b-2 r2 0 3.0")
    again = open_store([read_kaldi(tmp_path)], MelConfig(), tmp_path / "cache")
    assert again.lengths[0] > first.lengths[0]
    assert (again.lengths[1:] == first.lengths[1:]).all()


@pytest.mark.parametrize("suffix", list(FORMATS))
@pytest.mark.parametrize("rate", [16000, 24000])
def test_a_stretch_is_that_part_of_the_whole(suffix: str, rate: int, tmp_path: Path) -> None:
    path = segmented(tmp_path, suffix, rate) / f"r1{suffix}"
    assert duration(path) == pytest.approx(3.0)
    whole = load_audio(path, rate)
    part = read_audio(path, rate, 1.1, 2.3)
    assert (part.sample_rate, part.source_rate, part.channels) == (rate, rate, 1)
    assert part.samples.shape == (round(1.2 * rate),)
    np.testing.assert_allclose(
        part.samples, whole[round(1.1 * rate) : round(2.3 * rate)], atol=1e-2 if suffix == ".opus" else 1e-6
    )
    half = load_audio(path, 8000, 1.1, 2.3)
    assert half.shape == (9600,)
    np.testing.assert_allclose(half[400:-400], load_audio(path, 8000)[9200:18000], atol=1e-2)
    assert load_audio(path, rate, 2.5).shape == (round(0.5 * rate),)
    with pytest.raises(InputError, match="holds no samples"):
        read_audio(path, rate, 3.0, 4.0)


# what contradicts itself


def changed(name: str, *lines: str) -> Callable[[Path], None]:
    return lambda root: table(root / name, *lines)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: (root / "wav.scp").unlink(), r"/wav\.scp does not exist"),
        (lambda root: (root / "utt2spk").unlink(), r"/utt2spk does not exist"),
        (
            changed("utt2spk", "a-1 a", "a-2 a", "b-2 b"),
            r"segments, line 3 has b-1, which has no speaker in .*utt2spk",
        ),
        (changed("utt2spk", "a-1 a", "a-2 a", "a-1 b"), r"utt2spk, line 3 has a-1, as .*utt2spk, line 1 has"),
        (changed("utt2spk", "a-1", "a-2 a"), r"utt2spk, line 1 is 'a-1'; expected `utterance speaker`"),
        (changed("wav.scp", "r1 r1.wav", "r1 r2.wav"), r"wav\.scp, line 2 has r1, as .*wav\.scp, line 1 has"),
        (changed("wav.scp", "r1 r1.wav", "", "r2"), r"wav\.scp, line 3 is 'r2'; expected `recording path`"),
        (changed("wav.scp", "r1 sph2pipe -f wav r1.sph |", "r2 r2.wav"), r"wav\.scp, line 1 is a command, 'sph2pipe"),
        (changed("wav.scp", "r1 r1.wav", "r2 none.wav"), r"wav\.scp, line 2 names 'none\.wav', which is no file in "),
        (changed("wav.scp", "r1 r1.wav", f"r2 {'x' * 5000}"), r"wav\.scp, line 2 names 'xxx"),
        (changed("segments", "a-1 r1 0 1", "a-1 r1 1 2"), r"segments, line 2 has a-1, as .*segments, line 1 has"),
        (changed("segments", "a-1 r1 0 1 1"), r"segments, line 1 is .*; expected `utterance recording start end`"),
        (changed("segments", "a-1 r3 0 1"), r"segments, line 1 names the recording 'r3'"),
        (changed("segments", "a-1 r1 0 one"), r"segments, line 1 has the times '0 one'"),
        (changed("segments", "a-1 r1 nan 1"), r"segments, line 1 has the times 'nan 1'"),
        (changed("segments", "a-1 r1 0 inf"), r"segments, line 1 has the times '0 inf'"),
        (changed("segments", "a-1 r1 -1 1"), r"segments, line 1 has the times '-1 1'"),
        (changed("segments", "a-1 r1 2 1"), r"segments, line 1 has the times '2 1'"),
        (
            changed("segments", "a-1 r1 0 3", "a-2 r1 2 3.6"),
            r"segments, line 2 is from 2 s to 3\.6 s; .*lasts 3\.000 s",
        ),
        (changed("segments", "a-1 r1 3 -1"), r"segments, line 1 is from 3 s to the end; .*lasts 3\.000 s"),
        (changed("spk2gender", "a f", "b x"), r"spk2gender, line 2 has the gender 'x'; expected m or f"),
        (changed("segments"), r"has no recordings in wav\.scp"),
    ],
)
def test_tables_that_contradict_themselves_are_one_line(
    change: Callable[[Path], object], expected: str, tmp_path: Path
) -> None:
    change(segmented(tmp_path))
    with pytest.raises(InputError, match=expected) as error:
        read_kaldi(tmp_path)
    assert "\n" not in str(error.value)


def test_recordings_and_speakers_that_come_twice(tmp_path: Path) -> None:
    data_set(tmp_path / "train", tmp_path, "a b")
    data_set(tmp_path / "test", tmp_path, "b c")
    with pytest.raises(
        InputError, match=r"test/wav\.scp, line 1 names WAVE/b/b-1\.wav, as .*train/wav\.scp, line 3 does"
    ):
        read_kaldi(tmp_path)
    table(tmp_path / "test" / "wav.scp", "c-1 WAVE/c/c-1.wav")
    table(tmp_path / "test" / "utt2spk", "c-1 a")
    with pytest.raises(InputError, match="has speaker a in train/ and test/; expected each in one"):
        read_kaldi(tmp_path)


def test_what_is_no_kaldi_folder_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match=re.escape("has no wav.scp, nor one in train/")):
        read_kaldi(tmp_path)


def test_real_speechocean762(corpora: Path) -> None:
    folder = corpora / "speechocean762"
    if not folder.is_dir():
        pytest.skip("RWAE_CORPORA has no speechocean762/")
    corpus = read_kaldi(folder)
    assert len(corpus.utterances) == 5000
    assert len({u.speaker for u in corpus.utterances}) == 250
    assert {split: len(names) for split, names in splits(corpus).items()} == {"train": 214, "dev": 12, "test": 24}
    assert all(u.text for u in corpus.utterances)
    assert "125 female and 125 male speakers" in corpus.notes
    assert corpus.credit == SPEECHOCEAN
    trials = match_names(read_trials(corpus.trial_lists["test"]), [u.id for u in corpus.utterances])
    assert (len(trials), int(trials.target.sum())) == (18336, 672)
    speaker = {u.id: u.speaker for u in corpus.of("test")}
    assert Counter(speaker[name] for name in trials.names) == dict.fromkeys(corpus.speakers("test"), 8)
