"""Compare F0 trackers on clean and disturbed speech, against the agreement of four others on the clean recording.

    pip install pyworld praat-parselmouth pysptk pyreaper
    python recipes/voice_conversion/pitch_trackers.py --data an4=DIR --data librispeech=DIR --data speechocean762=DIR \\
        --out table.md

Each corpus is any tree of recordings in which the files of one speaker share a folder. NOTES.md has the resulting table.
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
MIDDLE = 165.0  # Hz: half of the voices of a corpus have a mean F0 under this, half have one over it
SECONDS = 2.0, 12.0  # the shortest and the longest recording that is chosen
SEMITONE, QUARTER_OCTAVE = np.log(2) / 12, np.log(2) / 4
HIGH_PASS = butter(4, 60, "highpass", fs=RATE, output="sos")
Tracker = Callable[[np.ndarray], np.ndarray]  # samples (N,) → F0 (1 + N // HOP,) in Hz, 0 without a voice


def on_grid(f0: np.ndarray, times: np.ndarray, count: int) -> np.ndarray:
    """The values (T,) of a contour at the nearest of its times, for `count` frames that are HOP samples apart."""
    distance = np.abs(np.subtract.outer(np.arange(count) * HOP / RATE, times))
    return np.where(distance.min(1) <= HOP / RATE, np.nan_to_num(f0[distance.argmin(1)]), 0.0)


def toolkit(samples: np.ndarray) -> np.ndarray:
    """The tracker of rwae_audio.conversion.pitch."""
    return fundamental(samples, MEL)


def pyin(samples: np.ndarray) -> np.ndarray:
    """Probabilistic YIN (Mauch, Dixon, 2014) of librosa."""
    import librosa

    f0, voiced, _ = librosa.pyin(samples, fmin=LOWEST, fmax=HIGHEST, sr=RATE, frame_length=1024, hop_length=HOP)
    return np.where(voiced, np.nan_to_num(f0), 0.0)


JUDGED: dict[str, Tracker] = {"toolkit": toolkit, "pyin": pyin}


def praat(samples: np.ndarray) -> np.ndarray:
    """Praat's autocorrelation (Boersma, 1993)."""
    import parselmouth

    sound = parselmouth.Sound(samples.astype(np.float64), RATE)
    contour = sound.to_pitch_ac(time_step=0.004, pitch_floor=LOWEST, pitch_ceiling=HIGHEST)
    return on_grid(contour.selected_array["frequency"], contour.xs(), 1 + len(samples) // HOP)


def harvest(samples: np.ndarray) -> np.ndarray:
    """WORLD's Harvest (Morise, 2017)."""
    import pyworld

    f0, times = pyworld.harvest(samples.astype(np.float64), RATE, LOWEST, HIGHEST, 1000 * HOP / RATE)
    return on_grid(f0, times, 1 + len(samples) // HOP)


def swipe(samples: np.ndarray) -> np.ndarray:
    """SWIPE' (Camacho, 2007) of SPTK."""
    import pysptk

    f0 = pysptk.swipe(samples * 32767.0, RATE, HOP, threshold=0.3, min=LOWEST, max=HIGHEST, otype="f0")
    return on_grid(f0, np.arange(len(f0)) * HOP / RATE, 1 + len(samples) // HOP)


def reaper(samples: np.ndarray) -> np.ndarray:
    """REAPER (Talkin, 2015)."""
    import pyreaper

    pulses = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    _, _, times, f0, _ = pyreaper.reaper(pulses, RATE, LOWEST, HIGHEST, frame_period=0.004)
    return on_grid(np.maximum(f0, 0), times, 1 + len(samples) // HOP)


PANEL: tuple[Tracker, ...] = (praat, harvest, swipe, reaper)


def agreement(contours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The reference of contours (trackers, T): F0 (T,) in Hz, 0 without a voice, and which frames are sure (T,).

    At least three quarters of the trackers must find no voice, or an F0 within a semitone of their median.
    """
    least = 0.75 * len(contours)
    logs = np.log(np.where(contours > 0, contours, np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # frames without any voice
        near = np.abs(logs - np.nanmedian(logs, axis=0)) <= SEMITONE
        f0 = np.exp(np.nanmedian(np.where(near, logs, np.nan), axis=0))
    sung, silent = near.sum(0) >= least, np.isnan(logs).sum(0) >= least
    return np.where(sung, f0, 0.0), sung | silent


def chosen(folder: Path, count: int, include: list[str], draw: np.random.Generator) -> dict[str, np.ndarray]:
    """`count` recordings by name, one from each folder, half of them of low and half of high voices."""
    paths = [path for path, _ in audio_files(folder)]
    order = [paths[i] for i in draw.permutation(len(paths))]
    order.sort(key=lambda path: path.stem not in include)
    picked: dict[str, np.ndarray] = {}
    places: set[Path] = set()
    free: dict[bool | None, int] = {False: count // 2, True: count - count // 2}  # high voices?
    for path in order:
        if not any(free.values()) or path.parent in places:
            continue
        samples = load_audio(path, RATE)
        if not SECONDS[0] <= len(samples) / RATE <= SECONDS[1] and path.stem not in include:
            continue
        f0 = reaper(sosfilt(HIGH_PASS, samples))
        high = bool(np.log(f0[f0 > 0]).mean() > np.log(MIDDLE)) if f0.any() else None
        if free.get(high):
            free[high] -= 1
            places.add(path.parent)
            picked[path.stem] = samples
    return picked


def active_level(samples: np.ndarray) -> float:
    """The RMS of the 20 ms frames that are at most 16 dB under this RMS."""
    power = np.square(samples[: len(samples) // 320 * 320], dtype=np.float64).reshape(-1, 320).mean(1)
    level = power.mean()
    for _ in range(10):
        level = power[power > level * 10**-1.6].mean()
    return float(np.sqrt(level))


def disturbed(samples: np.ndarray, babble: np.ndarray, draw: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """The conditions of a recording (N,), by name."""
    seconds, level = np.arange(len(samples)) / RATE, active_level(samples)

    def beside(noise: np.ndarray) -> np.ndarray:
        return samples + noise * (0.1 * level / np.sqrt(np.mean(np.square(noise))))

    yield "clean", samples
    for mains in (50, 60):
        phases = draw.uniform(0, 2 * np.pi, 20)
        tones = (np.sin(2 * np.pi * mains * (k + 1) * seconds + phase) / (k + 1) for k, phase in enumerate(phases))
        yield f"hum {mains} Hz", beside(sum(tones, np.zeros(len(samples))))
    yield "white noise", beside(draw.standard_normal(len(samples)))
    yield "babble", beside(np.resize(babble, len(samples)))
    yield "MP3 64 kbit/s", through_mp3(samples)
    yield "level −40 dB", 0.01 * samples


def through_mp3(samples: np.ndarray) -> np.ndarray:
    """A recording (N,) after a round trip through MP3 at a constant 64 kbit/s."""
    soundfile.write(file := io.BytesIO(), samples, RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=0.6)
    file.seek(0)
    return np.pad(soundfile.read(file)[0], (0, len(samples)))[: len(samples)]


class Row(NamedTuple):
    """The measures of one contour; error: its mean ln F0 minus the reference's; own: the mean of its register."""

    condition: str
    filtered: str
    tracker: str
    counts: tuple[int, ...]  # voiced, missed, unvoiced, invented, voiced by both, gross errors
    error: float
    own: float


def measured(keys: tuple[str, str, str], heard: np.ndarray, reference: np.ndarray, sure: np.ndarray) -> Row:
    """The measures of a tracker's contour of samples (N,) against the reference (T,) in its sure frames (T,)."""
    f0 = JUDGED[keys[2]](heard)
    sung, silent = sure & (reference > 0), sure & (reference == 0)
    both = sung & (f0 > 0)
    gross = np.abs(np.log(f0[both] / reference[both])) > QUARTER_OCTAVE
    counts = (mask.sum() for mask in (sung, sung & (f0 == 0), silent, silent & (f0 > 0), both, gross))
    own = register_of(tracked(speech_of(heard, RATE).blocks(), RATE)) if keys[2] == "toolkit" else register([f0])
    error = np.log(f0[f0 > 0]).mean() - np.log(reference[sung]).mean() if own else np.nan
    return Row(*keys, tuple(map(int, counts)), float(error), own.mean if own else np.nan)


def judged(samples: np.ndarray, babble: np.ndarray, seed: int) -> Iterator[Row]:
    """One row for each condition, high-pass and tracker of a recording (N,)."""
    clean = sosfilt(HIGH_PASS, samples)
    reference, sure = agreement(np.stack([tracker(clean) for tracker in PANEL]))
    for condition, noisy in disturbed(samples, babble, np.random.default_rng(seed)):
        for filtered, heard in (("no", noisy), ("yes", sosfilt(HIGH_PASS, noisy))):
            for name in JUDGED:
                yield measured((condition, filtered, name), heard.astype(np.float32), reference, sure)


HEADER = (
    *("condition", "high-pass", "tracker", "voicing %", "missed %", "invented %", "gross %"),
    *("register: median %", "95th %", "maximum %", "drift: maximum %"),
)


def report(rows: list[Row]) -> str:
    """Return a table in Markdown: frames of all recordings together, and quantiles of the recordings' registers."""
    cells = []
    for keys in dict.fromkeys(row[:3] for row in rows):
        group = [row for row in rows if row[:3] == keys]
        clean = [row for row in rows if row[:3] == ("clean", *keys[1:])]
        voiced, missed, unvoiced, invented, both, gross = np.sum([row.counts for row in group], axis=0)
        errors = np.expm1([abs(row.error) for row in group])
        drift = np.expm1([abs(row.own - before.own) for row, before in zip(group, clean, strict=True)])
        shares = ((missed + invented) / (voiced + unvoiced), missed / voiced, invented / unvoiced, gross / both)
        values = (*shares, *np.nanquantile(errors, [0.5, 0.95, 1.0]), np.nanmax(drift))
        cells.append([*keys, *(f"{100 * value:.1f}" for value in values)])
    return markdown_table(HEADER, cells, words=(0, 1, 2))


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=DIR", help="a corpus and its folder")
    parser.add_argument("--files", type=int, default=20, help="recordings of each corpus (20)")
    parser.add_argument("--include", nargs="*", default=["103-1240-0000"], help="recordings that are always chosen")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the choice and of all noises (0)")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="the table, in Markdown")
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
