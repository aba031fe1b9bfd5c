"""Waveform to waveform: the source's length, the target's voice, silence for silence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from made_up import speech, tiny_bundle
from torch import nn

from rwae_audio.conversion.converter import BEYOND, Converter
from rwae_audio.conversion.pitch import Register, fundamental, moved, pooled, register, register_of, tracked
from rwae_audio.conversion.vocoders.griffin_lim import GriffinLim, griffin_lim
from rwae_audio.conversion.vocoders.neural import Vocoder, VocoderConfig, vocode
from rwae_audio.conversion.voice import Filters, Voice, between
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


def converted(bundle: Bundle, source: np.ndarray, targets: list, seed: int = 0, vocoder=None, pitch: str = "target"):
    """Say a source in the voice of targets, all at 16 kHz; by Griffin-Lim without a vocoder."""
    converter = Converter(bundle, vocoder or GriffinLim(bundle.config.mel))
    return converter.convert(source, 16000, converter.voice(targets, 16000), pitch=pitch, seed=seed)


@pytest.mark.parametrize("count", [1024, 8000, 12345])
def test_the_length_is_the_sources(bundle: Bundle, count: int) -> None:
    sound = converted(bundle, speech(0)[-count:], [speech(1)])
    assert sound.shape == (count,)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert not level(sound).silent


def test_it_is_the_vocoders_sound_of_the_converted_frames(bundle: Bundle) -> None:
    source, target, more = speech(0, 0.5), speech(1, 0.6), speech(2, 0.7)
    frames = bundle.convert(bundle.frames(source), bundle.frames(target), bundle.frames(more))
    beyond = BEYOND * (frames.mean(0) - bundle.reconstruct(bundle.frames(source)).mean(0))
    expected = griffin_lim(frames + beyond, bundle.config.mel, seed=3).numpy()
    sound = converted(bundle, source, [target, more], seed=3)
    gain = level(source).active / active(np.pad(expected, (0, len(source) - len(expected))))
    np.testing.assert_allclose(sound[: len(expected)], gain * expected, rtol=0, atol=1e-3 * sound.max())
    assert active(sound) == pytest.approx(level(source).active, rel=1e-4)
    assert not sound[len(expected) :].any()
    assert np.array_equal(converted(bundle, source, [target, more], seed=3), sound)
    assert not np.array_equal(converted(bundle, source, [target], seed=3), sound)


def test_a_silent_source_gives_silence_of_its_length(bundle: Bundle) -> None:
    hum = 5e-5 * np.sin(np.arange(9000, dtype=np.float32))
    offset = np.full(9000, 0.1, dtype=np.float32)
    for quiet in (np.zeros(9000, dtype=np.float32), hum, offset):
        sound = converted(bundle, quiet, [speech(1)])
        assert sound.shape == (9000,)
        assert not sound.any()


@pytest.mark.parametrize("gain", [0.01, 3.0])
def test_a_conversion_is_as_loud_as_its_source_and_else_the_same(bundle: Bundle, gain: float) -> None:
    source, target = speech(0, 2.0), speech(1)
    sound = converted(bundle, source, [target])
    other = converted(bundle, gain * source + 0.1, [target / 50 - 0.05])
    np.testing.assert_allclose(other, gain * sound, atol=3e-2 * gain * np.abs(sound).max())


def test_waveforms_are_taken_as_they_come(bundle: Bundle) -> None:
    source, target = speech(0), speech(1)
    converter = Converter(bundle, GriffinLim(bundle.config.mel))
    voice = converter.voice(torch.from_numpy(target), 16000)
    expected = converter.convert(source, 16000, voice)
    np.testing.assert_array_equal(converter.convert(source[:, None], 16000, voice), expected)
    np.testing.assert_array_equal(converter.convert(source.astype(np.float64), 16000, voice), expected)
    tensor = converter.convert(torch.from_numpy(source), 16000, voice)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    integers = np.round(source * 32768).astype(np.int16)
    rounded = converter.convert((integers / 32768).astype(np.float32), 16000, voice)
    np.testing.assert_array_equal(converter.convert(integers, 16000, voice), rounded)
    assert len(converter.convert(np.repeat(source, 2), 32000, converter.voice([np.repeat(target, 2)], 32000))) == len(
        source
    )


def test_a_batch_is_its_rows(bundle: Bundle) -> None:
    converter = Converter(bundle, GriffinLim(bundle.config.mel))
    voice = converter.voice(speech(1), 16000)
    batch = np.stack([speech(0, 0.5), speech(2, 0.5)])
    expected = np.stack([converter.convert(row, 16000, voice, seed=3) for row in batch])
    np.testing.assert_array_equal(converter.convert(batch, 16000, voice, seed=3), expected)
    tensor = converter.convert(torch.from_numpy(batch), 16000, voice, seed=3)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    assert converter.convert(batch[:1], 16000, voice).shape == (1, len(batch[0]))


@pytest.mark.slow
def test_threads_may_share_a_converter(neural: tuple[Bundle, Vocoder]) -> None:
    sources = [speech(i, 0.5 + 0.1 * i) for i in range(6)]
    for vocoder in (neural[1], GriffinLim(neural[0].config.mel)):
        converter = Converter(neural[0], vocoder)
        voice = converter.voice(speech(7), 16000)

        def sound(source: np.ndarray, converter: Converter = converter, voice: Voice = voice) -> np.ndarray:
            return converter.convert(source, 16000, voice)

        expected = [sound(source) for source in sources]
        with ThreadPoolExecutor(4) as pool:
            for first, second in zip(pool.map(sound, sources), expected, strict=True):
                np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_saved_voice_is_the_voice(neural: tuple[Bundle, Vocoder], tmp_path: Path) -> None:
    converter = Converter(*neural)
    voice = converter.voice([speech(1), speech(3)], 16000)
    assert voice.register is not None
    converter.save_voice(tmp_path / "v.safetensors", voice)
    loaded = converter.load_voice(tmp_path / "v.safetensors")
    torch.testing.assert_close(loaded.code, voice.code)
    assert loaded.frames == voice.frames
    assert loaded.register == pytest.approx(voice.register)
    source = speech(0, 0.6)
    np.testing.assert_allclose(
        converter.convert(source, 16000, loaded), converter.convert(source, 16000, voice), atol=1e-4
    )
    with pytest.raises(InputError, match="codes of bundle"):
        Converter(replace(neural[0], digest="0" * 64)).load_voice(tmp_path / "v.safetensors")


def test_a_voice_of_files_is_that_of_their_waveforms(bundle: Bundle, tmp_path: Path) -> None:
    converter = Converter(bundle, GriffinLim(bundle.config.mel))
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for i, path in enumerate(paths):
        soundfile.write(path, speech(i), 16000, subtype="FLOAT")
    voice = converter.voice(paths)
    torch.testing.assert_close(voice.code, converter.voice([speech(0), speech(1)], 16000).code)
    torch.testing.assert_close(voice.code, bundle.voice(bundle.frames(speech(0)), bundle.frames(speech(1))))
    torch.testing.assert_close(converter.voice(str(paths[0])).code, converter.voice(speech(0), 16000).code)


def test_a_recording_is_decoded_once(
    neural: tuple[Bundle, Vocoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, blocks = [], audio.Recording.blocks
    monkeypatch.setattr(audio.Recording, "blocks", lambda self: decoded.append(self.path.name) or blocks(self))
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", speech(ord(name)), 16000)
    converter = Converter(*neural)
    voice = converter.voice(tmp_path / "b.wav")
    converter.convert_file(tmp_path / "a.wav", tmp_path / "o.wav", voice)
    assert decoded == ["b.wav", "a.wav"]


def test_what_is_no_speech_is_an_error_that_names_the_argument(bundle: Bundle) -> None:
    good, wrong = speech(0), speech(1)
    wrong[100] = np.nan
    converter = Converter(bundle, GriffinLim(bundle.config.mel))
    voice = converter.voice(good, 16000)
    for source, expected in (
        (good[:300], "waveform is 19 ms long"),
        (np.zeros(0), "waveform"),
        (wrong, "waveform has nan at sample 100"),
        (good[None, None], "waveform has shape"),
        (good > 0, "waveform has samples of type bool"),
        (good.astype(np.int64), "waveform has samples of type int64"),
    ):
        with pytest.raises(InputError, match=expected):
            converter.convert(source, 16000, voice)
    for targets, expected in (
        ([good, good[:300]], r"recordings\[1\]"),
        ([wrong], "recording has nan"),
        (np.stack([good, good]), "recording has shape"),
        ([], "recordings is empty"),
        ([good, np.zeros(9000)], r"recordings\[1\] is silent"),
    ):
        with pytest.raises(InputError, match=expected):
            converter.voice(targets, 16000)
    for rate in (0, 16000.5, None):
        with pytest.raises(InputError, match=f"sample_rate is {rate}"):
            converter.convert(good, rate, voice)
    with pytest.raises(InputError, match="sample_rate is None"):
        converter.voice(good)


def test_the_inputs_and_the_generator_are_left_alone(bundle: Bundle) -> None:
    source, target = speech(0, 0.5), speech(1, 0.5)
    kept, state = source.copy(), torch.get_rng_state()
    converted(bundle, source, [target])
    assert np.array_equal(source, kept)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_a_file_in_blocks_and_chunks_is_the_waveform(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 48 kHz and two channels, some seconds: frames in several chunks, blocks whose ends fall anywhere."""
    sound, target = speech(0, 5.0, 48000), speech(1, 1.5)
    soundfile.write(tmp_path / "a.wav", np.stack([sound, sound], 1), 48000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", target, 16000, subtype="FLOAT")
    expected = converted(bundle, load_audio(tmp_path / "a.wav"), [target], seed=2)
    monkeypatch.setattr(audio, "BLOCK", 7001)
    monkeypatch.setattr(streaming, "CHUNK", 100)
    converter = Converter(bundle, GriffinLim(bundle.config.mel))
    voice = converter.voice(tmp_path / "b.wav")
    torch.testing.assert_close(voice.code, bundle.voice(bundle.frames(target)))
    assert voice.frames == len(bundle.frames(target))
    made = converter.convert_file(tmp_path / "a.wav", tmp_path / "new/out.wav", voice, seed=2)
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
    frames = frames + BEYOND * (frames.mean(0) - bundle.reconstruct(bundle.frames(source)).mean(0))
    f0 = fundamental(source, mel)
    own, *theirs = (register_of(tracked(speech_of(part, 16000).blocks(), 16000)) for part in (source, *targets))
    other = pooled(theirs)
    assert own is not None
    assert other is not None
    assert other.mean > own.mean + 0.2
    for kind, contour in (("target", moved(f0, own, other)), ("keep", f0)):
        expected = vocode(vocoder, frames, torch.from_numpy(contour).float(), seed=3).numpy()
        sound = converted(bundle, source, targets, 3, vocoder, kind)
        gain = level(source).active / active(expected)
        np.testing.assert_allclose(sound[: len(expected)], gain * expected, rtol=0, atol=1e-3)
        assert len(sound) == len(source)
        heard = register([fundamental(sound, mel)])
        assert heard is not None
        wanted = other if kind == "target" else own
        assert heard.mean == pytest.approx(wanted.mean, abs=0.1)


def test_the_vocoder_knows_the_voice_of_the_target(neural: tuple[Bundle, Vocoder]) -> None:
    """With the filters of an adapted voice as well."""
    bundle, _ = neural
    vocoder = Vocoder(VocoderConfig(width=16, blocks=1, voice=bundle.config.model.static_dim)).eval()
    nn.init.normal_(vocoder.network.constant.weight)
    vocoder.bundle, vocoder.digest = bundle.digest, "v1"
    converter, head = Converter(bundle, vocoder), vocoder.network.head
    voice = converter.voice(speech(3, 1.0), 16000)
    filters = Filters("v1", head.weight.detach(), head.bias.detach())
    for one in (voice, voice._replace(filters=filters)):
        assert torch.equal(converter.vocoder_of(one).voice, voice.code[None])
    sound, other = (converter.convert(speech(0), 16000, one) for one in (voice, voice._replace(code=-voice.code)))
    vocoder.bundle = "of another bundle"
    without = converter.convert(speech(0), 16000, voice)
    assert converter.vocoder_of(voice).voice is None
    assert not np.allclose(sound, without, rtol=0, atol=0.1 * np.abs(sound).max())
    assert not np.allclose(sound, other, rtol=0, atol=0.1 * np.abs(sound).max())


def test_a_voice_into_itself_is_its_reconstruction_at_its_own_pitch(neural: tuple[Bundle, Vocoder]) -> None:
    bundle, vocoder = neural
    source = speech(2, 1.0)
    both = [converted(bundle, source, [source], 0, vocoder, kind) for kind in ("target", "keep")]
    np.testing.assert_allclose(both[0], both[1], atol=1e-3 * np.abs(both[1]).max())


def test_a_target_or_a_source_without_a_pitch_leaves_the_contour_alone(neural: tuple[Bundle, Vocoder]) -> None:
    bundle, vocoder = neural
    hiss = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert register([fundamental(hiss[:2000], bundle.config.mel)]) is None
    for source, target in ((speech(1), hiss[:2000]), (hiss[:2000], speech(1))):
        both = [converted(bundle, source, [target], 0, vocoder, kind) for kind in ("target", "keep")]
        np.testing.assert_array_equal(*both)
    assert not converted(bundle, np.zeros(9000, np.float32), [speech(1)], 0, vocoder).any()


def test_a_vocoder_of_other_frames_is_refused(neural: tuple[Bundle, Vocoder], bundle: Bundle, tmp_path: Path) -> None:
    other = Vocoder(VocoderConfig(mel=PRESETS["paper"], width=16, blocks=2)).eval()
    with pytest.raises(InputError, match="reads other log-mels"):
        Converter(neural[0], other)
    soundfile.write(tmp_path / "a.wav", speech(0), 16000)
    voice = Voice(torch.zeros(6), 9)
    with pytest.raises(InputError, match="pitch is 'Target'"):
        Converter(*neural).convert_file(tmp_path / "a.wav", tmp_path / "o.wav", voice, pitch="Target")
    with pytest.raises(InputError, match="pitch is 'Target'"):
        converted(neural[0], speech(0), [speech(1)], 0, neural[1], "Target")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_file_through_the_neural_vocoder_in_chunks_is_the_waveform(
    neural: tuple[Bundle, Vocoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, vocoder = neural
    source, target = np.concatenate([speech(seed, 1.5) for seed in range(4)]), speech(5, 1.5)
    soundfile.write(tmp_path / "a.wav", source, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", target, 16000, subtype="FLOAT")
    expected = converted(bundle, source, [target], 2, vocoder)
    monkeypatch.setattr(audio, "BLOCK", 7001)
    monkeypatch.setattr(streaming, "CHUNK", 100)
    converter = Converter(bundle, vocoder)
    voice = converter.voice(tmp_path / "b.wav")
    converter.convert_file(tmp_path / "a.wav", tmp_path / "out.wav", voice, seed=2)
    np.testing.assert_allclose(load_audio(tmp_path / "out.wav"), expected, atol=2e-3)
    assert bundle.config.mel == PRESETS["vocoder"]


def test_a_voice_between_two_has_their_code_and_their_register_in_parts() -> None:
    first = Voice(torch.tensor([0.0, 2.0]), 100, Register(60, np.log(100), 0.1))
    second = Voice(torch.tensor([4.0, -2.0]), 300, Register(80, np.log(400), 0.3))
    near = between(first, second, 0.25)
    torch.testing.assert_close(near.code, torch.tensor([1.0, 1.0]))
    assert near.register is not None
    assert np.exp(near.register.mean) == pytest.approx(100 * 4**0.25)
    assert near.register.deviation == pytest.approx(0.15)
    assert (near.frames, near.register.frames) == (150, 65)
    for end, position in ((first, 0), (second, 1)):
        voice = between(first, second, position)
        assert torch.equal(voice.code, end.code)
        assert voice.register == pytest.approx(end.register)
    whisper = second._replace(register=None)
    assert between(first, whisper, 0.2).register == first.register
    assert between(first, whisper, 0.8).register is None
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(InputError, match="position"):
            between(first, second, wrong)
