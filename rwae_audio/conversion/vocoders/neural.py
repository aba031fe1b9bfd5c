"""Log-mel frames and F0 → waveform, by a network that filters a buzz and a hiss.

The log-mels of a decoder say how loud each band is, not where the harmonics lie, and what a voice is heard as hangs on
these. So the sound is made of a source with the wanted F0, and a ConvNeXt over the frames says for every frame and bin of its
spectrum how much of it is heard, and at which phase: the backbone and the inverse short-time Fourier transform of Siuzdak,
"Vocos", ICLR 2024, arXiv 2306.00814, on the sources of Wang, Takaki, Yamagishi, "Neural source-filter waveform models",
2019, arXiv 1810.11946, filtered as in Engel et al., "DDSP", ICLR 2020, arXiv 2001.04643.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.data.features import PRESETS, MelConfig, bin_positions, mel_filters
from rwae_audio.files import (
    ASSETS,
    InputError,
    read_json,
    read_tensors,
    read_text,
    whole_folder,
    write_json,
    write_tensors,
    write_text,
)
from rwae_audio.inference.streaming import between_frames, in_context
from rwae_audio.model.layers import ConvNeXtBlock, over_time
from rwae_audio.model.posterior import Network
from rwae_audio.randomness import generator
from rwae_audio.settings import resolve

QUIETEST, LOUDEST = -16.0, 8.0  # nats, of the filters
F0_CENTRE = math.log(150.0)
SHIPPED = ASSETS / "vocoder"


@dataclass(frozen=True)
class VocoderConfig:
    """mel: the frames that it reads; the ConvNeXt's width (channels), blocks, the expansion within them, and how many frames
    a kernel covers."""

    mel: MelConfig = field(default_factory=lambda: PRESETS["vocoder"])
    width: int = 256
    blocks: int = 5
    expansion: int = 3
    kernel: int = 7

    @property
    def context(self) -> int:
        """Frames on either side of one that its sound depends on: those of the convolutions, and of the windows over it."""
        return (self.blocks + 1) * (self.kernel // 2) + -(-self.mel.n_fft // self.mel.hop_length)


class Backbone(Network):
    """The network from frames (B, T, n_mels + 2) to their filters (B, T, 4 · bins).

    A convolution over time, ConvNeXt blocks and a linear layer, whose results are near 0 at first.
    """

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        width = config.width
        self.first = nn.Conv1d(config.mel.n_mels + 2, width, config.kernel, padding=config.kernel // 2)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, config.kernel, config.expansion, 1.0 / config.blocks) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4 * (config.mel.n_fft // 2 + 1))
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """Run the layers over frames of about mean 0 and variance 1."""
        states = over_time(self.first, frames)
        for block in self.blocks:
            states = block(states)
        return self.head(self.norm(states))


class Vocoder(nn.Module):
    """The network, and the sources that it filters. It begins as a vocoder that takes the mels for the envelope.

    Attributes:
        network: Has all weights, and may run in bfloat16 (see Network). All else is float32.
        meta, card: What the config.json and the README.md of the folder say beside the settings, where it was read.
    """

    name = "neural"
    takes_pitch = True
    window: Tensor
    analysis: Tensor
    spread: Tensor
    gain: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config, self.mel = config, config.mel
        self.meta: Mapping[str, Any] = {}
        self.card = ""
        self.network = Backbone(config)
        window = torch.hann_window(config.mel.win_length)
        level = window.square().sum().sqrt()  # of white noise's spectrum
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("analysis", window / level, persistent=False)
        self.register_buffer("spread", envelope_matrix(config.mel), persistent=False)
        self.register_buffer("gain", mel_filters(config.mel).float().sum(0).log(), persistent=False)

    def forward(self, log_mels: Tensor, f0: Tensor, generator: torch.Generator) -> Tensor:
        """log_mels (B, T, n_mels), f0 (B, T) in Hz, 0 without a voice → samples (B, (T − 1) · hop_length).

        generator: of the hiss, and of where in its period each buzz begins.
        """
        phase = torch.rand(len(f0), 1, generator=generator).to(f0)
        noise = torch.randn(len(f0), (f0.shape[1] - 1) * self.config.mel.hop_length, generator=generator).to(f0)
        return self.filtered(log_mels, f0, buzz(f0, self.config.mel, phase)[0], noise)

    def filtered(self, log_mels: Tensor, f0: Tensor, buzz: Tensor, noise: Tensor) -> Tensor:
        """`forward`, of the sources (B, N)."""
        mel, sources = self.config.mel, self.spectra(torch.cat([buzz, noise])).chunk(2)
        spectrum = _Filtered.apply(*self.controls(log_mels, f0), *sources).transpose(1, 2)
        return torch.istft(spectrum, mel.n_fft, mel.hop_length, mel.win_length, self.window, length=buzz.shape[1])

    def controls(self, log_mels: Tensor, f0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `_Filtered` is told of log_mels (B, T, n_mels) and f0 (B, T): the network's result (B, T, 4 · bins), and
        the exponents of voice and hiss (B, T, bins) that it is added to."""
        has = (f0 > 0).to(log_mels)[..., None]
        pitch = torch.where(f0 > 0, f0.clamp_min(1).log() - F0_CENTRE, torch.zeros(()).to(f0))
        frames = torch.cat([log_mels / 3 + 1, pitch[..., None], has], dim=-1)  # about mean 0, variance 1
        envelope = (log_mels - self.gain) @ self.spread
        return self.network(frames), envelope + (1 - has) * QUIETEST, envelope - 1.5 * has

    def filters(self, log_mels: Tensor, f0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the filters (B, T, bins) in real numbers: the real and imaginary part of the buzz's, and the hiss's."""
        said, voiced, hiss = self.controls(log_mels, f0)
        voiced, hiss, cosine, sine, length = _parts(said, voiced, hiss)
        gain = voiced.clamp(QUIETEST, LOUDEST).exp() * length
        return gain * cosine, gain * sine, hiss.clamp(QUIETEST, LOUDEST).exp()

    def spectra(self, samples: Tensor) -> Tensor:
        """(B, N) → (B, T, bins), of level 1 for white noise of variance 1."""
        mel = self.config.mel
        made = torch.stft(
            samples, mel.n_fft, mel.hop_length, mel.win_length, self.analysis, pad_mode="constant", return_complex=True
        )
        return made.transpose(1, 2)

    def chunks(self, frames: Iterable[Tensor], f0: Tensor | None, seed: int = 0) -> Iterator[Tensor]:
        """Yield samples (m,) at a time, in memory that does not grow with them; they are the same however the frames come.

        Args:
            frames: Log-mels, (n, n_mels) at a time, T in all.
            f0: Hz, 0 without a voice, (T,). None is no voice at all.
            seed: Decides the hiss and where in its period the buzz begins.
        """
        return between_frames(in_context(self._sound, self._rows(frames, f0, seed), self.config.context))

    def _rows(self, pieces: Iterable[Tensor], f0: Tensor | None, seed: int) -> Iterator[Tensor]:
        """Yield for each frame its log-mels, its F0, and the buzz and the hiss after it, (n, n_mels + 1 + 2 · hop_length)."""
        draws, hop = generator(seed, "vocoder"), self.mel.hop_length
        phase = torch.rand(1, 1, generator=draws)
        before, done = torch.zeros(0, self.mel.n_mels + 1), 0
        for frames in pieces:
            pitch = frames.new_zeros(len(frames)) if f0 is None else f0[done : done + len(frames)].to(frames)
            done += len(frames)
            known = torch.cat([before, torch.cat([frames, pitch[:, None]], dim=1)])
            before = known[-1:]
            if len(known) < 2:  # nothing lies between frames yet
                continue
            hum, phase = buzz(known[None, :, -1], self.mel, phase)
            noise = torch.randn(hum.shape, generator=draws)
            yield torch.cat([known[:-1], hum.view(-1, hop), noise.view(-1, hop)], dim=1)
        yield torch.cat([before, before.new_zeros(len(before), 2 * hop)], dim=1)

    @torch.no_grad()
    def _sound(self, rows: Tensor) -> Tensor:
        """Return the samples (n, hop_length) that follow each frame of `_rows`."""
        hop, device = self.mel.hop_length, self.window.device
        frames, hum, noise = rows.to(device).split([self.mel.n_mels + 1, hop, hop], dim=1)
        hum, noise = (part[:-1].reshape(1, -1) for part in (hum, noise))
        sound = self.filtered(frames[None, :, :-1], frames[None, :, -1], hum, noise)
        return F.pad(sound[0].cpu(), (0, hop)).view(-1, hop)


class _Filtered(torch.autograd.Function):
    """The sum of two sources (B, T, bins, complex), filtered as the network says (B, T, 4 · bins): (B, T, bins).

    With v, h, c, s the four parts of what it says: exp(voiced + 4v) · e^{iθ} · buzz + exp(hiss + 4h) · noise, where θ is the
    angle of 1 + 4c + 4is, and both exponents lie between QUIETEST and LOUDEST. The derivative of e^{iθ} needs no quotients
    of complex numbers, which autograd would take.
    """

    @staticmethod
    def forward(ctx: Any, said: Tensor, voiced: Tensor, hiss: Tensor, buzz: Tensor, noise: Tensor) -> Tensor:
        voiced, hiss, cosine, sine, length = _parts(said, voiced, hiss)
        gain = voiced.clamp(QUIETEST, LOUDEST).exp_().mul_(length)
        hummed = torch.complex(gain * cosine, gain * sine).mul_(buzz)
        hissed = noise * hiss.clamp(QUIETEST, LOUDEST).exp_()
        ctx.save_for_backward(voiced, hiss, cosine, sine, length, hummed, hissed)
        return hummed + hissed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        voiced, hiss, cosine, sine, length, hummed, hissed = ctx.saved_tensors
        turned, blown = gradient.conj() * hummed, gradient.conj() * hissed
        angle = turned.imag * length.square()  # less it, over the phase's length
        said = gradient.real.new_empty(*voiced.shape[:-1], 4 * voiced.shape[-1])
        parts = said.chunk(4, dim=-1)
        torch.mul(turned.real, (voiced >= QUIETEST) & (voiced <= LOUDEST), out=parts[0])
        torch.mul(blown.real, (hiss >= QUIETEST) & (hiss <= LOUDEST), out=parts[1])
        torch.mul(sine, angle, out=parts[2])
        torch.mul(cosine, angle.neg_(), out=parts[3])
        return said.mul_(4), None, None, None, None


def _parts(said: Tensor, voiced: Tensor, hiss: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the exponents of voice and hiss, and 1 + 4c, 4s and one over the length of both, as `_Filtered` has them."""
    parts = said.chunk(4, dim=-1)
    voiced, hiss = torch.add(voiced, parts[0], alpha=4), torch.add(hiss, parts[1], alpha=4)
    cosine, sine = 1 + 4 * parts[2], 4 * parts[3]
    return voiced, hiss, cosine, sine, (cosine.square() + sine.square()).clamp_min_(1e-12).rsqrt_()


def envelope_matrix(config: MelConfig) -> Tensor:
    """Log-mels less their filters' gains @ this (n_mels, bins): a log-magnitude for every bin, between the filters' centres."""
    frequencies = torch.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1, dtype=torch.float64)
    position = torch.from_numpy(bin_positions(frequencies.numpy(), config)).clamp(0, config.n_mels - 1)
    low = position.floor().long().clamp(max=config.n_mels - 2)
    weight = position - low
    one_hot = (
        F.one_hot(low, config.n_mels) * (1 - weight)[:, None] + F.one_hot(low + 1, config.n_mels) * weight[:, None]
    )
    return one_hot.T.float().contiguous()


def buzz(f0: Tensor, config: MelConfig, phase: Tensor) -> tuple[Tensor, Tensor]:
    """All harmonics of f0 (B, T) Hz below half the sample rate, as loud as white noise of variance 1 where there is a voice:
    (B, (T − 1) · hop_length); and the phase (B, 1), float64, in periods, that it ends at; phase: that it begins at.

    F0 and voicing are interpolated linearly between frames; beside a frame without a voice F0 goes on.
    """
    voiced = (f0 > 0).to(f0)
    steps = torch.arange(config.hop_length, device=f0.device).to(f0) / config.hop_length

    def between(values: Tensor) -> Tensor:
        return (values[:, :-1, None] + (values[:, 1:] - values[:, :-1])[..., None] * steps).flatten(1)

    held = torch.where(f0[:, :-1] > 0, f0[:, :-1], f0[:, 1:]), torch.where(f0[:, 1:] > 0, f0[:, 1:], f0[:, :-1])
    frequency = (held[0][..., None] + (held[1] - held[0])[..., None] * steps).flatten(1).clamp_min(1)
    turns = phase.double() + (frequency.double() / config.sample_rate).cumsum(1)
    angle = 2 * math.pi * (turns % 1).to(f0)
    harmonics = (config.sample_rate / 2 / frequency).floor()
    # Σ_{k ≤ K} cos kφ = sin((K + ½) φ) / 2 sin(φ / 2) − ½, whose limit at φ = 0 is K
    half = torch.sin(angle / 2)
    near = half.abs() < 1e-4
    total = torch.sin((harmonics + 0.5) * angle) / (2 * torch.where(near, torch.ones(()).to(half), half)) - 0.5
    total = torch.where(near, harmonics, total)
    return total * (2 / harmonics).sqrt() * between(voiced), turns[:, -1:] % 1


@torch.no_grad()
def vocode(vocoder: Vocoder, log_mels: Tensor, f0: Tensor, seed: int = 0) -> Tensor:
    """Return the samples ((T − 1) · hop_length,) of log_mels (T, n_mels) and f0 (T,) in Hz, 0 without a voice."""
    return torch.cat([*vocoder.chunks([log_mels], f0, seed)])


def save_vocoder(folder: Path, vocoder: Vocoder, meta: Mapping[str, Any], card: str = "") -> None:
    """Write vocoder.safetensors (in float16), config.json (the settings, and `meta`) and README.md, the card, whole or not at
    all."""
    with whole_folder(folder) as temporary:
        weights = {name: value.half() for name, value in vocoder.network.state_dict().items()}
        write_tensors(temporary / "vocoder.safetensors", weights)
        write_json(temporary / "config.json", {"vocoder": asdict(vocoder.config), "meta": dict(meta)})
        write_text(temporary / "README.md", card)


def load_vocoder(folder: Path | None = None) -> Vocoder:
    """Read a vocoder, the one in the package if None, in evaluation mode. Raises InputError for a folder without one."""
    folder = folder or SHIPPED
    said = read_json(folder / "config.json", "the folder of a vocoder")
    table = dict(said.get("vocoder") or {})
    mel = MelConfig.from_table(table.pop("mel", {}))
    sizes = asdict(resolve(VocoderConfig, table, f"{folder / 'config.json'} vocoder"))
    vocoder = Vocoder(VocoderConfig(**{**sizes, "mel": mel}))
    weights = read_tensors(folder / "vocoder.safetensors", "the weights of a vocoder")
    try:
        vocoder.network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{folder / 'vocoder.safetensors'} does not fit its config.json") from error
    meta = said.get("meta")
    vocoder.meta = dict(meta) if isinstance(meta, Mapping) else {}
    vocoder.card = read_text(folder / "README.md", "a vocoder's card") if (folder / "README.md").exists() else ""
    return vocoder.eval()
