"""The built-in demo corpus: what is in it, that its phone times are true, and the recipe on it as a newcomer runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rwae_audio.data.audio import read_audio
from rwae_audio.data.corpora import read_corpus
from rwae_audio.data.corpora.demo import DEMO
from rwae_audio.data.features import MelConfig, log_mel

ROOT = Path(__file__).parent.parent


def test_speakers_and_sentences() -> None:
    corpus = read_corpus("demo")
    assert corpus.synthetic
    assert [len(corpus.speakers(split)) for split in ("train", "dev", "test")] == [44, 12, 24]
    assert sum(len(corpus.speakers(split)) for split in ("train", "dev", "test")) == 80
    for speaker in {u.speaker for u in corpus.utterances}:
        mine = [u for u in corpus.utterances if u.speaker == speaker]
        assert len({u.text for u in mine}) == 10
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < 5_000_000
    table = json.loads((DEMO / "utterances.json").read_text())
    assert "eSpeak NG 1." in table["made_with"]


def test_phones_cover_the_recordings() -> None:
    corpus = read_corpus("demo")
    for utterance in corpus.utterances[::40]:
        audio = read_audio(utterance.path)
        assert audio.source_rate == 16000
        assert utterance.phones is not None
        assert utterance.phones[0].start == 0
        assert abs(utterance.phones[-1].end - len(audio.samples) / 16000) < 0.02
        times = [phone.start for phone in utterance.phones]
        assert times == sorted(times)
        assert 0.01 < np.abs(audio.samples).max() < 1


def test_phone_times_are_where_the_sound_is() -> None:
    """Sibilants have their energy above 4 kHz, vowels below: true of the labelled frames, if the times are true."""
    corpus, mel = read_corpus("demo"), MelConfig()
    tilt: dict[str, list[float]] = {"s": [], "i": []}
    for utterance in corpus.utterances[::10]:
        frames = log_mel(torch.from_numpy(read_audio(utterance.path).samples), mel)
        for phone in utterance.phones or ():
            if phone.label in tilt and phone.end - phone.start > 0.06:
                middle = frames[round((phone.start + phone.end) / 2 * 100)]
                tilt[phone.label].append(float(middle[60:].mean() - middle[:25].mean()))
    assert min(len(values) for values in tilt.values()) > 20
    assert np.mean(np.array(tilt["s"]) > 0) > 0.9
    assert np.mean(np.array(tilt["i"]) < 0) > 0.9


@pytest.mark.parametrize(
    ("config", "folder"), [(None, "demo"), ("paper-mmd", "demo-paper-mmd"), ("paper-gan", "demo-paper-gan")]
)
def test_the_recipe_without_data_trains_on_it(config: str | None, folder: str, tmp_path: Path) -> None:
    """Also the paper's models. A run is called after its configuration."""
    tiny = ["train.updates=3", "model.static_hidden=8", "model.dynamic_hidden=8", "model.decoder_hidden=8"]
    words = [word for setting in [*tiny, "train.batch=8"] for word in ("--set", setting)]
    if config:
        words += ["--config", config]
    done = subprocess.run(
        [sys.executable, str(ROOT / "recipes/timit/train.py"), *words, "--no-tensorboard", "--threads", "1"],
        cwd=tmp_path,
        env={**os.environ, "RWAE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("no corpus was given")
    assert "18,336 trials, 672 of them target" in done.stdout
    assert "synthetic speech: these numbers say nothing about people" in done.stdout
    assert json.loads((tmp_path / "runs" / folder / "eer.json").read_text())["demo"]["synthetic"] is True
    assert f"runs/{folder}/bundle" in done.stdout
    table = json.loads((tmp_path / "runs" / folder / "table.json").read_text())["demo"]
    assert (config or "demo") in table
