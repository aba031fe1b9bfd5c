"""The front end: one level, no offset and no rumble, whatever the recording's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import speech
from scipy.signal import butter, sosfilt, sosfilt_zi

from rwae_audio.data.audio import open_audio
from rwae_audio.data.features import PRESETS
from rwae_audio.data.level import (
    NOMINAL,
    LevelMeter,
    active_power,
    high_passed,
    levelled,
    measured,
    speech_of,
    waveform,
)
from rwae_audio.files import InputError

RATE = 16000


def nominal(samples: np.ndarray) -> np.ndarray:
    return levelled(samples, RATE)


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE).astype(np.float32)


def decibels(ratio: float) -> float:
    return 20 * np.log10(ratio)


def test_the_high_pass_is_scipys_butterworth() -> None:
    samples = 0.3 + 0.1 * np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    sections = butter(4, 60, "highpass", fs=RATE, output="sos")
    expected, _ = sosfilt(sections, samples, zi=sosfilt_zi(sections) * samples[0])
    np.testing.assert_allclose(np.concatenate([*high_passed([samples], RATE)]), expected, atol=1e-5)


def test_the_high_pass_does_not_hear_where_blocks_end() -> None:
    samples = 0.3 + speech(0)
    whole = np.concatenate([*high_passed([samples], RATE)])
    parts = np.split(samples, [1, 8, 5000, 5000, 5003])
    np.testing.assert_allclose(np.concatenate([*high_passed(parts, RATE)]), whole, atol=1e-7)


def test_the_high_pass_does_not_clip() -> None:
    loudest = np.abs(nominal(1000 * tone(1000))[RATE // 2 :]).max()
    np.testing.assert_allclose(loudest, np.sqrt(2) * 10 ** (NOMINAL / 20), rtol=0.02)


@pytest.mark.parametrize(
    ("hertz", "least", "most"), [(10, -1000, -50), (30, -1000, -20), (85, -2, 0), (200, -0.1, 0.1)]
)
def test_rumble_goes_and_voices_stay(hertz: float, least: float, most: float) -> None:
    before = tone(hertz, 3)
    after = np.concatenate([*high_passed([before], RATE)])[RATE:]
    assert least <= decibels(np.std(after) / np.std(before)) <= most


def test_the_active_level_is_that_of_the_tone_and_not_of_its_pauses() -> None:
    sound = np.concatenate([np.zeros(5 * RATE, np.float32), 0.1 * tone(1000, 2), np.zeros(3 * RATE, np.float32)])
    level = speech_of(sound, RATE).level
    assert level.active == pytest.approx(0.1 / np.sqrt(2), rel=0.01)
    assert level.peak == pytest.approx(0.1, rel=0.1)
    assert level.count == len(sound)
    noisy = sound + 1e-3 * np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
    assert speech_of(noisy, RATE).level.active == pytest.approx(level.active, rel=0.01)


def test_pauses_are_found_by_hand() -> None:
    """Mean 25.75, gate 2.575: 1 is a pause; then mean 34, gate 3.4: 2 … are all louder."""
    assert active_power(np.array([100.0, 1.0, 1.0, 1.0])) == 100
    assert active_power(np.array([8.0, 4.0, 2.0, 2.0])) == 4
    assert active_power(np.zeros(3)) == 0


@pytest.mark.parametrize("seconds", [0.5, 4.0])
@pytest.mark.parametrize("gain", [0.01, 1.0, 3.16, 20000.0])
def test_any_recording_comes_out_at_one_level(gain: float, seconds: float) -> None:
    sound = speech(1, seconds)
    np.testing.assert_allclose(nominal(np.float32(gain) * sound + np.float32(0.1 * gain)), nominal(sound), atol=2e-4)
    assert decibels(speech_of(nominal(sound), RATE).level.active) == pytest.approx(NOMINAL, abs=0.1)


def test_a_meter_hears_blocks_as_the_whole() -> None:
    sound, whole, parts = speech(2), LevelMeter(RATE), LevelMeter(RATE)
    whole.add(sound)
    for part in np.array_split(sound, 37):
        parts.add(part)
    assert parts.level.active == pytest.approx(whole.level.active, rel=1e-6)
    assert (parts.level.count, parts.level.peak) == (whole.level.count, whole.level.peak)
    assert LevelMeter(RATE).level.silent


@pytest.mark.parametrize("silence", [np.zeros(9000), np.full(9000, 0.3), 0.3 + 5e-5 * tone(500)])
def test_silence_with_any_offset_is_silent_and_not_amplified(silence: np.ndarray) -> None:
    recording = speech_of(silence.astype(np.float32), RATE)
    assert recording.level.silent
    assert recording.level.gain == 1.0
    assert np.abs(nominal(silence.astype(np.float32))).max() < 1e-4


@pytest.mark.parametrize("preset", ["paper", "vocoder"])
def test_log_mels_of_blocks_are_those_of_the_whole(preset: str) -> None:
    sound = speech(3, 3.0)
    whole = torch.cat([*speech_of(sound, RATE).log_mels(PRESETS[preset])])
    parts = measured(lambda: np.array_split(sound, 11), RATE)
    torch.testing.assert_close(torch.cat([*parts.log_mels(PRESETS[preset])]), whole, atol=1e-4, rtol=0)


def test_a_waveform_is_taken_at_its_types_full_scale() -> None:
    for kind, loudest, scale in ((np.int16, 32767, 32768), (np.int32, 2**30, 2**31), (np.int8, -128, 128)):
        assert waveform(np.array([0, loudest], dtype=kind), "x") == pytest.approx([0, loudest / scale])
    assert waveform(np.array([0, 128, 255], dtype=np.uint8), "x") == pytest.approx([-1, 0, 127 / 128])
    assert waveform(torch.tensor([[0.5, -0.5]], requires_grad=True), "x").tolist() == [0.5, -0.5]
    assert waveform(np.array([1e300, 1.0]) / 1e300, "x").dtype == np.float32


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 9)), np.zeros(0), np.array([1, np.nan]), np.array([np.inf, 1]), np.array([1, 2]), ["a"], [1j]],
)
def test_what_is_no_waveform_is_refused_by_its_name(wrong: object) -> None:
    with pytest.raises(InputError, match="the-argument"):
        waveform(wrong, "the-argument")  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["an4/wav/**/*.flac", "librispeech/**/*.flac", "speechocean762/**/*.opus"])
@pytest.mark.parametrize(
    "change", [lambda x: 0.01 * x, lambda x: 3.16 * x, lambda x: x + 0.1], ids=["-40", "+10", "DC"]
)
def test_real_voices_do_not_hear_level_and_offset(
    pattern: str, change: Callable[[np.ndarray], np.ndarray], corpora: Path
) -> None:
    files = sorted(corpora.glob(pattern))
    assert files
    for path in files[:: len(files) // 4]:
        recording = open_audio(path)
        plain = measured(recording.blocks, RATE)
        other = measured(lambda: map(change, recording.blocks()), RATE)  # noqa: B023 (read at once)
        frames = [torch.cat([*part.log_mels(PRESETS["vocoder"])]) for part in (plain, other)]
        assert (frames[0] - frames[1]).abs().mean() < 0.01
