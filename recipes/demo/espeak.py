"""Synthetic speech for both demo corpora: random speakers, the synthesiser eSpeak NG, and the simulation of a recording."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

RATE = 16000  # Hz
ACCENTS = ("gmw/en-US", "gmw/en", "gmw/en-GB-scotland", "gmw/en-GB-x-rp")


class Voice(NamedTuple):
    """A synthetic speaker.

    Attributes:
        variant: The text of an eSpeak NG variant file.
        accent: The name of an eSpeak NG voice.
        rate: The speaking rate in words a minute.
    """

    variant: str
    accent: str
    rate: int


def draw_voice(rng: np.random.Generator, female: bool) -> Voice:
    """Draw a speaker. Women have a higher pitch and a shorter vocal tract, as in eSpeak's own variants."""
    pitch = rng.uniform(150, 235) if female else rng.uniform(72, 135)
    tract = rng.uniform(1.04, 1.24) if female else rng.uniform(0.86, 1.08)
    lines = [
        "language variant",
        f"gender {'female' if female else 'male'}",
        f"pitch {pitch:.0f} {pitch * rng.uniform(1.35, 1.75):.0f}",
        f"flutter {rng.integers(1, 6)}",
        f"roughness {rng.integers(0, 5)}",
        f"voicing {rng.integers(75, 116)}",
    ]
    strengths = {600: (130, 200), 1200: (100, 160), 2000: (80, 135), 3000: (70, 120)}  # Hz → range of the strength
    lines.append("tone " + " ".join(f"{hertz} {rng.integers(*span)}" for hertz, span in strengths.items()))
    lines.append("breath 0 " + " ".join(str(rng.integers(0, 5)) for _ in range(7)))
    for formant in range(9):
        frequency = 100 * tract * rng.uniform(0.95, 1.05)
        lines.append(f"formant {formant} {frequency:.0f} {rng.integers(65, 126)} {rng.integers(80, 151)}")
    return Voice("\n".join(lines) + "\n", str(rng.choice(ACCENTS)), int(rng.integers(150, 206)))


class Event(ctypes.Structure):
    """The struct espeak_EVENT of speak_lib.h."""

    class Id(ctypes.Union):
        _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", Id),
    )


class Espeak:
    """The synthesiser eSpeak NG, from text to samples and the times of phones."""

    PHONEME = 7  # espeakEVENT_PHONEME
    SYNCHRONOUS, PHONEME_EVENTS, UTF8, SSML_OFF = 2, 1, 1, 0
    SPEED, PITCH = 1, 3  # espeak_PARAMETER

    def __init__(self, data: Path) -> None:
        import espeakng_loader

        self.variants = data / "voices" / "!v"
        self.library = ctypes.cdll.LoadLibrary(espeakng_loader.get_library_path())
        self.library.espeak_Info.restype = ctypes.c_char_p
        self.rate = self.library.espeak_Initialize(self.SYNCHRONOUS, 0, str(data).encode(), self.PHONEME_EVENTS)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
        self.callback = kind(self._receive)  # an attribute, since the library has only its address
        self.library.espeak_SetSynthCallback(self.callback)
        self.samples: list[np.ndarray] = []
        self.phones: list[tuple[int, str]] = []

    @property
    def version(self) -> str:
        """The version of eSpeak NG."""
        return self.library.espeak_Info(None).decode()

    def _receive(self, wave: ctypes.Array, count: int, events: ctypes.Array) -> int:
        """Store samples and phones. The library calls this function during the synthesis."""
        if count > 0:
            self.samples.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while events[i].type != 0:
            if events[i].type == self.PHONEME:
                self.phones.append((events[i].audio_position, events[i].id.string.decode().strip("_:;,'\" ")))
            i += 1
        return 0

    def speak(
        self, text: str, name: str, voice: Voice, rate: int, pitch: int
    ) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Synthesise a text.

        Args:
            text: The text.
            name: The name of the speaker's variant file.
            voice: The speaker.
            rate: The speaking rate in words a minute.
            pitch: The pitch, from 0 to 99; 50 is the speaker's own.

        Returns:
            Samples (N,) at self.rate Hz, within ±1, and the start in ms and the label of each phone, "" for a pause.
        """
        (self.variants / name).write_text(voice.variant)
        self.samples, self.phones = [], []
        if self.library.espeak_SetVoiceByName(f"{voice.accent}+{name}".encode()) != 0:
            raise RuntimeError(f"eSpeak NG has no voice {voice.accent}+{name}")
        self.library.espeak_SetParameter(self.SPEED, rate, 0)
        self.library.espeak_SetParameter(self.PITCH, pitch, 0)
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, 0, 0, self.UTF8, None, None)
        return np.concatenate(self.samples) / 32768.0, self.phones


def recorded(
    samples: np.ndarray, rng: np.random.Generator, noise_level: tuple[float, float] = (-68, -58)
) -> np.ndarray:
    """Return samples with a random level, a random spectral tilt and noise, as if they were a recording.

    Args:
        samples: The samples, (N,).
        rng: The random numbers.
        noise_level: The range of the noise level in dB below full scale.
    """
    tilt = rng.uniform(-0.1, 0.1)
    samples = samples - tilt * np.concatenate([[0.0], samples[:-1]])
    rms = np.sqrt(np.mean(samples**2)) + 1e-9
    samples = samples * (10 ** (rng.uniform(-27.5, -24.5) / 20) / rms)
    noise = rng.standard_normal(len(samples)) * 10 ** (rng.uniform(*noise_level) / 20)
    return np.clip(samples + noise, -0.99, 0.99)


def trimmed(samples: np.ndarray, phones: list[tuple[int, str]], rate: int) -> tuple[np.ndarray, str]:
    """Remove eSpeak's long silences before and after an utterance.

    Args:
        samples: The samples, (N,).
        phones: The start in ms and the label of each phone, "" for a pause.
        rate: The sample rate in Hz.

    Returns:
        The trimmed samples, and the phones as `start label start label … end`, with times in ms and h# for pauses.
    """
    start = next(ms for ms, label in phones if label)  # the start of the first phone that is not a pause
    first = max(0, start - 80)
    last = phones[-1][0] if not phones[-1][1] else round(1000 * len(samples) / rate)
    end = min(last + 100, round(1000 * len(samples) / rate))
    words: list[str] = ["0", "h#"] if start > first else []
    previous = -1
    for ms, label in phones:
        if previous < ms < last and ms >= start:
            words += [str(ms - first), label or "h#"]
            previous = ms
    words += [str(last - first), "h#", str(end - first)] if end > last else [str(end - first)]
    return samples[round(first * rate / 1000) : round(end * rate / 1000)], " ".join(words)


@contextlib.contextmanager
def opened() -> Iterator[Espeak]:
    """Provide eSpeak NG with a temporary copy of its data, to which `speak` adds variants."""
    import espeakng_loader

    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "espeak-ng-data"
        shutil.copytree(espeakng_loader.get_data_path(), data)
        yield Espeak(data)


def speakers(splits: Mapping[str, int], rng: np.random.Generator) -> Iterator[tuple[str, str, Voice]]:
    """Yield the split, the name and the voice of each speaker; men and women alternate.

    Args:
        splits: The number of speakers of each split.
        rng: The random numbers.
    """
    number = 0
    for split, count in splits.items():
        for _ in range(count):
            number += 1
            female = number % 2 == 0
            yield split, f"{'f' if female else 'm'}{number:02d}", draw_voice(rng, female)


def made_with(espeak: Espeak, seed: int) -> str:
    """Return a text with the version of eSpeak NG and the seed, which the table of a corpus has."""
    from importlib.metadata import version

    return f"eSpeak NG {espeak.version.split()[0]} (espeakng-loader {version('espeakng-loader')}), seed {seed}"
