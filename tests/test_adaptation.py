"""An adapted voice: the vocoder comes nearer to its recordings, all other weights stay, and it can be saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from made_up import speech, tiny_bundle
from torch import nn

from rwae_audio.commands import embed, vc
from rwae_audio.conversion.adaptation import SETTINGS, example, with_decoded
from rwae_audio.conversion.converter import Converter
from rwae_audio.conversion.reading import read_waveform
from rwae_audio.conversion.vocoders.griffin_lim import GriffinLim
from rwae_audio.conversion.vocoders.neural import Vocoder, VocoderConfig, load_vocoder, save_vocoder
from rwae_audio.conversion.vocoders.spectra import Spectra, mel_distance
from rwae_audio.conversion.voice import Voice
from rwae_audio.files import InputError, sha256
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.randomness import generator


@pytest.fixture(scope="module")
def converter(tmp_path_factory: pytest.TempPathFactory) -> Converter:
    folder = tmp_path_factory.mktemp("converter")
    vocoder = Vocoder(VocoderConfig(width=16, blocks=1))
    nn.init.normal_(vocoder.network.head.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    save_vocoder(folder / "v", vocoder, {})
    return Converter(load_bundle(tiny_bundle(folder / "b")), load_vocoder(folder / "v"))


def error(converter: Converter, voice: Voice, samples: np.ndarray) -> float:
    """The distance between the log-mels of a recording and those of its decoding in a voice."""
    bundle, vocoder = converter.bundle, converter.vocoder_of(voice)
    assert isinstance(vocoder, Vocoder)
    reading = read_waveform(samples, 16000, bundle.config.mel, "a")
    one = with_decoded(example(reading), voice, bundle, vocoder, generator(6, "test"))
    log_mels, f0 = (torch.from_numpy(part).float()[None] for part in (one.log_mels[1], one.f0))
    with torch.no_grad():
        made = vocoder(log_mels, f0, generator(5, "test"))
    recorded = torch.from_numpy(one.samples).float()[None, : made.shape[1]]
    return float(mel_distance(Spectra(made), Spectra(recorded), vocoder.mel))


@pytest.mark.slow
def test_an_adapted_voice_is_nearer_to_its_recordings(converter: Converter) -> None:
    recordings = [speech(1, 2.0), speech(1, 1.0), speech(1, 0.5)]  # the last one is shorter than a crop
    voice = converter.voice(recordings, 16000)
    weights = {**converter.bundle.model.state_dict(), **converter.vocoder.state_dict()}
    before = {name: value.clone() for name, value in weights.items()}
    adapted = converter.adapt(voice, recordings, 16000, steps=30)
    assert voice.filters is None
    assert adapted._replace(filters=None) == voice
    assert error(converter, adapted, recordings[0]) < 0.97 * error(converter, voice, recordings[0])
    again = converter.adapt(voice, recordings[:2], 16000, steps=30)
    assert torch.equal(again.filters.weight, adapted.filters.weight)
    other = converter.adapt(voice, recordings, 16000, steps=30, seed=1)
    assert not torch.equal(other.filters.weight, adapted.filters.weight)
    for name, value in weights.items():
        assert torch.equal(value, before[name]), name
    for module in (converter.bundle.model, converter.vocoder):
        assert all(weight.grad is None and weight.requires_grad for weight in module.parameters())
    none = converter.adapt(voice, recordings, 16000, steps=0)
    assert torch.equal(none.filters.weight.float(), converter.vocoder.network.head.weight)
    assert torch.equal(none.filters.bias.float(), converter.vocoder.network.head.bias)


def test_an_adapted_voice_is_saved(converter: Converter, tmp_path: Path) -> None:
    voice = converter.voice(speech(2, 1.0), 16000)
    adapted = converter.adapt(voice, speech(2, 1.0), 16000, steps=3)
    converter.save_voice(tmp_path / "v.safetensors", adapted)
    loaded = converter.load_voice(tmp_path / "v.safetensors")
    for one, other in zip(loaded.filters[1:], adapted.filters[1:], strict=True):
        assert torch.equal(one, other)
    source = speech(3, 0.6)
    sounds = [converter.convert(source, 16000, each) for each in (adapted, loaded, voice)]
    np.testing.assert_allclose(sounds[0], sounds[1], atol=1e-5)
    assert np.abs(sounds[0] - sounds[2]).max() > 1e-3
    converter.save_pretrained(tmp_path / "all")
    elsewhere = Converter.from_pretrained(tmp_path / "all")
    assert elsewhere.vocoder.digest == converter.vocoder.digest == sha256(tmp_path / "all/vocoder/vocoder.safetensors")
    np.testing.assert_allclose(elsewhere.convert(source, 16000, loaded), sounds[0], atol=1e-5)


def test_an_adapted_voice_is_for_its_vocoder_alone(converter: Converter, tmp_path: Path) -> None:
    adapted = converter.adapt(converter.voice(speech(2, 1.0), 16000), speech(2, 1.0), 16000, steps=1)
    converter.save_voice(tmp_path / "v.safetensors", adapted)
    save_vocoder(tmp_path / "other", Vocoder(VocoderConfig(width=16, blocks=1)), {})
    for vocoder, name in ((GriffinLim(converter.vocoder.mel), "griffin-lim"), (load_vocoder(tmp_path / "other"), "…")):
        elsewhere = Converter(converter.bundle, vocoder)
        with pytest.raises(
            InputError, match=rf"adapted to vocoder {converter.vocoder.digest[:12]}…; expected .*{name}$"
        ):
            elsewhere.load_voice(tmp_path / "v.safetensors")
        with pytest.raises(InputError, match="adapted to vocoder"):
            elsewhere.convert(speech(3, 0.6), 16000, adapted)
    assert adapted.filters is not None
    weight, bias = adapted.filters.weight, adapted.filters.bias
    wrong = {
        "narrow": (weight[:, 1:].contiguous(), bias, r"have the shape \(2052, 15\); expected \(2052, 16\)"),
        "short": (weight, bias[1:].contiguous(), r"has no valid filters"),
        "endless": (weight, torch.full_like(bias, torch.inf), r"has no valid filters"),
        "one": (weight[0].contiguous(), bias[:1].contiguous(), r"has no valid filters"),
    }
    for name, (weight, bias, message) in wrong.items():
        filters = adapted.filters._replace(weight=weight, bias=bias)
        converter.save_voice(path := tmp_path / f"{name}.safetensors", adapted._replace(filters=filters))
        with pytest.raises(InputError, match=message):
            converter.load_voice(path)


def test_what_cannot_be_adapted_is_refused(converter: Converter) -> None:
    voice = converter.voice(speech(2, 1.0), 16000)
    with pytest.raises(InputError, match="no recording has 48 frames"):
        converter.adapt(voice, speech(2, 0.4), 16000)
    with pytest.raises(InputError, match="the vocoder is griffin-lim; expected the neural one"):
        Converter(converter.bundle, GriffinLim(converter.vocoder.mel)).adapt(voice, speech(2, 1.0), 16000)


def test_what_a_voice_is_adapted_to(converter: Converter) -> None:
    """Decoded frames alone, and half of them of a copy at another pitch, in the voice that is wanted."""
    bundle, vocoder, mel = converter.bundle, converter.vocoder, converter.bundle.config.mel
    assert isinstance(vocoder, Vocoder)
    samples, voice = speech(4, 1.0), converter.voice(speech(5, 1.0), 16000)
    one = example(read_waveform(samples, 16000, mel, "a"))
    natural = bundle.frames(samples)
    torch.testing.assert_close(torch.from_numpy(one.log_mels[0]).float(), natural, atol=5e-3, rtol=0)
    assert len(one.samples) == mel.hop_length * len(natural) == mel.hop_length * len(one.f0)
    whole = with_decoded(one, voice, bundle, vocoder, torch.Generator().manual_seed(3))
    kinds = [torch.from_numpy(kind).float() for kind in whole.log_mels]
    torch.testing.assert_close(kinds[0], natural, atol=5e-3, rtol=0)
    for kind, frames in ((1, 0), (3, 2)):
        torch.testing.assert_close(
            kinds[kind], bundle.decode(voice.code, bundle.encode(kinds[frames])), atol=0.02, rtol=0
        )
    assert (kinds[2] - kinds[0]).abs().mean() > 0.1
    assert (SETTINGS.decoded, SETTINGS.moved) == (1.0, 0.5)


@pytest.mark.slow
def test_commands_adapt_a_voice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """rwae-vc --adapt and rwae-embed --adapt with rwae-vc --voice give the same sound, another one than without."""
    monkeypatch.chdir(tmp_path)
    tiny_bundle(tmp_path / "b")
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
    for more in (["--voice", "v.safetensors"], ["b1.wav", "--vocoder", "griffin-lim"]):
        with pytest.raises(SystemExit):
            vc.main(["a.wav", *more, "--adapt", "4", *model])
        assert "--adapt" in capsys.readouterr().err
    tiny_bundle(tmp_path / "c", "paper")
    for main, words in ((vc.main, ["a.wav", "b1.wav"]), (embed.main, ["b1.wav"])):
        out = ["-o", "v2.safetensors" if main is embed.main else "v2.wav"]
        assert main([*words, *out, "--adapt", "4", "--bundle", "c"]) == 2
        assert "the vocoder is griffin-lim; expected the neural one" in capsys.readouterr().err
    assert not [*tmp_path.glob("v2.*")]
