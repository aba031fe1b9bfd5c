"""Log-mel frames of a waveform: settings, transform, normalisation, and detection of frames without speech."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from rwae_audio.data.torch_audio import torchaudio
from rwae_audio.files import InputError
from rwae_audio.settings import nearest, resolve

FRAMES = 4096  # frames that are computed at once when a waveform comes in blocks
SILENT_POWER = 1e-8  # mel power of silence (−80 dB)
MIN_DEVIATION = 0.1  # least standard deviation of a bin in nats; that of speech is 2 to 4 in every bin


def _check(valid: bool, name: str, value: Any, expected: str) -> None:
    """Raise InputError if a setting is not valid."""
    if not valid:
        raise InputError(f"[mel] {name} is {value}; expected {expected}")


@dataclass(frozen=True)
class MelConfig:
    """The settings of log-mel frames, by default those of the preset `paper`.

    The window is Hann's, the mel scale and its norm are Slaney's, and the values are log(max(mel, floor)). Frame t is
    centred on sample t · hop_length, and a waveform is mirrored at its ends. Mel filters cover 0 Hz to half the sample
    rate. Raises InputError for settings that do not go together.

    Attributes:
        sample_rate: Sample rate in Hz.
        n_fft: Samples in a window and in its Fourier transform, an even number.
        hop_length: Samples between two frames, at most `n_fft`.
        n_mels: Mel bins of a frame.
        spectrum: What the mels of a frame are taken from: the `power` spectrum or the `magnitude` spectrum.
        segment: Frames in a training segment.
    """

    f_min: ClassVar[float] = 0.0
    floor: ClassVar[float] = 1e-5  # the smallest mel value
    sample_rate: int = 16000
    n_fft: int = 400
    hop_length: int = 160
    n_mels: int = 80
    spectrum: Literal["power", "magnitude"] = "power"
    segment: int = 20

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop_length", "n_mels", "segment"):
            _check(getattr(self, name) > 0, name, getattr(self, name), "more than 0")
        _check(self.n_fft % 2 == 0, "n_fft", self.n_fft, "an even number")
        _check(self.hop_length <= self.n_fft, "hop_length", self.hop_length, f"at most n_fft = {self.n_fft}")

    @property
    def power(self) -> float:
        """The power of the magnitudes that the mel filters sum: 2 or 1."""
        return 2.0 if self.spectrum == "power" else 1.0

    @property
    def win_length(self) -> int:
        """The number of samples in a window."""
        return self.n_fft

    @property
    def f_max(self) -> float:
        """The highest frequency, in Hz: half the sample rate."""
        return self.sample_rate / 2

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str = "[mel]") -> MelConfig:
        """Return the settings of a table.

        Args:
            table: The entries of a TOML or JSON table. `preset` is "paper" (the default) or "vocoder", and the other
                entries are differences from that preset.
            where: The name of the table in messages.

        Raises:
            InputError: The preset or a setting is unknown, or the settings do not go together.
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
        """Return the settings on which log-mels depend: all except `segment`, which gets its default."""
        return dataclasses.replace(self, segment=MelConfig.segment)

    @property
    def shortest(self) -> int:
        """The number of samples in the shortest waveform that `log_mel` accepts, for a window and for the mirrored ends."""
        return max(self.win_length, self.n_fft // 2 + 1)


PRESETS = {
    "paper": MelConfig(),
    # the settings that SpeechBrain's 16 kHz HiFi-GAN (speechbrain/tts-hifigan-libritts-16kHz) was trained on
    "vocoder": MelConfig(n_fft=1024, hop_length=256, spectrum="magnitude", segment=40),
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
    """Return the frames (..., T, n_mels) of a waveform (..., N), which is mirrored at its ends if `centred`."""
    spectrum = _spectrogram(config, centred).to(waveform.device)(waveform.float())
    mels = spectrum.transpose(-1, -2) @ mel_filters(config).to(waveform.device)
    return mels.clamp_(min=config.floor).log_()


def log_mel_chunks(blocks: Iterable[np.ndarray | torch.Tensor], config: MelConfig) -> Iterator[torch.Tensor]:
    """Yield the frames of `log_mel` in chunks (m, n_mels), in memory that does not grow with the waveform.

    Args:
        blocks: The samples of the waveform, in blocks (n,).
        config: The settings of the transform.

    Raises:
        InputError: The whole waveform is shorter than an analysis window.
    """
    edge = config.n_fft // 2
    waiting, count, started = torch.zeros(0), 0, False
    for block in blocks:
        waiting, count = torch.cat([waiting, torch.as_tensor(block, dtype=torch.float32)]), count + len(block)
        if count < config.shortest:
            continue
        if not started:
            waiting, started = torch.cat([waiting[1 : edge + 1].flip(-1), waiting]), True
        # the last edge + 1 samples wait, as they may have to be mirrored at the end
        ready = 1 + (len(waiting) - config.n_fft) // config.hop_length
        ready = min(ready, (len(waiting) - edge - 1) // config.hop_length)
        while ready > 0:
            part = min(ready, FRAMES)
            yield _log_mel(waiting[: config.n_fft + (part - 1) * config.hop_length], config, centred=False)
            waiting, ready = waiting[part * config.hop_length :], ready - part
    if not started:
        log_mel(waiting, config)  # raises InputError
    waiting = torch.cat([waiting, waiting[-edge - 1 : -1].flip(-1)])
    if len(waiting) >= config.n_fft:
        yield _log_mel(waiting, config, centred=False)


@functools.lru_cache(maxsize=8)
def _spectrogram(config: MelConfig, centred: bool) -> torch.nn.Module:
    """Return torchaudio's transform from waveforms to spectrograms."""
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
    """Return torchaudio's mel filters (1 + n_fft // 2, n_mels), float32, with Slaney's scale and norm.

    Raises InputError for a filter that contains no frequency of the Fourier transform.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning about empty filters, for which an error follows
        filters = torchaudio().functional.melscale_fbanks(
            config.n_fft // 2 + 1, config.f_min, config.f_max, config.n_mels, config.sample_rate, "slaney", "slaney"
        )
    empty = int((filters.amax(0) == 0).sum())
    _check(empty == 0, "n_mels", config.n_mels, f"fewer, or a longer n_fft: {empty} mel filters hold no bin")
    return filters


def bin_positions(hertz: np.ndarray, config: MelConfig) -> np.ndarray:
    """Return the positions of frequencies in Hz on the axis of mel bins, where filter k has its centre at k."""
    low, high = _mel(config.f_min), _mel(config.f_max)
    return (_mel(hertz) - low) * (config.n_mels + 1) / (high - low) - 1


def bin_centres(config: MelConfig) -> np.ndarray:
    """Return the centre of each mel filter, (n_mels,), in Hz."""
    return _hertz(np.linspace(_mel(config.f_min), _mel(config.f_max), config.n_mels + 2))[1:-1]


# Slaney's mel scale (Auditory Toolbox, 1998): linear up to 1 kHz = 15 mel, then logarithmic with 27 mel for a factor of 6.4
def _mel(hertz: np.ndarray | float) -> np.ndarray:
    above = 15 + np.log(np.maximum(hertz, 1000) / 1000) / (np.log(6.4) / 27)
    return np.where(np.greater_equal(hertz, 1000), above, np.divide(hertz, 200 / 3))


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel >= 15, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)), 200 / 3 * mel)


def non_speech_mask(log_mels: np.ndarray | torch.Tensor, config: MelConfig) -> np.ndarray:
    """Detect frames without speech. Speech is rarely marked as non-speech, while some pauses are missed.

    The level of a frame is 10 · log10 of its mel power above the floor. The range of levels is that from the 5th to the
    95th percentile of the utterance. A frame is non-speech if its own level and those of its two neighbours are in the
    lowest 30 % of the range. The condition on the neighbours excludes the edges of words. If the range is under 15 dB,
    only frames without power above the floor are non-speech. By TIMIT's hand labels 95 % of the marked frames are
    silence, pause or closure.

    Args:
        log_mels: Log-mels (T, n_mels), not normalised.
        config: The settings of the log-mels.

    Returns:
        The mask (T,), bool, True for non-speech.
    """
    mels = np.exp(np.asarray(log_mels, dtype=np.float64))
    # stored as a float16 logarithm, the floor has a relative error of up to 0.4 %
    above = np.where(mels > config.floor * 1.005, mels - config.floor, 0.0)
    level = 10 * np.log10((above ** (2 / config.power)).sum(axis=1) + SILENT_POWER)
    low, high = np.percentile(level, [5, 95])
    threshold = low + 0.3 * (high - low) if high - low >= 15 else 10 * np.log10(2 * SILENT_POWER)
    padded = np.pad(level, 1, mode="edge")
    return np.maximum(np.maximum(padded[:-2], padded[2:]), level) <= threshold


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Normalisation of each mel bin to zero mean and unit variance.

    Attributes:
        mean: The mean of each bin, (n_mels,), float32.
        deviation: The standard deviation of each bin, (n_mels,), float32.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def fit(cls, frames: np.ndarray | torch.Tensor | Iterable[np.ndarray | torch.Tensor]) -> Normaliser:
        """Return the normaliser of some log-mels.

        Args:
            frames: An array (N, n_mels) or several such arrays. They are read in chunks, so they can be memory-mapped.

        Raises:
            InputError: There are no frames.
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
        """Normalise log-mels (..., n_mels)."""
        return (log_mels - self.mean) / self.deviation

    def inverse(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the log-mels (..., n_mels) of normalised frames (..., n_mels)."""
        return frames * self.deviation + self.mean

    def to(self, device: torch.device | str) -> Normaliser:
        """Return the normaliser on another device."""
        return Normaliser(self.mean.to(device), self.deviation.to(device))
