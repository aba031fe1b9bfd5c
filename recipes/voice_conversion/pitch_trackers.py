"""Compare F0 trackers on clean and disturbed speech. The reference is the F0 on which four other trackers agree.

    pip install pyworld praat-parselmouth pysptk pyreaper
    python recipes/voice_conversion/pitch_trackers.py --data an4=DIR --data librispeech=DIR --data speechocean762=DIR \\
        --out table.md

A corpus is a folder tree of recordings in which all recordings in one folder have the same speaker. The resulting table is in
NOTES.md.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from scipy.signal import butter, sosfilt

from rwae_audio.commands.common import Parser, guarded, say
from rwae_audio.conversion.pitch import HIGHEST, LOWEST, fundamental, register, register_of, tracked
from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora.base import audio_files
from rwae_audio.data.features import PRESETS
from rwae_audio.data.level import speech_of
from rwae_audio.evaluation.tables import markdown_table
from rwae_audio.files import InputError, write_text

NAME = "pitch_trackers.py"
MEL = PRESETS["vocoder"]
RATE, HOP = 16000, 256
MIDDLE = 165.0  # Hz: half of the chosen voices have a mean F0 below it, half have one above it
SECONDS = 2.0, 12.0  # the duration of the shortest and of the longest chosen recording
SEMITONE, QUARTER_OCTAVE = np.log(2) / 12, np.log(2) / 4
HIGH_PASS = butter(4, 60, "highpass", fs=RATE, output="sos")
Tracker = Callable[[np.ndarray], np.ndarray]  # samples (N,) → F0 (1 + N // HOP,) in Hz, 0 in unvoiced frames


def on_grid(f0: np.ndarray, times: np.ndarray, count: int) -> np.ndarray:
    """Return a contour at frames that are HOP samples apart, from its values at the nearest times.

    Args:
        f0: F0 in Hz, (M,).
        times: The times of its values in seconds, (M,).
        count: The number T of frames.

    Returns:
        F0 in Hz, 0 without a value within HOP samples, (T,).
    """
    distance = np.abs(np.subtract.outer(np.arange(count) * HOP / RATE, times))
    return np.where(distance.min(1) <= HOP / RATE, np.nan_to_num(f0[distance.argmin(1)]), 0.0)


def toolkit(samples: np.ndarray) -> np.ndarray:
    """Track F0 by the tracker of this toolkit, rwae_audio.conversion.pitch."""
    return fundamental(samples, MEL)


def pyin(samples: np.ndarray) -> np.ndarray:
    """Track F0 by librosa's probabilistic YIN (Mauch, Dixon, 2014)."""
    import librosa

    f0, voiced, _ = librosa.pyin(samples, fmin=LOWEST, fmax=HIGHEST, sr=RATE, frame_length=1024, hop_length=HOP)
    return np.where(voiced, np.nan_to_num(f0), 0.0)


JUDGED: dict[str, Tracker] = {"toolkit": toolkit, "pyin": pyin}


def praat(samples: np.ndarray) -> np.ndarray:
    """Track F0 by Praat's autocorrelation method (Boersma, 1993)."""
    import parselmouth

    sound = parselmouth.Sound(samples.astype(np.float64), RATE)
    contour = sound.to_pitch_ac(time_step=0.004, pitch_floor=LOWEST, pitch_ceiling=HIGHEST)
    return on_grid(contour.selected_array["frequency"], contour.xs(), 1 + len(samples) // HOP)


def harvest(samples: np.ndarray) -> np.ndarray:
    """Track F0 by WORLD's Harvest (Morise, 2017)."""
    import pyworld

    f0, times = pyworld.harvest(samples.astype(np.float64), RATE, LOWEST, HIGHEST, 1000 * HOP / RATE)
    return on_grid(f0, times, 1 + len(samples) // HOP)


def swipe(samples: np.ndarray) -> np.ndarray:
    """Track F0 by SPTK's SWIPE' (Camacho, 2007)."""
    import pysptk

    f0 = pysptk.swipe(samples * 32767.0, RATE, HOP, threshold=0.3, min=LOWEST, max=HIGHEST, otype="f0")
    return on_grid(f0, np.arange(len(f0)) * HOP / RATE, 1 + len(samples) // HOP)


def reaper(samples: np.ndarray) -> np.ndarray:
    """Track F0 by REAPER (Talkin, 2015)."""
    import pyreaper

    pulses = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    _, _, times, f0, _ = pyreaper.reaper(pulses, RATE, LOWEST, HIGHEST, frame_period=0.004)
    return on_grid(np.maximum(f0, 0), times, 1 + len(samples) // HOP)


PANEL: tuple[Tracker, ...] = (praat, harvest, swipe, reaper)


def agreement(contours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the reference contour on which the trackers agree.

    Args:
        contours: F0 in Hz, 0 in unvoiced frames, (trackers, T).

    Returns:
        The reference F0 in Hz, 0 in unvoiced frames, (T,), and whether a frame has a reference, (T,). It has one if three
        quarters of the trackers agree: it is unvoiced, or its F0 is within a semitone of their median.
    """
    least = 0.75 * len(contours)
    logs = np.log(np.where(contours > 0, contours, np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nanmedian warns about frames that are unvoiced for all trackers
        near = np.abs(logs - np.nanmedian(logs, axis=0)) <= SEMITONE
        f0 = np.exp(np.nanmedian(np.where(near, logs, np.nan), axis=0))
    voiced, unvoiced = near.sum(0) >= least, np.isnan(logs).sum(0) >= least
    return np.where(voiced, f0, 0.0), voiced | unvoiced


def chosen(folder: Path, count: int, include: list[str], draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Choose recordings at random, at most one from each folder, half of them with low and half with high voices.

    Args:
        folder: The folder of the corpus.
        count: The number of recordings.
        include: The names of recordings that are chosen first.
        draw: The random numbers.

    Returns:
        The samples (N,) of each chosen recording by its name.
    """
    paths = [path for path, _ in audio_files(folder)]
    order = [paths[i] for i in draw.permutation(len(paths))]
    order.sort(key=lambda path: path.stem not in include)
    recordings: dict[str, np.ndarray] = {}
    used_folders: set[Path] = set()
    missing: dict[bool | None, int] = {False: count // 2, True: count - count // 2}  # low voices, high voices
    for path in order:
        if not any(missing.values()) or path.parent in used_folders:
            continue
        samples = load_audio(path, RATE)
        if not SECONDS[0] <= len(samples) / RATE <= SECONDS[1] and path.stem not in include:
            continue
        f0 = reaper(sosfilt(HIGH_PASS, samples))
        high = bool(np.log(f0[f0 > 0]).mean() > np.log(MIDDLE)) if f0.any() else None
        if missing.get(high):
            missing[high] -= 1
            used_folders.add(path.parent)
            recordings[path.stem] = samples
    return recordings


def active_level(samples: np.ndarray) -> float:
    """Return the RMS of the loud frames (20 ms) of a recording (N,), which are at most 16 dB below this RMS."""
    power = np.square(samples[: len(samples) // 320 * 320], dtype=np.float64).reshape(-1, 320).mean(1)
    level = power.mean()
    for _ in range(10):
        level = power[power > level * 10**-1.6].mean()
    return float(np.sqrt(level))


def disturbed(samples: np.ndarray, babble: np.ndarray, draw: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each condition and the disturbed recording, (N,). Noise is 20 dB below the speech.

    Args:
        samples: The recording, (N,).
        babble: A recording of other talkers, of any length.
        draw: The random numbers.
    """
    seconds, level = np.arange(len(samples)) / RATE, active_level(samples)

    def with_noise(noise: np.ndarray) -> np.ndarray:
        return samples + noise * (0.1 * level / np.sqrt(np.mean(np.square(noise))))

    yield "clean", samples
    for mains in (50, 60):
        phases = draw.uniform(0, 2 * np.pi, 20)
        tones = (np.sin(2 * np.pi * mains * (k + 1) * seconds + phase) / (k + 1) for k, phase in enumerate(phases))
        yield f"hum {mains} Hz", with_noise(sum(tones, np.zeros(len(samples))))
    yield "white noise", with_noise(draw.standard_normal(len(samples)))
    yield "babble", with_noise(np.resize(babble, len(samples)))
    yield "MP3 64 kbit/s", through_mp3(samples)
    yield "level −40 dB", 0.01 * samples


def through_mp3(samples: np.ndarray) -> np.ndarray:
    """Return a recording (N,) after encoding and decoding as MP3 with a constant bit rate of 64 kbit/s."""
    soundfile.write(file := io.BytesIO(), samples, RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=0.6)
    file.seek(0)
    return np.pad(soundfile.read(file)[0], (0, len(samples)))[: len(samples)]


class Row(NamedTuple):
    """The measures of the contour of one recording.

    Attributes:
        condition: The name of the condition.
        filtered: "yes" if the recording is high-passed, otherwise "no".
        tracker: The name of the tracker.
        counts: The numbers of frames: voiced, missed, unvoiced, invented, voiced in both contours, with a gross error.
        error: The mean ln F0 minus that of the reference.
        register_mean: The mean ln F0 of the voice's register.
    """

    condition: str
    filtered: str
    tracker: str
    counts: tuple[int, ...]
    error: float
    register_mean: float


def measured(keys: tuple[str, str, str], samples: np.ndarray, reference: np.ndarray, certain: np.ndarray) -> Row:
    """Compare the contour of a tracker with the reference.

    Args:
        keys: The condition, "yes" or "no" for the high-pass, and the name of the tracker.
        samples: The recording, (N,).
        reference: The reference F0, (T,).
        certain: Whether a frame has a reference, (T,).
    """
    f0 = JUDGED[keys[2]](samples)
    voiced, unvoiced = certain & (reference > 0), certain & (reference == 0)
    both = voiced & (f0 > 0)
    gross = np.abs(np.log(f0[both] / reference[both])) > QUARTER_OCTAVE
    counts = (mask.sum() for mask in (voiced, voiced & (f0 == 0), unvoiced, unvoiced & (f0 > 0), both, gross))
    own = register_of(tracked(speech_of(samples, RATE).blocks(), RATE)) if keys[2] == "toolkit" else register([f0])
    error = np.log(f0[f0 > 0]).mean() - np.log(reference[voiced]).mean() if own else np.nan
    return Row(*keys, tuple(map(int, counts)), float(error), own.mean if own else np.nan)


def judged(samples: np.ndarray, babble: np.ndarray, seed: int) -> Iterator[Row]:
    """Yield the measures of a recording for each condition, with and without high-pass, and for each tracker.

    Args:
        samples: The recording, (N,).
        babble: A recording of other talkers.
        seed: The seed of the noise.
    """
    clean = sosfilt(HIGH_PASS, samples)
    reference, certain = agreement(np.stack([tracker(clean) for tracker in PANEL]))
    for condition, noisy in disturbed(samples, babble, np.random.default_rng(seed)):
        for filtered, recording in (("no", noisy), ("yes", sosfilt(HIGH_PASS, noisy))):
            for name in JUDGED:
                yield measured((condition, filtered, name), recording.astype(np.float32), reference, certain)


HEADER = (
    *("condition", "high-pass", "tracker", "voicing %", "missed %", "invented %", "gross %"),
    *("register: median %", "95th %", "maximum %", "drift: maximum %"),
)


def report(rows: list[Row]) -> str:
    """Return the table in Markdown.

    Error rates are those of the frames of all recordings together. Columns on the register are quantiles over recordings.
    """
    cells = []
    for keys in dict.fromkeys(row[:3] for row in rows):
        group = [row for row in rows if row[:3] == keys]
        clean = [row for row in rows if row[:3] == ("clean", *keys[1:])]
        voiced, missed, unvoiced, invented, both, gross = np.sum([row.counts for row in group], axis=0)
        errors = np.expm1([abs(row.error) for row in group])
        pairs = zip(group, clean, strict=True)
        drift = np.expm1([abs(row.register_mean - before.register_mean) for row, before in pairs])
        shares = ((missed + invented) / (voiced + unvoiced), missed / voiced, invented / unvoiced, gross / both)
        values = (*shares, *np.nanquantile(errors, [0.5, 0.95, 1.0]), np.nanmax(drift))
        cells.append([*keys, *(f"{100 * value:.1f}" for value in values)])
    return markdown_table(HEADER, cells, words=(0, 1, 2))


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=DIR", help="a corpus and its folder")
    parser.add_argument("--files", type=int, default=20, help="the number of recordings of each corpus (default: 20)")
    parser.add_argument("--include", nargs="*", default=["103-1240-0000"], help="names of recordings to choose first")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the choice and of all noise (default: 0)")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="the Markdown file to write")
    options = parser.parse_args(argv)
    folders = dict(item.partition("=")[::2] for item in options.data)
    if not all(Path(folder).is_dir() for folder in folders.values()):
        raise InputError(f"--data is {' '.join(options.data)}; expected NAME=DIR, each an existing folder")
    rows: list[Row] = []
    for corpus, folder in folders.items():
        draw = np.random.default_rng(options.seed)
        recordings = chosen(Path(folder), options.files, options.include, draw)
        for number, (name, samples) in enumerate(recordings.items()):
            others = [other for key, other in recordings.items() if key != name]
            talkers = [others[i] for i in draw.permutation(len(others))[:6]]
            babble = sum((np.resize(other / active_level(other), len(samples)) for other in talkers), np.zeros(1))
            rows += judged(samples, babble, options.seed + number)
            say(NAME, f"{corpus}: {number + 1} of {len(recordings)}")
    write_text(options.out, report(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
