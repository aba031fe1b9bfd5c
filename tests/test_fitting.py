"""Codes that are fitted to a source: their decodings are nearer to it, in chunks as in one piece, and no weight changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import speech, tiny_bundle

from rwae_audio.conversion.converter import BEYOND, Converter
from rwae_audio.conversion.fitting import fitted_chunks, fitted_codes
from rwae_audio.conversion.vocoders.griffin_lim import GriffinLim, griffin_lim
from rwae_audio.data.audio import load_audio
from rwae_audio.files import ASSETS
from rwae_audio.inference import streaming
from rwae_audio.inference.bundle import Bundle, load_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "b"
    return load_bundle(tiny_bundle(folder, decoder="convolutional", dynamic_look_ahead=4, dynamic_norm="none"))


def fitted(bundle: Bundle, frames: torch.Tensor, size: int = 10_000) -> torch.Tensor:
    return torch.cat([*fitted_chunks(bundle, bundle.voice(frames), lambda: iter(frames.split(size)))])


def error(bundle: Bundle, frames: torch.Tensor, codes: torch.Tensor) -> float:
    made = bundle.normaliser(bundle.decode(bundle.voice(frames), codes))
    return (made - bundle.normaliser(frames)).square().mean().item()


@pytest.mark.parametrize("speaker", ["f02", "m21"])
def test_the_decoding_of_fitted_codes_is_nearer_to_the_source(speaker: str) -> None:
    shipped = load_bundle()
    frames = shipped.frames(load_audio(ASSETS / "demo" / speaker / "3.ogg"))
    codes, encoded = fitted(shipped, frames), shipped.encode(frames)
    assert error(shipped, frames, codes) < 0.9 * error(shipped, frames, encoded)
    assert 0.001 < (codes - encoded).square().mean() < 0.1 * encoded.square().mean()


@pytest.mark.parametrize("count", [1, 7, 119, 120, 155, 156, 157, 276, 300, 400])
def test_chunked_is_whole(bundle: Bundle, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = bundle.frames(speech(0, 6.5))[:count]
    whole = fitted(bundle, frames)
    monkeypatch.setattr(streaming, "CHUNK", 120)
    chunked = fitted(bundle, frames, 50)
    assert whole.shape == chunked.shape == (count, bundle.model.config.dynamic_dim)
    torch.testing.assert_close(chunked, fitted(bundle, frames, 33), atol=1e-5, rtol=0)
    moved = (whole - bundle.encode(frames)).square().mean()
    assert moved > 0
    assert (chunked - whole).square().mean() < 0.05 * moved


def test_no_weight_and_no_gradient_changes(bundle: Bundle) -> None:
    frames = bundle.frames(speech(1, 1.0))
    before = [parameter.clone() for parameter in bundle.model.parameters()]
    codes = fitted_codes(bundle, bundle.voice(frames), frames)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            torch.testing.assert_close(fitted(bundle, frames), codes, atol=1e-5, rtol=0)
    assert not codes.requires_grad
    for parameter, old in zip(bundle.model.parameters(), before, strict=True):
        assert parameter.grad is None
        assert torch.equal(parameter, old)


@pytest.mark.parametrize("switches", [{"decoder": "recurrent"}, {"decoder": "frame"}, {"objective": "fhvae"}])
def test_with_other_decoders_the_codes_are_the_encoders(switches: dict[str, str], tmp_path: Path) -> None:
    other = load_bundle(tiny_bundle(tmp_path / "b", **switches))
    frames = other.frames(speech(2, 1.0))
    assert torch.equal(fitted(other, frames), other.encode(frames))


def test_a_conversion_is_decoded_from_fitted_codes(bundle: Bundle) -> None:
    source, target = speech(0, 1.5), speech(1, 1.0)
    converter = Converter(bundle, GriffinLim(bundle.config.mel))
    frames, voice = bundle.frames(source), converter.voice(target, 16000).code
    codes = fitted(bundle, frames)
    made, own = (bundle.decode(code, codes) for code in (voice, bundle.voice(frames)))
    expected = griffin_lim(made + BEYOND * (made.mean(0) - own.mean(0)), bundle.config.mel, seed=3).numpy()
    sound = converter.convert(source, 16000, converter.voice(target, 16000), seed=3)
    scale = np.dot(expected, sound[: len(expected)]) / np.dot(expected, expected)
    np.testing.assert_allclose(sound[: len(expected)], scale * expected, rtol=0, atol=2e-3 * np.abs(sound).max())
