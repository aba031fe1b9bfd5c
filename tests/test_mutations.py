"""Damaged audio: 200 seeded mutations of each format give finite samples or an InputError, and nothing on stderr."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE, COUNT = 16000, 200
FORMATS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "adpcm": {"format": "WAV", "subtype": "IMA_ADPCM"},
    "flac": {"format": "FLAC"},
    "vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
    "sphere": {"format": "NIST", "subtype": "PCM_16"},
}

# run in a process of its own, where whatever a decoder writes on the file descriptor of stderr is seen
LOOP = """
import sys
import numpy as np
from rwae_audio.data.audio import read_audio
from rwae_audio.files import InputError

source, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
content = open(source, "rb").read()
random = np.random.default_rng(0)


def mutated():
    data = bytearray(content)
    span = 100 if random.random() < 0.4 else len(data)  # headers are small, and have most to go wrong
    for _ in range(random.integers(1, 4)):
        place, kind = int(random.integers(min(span, len(data)))), random.integers(4)
        some = random.integers(0, 256, random.integers(1, 40), dtype=np.uint8).tobytes()
        if kind == 0:
            data[place] ^= 1 << int(random.integers(8))
        elif kind == 1:
            del data[place : place + len(some)]
        elif kind == 2:
            data[place:place] = some
        else:
            del data[max(place, 1) :]
        data = data or bytearray(b"x")
    return bytes(data)


read = refused = 0
for number in range(count):
    with open(path, "wb") as file:
        file.write(mutated())
    try:
        samples = read_audio(path).samples
    except InputError as error:
        assert "\\n" not in str(error), error
        refused += 1
    else:
        assert samples.dtype == np.float32 and len(samples) and np.isfinite(samples).all()
        read += 1
print(read, refused)
"""


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    random, time_axis = np.random.default_rng(0), np.arange(RATE // 3) / RATE
    sound = 0.3 * np.sin(2 * np.pi * 300 * time_axis) + 0.05 * random.standard_normal(len(time_axis))
    soundfile.write(tmp_path / "whole", sound, RATE, **FORMATS[name])
    words = [sys.executable, "-c", LOOP, tmp_path / "whole", tmp_path / "damaged", str(COUNT)]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    read, refused = map(int, done.stdout.split())
    assert read + refused == COUNT
    assert refused > COUNT // 4
