"""Degradations of recordings: functions from waveform to waveform, and the files with their results.

Waveforms are (N,), float32, at RATE Hz. Random numbers come from the generator that a function is given.
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

RATE = 16000
MAINS, HARMONICS = 50.0, 6  # Hz; the harmonics fall off as 1/k
T60 = 0.3  # seconds in which the sound in the room falls by 60 dB
GAP = 0.0025  # seconds between the direct sound and the first reflection
MP3_RATES = 8.0, 160.0  # kbit/s of libsndfile's compression levels 1 and 0 at 16 kHz
OPUS_RATES = 6.0, 256.0  # the same for Opus

Degrade = Callable[[np.ndarray, np.random.Generator, Sequence[np.ndarray]], np.ndarray]


def active_level(waveform: np.ndarray) -> float:
    """Return the RMS of the speech in a waveform, without its offset and its pauses (see `active_power`)."""
    size = round(GATE_BLOCK * RATE)
    samples = waveform.astype(np.float64) - waveform.mean(dtype=np.float64)
    blocks = samples[: max(len(samples) // size, 1) * size]
    powers = np.square(blocks).reshape(-1, min(size, len(blocks))).mean(axis=1)
    return float(np.sqrt(active_power(powers)))


def amplified(waveform: np.ndarray, decibels: float) -> np.ndarray:
    """Change the level; samples beyond ±1 are not clipped."""
    return waveform * np.float32(10 ** (decibels / 20))


def with_offset(waveform: np.ndarray, offset: float) -> np.ndarray:
    """Add a constant (DC) to each sample."""
    return waveform + np.float32(offset)


def with_sound(waveform: np.ndarray, sound: np.ndarray, ratio: float) -> np.ndarray:
    """Add another sound (N,) whose RMS lies `ratio` dB below the active level of the speech."""
    power = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    scale = active_level(waveform) / max(power, 1e-12) * 10 ** (-ratio / 20)
    return (waveform + sound * scale).astype(np.float32)


def with_hum(waveform: np.ndarray, rng: np.random.Generator, ratio: float) -> np.ndarray:
    """Add the hum of the mains and its harmonics, with random phases, `ratio` dB below the speech."""
    orders = np.arange(1, HARMONICS + 1)
    angles = 2 * np.pi * MAINS / RATE * np.arange(len(waveform))[:, None] * orders
    waves = np.sin(angles + rng.uniform(0, 2 * np.pi, HARMONICS))
    return with_sound(waveform, waves @ (1 / orders), ratio)


def with_noise(waveform: np.ndarray, rng: np.random.Generator, ratio: float) -> np.ndarray:
    """Add white noise `ratio` dB below the speech."""
    return with_sound(waveform, rng.standard_normal(len(waveform)), ratio)


def with_babble(
    waveform: np.ndarray, rng: np.random.Generator, talkers: Sequence[np.ndarray], ratio: float
) -> np.ndarray:
    """Add the sum of other talkers' waveforms, `ratio` dB below the speech.

    The talkers are equally loud. Each starts at a random position and is repeated.
    """
    babble = np.zeros(len(waveform))
    for talker in talkers:
        moved = np.roll(talker, -int(rng.integers(len(talker))))
        babble += np.resize(moved, len(waveform)) / max(active_level(talker), 1e-12)
    return with_sound(waveform, babble, ratio)


def room_response(rng: np.random.Generator, t60: float = T60) -> np.ndarray:
    """Draw the impulse response of a room, (K,), float64, with an energy of 1.

    It has a direct sound, and after GAP seconds noise of the same energy that decays by 60 dB in `t60` seconds.
    """
    time = np.arange(round(1.2 * t60 * RATE)) / RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / t60)
    tail[time < GAP] = 0.0
    tail /= np.sqrt(np.square(tail).sum())
    tail[0] = 1.0
    return tail / np.sqrt(2.0)


def reverberated(waveform: np.ndarray, rng: np.random.Generator, t60: float = T60) -> np.ndarray:
    """Add the reverberation of a room; length and position of the direct sound stay the same."""
    from scipy.signal import fftconvolve

    return fftconvolve(waveform.astype(np.float64), room_response(rng, t60))[: len(waveform)].astype(np.float32)


@dataclass(frozen=True)
class Condition:
    """A condition in which recordings are degraded.

    Attributes:
        name: Name of the condition in reports and of its folder.
        label: Label in tables and figures.
        degrade: Function from a waveform, a generator and other talkers' waveforms to the degraded waveform.
        kind: Kind and suffix of the file: "wav" (float), "mp3" or "opus".
        bit_rate: kbit/s of an MP3 or Opus file.
        sample_rate: Hz of the file.
        talkers: Number of other talkers in the background.
    """

    name: str
    label: str
    degrade: Degrade = lambda waveform, rng, talkers: waveform
    kind: str = "wav"
    bit_rate: float = 0.0
    sample_rate: int = RATE
    talkers: int = 0

    def place(self, name: str) -> PurePosixPath:
        """Return the path of a recording, by its name, in the condition's folder."""
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
    """Write a degraded waveform as the file of its condition; its samples are the same in every run.

    Raises InputError when this libsndfile cannot write the kind of file.
    """
    import soundfile
    import soxr
    from scipy.io import wavfile

    if condition.sample_rate != RATE:
        waveform = soxr.resample(waveform, RATE, condition.sample_rate, quality="HQ")
    try:
        if condition.kind == "wav":  # libsndfile would write the time of day into a float WAV
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
    """Return libsndfile's compression level in [0, 1] of a bit rate."""
    return (rates[1] - bit_rate) / (rates[1] - rates[0])


def babblers(trials: Trials, paths: Sequence[Path], folder: Path, count: int = TALKERS) -> list[list[list[Path]]]:
    """Return the possible background talkers of each recording in a list, each as a list of recordings.

    They are speakers outside the list. If these are fewer than `count`, they are the list's speakers that no trial compares
    with the recording. If these are too few as well, they are all but its own speaker.
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
        apart = [paths for other, paths in utterances.items() if other not in excluded]
        others = [paths for other, paths in utterances.items() if other != speaker]
        pools.append(apart if len(apart) >= count else others)
    return pools


def strangers(folder: Path, names: Sequence[str], speakers: np.ndarray) -> list[list[Path]]:
    """Return the recordings below a folder by speakers outside the list, in a group for each folder.

    A folder in which the list has a single speaker belongs to that speaker, with everything below it. Other recordings in
    a folder with recordings of the list could be by anyone, and are left out.
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
