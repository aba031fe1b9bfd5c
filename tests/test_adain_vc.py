"""The baseline AdaIN-VC: its parts against their definitions, and a run that is stopped and gone on with."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import speech
from made_up_commands import recordings
from torch.nn import functional as F

from rwae_audio.commands.common import guarded
from rwae_audio.conversion.vocoders.neural import Vocoder, VocoderConfig, load_vocoder
from rwae_audio.data.features import PRESETS, Normaliser
from rwae_audio.data.level import active_level, speech_of
from rwae_audio.files import InputError, read_tensors

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes/voice_conversion"))
import adain_training
import adain_vc
import evaluate
import systems
import train_adain_vc

SMALL = adain_vc.AdaInConfig(width=8, bank=3)


def small(seed: int = 0) -> adain_vc.AdaInVc:
    torch.manual_seed(seed)
    return adain_vc.AdaInVc(SMALL).eval()


def test_as_large_as_published() -> None:
    """The authors' network has 9,040,512 weights for 512 bins; less those of the 432 others: of the bank and of the 1 × 1
    convolution after it, in both encoders, and of the decoder's last one."""
    bins = 512 - adain_vc.MEL.n_mels
    less = 2 * bins * 128 * (sum(range(1, 9)) + 1) + bins * (128 + 1)
    assert sum(p.numel() for p in adain_vc.AdaInVc(adain_vc.AdaInConfig()).parameters()) == 9_040_512 - less


@pytest.mark.parametrize("length", [8, 40, 64])
def test_shapes(length: int) -> None:
    model, frames = small(), torch.randn(3, length, 80)
    decoded, mean, log_variance = model(frames, torch.Generator().manual_seed(0))
    assert decoded.shape == frames.shape
    assert mean.shape == log_variance.shape == (3, 8, length // 8)
    for odd in (1, 9, 43):
        assert model.convert(torch.randn(odd, 80), [torch.randn(70, 80), torch.randn(3, 80)]).shape == (odd, 80)


def test_the_network_against_other_layers() -> None:
    """Once more, by nn.InstanceNorm1d, nn.ReflectionPad1d, F.interpolate and F.pixel_shuffle."""
    model, frames = small(), torch.randn(2, 64, 80, generator=torch.Generator().manual_seed(1))

    def conv(layer: torch.nn.Conv1d, states: torch.Tensor) -> torch.Tensor:
        size = layer.kernel_size[0]
        return layer(torch.nn.ReflectionPad1d((size // 2, size // 2 - (size % 2 == 0)))(states))

    def blocks(part: adain_vc.Blocks, norm: torch.nn.Module) -> torch.Tensor:
        states = frames.transpose(1, 2)
        states = torch.cat([*(conv(layer, states).relu() for layer in part.bank), states], 1)
        states = norm(part.into(states)).relu()
        for number, stride in enumerate([1, 2, 1, 2, 1, 2]):
            new = norm(conv(part.second[number], norm(conv(part.first[number], states)).relu())).relu()
            states = new + (states if stride == 1 else F.avg_pool1d(states, stride))
        return states

    norm = torch.nn.InstanceNorm1d(8)
    content = model.content.mean(blocks(model.content.blocks, norm))
    speaker = F.adaptive_avg_pool1d(blocks(model.speaker.blocks, torch.nn.Identity()), 1)[..., 0]
    for layer in model.speaker.dense:
        speaker = speaker + layer(speaker)
    speaker = model.speaker.last(speaker)

    def adapted(number: int, states: torch.Tensor) -> torch.Tensor:
        asked = model.decoder.modulate[number](speaker)
        return norm(states) * asked[:, 8:, None] + asked[:, :8, None]

    states = norm(model.decoder.into(content)).relu()
    for number, times in enumerate([2, 1, 2, 1, 2, 1]):
        new = adapted(2 * number, conv(model.decoder.first[number], states)).relu()
        new = conv(model.decoder.second[number], new)
        new = new.unflatten(1, (-1, times)).transpose(2, 3).flatten(2)
        states = adapted(2 * number + 1, new).relu() + F.interpolate(states, scale_factor=times)
    decoded = model.decoder.last(states).transpose(1, 2)
    torch.testing.assert_close(model(frames, None)[0], decoded, rtol=1e-4, atol=1e-5)


def test_content_is_drawn_with_its_own_deviation() -> None:
    model, frames = small(), torch.randn(4, 64, 80, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        model.content.log_variance.weight.zero_()
        model.content.log_variance.bias.fill_(2 * np.log(3.0))
    seen = []
    hook = model.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    means = [model(frames, torch.Generator().manual_seed(seed))[1] for seed in (0, 1)]
    hook.remove()
    torch.testing.assert_close(*means)
    assert not torch.allclose(*seen)
    assert float((seen[0] - means[0]).std().detach()) == pytest.approx(3.0, rel=0.15)


def test_convolutions_keep_the_length_and_reflect() -> None:
    layer, states = torch.nn.Conv1d(2, 3, 4), torch.randn(1, 2, 10)
    made = adain_vc.convolved(layer, states)
    assert made.shape == (1, 3, 10)
    mirrored = torch.cat([states[..., 2:3], states[..., 1:2], states, states[..., -2:-1]], dim=-1)
    torch.testing.assert_close(made, F.conv1d(mirrored, layer.weight, layer.bias))


def test_content_loses_each_channels_level() -> None:
    """Frames three times as far from another mean in each channel: the first instance norm takes both away, where nothing but
    the 1 × 1 convolution comes before it."""
    torch.manual_seed(3)
    blocks = adain_vc.Blocks(SMALL, normed=True)
    with torch.no_grad():
        for layer in blocks.bank:
            layer.weight.zero_()
    frames = torch.randn(1, 80, 64)
    moved = 3 * frames + torch.randn(1, 80, 1)
    torch.testing.assert_close(blocks(frames), blocks(moved), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(blocks(frames), blocks(moved.flip(-1)), rtol=1e-2, atol=1e-2)


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
    frames, decoded, mean, log_variance = (torch.randn(*shape) for shape in [(2, 16, 80)] * 2 + [(2, 8, 2)] * 2)
    found = adain_vc.losses(frames, decoded, mean, log_variance)
    assert float(found["reconstruction"]) == pytest.approx(float(np.abs((frames - decoded).numpy()).mean()))
    one = torch.distributions.Normal(mean, (log_variance / 2).exp())
    other = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    divergence = torch.distributions.kl_divergence(one, other).mean()
    assert float(found["content"]) == pytest.approx(float(divergence), rel=1e-5)


def test_the_weight_of_the_divergence_grows() -> None:
    settings = adain_training.TrainConfig(updates=100, annealed=0.2)
    assert [settings.grown(step) for step in (0, 10, 20, 50)] == [0, 0.5, 1, 1]
    assert adain_training.TrainConfig(annealed=0.0).grown(0) == 1


def test_a_voice_is_kept_and_read_back(tmp_path: Path) -> None:
    voice = adain_vc.AdaInVoice(small(), Normaliser(torch.randn(80), torch.rand(80) + 0.5))
    adain_vc.save_adain(tmp_path / "adain", voice, {"step": 1})
    again = adain_vc.load_adain(tmp_path / "adain")
    source, target, other = (voice.frames(speech(i, 1.0)) for i in (0, 1, 2))
    torch.testing.assert_close(again.convert(source, target), voice.convert(source, target))
    assert not torch.allclose(voice.convert(source, target), voice.convert(source, other), atol=1e-3)
    torch.testing.assert_close(voice.convert(source, target, target), voice.convert(source, target))
    made = systems.adain(again, load_vocoder())(speech(0, 1.0), [speech(1, 1.0)])
    assert (made.shape, made.dtype) == (speech(0, 1.0).shape, np.float32)
    level = speech_of(speech(0, 1.0), 16000).level.active
    assert active_level(made, 16000) == pytest.approx(level, rel=1e-3)
    with pytest.raises(InputError, match="other log-mels than AdaIN-VC"):
        systems.adain(again, Vocoder(VocoderConfig(mel=PRESETS["paper"], width=8, blocks=1)))
    rows = evaluate.named_systems({}, None, {"theirs": str(tmp_path / "adain")})
    assert np.array_equal(rows["theirs"][0](speech(0, 1.0), [speech(1, 1.0)]), made)
    with pytest.raises(InputError, match="--adain world is the name of another row"):
        evaluate.named_systems({}, None, {"world": str(tmp_path / "adain")})
    config = json.loads((tmp_path / "adain/config.json").read_text())
    for table, expected in (({"width": 4}, r"does not fit its config\.json"), (None, "has no table `adain`")):
        (tmp_path / "adain/config.json").write_text(json.dumps({**config, "adain": table}))
        with pytest.raises(InputError, match=expected):
            adain_vc.load_adain(tmp_path / "adain")
    with pytest.raises(InputError, match="expected a folder that train_adain_vc"):
        adain_vc.load_adain(tmp_path)


def test_it_is_trained_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RWAE_CACHE", str(tmp_path / "cache"))
    recordings(tmp_path / "data", "s{s}/{u}.wav", 8, 3)
    words = ["--data", f"folder={tmp_path / 'data'}"]
    for setting in (
        *("train.updates=6", "train.batch=4", "train.frames=16", "train.evaluate_every=2", "train.learning_rate=3e-3"),
        *("adain.width=8", "adain.bank=2"),
    ):
        words += ["--set", setting]

    def call(*more: str) -> int:
        return guarded(lambda: train_adain_vc.main([*more]), "train_adain_vc.py")

    def log(run: str) -> list[dict]:
        lines = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]

    assert call(*words, "--out", str(tmp_path / "whole")) == 0, capsys.readouterr().err
    assert [line["step"] for line in log("whole")] == [2, 4, 6]
    assert log("whole")[-1]["train/reconstruction"] < log("whole")[0]["train/reconstruction"]

    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/run.json").write_text((tmp_path / "whole/run.json").read_text())
    losses, count = adain_training.losses, itertools.count(1)

    def stop_in_the_third(*given: torch.Tensor) -> dict[str, torch.Tensor]:
        if next(count) == 3:
            signal.raise_signal(signal.SIGINT)
        return losses(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adain_training, "losses", stop_in_the_third)
        assert call("--resume", str(tmp_path / "parts")) == 130
    assert "stopped after update 3" in capsys.readouterr().err
    assert call("--resume", str(tmp_path / "parts"), "--minutes", "1e-9") == 0
    on = f"continue with: python recipes/voice_conversion/train_adain_vc.py --resume {tmp_path / 'parts'}"
    assert capsys.readouterr().out.endswith(f"stopped after update 4 of 6; {on}\n")
    assert call("--resume", str(tmp_path / "parts"), "--minutes", "60") == 0
    assert log("parts") == log("whole")
    whole, parts = (read_tensors(tmp_path / run / "latest.safetensors", "a checkpoint") for run in ("whole", "parts"))
    assert set(whole) == set(parts)
    for name, one in whole.items():
        assert torch.equal(one, parts[name]), name
    assert adain_vc.load_adain(tmp_path / "parts/adain").model.config == adain_vc.AdaInConfig(8, 2)
    assert call("--resume", str(tmp_path / "parts"), "--set", "train.batch=9") == 2
    assert "expected no --set train.batch=9" in capsys.readouterr().err
    shutil.move(tmp_path / "data", tmp_path / "there")
    longer = ("--resume", str(tmp_path / "parts"), "--data", f"folder={tmp_path / 'there'}", "--set", "train.updates=9")
    assert call(*longer) == 0, capsys.readouterr().err
    assert [line["step"] for line in log("parts")] == [2, 4, 6, 8, 9]
    assert log("parts")[:3] == log("whole")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.frames=12", "[train] frames is 12; expected a multiple of 8, 16 or more"),
        ("train.frames=8", "[train] frames is 8; expected a multiple of 8, 16 or more"),
        ("train.batch=0", "[train] batch is 0; expected 1 or more"),
        ("train.annealed=1.0", "[train] annealed is 1.0; expected 0 or more and less than 1"),
        ("adain.width=0", "[adain] width is 0; expected 1 or more"),
        ("trian.updates=5", "the configuration has a table [trian]; expected [adain] and [train]"),
    ],
)
def test_bad_settings_are_one_line(
    setting: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", f"folder={tmp_path}", "--set", setting, "--out", str(tmp_path / "run")]
    assert guarded(lambda: train_adain_vc.main(words), "train_adain_vc.py") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert expected in error
    assert not (tmp_path / "run").exists()
