"""Learning separates the codes, and what the shipped bundle and vocoder put out stays what it was."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rwae_audio.conversion.converter import Converter
from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora import read_corpus
from rwae_audio.data.corpora.demo import DEMO
from rwae_audio.data.store import Sampler, open_store
from rwae_audio.evaluation.benchmark import benchmark, dynamic_mean, embed_rows, model_row
from rwae_audio.model import RWAE
from rwae_audio.randomness import generator
from rwae_audio.training.trainer import RunConfig, new_model, train

GOLDEN = Path(__file__).parent / "golden.json"


def test_learning_separates_who_speaks_from_what_is_said(tmp_path: Path) -> None:
    """300 updates on the demo corpus, measured on speakers that were not heard in them."""
    config = RunConfig.of(
        {"objective": {"name": "rwae-plus"}, "train": {"updates": 300, "batch": 96, "evaluate_every": 300}}
    )
    corpus = read_corpus("demo")
    train_speakers = set(corpus.speakers("train"))
    utterances = [u for u in corpus.utterances if u.split == "dev" or u.speaker in train_speakers]
    corpus = replace(corpus, utterances=tuple(utterances))
    store = open_store([corpus], config.mel, tmp_path)
    rows = np.array([i for i, u in enumerate(store.utterances) if u.split == "train"])
    bench, normaliser = benchmark(store, corpus, "dev"), store.normaliser(rows)
    sampler = Sampler(store, rows, config.mel.segment, config.model, pairs=True)

    def eers(model: RWAE) -> tuple[float, float]:
        vectors = embed_rows(bench, model, normaliser, config.mel)
        mean = dynamic_mean(store, rows, model, normaliser, config.mel)
        report, _ = model_row(bench, vectors, mean, replicates=2)
        return report["static"]["eer"], report["dynamic"]["eer"]

    untrained = eers(new_model(config))
    held_out = sampler.draw(16, generator(0, "held-out"))
    model = train(config, sampler, normaliser, held_out, lambda model: {"score": 0.0}, tmp_path / "run")
    static, dynamic = eers(model)
    assert static < untrained[0] - 0.02, (untrained, static)
    assert dynamic > untrained[1] + 0.05, (untrained, dynamic)
    assert dynamic > static + 0.2


def outputs() -> dict[str, list[float]]:
    """Return numbers of a conversion between two speakers of the demo corpus by what the package holds."""
    torch.manual_seed(0)
    converter = Converter.load()
    bundle, source = converter.bundle, load_audio(DEMO / "f02/0.ogg")
    voice = converter.voice([load_audio(DEMO / "m21" / f"{i}.ogg") for i in range(3)], 16000)
    frames = bundle.frames(source)
    codes = bundle.encode(frames)
    decoded = bundle.decode(voice.code, codes)
    sound = converter.convert(source, 16000, voice)
    loudness = np.sqrt(np.square(sound[: len(sound) // 1600 * 1600].reshape(-1, 1600)).mean(1))
    assert voice.register is not None
    return {
        "log-mels": frames[::10, ::8].flatten().tolist(),
        "voice": voice.code.tolist(),
        "register": [*map(float, voice.register)],
        "codes": codes[::10].flatten().tolist(),
        "decoded": decoded[::10, ::8].flatten().tolist(),
        "loudness": loudness.tolist(),
    }


def test_the_shipped_bundle_and_vocoder_put_out_what_they_did() -> None:
    """RWAE_GOLDEN=write writes tests/golden.json anew, after a bundle or a vocoder was replaced on purpose."""
    came = outputs()
    if os.environ.get("RWAE_GOLDEN") == "write":
        rounded = {name: [round(value, 6) for value in values] for name, values in came.items()}
        GOLDEN.write_text(json.dumps(rounded) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert set(came) == set(golden)
    for name, values in came.items():
        assert values == pytest.approx(golden[name], abs=1e-3 if name in ("decoded", "log-mels") else 1e-4), name
