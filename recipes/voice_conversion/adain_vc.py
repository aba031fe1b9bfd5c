"""AdaIN-VC, a baseline of voice conversion: the networks, the losses, and the files of a trained model.

Chou, Yeh, Lee: "One-shot Voice Conversion by Separating Speaker and Content Representations with Instance Normalization",
Interspeech 2019, arXiv 1904.05742. Networks and losses are those of the authors' later code: the norm is before the
activation, there is no dropout, and the variance is learned. Log-mels have 80 bins instead of 512.

    c ~ q(c | x) = N(μ(x), σ²(x))    content: instance norms remove the mean and deviation of each channel, and so the speaker
    s = E_s(x)                       speaker: one vector for a recording, from a mean over time
    x̂ = D(c, s)                      decoder: instance norms, then gains and shifts from s (adaptive instance norm, AdaIN)

    L = λ_rec |x − x̂| + λ_kl KL(q(c | x) ‖ N(0, 1))

Frames are normalised log-mels (B, T, n_mels) with the preset `vocoder`, and T is a multiple of 8. There is one content vector
for every eight frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.data.features import PRESETS, Normaliser
from rwae_audio.data.level import speech_of
from rwae_audio.files import InputError, read_json, read_tensors, whole_folder, write_json, write_tensors
from rwae_audio.settings import resolve

MEL = PRESETS["vocoder"]
STRIDES = (1, 2, 1, 2, 1, 2)  # of the blocks of the encoders, and in reverse of the decoder
KERNEL = 5  # frames


@dataclass(frozen=True)
class AdaInConfig:
    """The sizes of AdaIN-VC.

    Attributes:
        width: The number of channels of all layers.
        bank: The largest kernel of the first convolutions, which have the kernels 1 … bank.
    """

    width: int = 128
    bank: int = 8

    def __post_init__(self) -> None:
        for name in ("width", "bank"):
            if getattr(self, name) < 1:
                raise ValueError(f"[adain] {name} is {getattr(self, name)}; expected 1 or more")


def convolved(layer: nn.Conv1d, states: Tensor) -> Tensor:
    """Return the output (B, ·, ⌈T / stride⌉) of a convolution with padding at both ends.

    The padding reflects the states. States that are too short for a reflection are repeated at the ends.

    Args:
        layer: The convolution.
        states: The states, (B, channels, T).
    """
    size = layer.kernel_size[0]
    mode = "reflect" if states.shape[-1] > size // 2 else "replicate"
    return layer(F.pad(states, (size // 2, size - 1 - size // 2), mode=mode))


def instance_normed(states: Tensor) -> Tensor:
    """Return states (B, channels, T) in which each channel has mean 0 and deviation 1 over time.

    nn.InstanceNorm1d refuses a single frame, and so F.layer_norm is used.
    """
    return F.layer_norm(states, states.shape[-1:])


class Blocks(nn.Module):
    """The convolutions of both encoders, from frames (B, n_mels, T) to states (B, width, T / 8).

    Convolutions with all kernels up to `bank` are computed side by side. Six residual blocks follow, three of which halve the
    number of frames.
    """

    def __init__(self, config: AdaInConfig, normed: bool) -> None:
        """Create the layers. `normed` tells whether instance norms follow the convolutions."""
        super().__init__()
        width, n_mels = config.width, MEL.n_mels
        self.bank = nn.ModuleList(nn.Conv1d(n_mels, width, size) for size in range(1, config.bank + 1))
        self.into = nn.Conv1d(config.bank * width + n_mels, width, 1)
        self.first = nn.ModuleList(nn.Conv1d(width, width, KERNEL) for _ in STRIDES)
        self.second = nn.ModuleList(nn.Conv1d(width, width, KERNEL, stride) for stride in STRIDES)
        self.norm = instance_normed if normed else lambda states: states

    def forward(self, frames: Tensor) -> Tensor:
        """Return the states (B, width, T / 8) of frames (B, n_mels, T)."""
        bank = [F.relu(convolved(layer, frames)) for layer in self.bank]
        states = F.relu(self.norm(self.into(torch.cat([*bank, frames], dim=1))))
        for first, second, stride in zip(self.first, self.second, STRIDES, strict=True):
            new = F.relu(self.norm(convolved(first, states)))
            new = F.relu(self.norm(convolved(second, new)))
            states = new + (F.avg_pool1d(states, stride, ceil_mode=True) if stride > 1 else states)
        return states


class SpeakerEncoder(nn.Module):
    """The speaker encoder: convolutional blocks, their mean over time, and six residual layers."""

    def __init__(self, config: AdaInConfig) -> None:
        super().__init__()
        width = config.width
        self.blocks = Blocks(config, normed=False)
        self.dense = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()) for _ in STRIDES
        )
        self.last = nn.Linear(width, width)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the speaker vectors (B, width) of frames (B, n_mels, T)."""
        state = self.blocks(frames).mean(-1)
        for layer in self.dense:
            state = state + layer(state)
        return self.last(state)


class ContentEncoder(nn.Module):
    """The content encoder, which computes the posterior q(c | x)."""

    def __init__(self, config: AdaInConfig) -> None:
        super().__init__()
        self.blocks = Blocks(config, normed=True)
        self.mean, self.log_variance = (nn.Conv1d(config.width, config.width, 1) for _ in range(2))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance of the posterior, (B, width, T / 8) each, for frames (B, n_mels, T)."""
        states = self.blocks(frames)
        return self.mean(states), self.log_variance(states)


class Decoder(nn.Module):
    """The decoder, from content and speaker to frames, with adaptive instance norms."""

    def __init__(self, config: AdaInConfig) -> None:
        super().__init__()
        width = config.width
        self.into = nn.Conv1d(width, width, 1)
        self.first = nn.ModuleList(nn.Conv1d(width, width, KERNEL) for _ in STRIDES)
        self.second = nn.ModuleList(nn.Conv1d(width, width * stride, KERNEL) for stride in STRIDES[::-1])
        self.modulate = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(2 * len(STRIDES)))
        self.last = nn.Conv1d(width, MEL.n_mels, 1)

    def forward(self, content: Tensor, speaker: Tensor) -> Tensor:
        """Return frames (B, n_mels, T) for content (B, width, T / 8) and speaker vectors (B, width)."""
        states = F.relu(instance_normed(self.into(content)))
        for number, (first, second, stride) in enumerate(zip(self.first, self.second, STRIDES[::-1], strict=True)):
            new = F.relu(self.adapted(2 * number, convolved(first, states), speaker))
            new = spread(convolved(second, new), stride)
            new = F.relu(self.adapted(2 * number + 1, new, speaker))
            states = new + states.repeat_interleave(stride, dim=-1)
        return self.last(states)

    def adapted(self, number: int, states: Tensor, speaker: Tensor) -> Tensor:
        """Return states after an adaptive instance norm.

        Args:
            number: The number of the norm.
            states: The states, (B, width, T).
            speaker: The speaker vectors (B, width), which set the mean and the deviation of each channel.
        """
        shift, scale = self.modulate[number](speaker)[..., None].chunk(2, dim=1)
        return instance_normed(states) * scale + shift


def spread(states: Tensor, times: int) -> Tensor:
    """Return states with more frames and fewer channels: `times` neighbouring channels become neighbouring frames.

    Args:
        states: The states, (B, times · width, T).
        times: The factor of the number of frames.

    Returns:
        The states, (B, width, times · T).
    """
    if times == 1:
        return states
    batch, channels, length = states.shape
    return states.view(batch, channels // times, times, length).transpose(2, 3).reshape(batch, channels // times, -1)


class AdaInVc(nn.Module):
    """AdaIN-VC: the content encoder, the speaker encoder and the decoder."""

    shrinks = math.prod(STRIDES)  # frames for each content vector

    def __init__(self, config: AdaInConfig) -> None:
        super().__init__()
        self.config = config
        self.content, self.speaker, self.decoder = ContentEncoder(config), SpeakerEncoder(config), Decoder(config)

    def forward(self, frames: Tensor, noise: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode and decode frames.

        Args:
            frames: Normalised frames, (B, T, n_mels).
            noise: The random numbers of the draw from the content's posterior, or None for its mean.

        Returns:
            The decoded frames, (B, T, n_mels), and the mean and the log-variance of the content's posterior.
        """
        frames = frames.transpose(1, 2)
        mean, log_variance = self.content(frames)
        content = mean
        if noise is not None:
            content = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=noise).to(mean)
        return self.decoder(content, self.speaker(frames)).transpose(1, 2), mean, log_variance

    @torch.no_grad()
    def convert(self, source: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Return normalised frames (T, n_mels) of a source in the voice of a target.

        Args:
            source: Normalised frames of the source, (T, n_mels).
            targets: Normalised frames of recordings of the target, (T', n_mels) each. Their speaker vectors are averaged.
        """
        speaker = torch.stack([self.speaker(target.T[None])[0] for target in targets]).mean(0)
        padded = F.pad(source.T[None], (0, -len(source) % self.shrinks), mode="replicate")
        return self.decoder(self.content(padded)[0], speaker[None])[0].T[: len(source)]


def losses(frames: Tensor, decoded: Tensor, mean: Tensor, log_variance: Tensor) -> dict[str, Tensor]:
    """Return the losses `reconstruction` (L1) and `content` (KL divergence from N(0, 1)) without weights.

    Both are means over all dimensions.

    Args:
        frames: Normalised frames, (B, T, n_mels).
        decoded: Decoded frames, (B, T, n_mels).
        mean: The mean of the content's posterior, (B, width, T / 8).
        log_variance: The log-variance of the content's posterior, (B, width, T / 8).
    """
    divergence = (log_variance.exp() + mean.square() - 1 - log_variance) / 2
    return {"reconstruction": (decoded - frames).abs().mean(), "content": divergence.mean()}


@dataclass(frozen=True)
class AdaInVoice:
    """A trained AdaIN-VC, which converts log-mels.

    Attributes:
        model: The networks.
        normaliser: The normaliser of the frames.
    """

    model: AdaInVc
    normaliser: Normaliser

    def frames(self, samples: Any) -> Tensor:
        """Return the log-mels (T, n_mels) of a waveform (N,), with the same high-pass and gain as for all systems."""
        return torch.cat([*speech_of(np.asarray(samples, dtype=np.float32), MEL.sample_rate).log_mels(MEL)])

    def convert(self, source: Tensor, *targets: Tensor) -> Tensor:
        """Return the log-mels (T, n_mels) of a source in the voice of a target.

        Args:
            source: The log-mels of the source, (T, n_mels).
            targets: The log-mels of recordings of the target, (T', n_mels) each.
        """
        converted = self.model.convert(self.normaliser(source), [self.normaliser(target) for target in targets])
        return self.normaliser.inverse(converted)


def save_adain(folder: Path, voice: AdaInVoice, meta: dict[str, Any]) -> None:
    """Write a trained AdaIN-VC into a folder, whole or not at all.

    Args:
        folder: The folder, which gets model.safetensors and config.json.
        voice: The model.
        meta: The metadata, which config.json has beside the sizes.
    """
    tensors = {f"model.{name}": value.contiguous() for name, value in voice.model.state_dict().items()}
    tensors |= {"normaliser.mean": voice.normaliser.mean, "normaliser.deviation": voice.normaliser.deviation}
    with whole_folder(folder) as temporary:
        write_tensors(temporary / "model.safetensors", tensors)
        write_json(temporary / "config.json", {"adain": asdict(voice.model.config), "meta": meta})


def load_adain(folder: Path) -> AdaInVoice:
    """Read a trained AdaIN-VC, in evaluation mode.

    Raises:
        InputError: The folder does not have the files of `save_adain`.
    """
    expected = "a folder that train_adain_vc.py wrote"
    content = read_json(folder / "config.json", expected)
    if not isinstance(content, dict) or not isinstance(content.get("adain"), dict):
        raise InputError(f"{folder / 'config.json'} has no table `adain`; expected {expected}")
    model = AdaInVc(resolve(AdaInConfig, content["adain"], f"{folder / 'config.json'} adain"))
    tensors = read_tensors(folder / "model.safetensors", "the weights of AdaIN-VC")
    try:
        model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
        normaliser = Normaliser(tensors["normaliser.mean"], tensors["normaliser.deviation"])
    except (RuntimeError, KeyError) as error:
        raise InputError(f"{folder / 'model.safetensors'} does not fit its config.json") from error
    return AdaInVoice(model.eval(), normaliser)
