"""MP3, Ogg and the formats of PyAV: files that were joined, cut or damaged are read whole or refused."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import correlate

from rwae_audio.data import decoding
from rwae_audio.data.audio import load_audio, read_audio
from rwae_audio.data.containers import id3_length
from rwae_audio.data.mpeg import read_header, stderr_messages
from rwae_audio.files import InputError

RATE = 16000
ID3 = b"ID3\x04\0\0" + bytes([0, 0, 3, 0]) + b"TIT2" + bytes(380)
GARBAGE = np.random.default_rng(1).integers(0, 255, 700, dtype=np.uint8).tobytes()  # without 0xFF


def chirp(seconds: float = 2.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A sound each part of which differs from the others."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * (200 + 300 * seed + 250 * time) * time)


def agreement(got: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    """The correlation of two sounds at the best delay, as a share of the energy of `expected`, and that delay."""
    both = correlate(got, expected, method="fft") / (expected @ expected)
    best = int(both.argmax())
    return float(both[best]), best - len(expected) + 1


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_audio(path)
    text = str(error.value)
    assert "\n" not in text
    assert path.name in text
    return text


# ---- MP3


def mp3(path: Path, sound: np.ndarray, rate: int = RATE, mode: str = "VARIABLE") -> bytes:
    soundfile.write(path, sound, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    return path.read_bytes()


def frames(content: bytes) -> list[bytes]:
    """The frames of an MP3 file, the one of its Xing header first."""
    place, found = id3_length(content[:10]), []
    while (frame := read_header(content[place : place + 4])) is not None:
        found.append(content[place : place + frame.length])
        place += frame.length
    return found


def without_xing(content: bytes) -> bytes:
    first, *rest = frames(content)
    assert b"Xing" in first or b"Info" in first
    return b"".join(rest)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000])
def test_mp3_of_every_rate_with_and_without_its_xing_header(
    rate: int, channels: int, mode: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, sound = tmp_path / "a.mp3", chirp(1.0, rate)
    content = mp3(path, np.stack([sound] * channels, 1), rate, mode)
    got = read_audio(path, rate)
    assert (got.source_rate, got.channels) == (rate, channels)
    assert len(got.samples) == len(sound)
    assert agreement(got.samples, sound)[0] > 0.94  # LAME scales by 0.95
    path.write_bytes(without_xing(content))
    got = read_audio(path, rate)
    assert 0 <= len(got.samples) - len(sound) < 3 * 1152  # delay and padding stay
    assert agreement(got.samples, sound)[0] > 0.94
    assert capfd.readouterr() == ("", "")


def test_mp3_without_its_xing_header_is_whole_although_its_bit_rate_rises(tmp_path: Path) -> None:
    """A reader that takes the length from the first frame's bit rate would stop early."""
    noise = np.random.default_rng(0).normal(0, 0.2, 4 * RATE)
    noise[: 3 * RATE] *= 1e-4
    path = tmp_path / "a.mp3"
    path.write_bytes(without_xing(mp3(path, noise)))
    got = load_audio(path)
    assert 0 <= len(got) - len(noise) < 3 * 1152
    assert np.sqrt(np.mean(got[-RATE // 2 - 1500 : -1500] ** 2)) > 0.1


@pytest.mark.parametrize("xing", [True, False])
def test_mp3_in_blocks_is_what_is_read_at_once(
    xing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.mp3"
    content = mp3(path, np.random.default_rng(0).normal(0, 0.2, 4 * RATE) * np.linspace(0, 1, 4 * RATE))
    path.write_bytes(content if xing else without_xing(content))
    whole = load_audio(path)
    monkeypatch.setattr(decoding, "BLOCK", 1000)
    np.testing.assert_array_equal(load_audio(path), whole)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("first_xing", [True, False])
@pytest.mark.parametrize("second_xing", [True, False])
@pytest.mark.parametrize("between", [b"", ID3, b"TAG" + bytes(125)])
def test_joined_mp3_gives_all_of_the_sound(
    first_xing: bool, second_xing: bool, between: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, one, two = tmp_path / "a.mp3", chirp(2.0), chirp(3.0, seed=2)
    first, second = mp3(path, one), mp3(path, two)
    first, second = (first if first_xing else without_xing(first)), (second if second_xing else without_xing(second))
    path.write_bytes(first + between + second)
    got = load_audio(path)
    extra = len(got) - len(one) - len(two)
    assert extra == 0 if first_xing and second_xing else 0 <= extra < 6 * 1152
    assert agreement(got[: len(one) + 1200], one)[0] > 0.98
    assert agreement(got[-len(two) - 4000 :], two)[0] > 0.98
    assert capfd.readouterr() == ("", "")


def test_mp3_with_garbage_or_cut_short_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.mp3"
    content = mp3(path, chirp())
    parts = frames(content)
    half = b"".join(parts[: len(parts) // 2])
    rest = b"".join(parts[len(parts) // 2 :])
    for damaged, says in {
        GARBAGE + content: "cannot be read as audio",
        content + GARBAGE: "no MPEG frame at byte",
        half + GARBAGE + rest: "no MPEG frame at byte",
        half + bytes(999) + rest: "no MPEG frame at byte",
        half[:-40] + rest: "no MPEG frame at byte",
        content[:-1]: "is cut short: its last MPEG frame has",
        content[: len(content) // 2 + 7]: "is cut short: its last MPEG frame has",
        half: f"is cut short: {len(parts) // 2 - 1} MPEG frames; its header says {len(parts) - 1}",
        without_xing(content)[:-1]: "is cut short: its last MPEG frame has",
    }.items():
        path.write_bytes(damaged)
        assert says in refused(path)
    assert capfd.readouterr() == ("", "")


def test_mp3_with_tags_and_padding_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    content = mp3(path, chirp())
    expected = load_audio(path)
    half = len(b"".join(frames(content)[:20])) + id3_length(content[:10])
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0xA0000000) + bytes(8)
    for changed in (
        ID3 + ID3 + content,
        bytes(300) + ID3 + content,
        content + bytes(5000),
        content + ape + b"TAG" + bytes(125),
        content[:half] + ID3 + content[half:],
    ):
        path.write_bytes(changed)
        np.testing.assert_array_equal(load_audio(path), expected)


def test_mp3_that_changes_its_rate_or_channels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    mono = mp3(path, chirp())
    path.write_bytes(mono + mp3(tmp_path / "b", chirp(rate=44100), 44100))
    assert "changes to 44100 Hz" in refused(path)
    path.write_bytes(mono + mp3(tmp_path / "b", np.stack([chirp(), chirp(seed=1)], 1)))
    assert "changes to 16000 Hz, 2 channels" in refused(path)


def test_what_c_code_writes_on_stderr_is_caught_and_what_python_prints_is_not(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import ctypes

    library = ctypes.CDLL(None)
    with stderr_messages() as has_messages:
        print("mine", file=sys.__stderr__, flush=True)
        library.perror(b"theirs")
    assert has_messages()
    with stderr_messages() as has_messages:
        for _ in range(1000):  # more than is kept of it
            library.perror(b"theirs")
    assert has_messages()
    with stderr_messages() as has_messages:
        pass
    assert not has_messages()
    assert capfd.readouterr().err == "mine\n"


# ---- Ogg


def pages(content: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    found = []
    while content:
        size = 27 + content[26] + sum(content[27 : 27 + content[26]])
        found.append(content[:size])
        content = content[size:]
    return found


def checksum(page: bytes) -> bytes:
    """The page with its checksum, bit by bit."""
    page, register = page[:22] + bytes(4) + page[26:], 0
    for byte in page:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register & 1 << 31 else 0)) & 0xFFFFFFFF
    return page[:22] + struct.pack("<I", register) + page[26:]


@pytest.mark.parametrize("coding", ["VORBIS", "OPUS"])
def test_ogg_links_are_read_one_after_another(coding: str, tmp_path: Path) -> None:
    path, sounds, contents = tmp_path / "a.ogg", [chirp(2.0), chirp(1.0, seed=1), chirp(1.5, seed=2)], []
    for sound in sounds:
        soundfile.write(path, sound, RATE, format="OGG", subtype=coding)
        contents.append(path.read_bytes())
    path.write_bytes(b"".join(contents))
    got = load_audio(path)
    assert len(got) == sum(map(len, sounds))
    for sound, part in zip(sounds, np.split(got, [2 * RATE, 3 * RATE]), strict=True):
        assert agreement(part, sound)[0] > 0.98
    soundfile.write(path, chirp(1.0, 48000), 48000, format="OGG", subtype=coding)
    path.write_bytes(contents[0] + path.read_bytes())
    assert "changes to 48000 Hz" in refused(path)


@pytest.mark.parametrize("coding", ["VORBIS", "OPUS"])
def test_ogg_that_is_cut_or_damaged_is_refused(coding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 4 * RATE), RATE, format="OGG", subtype=coding)
    content = path.read_bytes()
    sheets = pages(content)
    assert len(sheets) > 4
    assert all(checksum(page) == page for page in sheets)
    for size in (len(content) // 2, len(content) - 1, len(content) - len(sheets[-1]) + 20):
        path.write_bytes(content[:size])
        assert "is cut short in the Ogg page" in refused(path)
    path.write_bytes(b"".join(sheets[:3] + sheets[4:]))
    assert "lacks Ogg pages" in refused(path)
    path.write_bytes(content + GARBAGE)
    assert f"no Ogg page at byte {len(content)}" in refused(path)
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    path.write_bytes(changed)
    assert "is damaged in the Ogg page" in refused(path)


@pytest.mark.parametrize("coding", ["VORBIS", "OPUS"])
def test_ogg_without_the_flag_of_its_end_is_whole(coding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, chirp(), RATE, format="OGG", subtype=coding)
    expected, sheets = load_audio(path), pages(path.read_bytes())
    assert sheets[-1][5] & 4
    sheets[-1] = checksum(sheets[-1][:5] + bytes([sheets[-1][5] & ~4]) + sheets[-1][6:])
    path.write_bytes(b"".join(sheets))
    np.testing.assert_array_equal(load_audio(path), expected)


def test_ogg_streams_side_by_side_are_refused_and_others_passed_over(tmp_path: Path) -> None:
    for name, sound in (("a.ogg", chirp()), ("b.ogg", chirp(seed=1))):
        soundfile.write(tmp_path / name, sound, RATE, format="OGG")
    one, two = (pages((tmp_path / name).read_bytes()) for name in ("a.ogg", "b.ogg"))
    path, expected = tmp_path / "c.ogg", load_audio(tmp_path / "a.ogg")
    path.write_bytes(b"".join([one[0], two[0], *one[1:], *two[1:]]))
    assert "has streams with sound at the same time" in refused(path)
    skeleton = checksum(b"OggS\0\2" + bytes(8) + b"skel" + bytes(8) + b"\1\10" + b"fishead\0")
    path.write_bytes(b"".join([skeleton, *one]))
    np.testing.assert_array_equal(load_audio(path), expected)


# ---- what PyAV reads

EXTRA = {  # file: FFmpeg's container and codec, and the largest error of its samples
    "a.m4a": ("ipod", "aac", 0.05),
    "alac.m4a": ("ipod", "alac", 1e-4),
    "a.aac": ("adts", "aac", 0.05),
    "a.mka": ("matroska", "pcm_s16le", 1e-4),
    "a.webm": ("webm", "libopus", 0.1),
    "a.aiff": ("aiff", "pcm_s16be", 1e-4),
    "float.aiff": ("aiff", "pcm_f32be", 1e-6),
    "a.caf": ("caf", "pcm_s24be", 1e-4),
    "double.caf": ("caf", "pcm_f64le", 1e-6),
    "a.au": ("au", "pcm_s32be", 1e-6),
    "small.mka": ("matroska", "pcm_u8", 0.01),
    "a.wma": ("asf", "wmav2", 0.1),
}


def write_extra(path: Path, sound: np.ndarray, container: str, codec: str, rate: int = RATE) -> None:
    """Write sound (n, channels) by PyAV."""
    av = pytest.importorskip("av")
    layout = "mono" if sound.shape[1] == 1 else "stereo"
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 64000
        frame = av.AudioFrame.from_ndarray(sound.astype(np.float32).T.copy(), "fltp", layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.codec_context.format, layout, rate)
        for converted in (*resampler.resample(frame), *resampler.resample(None), None):
            output.mux(stream.encode(converted))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", EXTRA)
def test_more_formats_are_read_by_pyav(
    name: str, channels: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, (container, codec, error) = tmp_path / name, EXTRA[name]
    rate = 48000 if codec == "libopus" else RATE
    sound = chirp(2.0, rate)
    write_extra(path, np.stack([sound] * channels, 1), container, codec, rate)
    path = path.rename(tmp_path / "no suffix")
    got = read_audio(path, rate)
    assert (got.source_rate, got.channels, got.notes) == (rate, channels, ())
    assert abs(len(got.samples) - len(sound)) <= (0 if codec.startswith(("pcm", "alac")) else 4096)
    score, delay = agreement(got.samples, sound[1000:])
    assert score > 0.99
    shifted = got.samples[delay:][: len(sound) - 8000]
    assert np.abs(shifted - sound[1000:][: len(shifted)]).max() < error or codec == "libopus"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 5 + 7])
    refused(path)
    assert capfd.readouterr() == ("", "")


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "a.aiff"
    soundfile.write(path, chirp(), RATE)
    text = refused(path)
    assert "is AIFF audio; expected WAV, FLAC, Ogg, MP3 or NIST SPHERE" in text
    assert "pip install 'rwae-audio[formats]'" in text
    assert f"ffmpeg -i {path} {path.with_suffix('.wav')}" in text


def test_the_limits_hold_for_pyav_as_well(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "a.au"
    soundfile.write(path, chirp(0.5, 6000), 6000)
    assert "sample rate of 6000 Hz; expected 8000 to 192000" in refused(path)
    sound = np.zeros(RATE)
    sound[4000] = np.nan
    soundfile.write(path, sound, RATE, subtype="FLOAT")
    assert "NaN or infinite sample (the first at 0.250 s)" in refused(path)
    soundfile.write(path, np.zeros(0), RATE)
    assert "holds no samples" in refused(path)
