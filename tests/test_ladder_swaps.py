"""The columns of the ladder from outside judges: who is converted into whom, and what is averaged."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from rwae_audio.data.corpora.base import Corpus, Utterance

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes/timit"))
import ladder_swaps

LEVELS = {"a": 0.1, "b": 0.3, "c": 0.5}  # a speaker is a level here
JUDGES = SimpleNamespace(
    RATE=16000,
    resemblyzer=lambda: lambda samples: np.array([np.cos(np.mean(samples)), np.sin(np.mean(samples))]),
    hama=lambda: lambda samples: [f"{np.mean(samples):.1f}"],
    phone_error_rate=lambda expected, recognised: float(expected != recognised),
)


class Obedient:
    """A converter whose voice is a level, and whose conversions have exactly this level."""

    def __init__(self, bundle: object) -> None:
        pass

    def voice(self, samples: np.ndarray, rate: int) -> float:
        return float(np.mean(samples))

    def convert(self, samples: np.ndarray, rate: int, voice: float) -> np.ndarray:
        return np.full_like(samples, voice)


class Deaf(Obedient):
    """A converter that does not change the voice."""

    def convert(self, samples: np.ndarray, rate: int, voice: float) -> np.ndarray:
        return samples


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Three test speakers with five utterances each, one with two, and a training speaker."""
    utterances = []
    for speaker, level in {**LEVELS, "few": 0.9, "train": 0.7}.items():
        for number in range(2 if speaker == "few" else 5):
            path = tmp_path / f"{speaker}{number}.wav"
            soundfile.write(path, np.full(1600 * (number + 1), level), 16000, "FLOAT")
            split = "train" if speaker == "train" else "test"
            utterances.append(Utterance(path.stem, speaker, split, path))
    return Corpus("toy", tuple(utterances))


def test_the_longest_recordings_of_test_speakers(corpus: Corpus) -> None:
    recordings = ladder_swaps.longest_recordings(corpus, 4)
    assert recordings.keys() == LEVELS.keys()
    assert [len(samples) for samples in recordings["a"]] == [8000, 6400, 4800, 3200]


def test_a_swap_that_takes_the_voice_and_one_that_does_not(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder_swaps, "Converter", Obedient)
    swaps = ladder_swaps.swap_columns(None, corpus, JUDGES)["swaps"]
    assert swaps == pytest.approx(
        {"phones_own": 0, "phones_swap": 1, "taken": 1, "cosine": 1, "steadiness": 1}, abs=1e-5
    )
    monkeypatch.setattr(ladder_swaps, "Converter", Deaf)
    swaps = ladder_swaps.swap_columns(None, corpus, JUDGES)["swaps"]
    turns = [np.cos(LEVELS[one] - LEVELS[other]) for one, other in ("ab", "bc", "ca")]
    expected = {"phones_own": 0, "phones_swap": 0, "taken": 0, "cosine": np.mean(turns), "steadiness": 1}
    assert swaps == pytest.approx(expected, abs=1e-5)


def test_too_few_speakers_have_no_column(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder_swaps, "Converter", Obedient)
    alone = tuple(utterance for utterance in corpus.utterances if utterance.speaker in ("a", "few"))
    assert ladder_swaps.swap_columns(None, Corpus("toy", alone), JUDGES) == {}
