"""HiFi-GAN: SpeechBrain's generator with random weights, as long sounds and as a vocoder of rwae-vc."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from made_up import speech

from rwae_audio.commands import vc
from rwae_audio.commands.common import guarded
from rwae_audio.conversion.converter import Converter
from rwae_audio.conversion.vocoders import hifigan
from rwae_audio.data.level import active_level, speech_of
from rwae_audio.files import InputError, write_tensors
from rwae_audio.inference.bundle import load_bundle

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes/voice_conversion"))
import evaluate
import fetch_hifigan


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What SpeechBrain publishes, but for its numbers: a generator with weight norm, as torch.save leaves it."""
    pytest.importorskip("speechbrain")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("hifigan") / "generator.ckpt"
    torch.save(hifigan.new_generator().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def weights(checkpoint: Path) -> Path:
    path = checkpoint.with_name("hifigan.safetensors")
    assert fetch_hifigan.main(["--checkpoint", str(checkpoint), "--output", str(path)]) == 0
    return path


def test_without_weights_or_speechbrain_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hifigan.safetensors"
    with pytest.raises(InputError, match="does not exist; expected the weights of HiFi-GAN"):
        hifigan.load_hifigan(path)
    write_tensors(path, {"a": torch.zeros(1)})
    monkeypatch.setitem(sys.modules, "speechbrain.lobes.models.HifiGAN", None)
    with pytest.raises(InputError, match=r"pip install 'rwae-audio\[hifigan\]'"):
        hifigan.load_hifigan(path)


@pytest.mark.slow
def test_converted_weights_sound_as_the_published_ones(checkpoint: Path, weights: Path) -> None:
    whole = hifigan.new_generator()
    whole.load_state_dict(torch.load(checkpoint, weights_only=True))
    frames = torch.randn(30, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = whole(frames.T[None])[0, 0]
    made = hifigan.load_hifigan(weights)(frames)
    assert made.shape == (30, 256)
    assert float(expected.std()) > 1e-4
    torch.testing.assert_close(made.flatten(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 33, 40, 300])
def test_chunks_join_without_a_seam(weights: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rwae_audio.inference.streaming.CHUNK", 64)
    vocoder = hifigan.load_hifigan(weights)
    frames = torch.randn(count, 80, generator=torch.Generator().manual_seed(2))
    whole = vocoder(frames).flatten()[:-256]
    parts = torch.cat([*vocoder.chunks(frames.split(37))])
    assert parts.shape == whole.shape
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.slow
def test_rwae_vc_converts_with_it(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RWAE_CACHE", str(tmp_path / "cache"))
    for name, seed in (("a.wav", 0), ("b.wav", 1)):
        soundfile.write(name, speech(seed, 1.0), 16000)
    words = ["a.wav", "b.wav", "--vocoder", "hifigan", "--json"]
    assert vc.main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "hifigan.safetensors does not exist; expected the weights of HiFi-GAN" in error
    assert not list(tmp_path.glob("*_as_*"))
    (tmp_path / "cache").mkdir()
    weights_there = tmp_path / "cache/hifigan.safetensors"
    weights_there.write_bytes(weights.read_bytes())
    assert vc.main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["vocoder"], said["pitch"]) == ("hifigan", None)
    made, rate = soundfile.read("a_as_b.wav")
    source = soundfile.read("a.wav")[0]
    assert (rate, len(made)) == (16000, len(source))
    assert active_level(made, 16000) == pytest.approx(speech_of(source, 16000).level.active, rel=0.05)
    samples = [soundfile.read(name, dtype="float32")[0] for name in ("a.wav", "b.wav")]
    converter = Converter(load_bundle(), hifigan.load_hifigan())
    expected = converter.convert(samples[0], 16000, converter.voice(samples[1:], 16000))
    np.testing.assert_allclose(made, expected, atol=2 / 32768)


@pytest.mark.slow
def test_what_is_no_hifigan_is_refused(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tensors(tmp_path / "others.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(InputError, match="has other weights"):
        hifigan.load_hifigan(tmp_path / "others.safetensors")
    (tmp_path / "generator.ckpt").write_text("no checkpoint")
    out = str(tmp_path / "out.safetensors")
    for given, expected in (("generator.ckpt", r"is not the generator.ckpt of"), ("none.ckpt", "does not exist")):
        words = ["--checkpoint", str(tmp_path / given), "--output", out]
        assert guarded(lambda words=words: fetch_hifigan.main(words), fetch_hifigan.NAME) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert expected in error
    assert not Path(out).exists()
    words = ["--checkpoint", str(weights), "--output", str(weights)]
    assert guarded(lambda: fetch_hifigan.main(words), fetch_hifigan.NAME) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_it_is_judged_where_its_weights_are(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for its copies and one for conversions by it; without weights there is none."""
    monkeypatch.setenv("RWAE_CACHE", str(tmp_path))
    names = set(evaluate.named_systems({}, None, {}))
    assert not any("hifigan" in name for name in names)
    (tmp_path / "hifigan.safetensors").write_bytes(weights.read_bytes())
    rows = evaluate.named_systems({}, None, {})
    assert set(rows) - names == {"copy-hifigan", "ceiling-hifigan", "rwae-hifigan"}
    digest = evaluate.sha256(weights)
    assert rows["copy-hifigan"].weights == {"hifigan": digest}
    assert rows["rwae-hifigan"].weights == {"bundle": load_bundle().digest, "hifigan": digest}
    source, target = (speech(seed, 1.0) for seed in (0, 1))
    for name in ("copy-hifigan", "rwae-hifigan"):
        made = rows[name].convert(source, [target])
        assert made.shape == source.shape
        assert active_level(made, 16000) == pytest.approx(speech_of(source, 16000).level.active, rel=0.05)
