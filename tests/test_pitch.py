"""F0 of made-up voices, in one piece and in many; contours in another register."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from made_up import speech
from scipy.signal import butter, sosfilt
from swift_f0 import SwiftF0

from rwae_audio.conversion import pitch
from rwae_audio.conversion.pitch import (
    HIGHEST,
    Register,
    contour,
    fundamental,
    moved,
    pooled,
    register,
    register_of,
    tracked,
)
from rwae_audio.data.features import PRESETS, MelConfig, log_mel
from rwae_audio.data.level import levelled, measured
from rwae_audio.inference import streaming

CONFIG = PRESETS["vocoder"]


def buzzing(f0: np.ndarray, rate: int = 16000) -> np.ndarray:
    """A voice with F0 (N,) in Hz: 19 harmonics, silent where it is 0."""
    phase = 2 * np.pi * np.cumsum(f0) / rate
    return sum(np.sin(k * phase) / k * (k * f0 < rate / 2) for k in range(1, 20)) * (f0 > 0) * 0.1


def at_frames(f0: np.ndarray, count: int, hop: int = CONFIG.hop_length) -> np.ndarray:
    """The values of F0 (N,) at the frames' centres, (count,)."""
    return f0[np.minimum(np.arange(count) * hop, len(f0) - 1)]


def heard(*blocks: np.ndarray) -> Register | None:
    """The register of a waveform in blocks, through the front end."""
    return register_of(tracked(measured(lambda: blocks, 16000).blocks(), 16000))


def with_hum(samples: np.ndarray, mains: float) -> np.ndarray:
    """Samples (N,) with mains hum, 20 dB under their level: a tone and nine harmonics."""
    time = np.arange(len(samples)) / 16000
    hum = sum(np.sin(2 * np.pi * mains * k * time + k * k) / k for k in range(1, 11))
    return samples + hum * 0.1 * samples.std() / hum.std()


@pytest.mark.parametrize("hertz", [70, 110, 233, 440])
def test_a_steady_voice_has_its_pitch(hertz: float) -> None:
    f0 = fundamental(buzzing(np.full(16000, float(hertz))), CONFIG)
    assert len(f0) == len(log_mel(torch.zeros(16000), CONFIG)) == 63
    assert (f0[3:-3] > 0).all()
    np.testing.assert_allclose(f0[3:-3], hertz, rtol=0.01)


@pytest.mark.parametrize(("rate", "hop"), [(16000, 256), (16000, 160), (22050, 256), (8000, 80), (24000, 600)])
def test_frames_of_chirps_lie_on_their_hops(rate: int, hop: int) -> None:
    config = MelConfig(sample_rate=rate, n_fft=1024, hop_length=hop, n_mels=20)
    slope = math.log(3) / (2 * rate)  # of ln F0, a sample
    offsets = []
    for direction in (1, -1):
        wanted = np.geomspace(100, 300, 2 * rate)[::direction]
        f0 = fundamental(buzzing(wanted, rate), config)
        assert len(f0) == 1 + 2 * rate // hop
        inner = slice(len(f0) // 10, -len(f0) // 10)
        assert (f0[inner] > 0).all()
        errors = np.log(f0[inner] / at_frames(wanted, len(f0), hop)[inner])
        offsets.append(direction * np.median(errors) / slope)
    assert abs(np.mean(offsets)) < 0.002 * rate  # under 2 ms; an F0 that is too low or high cancels


def test_a_glide_with_a_pause_is_followed() -> None:
    wanted = np.geomspace(100, 200, 32000)
    wanted[12000:18000] = 0
    noise = 1e-3 * np.random.default_rng(0).standard_normal(32000)
    f0 = fundamental(buzzing(wanted) + noise, CONFIG)
    truth = at_frames(wanted, len(f0))
    centres = np.arange(len(f0)) * CONFIG.hop_length
    inner = np.min([np.abs(centres - edge) for edge in (0, 12000, 18000, 32000)], axis=0) > 1500
    assert ((f0 > 0) == (truth > 0))[inner].all()
    both = inner & (truth > 0)
    np.testing.assert_allclose(f0[both], truth[both], rtol=0.02)


@pytest.mark.parametrize("gain", [1.0, 1e-3])
def test_noise_and_silence_have_no_pitch_at_any_level(gain: float) -> None:
    noise = gain * np.random.default_rng(0).standard_normal(32000)
    assert (fundamental(noise, CONFIG) > 0).mean() < 0.05
    assert not fundamental(np.zeros(8000), CONFIG).any()
    voice = fundamental(gain * buzzing(np.full(16000, 150.0)), CONFIG)
    np.testing.assert_array_equal(voice > 0, fundamental(buzzing(np.full(16000, 150.0)), CONFIG) > 0)


@pytest.mark.parametrize("mains", [50, 60])
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("seed", [0, pytest.param(2, marks=pytest.mark.slow), 4])
def test_hum_does_not_move_the_register(mains: int, filtered: bool, seed: int) -> None:
    clean = speech(seed, 4.0)
    disturbed = with_hum(clean, mains)
    if filtered:
        disturbed = sosfilt(butter(4, 60, "highpass", fs=16000, output="sos"), disturbed)
    wanted, humming = (heard(samples) for samples in (clean, disturbed))
    assert wanted is not None
    assert humming is not None
    assert np.exp(wanted.mean) == pytest.approx(100 + 23 * seed, rel=0.05)
    assert humming.mean == pytest.approx(wanted.mean, abs=0.03)
    assert humming.deviation == pytest.approx(wanted.deviation, abs=0.03)


def test_quiet_frames_do_not_count_in_the_register_of_a_waveform() -> None:
    loud, quiet = buzzing(np.full(32000, 200.0)), 0.1 * buzzing(np.full(48000, 100.0))
    samples = np.concatenate([loud, quiet]).astype(np.float32)
    whole = heard(samples)
    assert whole is not None
    assert np.exp(whole.mean) == pytest.approx(200, rel=0.01)
    assert whole.frames == pytest.approx(32000 / 256, abs=4)
    assert heard(*np.split(samples, [5, 7000, 7001])) == whole
    assert heard(np.zeros(9000)) is None
    assert register_of(tracked([], 16000)) is None


def test_a_tenth_of_wrong_frames_does_not_set_the_register() -> None:
    f0 = np.exp(np.random.default_rng(0).normal(np.log(200), 0.15, 1000))
    disturbed = np.concatenate([f0, np.full(100, 60.0)])
    wanted, measured = register([f0]), register([disturbed])
    assert wanted is not None
    assert measured is not None
    assert measured.mean == pytest.approx(wanted.mean, abs=0.03)
    assert measured.deviation == pytest.approx(wanted.deviation, rel=0.3)


@pytest.mark.parametrize(("rate", "hop"), [(16000, 256), (16000, 160), (22050, 256)])
@pytest.mark.parametrize("count", [1, 255, 256, 257, 5000, 90_000])
def test_blocks_give_the_contour_of_the_whole(count: int, rate: int, hop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CHUNK", 128)
    config = MelConfig(sample_rate=rate, n_fft=1024, hop_length=hop, n_mels=20)
    draw = np.random.default_rng(count)
    wanted = np.repeat(draw.choice([0, 90, 120, 180, 240], size=count // 4000 + 1), 4000)[:count].astype(float)
    samples = (buzzing(wanted, rate) + 0.01 * draw.standard_normal(count)).astype(np.float32)
    whole = fundamental(samples, config)
    assert len(whole) == 1 + count // hop
    blocks = np.split(samples, np.sort(draw.integers(0, count, size=7)))
    parts = contour(tracked(measured(lambda: blocks, rate).blocks(), rate), count, config)
    np.testing.assert_allclose(parts, whole, rtol=1e-3)


def test_chunks_give_the_contour_of_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CHUNK", 128)
    draw = np.random.default_rng(0)
    wanted = np.repeat(draw.choice([0, 90, 120, 180, 240], size=25), 4000).astype(float)
    samples = (buzzing(wanted) + 0.01 * draw.standard_normal(len(wanted))).astype(np.float32)
    loud = pitch.GAIN * levelled(samples, 16000)
    at_once = SwiftF0(threads=1).detect(np.pad(loud, (0, 256)), 16000, pitch.LOWEST, HIGHEST)
    f0 = fundamental(samples, CONFIG)
    np.testing.assert_array_equal(f0 > 0, at_once.confidence >= pitch.VOICED)
    np.testing.assert_allclose(f0[f0 > 0], at_once.pitch_hz[f0 > 0], rtol=1e-4)


@pytest.mark.slow
def test_nothing_is_printed_and_importing_loads_no_network() -> None:
    code = (
        "import sys, numpy; from rwae_audio.data.features import MelConfig; "
        "from rwae_audio.conversion.pitch import fundamental; "
        "assert 'onnxruntime' not in sys.modules; fundamental(numpy.ones(9000), MelConfig())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_registers_of_parts_are_that_of_the_whole() -> None:
    draw = np.random.default_rng(0)
    f0 = np.where(draw.random(1000) < 0.6, np.exp(draw.normal(5, 0.2, 1000)), 0)
    logs = np.log(f0[f0 > 0])
    whole = register([f0])
    assert whole is not None
    assert whole == (len(logs), pytest.approx(logs.mean(), abs=0.03), pytest.approx(logs.std(), rel=0.1))
    assert register(np.split(f0, [3, 400, 401])) == whole
    assert pooled([whole, whole]) == pytest.approx((2 * whole.frames, whole.mean, whole.deviation))
    assert register([np.zeros(10)]) is None
    assert register([np.array([0.0, 100.0])]) is None
    assert register([]) is None
    assert pooled([]) is None


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
    lively = register([moved(trembling, own, Register(500, np.log(200), 0.2))])
    assert lively is not None
    assert lively.deviation == pytest.approx(pitch.MAX_FACTOR * own.deviation, rel=1e-3)
    hardly = register([moved(trembling, own, Register(pitch.MIN_FRAMES - 1, np.log(200), 0.2))])
    assert hardly is not None
    assert hardly.deviation == pytest.approx(own.deviation, rel=1e-3)
    assert hardly.mean == pytest.approx(np.log(200))
