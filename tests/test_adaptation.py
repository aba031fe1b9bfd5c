"""An adapted voice: the decoder comes nearer to its recordings, the weights stay, and it can be saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from made_up import speech, tiny_bundle

from rwae_audio.commands import embed, vc
from rwae_audio.conversion.converter import Converter
from rwae_audio.conversion.vocoders.griffin_lim import GriffinLim
from rwae_audio.files import InputError
from rwae_audio.inference.bundle import load_bundle


@pytest.fixture(scope="module")
def converter(tmp_path_factory: pytest.TempPathFactory) -> Converter:
    folder = tiny_bundle(tmp_path_factory.mktemp("bundle") / "b", decoder="convolutional", dynamic_norm="none")
    bundle = load_bundle(folder)
    return Converter(bundle, GriffinLim(bundle.config.mel))


def error(converter: Converter, voice, samples: np.ndarray) -> float:
    """Return the reconstruction error of a waveform in a voice."""
    bundle = converter.bundle
    frames = bundle.frames(samples)
    decoded = torch.cat([*bundle.decode_chunks(voice.code, bundle.encode_chunks(lambda: [frames]), voice.modulation)])
    return float((bundle.normaliser(decoded) - bundle.normaliser(frames)).square().mean())


@pytest.mark.slow
def test_an_adapted_voice_is_nearer_to_its_recordings(converter: Converter) -> None:
    recordings = [speech(1, 2.0), speech(1, 1.0)]
    voice = converter.voice(recordings, 16000)
    before = {name: value.clone() for name, value in converter.bundle.model.state_dict().items()}
    adapted = converter.adapt(voice, recordings, 16000, steps=30)
    assert voice.modulation is None
    assert adapted.modulation is not None
    assert error(converter, adapted, recordings[0]) < 0.97 * error(converter, voice, recordings[0])
    again = converter.adapt(voice, recordings, 16000, steps=30)
    assert torch.equal(again.modulation, adapted.modulation)
    other = converter.adapt(voice, recordings, 16000, steps=30, seed=1)
    assert not torch.equal(other.modulation, adapted.modulation)
    for name, value in converter.bundle.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(weight.grad is not None for weight in converter.bundle.model.parameters())
    assert torch.equal(
        converter.adapt(voice, recordings, 16000, steps=0).modulation, torch.zeros_like(adapted.modulation)
    )


def test_an_adapted_voice_is_saved(converter: Converter, tmp_path: Path) -> None:
    voice = converter.voice(speech(2, 1.0), 16000)
    adapted = converter.adapt(voice, speech(2, 1.0), 16000, steps=3)
    converter.save_voice(tmp_path / "v.safetensors", adapted)
    loaded = converter.load_voice(tmp_path / "v.safetensors")
    assert torch.equal(loaded.modulation, adapted.modulation)
    source = speech(3, 0.6)
    sounds = [converter.convert(source, 16000, each) for each in (adapted, loaded, voice)]
    np.testing.assert_allclose(sounds[0], sounds[1], atol=1e-5)
    assert np.abs(sounds[0] - sounds[2]).max() > 1e-3
    converter.save_voice(tmp_path / "w.safetensors", adapted._replace(modulation=adapted.modulation[:, 1:].clone()))
    with pytest.raises(InputError, match=r"w\.safetensors has a modulation"):
        converter.load_voice(tmp_path / "w.safetensors")


def test_what_cannot_be_adapted_is_refused(converter: Converter, tmp_path: Path) -> None:
    voice = converter.voice(speech(2, 1.0), 16000)
    with pytest.raises(InputError, match="no recording has"):
        converter.adapt(voice, speech(2, 0.15), 16000)
    recurrent = load_bundle(tiny_bundle(tmp_path / "b"))
    with pytest.raises(InputError, match="recurrent"):
        replace_bundle(converter, recurrent).adapt(voice, speech(2, 1.0), 16000)


def replace_bundle(converter: Converter, bundle) -> Converter:
    """Return a converter of another bundle with the same vocoder."""
    assert replace(bundle.config.mel) == converter.vocoder.mel
    return Converter(bundle, converter.vocoder)


@pytest.mark.slow
def test_commands_adapt_a_voice(
    converter: Converter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """rwae-vc --adapt and rwae-embed --adapt with rwae-vc --voice give the same sound, another one than without."""
    monkeypatch.chdir(tmp_path)
    tiny_bundle(tmp_path / "b", decoder="convolutional", dynamic_norm="none")
    for name, seed in (("a", 0), ("b1", 1), ("b2", 2)):
        soundfile.write(f"{name}.wav", speech(seed, 1.2), 16000)
    model = ["--bundle", "b"]
    assert vc.main(["a.wav", "b1.wav", "b2.wav", "-o", "plain.wav", *model]) == 0
    assert vc.main(["a.wav", "b1.wav", "b2.wav", "-o", "adapted.wav", "--adapt", "4", *model]) == 0
    assert embed.main(["b1.wav", "b2.wav", "-o", "v.safetensors", "--adapt", "4", *model]) == 0
    assert vc.main(["a.wav", "--voice", "v.safetensors", "-o", "saved.wav", *model]) == 0
    plain, adapted, saved = (soundfile.read(f"{name}.wav")[0] for name in ("plain", "adapted", "saved"))
    np.testing.assert_allclose(saved, adapted, atol=2e-3)
    assert np.abs(plain - adapted).max() > 1e-2 * np.abs(plain).max()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        vc.main(["a.wav", "--voice", "v.safetensors", "--adapt", "4", *model])
    assert "--adapt" in capsys.readouterr().err
