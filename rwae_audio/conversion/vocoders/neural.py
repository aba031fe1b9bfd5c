"""The neural vocoder: log-mels and F0 → waveform, by a network that filters a harmonic source and a noise source.

Decoded log-mels show the energy of each band, but they are too smooth to show harmonics. So the vocoder does not guess the
pitch from them. It has two sources: the *buzz*, which is the sum of all harmonics of a given F0, and the *hiss*, which is
white noise. A ConvNeXt predicts a filter for each frame. It has a gain and a phase for each bin of the buzz's spectrum, and
a gain for each bin of the hiss's. The waveform is the inverse short-time Fourier transform of the filtered sum.

    backbone and inverse transform   Siuzdak, "Vocos", ICLR 2024, arXiv 2306.00814
    sources                          Wang, Takaki, Yamagishi, "Neural source-filter waveform models", arXiv 1810.11946
    filters                          Engel et al., "DDSP", ICLR 2020, arXiv 2001.04643
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.conversion.vocoders.filters import LOUDEST, QUIETEST, FilteredSum, envelope_matrix, filter_parts
from rwae_audio.data.features import PRESETS, MelConfig, mel_filters
from rwae_audio.files import (
    ASSETS,
    InputError,
    read_json,
    read_tensors,
    read_text,
    sha256,
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

LARGE = 10.0  # a large value of a static code, by which codes are divided at the input of the network
F0_CENTRE = math.log(150.0)  # subtracted from ln F0 at the input of the network
SHIPPED = ASSETS / "vocoder"


@dataclass(frozen=True)
class VocoderConfig:
    """The sizes of a neural vocoder.

    Attributes:
        mel: The settings of the log-mels.
        width: The number of channels of the ConvNeXt.
        blocks: The number of ConvNeXt blocks.
        expansion: The ratio of hidden channels to channels in a block.
        kernel: The number of frames that a convolution covers.
        voice: The dimensions of the static code of a bundle, which tells the network the voice; 0 for a network without it.
    """

    mel: MelConfig = field(default_factory=lambda: PRESETS["vocoder"])
    width: int = 256
    blocks: int = 5
    expansion: int = 3
    kernel: int = 7
    voice: int = 0

    @property
    def context(self) -> int:
        """The number of frames before and after a frame on which its samples depend, through convolutions and windows."""
        return (self.blocks + 1) * (self.kernel // 2) + -(-self.mel.n_fft // self.mel.hop_length)


class Backbone(Network):
    """The network from frames (B, T, n_mels + 2) to parameters of filters (B, T, 4 · bins).

    It has a convolution over time, ConvNeXt blocks and a linear layer. Before training, its outputs are near 0. The static
    code of the voice scales and shifts the states of the blocks, and it gives the filters a part that is constant over time.
    """

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        width = config.width
        self.first = nn.Conv1d(config.mel.n_mels + 2, width, config.kernel, padding=config.kernel // 2)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, config.kernel, config.expansion, 1.0 / config.blocks, config.voice)
            for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4 * (config.mel.n_fft // 2 + 1))
        self.constant = nn.Linear(config.voice, self.head.out_features, bias=False) if config.voice else None
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        for name, parameter in self.named_parameters():
            if "constant" in name or "modulate" in name:
                nn.init.zeros_(parameter)  # before training, the voice changes nothing

    def forward(self, frames: Tensor, voice: Tensor | None = None) -> Tensor:
        """Return the parameters of filters (see `FilteredSum`).

        Args:
            frames: (B, T, n_mels + 2), of about mean 0 and variance 1: log-mels, ln F0, and 1 in voiced frames.
            voice: The static codes, (B, voice), of a network that knows the voice. None stands for codes of 0, the mean of
                the prior.
        """
        if self.constant is not None:
            voice = frames.new_zeros(len(frames), self.constant.in_features) if voice is None else voice / LARGE
        states = over_time(self.first, frames)
        for block in self.blocks:
            states = block(states, voice)
        filters = self.head(self.norm(states))
        return filters if self.constant is None else filters + self.constant(voice)[:, None]


class Vocoder(nn.Module):
    """The neural vocoder: a network, and the two sources that it filters.

    Before training, the filters are the spectral envelope that follows from the log-mels.

    Attributes:
        config: The sizes.
        mel: The settings of the log-mels.
        network: The network with all weights. It may run in bfloat16 (see Network); all other operations are in float32.
        voice: The static code (1, voice) for which `chunks` makes sound, or None for a code of 0.
        bundle: The digest of the bundle whose static codes the network knows, "" for a network without codes.
        digest: The SHA-256 of vocoder.safetensors of a vocoder that was read from a folder.
        meta: The metadata of a vocoder that was read from a folder.
        card: The README.md of a vocoder that was read from a folder.
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
        self.card = self.digest = self.bundle = ""
        self.voice: Tensor | None = None
        self.network = Backbone(config)
        window = torch.hann_window(config.mel.win_length)
        level = window.square().sum().sqrt()  # the RMS magnitude of the spectrum of white noise
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("analysis", window / level, persistent=False)
        self.register_buffer("spread", envelope_matrix(config.mel), persistent=False)
        self.register_buffer("gain", mel_filters(config.mel).float().sum(0).log(), persistent=False)

    def of(self, code: Tensor, bundle: str) -> Vocoder:
        """Return the vocoder for a voice, which shares its weights with this one.

        Args:
            code: The static code of the voice, (voice,).
            bundle: The digest of the bundle that computed it. The network does not know the codes of other bundles, and
                has a code of 0 instead.
        """
        if not self.bundle or bundle != self.bundle:
            return self
        vocoder = copy.copy(self)
        vocoder.voice = code[None].to(self.window)
        return vocoder

    def forward(self, log_mels: Tensor, f0: Tensor, generator: torch.Generator, voice: Tensor | None = None) -> Tensor:
        """Return the waveform of log-mels with a given F0.

        Args:
            log_mels: Log-mels (B, T, n_mels).
            f0: F0 in Hz, 0 in unvoiced frames, (B, T).
            generator: The random numbers of the hiss and of the initial phase of the buzz.
            voice: The static codes (B, voice) of the voices, or None for codes of 0.

        Returns:
            Samples (B, (T − 1) · hop_length).
        """
        phase = torch.rand(len(f0), 1, generator=generator).to(f0)
        noise = torch.randn(len(f0), (f0.shape[1] - 1) * self.config.mel.hop_length, generator=generator).to(f0)
        return self.filtered(log_mels, f0, buzz(f0, self.config.mel, phase)[0], noise, voice)

    def filtered(
        self, log_mels: Tensor, f0: Tensor, buzz: Tensor, noise: Tensor, voice: Tensor | None = None
    ) -> Tensor:
        """Return the waveform (B, N) of log-mels and F0, as `forward` does, from given sources.

        Args:
            log_mels: Log-mels (B, T, n_mels).
            f0: F0 in Hz, 0 in unvoiced frames, (B, T).
            buzz: The harmonic source, (B, N).
            noise: The noise source, (B, N).
            voice: The static codes (B, voice) of the voices, or None for codes of 0.
        """
        mel, sources = self.config.mel, self.spectra(torch.cat([buzz, noise])).chunk(2)
        spectrum = FilteredSum.apply(*self.controls(log_mels, f0, voice), *sources).transpose(1, 2)
        return torch.istft(spectrum, mel.n_fft, mel.hop_length, mel.win_length, self.window, length=buzz.shape[1])

    def controls(self, log_mels: Tensor, f0: Tensor, voice: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the parameters of the filters, which are the first three arguments of `FilteredSum`.

        Args:
            log_mels: Log-mels (B, T, n_mels).
            f0: F0 in Hz, 0 in unvoiced frames, (B, T).
            voice: The static codes (B, voice) of the voices, or None for codes of 0.

        Returns:
            The output of the network (B, T, 4 · bins), and the log-gains of buzz and hiss before the network's correction,
            (B, T, bins) each.
        """
        voicing = (f0 > 0).to(log_mels)[..., None]
        pitch = torch.where(f0 > 0, f0.clamp_min(1).log() - F0_CENTRE, torch.zeros(()).to(f0))
        frames = torch.cat([log_mels / 3 + 1, pitch[..., None], voicing], dim=-1)  # about mean 0, variance 1
        envelope = (log_mels - self.gain) @ self.spread
        return self.network(frames, voice), envelope + (1 - voicing) * QUIETEST, envelope - 1.5 * voicing

    def filters(self, log_mels: Tensor, f0: Tensor, voice: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the filters as real numbers.

        Args:
            log_mels: Log-mels (B, T, n_mels).
            f0: F0 in Hz, 0 in unvoiced frames, (B, T).
            voice: The static codes (B, voice) of the voices, or None for codes of 0.

        Returns:
            The real part and the imaginary part of the filter of the buzz, and the gain of the hiss, (B, T, bins) each.
        """
        buzz_gain, hiss_gain, cosine, sine, scale = filter_parts(*self.controls(log_mels, f0, voice))
        gain = buzz_gain.clamp(QUIETEST, LOUDEST).exp() * scale
        return gain * cosine, gain * sine, hiss_gain.clamp(QUIETEST, LOUDEST).exp()

    def spectra(self, samples: Tensor) -> Tensor:
        """Return the short-time spectra (B, T, bins) of samples (B, N), scaled to RMS 1 for white noise of variance 1."""
        mel = self.config.mel
        spectra = torch.stft(
            samples, mel.n_fft, mel.hop_length, mel.win_length, self.analysis, pad_mode="constant", return_complex=True
        )
        return spectra.transpose(1, 2)

    def chunks(self, frames: Iterable[Tensor], f0: Tensor | None, seed: int = 0) -> Iterator[Tensor]:
        """Yield the samples of a recording of any length, (m,) at a time, in constant memory.

        The samples do not depend on the division into chunks.

        Args:
            frames: Log-mels in chunks (n, n_mels), T frames in all.
            f0: F0 in Hz, 0 in unvoiced frames, (T,). None stands for unvoiced frames alone.
            seed: The seed of the hiss and of the initial phase of the buzz.
        """
        return between_frames(in_context(self._samples, self._rows(frames, f0, seed), self.config.context))

    def _rows(self, chunks: Iterable[Tensor], f0: Tensor | None, seed: int) -> Iterator[Tensor]:
        """Yield a row for each frame, in chunks (n, n_mels + 1 + 2 · hop_length).

        A row has the log-mels of the frame, its F0, and the samples of buzz and hiss up to the next frame.
        """
        draws, hop = generator(seed, "vocoder"), self.mel.hop_length
        phase = torch.rand(1, 1, generator=draws)
        last, count = torch.zeros(0, self.mel.n_mels + 1), 0
        for log_mels in chunks:
            pitch = log_mels.new_zeros(len(log_mels)) if f0 is None else f0[count : count + len(log_mels)].to(log_mels)
            count += len(log_mels)
            frames = torch.cat([last, torch.cat([log_mels, pitch[:, None]], dim=1)])
            last = frames[-1:]
            if len(frames) < 2:  # the samples of a frame depend on the F0 of the next one
                continue
            harmonics, phase = buzz(frames[None, :, -1], self.mel, phase)
            noise = torch.randn(harmonics.shape, generator=draws)
            yield torch.cat([frames[:-1], harmonics.view(-1, hop), noise.view(-1, hop)], dim=1)
        yield torch.cat([last, last.new_zeros(len(last), 2 * hop)], dim=1)

    @torch.no_grad()
    def _samples(self, rows: Tensor) -> Tensor:
        """Return the samples (n, hop_length) between each frame and the next one, from rows of `_rows`."""
        hop, device = self.mel.hop_length, self.window.device
        frames, harmonics, noise = rows.to(device).split([self.mel.n_mels + 1, hop, hop], dim=1)
        harmonics, noise = (source[:-1].reshape(1, -1) for source in (harmonics, noise))
        samples = self.filtered(frames[None, :, :-1], frames[None, :, -1], harmonics, noise, self.voice)
        return F.pad(samples[0].cpu(), (0, hop)).view(-1, hop)


def buzz(f0: Tensor, config: MelConfig, phase: Tensor) -> tuple[Tensor, Tensor]:
    """Return the harmonic source: the sum of all harmonics of F0 below half the sample rate.

    Its power in voiced frames is that of white noise with variance 1. F0 and voicing are interpolated linearly between
    frames. Between a voiced and an unvoiced frame, F0 is constant.

    Args:
        f0: F0 in Hz, 0 in unvoiced frames, (B, T).
        config: The settings of the frames.
        phase: The initial phase in periods, (B, 1).

    Returns:
        The samples (B, (T − 1) · hop_length), and the final phase in periods, (B, 1), float64.
    """
    voiced = (f0 > 0).to(f0)
    steps = torch.arange(config.hop_length, device=f0.device).to(f0) / config.hop_length

    def between(values: Tensor) -> Tensor:
        return (values[:, :-1, None] + (values[:, 1:] - values[:, :-1])[..., None] * steps).flatten(1)

    start = torch.where(f0[:, :-1] > 0, f0[:, :-1], f0[:, 1:])
    end = torch.where(f0[:, 1:] > 0, f0[:, 1:], f0[:, :-1])
    frequency = (start[..., None] + (end - start)[..., None] * steps).flatten(1).clamp_min(1)
    periods = phase.double() + (frequency.double() / config.sample_rate).cumsum(1)
    angle = 2 * math.pi * (periods % 1).to(f0)
    harmonics = (config.sample_rate / 2 / frequency).floor()
    # Σ_{k ≤ K} cos kφ = sin((K + ½) φ) / (2 sin(φ / 2)) − ½, with the limit K at φ = 0
    half = torch.sin(angle / 2)
    near_zero = half.abs() < 1e-4
    total = torch.sin((harmonics + 0.5) * angle) / (2 * torch.where(near_zero, torch.ones(()).to(half), half)) - 0.5
    total = torch.where(near_zero, harmonics, total)
    return total * (2 / harmonics).sqrt() * between(voiced), periods[:, -1:] % 1


@torch.no_grad()
def vocode(vocoder: Vocoder, log_mels: Tensor, f0: Tensor, seed: int = 0) -> Tensor:
    """Return the waveform of one recording.

    Args:
        vocoder: The vocoder.
        log_mels: Log-mels (T, n_mels).
        f0: F0 in Hz, 0 in unvoiced frames, (T,).
        seed: The seed of the sources.

    Returns:
        Samples ((T − 1) · hop_length,).
    """
    return torch.cat([*vocoder.chunks([log_mels], f0, seed)])


def save_vocoder(folder: Path, vocoder: Vocoder, meta: Mapping[str, Any], card: str = "") -> None:
    """Write a vocoder into a folder, whole or not at all.

    Args:
        folder: The folder, which gets vocoder.safetensors (in float16), config.json and README.md.
        vocoder: The vocoder.
        meta: The metadata, which config.json has beside the sizes.
        card: The text of README.md.
    """
    with whole_folder(folder) as temporary:
        weights = {name: value.half() for name, value in vocoder.network.state_dict().items()}
        write_tensors(temporary / "vocoder.safetensors", weights)
        bundle = {"bundle": vocoder.bundle} if vocoder.bundle else {}
        write_json(temporary / "config.json", {"vocoder": asdict(vocoder.config), **bundle, "meta": dict(meta)})
        write_text(temporary / "README.md", card)


def load_vocoder(folder: Path | None = None) -> Vocoder:
    """Read a vocoder, in evaluation mode.

    Args:
        folder: The folder; None for the vocoder in the package.

    Raises:
        InputError: The folder has no vocoder.
    """
    folder = folder or SHIPPED
    content = read_json(folder / "config.json", "the folder of a vocoder")
    table = dict(content.get("vocoder") or {})
    mel = MelConfig.from_table(table.pop("mel", {}))
    sizes = asdict(resolve(VocoderConfig, table, f"{folder / 'config.json'} vocoder"))
    vocoder = Vocoder(VocoderConfig(**{**sizes, "mel": mel}))
    weights = read_tensors(folder / "vocoder.safetensors", "the weights of a vocoder")
    vocoder.digest = sha256(folder / "vocoder.safetensors")
    try:
        vocoder.network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{folder / 'vocoder.safetensors'} does not fit its config.json") from error
    vocoder.bundle, meta = str(content.get("bundle", "")), content.get("meta")
    vocoder.meta = dict(meta) if isinstance(meta, Mapping) else {}
    vocoder.card = read_text(folder / "README.md", "a vocoder's card") if (folder / "README.md").exists() else ""
    return vocoder.eval()
