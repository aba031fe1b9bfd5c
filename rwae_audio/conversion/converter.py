"""The voice converter: it reads a source recording, and returns a waveform with the same words in a target's voice.

    converter = Converter.load()
    voice = converter.voice(["bob1.wav", "bob2.wav"])
    sound = converter.convert(waveform, sample_rate, voice)  # at converter.sample_rate

Recordings may have any length; the memory hardly depends on it.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rwae_audio.conversion.fitting import fitted_chunks
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
BEYOND = 0.4  # chosen on development pairs (recipes/voice_conversion/NOTES.md)
STEPS = 150  # updates of an adaptation
HEAD = 2000  # first frames of a source, over which the mean of decoded frames is taken


@dataclass(frozen=True)
class Converted:
    """The report of `Converter.convert_file`.

    Attributes:
        seconds: The duration of the source and of the result in seconds.
        source_rate: The sample rate of the source in Hz.
        level: The level of the source.
        gain: The factor that was applied against clipping, 1.0 for none.
        notes: Messages for the user about the source.
    """

    seconds: float
    source_rate: int
    level: Level
    gain: float
    notes: tuple[str, ...]


class Converter:
    """A voice converter, which consists of a bundle and a vocoder.

    Several threads may share a converter. Convert a voice only with the consent of its owner.

    Attributes:
        bundle: The trained model, from the log-mels of a source to log-mels in another voice.
        vocoder: The vocoder, from log-mels to a waveform.
    """

    def __init__(self, bundle: Bundle, vocoder: AnyVocoder | None = None) -> None:
        """Combine a bundle and a vocoder.

        Args:
            bundle: The bundle.
            vocoder: The vocoder. None stands for the neural vocoder in the package if it fits the bundle's log-mels, and
                otherwise for Griffin-Lim.

        Raises:
            InputError: The log-mels of the vocoder have other settings than those of the bundle.
        """
        self.bundle = bundle
        self.vocoder = new_vocoder(None, bundle.config.mel) if vocoder is None else vocoder
        check_vocoder(self.vocoder, bundle.config.mel)

    @classmethod
    def load(
        cls, folder: str | Path | None = None, device: str | torch.device = "cpu", vocoder: str | None = None
    ) -> Converter:
        """Read a bundle and a vocoder.

        Args:
            folder: The folder of the bundle; None for the bundle in the package.
            device: The device of the networks.
            vocoder: `neural`, `griffin-lim`, `hifigan`, or the folder of a neural vocoder; None as in the constructor.

        Raises:
            InputError: The bundle or the vocoder is missing or damaged, they do not fit, or the device does not exist.
        """
        bundle = load_bundle(folder, device)
        return cls(bundle, new_vocoder(vocoder, bundle.config.mel, device))

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, device: str | torch.device = "cpu"
    ) -> Converter:
        """Read a converter that `save_pretrained` or `push_to_hub` wrote.

        Args:
            name: A folder, or a repository on the Hugging Face Hub, `owner/name`. It has the files of a bundle, and in
                vocoder/ those of a neural vocoder. Without vocoder/ the vocoder is chosen as in the constructor.
            revision: A branch, a tag or a commit of the repository; None for the newest commit.
            device: The device of the networks.

        Raises:
            InputError: The folder or the repository does not exist or cannot be read, and for the reasons of `load`.
        """
        folder = pretrained_folder(name, revision)
        vocoder = str(folder / VOCODER) if (folder / VOCODER).is_dir() else None
        return cls.load(folder, device, vocoder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the bundle and a neural vocoder into a folder, whole or not at all.

        Raises:
            InputError: The folder has other files, which would be lost, or it cannot be written.
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
        """Upload the converter to the Hugging Face Hub, and return the address of the commit.

        Args:
            name: The repository, `owner/name`, which is created if it does not exist.
            private: Whether a new repository is private.

        Raises:
            InputError: The Hub cannot be reached, or the user has no permission (`hf auth login`).
        """
        with tempfile.TemporaryDirectory() as parent:
            self.save_pretrained(folder := Path(parent) / "converter")
            return upload(folder, name, private)

    @property
    def sample_rate(self) -> int:
        """The sample rate of converted waveforms in Hz."""
        return self.bundle.sample_rate

    def voice(self, recordings: Recording | Sequence[Recording], sample_rate: int | None = None) -> Voice:
        """Return the voice of a speaker from one or more recordings, which are weighted by their durations.

        Args:
            recordings: Paths, or waveforms (N,).
            sample_rate: The sample rate of waveforms in Hz.

        Raises:
            InputError: The list is empty; a recording cannot be read, is silent or is shorter than an analysis window; or
                waveforms come without a sample rate.
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
        """Return a voice that is adapted to its recordings, so that conversions sound more like them.

        Args:
            voice: The voice, from `voice`.
            recordings: Recordings of the speaker, as in `voice`. A minute is enough.
            sample_rate: The sample rate of waveforms in Hz.
            steps: The number of updates.
            seed: The seed of all random numbers.

        Raises:
            InputError: All recordings are too short, the vocoder is not the neural one, and for the reasons of `voice`.
        """
        from rwae_audio.conversion.adaptation import adapted, example  # it takes a while, and few need it

        examples = [example(reading) for reading in self._readings(recordings, sample_rate)]
        return adapted(self, voice, examples, steps, seed)

    def load_voice(self, path: str | Path) -> Voice:
        """Read a voice that `save_voice` or rwae-embed wrote.

        Raises:
            InputError: The file is of another kind, its voice is for another bundle, or it is adapted to another vocoder.
        """
        voice = read_voice(path, self.bundle)
        try:
            self.vocoder_of(voice)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return voice

    def vocoder_of(self, voice: Voice) -> AnyVocoder:
        """Return the vocoder for a voice: it knows the static code, and has the filters of an adapted voice.

        Raises:
            InputError: The voice is adapted to another vocoder.
        """
        vocoder = self.vocoder
        if voice.filters is None:
            return vocoder.of(voice.code, self.bundle.digest) if isinstance(vocoder, Vocoder) else vocoder
        if not isinstance(vocoder, Vocoder) or vocoder.digest != voice.filters.vocoder:
            here = f"{vocoder.digest[:12]}…" if isinstance(vocoder, Vocoder) else vocoder.name
            raise InputError(
                f"the voice is adapted to vocoder {voice.filters.vocoder[:12]}…; expected one adapted to this one, {here}"
            )
        from rwae_audio.conversion.adaptation import with_filters

        return with_filters(vocoder, voice.filters).of(voice.code, self.bundle.digest)

    def save_voice(self, path: str | Path, voice: Voice) -> None:
        """Write a voice into a safetensors file for `load_voice` and `rwae-vc --voice`."""
        write_voices(path, self.bundle, {"voice": voice}, filters=voice.filters)

    def convert(
        self, waveform: Waveform, sample_rate: int, voice: Voice, *, pitch: str = "target", seed: int = 0
    ) -> Waveform:
        """Convert a waveform: the result has the words of the source and the given voice.

        Args:
            waveform: The source, (N,) or (N, 1), or a batch of sources, (B, N). Floats, or integers of 8, 16 or 32 bits.
            sample_rate: The sample rate of the source in Hz.
            voice: The voice of the result, from `voice`.
            pitch: `target` moves the F0 contour into the pitch range of the voice, `keep` does not change it. Vocoders
                without F0 ignore it.
            seed: The seed of the vocoder's random numbers.

        Returns:
            Samples (M,) or (B, M) at `self.sample_rate`, float32: an array for an array, a tensor on the CPU for a tensor.
            They are as loud as the source, may exceed ±1, and are silent for a silent source.

        Raises:
            InputError: The waveform has another form or is too short, or an argument has another value.
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
        """Convert a file of any length, as `convert` does, and write the result whole or not at all.

        Args:
            source: The source file, or the result of `read_source`. The latter saves time if a source is converted into
                several voices.
            output: The file to write, .wav or .flac with 16 bits. Its folder is created if it does not exist.
            voice: The voice of the result.
            pitch: `target` or `keep`, as in `convert`.
            seed: The seed of the vocoder's random numbers.

        Raises:
            InputError: The source cannot be read or is shorter than an analysis window, or the output cannot be written.
        """
        reading = source if isinstance(source, Reading) else self.read_source(source)
        sound = self._sound(reading, voice, pitch, seed)
        _make_folder(Path(output).parent)
        gain = write_blocks(output, sound, self.sample_rate, reading.level.active)
        seconds = reading.level.count / self.sample_rate
        return Converted(seconds, reading.source_rate, reading.level, gain, reading.notes)

    def read_source(self, source: str | Path) -> Reading:
        """Read a source for `convert_file`; it may be silent.

        Raises:
            InputError: The source cannot be read or is shorter than an analysis window.
        """
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
        """Return the converted samples, (n,) at a time, as many as the source has, at the level of the vocoder."""
        if pitch not in PITCHES:
            raise InputError(f"pitch is {pitch!r}; expected 'target' or 'keep'")
        return self._silence(source) if source.level.silent else self._speech(source, voice, pitch, seed)

    def _silence(self, source: Reading) -> Iterator[np.ndarray]:
        return (np.zeros(len(block), dtype=np.float32) for block in source.samples())

    def _speech(self, source: Reading, voice: Voice, pitch: str, seed: int) -> Iterator[np.ndarray]:
        frames, vocoder = self._decoded(source, voice), self.vocoder_of(voice)
        f0 = self._contour(source, voice, pitch) if vocoder.takes_pitch else None
        remaining = source.level.count
        for samples in vocoder.chunks(frames, f0, seed):
            yield samples.numpy()
            remaining -= len(samples)
        yield np.zeros(remaining, dtype=np.float32)  # the samples after the centre of the last frame, fewer than a hop

    def _decoded(self, source: Reading, voice: Voice) -> Iterator[Tensor]:
        """Yield the decoded log-mels in chunks (n, n_mels).

        The dynamic codes are fitted to the source (fitting.py). A decoder blurs what tells voices apart. So the mean of the
        frames is moved further from that of the source decoded in its own voice, by BEYOND of the difference of both means.
        """
        bundle, own = self.bundle, voice_of(self.bundle, source, register=False)
        codes, head = fitted_chunks(bundle, own.code, source.log_mels), list[Tensor]()
        while sum(map(len, head)) < HEAD and (chunk := next(codes, None)) is not None:
            head.append(chunk)
        start = torch.cat(head)[:HEAD]
        mean, own_mean = (bundle.decode(one.code, start).mean(0) for one in (voice, own))
        offset = BEYOND * (mean - own_mean)
        for frames in bundle.decode_chunks(voice.code, itertools.chain(head, codes)):
            yield frames + offset

    def _contour(self, source: Reading, voice: Voice, pitch: str) -> Tensor:
        """Return F0 in Hz for the conversion, (T,): the source's contour, moved into the pitch range of the voice.

        It is not moved with `pitch` "keep", or if the pitch range of the source or of the voice is unknown.
        """
        own = source.register if pitch == "target" else None
        if own is None or voice.register is None:
            return source.f0
        return torch.from_numpy(moved(source.f0.double().numpy(), own, voice.register)).float()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder} ({error.strerror}); expected a folder that can be created"
        ) from error
