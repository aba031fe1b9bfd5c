"""--data and --hold-out: folders that become corpora, corpora of one name that become one, speakers that are left out."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest
import soundfile
from made_up import speech

from rwae_audio.commands import data
from rwae_audio.commands.common import recorded
from rwae_audio.data.corpora import (
    HeldOut,
    Source,
    corpus_sources,
    planned_corpora,
    read_corpora,
    read_hold_out,
)
from rwae_audio.files import InputError

ROOT = Path(__file__).parent.parent


def librispeech(root: Path, *names: str) -> Path:
    """Recordings such as `26-495-0000` in train-clean-100/, under `root`."""
    for name in names:
        speaker, chapter, _ = name.split("-")
        path = root / "train-clean-100" / speaker / chapter / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, speech(int(speaker), 0.1), 16000)
    return root


def voices(root: Path, *speakers: str) -> Path:
    """A folder a speaker, with one recording each."""
    for number, speaker in enumerate(speakers):
        (root / speaker).mkdir(parents=True)
        soundfile.write(root / speaker / "1.wav", speech(number, 0.1), 16000)
    return root


def test_a_corpus_is_called_as_its_reader_is_or_after_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = ["an4=/x/a", "librispeech=/x/b", "kaldi=/x/speechocean762", "folder=/x/my  voices/", "folder=/x/y/../z"]
    named = [source.corpus for source in corpus_sources(items)]
    assert named == ["an4", "librispeech", "speechocean762", "my_voices", "z"]
    monkeypatch.chdir(tmp_path)
    assert corpus_sources(["folder=."]) == [Source("folder", str(tmp_path), tmp_path.name)]
    assert read_corpora([Source("folder", str(voices(tmp_path / "n", "a")), "renamed")])[0].name == "renamed"


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["an5=x"], "--data an5=x; expected NAME=DIR, did you mean 'an4'?"),
        (["an4="], "--data an4=; expected NAME=DIR"),
        (["kaldi=/a/mine", "folder=/b/mine"], "are both named mine; expected a folder with another name"),
        (["an4=/a", "folder=/b/an4"], "an4=/a and folder=/b/an4 are both named an4"),
    ],
)
def test_bad_items_are_said(items: list[str], expected: str) -> None:
    with pytest.raises(InputError, match=expected.replace("?", r"\?")):
        corpus_sources(items)


def test_folders_of_one_name_are_one_corpus(tmp_path: Path) -> None:
    one = librispeech(tmp_path / "a", "26-495-0000", "26-495-0001", "27-1-0000")
    more = librispeech(tmp_path / "b", "26-495-0002", "84-7-0000")
    mine = voices(tmp_path / "mine", "26")
    items = [f"librispeech={one}", f"folder={mine}", f"librispeech={more}"]
    libri, own = read_corpora(corpus_sources(items))
    assert (libri.name, own.name) == ("librispeech", "mine")
    assert libri.speakers("train") == ("26", "27", "84")
    assert [u.path.name[:-5] for u in libri.utterances if u.speaker == "26"] == [f"26-495-000{i}" for i in range(3)]
    assert [u.path.is_relative_to(more) for u in libri.utterances] == [False, False, False, True, True]
    assert any(note.startswith(f"{more}: ") for note in libri.notes)
    assert libri.credit.count("LibriSpeech (") == 1


def test_an_utterance_of_two_folders(tmp_path: Path) -> None:
    one, more = (librispeech(tmp_path / name, "26-495-0000", "27-1-0000") for name in "ab")
    with pytest.raises(InputError, match=r"26-495-0000\.flac of librispeech; expected one") as caught:
        read_corpora(corpus_sources([f"librispeech={one}", f"librispeech={more}"]))
    assert f"{one} and {more} both have the utterance train-clean-100/26/495/26-495-0000.flac" in str(caught.value)
    shutil.rmtree(more)
    more.mkdir()
    (more / "train-clean-100").symlink_to(one / "train-clean-100")  # the same files
    items = [f"librispeech={one}", f"librispeech={more}", f"librispeech={one}"]
    assert len(read_corpora(corpus_sources(items))[0].utterances) == 2


def test_a_speaker_of_two_folders_is_in_one_split(tmp_path: Path) -> None:
    one = librispeech(tmp_path / "a", "26-495-0000")
    (librispeech(tmp_path / "b", "26-495-0001") / "train-clean-100").rename(tmp_path / "b/dev-clean")
    with pytest.raises(InputError, match=r"the speaker 26 of librispeech is for train in .*a and for dev in .*b"):
        read_corpora(corpus_sources([f"librispeech={one}", f"librispeech={tmp_path / 'b'}"]))


def test_two_trial_lists_of_one_split_are_refused(tmp_path: Path) -> None:
    folders = [tmp_path / name / "mine" for name in "ab"]
    for folder, speaker in zip(folders, ("s1", "s2"), strict=True):
        voices(folder, speaker)
        (folder / "wav.scp").write_text(f"{speaker}u {speaker}/1.wav\n")
        (folder / "utt2spk").write_text(f"{speaker}u {speaker}\n")
        (folder / "protocol").mkdir()
        for split in ("train", "dev", "test"):
            (folder / f"protocol/{split}_speakers.txt").write_text(speaker if split == "train" else "")
    items = [f"kaldi={folder}" for folder in folders]
    (corpus,) = read_corpora(corpus_sources(items))
    assert corpus.speakers("train") == ("s1", "s2")
    (folders[1] / "protocol/dev_trials.txt").write_text("1 a b\n")
    (corpus,) = read_corpora(corpus_sources(items))
    assert corpus.trial_lists == {"dev": folders[1] / "protocol/dev_trials.txt"}
    (folders[0] / "protocol/dev_trials.txt").write_text("1 a b\n")
    with pytest.raises(InputError, match=r"dev_trials\.txt are two lists of mine; expected one"):
        read_corpora(corpus_sources(items))


def test_speakers_are_held_out(tmp_path: Path) -> None:
    libri = librispeech(tmp_path / "a", "26-495-0000", "26-495-0001", "27-1-0000")
    mine = voices(tmp_path / "mine", "26", "27")
    sources = corpus_sources([f"librispeech={libri}", f"folder={mine}"])
    (tmp_path / "out.txt").write_text("\ufeff# who\n\nlibrispeech  26 # pairs\n\tmine 27\n", encoding="utf-8")
    held = read_hold_out(tmp_path / "out.txt", sources)
    assert held == [HeldOut("librispeech", "26", 3), HeldOut("mine", "27", 4)]
    corpora = read_corpora(sources, held)
    assert [corpus.speakers("train") for corpus in corpora] == [("27",), ("26",)]
    assert corpora[0].notes[-1] == "2 utterances of 1 speakers are held out: 26"
    plan = {"data": [[*s] for s in sources], "hold_out": [[*h] for h in held]}  # as JSON gives it back
    assert planned_corpora(plan) == corpora
    assert read_hold_out(None, sources) == []
    with pytest.raises(InputError, match="--hold-out names all 2 speakers of mine; expected at least one other"):
        read_corpora(sources, [HeldOut("mine", speaker, 1) for speaker in ("26", "27")])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("librispech 26", r"line 2 names the corpus 'librispech', which is not in --data; did you mean 'librispeech'"),
        ("an4 fbbh", r"line 2 names the corpus 'an4', which is not in --data; expected one of librispeech"),
        ("librispeech", r"line 2 is 'librispeech'; expected `CORPUS SPEAKER`"),
        ("librispeech 26 27", r"line 2 is 'librispeech 26 27'; expected `CORPUS SPEAKER`"),
        (
            "librispeech 266",
            r"--hold-out, line 2 names the speaker '266', who is not in librispeech; did you mean '26'",
        ),
        ("librispeech x", r"line 2 names the speaker 'x', who is not in librispeech; expected one of 26, 27$"),
    ],
)
def test_who_cannot_be_held_out_is_said(line: str, expected: str, tmp_path: Path) -> None:
    sources = corpus_sources([f"librispeech={librispeech(tmp_path / 'a', '26-495-0000', '27-1-0000')}"])
    (tmp_path / "out.txt").write_text(f"# who\n{line}\n")
    with pytest.raises(InputError, match=expected):
        read_corpora(sources, read_hold_out(tmp_path / "out.txt", sources))


def test_the_list_of_the_recipe_names_three_speakers() -> None:
    place = ROOT / "recipes/voice_conversion/hold-out.txt"
    held = read_hold_out(place, [Source("librispeech", "/x", "librispeech")])
    assert [entry[:2] for entry in held] == [("librispeech", speaker) for speaker in ("26", "27", "5652")]


def test_what_a_plan_keeps() -> None:
    options = argparse.Namespace(data=["an4=/a", "kaldi=/x/ocean"], test=["ocean", "an4", "ocean"], hold_out=None)
    assert data.data_plan(options) == {
        "data": [("an4", "/a", "an4"), ("kaldi", "/x/ocean", "ocean")],
        "test": ["ocean", "an4"],
        "hold_out": [],
    }
    sources = corpus_sources(options.data)
    assert data.tested([], sources) == ["an4"]
    with pytest.raises(InputError, match="--test kaldi is not among the corpora given; expected one of an4, ocean"):
        data.tested(["kaldi"], sources)
    with pytest.raises(InputError, match="no corpus was given"):
        data.tested([], [])


def test_a_recorded_command_names_every_folder() -> None:
    words = ["--data", "an4=/a", "--data=librispeech=/x/libri", "--data", "librispeech=/x/more", "--test", "an4"]
    words += ["--data", "kaldi=/x/speech-ocean", "--elsewhere", "an4=/a", "--seed", "1"]
    expected = "--data an4=$AN4 --data librispeech=$LIBRISPEECH --data librispeech=$LIBRISPEECH_2 --test an4 "
    expected += "--data kaldi=$SPEECH_OCEAN --elsewhere an4=$AN4 --seed 1"
    assert " ".join(recorded(words)) == expected
