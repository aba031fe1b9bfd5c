"""Frames against librosa and closed forms; the normaliser against numpy; pauses against hand labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from made_up import speech

from rwae_audio.data import features
from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora.timit import read_timit
from rwae_audio.data.features import (
    PRESETS,
    MelConfig,
    Normaliser,
    log_mel,
    log_mel_chunks,
    mel_filters,
    non_speech_mask,
)
from rwae_audio.data.level import levelled
from rwae_audio.files import InputError

SMALL = MelConfig(n_fft=256, hop_length=80, n_mels=20)
CONFIGS = {**PRESETS, "small": SMALL, "narrow": dataclasses.replace(SMALL, sample_rate=14000, n_fft=250)}


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def librosa_mel(samples: np.ndarray, config: MelConfig) -> np.ndarray:
    """Mel powers (T, n_mels), the floor put in, in float64."""
    mels = librosa.feature.melspectrogram(
        y=samples.astype(np.float64),
        sr=config.sample_rate,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        window="hann",
        center=True,
        pad_mode="reflect",
        power=config.power,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        htk=False,
        norm="slaney",
    )
    return np.maximum(mels, config.floor).T


def agrees(samples: np.ndarray, config: MelConfig, tolerance: float = 1e-3) -> None:
    got, expected = log_mel(torch.from_numpy(samples), config).numpy(), librosa_mel(samples, config)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.log(expected), rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_frames_are_librosas_on_made_sound(name: str) -> None:
    """A loud tone beside noise 60 dB below it, a click and silence."""
    time = np.arange(20000) / 16000
    sound = 0.9 * np.sin(2 * np.pi * 440 * time) * (time < 0.7) + 1e-3 * noise(20000).numpy()
    sound[16000:] = 0
    sound[18000] = 1.0
    agrees(sound.astype(np.float32), CONFIGS[name], 5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_frames_are_librosas_on_real_speech(name: str, corpora: Path) -> None:
    paths = sorted((corpora / "an4" / "wav").rglob("*.flac"))[::250]
    paths += sorted((corpora / "librispeech").rglob("*.flac"))[::150]
    paths += sorted((corpora / "timit_sample").rglob("*.wav"))[::15]
    assert len(paths) > 8
    for path in paths:
        agrees(levelled(load_audio(path)[:80000], 16000), PRESETS[name])


def test_presets_are_the_documented_ones() -> None:
    paper = {"n_fft": 400, "hop_length": 160, "spectrum": "power", "segment": 20}
    vocoder = {"n_fft": 1024, "hop_length": 256, "spectrum": "magnitude"}
    both = {"sample_rate": 16000, "n_mels": 80}
    assert (paper | both).items() <= PRESETS["paper"].to_table().items()
    assert (vocoder | both).items() <= PRESETS["vocoder"].to_table().items()
    for config in PRESETS.values():
        assert (config.win_length, config.f_min, config.f_max, config.floor) == (config.n_fft, 0.0, 8000.0, 1e-5)
    assert PRESETS["vocoder"].segment >= 40
    assert MelConfig() == PRESETS["paper"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_batch_is_its_members(name: str) -> None:
    config, batch = PRESETS[name], noise(2, 3, 30000)
    together = log_mel(batch, config)
    assert together.shape == (2, 3, 1 + 30000 // config.hop_length, 80)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(together[i, j], log_mel(batch[i, j], config), rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 16, 17, 100])
def test_how_many_frames_are_taken_at_once_is_not_heard(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = noise(40000)
    monkeypatch.setattr(features, "FRAMES", frames)
    torch.testing.assert_close(torch.cat([*log_mel_chunks([sound], SMALL)]), log_mel(sound, SMALL), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_frames_are_counted_from_sample_0(name: str) -> None:
    """T = 1 + N // hop, frame t centred on sample t · hop."""
    config, hop = PRESETS[name], PRESETS[name].hop_length
    for n in (config.shortest, 5 * hop - 1, 5 * hop, 5 * hop + 1, 16000):
        if n >= config.shortest:
            assert log_mel(noise(n), config).shape == (1 + n // hop, 80)
    click = torch.zeros(20 * hop)
    click[10 * hop] = 1.0
    assert int(log_mel(click, config).sum(dim=1).argmax()) == 10


@pytest.mark.parametrize("name", CONFIGS)
def test_under_one_window_is_refused(name: str) -> None:
    config = CONFIGS[name]
    assert config.shortest >= config.win_length
    assert torch.isfinite(log_mel(noise(config.shortest), config)).all()
    for n in (0, 1, config.shortest - 1):
        with pytest.raises(InputError, match=rf"{n} samples .* expected at least {config.shortest}"):
            log_mel(torch.zeros(n), config)


def test_silence_is_the_floor_and_loudness_a_shift() -> None:
    for config in PRESETS.values():
        assert torch.equal(log_mel(torch.zeros(16000), config).unique(), torch.tensor([config.floor]).log())
        sound = noise(16000)
        louder = log_mel(3 * sound, config) - log_mel(sound, config)
        above = log_mel(sound, config) > np.log(config.floor) + 1e-3
        expected = torch.full_like(louder[above], config.power * float(np.log(3)))
        torch.testing.assert_close(louder[above], expected, rtol=0, atol=1e-4)


def test_filters_that_hold_no_bin_are_refused() -> None:
    with pytest.raises(InputError, match=r"n_mels is 80; expected fewer, or a longer n_fft"):
        mel_filters(MelConfig(n_fft=128, hop_length=64))


@pytest.mark.parametrize("name", PRESETS)
def test_settings_go_through_a_table_and_back(name: str) -> None:
    config = PRESETS[name]
    assert MelConfig.from_table(config.to_table()) == config
    assert MelConfig.from_table({"preset": name}) == config
    changed = MelConfig.from_table({"preset": name, "n_mels": 40, "spectrum": "magnitude"})
    assert changed == dataclasses.replace(config, n_mels=40, spectrum="magnitude")
    assert MelConfig.from_table({}) == PRESETS["paper"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"hop_lenght": 1}, r"\[mel\] has no setting 'hop_lenght'; did you mean 'hop_length'\?"),
        ({"preset": "vocodr"}, r"\[mel\] preset is 'vocodr'; did you mean 'vocoder'\?"),
        ({"preset": 3}, r"\[mel\] preset is 3; expected one of paper, vocoder"),
        ({"n_mels": "many"}, r"n_mels is 'many'; expected int"),
        ({"n_mels": 0}, r"n_mels is 0; expected more than 0"),
        ({"hop_length": 401}, r"hop_length is 401; expected at most n_fft = 400"),
        ({"spectrum": "cepstrum"}, r"spectrum is 'cepstrum'; expected one of magnitude, power"),
        ({"center": False}, r"\[mel\] has no setting 'center'; expected one of "),
        ("paper", r"\[mel\] is 'paper'; expected a table of settings"),
    ],
)
def test_settings_that_do_not_fit(table: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        MelConfig.from_table(table)


def test_normaliser_is_numpys_however_it_is_read() -> None:
    frames = np.random.default_rng(0).normal(-6, [[1, 2, 3, 4]], (70000, 4)).astype(np.float32)
    whole = Normaliser.fit(frames)  # more than one chunk
    np.testing.assert_allclose(whole.mean, frames.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(whole.deviation, frames.std(0, dtype=np.float64), rtol=1e-6)
    for pieces in (torch.from_numpy(frames), [frames[:1], frames[1:999], torch.from_numpy(frames[999:])]):
        other = Normaliser.fit(pieces)
        torch.testing.assert_close(other.mean, whole.mean, rtol=1e-6, atol=0)
        torch.testing.assert_close(other.deviation, whole.deviation, rtol=1e-6, atol=0)
    normal = whole(torch.from_numpy(frames))
    torch.testing.assert_close(normal.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(normal.std(0), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(whole.inverse(normal), torch.from_numpy(frames), atol=1e-5, rtol=0)
    assert torch.equal(whole.to("cpu")(torch.from_numpy(frames)), normal)


def test_normaliser_of_a_constant_bin_stays_finite_and_of_nothing_is_refused() -> None:
    normaliser = Normaliser.fit(np.full((10, 3), -11.5))
    assert torch.isfinite(normaliser(torch.full((2, 3), -11.0))).all()
    for nothing in (np.zeros((0, 3)), []):
        with pytest.raises(InputError, match="no frames to normalise by; expected at least one"):
            Normaliser.fit(nothing)


@pytest.mark.parametrize("pause", [0.0, 1e-3])
@pytest.mark.parametrize("name", PRESETS)
def test_pauses_in_a_made_signal(name: str, pause: float) -> None:
    """Noise for speech and quieter noise, or nothing, between: only pauses are named, and most of their frames."""
    config = PRESETS[name]
    time = np.arange(48000) / 16000
    speech = (time % 1 >= 0.25) & (time % 1 < 0.75)
    sound = noise(48000) * torch.from_numpy(np.where(speech, 1.0, pause)).float()
    mask = non_speech_mask(log_mel(sound, config), config)
    reach = config.n_fft // 2
    touched = np.array([speech[max(t * config.hop_length - reach, 0) :][: 2 * reach].any() for t in range(len(mask))])
    assert mask.dtype == bool
    assert not (mask & touched).any()
    assert mask.sum() > 0.6 * (~touched).sum()


def test_without_pauses_nothing_but_silence_is_named() -> None:
    for config in PRESETS.values():
        assert not non_speech_mask(log_mel(noise(16000), config), config).any()
        assert non_speech_mask(log_mel(torch.zeros(16000), config), config).all()
        frames = log_mel(noise(16000), config)
        assert np.array_equal(non_speech_mask(frames, config), non_speech_mask(frames.numpy(), config))


@pytest.mark.parametrize("name", PRESETS)
def test_pauses_against_hand_labels(name: str, corpora: Path) -> None:
    """A frame is judged by the label at its centre. Measured on all 40 utterances: 95.7 % (paper), 94.9 % (vocoder)."""
    quiet = {"h#", "pau", "epi", "bcl", "dcl", "gcl", "pcl", "tcl", "kcl"}
    config = PRESETS[name]
    named = right = frames = 0
    for utterance in read_timit(corpora / "timit_sample", with_sa=True).utterances[::2]:
        mask = non_speech_mask(log_mel(torch.from_numpy(load_audio(utterance.path)), config), config)
        assert utterance.phones is not None
        ends = np.array([phone.end for phone in utterance.phones])
        row = np.searchsorted(ends, np.arange(len(mask)) * config.hop_length / 16000, side="right")
        labels = np.array([phone.label for phone in utterance.phones] + ["h#"])[row]
        named, frames = named + int(mask.sum()), frames + len(mask)
        right += int(np.isin(labels[mask], list(quiet)).sum())
    assert right / named > 0.93
    assert named / frames > 0.08


@pytest.mark.parametrize(
    "config",
    [
        PRESETS["paper"],
        PRESETS["vocoder"],
        MelConfig(n_fft=512, hop_length=400, n_mels=40),
    ],
)
def test_frames_of_blocks_are_those_of_the_whole(config: MelConfig) -> None:
    """Lengths around the borders of windows and hops; blocks of any size, some of them empty."""
    sound, draw = torch.from_numpy(speech(0, 1.0)), np.random.default_rng(0)
    for count in (config.shortest, 1024, 1025, 4000, 4095, 4096, 4097, len(sound)):
        cuts = np.sort(draw.integers(0, count, 9)).tolist()
        for blocks in (sound[:count].split(count), sound[:count].split(7), sound[:count].tensor_split(cuts)):
            got = torch.cat([*log_mel_chunks(blocks, config)])
            torch.testing.assert_close(got, log_mel(sound[:count], config), atol=1e-5, rtol=0)
    for blocks in ([], [sound[:0]], [sound[:100], sound[100 : config.shortest - 1]]):
        with pytest.raises(InputError, match="under one analysis window"):
            list(log_mel_chunks(blocks, config))


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        PRESETS["paper"],
        PRESETS["vocoder"],
        MelConfig(n_mels=20),
        MelConfig(sample_rate=22050, n_fft=2048),
    ],
)
def test_filters_are_librosas(config: MelConfig) -> None:
    sizes = {"sr": config.sample_rate, "n_fft": config.n_fft, "n_mels": config.n_mels}
    expected = librosa.filters.mel(**sizes, fmin=config.f_min, fmax=config.f_max)
    np.testing.assert_allclose(mel_filters(config).T.numpy(), expected, rtol=0, atol=1e-5 * expected.max())
