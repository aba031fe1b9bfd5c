"""Audio in and out: every kind of file that is good, every kind that is not and the one line about it, nothing clipped."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from rwae_audio.data import audio, decoding
from rwae_audio.data.audio import load_audio, read_audio, write_audio
from rwae_audio.files import InputError

RATE = 16000


def tone(frequency: float = 440.0, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def refused(path: str | Path) -> str:
    """The one line that reading `path` ends with."""
    with pytest.raises(InputError) as error:
        read_audio(path)
    text = str(error.value)
    assert "\n" not in text
    assert Path(path).name in text
    return text


FORMATS = {  # suffix: what soundfile is told, and the largest error of its coding
    "a.wav": ({"subtype": "PCM_16"}, 1e-4),
    "float.wav": ({"subtype": "FLOAT"}, 1e-6),
    "extensible.wav": ({"format": "WAVEX"}, 1e-4),
    "large.wav": ({"format": "RF64"}, 1e-4),
    "a.flac": ({}, 1e-4),
    "vorbis.ogg": ({"format": "OGG", "subtype": "VORBIS"}, 0.05),
    "opus.ogg": ({"format": "OGG", "subtype": "OPUS"}, 0.15),
    "a.opus": ({"format": "OGG", "subtype": "OPUS"}, 0.15),
    "a.mp3": ({"format": "MP3"}, 0.1),
    "a.sph": ({"format": "NIST", "subtype": "PCM_16"}, 1e-4),
    "SA1.WAV": ({"format": "NIST", "subtype": "PCM_16"}, 1e-4),
    "ulaw.sph": ({"format": "NIST", "subtype": "ULAW"}, 0.02),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_by_its_content(name: str, tmp_path: Path) -> None:
    options, error = FORMATS[name]
    soundfile.write(tmp_path / name, tone(), RATE, **options)
    (tmp_path / name).rename(tmp_path / "no suffix")  # the name says nothing
    got = read_audio(tmp_path / "no suffix")
    assert (got.sample_rate, got.source_rate, got.channels) == (RATE, RATE, 1)
    assert got.samples.dtype == np.float32
    assert got.samples.shape == (8000,)
    middle = slice(1000, 7000)  # lossy coders fade in
    assert np.abs(got.samples - tone())[middle].max() < error


def test_samples_are_the_files_own(tmp_path: Path) -> None:
    values = np.array([-32768, -1, 0, 1, 32767], dtype=np.int16)
    for name, kind in (("a.wav", "WAV"), ("a.flac", "FLAC"), ("a.sph", "NIST")):
        soundfile.write(tmp_path / name, values, RATE, format=kind)
        np.testing.assert_array_equal(load_audio(tmp_path / name), values / np.float32(32768))


def test_channels_are_averaged(tmp_path: Path) -> None:
    channels = np.random.default_rng(0).uniform(-1, 1, (1000, 64)).astype(np.float32)
    for count in (2, 3, 64):
        soundfile.write(tmp_path / "a.wav", channels[:, :count], RATE, subtype="FLOAT")
        got = read_audio(tmp_path / "a.wav")
        assert got.channels == count
        np.testing.assert_allclose(got.samples, channels[:, :count].mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 8, 64])
def test_uncorrelated_channels_are_averaged(count: int, tmp_path: Path) -> None:
    for seed in range(5):
        channels = np.random.default_rng(seed).normal(0, 0.1, (4000, count)).astype(np.float32)
        soundfile.write(tmp_path / "a.wav", channels, RATE, subtype="FLOAT")
        got = read_audio(tmp_path / "a.wav")
        np.testing.assert_allclose(got.samples, channels.mean(axis=1), atol=1e-6)
        assert got.notes == ()


def test_channels_that_cancel_give_the_louder_one(tmp_path: Path) -> None:
    speech = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    for second in (-1.25, -0.8):
        soundfile.write(tmp_path / "a.wav", np.stack([speech, second * speech], 1), RATE, subtype="FLOAT")
        got = read_audio(tmp_path / "a.wav")
        louder = 2 if second == -1.25 else 1
        np.testing.assert_allclose(got.samples, speech if louder == 1 else second * speech, atol=1e-6)
        assert got.notes == (f"channels 1 and 2 cancel each other; channel {louder}, the louder one, is read",)
    soundfile.write(tmp_path / "a.wav", np.stack([speech, -0.2 * speech], 1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), 0.4 * speech, atol=1e-6)


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_a_silent_channel_is_left_out(rate: int, tmp_path: Path) -> None:
    speech = np.random.default_rng(0).normal(0, 0.1, rate).astype(np.float32)
    soundfile.write(tmp_path / "mono.wav", speech, rate, subtype="FLOAT")
    soundfile.write(tmp_path / "a.wav", np.stack([0 * speech, speech], 1), rate, subtype="FLOAT")
    got = read_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(got.samples, load_audio(tmp_path / "mono.wav"), atol=1e-6)
    assert got.notes == ("channel 1 is silent and left out of the average",)
    soundfile.write(tmp_path / "a.wav", np.zeros((rate, 2)), rate)
    assert not read_audio(tmp_path / "a.wav").samples.any()


def test_a_stretch_is_that_part_of_the_whole(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, (2 * RATE, 2)).astype(np.float32)
    for name, kind in (("a.wav", "WAV"), ("a.flac", "FLAC"), ("a.sph", "NIST"), ("a.ogg", "OGG"), ("a.mp3", "MP3")):
        soundfile.write(tmp_path / name, sound, RATE, format=kind)
        whole = load_audio(tmp_path / name)
        np.testing.assert_array_equal(load_audio(tmp_path / name, start=0.5, end=1.25), whole[8000:20000])
        np.testing.assert_array_equal(load_audio(tmp_path / name, start=1.5), whole[24000:])
        np.testing.assert_array_equal(load_audio(tmp_path / name, end=9.0), whole)
        assert audio.duration(tmp_path / name) == len(whole) / RATE
        with pytest.raises(InputError, match="holds no samples"):
            load_audio(tmp_path / name, start=5.0)
        with pytest.raises(InputError, match="holds no samples"):
            load_audio(tmp_path / name, start=0.5, end=0.25)


def test_names_that_begin_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-a.wav", "-b.flac", "--c.ogg", "-d.mp3"):
        soundfile.write(tmp_path / name, tone(), RATE)
        assert len(load_audio(name)) == 8000
    write_audio("-out.wav", tone(), RATE)
    assert len(load_audio("-out.wav")) == 8000


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 192000])
def test_resampling_keeps_a_tone_and_its_length(rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1000, 0.5, rate), rate, subtype="FLOAT")
    got = read_audio(tmp_path / "a.wav")
    assert (got.sample_rate, got.source_rate) == (RATE, rate)
    assert abs(len(got.samples) - 8000) <= 1
    middle = slice(1000, 7000)
    np.testing.assert_allclose(got.samples[middle], tone(1000)[middle], atol=2e-3)
    spectrum = np.abs(np.fft.rfft(got.samples[: RATE // 2] * np.hanning(len(got.samples[: RATE // 2]))))
    assert spectrum.argmax() * 2 == pytest.approx(1000, abs=2)


def test_what_is_above_half_the_rate_does_not_fold_back(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(11000, 0.5, 48000), 48000, subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "a.wav")[1000:7000]).max() < 1e-3


@pytest.mark.parametrize(("rate", "good"), [(7999, False), (8000, True), (192000, True), (192001, False)])
def test_rates_from_8_to_192_khz(rate: int, good: bool, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(100, 0.1, rate), rate)
    if good:
        assert len(load_audio(tmp_path / "a.wav")) in (1600, 1601)
    else:
        assert f"sample rate of {rate} Hz; expected 8000 to 192000" in refused(tmp_path / "a.wav")


def test_at_most_64_channels(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((10, 65)), RATE)
    assert "65 channels; expected at most 64" in refused(tmp_path / "a.wav")


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert "is a folder; expected WAV" in refused(tmp_path)
    assert "does not exist; expected WAV" in refused(tmp_path / "none.wav")
    assert "not a regular file; expected WAV" in refused(tmp_path / "pipe.wav")  # and does not wait for a writer
    assert "not a regular file; expected WAV" in refused("/dev/zero")
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    assert "cannot be opened" in refused(tmp_path / "a.wav" / "b.wav")
    assert "cannot be opened" in refused(tmp_path / ("x" * 300))
    with pytest.raises(InputError, match="cannot be opened"):
        read_audio("a\0b.wav")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".sph", ".raw", ".au", ".vox", ".txt", ""])
def test_not_audio_whatever_it_is_called(suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"a{suffix}"
    for content in (b"She had your dark suit in greasy wash water all year.\n" * 50, bytes(5000), b"x"):
        path.write_bytes(content)
        assert "cannot be read as audio" in refused(path)
        assert "expected WAV, FLAC, Ogg, MP3 or NIST SPHERE" in refused(path)
    path.write_bytes(b"")
    assert "is empty; expected WAV" in refused(path)
    assert capfd.readouterr() == ("", "")  # libsndfile's decoders say nothing of their own


def test_audio_of_another_kind_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.w64", tone(), RATE, format="W64")
    assert "is W64 audio; expected WAV" in refused(tmp_path / "a.w64")


@pytest.mark.parametrize("kind", ["WAV", "OGG", "NIST"])
def test_no_samples(kind: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a", np.zeros(0), RATE, format=kind)
    assert "holds no samples; expected audio" in refused(tmp_path / "a")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_samples_that_are_not_finite(value: float, tmp_path: Path) -> None:
    samples = np.zeros((RATE, 2))
    samples[4000, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="DOUBLE")
    assert "NaN or infinite sample (the first at 0.250 s); expected finite samples" in refused(tmp_path / "a.wav")


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "NIST", "FLAC", "OGG"])
def test_a_file_cut_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    """Ogg has no length to miss: cut at a page it is shorter audio, so only cuts in its one page are tried."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    soundfile.write(whole, tone(), RATE, format=kind)
    content = whole.read_bytes()
    for size in (1, 4, 8, 11, 12, 15, 16, 20, 40, 60, len(content) // 2, len(content) - 1):
        cut.write_bytes(content[:size])
        assert "expected" in refused(cut) or "header says" in refused(cut)


def test_a_cut_file_is_told_what_its_header_says(tmp_path: Path) -> None:
    for name, kind in (("a.sph", "NIST"), ("a.wav", "WAV")):
        path = tmp_path / name
        soundfile.write(path, tone(), RATE, format=kind, subtype="PCM_16")
        path.write_bytes(path.read_bytes()[:-2])
        assert "is cut short: 15998 bytes of samples" in refused(path)
        assert "header says 16000" in refused(path)
    path.write_bytes(b"NIST_1A\n   1024\nchannel_count -i 1\n")
    assert "SPHERE header of 35 bytes without its end; expected 1024 bytes" in refused(path)


def sphere(change: Callable[[bytes], bytes], folder: Path) -> Path:
    """A SPHERE file with its header changed."""
    path = folder / "a.sph"
    soundfile.write(path, tone(), RATE, format="NIST", subtype="PCM_16")
    content = path.read_bytes()
    path.write_bytes(change(content[:1024])[:1024].ljust(1024) + content[1024:])
    return path


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"-s3 pcm", b"-s26 pcm,embedded-shorten-v2.00", "coded as pcm,embedded-shorten-v2.00; expected pcm"),
        (b"end_head", b"end_here", "without its end; expected 1024 bytes"),
        (b"   1024", b"   none", "without its size; expected a line such as 1024"),
        (b"   1024", b"      0", "without its size; expected a line such as 1024"),
        (b"   1024", b"  -1024", "without its size; expected a line such as 1024"),
        (b"sample_count", b"simple_count", "without sample_count; expected one"),
        (b"sample_rate", b"simple_rate", "cannot be read as audio"),
    ],
)
def test_sphere_headers_that_are_wrong(old: bytes, new: bytes, says: str, tmp_path: Path) -> None:
    assert says in refused(sphere(lambda header: header.replace(old, new), tmp_path))


PLACEHOLDERS = [0, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFDB, 0x7FFFFFFF, 0x80000000, 0x80000024, 0xFFFFF000, 0xFFFFFFFF]


@pytest.mark.parametrize("end", [0, 36, 0x7FFFF024, 0x80000024, 0xFFFFFFFF])
@pytest.mark.parametrize("length", PLACEHOLDERS)
def test_riff_as_written_to_a_pipe(length: int, end: int, tmp_path: Path) -> None:
    """A writer that cannot go back leaves sizes it did not know: zeros, or about 2 or 4 GiB."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[4:8], content[place : place + 4] = struct.pack("<I", end), struct.pack("<I", length)
    path.write_bytes(content)
    np.testing.assert_allclose(load_audio(path), tone(), atol=1e-4)


@pytest.mark.parametrize("length", [16002, 1 << 30, 0x7FFE0000, 0xC0000000])
def test_a_riff_length_that_may_be_real_is_believed(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", length)
    path.write_bytes(content)
    assert f"is cut short: 16000 bytes of samples; its RIFF header says {length}" in refused(path)


def test_big_endian_riff(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE, endian="BIG")
    assert path.read_bytes().startswith(b"RIFX")
    np.testing.assert_allclose(load_audio(path), tone(), atol=1e-4)
    path.write_bytes(path.read_bytes()[:-100])
    assert "is cut short: 15900 bytes of samples; its RIFF header says 16000" in refused(path)


@pytest.mark.parametrize("coding", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_compressed_wav_has_the_samples_that_fact_says(coding: str, tmp_path: Path) -> None:
    """The last block of compressed WAV is filled up; the chunk `fact` says where the sound ends."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE, subtype=coding)
    content = bytearray(path.read_bytes())
    place = content.index(b"fact") + 8
    content[place : place + 4] = struct.pack("<I", 7777)
    path.write_bytes(content)
    got = load_audio(path)
    assert len(got) == 7777
    assert np.abs(got - tone()[:7777])[1000:].max() < 0.1
    content[place : place + 4] = struct.pack("<I", 20000)
    path.write_bytes(content)
    assert "its header says 20000" in refused(path)


def test_sphere_has_the_samples_that_its_header_says(tmp_path: Path) -> None:
    path = sphere(lambda header: header.replace(b"sample_count -i 8000", b"sample_count -i 7000"), tmp_path)
    np.testing.assert_allclose(load_audio(path), tone()[:7000], atol=1e-4)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_joined_files_with_a_length_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    soundfile.write(path, tone(), RATE, format=kind)
    path.write_bytes(2 * path.read_bytes())
    assert f"is several {kind} files joined; expected one" in refused(path)


def test_riff_chunks_around_the_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE)
    content = path.read_bytes()
    place = content.index(b"data")
    odd = b"LIST" + struct.pack("<I", 5) + b"notes\0"  # padded to an even length
    body = content[8:place] + odd + content[place:] + odd
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    np.testing.assert_allclose(load_audio(path), tone(), atol=1e-4)


def test_flac_without_its_length(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(), RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # STREAMINFO's 36 bits of total samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert "without its length" in refused(path)


def test_real_files_agree_with_soundfile(corpora: Path) -> None:
    for folder in ("an4", "librispeech", "timit_sample"):
        path = next(p for p in sorted((corpora / folder).rglob("*")) if p.suffix in (".flac", ".wav"))
        expected, rate = soundfile.read(path, dtype="float32")
        assert rate == RATE
        np.testing.assert_array_equal(load_audio(path), expected)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_written_audio_is_16_bit_and_comes_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    samples = np.random.default_rng(0).uniform(-1, 1, 4000)
    assert write_audio(path, samples, 22050) == 1.0
    assert (soundfile.info(path).subtype, soundfile.info(path).samplerate) == ("PCM_16", 22050)
    np.testing.assert_allclose(load_audio(path, 22050), samples, atol=2 / 32768)


@pytest.mark.parametrize("peak", [1.0, 1.0001, 3.0, 1000.0])
def test_nothing_is_clipped(peak: float, tmp_path: Path) -> None:
    samples = peak * np.sin(np.linspace(0, 20, 4001)) / np.abs(np.sin(np.linspace(0, 20, 4001))).max()
    gain = write_audio(tmp_path / "a.wav", samples, RATE)
    assert gain == pytest.approx(1.0 if peak <= 1 else 0.999 / peak)
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), samples * gain, atol=2 / 32768)


def test_no_samples_can_be_written(tmp_path: Path) -> None:
    assert write_audio(tmp_path / "a.wav", np.zeros(0), RATE) == 1.0
    assert soundfile.info(tmp_path / "a.wav").frames == 0


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, tone(), RATE)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audio.soundfile.SoundFile, "write", full)
    with pytest.raises(InputError, match=r"cannot write .*No space left on device.*expected room"):
        write_audio(path, tone(880), RATE)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_where_audio_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"suffix is '\.mp3'; expected \.wav or \.flac"):
        write_audio(tmp_path / "a.mp3", tone(), RATE)
    with pytest.raises(InputError, match=r"suffix is 'missing'; expected \.wav or \.flac"):
        write_audio(tmp_path / "a", tone(), RATE)
    with pytest.raises(InputError, match="expected a folder that can be written to"):
        write_audio(tmp_path / "none" / "a.wav", tone(), RATE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_blocks_are_what_is_read_at_once(rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sound = tmp_path / "a.flac", tone(seconds=1.03, rate=rate)
    soundfile.write(path, np.stack([sound, 0.2 * sound], 1), rate)
    mono = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    whole = soxr.resample(mono, rate, RATE)
    np.testing.assert_array_equal(load_audio(path), whole)
    monkeypatch.setattr(decoding, "BLOCK", 2000)
    recording = audio.open_audio(path)
    for _ in range(2):  # from the start each time
        blocks = [*recording.blocks()]
        np.testing.assert_array_equal(np.concatenate(blocks), whole)
        assert max(map(len, blocks)) < 8000
        assert all(block.dtype == np.float32 for block in blocks)
    assert (recording.source_rate, recording.channels) == (rate, 2)


def test_what_is_written_in_blocks_is_as_loud_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sound = tmp_path / "a.wav", tone()
    monkeypatch.setattr(audio, "BLOCK", 1000)
    assert audio.write_blocks(path, iter(np.array_split(sound, 7)), RATE, loudness=0.1) == 1
    np.testing.assert_allclose(load_audio(path), sound * 0.1 / np.sqrt(np.mean(sound**2)), atol=1 / 32767)
    gain = audio.write_blocks(path, iter(np.array_split(sound, 7)), RATE, loudness=1.0)
    assert gain == pytest.approx(0.999 / 2**0.5, rel=1e-3)
    assert np.abs(load_audio(path)).max() == pytest.approx(0.999, abs=1e-4)
    audio.write_blocks(path, [sound], RATE, loudness=0.0)
    assert not load_audio(path).any()

    def stops() -> Iterator[np.ndarray]:
        yield sound
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audio.write_blocks(path, stops(), RATE)
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
    assert not load_audio(path).any()
