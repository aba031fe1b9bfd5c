"""Make the built-in demo corpus of spoken digits, which are synthetic, with eSpeak NG.

    pip install espeakng-loader==0.2.4          the library (eSpeak NG 1.52) and its data
    python recipes/demo/make_demo_digits.py rwae_audio/assets/digits

There are 30 speakers, the English digits zero to nine and 3 rounds, one second each, as in the corpus of Arabic digits. Pitch,
rate, level, spectral tilt and onset are different each time. All random numbers depend on one seed, except for those inside
eSpeak NG. So a second run gives the same table and different audio files.
"""

from __future__ import annotations

import argparse
import csv
import io
import struct
import sys
from pathlib import Path

import librosa
import numpy as np
import soundfile
from espeak import RATE, Espeak, Voice, made_with, opened, recorded, speakers, trimmed

from rwae_audio.data.corpora.digits import COLUMNS
from rwae_audio.files import whole_folder

SEED = 20210102
SPLITS = {"train": 18, "dev": 6, "test": 6}  # speakers; each has as many women as men
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROUNDS = 3
SLOWER = 0.72  # the factor of the speaking rate for single words, in comparison with sentences
NOISE = (-92, -82)  # dB; louder noise would use most of the bits, since half of each second is silent
COMPRESSION = 0.95  # libsndfile's compression level for Ogg Opus, about 18 kbit/s


def say(espeak: Espeak, word: str, speaker: str, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """Return a recording of a word with a duration of one second, (RATE,).

    Args:
        espeak: The synthesiser.
        word: The word.
        speaker: The name of the speaker.
        voice: The voice of the speaker.
        rng: The random numbers.
    """
    rate, pitch = int(voice.rate * SLOWER * rng.uniform(0.88, 1.12)), int(rng.integers(43, 58))
    samples, phones = espeak.speak(word, f"s-{speaker}", voice, rate, pitch)
    samples, _ = trimmed(samples, phones, espeak.rate)
    samples = librosa.resample(samples, orig_sr=espeak.rate, target_sr=RATE)
    before = int((RATE - len(samples)) * rng.uniform(0.3, 0.6))
    return recorded(np.pad(samples, (before, RATE - len(samples) - before)), rng, NOISE)


def ogg(samples: np.ndarray) -> bytes:
    """Return samples (N,) as the bytes of an Ogg Opus file, without libsndfile's 512 empty bytes for comments."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="OGG", subtype="OPUS", compression_level=COMPRESSION)
    data = buffer.getvalue()
    start = data.index(b"OggS", 4)  # the second page, which has the comments alone
    end = data.index(b"OggS", start + 4)
    packet = data[start + 27 + data[start + 26] : end]
    vendor = struct.unpack_from("<I", packet, 8)[0]  # after "OpusTags": length, text, number of comments (none)
    packet = packet[: 8 + 4 + vendor + 4]
    page = data[start : start + 22] + bytes(4) + bytes([1, len(packet)]) + packet
    return data[:start] + page[:22] + struct.pack("<I", _checksum(page)) + page[26:] + data[end:]


def _checksum(page: bytes) -> int:
    """Return the checksum of an Ogg page (RFC 3533): CRC-32 with polynomial 04C11DB7, highest bit first, from 0."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value


def main() -> int:
    """Make the corpus, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of the digits; an existing one is replaced")
    folder = parser.parse_args().folder
    rng = np.random.default_rng(SEED)
    rows = []
    with whole_folder(folder) as part, opened() as espeak:
        for split, speaker, voice in speakers(SPLITS, rng):
            (part / speaker).mkdir()
            for word in WORDS:
                for number in range(1, ROUNDS + 1):
                    name = f"{speaker}/{word}_{number}.ogg"
                    (part / name).write_bytes(ogg(say(espeak, word, speaker, voice, rng)))
                    rows.append((name, speaker, word, number, split))
        with (part / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
        tools = made_with(espeak, SEED)
        text = f"Synthetic spoken digits, made with {tools}, by recipes/demo/make_demo_digits.py. Licence: CC0.\n"
        (part / "README.md").write_text(text, encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {len(rows)} recordings of {sum(SPLITS.values())} speakers, {size / 1e6:.2f} MB, {tools}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
