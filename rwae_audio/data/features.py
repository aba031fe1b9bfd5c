"""Log-mel frames of a waveform: settings, transform, normalisation, and the detection of frames without speech."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from rwae_audio.data.torch_audio import torchaudio
from rwae_audio.files import InputError
from rwae_audio.settings import nearest, resolve

FRAMES = 4096  # frames that are computed at once when a waveform comes in blocks
NOTHING = 1e-8  # mel power that counts as silence: -80 dB
MIN_DEVIATION = 0.1  # nats: speech varies by 2 to 4 in every bin, so a bin with less has no content


def _expect(fine: bool, name: str, value: Any, expected: str) -> None:
    if not fine:
        raise InputError(f"[mel] {name} is {value}; expected {expected}")


@dataclass(frozen=True)
class MelConfig:
    """The settings of log-mel frames: a Hann window, slaney mel scale and slaney norm, log max(·, floor).

    The defaults are the preset `paper`. Frame t is centred on sample t · hop_length, and a waveform is mirrored at its
    ends. Mels reach from 0 Hz to half the sample rate. Raises InputError when the values do not fit together.

    Attributes:
        sample_rate: Samples a second.
        n_fft: Samples in a window and its Fourier transform, an even number.
        hop_length: Samples between two frames, at most `n_fft`.
        n_mels: Mel bins.
        power: 2 for the mels of the power spectrum, 1 for those of the magnitude.
        segment: Frames in a training segment.
    """

    f_min: ClassVar[float] = 0.0
    floor: ClassVar[float] = 1e-5  # the least mel value
    sample_rate: int = 16000
    n_fft: int = 400
    hop_length: int = 160
    n_mels: int = 80
    power: float = 2.0
    segment: int = 20

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop_length", "n_mels", "segment"):
            _expect(getattr(self, name) > 0, name, getattr(self, name), "more than 0")
        _expect(self.n_fft % 2 == 0, "n_fft", self.n_fft, "an even number")
        _expect(self.hop_length <= self.n_fft, "hop_length", self.hop_length, f"at most n_fft = {self.n_fft}")
        _expect(self.power in (1, 2), "power", self.power, "1 (magnitude) or 2 (power)")

    @property
    def win_length(self) -> int:
        """The samples in a window."""
        return self.n_fft

    @property
    def f_max(self) -> float:
        """The highest frequency, in Hz: half the sample rate."""
        return self.sample_rate / 2

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str = "[mel]") -> MelConfig:
        """Return the settings of a TOML or JSON table.

        With `preset = "paper"` or `"vocoder"` the other entries are differences from that preset. Raises InputError for an
        unknown preset or setting and for values that do not fit together.
        """
        if not isinstance(table, Mapping):
            return resolve(cls, table, where)  # raises InputError
        changes = dict(table)
        preset = changes.pop("preset", "paper")
        if preset not in PRESETS:
            raise InputError(f"{where} preset is {preset!r}; {nearest(str(preset), list(PRESETS))}")
        return resolve(cls, {**PRESETS[preset].to_table(), **changes}, where)

    def to_table(self) -> dict[str, Any]:
        """Return plain values for JSON, from which `from_table` restores the settings."""
        return dataclasses.asdict(self)

    def frames(self) -> MelConfig:
        """Return the settings that frames depend on: all but `segment`, which is set to its default."""
        return dataclasses.replace(self, segment=MelConfig.segment)

    @property
    def shortest(self) -> int:
        """The length in samples of the shortest waveform that `log_mel` accepts: a window, or what its padding needs."""
        return max(self.win_length, self.n_fft // 2 + 1)


PRESETS = {
    "paper": MelConfig(),
    # the settings that SpeechBrain's 16 kHz HiFi-GAN (speechbrain/tts-hifigan-libritts-16kHz) was trained on
    "vocoder": MelConfig(n_fft=1024, hop_length=256, power=1.0, segment=40),
}


def log_mel(waveform: torch.Tensor, config: MelConfig) -> torch.Tensor:
    """Return the log-mel frames of a waveform, with torchaudio's spectrogram.

    Args:
        waveform: Samples (..., N).
        config: The settings of the transform.

    Returns:
        The frames (..., T, n_mels), float32, with T = 1 + N // hop_length.

    Raises:
        InputError: N is under one analysis window.
    """
    n = waveform.shape[-1]
    if n < config.shortest:
        raise InputError(
            f"{n} samples at {config.sample_rate} Hz are under one analysis window; expected at least {config.shortest}"
        )
    return _log_mel(waveform, config, centred=True)


def _log_mel(waveform: torch.Tensor, config: MelConfig, centred: bool) -> torch.Tensor:
    """Return the frames of a waveform; with `centred` it is mirrored at its ends first."""
    spectrum = _spectrogram(config, centred).to(waveform.device)(waveform.float())
    mels = spectrum.transpose(-1, -2) @ mel_filters(config).to(waveform.device)
    return mels.clamp_(min=config.floor).log_()


def log_mel_chunks(blocks: Iterable[np.ndarray | torch.Tensor], config: MelConfig) -> Iterator[torch.Tensor]:
    """Yield the frames of `log_mel` in chunks (m, n_mels) for a waveform that comes in blocks (n,).

    Memory does not grow with the waveform. Raises InputError at its end if all of it is under one analysis window.
    """
    edge = config.n_fft // 2
    waiting, count, started = torch.zeros(0), 0, False
    for block in blocks:
        waiting, count = torch.cat([waiting, torch.as_tensor(block, dtype=torch.float32)]), count + len(block)
        if count < config.shortest:
            continue
        if not started:
            waiting, started = torch.cat([waiting[1 : edge + 1].flip(-1), waiting]), True
        # the edge + 1 samples that pad the end are kept
        ready = 1 + (len(waiting) - config.n_fft) // config.hop_length
        ready = min(ready, (len(waiting) - edge - 1) // config.hop_length)
        while ready > 0:
            part = min(ready, FRAMES)
            yield _log_mel(waiting[: config.n_fft + (part - 1) * config.hop_length], config, centred=False)
            waiting, ready = waiting[part * config.hop_length :], ready - part
    if not started:
        log_mel(waiting, config)  # raises
    waiting = torch.cat([waiting, waiting[-edge - 1 : -1].flip(-1)])
    if len(waiting) >= config.n_fft:
        yield _log_mel(waiting, config, centred=False)


@functools.lru_cache(maxsize=8)
def _spectrogram(config: MelConfig, centred: bool) -> torch.nn.Module:
    return torchaudio().transforms.Spectrogram(
        config.n_fft,
        config.win_length,
        config.hop_length,
        power=config.power,
        center=centred,
        pad_mode="reflect",
    )


@functools.lru_cache(maxsize=8)
def mel_filters(config: MelConfig) -> torch.Tensor:
    """Return torchaudio's mel filters (1 + n_fft // 2, n_mels), float32, on Slaney's scale and with Slaney's norm.

    Raises InputError when a filter falls between two bins.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning of empty filters, which are refused below
        filters = torchaudio().functional.melscale_fbanks(
            config.n_fft // 2 + 1, config.f_min, config.f_max, config.n_mels, config.sample_rate, "slaney", "slaney"
        )
    empty = int((filters.amax(0) == 0).sum())
    _expect(empty == 0, "n_mels", config.n_mels, f"fewer, or a longer n_fft: {empty} mel filters hold no bin")
    return filters


def bin_positions(hertz: np.ndarray, config: MelConfig) -> np.ndarray:
    """Return the positions of frequencies, in Hz, on the axis of mel bins: k at the centre of filter k."""
    low, high = _mel(config.f_min), _mel(config.f_max)
    return (_mel(hertz) - low) * (config.n_mels + 1) / (high - low) - 1


def bin_centres(config: MelConfig) -> np.ndarray:
    """Return the frequency (n_mels,), in Hz, at the centre of each mel filter."""
    return _hertz(np.linspace(_mel(config.f_min), _mel(config.f_max), config.n_mels + 2))[1:-1]


# Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz, which is 15 mel, and 27 mel to a factor of 6.4 from there
def _mel(hertz: np.ndarray | float) -> np.ndarray:
    above = 15 + np.log(np.maximum(hertz, 1000) / 1000) / (np.log(6.4) / 27)
    return np.where(np.greater_equal(hertz, 1000), above, np.divide(hertz, 200 / 3))


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel >= 15, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)), 200 / 3 * mel)


def non_speech_mask(log_mels: np.ndarray | torch.Tensor, config: MelConfig) -> np.ndarray:
    """Return which frames of an utterance hold no speech; it misses some rather than mark speech.

    A frame's level is 10·log10 of its mel power above the floor. A frame is non-speech if it and both neighbours lie in
    the lowest 30 % of the range from the utterance's 5th to its 95th percentile level. The neighbours keep the edges of
    words out. Where that range is under 15 dB, pauses cannot be told from speech, and only frames without power above the
    floor count. On TIMIT's hand labels 95 % of the marked frames are silence, pause or closure.

    Args:
        log_mels: Log-mels (T, n_mels), not normalised.
        config: The settings of the log-mels.

    Returns:
        The mask (T,), bool, True for non-speech.
    """
    mels = np.exp(np.asarray(log_mels, dtype=np.float64))
    # float16 logarithms restore the floor to within 0.4 % of itself: such a difference is no sound
    above = np.where(mels > config.floor * 1.005, mels - config.floor, 0.0)
    level = 10 * np.log10((above ** (2 / config.power)).sum(axis=1) + NOTHING)
    low, high = np.percentile(level, [5, 95])
    threshold = low + 0.3 * (high - low) if high - low >= 15 else 10 * np.log10(2 * NOTHING)
    around = np.pad(level, 1, mode="edge")
    return np.maximum(np.maximum(around[:-2], around[2:]), level) <= threshold


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Normalisation of each mel bin to zero mean and unit variance; `mean` and `deviation` are (n_mels,), float32."""

    mean: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def fit(cls, frames: np.ndarray | torch.Tensor | Iterable[np.ndarray | torch.Tensor]) -> Normaliser:
        """Return the normaliser of log-mels (N, n_mels) or of several such arrays.

        They are read in chunks, so that they may be memory-mapped. Raises InputError when there are no frames.
        """
        arrays = [frames] if isinstance(frames, (np.ndarray, torch.Tensor)) else frames
        count, total, squares = 0, np.zeros(1), np.zeros(1)
        for array in arrays:
            for start in range(0, len(array), 65536):
                chunk = np.asarray(array[start : start + 65536], dtype=np.float64)
                count, total, squares = count + len(chunk), total + chunk.sum(0), squares + np.square(chunk).sum(0)
        if count == 0:
            raise InputError("no frames to normalise by; expected at least one")
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, MIN_DEVIATION**2))
        return cls(torch.from_numpy(mean).float(), torch.from_numpy(deviation).float())

    def __call__(self, log_mels: torch.Tensor) -> torch.Tensor:
        """Return the normalised frames of log-mels (..., n_mels)."""
        return (log_mels - self.mean) / self.deviation

    def inverse(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the log-mels of normalised frames (..., n_mels)."""
        return frames * self.deviation + self.mean

    def to(self, device: torch.device | str) -> Normaliser:
        """Return the normaliser on another device."""
        return Normaliser(self.mean.to(device), self.deviation.to(device))
