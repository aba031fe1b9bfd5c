"""The sources by their sums, the vocoder in one piece and in many, saved and read."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import speech

from rwae_audio.conversion.pitch import fundamental
from rwae_audio.conversion.vocoders.filters import envelope_matrix
from rwae_audio.conversion.vocoders.neural import Vocoder, VocoderConfig, buzz, load_vocoder, save_vocoder, vocode
from rwae_audio.data.features import PRESETS, log_mel, mel_filters
from rwae_audio.files import InputError
from rwae_audio.inference import streaming
from rwae_audio.randomness import generator

MEL = PRESETS["vocoder"]
SMALL = VocoderConfig(width=16, blocks=2)


def small(config: VocoderConfig = SMALL) -> Vocoder:
    torch.manual_seed(0)
    return Vocoder(config).eval()


@functools.cache
def heard(seed: int = 1, seconds: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Samples (N,), their log-mels (T, n_mels) and F0 (T,)."""
    samples = torch.from_numpy(speech(seed, seconds))
    return samples, log_mel(samples, MEL), torch.from_numpy(fundamental(samples.numpy(), MEL)).float()


def test_a_buzz_is_the_sum_of_its_harmonics() -> None:
    f0 = torch.tensor([[200.0, 200, 240, 240, 0, 0, 100]], dtype=torch.float64)
    sound, end = buzz(f0, MEL, torch.full((1, 1), 0.25, dtype=torch.float64))
    hop = MEL.hop_length
    hertz = np.concatenate([np.linspace(a, b, hop, endpoint=False) for a, b in [(200, 200), (200, 240), (240, 240)]])
    hertz = np.concatenate([hertz, np.full(hop, 240.0), np.full(hop, 1.0), np.full(hop, 100.0)])
    voiced = np.concatenate([np.ones(3 * hop), np.linspace(1, 0, hop, endpoint=False), np.zeros(hop)])
    voiced = np.concatenate([voiced, np.linspace(0, 1, hop, endpoint=False)])
    turns = 0.25 + np.cumsum(hertz / 16000)
    expected = np.zeros(len(hertz))
    for k in range(1, 81):
        expected += np.where(k <= np.floor(8000 / hertz), np.cos(2 * np.pi * k * turns), 0)
    expected *= np.sqrt(2 / np.floor(8000 / hertz)) * voiced
    there = voiced > 0
    np.testing.assert_allclose(sound[0].numpy()[there], expected[there], atol=1e-6)
    assert not sound[0, ~torch.from_numpy(there)].any()
    assert end.item() == pytest.approx(turns[-1] % 1)
    assert sound[0, : 3 * hop].square().mean().item() == pytest.approx(1, abs=0.1)


def test_a_flat_spectrum_has_a_flat_envelope() -> None:
    """Log-mels of constant magnitude, less the filters' gains, are that magnitude in every bin."""
    log_mels = (3.0 * mel_filters(MEL).sum(0)).log()
    envelope = (log_mels - mel_filters(MEL).sum(0).log()) @ envelope_matrix(MEL)
    torch.testing.assert_close(envelope, torch.full((513,), np.log(3.0)))


def test_before_training_it_speaks_from_the_mels_alone() -> None:
    """Louder frames are louder, and what is voiced has the harmonics of the F0 that is asked for, not of the mels."""
    samples, log_mels, f0 = heard()
    vocoder = small()
    sound = vocode(vocoder, log_mels, f0)
    assert len(sound) == MEL.hop_length * (len(log_mels) - 1)
    again = log_mel(sound, MEL)
    assert (again - log_mels[: len(again)]).abs().mean() < 1
    higher = vocode(vocoder, log_mels, 1.2 * f0)
    ratio = fundamental(higher.numpy(), MEL)[: len(f0)] / f0.numpy()[: len(f0)].clip(1)
    assert np.median(ratio[(f0.numpy() > 0) & (ratio > 0)]) == pytest.approx(1.2, rel=0.02)
    assert len(samples) >= len(sound)


@pytest.mark.parametrize("size", [40, 61, 100])
def test_in_pieces_as_in_one(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, log_mels, f0 = heard(2, 3.0)
    vocoder = small()
    whole = vocode(vocoder, log_mels, f0, seed=3)
    monkeypatch.setattr(streaming, "CHUNK", size)
    for pieces in (log_mels.split(7), [log_mels]):
        sound = torch.cat([*vocoder.chunks(pieces, f0, seed=3)])
        torch.testing.assert_close(sound, whole, rtol=0, atol=1e-5)
    assert not torch.equal(vocode(vocoder, log_mels, f0, seed=4), whole)


@pytest.mark.parametrize("count", [2, 5, 30])
def test_a_few_frames_are_enough(count: int) -> None:
    _, log_mels, f0 = heard()
    assert len(vocode(small(), log_mels[:count], f0[:count])) == (count - 1) * MEL.hop_length


def test_context_is_as_far_as_a_frame_reaches() -> None:
    _, log_mels, f0 = heard()
    vocoder = small()
    changed = log_mels.clone()
    changed[60] += 1
    apart = (vocode(vocoder, changed, f0) - vocode(vocoder, log_mels, f0)).abs() > 0
    reach = torch.nonzero(apart).flatten() / MEL.hop_length
    assert 60 - reach.min() <= SMALL.context
    assert reach.max() - 60 <= SMALL.context


@pytest.mark.slow
def test_training_lowers_the_loss() -> None:
    _, log_mels, f0 = heard()
    vocoder = small().train()
    optimizer = torch.optim.Adam(vocoder.parameters(), lr=2e-3)
    wanted, losses = log_mels[:-1], []
    for step in range(15):
        made = vocoder(log_mels[None], f0[None], generator(0, "sources", step))[0]
        spectrum = torch.stft(made, 1024, 256, window=torch.hann_window(1024), return_complex=True).abs()
        loss = ((spectrum.T @ mel_filters(MEL)).clamp_min(1e-5).log()[: len(wanted)] - wanted).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in vocoder.parameters())


def test_the_one_in_the_package_is_small() -> None:
    vocoder = load_vocoder()
    assert sum(weight.numel() for weight in vocoder.parameters()) <= 3_000_000


def test_saved_and_read(tmp_path: Path) -> None:
    vocoder = small()
    for weight in vocoder.parameters():
        weight.data = weight.data.half().float()  # what a file has
    save_vocoder(tmp_path / "vocoder", vocoder, {"command": "made up"})
    again = load_vocoder(tmp_path / "vocoder")
    _, log_mels, f0 = heard()
    assert again.config == vocoder.config
    assert torch.equal(vocode(again, log_mels, f0), vocode(vocoder, log_mels, f0))
    config = json.loads((tmp_path / "vocoder/config.json").read_text())
    config["vocoder"]["width"] = 32
    (tmp_path / "vocoder/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"does not fit its config\.json"):
        load_vocoder(tmp_path / "vocoder")
    with pytest.raises(InputError, match="expected the folder of a vocoder"):
        load_vocoder(tmp_path / "nothing")
    assert replace(SMALL, blocks=5).context > SMALL.context


# ---- voices


def knowing(bundle: str = "b1") -> Vocoder:
    """A vocoder that knows the voices of a bundle, whose weights are not those of the beginning."""
    vocoder = small(replace(SMALL, voice=3))
    for weight in vocoder.parameters():
        weight.data = torch.randn(weight.shape).mul(0.1).half().float()
    vocoder.bundle = bundle
    return vocoder


def test_a_vocoder_knows_the_voices_of_its_bundle_alone(tmp_path: Path) -> None:
    """A code of 0 stands for codes of another bundle and for no code. The folder of the vocoder names the bundle."""
    vocoder, (_, log_mels, f0) = knowing(), heard()
    save_vocoder(tmp_path / "vocoder", vocoder, {})
    again = load_vocoder(tmp_path / "vocoder")
    codes = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, -1.1]])
    first, none, near = (vocode(again.of(code, "b1"), log_mels, f0) for code in codes)
    unknown = vocode(again, log_mels, f0)
    assert torch.equal(none, unknown)
    assert torch.equal(vocode(again.of(codes[0], "b2"), log_mels, f0), unknown)
    distance, small_distance = ((first - other).square().mean() / first.square().mean() for other in (none, near))
    assert 1e-6 < small_distance < 0.1 * distance
    assert again.voice is None  # `of` has left it alone
    with torch.no_grad():
        sources = torch.randn(2, 1, (len(f0) - 1) * MEL.hop_length)
        parts = log_mels[None], f0[None], *sources
        both = again.filtered(*(part.expand(2, *part.shape[1:]) for part in parts), codes[:2])
        alone = [again.filtered(*parts, code[None]) for code in codes[:2]]
    torch.testing.assert_close(both, torch.cat(alone))


def test_before_training_the_voice_changes_nothing() -> None:
    vocoder, (_, log_mels, f0) = small(replace(SMALL, voice=3)), heard()
    vocoder.bundle = "b1"
    assert torch.equal(vocode(vocoder.of(torch.ones(3), "b1"), log_mels, f0), vocode(vocoder, log_mels, f0))
