"""Bundles: a trained model with its settings, in a folder with model.safetensors, config.json and a card (README.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rwae_audio.data.features import Normaliser
from rwae_audio.data.level import speech_of, waveform
from rwae_audio.devices import find_device
from rwae_audio.files import (
    ASSETS,
    InputError,
    put_back,
    read_json,
    read_tensors,
    read_text,
    sha256,
    whole_folder,
    write_tensors,
)
from rwae_audio.inference.embedding import Embeddings, embed
from rwae_audio.inference.streaming import Recording, codes_of, frames_of, voice_of
from rwae_audio.model import RWAE
from rwae_audio.training.trainer import RunConfig

FORMAT = 1
SHIPPED = ASSETS / "bundle"


@dataclass(frozen=True)
class Bundle:
    """A trained model with all that is needed to encode and decode recordings.

    Attributes:
        config: The settings of the run.
        model: The model, in evaluation mode.
        normaliser: The normaliser of log-mels.
        dynamic_mean: The mean dynamic vector of the training speakers, (dynamic_dim,), for the score `centred`.
        digest: The SHA-256 of model.safetensors.
        synthetic: Whether the model was trained on synthetic speech alone.
        meta: Further facts about the training, such as its command, for the card.
        card: The text of README.md.
    """

    config: RunConfig
    model: RWAE
    normaliser: Normaliser
    dynamic_mean: np.ndarray
    digest: str
    synthetic: bool
    meta: Mapping[str, Any]
    card: str = ""

    @property
    def sample_rate(self) -> int:
        """The sample rate of waveforms, in Hz."""
        return self.config.mel.sample_rate

    def to(self, device: str | torch.device) -> Bundle:
        """Move the model to a device and return the bundle. Raises InputError for a device that is not available."""
        self.model.to(find_device(device))
        return self

    def write(self, folder: Path) -> None:
        """Write the files of the bundle into an existing folder.

        If all weights are exact in float16, they are written in it. A bundle that was read thus keeps its digest.
        """
        half = all(torch.equal(value, value.half().float()) for value in self.model.parameters())
        mean, meta = self.dynamic_mean, self.meta
        parts = (self.config, self.model, self.normaliser, mean)
        _write_files(folder, *parts, synthetic=self.synthetic, meta=meta, card=self.card, half=half)

    def frames(self, samples: np.ndarray | Tensor) -> Tensor:
        """Return the log-mels (T, n_mels) of a waveform, after the front end of level.py.

        Args:
            samples: The waveform, (N,), at the sample rate of the bundle.

        Raises:
            InputError: The waveform is shorter than an analysis window, has more than one channel, or has samples that are
                not finite.
        """
        speech = speech_of(waveform(samples, "samples"), self.sample_rate)
        return torch.cat([*speech.log_mels(self.config.mel)])

    def embed(self, samples: np.ndarray | Tensor) -> Embeddings:
        """Return the vectors and codes of a waveform (N,) at the sample rate of the bundle, as of a single utterance.

        Raises InputError as `frames` does.
        """
        frames = self.frames(samples)
        lengths = np.array([len(frames)])
        return embed(self.model, self.normaliser, self.config.mel.segment, frames.numpy(), np.array([0]), lengths)

    def encode(self, frames: Tensor) -> Tensor:
        """Return the dynamic codes (T, dynamic_dim) of a recording, given its log-mels (T, n_mels). See `codes_of`."""
        return torch.cat([*self.encode_chunks(lambda: [frames])])

    def voice(self, *targets: Tensor) -> Tensor:
        """Return the static code (static_dim,) of a speaker, averaged over windows of the speaker's recordings.

        Args:
            targets: The log-mels (T, n_mels) of one or more recordings, which are weighted by their length.
        """
        return pooled_voice([self.voice_chunks([target]) for target in targets])

    def decode(self, voice: Tensor, codes: Tensor) -> Tensor:
        """Return the log-mels (T, n_mels) of a static code (static_dim,) and dynamic codes (T, dynamic_dim)."""
        return torch.cat([*self.decode_chunks(voice, [codes])])

    def encode_chunks(self, recording: Recording) -> Iterator[Tensor]:
        """Yield the codes of `encode` in chunks (n, dynamic_dim), in memory that does not grow with the recording.

        Args:
            recording: A function that returns the log-mels from the start, in chunks (n, n_mels).
        """
        return codes_of(self.model, self.normaliser, self.config.mel.segment, recording)

    def voice_chunks(self, target: Iterable[Tensor]) -> tuple[Tensor, int]:
        """Return the static code (static_dim,) and the number of frames of a recording.

        Args:
            target: The log-mels of the recording, in chunks (n, n_mels).
        """
        return voice_of(self.model, self.normaliser, self.config.mel.segment, target)

    def decode_chunks(self, voice: Tensor, codes: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the log-mels of `decode` in chunks (n, n_mels).

        Args:
            voice: The static code, (static_dim,).
            codes: The dynamic codes, in chunks (n, dynamic_dim).
        """
        return frames_of(self.model, self.normaliser, voice, codes)

    def convert(self, source: Tensor, *targets: Tensor) -> Tensor:
        """Return log-mels (T, n_mels) with the content of `source` in the voice of `targets`.

        Args:
            source: The log-mels of a recording, (T, n_mels).
            targets: The log-mels of recordings of another speaker, each (T, n_mels).
        """
        return self.decode(self.voice(*targets), self.encode(source))

    def reconstruct(self, source: Tensor) -> Tensor:
        """Return the log-mels (T, n_mels) that are decoded from the codes of `source` (T, n_mels)."""
        return self.convert(source, source)


def pooled_voice(voices: Iterable[tuple[Tensor, int]]) -> Tensor:
    """Return the mean static code (static_dim,) of a speaker's recordings, weighted by their frames.

    Args:
        voices: The static code (static_dim,) and the number of frames of each recording.
    """
    codes, frames = zip(*voices, strict=True)
    return torch.from_numpy(np.average(torch.stack(codes).double().numpy(), axis=0, weights=frames)).float()


def save_bundle(
    folder: str | Path,
    config: RunConfig,
    model: RWAE,
    normaliser: Normaliser,
    dynamic_mean: np.ndarray,
    *,
    synthetic: bool,
    meta: Mapping[str, Any],
    card: str,
    half: bool = False,
) -> None:
    """Write the folder of a bundle, whole or not at all.

    Args:
        folder: The folder.
        config: The settings of the run.
        model: The model.
        normaliser: The normaliser of log-mels.
        dynamic_mean: The mean dynamic vector of the training speakers, (dynamic_dim,).
        synthetic: Whether the model was trained on synthetic speech alone.
        meta: Further facts about the training.
        card: The text of README.md.
        half: Whether the weights are rounded to float16, which halves the file.
    """
    with whole_folder(folder) as temporary:
        parts = (config, model, normaliser, dynamic_mean)
        _write_files(temporary, *parts, synthetic=synthetic, meta=meta, card=card, half=half)


def _write_files(
    folder: Path,
    config: RunConfig,
    model: RWAE,
    normaliser: Normaliser,
    dynamic_mean: np.ndarray,
    *,
    synthetic: bool,
    meta: Mapping[str, Any],
    card: str,
    half: bool,
) -> None:
    tensors = {f"model.{name}": value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        tensors |= {f"model.{name}": value.detach().cpu().half() for name, value in model.named_parameters()}
    tensors |= {"normaliser.mean": normaliser.mean.cpu(), "normaliser.deviation": normaliser.deviation.cpu()}
    tensors["dynamic_mean"] = torch.as_tensor(dynamic_mean, dtype=torch.float32)
    write_tensors(folder / "model.safetensors", tensors)
    description = {
        "format": FORMAT,
        "sha256": sha256(folder / "model.safetensors"),
        "synthetic": synthetic,
        **config.tables(),
        "meta": dict(meta),
    }
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")


def load_bundle(folder: str | Path | None = None, device: str | torch.device = "cpu") -> Bundle:
    """Read a bundle.

    Args:
        folder: The folder of the bundle, or None for the bundle in the package.
        device: The device of the model.

    Raises:
        InputError: A file is missing or malformed, the weights do not have the SHA-256 in config.json, a tensor is missing
            or has a wrong shape, or the device is not available.
    """
    device = find_device(device)
    folder = SHIPPED if folder is None else Path(folder)
    put_back(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected a bundle (model.safetensors, config.json)")
    description = read_json(folder / "config.json", "a bundle's configuration")
    if not isinstance(description, dict) or "sha256" not in description:
        raise InputError(f"{folder / 'config.json'} has no sha256; expected a bundle's configuration")
    if (version := description.get("format")) != FORMAT:
        newer = isinstance(version, int) and version > FORMAT
        remedy = " (a newer version of rwae-audio reads it)" if newer else ""
        raise InputError(f"{folder} has bundle format {version}{remedy}; expected format {FORMAT}")
    if missing := [name for name in ("mel", "model", "objective", "train") if name not in description]:
        raise InputError(f"{folder / 'config.json'} has no table {missing[0]!r}; expected a bundle's configuration")
    config = RunConfig.of({name: description[name] for name in ("mel", "model", "objective", "train")}, outside=False)
    weights = folder / "model.safetensors"
    tensors = read_tensors(weights, "the bundle's weights")
    model = RWAE(config.model)
    sizes = {f"model.{name}": value.shape for name, value in model.state_dict().items()}
    sizes |= {
        "normaliser.mean": torch.Size([config.model.n_mels]),
        "normaliser.deviation": torch.Size([config.model.n_mels]),
    }
    sizes["dynamic_mean"] = torch.Size([config.model.dynamic_dim])
    for name, shape in sizes.items():
        if name not in tensors:
            raise InputError(f"{weights} has no tensor {name}; expected shape {tuple(shape)}")
        if tensors[name].shape != shape:
            raise InputError(f"{weights}: {name} has shape {tuple(tensors[name].shape)}; expected {tuple(shape)}")
    if unknown := set(tensors) - set(sizes):
        raise InputError(f"{weights} has a tensor {min(unknown)}; expected only the tensors of its configuration")
    digest, expected = sha256(weights), str(description["sha256"])
    if digest != expected:
        raise InputError(f"{weights} has SHA-256 {digest[:12]}…; expected {expected[:12]}… (the file was altered)")
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    normaliser = Normaliser(tensors["normaliser.mean"], tensors["normaliser.deviation"])
    mean = tensors["dynamic_mean"].numpy().astype(np.float64)
    synthetic, meta = bool(description.get("synthetic")), description.get("meta", {})
    card = folder / "README.md"
    text = read_text(card, "a bundle's card") if card.exists() else ""
    return Bundle(config, model.eval().to(device), normaliser, mean, digest, synthetic, meta, text)
