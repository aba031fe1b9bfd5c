"""F0 of made-up voices, in one piece and in many; contours in another register."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rwae_audio import pitch
from rwae_audio.features import PRESETS, log_mel
from rwae_audio.pitch import HIGHEST, Register, fundamental, fundamental_chunks, moved, pooled, register

CONFIG = PRESETS["vocoder"]


def buzzing(f0: np.ndarray, rate: int = 16000) -> np.ndarray:
    """A voice with F0 (N,) in Hz: 20 harmonics, silent where it is 0."""
    phase = 2 * np.pi * np.cumsum(f0) / rate
    return sum(np.sin(k * phase) / k for k in range(1, 20)) * (f0 > 0) * 0.1


@pytest.mark.parametrize("hertz", [70, 110, 233, 440])
def test_a_steady_voice_has_its_pitch(hertz: float) -> None:
    f0 = fundamental(buzzing(np.full(16000, float(hertz))), CONFIG)
    assert len(f0) == len(log_mel(torch.zeros(16000), CONFIG)) == 63
    assert (f0[3:-3] > 0).all()
    np.testing.assert_allclose(f0[3:-3], hertz, rtol=0.01)


def test_a_glide_with_a_pause_is_followed() -> None:
    wanted = np.geomspace(100, 200, 32000)
    wanted[12000:18000] = 0
    noise = 1e-3 * np.random.default_rng(0).standard_normal(32000)
    found = fundamental(buzzing(wanted) + noise, CONFIG)
    truth = wanted[:: CONFIG.hop_length][: len(found)]
    there = np.arange(len(found)) * CONFIG.hop_length
    edges = np.min([np.abs(there - edge) for edge in (0, 12000, 18000, 32000)], axis=0) > 1500
    assert ((found[: len(truth)] > 0) == (truth > 0))[edges[: len(truth)]].all()
    both = edges[: len(truth)] & (truth > 0)
    np.testing.assert_allclose(found[: len(truth)][both], truth[both], rtol=0.02)


@pytest.mark.parametrize("gain", [1.0, 1e-3])
def test_noise_and_silence_have_none_at_any_level(gain: float) -> None:
    noise = gain * np.random.default_rng(0).standard_normal(32000)
    assert (fundamental(noise, CONFIG) > 0).mean() < 0.05
    assert not fundamental(np.zeros(8000), CONFIG).any()
    voice = fundamental(gain * buzzing(np.full(16000, 150.0)), CONFIG)
    np.testing.assert_array_equal(voice > 0, fundamental(buzzing(np.full(16000, 150.0)), CONFIG) > 0)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 5000, 300_000])
def test_in_blocks_as_in_one_piece(count: int) -> None:
    draw = np.random.default_rng(count)
    wanted = np.repeat(draw.choice([0, 90, 120, 180, 240], size=count // 4000 + 1), 4000)[:count].astype(float)
    samples = (buzzing(wanted) + 0.01 * draw.standard_normal(count)).astype(np.float32)
    whole = fundamental(samples, CONFIG)
    assert len(whole) == 1 + count // CONFIG.hop_length
    loudness = float(np.sqrt(np.square(samples, dtype=float).mean()))
    blocks = np.split(samples, np.sort(draw.integers(0, count, size=7)))
    parts = np.concatenate([*fundamental_chunks(blocks, CONFIG, loudness)])
    np.testing.assert_array_equal(parts, whole)
    at_once = pitch._path(torch.cat([*pitch._candidates([samples], CONFIG, loudness)]).numpy())
    np.testing.assert_array_equal(whole, at_once)


def test_registers_of_parts_are_that_of_the_whole() -> None:
    draw = np.random.default_rng(0)
    f0 = np.where(draw.random(1000) < 0.6, np.exp(draw.normal(5, 0.2, 1000)), 0)
    logs = np.log(f0[f0 > 0])
    whole = register([f0])
    assert whole == (len(logs), pytest.approx(logs.mean()), pytest.approx(logs.std()))
    assert register(np.split(f0, [3, 400, 401])) == pytest.approx(whole)
    assert pooled([whole, whole]) == pytest.approx((2 * whole.frames, whole.mean, whole.deviation))
    assert register([np.zeros(10)]) is None
    assert register([np.array([0.0, 100.0])]) is None
    assert register([]) is None


def test_a_moved_contour_has_the_other_register_and_its_own_shape() -> None:
    f0 = np.array([0, 100, 110, 120, 0, 90.0])
    own = register([f0])
    assert own is not None
    there = moved(f0, own, Register(90, np.log(220), 0.1))
    said = register([there])
    assert said == (4, pytest.approx(np.log(220)), pytest.approx(0.1))
    assert ((there > 0) == (f0 > 0)).all()
    np.testing.assert_allclose(moved(f0, own, own), f0)
    assert moved(f0, own, Register(90, 7.0, 0.1)).max() == HIGHEST
    flat = moved(np.full(3, 100.0), Register(3, np.log(100), 0.0), Register(90, np.log(200), 0.3))
    np.testing.assert_allclose(flat, 200)


def test_a_flat_voice_stays_calm_and_a_voice_hardly_heard_has_no_spread() -> None:
    trembling = np.exp(np.log(150) + 0.002 * np.random.default_rng(0).standard_normal(500))
    own = register([trembling])
    assert own is not None
    lively = moved(trembling, own, Register(500, np.log(200), 0.2))
    assert np.log(lively).std() == pytest.approx(pitch.SPREAD * own.deviation, rel=1e-6)
    hardly = moved(trembling, own, Register(pitch.HEARD - 1, np.log(200), 0.2))
    assert np.log(hardly).std() == pytest.approx(own.deviation, rel=1e-6)
    assert np.log(hardly).mean() == pytest.approx(np.log(200))
