"""Convert a recording into the voice of another one with networks of rwae-export, without PyTorch.

It needs numpy, onnxruntime, soundfile, and swift-f0 for F0. FOLDER is the output of rwae-export. The dynamic codes are those of
the encoder; rwae-vc also fits them to the source, for which the networks would need gradients.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile


class OnnxConverter:
    """A voice converter with ONNX networks. Recordings are waveforms (N,) at the sample rate of the networks."""

    def __init__(self, folder: Path, pitch: bool = True) -> None:
        """Load the networks.

        Args:
            folder: The output of rwae-export.
            pitch: Whether the result has the pitch of the source, by swift-f0. Otherwise it whispers.
        """
        onnxruntime.set_default_logger_severity(3)
        self.settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self.mel, self.pitch = self.settings["mel"], pitch
        self.arrays = np.load(folder / "arrays.npz", allow_pickle=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.networks = {path.stem: onnxruntime.InferenceSession(path, options) for path in folder.glob("*.onnx")}

    def run(self, name: str, *inputs: np.ndarray) -> np.ndarray:
        """Return the output of the network `name` for its inputs in their order."""
        names = [node.name for node in self.networks[name].get_inputs()]
        return self.networks[name].run(None, dict(zip(names, (x.astype(np.float32) for x in inputs), strict=False)))[0]

    def levelled(self, samples: np.ndarray) -> tuple[np.ndarray, float]:
        """Return a waveform after a high-pass and at the nominal level, and its original level (RMS without pauses)."""
        level, edge = self.settings["level"], round(self.settings["level"]["memory"] * self.mel["sample_rate"])
        padded = np.pad(np.pad(samples.astype(np.float64), (edge, 0), mode="edge"), (0, edge))
        powers = np.exp(-2j * np.pi * np.fft.rfftfreq(len(padded)))[:, None] ** np.arange(3)
        response = np.prod([(powers @ zeros) / (powers @ poles) for poles, zeros in self.arrays["high_pass"]], axis=0)
        passed = np.fft.irfft(np.fft.rfft(padded) * response, len(padded))[edge : edge + len(samples)]
        return passed * 10 ** (level["nominal"] / 20) / self.active(passed), self.active(passed)

    def active(self, samples: np.ndarray) -> float:
        """Return the RMS of speech without its pauses."""
        size = round(self.settings["level"]["block"] * self.mel["sample_rate"])
        blocks = np.split(samples.astype(np.float64), range(size, len(samples), size))
        power = np.array([np.square(block).mean() for block in blocks if len(block)])
        while (louder := power >= power.mean() * 10 ** (-self.settings["level"]["gate"] / 10)).sum() < len(power):
            power = power[louder]
        return float(np.sqrt(power.mean()))

    def stft(self, samples: np.ndarray, window: np.ndarray, mode: str) -> np.ndarray:
        """Return the short-time spectrum (T, bins) of a waveform.

        Args:
            samples: The waveform, (N,).
            window: The analysis window, (win_length,).
            mode: The padding at both ends, a mode of numpy.pad.
        """
        size, hop = self.mel["n_fft"], self.mel["hop_length"]
        padded = np.pad(samples, size // 2, mode=mode)  # type: ignore[call-overload]
        return np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window)

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """Return the log-mels (T, n_mels) of a waveform at the nominal level."""
        spectrum = np.abs(self.stft(samples, self.arrays["window"], "reflect")) ** self.mel["power"]
        return np.log(np.maximum(spectrum @ self.arrays["mel_filters"], self.mel["floor"]))

    def voice(self, frames: np.ndarray) -> np.ndarray:
        """Return the static code (1, static_dim) of log-mels: the mean over windows, the last of which is right-aligned."""
        size = self.settings["static"]["window"]
        starts = np.maximum(np.minimum(np.arange(0, len(frames), size), len(frames) - size), 0)
        return self.run("static", np.stack([frames[start : start + size] for start in starts])).mean(0, keepdims=True)

    def codes(self, frames: np.ndarray) -> np.ndarray:
        """Return the dynamic codes (T, dynamic_dim) of log-mels.

        Windows overlap. The code of a frame is from the first window that has enough frames after it.
        """
        size, overlap, ahead = (self.settings["dynamic"][name] for name in ("window", "overlap", "ahead"))
        count = 1 + max(-(-(len(frames) - size) // (size - overlap)), 0)
        starts = np.maximum(np.minimum(np.arange(count) * (size - overlap), len(frames) - size), 0)
        windows = np.stack([frames[start : start + size] for start in starts])
        static = np.repeat(self.voice(frames), count, axis=0)
        parts, done = self.run("dynamic", windows, static), 0
        codes = []
        for start, part in zip(starts, parts, strict=True):
            stop = len(part) - (ahead if start + len(part) < len(frames) else 0)
            codes.append(part[done - start : stop])
            done = start + stop
        return np.concatenate(codes)

    def f0(self, samples: np.ndarray) -> tuple[np.ndarray, tuple[int, float, float]]:
        """Return the F0 contour and the register of a waveform at the nominal level.

        Returns:
            F0 in Hz, 0 in unvoiced frames, (T,), and the register: the number of its frames, and a robust mean and deviation
            of ln F0.
        """
        from swift_f0 import SwiftF0  # its hop is that of the log-mels, 256 samples at 16 kHz

        padded = np.pad(samples, (0, 256 - len(samples) % 256)).astype(np.float32)
        track = SwiftF0(threads=1, spin=False).detect(2 * padded, 16000, 60.0, 500.0)
        f0 = np.where(track.confidence >= 0.5, track.pitch_hz, 0.0)
        level = track.loudness_db[f0 > 0]
        if len(level) < 2:
            return f0, (0, 0.0, 0.0)
        loud = level > 10 * np.log10((10 ** (np.sort(level)[len(level) // 2 :] / 10)).mean()) - 12
        low, middle, high = np.quantile(np.log(f0[f0 > 0][loud]), [0.25, 0.5, 0.75])
        return f0, (int(loud.sum()), middle, (high - low) / 1.349)

    def moved(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return the F0 contour of a source, moved into the register of a target, (T,); zeros without `pitch`.

        Args:
            source: The source at the nominal level, (N,).
            target: The target at the nominal level, (M,).
        """
        if not self.pitch:
            return np.zeros(1 + len(source) // self.mel["hop_length"])
        (f0, (own_count, own_mean, own_deviation)), (_, (count, mean, deviation)) = self.f0(source), self.f0(target)
        if not (own_count and count):
            return f0
        factor = np.clip(deviation / max(own_deviation, 1e-3) if count >= 50 else 1.0, 1 / 6, 6)
        logs = (np.log(np.maximum(f0, 1)) - own_mean) * factor + mean
        return np.where(f0 > 0, np.exp(logs).clip(60, 500), 0)

    def buzz(self, f0: np.ndarray) -> np.ndarray:
        """Return the harmonic source for F0 (T,), ((T - 1) * hop,); its level in voiced frames is that of white noise."""
        rate, hop = self.mel["sample_rate"], self.mel["hop_length"]
        steps = np.arange(hop) / hop
        before, after = np.where(f0[:-1] > 0, f0[:-1], f0[1:]), np.where(f0[1:] > 0, f0[1:], f0[:-1])
        frequency = np.maximum((before[:, None] + (after - before)[:, None] * steps).ravel(), 1)
        voiced = ((f0[:-1] > 0)[:, None] * (1 - steps) + (f0[1:] > 0)[:, None] * steps).ravel()
        angle, harmonics = 2 * np.pi * np.cumsum(frequency / rate), np.floor(rate / 2 / frequency)
        half = np.sin(angle / 2)
        near_zero = np.abs(half) < 1e-6
        total = np.sin((harmonics + 0.5) * angle) / (2 * np.where(near_zero, 1, half)) - 0.5
        return np.where(near_zero, harmonics, total) * np.sqrt(2 / harmonics) * voiced

    def vocode(self, frames: np.ndarray, f0: np.ndarray, voice: np.ndarray) -> np.ndarray:
        """Return the waveform ((T - 1) * hop,) of log-mels (T, n_mels), F0 (T,) and a static code (1, static_dim)."""
        size, hop, window = self.mel["n_fft"], self.mel["hop_length"], self.arrays["window"]
        buzz = self.buzz(f0)
        sources = (buzz, np.random.default_rng(0).standard_normal(len(buzz)))
        spectra = (self.stft(source, window / np.sqrt(np.square(window).sum()), "constant") for source in sources)
        spectra = (np.stack([spectrum.real, spectrum.imag], axis=-1)[None] for spectrum in spectra)
        seen = [voice] if self.settings["vocoder_sees_static"] else []
        spectrum = self.run("vocoder", frames[None], f0[None], *spectra, *seen)[0]
        parts = np.fft.irfft(spectrum[..., 0] + 1j * spectrum[..., 1], size) * window
        total = np.zeros((2, size + hop * (len(parts) - 1)))
        for i, part in enumerate(parts):
            total[:, i * hop : i * hop + size] += part, np.square(window)
        return (total[0] / np.maximum(total[1], 1e-11))[size // 2 : size // 2 + len(buzz)]

    def convert(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return a source (N,) converted into the voice of a target (M,), as loud as the source, (N,)."""
        (source_speech, level), (target_speech, _) = self.levelled(source), self.levelled(target)
        frames, beyond = self.frames(source_speech), self.settings["beyond"]
        codes, voice, own = self.codes(frames)[None], self.voice(self.frames(target_speech)), self.voice(frames)
        means = [self.run("decoder", one, codes[:, : beyond["frames"]])[0].mean(0) for one in (voice, own)]
        log_mels = self.run("decoder", voice, codes)[0] + beyond["share"] * (means[0] - means[1])
        samples = self.vocode(log_mels, self.moved(source_speech, target_speech), voice)
        return np.pad(samples, (0, len(source) - len(samples))) * level / self.active(samples)


def read(path: Path, rate: int) -> np.ndarray:
    """Read a recording, (N,). Exits with a message unless its sample rate is `rate`, as numpy cannot resample."""
    samples, actual_rate = soundfile.read(path, always_2d=True)
    if actual_rate != rate:
        raise SystemExit(f"{path} has {actual_rate} Hz; expected {rate} Hz")
    return samples.mean(1)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("folder", "source", "target", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--no-f0", action="store_true", help="whisper, so that swift-f0 is not needed")
    parser.add_argument("--against-torch", action="store_true", help="time the converter in the package as well")
    options = parser.parse_args()
    converter = OnnxConverter(options.folder, not options.no_f0)
    rate = converter.mel["sample_rate"]
    source, target = read(options.source, rate), read(options.target, rate)
    start = time.perf_counter()
    samples = converter.convert(source, target)
    print(f"onnxruntime: {time.perf_counter() - start:.2f} s for {len(source) / rate:.2f} s of speech")
    soundfile.write(options.out, samples / max(1.0, np.abs(samples).max()), rate)
    if options.against_torch:
        from rwae_audio import Converter

        own = Converter.load()
        start = time.perf_counter()
        own.convert(source, rate, own.voice(target, rate))
        print(f"PyTorch: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
