"""Export of a converter as ONNX networks, for programs without PyTorch.

The exported folder has up to four networks, for any number B of windows or recordings and any number T of frames:

    static.onnx    frames (B, T, n_mels)                                      → static (B, static_dim)
    dynamic.onnx   frames (B, T, n_mels)[, static (B, static_dim)]            → codes (B, T, dynamic_dim)
    decoder.onnx   static (B, static_dim), codes (B, T, dynamic_dim)          → frames (B, T, n_mels)
    vocoder.onnx   frames, f0 (B, T) in Hz, buzz and hiss (B, T, bins, 2)
                   [, static (B, static_dim)]                                 → spectrum (B, T, bins, 2)

Frames are log-mels, not normalised. The last dimension of spectra has the real and the imaginary part. The program itself
computes the vocoder's sources (buzz and hiss) and the inverse transform. Log-mels and windows are described in settings.json
and arrays.npz.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rwae_audio.conversion.converter import BEYOND, HEAD, Converter
from rwae_audio.conversion.pitch import fundamental
from rwae_audio.conversion.vocoders.neural import Vocoder, buzz
from rwae_audio.data.audio import load_audio
from rwae_audio.data.features import mel_filters
from rwae_audio.data.level import CUTOFF, GATE, GATE_BLOCK, MEMORY, NOMINAL, QUALITIES, high_pass_section
from rwae_audio.files import ASSETS, InputError, whole_folder, write_json
from rwae_audio.inference.bundle import Bundle
from rwae_audio.inference.streaming import shared_frames

OPSET = 17
TOLERANCE = 1e-4  # relative to the largest magnitude in a result, or to 1 if that is larger
LENGTHS = (0.5, 1.7, 4.0)  # seconds, the durations of the recordings on which the networks are checked
RESULTS = {"static": "static", "dynamic": "codes", "decoder": "frames", "vocoder": "spectrum"}  # network → its output


class _Network(nn.Module):
    """The base of the exported networks of a bundle, with the normalisation of frames."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.model = bundle.model
        self.register_buffer("mean", bundle.normaliser.mean)
        self.register_buffer("deviation", bundle.normaliser.deviation)

    def normalised(self, frames: Tensor) -> Tensor:
        """Return normalised frames, (B, T, n_mels)."""
        return (frames - self.mean) / self.deviation


class StaticNetwork(_Network):
    """The static encoder, from log-mels to the static code."""

    def forward(self, frames: Tensor) -> Tensor:
        """Return the static code (B, static_dim) of log-mels (B, T, n_mels)."""
        return self.model.static_encoder(self.normalised(frames), None).mean


class DynamicNetwork(_Network):
    """The dynamic encoder, from log-mels, and the static code if the encoder uses it, to dynamic codes."""

    def forward(self, frames: Tensor, static: Tensor | None = None) -> Tensor:
        """Return the dynamic codes (B, T, dynamic_dim) of log-mels (B, T, n_mels), with static codes (B, static_dim)."""
        return self.model.encode_dynamic(self.normalised(frames), static, None).mean  # type: ignore[arg-type]


class DecoderNetwork(_Network):
    """The decoder, from codes to log-mels."""

    def forward(self, static: Tensor, codes: Tensor) -> Tensor:
        """Return log-mels (B, T, n_mels) for static codes (B, static_dim) and dynamic codes (B, T, dynamic_dim)."""
        return self.model.decoder(static, codes) * self.deviation + self.mean


class VocoderNetwork(nn.Module):
    """The vocoder without its transforms, from the spectra of its sources to the spectrum of the waveform."""

    def __init__(self, vocoder: Vocoder) -> None:
        super().__init__()
        self.vocoder = vocoder

    def forward(self, frames: Tensor, f0: Tensor, buzz: Tensor, hiss: Tensor, static: Tensor | None = None) -> Tensor:
        """Return the spectrum of the waveform, (B, T, bins, 2).

        Args:
            frames: Log-mels (B, T, n_mels).
            f0: F0 in Hz, 0 in unvoiced frames, (B, T).
            buzz: The spectrum of the harmonic source, (B, T, bins, 2).
            hiss: The spectrum of the noise source, (B, T, bins, 2).
            static: The static codes of the voices, (B, static_dim), for a vocoder that knows voices.
        """
        real, imaginary, gain = self.vocoder.filters(frames, f0, static)
        parts = real * buzz[..., 0] - imaginary * buzz[..., 1], real * buzz[..., 1] + imaginary * buzz[..., 0]
        return torch.stack(parts, dim=-1) + gain[..., None] * hiss


def export(converter: Converter, folder: str | Path) -> dict[str, float]:
    """Write the networks of a converter, settings.json and arrays.npz into a new folder, whole or not at all.

    Args:
        converter: The converter.
        folder: The folder.

    Returns:
        The largest difference between the results of onnxruntime and PyTorch by network, relative to the largest magnitude.

    Raises:
        InputError: The folder exists or cannot be written, the extra `onnx` is missing, or the model cannot be exported.
        RuntimeError: A network differs from PyTorch by more than TOLERANCE.
    """
    if Path(folder).exists():
        raise InputError(f"{folder} exists already; expected a new folder")
    _check_exportable(converter)
    bundle, differences = converter.bundle, dict[str, float]()
    networks: dict[str, nn.Module] = {
        "static": StaticNetwork(bundle),
        "dynamic": DynamicNetwork(bundle),
        "decoder": DecoderNetwork(bundle),
    }
    if isinstance(converter.vocoder, Vocoder):
        networks["vocoder"] = VocoderNetwork(converter.vocoder)
    examples = [_example(converter, seconds) for seconds in LENGTHS]
    with whole_folder(folder) as temporary:
        for name, network in networks.items():
            path = temporary / f"{name}.onnx"
            _write(network.eval(), examples[0][name], path)
            differences[name] = max(_difference(network, path, example[name]) for example in examples)
            if not differences[name] <= TOLERANCE:
                raise RuntimeError(f"{name}.onnx differs from PyTorch by {differences[name]:.1e}, over {TOLERANCE}")
        write_json(temporary / "settings.json", settings(converter))
        np.savez(temporary / "arrays.npz", **_arrays(converter))  # type: ignore[arg-type]
    return differences


def settings(converter: Converter) -> dict[str, Any]:
    """Return the content of settings.json: all settings of log-mels, levels and windows that a program needs."""
    config = converter.bundle.config
    overlap, ahead = shared_frames(config.model, config.mel.segment)
    return {
        "bundle": converter.bundle.digest,
        "mel": {**config.mel.to_table(), "power": config.mel.power, "floor": config.mel.floor},
        "level": {"cutoff": CUTOFF, "memory": MEMORY, "block": GATE_BLOCK, "gate": GATE, "nominal": NOMINAL},
        "static": {"window": converter.bundle.model.embedding_frames(config.mel.segment)},
        "dynamic": {
            "window": config.mel.segment,
            "overlap": overlap,
            "ahead": ahead,
            "sees_static": config.model.dynamic_sees_static,
        },
        "beyond": {"share": BEYOND, "frames": HEAD},
        "vocoder": isinstance(converter.vocoder, Vocoder),
        "vocoder_sees_static": _knows_voices(converter),
    }


def _knows_voices(converter: Converter) -> bool:
    """Return whether the vocoder knows the static codes of the bundle."""
    return isinstance(converter.vocoder, Vocoder) and converter.vocoder.bundle == converter.bundle.digest


def _arrays(converter: Converter) -> dict[str, np.ndarray]:
    """Return the mel filters (bins, n_mels), the Hann window (n_fft,) and the sections (2, 2, 3) of the high-pass."""
    mel = converter.bundle.config.mel
    sections = [torch.stack(high_pass_section(mel.sample_rate, quality)).numpy() for quality in QUALITIES]
    window = torch.hann_window(mel.win_length).numpy()
    return {"mel_filters": mel_filters(mel).numpy(), "window": window, "high_pass": np.stack(sections)}


def _check_exportable(converter: Converter) -> None:
    """Raise InputError if the model cannot be exported, or if the extra `onnx` is missing."""
    config = converter.bundle.config.model
    if config.actions:
        raise InputError(f"this model has {config.actions} actions; expected a model without actions")
    if config.feedback:
        raise InputError(
            "the dynamic encoder of this model has its own codes as input; expected a model without feedback"
        )
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"{name} is not installed; expected pip install 'rwae-audio[onnx]'")


def _example(converter: Converter, seconds: float) -> dict[str, dict[str, Tensor]]:
    """Return example inputs of each network from the demo corpus, with two windows for the encoders.

    `seconds` is the duration of the recording.
    """
    bundle, mel = converter.bundle, converter.bundle.config.mel
    paths = sorted((ASSETS / "demo").rglob("*.ogg"))[:8]
    samples = np.concatenate([load_audio(path, mel.sample_rate) for path in paths])[: round(seconds * mel.sample_rate)]
    frames = bundle.frames(samples)
    halves = torch.stack([frames[: len(frames) // 2], frames[-(len(frames) // 2) :]])
    voice = bundle.voice(frames)[None]
    dynamic = {"frames": halves}
    if bundle.config.model.dynamic_sees_static:
        dynamic["static"] = voice.expand(2, -1)
    example = {
        "static": {"frames": halves},
        "dynamic": dynamic,
        "decoder": {"static": voice, "codes": bundle.encode(frames)[None]},
    }
    f0 = torch.from_numpy(fundamental(samples, mel)).float()[None]
    if isinstance(converter.vocoder, Vocoder):
        harmonics = buzz(f0, mel, torch.zeros(1, 1))[0]
        noise = torch.randn(harmonics.shape, generator=torch.Generator().manual_seed(0))
        spectra = torch.view_as_real(converter.vocoder.spectra(torch.cat([harmonics, noise])))
        example["vocoder"] = {"frames": frames[None], "f0": f0, "buzz": spectra[:1], "hiss": spectra[1:]}
        if _knows_voices(converter):
            example["vocoder"]["static"] = voice
    return example


def _write(network: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> None:
    """Export a network to an ONNX file with free batch and time dimensions.

    The exporter is the one that traces the network, since the exporter based on torch.export takes minutes.
    """
    result = RESULTS[path.stem]
    axes = {name: {0: "batch"} | ({1: "time"} if name != "static" else {}) for name in [*inputs, result]}
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            input_names=[*inputs],
            output_names=[result],
            dynamic_axes=axes,
            opset_version=OPSET,
        )


def _difference(network: nn.Module, path: Path, inputs: Mapping[str, Tensor]) -> float:
    """Return the largest difference of onnxruntime's result from PyTorch's, relative to the largest magnitude."""
    with torch.no_grad():
        expected = network(*inputs.values()).numpy()
    result = session(path)({name: value.numpy() for name, value in inputs.items()})
    return float(np.abs(result - expected).max() / max(1.0, np.abs(expected).max()))


def session(path: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Return an ONNX network as a function from its inputs, by name, to its output. It runs on one thread."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # no warnings
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: runtime.run(None, dict(inputs))[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings of the tracer about constants; the exported networks are checked afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
