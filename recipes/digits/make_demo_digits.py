"""Make the built-in demo digits: synthetic speakers that say zero to nine, made with eSpeak NG.

    pip install espeakng-loader==0.2.4          brings the library (eSpeak NG 1.52) and its data; used here alone
    python recipes/digits/make_demo_digits.py rwae_audio/assets/digits

Speakers are made as in recipes/timit/make_demo_corpus.py. Each says every digit several times, with another pitch, rate,
level and tilt each time, somewhere within a second. Everything is drawn from one seed.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import tempfile
from pathlib import Path

import librosa
import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "timit"))

from make_demo_corpus import RATE, Espeak, draw_voice, recorded, trimmed

SEED = 20210102
SPLITS = {"train": 12, "dev": 5, "test": 5}  # speakers
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROUNDS = 3
COMPRESSION = 0.96  # of Ogg Opus in libsndfile: about 15 kbit/s


def in_a_second(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The samples (N,) somewhere within a second (RATE,); what does not fit is cut off at its end."""
    samples = samples[:RATE]
    before = int(rng.integers((RATE - len(samples)) // 4, 3 * (RATE - len(samples)) // 4 + 1))
    return np.pad(samples, (before, RATE - len(samples) - before))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the corpus goes; what is there is replaced")
    folder = parser.parse_args().folder
    import espeakng_loader

    rng = np.random.default_rng(SEED)
    shutil.rmtree(folder, ignore_errors=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "espeak-ng-data"
        shutil.copytree(espeakng_loader.get_data_path(), data)
        espeak = Espeak(data)
        splits = [split for split, count in SPLITS.items() for _ in range(count)]
        for number, split in enumerate(splits, 1):
            female = number % 2 == 0
            speaker = f"{'f' if female else 'm'}{number:02d}"
            voice = draw_voice(rng, female)
            (folder / speaker).mkdir(parents=True)
            for word in WORDS:
                for count in range(1, ROUNDS + 1):
                    rate, pitch = int(voice.rate * rng.uniform(0.88, 1.12)), int(rng.integers(45, 56))
                    samples, phones = espeak.speak(word, f"s{number}", voice, rate, pitch)
                    samples, _ = trimmed(samples, phones, espeak.rate)
                    samples = librosa.resample(samples, orig_sr=espeak.rate, target_sr=RATE)
                    samples = recorded(in_a_second(samples, rng), rng)
                    file = f"{speaker}/{word}_{count}.ogg"
                    soundfile.write(
                        folder / file, samples, RATE, format="OGG", subtype="OPUS", compression_level=COMPRESSION
                    )
                    rows.append((file, speaker, word, count, split))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("path", "speaker", "word", "round", "split"), *rows])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {len(rows)} words of {len(splits)} speakers, {size / 1e6:.2f} MB, seed {SEED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
