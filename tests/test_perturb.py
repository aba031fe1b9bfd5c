"""Perturbed frames: what changes, by how much, and what stays."""

from __future__ import annotations

import math

import pytest
import torch
from made_up import speech

from rwae_audio.data.features import PRESETS, MelConfig, bin_centres, log_mel, mel_filters
from rwae_audio.data.level import levelled
from rwae_audio.data.perturb import (
    CHANNELS,
    _noise_deviation,
    _power_sum,
    _white_noise,
    channelled,
    equalised,
    narrowed,
    reverberated,
    shuffled,
    warp_frequencies,
    warp_mels,
    warp_time,
    with_noise,
)
from rwae_audio.randomness import generator


def test_warp_stretches_the_mel_axis() -> None:
    ramp = torch.arange(8.0).expand(50, 3, 8)
    warped = warp_mels(ramp, 0.3, generator(0, "warp"))
    factor = warped[:, 0, 1]  # bin 1 now shows what stood at 1 · factor
    assert factor.min() > 0.7 - 1e-6
    assert factor.max() < 1.3 + 1e-6
    assert factor.std() > 0.1
    expected = (torch.arange(8.0) * factor[:, None]).clamp(max=7)
    torch.testing.assert_close(warped, expected[:, None].expand(50, 3, 8))


def test_another_vocal_tract_stretches_the_axis_in_hertz() -> None:
    """Bins that hold their own frequency show, at f, what stood at f times the sequence's factor."""
    mel = MelConfig()
    hertz = torch.from_numpy(bin_centres(mel)).float()
    warped = warp_frequencies(hertz.expand(50, 3, 80), 0.25, generator(0, "warp"), mel)
    factor = warped[:, 0, 20] / hertz[20]
    assert factor.min() > 0.75 - 1e-3
    assert factor.max() < 1.25 + 1e-3
    assert factor.std() > 0.1
    expected = (hertz * factor[:, None]).clamp(hertz[0], hertz[-1])
    torch.testing.assert_close(warped, expected[:, None].expand(50, 3, 80), rtol=3e-3, atol=0)


def test_a_bin_s_centre_is_where_its_filter_peaks() -> None:
    mel = MelConfig(n_fft=4096)
    peaks = mel_filters(mel).argmax(0) * mel.sample_rate / mel.n_fft
    torch.testing.assert_close(peaks.double(), torch.from_numpy(bin_centres(mel)), rtol=0, atol=2.5)


def test_another_channel_is_a_smooth_curve_that_frames_share() -> None:
    frames = torch.randn(400, 3, 80, generator=generator(0, "frames"))
    added = equalised(frames, 0.5, generator(0, "equalise")) - frames
    assert (added - added[:, :1]).abs().max() < 1e-5
    curves = added[:, 0]
    assert curves.std(0).mean().item() == pytest.approx(0.5, rel=0.1)
    assert (curves.diff(dim=1).abs().mean() < 0.2 * curves.abs().mean()).item()
    assert (torch.corrcoef(curves)[~torch.eye(400, dtype=torch.bool)].mean().abs() < 0.05).item()
    assert equalised(frames, 0.0, generator(0, "equalise")) is frames


def test_shuffled_frames_are_the_frames_in_orders_of_their_own() -> None:
    frames = torch.randn(200, 5, 3, generator=generator(0, "frames"))
    mixed = shuffled(frames, generator(0, "shuffle"))
    torch.testing.assert_close(mixed.sort(1)[0], frames.sort(1)[0], rtol=0, atol=0)
    places = (mixed[:, :, None] == frames[:, None]).all(-1).float().argmax(2)  # (200, 5): where each frame came from
    torch.testing.assert_close(torch.nn.functional.one_hot(places).double().mean(0), torch.full((5, 5), 0.2).double(),
                               rtol=0, atol=0.12)  # fmt: skip
    assert len(places.unique(dim=0)) > 80  # of 120


def test_stretched_time_keeps_its_middle() -> None:
    ramp = torch.arange(9.0)[None, :, None].expand(2, 9, 3)
    warped = warp_time(ramp, 0.4, generator(0, "time"))
    factor = 1 + 0.4 * (2 * torch.rand(2, 1, generator=generator(0, "time")) - 1)
    expected = ((torch.arange(9) - 4) * factor + 4).clamp(0, 8)
    torch.testing.assert_close(warped, expected[..., None].expand(2, 9, 3))


# ---- what recordings go through

VOCODER, PAPER = PRESETS["vocoder"], PRESETS["paper"]
BOTH = pytest.mark.parametrize("mel", [VOCODER, PAPER], ids=["vocoder", "paper"])


def voice(mel: MelConfig, count: int = 200, frames: int = 60) -> torch.Tensor:
    """The same log-mels of a voice at the nominal level, count times over: (count, frames, n_mels)."""
    log_mels = log_mel(torch.from_numpy(levelled(speech(1, 2.0), 16000)), mel)
    return log_mels[20 : 20 + frames].expand(count, frames, mel.n_mels)


@BOTH
def test_a_narrow_band_has_nothing_above_its_edge(mel: MelConfig) -> None:
    log_mels = voice(mel) + 3  # far above the floor
    narrow = narrowed(log_mels, generator(0, "band"), mel)
    lost = (log_mels - narrow)[:, 0]
    whole = (lost == 0).float().sum(1)  # bins that stay
    floored = (narrow == math.log(mel.floor))[:, 0]
    assert ((lost.diff(dim=1) >= -1e-4) | floored[:, 1:]).all()
    lowest = torch.from_numpy(bin_centres(mel)) <= 3400
    assert (lost[:, lowest] == 0).all()
    assert whole.max() == 80
    assert 0.05 < (whole == 80).float().mean() < 0.5
    assert (narrow[whole < 76][:, :, -1] == math.log(mel.floor)).all()


@BOTH
def test_white_noise_is_as_loud_as_predicted(mel: MelConfig) -> None:
    noise = log_mel(torch.randn(160000, generator=generator(0, "noise")), mel)
    error = noise.exp().log().mean(0) - _white_noise(mel)
    assert error.abs().max() < 0.7  # the mean of a logarithm is below the logarithm of the mean
    assert error.mean() < 0
    assert (noise.std(0) / _noise_deviation(mel)).log().abs().max() < 0.35


@BOTH
def test_powers_of_speech_and_noise_add_up(mel: MelConfig) -> None:
    one, other = (torch.full((1, 2, 80), value) for value in (-3.0, -3.0))
    torch.testing.assert_close(_power_sum(one, other, mel), one + math.log(2) * mel.power / 2)
    log_mels = voice(mel)
    noisy = with_noise(log_mels, generator(0, "noise"), mel)
    assert (noisy >= log_mels - 1e-4).all()
    assert ((noisy - log_mels).mean((1, 2)) > 0.01).all()
    assert (noisy - log_mels).mean((1, 2)).std() > 0.1


@BOTH
def test_reverberation_rings_on_and_keeps_a_steady_sound(mel: MelConfig) -> None:
    steady = torch.full((20, 40, 80), -2.0)
    torch.testing.assert_close(reverberated(steady, generator(0, "room"), mel), steady)
    click = torch.full((300, 40, 80), -11.0)
    click[:, 10] = 0.0
    rung = reverberated(click, generator(0, "room"), mel)[..., 0]
    assert (rung[:, :10] < -10.9).all()
    after = rung[:, 11:20]
    assert (after.diff(dim=1) <= 1e-4).all()
    seconds = mel.hop_length / mel.sample_rate
    slope = (rung[:, 12] - rung[:, 11]) * 2 / mel.power * 10 / math.log(10) / seconds  # dB a second
    audible = rung[:, 12] > -8
    assert audible.any()
    assert (slope[audible] <= -60 / 0.6 + 1).all()


@BOTH
def test_channels_depend_on_the_generator_alone_and_leave_some_sequences(mel: MelConfig) -> None:
    log_mels = voice(mel)
    first, again, other = (channelled(log_mels, [*CHANNELS], generator(seed, "channel"), mel) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.isfinite().all()
    assert 0.02 < (first == log_mels).all(2).all(1).float().mean() < 0.15  # of a half to the power of four
    assert channelled(log_mels, [], generator(0, "channel"), mel) is log_mels
