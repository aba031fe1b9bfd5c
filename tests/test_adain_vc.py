"""The baseline AdaIN-VC: its parts against their definitions, and a run that is stopped and gone on with."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import speech
from test_ladder import recordings
from torch.nn import functional as F

from rwae_audio.commands.common import guarded
from rwae_audio.features import Normaliser
from rwae_audio.files import InputError
from rwae_audio.neural_vocoder import load_vocoder

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes/voice_conversion"))
import adain_training
import adain_vc
import systems
import train_adain_vc

SMALL = adain_vc.AdaInConfig(width=8, bank=3)


def small(seed: int = 0) -> adain_vc.AdaInVc:
    torch.manual_seed(seed)
    return adain_vc.AdaInVc(SMALL).eval()


def test_as_large_as_published() -> None:
    """4.9 million weights, as the authors' network for 512 bins less what the bins make (80 here): the bank's, twice
    (432 · 128 · Σk), the first 1 × 1 convolutions' (432 · 128) and the last one's."""
    assert sum(p.numel() for p in adain_vc.AdaInVc(adain_vc.AdaInConfig()).parameters()) == 4_876_368


@pytest.mark.parametrize("length", [8, 40, 64])
def test_shapes(length: int) -> None:
    model, frames = small(), torch.randn(3, length, 80)
    decoded, mean = model(frames, torch.Generator().manual_seed(0))
    assert decoded.shape == frames.shape
    assert mean.shape == (3, 8, length // 8)
    for odd in (1, 9, 43):
        assert model.convert(torch.randn(odd, 80), [torch.randn(70, 80), torch.randn(3, 80)]).shape == (odd, 80)


def test_convolutions_keep_the_length_and_reflect() -> None:
    layer, states = torch.nn.Conv1d(2, 3, 4), torch.randn(1, 2, 10)
    made = adain_vc.convolved(layer, states)
    assert made.shape == (1, 3, 10)
    mirrored = torch.cat([states[..., 2:3], states[..., 1:2], states, states[..., -2:-1]], dim=-1)
    torch.testing.assert_close(made, F.conv1d(mirrored, layer.weight, layer.bias))


def test_content_loses_each_channels_level_and_the_speaker_does_not() -> None:
    """What is added to one channel for a whole recording: the first instance norm takes it away, where no nonlinearity comes
    before it."""
    blocks = adain_vc.Blocks(SMALL, normed=True)
    with torch.no_grad():
        for layer in blocks.bank:
            layer.weight.zero_()
    frames = torch.randn(1, 80, 64)
    moved = frames * (0.5 + torch.rand(1, 80, 1)).mean() + torch.randn(1, 80, 1)
    torch.testing.assert_close(blocks(frames), blocks(moved), rtol=1e-3, atol=1e-3)
    speaker = small().speaker
    assert float((speaker(frames) - speaker(moved)).abs().max().detach()) > 1e-3


def test_adapted_states_have_the_speakers_mean_and_deviation() -> None:
    decoder, states, speaker = small().decoder, 3 + 2 * torch.randn(2, 8, 50), torch.randn(2, 8)
    shift, scale = decoder.modulate[4](speaker).chunk(2, dim=1)
    made = decoder.adapted(4, states, speaker)
    torch.testing.assert_close(made.mean(-1), shift, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.std(-1, unbiased=False), scale.abs(), rtol=1e-3, atol=1e-4)


def test_neighbouring_channels_become_neighbours_in_time() -> None:
    states = torch.arange(12.0).view(1, 4, 3)
    assert adain_vc.spread(states, 2).tolist() == [[[0, 3, 1, 4, 2, 5], [6, 9, 7, 10, 8, 11]]]
    assert adain_vc.spread(states, 1) is states


def test_losses_are_l1_and_the_divergence_of_two_gaussians() -> None:
    frames, decoded, mean = torch.randn(2, 16, 80), torch.randn(2, 16, 80), torch.randn(2, 8, 2)
    found = adain_vc.losses(frames, decoded, mean)
    assert float(found["reconstruction"]) == pytest.approx(float(np.abs((frames - decoded).numpy()).mean()))
    one = torch.distributions.Normal(mean, torch.ones(()))
    other = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    divergence = torch.distributions.kl_divergence(one, other).mean()
    assert float(found["content"]) == pytest.approx(float(divergence), rel=1e-5)


def test_a_voice_is_kept_and_read_back(tmp_path: Path) -> None:
    voice = adain_vc.AdaInVoice(small(), Normaliser(torch.randn(80), torch.rand(80) + 0.5))
    adain_vc.save_adain(tmp_path / "adain", voice, {"step": 1})
    again = adain_vc.load_adain(tmp_path / "adain")
    source, target = (voice.frames(speech(i, 1.0)) for i in (0, 1))
    torch.testing.assert_close(again.convert(source, target), voice.convert(source, target))
    made = systems.adain(again, load_vocoder())(speech(0, 1.0), [speech(1, 1.0)])
    assert (made.shape, made.dtype) == (speech(0, 1.0).shape, np.float32)
    assert np.sqrt(np.mean(made**2)) == pytest.approx(float(np.sqrt(np.mean(speech(0, 1.0) ** 2))), rel=1e-3)
    config = json.loads((tmp_path / "adain/config.json").read_text())
    config["adain"]["width"] = 4
    (tmp_path / "adain/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"does not fit its config\.json"):
        adain_vc.load_adain(tmp_path / "adain")
    with pytest.raises(InputError, match="expected a folder that train_adain_vc"):
        adain_vc.load_adain(tmp_path)


def test_it_is_trained_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RWAE_CACHE", str(tmp_path / "cache"))
    recordings(tmp_path / "data", "s{s}/{u}.wav", 8, 3)
    words = ["--data", f"folder={tmp_path / 'data'}", "--threads", "1"]
    settings = ("train.updates=6", "train.batch=4", "train.frames=16", "train.evaluate_every=2", "adain.width=8")
    for setting in (*settings, "adain.bank=2", "train.learning_rate=3e-3"):
        words += ["--set", setting]

    def call(*more: str) -> int:
        return guarded(lambda: train_adain_vc.main([*more]), "train_adain_vc.py")

    assert call(*words, "--out", str(tmp_path / "whole")) == 0, capsys.readouterr().err
    log = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4, 6]
    assert log[-1]["train/reconstruction"] < log[0]["train/reconstruction"]

    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/run.json").write_text((tmp_path / "whole/run.json").read_text())
    write = adain_training.MetricsLog.write

    def stop_after(log: object, values: dict) -> None:
        write(log, values)
        if values["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adain_training.MetricsLog, "write", stop_after)
        assert call("--resume", str(tmp_path / "parts"), "--threads", "1") == 130
    assert "stopped after update 2" in capsys.readouterr().err
    assert call("--resume", str(tmp_path / "parts"), "--threads", "1") == 0
    whole, parts = (adain_vc.load_adain(tmp_path / name / "adain").model.state_dict() for name in ("whole", "parts"))
    for name, one in whole.items():
        assert torch.equal(one, parts[name]), name
    assert call(*words, "--set", "train.frames=12", "--out", str(tmp_path / "odd")) == 2
    assert "[train] frames is 12; expected a multiple of 8" in capsys.readouterr().err
