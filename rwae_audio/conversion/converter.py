"""The converter: waveform in, waveform out; what the source says, in the target's voice.

    converter = Converter.load()
    voice = converter.voice(["bob1.wav", "bob2.wav"])
    sound = converter.convert(waveform, sample_rate, voice)  # at converter.sample_rate

Recordings are of any length, and memory hardly grows with them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rwae_audio.conversion.adaptation import STEPS, adapted
from rwae_audio.conversion.pitch import moved
from rwae_audio.conversion.reading import Reading, read_file, read_waveform
from rwae_audio.conversion.vocoders import AnyVocoder, check_vocoder, new_vocoder
from rwae_audio.conversion.vocoders.neural import Vocoder, save_vocoder
from rwae_audio.conversion.voice import Voice, pooled_voices, read_voice, voice_of, write_voices
from rwae_audio.data.audio import write_blocks
from rwae_audio.data.level import Level, active_level
from rwae_audio.files import InputError, whole_folder
from rwae_audio.inference.bundle import Bundle, load_bundle
from rwae_audio.inference.hub import FILES, VOCODER, pretrained_folder, upload

Waveform = TypeVar("Waveform", np.ndarray, Tensor)
Recording = str | PathLike | np.ndarray | Tensor
PITCHES = ("target", "keep")


@dataclass(frozen=True)
class Converted:
    """The report of Converter.convert_file.

    Attributes:
        seconds: Duration of the source and of the result.
        source_rate: Sample rate of the source, Hz.
        level: Level of the source as it was read.
        gain: Factor against clipping, 1.0 for none.
        notes: What a user should be told of the source, a line each.
    """

    seconds: float
    source_rate: int
    level: Level
    gain: float
    notes: tuple[str, ...]


class Converter:
    """A bundle and a vocoder: they say what a source says, in another voice.

    Threads may share one. Convert a voice only with the consent of its owner.

    Attributes:
        bundle: The trained model.
        vocoder: What makes sound of its log-mels.
    """

    def __init__(self, bundle: Bundle, vocoder: AnyVocoder | None = None) -> None:
        """Put a bundle and a vocoder together: the neural one if None, or Griffin-Lim for other log-mels.

        Raises InputError when the vocoder reads log-mels of other settings than the bundle's.
        """
        self.bundle = bundle
        self.vocoder = new_vocoder(None, bundle.config.mel) if vocoder is None else vocoder
        check_vocoder(self.vocoder, bundle.config.mel)

    @classmethod
    def load(
        cls, folder: str | Path | None = None, device: str | torch.device = "cpu", vocoder: str | None = None
    ) -> Converter:
        """Read a bundle, the shipped one if `folder` is None, and a vocoder by its name.

        Args:
            vocoder: `neural`, `griffin-lim`, `hifigan`, or the folder of a neural vocoder; None as in the constructor.

        Raises:
            InputError: When one of them is missing or damaged, they do not fit, or the device is not here.
        """
        bundle = load_bundle(folder, device)
        return cls(bundle, new_vocoder(vocoder, bundle.config.mel, device))

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, device: str | torch.device = "cpu"
    ) -> Converter:
        """Read what `save_pretrained` or `push_to_hub` wrote.

        Args:
            name: A folder, or a repository on the Hugging Face Hub, `owner/name`. It has the files of a bundle and, in
                vocoder/, those of a neural vocoder. Without these the vocoder is chosen as in the constructor.
            revision: A branch, a tag or a commit of the repository; None for the newest.

        Raises:
            InputError: When the name is not found or cannot be fetched, and for what `load` refuses.
        """
        folder = pretrained_folder(name, revision)
        vocoder = str(folder / VOCODER) if (folder / VOCODER).is_dir() else None
        return cls.load(folder, device, vocoder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the bundle and the vocoder, if it is a neural one, into a folder, whole or not at all.

        Raises InputError for a folder that has other files, which would be lost, and when it cannot be written.
        """
        folder = Path(folder)
        _make_folder(folder.parent)
        if folder.is_dir() and (others := {path.name for path in folder.iterdir()} - {*FILES, VOCODER}):
            raise InputError(f"{folder} has {min(others)}; expected a new folder, or that of a converter")
        with whole_folder(folder) as temporary:
            self.bundle.write(temporary)
            if isinstance(self.vocoder, Vocoder):
                save_vocoder(temporary / VOCODER, self.vocoder, self.vocoder.meta, self.vocoder.card)

    def push_to_hub(self, name: str, private: bool = False) -> str:
        """Upload the converter to the Hugging Face Hub and return the address of the commit.

        Args:
            name: The repository, `owner/name`, which is made if it is missing.
            private: Whether a repository that is made is private.

        Raises:
            InputError: When the Hub cannot be reached, or does not permit it (`hf auth login`).
        """
        with tempfile.TemporaryDirectory() as place:
            self.save_pretrained(folder := Path(place) / "converter")
            return upload(folder, name, private)

    @property
    def sample_rate(self) -> int:
        """The rate of converted waveforms in Hz."""
        return self.bundle.sample_rate

    def voice(self, recordings: Recording | Sequence[Recording], sample_rate: int | None = None) -> Voice:
        """Return the voice of one or more recordings of a speaker; a recording weighs as much as it is long.

        Args:
            recordings: Paths, or waveforms (N,) at `sample_rate` Hz.

        Raises:
            InputError: When there are none, one cannot be read, is silent or under one analysis window, or a waveform comes
                without a sample rate.
        """
        readings = self._readings(recordings, sample_rate)
        return pooled_voices(voice_of(self.bundle, reading, self.vocoder.takes_pitch) for reading in readings)

    def adapt(
        self,
        voice: Voice,
        recordings: Recording | Sequence[Recording],
        sample_rate: int | None = None,
        *,
        steps: int = STEPS,
        seed: int = 0,
    ) -> Voice:
        """Return a voice that the decoder speaks more like its recordings, a minute of which are enough.

        Args:
            recordings: As in `voice`.
            steps: Updates of the voice's modulation.
            seed: Decides what is drawn of the recordings.

        Raises:
            InputError: As `voice` does, when all recordings are too short, and for a bundle whose decoder has no modulation.
        """
        frames = [torch.cat([*reading.log_mels()]) for reading in self._readings(recordings, sample_rate)]
        return adapted(self.bundle, frames, voice, steps, seed)

    def load_voice(self, path: str | Path) -> Voice:
        """Read a voice that `save_voice` or rwae-embed wrote. Raises InputError for another file, or another bundle's."""
        return read_voice(path, self.bundle)

    def save_voice(self, path: str | Path, voice: Voice) -> None:
        """Write a voice into a safetensors file, for `load_voice` and `rwae-vc --voice`."""
        write_voices(path, self.bundle, {"voice": voice}, modulation=voice.modulation)

    def convert(
        self, waveform: Waveform, sample_rate: int, voice: Voice, *, pitch: str = "target", seed: int = 0
    ) -> Waveform:
        """Say the words of a source in another voice.

        Args:
            waveform: (N,) or (N, 1), or a batch (B, N) of which each row is one source; floats, or integers of 8, 16 or 32
                bits.
            sample_rate: Its rate in Hz.
            pitch: `target` moves the F0 contour to the register of the voice, `keep` leaves it. Vocoders that take no pitch
                find it in the frames.
            seed: Decides what the vocoder draws.

        Returns:
            Samples (M,) or (B, M) at `self.sample_rate`, float32, as loud as the source; a silent source gives silence. They
            are not limited to ±1. An array for an array; for a tensor a tensor on the CPU.

        Raises:
            InputError: When it is no waveform, too short, or an argument is not one of those above.
        """
        if isinstance(waveform, (np.ndarray, Tensor)) and waveform.ndim == 2 and waveform.shape[1] > 1:
            rows = [self.convert(row, sample_rate, voice, pitch=pitch, seed=seed) for row in waveform]
            return torch.stack(rows) if isinstance(waveform, Tensor) else np.stack(rows)
        reading: Reading = self._read(waveform, sample_rate, "waveform", silence=True)
        samples = np.concatenate([*self._sound(reading, voice, pitch, seed)])
        samples *= np.float32(reading.level.active / max(active_level(samples, self.sample_rate), 1e-8))
        return torch.from_numpy(samples) if isinstance(waveform, Tensor) else samples

    def convert_file(
        self, source: str | Path | Reading, output: str | Path, voice: Voice, *, pitch: str = "target", seed: int = 0
    ) -> Converted:
        """Convert a file of any length into another, .wav or .flac of 16 bits, as `convert` does.

        The output is written whole or not at all. Its folder is made if it is missing. A source for several voices is decoded
        once where its `read_source` comes instead of its name.

        Raises:
            InputError: For a source that cannot be read or is under one analysis window, before anything is written, and for
                an output that cannot be written.
        """
        reading = source if isinstance(source, Reading) else self.read_source(source)
        sound = self._sound(reading, voice, pitch, seed)
        _make_folder(Path(output).parent)
        gain = write_blocks(output, sound, self.sample_rate, reading.level.active)
        seconds = reading.level.count / self.sample_rate
        return Converted(seconds, reading.source_rate, reading.level, gain, reading.notes)

    def read_source(self, source: str | Path) -> Reading:
        """Read a file for `convert_file`; it may be silent. Raises InputError when it cannot be read or is too short."""
        return read_file(source, self.bundle.config.mel, silence=True)

    def _readings(self, recordings: Recording | Sequence[Recording], sample_rate: int | None) -> Iterator[Reading]:
        if isinstance(recordings, (str, PathLike, np.ndarray, Tensor)):
            recordings = [recordings]
        if not len(recordings):
            raise InputError("recordings is empty; expected at least one recording of the voice")
        names = ["recording"] if len(recordings) == 1 else [f"recordings[{i}]" for i in range(len(recordings))]
        return (self._read(item, sample_rate, name) for item, name in zip(recordings, names, strict=True))

    def _read(self, recording: Recording, sample_rate: int | None, name: str, silence: bool = False) -> Reading:
        mel = self.bundle.config.mel
        if isinstance(recording, (str, PathLike)):
            return read_file(Path(recording), mel, silence)
        if sample_rate is None:
            raise InputError(f"{name} is a waveform, and sample_rate is None; expected its rate in Hz")
        return read_waveform(recording, sample_rate, mel, name, silence)

    def _sound(self, source: Reading, voice: Voice, pitch: str, seed: int) -> Iterator[np.ndarray]:
        """Return the source's words in the voice: as many samples as it has, (n,) at a time, at a level of their own."""
        if pitch not in PITCHES:
            raise InputError(f"pitch is {pitch!r}; expected 'target' or 'keep'")
        return self._silence(source) if source.level.silent else self._speech(source, voice, pitch, seed)

    def _silence(self, source: Reading) -> Iterator[np.ndarray]:
        return (np.zeros(len(block), dtype=np.float32) for block in source.samples())

    def _speech(self, source: Reading, voice: Voice, pitch: str, seed: int) -> Iterator[np.ndarray]:
        codes = self.bundle.encode_chunks(source.log_mels)
        frames = self.bundle.decode_chunks(voice.code, codes, voice.modulation)
        f0 = self._contour(source, voice, pitch) if self.vocoder.takes_pitch else None
        left = source.level.count
        for samples in self.vocoder.chunks(frames, f0, seed):
            yield samples.numpy()
            left -= len(samples)
        yield np.zeros(left, dtype=np.float32)  # under a hop: the last frame's centre comes before the last sample

    def _contour(self, source: Reading, voice: Voice, pitch: str) -> Tensor:
        """Return the source's F0 (T,) in Hz, moved to the register of the voice where both have one and it is wanted."""
        own = source.register if pitch == "target" else None
        if own is None or voice.register is None:
            return source.f0
        return torch.from_numpy(moved(source.f0.double().numpy(), own, voice.register)).float()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder} ({error.strerror}); expected to be allowed to") from error
