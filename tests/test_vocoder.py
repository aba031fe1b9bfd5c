"""Griffin-Lim: the sound of log-mels has these log-mels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_up import speech

from rwae_audio.conversion.vocoders.griffin_lim import OVERLAP, griffin_lim, griffin_lim_chunks, linear_spectrum
from rwae_audio.data.audio import load_audio
from rwae_audio.data.features import PRESETS, log_mel, mel_filters

BOTH = pytest.mark.parametrize("preset", ["paper", "vocoder"])


def compared(samples: torch.Tensor, preset: str) -> tuple[float, float]:
    """(mean distance of the log-mels in dB over what is within 40 dB of the loudest, change of level in dB)."""
    config = PRESETS[preset]
    wanted = log_mel(samples, config)
    sound = griffin_lim(wanted, config)
    assert sound.shape == (config.hop_length * (len(wanted) - 1),)
    got = log_mel(sound, config)
    assert got.shape == wanted.shape
    in_db = 20 / config.power / torch.log(torch.tensor(10.0))
    audible = in_db * (wanted - wanted.max()) > -40
    level = 20 * torch.log10(sound.square().mean().sqrt() / samples[: len(sound)].square().mean().sqrt())
    return float((in_db * (got - wanted)[audible]).abs().mean()), float(level)


@BOTH
def test_log_mels_come_back(preset: str) -> None:
    distance, level = compared(torch.from_numpy(speech(0, 1.5)), preset)
    assert distance < 1.5
    assert abs(level) < 1


@BOTH
def test_log_mels_of_real_speech_come_back(preset: str, corpora: Path) -> None:
    recording = next((corpora / "timit_sample/timit").glob("*/sx*.wav"))
    distance, level = compared(torch.from_numpy(load_audio(recording)[:32000]), preset)
    assert distance < 1.5
    assert abs(level) < 1


@BOTH
def test_silence_stays_silent(preset: str) -> None:
    """All of it, and a silent half beside speech (but for the windows that reach over)."""
    config = PRESETS[preset]
    assert not griffin_lim(log_mel(torch.zeros(8000), config), config).any()
    frames = log_mel(torch.cat([torch.zeros(16000), torch.from_numpy(speech(1))]), config)
    sound = griffin_lim(frames, config)
    assert sound[: 16000 - 2 * config.n_fft].abs().max() < 1e-3 * sound.abs().max()


@BOTH
def test_the_seed_alone_decides(preset: str) -> None:
    config = PRESETS[preset]
    frames = log_mel(torch.from_numpy(speech(0, 0.5)), config)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = griffin_lim(frames, config, iterations=4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(griffin_lim(frames, config, iterations=4), first)
    assert not torch.equal(griffin_lim(frames, config, iterations=4, seed=1), first)


@BOTH
def test_the_shortest_recording_has_a_sound(preset: str) -> None:
    config = PRESETS[preset]
    frames = log_mel(torch.from_numpy(speech(0)[5000 : 5000 + config.shortest]), config)
    sound = griffin_lim(frames, config)
    assert len(sound) == config.hop_length * (len(frames) - 1)
    assert torch.isfinite(sound).all()


@BOTH
def test_more_rounds_are_no_worse(preset: str) -> None:
    config = PRESETS[preset]
    frames = log_mel(torch.from_numpy(speech(0, 0.5)), config)
    errors = [
        float((log_mel(griffin_lim(frames, config, iterations=n), config) - frames).square().mean()) for n in (1, 32)
    ]
    assert errors[1] < errors[0]


@BOTH
def test_the_linear_spectrum_has_these_mels_and_no_negative(preset: str) -> None:
    config = PRESETS[preset]
    filters = mel_filters(config).T
    truth = torch.rand(7, filters.shape[1])
    linear = linear_spectrum(truth @ filters.T, config)
    assert bool((linear >= 0).all())
    torch.testing.assert_close(linear @ filters.T, truth @ filters.T, rtol=0.1, atol=1e-4)


@BOTH
def test_chunks_join_without_a_seam(preset: str) -> None:
    """Log-mels around the joins come back nearly as well as elsewhere, in frames that are not louder or softer."""
    config = PRESETS[preset]
    wanted = log_mel(torch.from_numpy(speech(0, 2.5)), config)
    pieces = wanted.split(33)
    sound = torch.cat([*griffin_lim_chunks(pieces, config, size=60)])
    whole = griffin_lim(wanted, config)
    assert sound.shape == whole.shape
    joins = torch.cat([torch.arange(k - OVERLAP, k) for k in range(60, len(wanted) - OVERLAP, 60)])
    errors = [(log_mel(x, config) - wanted)[joins] for x in (sound, whole)]
    assert errors[0].abs().mean() < errors[1].abs().mean() + 0.06
    assert abs(float(errors[0].mean() - errors[1].mean())) < 0.1
    assert torch.equal(torch.cat([*griffin_lim_chunks(pieces, config, size=len(wanted) - OVERLAP + 1)]), whole)
    assert torch.equal(torch.cat([*griffin_lim_chunks(pieces, config, size=60)]), sound)
    assert not torch.cat([*griffin_lim_chunks([torch.full((99, 80), -20.0)], config, size=40)]).any()
