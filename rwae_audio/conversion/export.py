"""A converter as ONNX networks, for programs without PyTorch.

The folder has four networks. B windows or recordings, T frames; both are free:

    static.onnx    frames (B, T, n_mels)                                      → static (B, static_dim)
    dynamic.onnx   frames (B, T, n_mels)[, static (B, static_dim)]            → codes (B, T, dynamic_dim)
    decoder.onnx   static (B, static_dim), codes (B, T, dynamic_dim)          → frames (B, T, n_mels)
    vocoder.onnx   frames, f0 (B, T) in Hz, buzz and hiss (B, T, bins, 2)     → spectrum (B, T, bins, 2)

Frames are log-mels as they are, not normalised. Spectra have real and imaginary parts; the vocoder's sources and the inverse
transform are left to the program. settings.json and arrays.npz say how its recordings and windows are to be made.
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

from rwae_audio.conversion.converter import Converter
from rwae_audio.conversion.pitch import fundamental
from rwae_audio.conversion.vocoders.neural import Vocoder, buzz
from rwae_audio.data.audio import load_audio
from rwae_audio.data.features import mel_filters
from rwae_audio.data.level import CUTOFF, GATE, GATE_BLOCK, MEMORY, NOMINAL, QUALITIES, high_pass_section
from rwae_audio.files import ASSETS, InputError, whole_folder, write_json
from rwae_audio.inference.bundle import Bundle
from rwae_audio.inference.streaming import shared_frames

OPSET = 17
TOLERANCE = 1e-4  # of the largest magnitude in a result, or of 1 where that is less
LENGTHS = (0.5, 1.7, 4.0)  # seconds of the recordings that the networks are checked on


class _Network(nn.Module):
    """A network with the normalisation of its frames."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.model = bundle.model
        self.register_buffer("mean", bundle.normaliser.mean)
        self.register_buffer("deviation", bundle.normaliser.deviation)

    def normalised(self, frames: Tensor) -> Tensor:
        """Return the frames (B, T, n_mels) as the model reads them."""
        return (frames - self.mean) / self.deviation


class StaticNetwork(_Network):
    """The static encoder."""

    def forward(self, frames: Tensor) -> Tensor:
        return self.model.static_encoder(self.normalised(frames), None).mean


class DynamicNetwork(_Network):
    """The dynamic encoder. One that does not see z^c is not given it."""

    def forward(self, frames: Tensor, static: Tensor | None = None) -> Tensor:
        return self.model.encode_dynamic(self.normalised(frames), static, None).mean  # type: ignore[arg-type]


class DecoderNetwork(_Network):
    """The decoder."""

    def forward(self, static: Tensor, codes: Tensor) -> Tensor:
        return self.model.decoder(static, codes) * self.deviation + self.mean


class VocoderNetwork(nn.Module):
    """The vocoder from the spectra of its sources to the spectrum of its sound."""

    def __init__(self, vocoder: Vocoder) -> None:
        super().__init__()
        self.vocoder = vocoder

    def forward(self, frames: Tensor, f0: Tensor, buzz: Tensor, hiss: Tensor) -> Tensor:
        real, imaginary, gain = self.vocoder.filters(frames, f0)
        parts = real * buzz[..., 0] - imaginary * buzz[..., 1], real * buzz[..., 1] + imaginary * buzz[..., 0]
        return torch.stack(parts, dim=-1) + gain[..., None] * hiss


def export(converter: Converter, folder: str | Path) -> dict[str, float]:
    """Write a converter's networks, settings.json and arrays.npz into a new folder, whole or not at all.

    Returns:
        The largest difference between onnxruntime and PyTorch by network, relative to the largest magnitude.

    Raises:
        InputError: The folder exists or cannot be written, the extra `onnx` is missing, or the model has no ONNX form.
        RuntimeError: A network differs from PyTorch by more than TOLERANCE.
    """
    if Path(folder).exists():
        raise InputError(f"{folder} is there already; expected a new folder")
    _check_form(converter)
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
    """Return what a program must know of the front end, the windows and the sizes."""
    config = converter.bundle.config
    overlap, ahead = shared_frames(config.model, config.mel.segment)
    return {
        "bundle": converter.bundle.digest,
        "mel": {**config.mel.to_table(), "floor": config.mel.floor},
        "level": {"cutoff": CUTOFF, "memory": MEMORY, "block": GATE_BLOCK, "gate": GATE, "nominal": NOMINAL},
        "static": {"window": converter.bundle.model.embedding_frames(config.mel.segment)},
        "dynamic": {
            "window": config.mel.segment,
            "overlap": overlap,
            "ahead": ahead,
            "sees_static": config.model.dynamic_sees_static,
        },
        "vocoder": isinstance(converter.vocoder, Vocoder),
    }


def _arrays(converter: Converter) -> dict[str, np.ndarray]:
    """Return the mel filters (bins, n_mels), the Hann window (n_fft,) and the sections (2, 2, 3) of the high-pass."""
    mel = converter.bundle.config.mel
    sections = [torch.stack(high_pass_section(mel.sample_rate, quality)).numpy() for quality in QUALITIES]
    window = torch.hann_window(mel.win_length).numpy()
    return {"mel_filters": mel_filters(mel).numpy(), "window": window, "high_pass": np.stack(sections)}


def _check_form(converter: Converter) -> None:
    config = converter.bundle.config.model
    if config.actions:
        raise InputError(f"this model has {config.actions} actions; expected one that converts any recording")
    if config.feedback:
        raise InputError("this model's dynamic encoder sees its own codes, one by one; expected one without feedback")
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"{name} is not installed; expected pip install 'rwae-audio[onnx]'")


def _example(converter: Converter, seconds: float) -> dict[str, dict[str, Tensor]]:
    """Return the inputs of each network for a recording of the demo corpus; the windows are a batch of two."""
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
    if isinstance(converter.vocoder, Vocoder):
        f0 = torch.from_numpy(fundamental(samples, mel)).float()[None]
        hum = buzz(f0, mel, torch.zeros(1, 1))[0]
        noise = torch.randn(hum.shape, generator=torch.Generator().manual_seed(0))
        spectra = torch.view_as_real(converter.vocoder.spectra(torch.cat([hum, noise])))
        example["vocoder"] = {"frames": frames[None], "f0": f0, "buzz": spectra[:1], "hiss": spectra[1:]}
    return example


RESULTS = {"static": "static", "dynamic": "codes", "decoder": "frames", "vocoder": "spectrum"}


def _write(network: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> None:
    """Trace a network into an ONNX file whose batch and time are free.

    The exporter is the one that traces. The one on torch.export takes minutes where this one takes seconds.
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
    """Return the largest difference between the results of onnxruntime and of PyTorch, relative to the largest magnitude."""
    with torch.no_grad():
        expected = network(*inputs.values()).numpy()
    result = session(path)({name: value.numpy() for name, value in inputs.items()})
    return float(np.abs(result - expected).max() / max(1.0, np.abs(expected).max()))


def session(path: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Return an ONNX network as a function of its inputs by their names, on one thread."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors alone
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: runtime.run(None, dict(inputs))[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings of the tracer, which the check makes needless."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
