"""Bundles, which a run leaves and every command takes: a folder with model.safetensors, config.json and a card."""

from __future__ import annotations

import hashlib
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
    """A trained model with all that it needs to read and write log-mels.

    dynamic_mean (dynamic_dim,): the training speakers' mean dynamic vector, for the `centred` score; digest: SHA-256
    of model.safetensors; synthetic: trained on synthetic speech; meta: what else the card says; card: its README.md.
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
        """Hz of the waveforms that go in and come out."""
        return self.config.mel.sample_rate

    def to(self, device: str | torch.device) -> Bundle:
        """Move the model to a device and return the bundle. Raises InputError when the device is not here."""
        self.model.to(find_device(device))
        return self

    def write(self, folder: Path) -> None:
        """Write the bundle's files into a folder that exists. Weights that float16 holds exactly are written in it, so that
        those of a bundle that was read keep their digest."""
        half = all(torch.equal(value, value.half().float()) for value in self.model.parameters())
        mean, meta = self.dynamic_mean, self.meta
        parts = (self.config, self.model, self.normaliser, mean)
        _write_files(folder, *parts, synthetic=self.synthetic, meta=meta, card=self.card, half=half)

    def frames(self, samples: np.ndarray | Tensor) -> Tensor:
        """Return the log-mels (T, n_mels) of a waveform (N,) at the bundle's rate, brought to the level of all speech.

        Raises InputError when it is under one analysis window, is no waveform, or has samples that are not finite.
        """
        speech = speech_of(waveform(samples, "samples"), self.sample_rate)
        return torch.cat([*speech.log_mels(self.config.mel)])

    def embed(self, samples: np.ndarray | Tensor) -> Embeddings:
        """Waveform (N,) at the bundle's rate → static (1, static_dim), dynamic (1, dynamic_dim), codes (T, dynamic_dim)."""
        frames = self.frames(samples)
        lengths = np.array([len(frames)])
        return embed(self.model, self.normaliser, self.config.mel.segment, frames.numpy(), np.array([0]), lengths)

    def encode(self, frames: Tensor) -> Tensor:
        """Return what is said in log-mels (T, n_mels): dynamic codes (T, dynamic_dim), in windows as long as in training.

        A dynamic encoder that sees z^c is given the recording's own. Codes that depend on where a segment begins are
        those of the segments that the recording is cut into.
        """
        return torch.cat([*self.encode_chunks(lambda: [frames])])

    def voice(self, *targets: Tensor) -> Tensor:
        """Log-mels (T, n_mels) of one or more recordings of a speaker → who speaks: one static code (static_dim,).

        The mean over non-overlapping windows of each recording, as in training; a recording weighs as much as it is long.
        """
        return pooled_voice([self.voice_chunks([target]) for target in targets])

    def decode(self, voice: Tensor, codes: Tensor) -> Tensor:
        """A static code (static_dim,) and dynamic codes (T, dynamic_dim) → log-mels (T, n_mels)."""
        return torch.cat([*self.decode_chunks(voice, [codes])])

    def encode_chunks(self, recording: Recording) -> Iterator[Tensor]:
        """`encode` of a recording that is called for its log-mels (n, n_mels at a time) once a pass: its codes, (n,
        dynamic_dim) at a time, in memory that does not grow with its length."""
        return codes_of(self.model, self.normaliser, self.config.mel.segment, recording)

    def voice_chunks(self, target: Iterable[Tensor]) -> tuple[Tensor, int]:
        """The voice (static_dim,) of one recording that comes (n, n_mels) at a time, and how many frames it has."""
        return voice_of(self.model, self.normaliser, self.config.mel.segment, target)

    def decode_chunks(
        self, voice: Tensor, codes: Iterable[Tensor], modulation: Tensor | None = None
    ) -> Iterator[Tensor]:
        """`decode` of codes that come (n, dynamic_dim) at a time: log-mels, (n, n_mels) at a time.

        modulation: What an adapted voice adds to the decoder's gains and shifts.
        """
        return frames_of(self.model, self.normaliser, voice, codes, modulation)

    def convert(self, source: Tensor, *targets: Tensor) -> Tensor:
        """Say what `source` says in the voice of `targets`; log-mels (T, n_mels) in, log-mels (T, n_mels) out."""
        return self.decode(self.voice(*targets), self.encode(source))

    def reconstruct(self, source: Tensor) -> Tensor:
        """The source through its own codes: convert(source, source)."""
        return self.convert(source, source)


def pooled_voice(voices: Iterable[tuple[Tensor, int]]) -> Tensor:
    """One voice (static_dim,) of a speaker's recordings, each (its voice, its frames): their mean, weighted by frames."""
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
    """Write the folder whole or not at all; card: its README.md; half: what was learned in float16, to be half as large."""
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
        "sha256": _sha256(folder / "model.safetensors"),
        "synthetic": synthetic,
        **config.tables(),
        "meta": dict(meta),
    }
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")


def load_bundle(folder: str | Path | None = None, device: str | torch.device = "cpu") -> Bundle:
    """Read a bundle, the shipped one when `folder` is None; the model is in evaluation mode, on `device`.

    Raises InputError when a file is missing, when the weights are not the ones that config.json vouches for, and when
    a tensor is missing or has another shape than the configuration asks for. Also when the device is not here.
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
        origin = "; it is from a newer version of rwae-audio: expected that one, or a later one" if newer else ""
        raise InputError(f"{folder} has bundle format {version}; this version reads format {FORMAT}{origin}")
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
        raise InputError(f"{weights} has a tensor {min(unknown)}, which this configuration has no place for")
    digest, expected = _sha256(weights), str(description["sha256"])
    if digest != expected:
        raise InputError(f"{weights} has SHA-256 {digest[:12]}…; expected {expected[:12]}… (it was altered)")
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    normaliser = Normaliser(tensors["normaliser.mean"], tensors["normaliser.deviation"])
    mean = tensors["dynamic_mean"].numpy().astype(np.float64)
    synthetic, meta = bool(description.get("synthetic")), description.get("meta", {})
    card = folder / "README.md"
    text = read_text(card, "a bundle's card") if card.exists() else ""
    return Bundle(config, model.eval().to(device), normaliser, mean, digest, synthetic, meta, text)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
