"""Waveform to waveform: the source's length, the target's voice, silence for silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from made_up import speech, tiny_bundle

from rwae_audio.conversion import pitch
from rwae_audio.conversion.converter import convert_file, convert_waveform, register_of_file, voice_of_file
from rwae_audio.conversion.pitch import fundamental, moved, pooled, register, register_of
from rwae_audio.conversion.vocoders import neural as neural_vocoder
from rwae_audio.conversion.vocoders.griffin_lim import griffin_lim
from rwae_audio.conversion.vocoders.neural import Vocoder, VocoderConfig, vocode
from rwae_audio.data import audio
from rwae_audio.data.audio import load_audio
from rwae_audio.data.features import PRESETS
from rwae_audio.data.level import Level, active_level, speech_of
from rwae_audio.files import InputError
from rwae_audio.inference import streaming
from rwae_audio.inference.bundle import Bundle, load_bundle


def level(samples: np.ndarray) -> Level:
    return speech_of(samples, 16000).level


def active(samples: np.ndarray) -> float:
    return active_level(samples, 16000)


@pytest.fixture(scope="module", params=["paper", "vocoder"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle") / "b", request.param))


@pytest.mark.parametrize("count", [1024, 8000, 12345])
def test_the_length_is_the_sources(bundle: Bundle, count: int) -> None:
    sound = convert_waveform(bundle, speech(0)[-count:], [speech(1)])
    assert sound.shape == (count,)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert not level(sound).silent


def test_it_is_the_vocoders_sound_of_the_converted_frames(bundle: Bundle) -> None:
    source, target, more = speech(0, 0.5), speech(1, 0.6), speech(2, 0.7)
    frames = bundle.convert(bundle.frames(source), bundle.frames(target), bundle.frames(more))
    expected = griffin_lim(frames, bundle.config.mel, seed=3).numpy()
    sound = convert_waveform(bundle, source, [target, more], seed=3)
    gain = level(source).active / active(np.pad(expected, (0, len(source) - len(expected))))
    np.testing.assert_allclose(sound[: len(expected)], gain * expected, rtol=0, atol=1e-3 * sound.max())
    assert active(sound) == pytest.approx(level(source).active, rel=1e-4)
    assert not sound[len(expected) :].any()
    assert np.array_equal(convert_waveform(bundle, source, [target, more], seed=3), sound)
    assert not np.array_equal(convert_waveform(bundle, source, [target], seed=3), sound)


def test_a_silent_source_gives_silence_of_its_length(bundle: Bundle) -> None:
    hum = 5e-5 * np.sin(np.arange(9000, dtype=np.float32))
    offset = np.full(9000, 0.1, dtype=np.float32)
    for quiet in (np.zeros(9000, dtype=np.float32), hum, offset):
        sound = convert_waveform(bundle, quiet, [speech(1)])
        assert sound.shape == (9000,)
        assert not sound.any()


@pytest.mark.parametrize("gain", [0.01, 3.0])
def test_a_conversion_is_as_loud_as_its_source_and_else_the_same(bundle: Bundle, gain: float) -> None:
    source, target = speech(0), speech(1)
    sound = convert_waveform(bundle, source, [target])
    other = convert_waveform(bundle, gain * source + 0.1, [target / 50 - 0.05])
    np.testing.assert_allclose(other, gain * sound, atol=3e-2 * gain * np.abs(sound).max())


def test_waveforms_are_taken_as_they_come(bundle: Bundle) -> None:
    source, target = speech(0), speech(1)
    expected = convert_waveform(bundle, source, [target])
    integers = np.round(source * 32768).astype(np.int16)
    for other in (torch.from_numpy(source), source[None], source[:, None], source.astype(np.float64)):
        np.testing.assert_array_equal(convert_waveform(bundle, other, [torch.from_numpy(target)]), expected)
    rounded = convert_waveform(bundle, (integers / 32768).astype(np.float32), [target])
    np.testing.assert_array_equal(convert_waveform(bundle, integers, [target]), rounded)
    twice = np.repeat(source, 2)
    assert len(convert_waveform(bundle, twice, [np.repeat(target, 2)], sample_rate=32000)) == len(source)


def test_what_is_no_speech_is_an_error_that_names_the_argument(bundle: Bundle) -> None:
    good, wrong = speech(0), speech(1)
    wrong[100] = np.nan
    stereo = np.stack([good, good])
    for source, targets, name in (
        (good[:300], [good], "source"),
        (good, [good, good[:300]], r"targets\[1\]"),
        (np.zeros(0), [good], "source"),
        (wrong, [good], "source has nan at sample 100"),
        (good, [wrong], r"targets\[0\] has nan"),
        (stereo, [good], "source has shape"),
        (good > 0, [good], "source has samples of type bool"),
        (good.astype(np.int64), [good], "source has samples of type int64"),
        (good, [], "targets"),
        (good, [good, np.zeros(9000)], r"targets\[1\] is silent"),
    ):
        with pytest.raises(InputError, match=name):
            convert_waveform(bundle, source, targets)
    with pytest.raises(InputError, match="sample_rate is 0"):
        convert_waveform(bundle, good, [good], sample_rate=0)


def test_the_inputs_and_the_generator_are_left_alone(bundle: Bundle) -> None:
    source, target = speech(0, 0.5), speech(1, 0.5)
    kept, state = source.copy(), torch.get_rng_state()
    convert_waveform(bundle, source, [target])
    assert np.array_equal(source, kept)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_file_in_blocks_and_chunks_is_the_waveform(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 48 kHz and two channels, some seconds: frames in several chunks, blocks whose ends fall anywhere."""
    sound, target = speech(0, 5.0, 48000), speech(1, 1.5)
    soundfile.write(tmp_path / "a.wav", np.stack([sound, sound], 1), 48000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", target, 16000, subtype="FLOAT")
    expected = convert_waveform(bundle, load_audio(tmp_path / "a.wav"), [target], seed=2)
    monkeypatch.setattr(audio, "BLOCK", 7001)
    monkeypatch.setattr(streaming, "CHUNK", 100)
    voice, frames = voice_of_file(bundle, tmp_path / "b.wav")
    torch.testing.assert_close(voice, bundle.voice(bundle.frames(target)))
    assert frames == len(bundle.frames(target))
    made = convert_file(bundle, tmp_path / "a.wav", tmp_path / "new/out.wav", voice, seed=2)
    assert (made.seconds, made.source_rate, made.level.silent, made.gain) == (5.0, 48000, False, 1.0)
    got = load_audio(tmp_path / "new/out.wav")
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=0.02 * np.abs(expected).max())


# ---- the neural vocoder


@pytest.fixture(scope="module")
def neural(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Vocoder]:
    torch.manual_seed(0)
    folder = tiny_bundle(tmp_path_factory.mktemp("bundle") / "b", "vocoder")
    return load_bundle(folder), Vocoder(VocoderConfig(width=16, blocks=2)).eval()


def test_the_neural_sound_is_that_of_the_converted_frames_at_the_targets_pitch(neural: tuple[Bundle, Vocoder]) -> None:
    bundle, vocoder = neural
    mel = bundle.config.mel
    source, targets = speech(0, 1.2), [speech(3, 1.0), speech(3, 1.1)]
    frames = bundle.convert(bundle.frames(source), *(bundle.frames(target) for target in targets))
    f0 = fundamental(source, mel)
    own, *theirs = (register_of(speech_of(part, 16000).blocks(), mel) for part in (source, *targets))
    other = pooled(theirs)
    assert own is not None
    assert other is not None
    assert other.mean > own.mean + 0.2
    for kind, contour in (("target", moved(f0, own, other)), ("keep", f0)):
        expected = vocode(vocoder, frames, torch.from_numpy(contour).float(), seed=3).numpy()
        sound = convert_waveform(bundle, source, targets, 3, vocoder, kind)
        gain = level(source).active / active(expected)
        np.testing.assert_allclose(sound[: len(expected)], gain * expected, rtol=0, atol=1e-3)
        assert len(sound) == len(source)
        heard = register([fundamental(sound, mel)])
        assert heard is not None
        wanted = other if kind == "target" else own
        assert heard.mean == pytest.approx(wanted.mean, abs=0.1)


def test_a_voice_into_itself_is_its_reconstruction_at_its_own_pitch(neural: tuple[Bundle, Vocoder]) -> None:
    bundle, vocoder = neural
    source = speech(2, 1.0)
    both = [convert_waveform(bundle, source, [source], 0, vocoder, kind) for kind in ("target", "keep")]
    np.testing.assert_allclose(both[0], both[1], atol=1e-3 * np.abs(both[1]).max())


def test_a_target_or_a_source_without_a_pitch_leaves_the_contour_alone(neural: tuple[Bundle, Vocoder]) -> None:
    bundle, vocoder = neural
    hiss = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert register([fundamental(hiss[:2000], bundle.config.mel)]) is None
    for source, target in ((speech(1), hiss[:2000]), (hiss[:2000], speech(1))):
        both = [convert_waveform(bundle, source, [target], 0, vocoder, kind) for kind in ("target", "keep")]
        np.testing.assert_array_equal(*both)
    assert not convert_waveform(bundle, np.zeros(9000, np.float32), [speech(1)], 0, vocoder).any()


def test_a_vocoder_of_other_frames_is_refused(neural: tuple[Bundle, Vocoder], bundle: Bundle, tmp_path: Path) -> None:
    other = Vocoder(VocoderConfig(mel=PRESETS["paper"], width=16, blocks=2)).eval()
    with pytest.raises(InputError, match="reads other frames"):
        convert_waveform(neural[0], speech(0), [speech(1)], 0, other)
    soundfile.write(tmp_path / "a.wav", speech(0), 16000)
    with pytest.raises(InputError, match="reads other frames"):
        convert_file(neural[0], tmp_path / "a.wav", tmp_path / "o.wav", torch.zeros(4), 0, other)
    with pytest.raises(InputError, match="pitch is 'Target'"):
        convert_waveform(*neural[:1], speech(0), [speech(1)], 0, neural[1], "Target")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_file_through_the_neural_vocoder_in_chunks_is_the_waveform(
    neural: tuple[Bundle, Vocoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, vocoder = neural
    source, target = np.concatenate([speech(seed, 1.5) for seed in range(4)]), speech(5, 1.5)
    soundfile.write(tmp_path / "a.wav", source, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", target, 16000, subtype="FLOAT")
    expected = convert_waveform(bundle, source, [target], 2, vocoder)
    monkeypatch.setattr(audio, "BLOCK", 7001)
    for module in (streaming, pitch, neural_vocoder):
        monkeypatch.setattr(module, "CHUNK", 100)
    voice, _ = voice_of_file(bundle, tmp_path / "b.wav")
    wanted = register_of_file(bundle, tmp_path / "b.wav")
    convert_file(bundle, tmp_path / "a.wav", tmp_path / "out.wav", voice, 2, vocoder, wanted)
    np.testing.assert_allclose(load_audio(tmp_path / "out.wav"), expected, atol=2e-3)
    assert bundle.config.mel == PRESETS["vocoder"]
