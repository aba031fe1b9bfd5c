"""Degradations of recordings for robustness.py: functions from waveform to waveform, and the writing of degraded files.

Waveforms are (N,), float32, at RATE Hz. `rng` provides the random numbers. A `ratio` is a signal-to-noise ratio in dB.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from rwae_audio.data.corpora.base import SUFFIXES, audio_files
from rwae_audio.data.level import GATE_BLOCK, active_power
from rwae_audio.evaluation.trials import Trials, speakers_of
from rwae_audio.files import InputError

RATE = 16000  # Hz
MAINS, HARMONICS = 50.0, 6  # Hz, and the number of harmonics, whose amplitudes are proportional to 1/k
T60 = 0.3  # seconds in which the sound in a room decays by 60 dB
GAP = 0.0025  # seconds between the direct sound and the first reflection
MP3_RATES = 8.0, 160.0  # kbit/s for libsndfile's compression levels 1 and 0 at 16 kHz
OPUS_RATES = 6.0, 256.0  # kbit/s for the same levels with Opus

# waveform, random numbers, waveforms of other talkers → degraded waveform
Degrade = Callable[[np.ndarray, np.random.Generator, Sequence[np.ndarray]], np.ndarray]


def active_level(waveform: np.ndarray) -> float:
    """Return the RMS of a waveform without its offset and its pauses (see `active_power`)."""
    size = round(GATE_BLOCK * RATE)
    samples = waveform.astype(np.float64) - waveform.mean(dtype=np.float64)
    blocks = samples[: max(len(samples) // size, 1) * size]
    powers = np.square(blocks).reshape(-1, min(size, len(blocks))).mean(axis=1)
    return float(np.sqrt(active_power(powers)))


def amplified(waveform: np.ndarray, decibels: float) -> np.ndarray:
    """Return a waveform with a gain of `decibels`; samples beyond ±1 are not clipped."""
    return waveform * np.float32(10 ** (decibels / 20))


def with_offset(waveform: np.ndarray, offset: float) -> np.ndarray:
    """Return a waveform with a constant (DC) added to each sample."""
    return waveform + np.float32(offset)


def with_sound(waveform: np.ndarray, sound: np.ndarray, ratio: float) -> np.ndarray:
    """Return a waveform with another sound (N,) added, which is `ratio` dB below the active level of the speech."""
    power = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    scale = active_level(waveform) / max(power, 1e-12) * 10 ** (-ratio / 20)
    return (waveform + sound * scale).astype(np.float32)


def with_hum(waveform: np.ndarray, rng: np.random.Generator, ratio: float) -> np.ndarray:
    """Return a waveform with mains hum and its harmonics, with random phases, `ratio` dB below the speech."""
    orders = np.arange(1, HARMONICS + 1)
    angles = 2 * np.pi * MAINS / RATE * np.arange(len(waveform))[:, None] * orders
    waves = np.sin(angles + rng.uniform(0, 2 * np.pi, HARMONICS))
    return with_sound(waveform, waves @ (1 / orders), ratio)


def with_noise(waveform: np.ndarray, rng: np.random.Generator, ratio: float) -> np.ndarray:
    """Return a waveform with white noise, `ratio` dB below the speech."""
    return with_sound(waveform, rng.standard_normal(len(waveform)), ratio)


def with_babble(
    waveform: np.ndarray, rng: np.random.Generator, talkers: Sequence[np.ndarray], ratio: float
) -> np.ndarray:
    """Return a waveform with the sum of other talkers' waveforms, `ratio` dB below the speech.

    The talkers are equally loud. The waveform of each talker starts at a random position and is repeated.
    """
    babble = np.zeros(len(waveform))
    for talker in talkers:
        shifted = np.roll(talker, -int(rng.integers(len(talker))))
        babble += np.resize(shifted, len(waveform)) / max(active_level(talker), 1e-12)
    return with_sound(waveform, babble, ratio)


def room_response(rng: np.random.Generator, t60: float = T60) -> np.ndarray:
    """Draw the impulse response of a room, (K,), float64, with energy 1.

    It has a direct sound. After GAP seconds there is noise of the same energy, which decays by 60 dB in `t60` seconds.
    """
    time = np.arange(round(1.2 * t60 * RATE)) / RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / t60)
    tail[time < GAP] = 0.0
    tail /= np.sqrt(np.square(tail).sum())
    tail[0] = 1.0
    return tail / np.sqrt(2.0)


def reverberated(waveform: np.ndarray, rng: np.random.Generator, t60: float = T60) -> np.ndarray:
    """Return a waveform with the reverberation of a room; its length and the delay of the direct sound do not change."""
    from scipy.signal import fftconvolve

    return fftconvolve(waveform.astype(np.float64), room_response(rng, t60))[: len(waveform)].astype(np.float32)


@dataclass(frozen=True)
class Condition:
    """A condition in which recordings are degraded.

    Attributes:
        name: The name of the condition in reports, and of its folder.
        label: The label in tables and figures.
        degrade: The function from a waveform, random numbers and other talkers' waveforms to the degraded waveform.
        kind: The format and the suffix of the file: "wav" (float), "mp3" or "opus".
        bit_rate: The bit rate of an MP3 or Opus file in kbit/s.
        sample_rate: The sample rate of the file in Hz.
        talkers: The number of other talkers in the background.
    """

    name: str
    label: str
    degrade: Degrade = lambda waveform, rng, talkers: waveform
    kind: str = "wav"
    bit_rate: float = 0.0
    sample_rate: int = RATE
    talkers: int = 0

    def place(self, name: str) -> PurePosixPath:
        """Return the path of the degraded recording `name`, relative to the folder of the condition."""
        path = PurePosixPath(name)
        stem = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
        return stem.with_name(f"{stem.name}.{self.kind}")


PLAIN, TALKERS = "plain", 6
CONDITIONS = (
    Condition(PLAIN, "as it is"),
    Condition("quiet", "-20 dB", lambda waveform, *_: amplified(waveform, -20)),
    Condition("loud", "+10 dB", lambda waveform, *_: amplified(waveform, 10)),
    Condition("offset", "DC offset 0.02", lambda waveform, *_: with_offset(waveform, 0.02)),
    Condition("hum", "mains hum, -20 dB", lambda waveform, rng, _: with_hum(waveform, rng, 20)),
    Condition("mp3-64", "MP3, 64 kbit/s", kind="mp3", bit_rate=64),
    Condition("mp3-32", "MP3, 32 kbit/s", kind="mp3", bit_rate=32),
    Condition("opus-16", "Opus, 16 kbit/s", kind="opus", bit_rate=16),
    Condition("rate-11025", "11.025 kHz", sample_rate=11025),
    Condition("rate-8000", "8 kHz", sample_rate=8000),
    Condition("noise-20", "white noise, SNR 20 dB", lambda waveform, rng, _: with_noise(waveform, rng, 20)),
    Condition("noise-10", "white noise, SNR 10 dB", lambda waveform, rng, _: with_noise(waveform, rng, 10)),
    Condition("babble-20", "babble, SNR 20 dB", lambda *inputs: with_babble(*inputs, 20), talkers=TALKERS),
    Condition("babble-10", "babble, SNR 10 dB", lambda *inputs: with_babble(*inputs, 10), talkers=TALKERS),
    Condition("room", "room, T60 0.3 s", lambda waveform, rng, _: reverberated(waveform, rng)),
)


def write_recording(path: Path, waveform: np.ndarray, condition: Condition) -> None:
    """Write a degraded waveform in the format of its condition; its samples are the same in every run.

    Args:
        path: The file.
        waveform: The degraded waveform, (N,).
        condition: The condition.

    Raises:
        InputError: The installed libsndfile cannot write the format.
    """
    import soundfile
    import soxr
    from scipy.io import wavfile

    if condition.sample_rate != RATE:
        waveform = soxr.resample(waveform, RATE, condition.sample_rate, quality="HQ")
    try:
        if condition.kind == "wav":  # scipy, since libsndfile writes the time of day into float WAV files
            wavfile.write(path, condition.sample_rate, waveform.astype(np.float32))
        elif condition.kind == "mp3":
            level = compression(condition.bit_rate, MP3_RATES)
            soundfile.write(path, waveform, RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=level)
        else:
            level = compression(condition.bit_rate, OPUS_RATES)
            soundfile.write(path, waveform, RATE, format="OGG", subtype="OPUS", compression_level=level)
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:  # TypeError, ValueError: an older soundfile
        text = f"cannot write {condition.label} ({error}); expected soundfile 0.13 or later with its own libsndfile"
        raise InputError(text) from error


def compression(bit_rate: float, rates: tuple[float, float]) -> float:
    """Return libsndfile's compression level, from 0 to 1, for a bit rate.

    Args:
        bit_rate: The bit rate in kbit/s.
        rates: The bit rates of the levels 1 and 0.
    """
    return (rates[1] - bit_rate) / (rates[1] - rates[0])


def babblers(trials: Trials, paths: Sequence[Path], folder: Path, count: int = TALKERS) -> list[list[list[Path]]]:
    """Return the possible background talkers of each recording in a list, each as a list of recordings.

    They are speakers outside of the list. If there are fewer than `count`, they are speakers in the list whom no trial
    compares with the recording. If these are too few as well, they are all other speakers in the list.

    Args:
        trials: The trial list.
        paths: The recording of each utterance in the list.
        folder: The folder of the recordings.
        count: The number of talkers that a condition needs.
    """
    speakers = speakers_of(trials)
    outside = strangers(folder, trials.names, speakers)
    if len(outside) >= count:
        return [outside] * len(paths)
    utterances: dict[int, list[Path]] = defaultdict(list)
    for path, speaker in zip(paths, speakers, strict=True):
        utterances[int(speaker)].append(path)
    compared = [{int(speaker)} for speaker in speakers]
    for enrol, test in zip(trials.enrol, trials.test, strict=True):
        compared[enrol].add(int(speakers[test]))
        compared[test].add(int(speakers[enrol]))
    pools = []
    for speaker, excluded in zip(speakers, compared, strict=True):
        not_compared = [paths for other, paths in utterances.items() if other not in excluded]
        others = [paths for other, paths in utterances.items() if other != speaker]
        pools.append(not_compared if len(not_compared) >= count else others)
    return pools


def strangers(folder: Path, names: Sequence[str], speakers: np.ndarray) -> list[list[Path]]:
    """Return the recordings of speakers outside of a list, in a group for each folder.

    A folder with recordings of a single speaker of the list belongs to this speaker, with all subfolders. Other recordings
    beside recordings of the list are left out, since their speaker is unknown.

    Args:
        folder: The folder of the recordings.
        names: The names of the utterances in the list.
        speakers: The number of the speaker of each utterance.
    """
    owners: dict[PurePosixPath, set[int]] = defaultdict(set)
    for name, speaker in zip(names, speakers, strict=True):
        for parent in PurePosixPath(name).parents:
            owners[parent].add(int(speaker))
    mixed = {PurePosixPath(name).parent for name in names}
    groups: dict[PurePosixPath, list[Path]] = defaultdict(list)
    for path, name in audio_files(folder):
        parents = PurePosixPath(name).parents
        if parents[0] not in mixed and all(len(owners.get(parent, ())) != 1 for parent in parents):
            groups[parents[0]].append(path)
    return [groups[place] for place in sorted(groups)]
