"""Recordings as the training of a vocoder needs them, with their log-mels and F0, and random crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rwae_audio.conversion.pitch import HIGHEST, LOWEST
from rwae_audio.conversion.vocoders.neural import Vocoder, vocode
from rwae_audio.conversion.vocoders.settings import TrainConfig
from rwae_audio.conversion.vocoders.spectra import SIZES
from rwae_audio.data.features import MelConfig, log_mel
from rwae_audio.randomness import generator

LARGEST_MOVE = 0.6  # nats of F0, about ten semitones
UNKNOWN = 0.2  # the share of crops with a static code of 0
KINDS = ("natural", "decoded", "moved", "returned")  # of log-mels; the last two have the pitch of a copy


@dataclass(frozen=True)
class Speech:
    """U recordings, one after another. Arrays are float16 except F0.

    Attributes:
        samples: The waveforms, (N,). Frame t has the hop_length samples from t · hop_length on.
        log_mels: The log-mels of each of KINDS, (2 or 4, T, n_mels): those of the recordings, their reconstructions by a
            bundle's model, those of copies of the recordings at another pitch, and those of conversions of the recordings
            into other voices at another pitch, converted back.
        f0: F0 in Hz, 0 in unvoiced frames, (T,), float32.
        offsets: The first frame of each recording, and the number of all frames, (U + 1,).
        mel: The settings of the frames.
        voices: The static code of each recording, (U, static_dim).
        texts: The words of each recording, "" if they are unknown.
        credits: The credits of the corpora for the card of the vocoder, a line for each.
    """

    samples: np.ndarray
    log_mels: np.ndarray
    f0: np.ndarray
    offsets: np.ndarray
    voices: np.ndarray
    mel: MelConfig
    texts: tuple[str, ...]
    credits: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The duration of all recordings in seconds."""
        return len(self.samples) / self.mel.sample_rate

    def crop(self, begin: int, frames: int, kind: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-mels (frames, n_mels), F0 (frames,) and samples ((frames − 1) · hop_length,) of a crop.

        Args:
            begin: The first frame of the crop.
            frames: The number of frames.
            kind: The kind of the log-mels, one of KINDS.
        """
        part, hop = slice(begin, begin + frames), self.mel.hop_length
        samples = self.samples[begin * hop : (begin + frames - 1) * hop]
        log_mels, f0 = self.log_mels[KINDS.index(kind), part], self.f0[part]
        return _float(log_mels), _float(f0), _float(samples)


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))


def shortest_for_training(mel: MelConfig) -> int:
    """Return the number of samples that a recording needs: half of the longest window is reflected at both ends."""
    return max(mel.shortest, max(SIZES) // 2 + mel.hop_length)


class Recorded(NamedTuple):
    """A recording of T frames as a part of Speech: its samples, its F0, its log-mels, its static code and its words."""

    samples: np.ndarray
    f0: np.ndarray
    log_mels: np.ndarray
    voice: np.ndarray
    text: str = ""


def recorded(
    samples: np.ndarray, f0: np.ndarray, kinds: Sequence[Tensor], voice: Tensor, mel: MelConfig, text: str = ""
) -> Recorded:
    """Return a recording as a part of Speech.

    Args:
        samples: The samples at the nominal level, (N,).
        f0: F0 in Hz, 0 in unvoiced frames, (T,).
        kinds: Its log-mels of each of the first of KINDS, (T, n_mels) each.
        voice: Its static code, (static_dim,).
        mel: The settings of the frames.
        text: Its words, "" if they are unknown.
    """
    count = mel.hop_length * len(f0)
    samples = np.pad(samples, (0, max(count - len(samples), 0)))[:count]
    log_mels, code = (part.half().cpu().numpy() for part in (torch.stack([*kinds]), voice))
    return Recorded(samples.astype(np.float16), f0.astype(np.float32), log_mels, code, text)


def joined(recordings: Sequence[Recorded], mel: MelConfig, credits: tuple[str, ...] = ()) -> Speech:
    """Return recordings as Speech.

    Args:
        recordings: At least one recording.
        mel: The settings of the frames.
        credits: The credits of their corpora.
    """
    samples, f0, log_mels, voices, texts = zip(*recordings, strict=True)
    return Speech(
        samples=np.concatenate(samples),
        log_mels=np.concatenate(log_mels, axis=1),
        f0=np.concatenate(f0),
        offsets=np.cumsum([0, *map(len, f0)]),
        voices=np.stack(voices),
        mel=mel,
        texts=texts,
        credits=credits,
    )


def at_another_pitch(vocoder: Vocoder, log_mels: Tensor, f0: np.ndarray, draws: torch.Generator) -> Tensor:
    """Return the log-mels (T, n_mels) of a copy of a recording by a vocoder, at a pitch that is drawn.

    A conversion gives the vocoder log-mels with the harmonics of the source, and F0 in the pitch range of the target. From
    such copies, with the F0 of the recording, the vocoder learns to follow F0. From conversions there and back it learns to
    restore a voice as well: their log-mels have something of another voice, as those of every conversion have.

    Args:
        vocoder: The vocoder.
        log_mels: The log-mels of the recording, (T, n_mels).
        f0: F0 in Hz, 0 in unvoiced frames, (T,).
        draws: The random numbers. F0 is moved by at most LARGEST_MOVE.
    """
    move = LARGEST_MOVE * (2 * torch.rand((), generator=draws) - 1)
    contour = torch.from_numpy(f0)
    contour = torch.where(contour > 0, (contour * move.exp()).clamp(LOWEST, HIGHEST), contour)
    copy = vocode(vocoder, log_mels, contour)
    return log_mel(copy, vocoder.mel)


def draw(speech: Speech, settings: TrainConfig, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw the batch of an update. Each possible crop has the same probability.

    Some crops have a static code of 0, so that a vocoder which knows voices also serves where the voice is unknown.

    Args:
        speech: The recordings.
        settings: The settings of the training.
        step: The number of the update.

    Returns:
        Log-mels (B, T, n_mels), F0 (B, T) in Hz, samples (B, (T − 1) · hop_length) and static codes (B, static_dim).
    """
    draws, frames = generator(settings.seed, "batch", step), settings.frames
    lengths = np.diff(speech.offsets)
    long_enough = np.flatnonzero(lengths >= frames)
    crops = np.cumsum(lengths[long_enough] - frames + 1)  # the number of possible crops, summed over recordings
    uniform = torch.rand(4, settings.batch, generator=draws, dtype=torch.float64).numpy()
    numbers = (uniform[0] * crops[-1]).astype(np.int64)
    places = np.searchsorted(crops, numbers, side="right")
    recordings = long_enough[places]
    begins = speech.offsets[recordings] + numbers - np.concatenate([[0], crops])[places]
    rows = begins[:, None] + np.arange(frames)
    kinds = (uniform[1] < settings.decoded) + 2 * (uniform[2] < settings.moved)
    log_mels = speech.log_mels[kinds[:, None], rows]
    hops = speech.samples.reshape(-1, speech.mel.hop_length)
    samples = hops[rows[:, :-1]].reshape(settings.batch, -1)
    voices = speech.voices[recordings] * (uniform[3] >= UNKNOWN)[:, None]
    return _float(log_mels), _float(speech.f0[rows]), _float(samples), _float(voices)
