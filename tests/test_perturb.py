"""Perturbed frames: what changes, by how much, and what stays."""

from __future__ import annotations

import pytest
import torch

from rwae_audio.features import MelConfig, bin_centres, mel_filters
from rwae_audio.perturb import equalised, shuffled, warp_frequencies, warp_mels, warp_time
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
    mel = MelConfig(n_fft=4096, win_length=400)
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
