"""AdaIN-VC, a converter that ours is compared with.

Chou, Yeh, Lee: "One-shot Voice Conversion by Separating Speaker and Content Representations with Instance Normalization",
Interspeech 2019, arXiv 1904.05742; the network and the losses of the authors' later code (norm before the activation, no
dropout, a learned variance), for log-mels of 80 instead of 512 bins:

    c ~ q(c | x) = N(μ(x), σ²(x))    an encoder whose instance norms take each channel's mean and deviation, who speaks, away
    s = E_s(x)                       one vector a recording, from the mean over its time
    x̂ = D(c, s)                      a decoder whose channels are instance-normed, then scaled and shifted by s (AdaIN)

    L = λ_rec |x − x̂| + λ_kl KL(q(c | x) ‖ N(0, 1))

Frames are normalised log-mels (B, T, n_mels) of the preset `vocoder`, T a multiple of 8: content is kept for every eighth.
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
STRIDES = (1, 2, 1, 2, 1, 2)  # of the encoders' blocks; the decoder's, the other way round
KERNEL = 5


@dataclass(frozen=True)
class AdaInConfig:
    """width: channels everywhere; bank: the widest kernel of the first convolutions."""

    width: int = 128
    bank: int = 8

    def __post_init__(self) -> None:
        for name in ("width", "bank"):
            if getattr(self, name) < 1:
                raise ValueError(f"[adain] {name} is {getattr(self, name)}; expected 1 or more")


def convolved(layer: nn.Conv1d, states: Tensor) -> Tensor:
    """(B, channels, T) through a convolution: (B, ·, ⌈T / stride⌉), reflected at both ends, or held where that is too short."""
    size = layer.kernel_size[0]
    return layer(
        F.pad(
            states, (size // 2, size - 1 - size // 2), mode="reflect" if states.shape[-1] > size // 2 else "replicate"
        )
    )


def instance_normed(states: Tensor) -> Tensor:
    """(B, channels, T) with each channel's mean over time 0 and its deviation 1; nn.InstanceNorm1d takes no single frame."""
    return F.layer_norm(states, states.shape[-1:])


class Blocks(nn.Module):
    """Frames (B, n_mels, T) → states (B, width, T / 8): convolutions of every width up to `bank` side by side, then six
    residual blocks, three of which halve the time; `normed`: what a convolution says is instance-normed."""

    def __init__(self, config: AdaInConfig, normed: bool) -> None:
        super().__init__()
        width, n_mels = config.width, MEL.n_mels
        self.bank = nn.ModuleList(nn.Conv1d(n_mels, width, size) for size in range(1, config.bank + 1))
        self.into = nn.Conv1d(config.bank * width + n_mels, width, 1)
        self.first = nn.ModuleList(nn.Conv1d(width, width, KERNEL) for _ in STRIDES)
        self.second = nn.ModuleList(nn.Conv1d(width, width, KERNEL, stride) for stride in STRIDES)
        self.norm = instance_normed if normed else lambda states: states

    def forward(self, frames: Tensor) -> Tensor:
        heard = [F.relu(convolved(layer, frames)) for layer in self.bank]
        states = F.relu(self.norm(self.into(torch.cat([*heard, frames], dim=1))))
        for first, second, stride in zip(self.first, self.second, STRIDES, strict=True):
            new = F.relu(self.norm(convolved(first, states)))
            new = F.relu(self.norm(convolved(second, new)))
            states = new + (F.avg_pool1d(states, stride, ceil_mode=True) if stride > 1 else states)
        return states


class SpeakerEncoder(nn.Module):
    """(B, n_mels, T) → (B, width): the blocks, their mean over time, six residual layers."""

    def __init__(self, config: AdaInConfig) -> None:
        super().__init__()
        width = config.width
        self.blocks = Blocks(config, normed=False)
        self.dense = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()) for _ in STRIDES
        )
        self.last = nn.Linear(width, width)

    def forward(self, frames: Tensor) -> Tensor:
        state = self.blocks(frames).mean(-1)
        for layer in self.dense:
            state = state + layer(state)
        return self.last(state)


class ContentEncoder(nn.Module):
    """(B, n_mels, T) → mean and log-variance (B, width, T / 8) of q(c | x)."""

    def __init__(self, config: AdaInConfig) -> None:
        super().__init__()
        self.blocks = Blocks(config, normed=True)
        self.mean, self.log_variance = (nn.Conv1d(config.width, config.width, 1) for _ in range(2))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        states = self.blocks(frames)
        return self.mean(states), self.log_variance(states)


class Decoder(nn.Module):
    """Content (B, width, T / 8), speaker (B, width) → frames (B, n_mels, T)."""

    def __init__(self, config: AdaInConfig) -> None:
        super().__init__()
        width = config.width
        self.into = nn.Conv1d(width, width, 1)
        self.first = nn.ModuleList(nn.Conv1d(width, width, KERNEL) for _ in STRIDES)
        self.second = nn.ModuleList(nn.Conv1d(width, width * stride, KERNEL) for stride in STRIDES[::-1])
        self.modulate = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(2 * len(STRIDES)))
        self.last = nn.Conv1d(width, MEL.n_mels, 1)

    def forward(self, content: Tensor, speaker: Tensor) -> Tensor:
        states = F.relu(instance_normed(self.into(content)))
        for number, (first, second, stride) in enumerate(zip(self.first, self.second, STRIDES[::-1], strict=True)):
            new = F.relu(self.adapted(2 * number, convolved(first, states), speaker))
            new = spread(convolved(second, new), stride)
            new = F.relu(self.adapted(2 * number + 1, new, speaker))
            states = new + states.repeat_interleave(stride, dim=-1)
        return self.last(states)

    def adapted(self, number: int, states: Tensor, speaker: Tensor) -> Tensor:
        """AdaIN: instance-normed states with the mean and the deviation that the speaker asks for."""
        shift, scale = self.modulate[number](speaker)[..., None].chunk(2, dim=1)
        return instance_normed(states) * scale + shift


def spread(states: Tensor, times: int) -> Tensor:
    """(B, times · width, T) → (B, width, times · T): `times` neighbouring channels are neighbours in time."""
    if times == 1:
        return states
    batch, channels, length = states.shape
    return states.view(batch, channels // times, times, length).transpose(2, 3).reshape(batch, channels // times, -1)


class AdaInVc(nn.Module):
    """The three networks."""

    shrinks = math.prod(STRIDES)

    def __init__(self, config: AdaInConfig) -> None:
        super().__init__()
        self.config = config
        self.content, self.speaker, self.decoder = ContentEncoder(config), SpeakerEncoder(config), Decoder(config)

    def forward(self, frames: Tensor, noise: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """frames (B, T, n_mels) → what is decoded of them, of a draw of their content (its mean without noise), and that
        one's mean and log-variance."""
        frames = frames.transpose(1, 2)
        mean, log_variance = self.content(frames)
        drawn = mean
        if noise is not None:
            drawn = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=noise).to(mean)
        return self.decoder(drawn, self.speaker(frames)).transpose(1, 2), mean, log_variance

    @torch.no_grad()
    def convert(self, source: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Normalised frames (T, n_mels) in the voice of the targets (each (T', n_mels), their vectors' mean)."""
        speaker = torch.stack([self.speaker(target.T[None])[0] for target in targets]).mean(0)
        padded = F.pad(source.T[None], (0, -len(source) % self.shrinks), mode="replicate")
        return self.decoder(self.content(padded)[0], speaker[None])[0].T[: len(source)]


def losses(frames: Tensor, decoded: Tensor, mean: Tensor, log_variance: Tensor) -> dict[str, Tensor]:
    """L1 of the frames, and the KL of a Gaussian from N(0, 1), each a mean over all numbers; not yet weighted."""
    divergence = (log_variance.exp() + mean.square() - 1 - log_variance) / 2
    return {"reconstruction": (decoded - frames).abs().mean(), "content": divergence.mean()}


@dataclass(frozen=True)
class AdaInVoice:
    """A trained one: log-mels in, log-mels out."""

    model: AdaInVc
    normaliser: Normaliser

    def frames(self, samples: Any) -> Tensor:
        """Return the log-mels (T, n_mels) of a waveform (N,) at the frames' rate, through the front end of all systems."""
        return torch.cat([*speech_of(np.asarray(samples, dtype=np.float32), MEL.sample_rate).log_mels(MEL)])

    def convert(self, source: Tensor, *targets: Tensor) -> Tensor:
        """Say what `source` says in the voice of `targets`; log-mels (T, n_mels) in, log-mels (T, n_mels) out."""
        made = self.model.convert(self.normaliser(source), [self.normaliser(target) for target in targets])
        return self.normaliser.inverse(made)


def save_adain(folder: Path, voice: AdaInVoice, meta: dict[str, Any]) -> None:
    """Write model.safetensors and config.json, whole or not at all."""
    tensors = {f"model.{name}": value.contiguous() for name, value in voice.model.state_dict().items()}
    tensors |= {"normaliser.mean": voice.normaliser.mean, "normaliser.deviation": voice.normaliser.deviation}
    with whole_folder(folder) as temporary:
        write_tensors(temporary / "model.safetensors", tensors)
        write_json(temporary / "config.json", {"adain": asdict(voice.model.config), "meta": meta})


def load_adain(folder: Path) -> AdaInVoice:
    """Read a saved AdaIN-VC, in evaluation mode. Raises InputError for a folder without one."""
    expected = "a folder that train_adain_vc.py left"
    said = read_json(folder / "config.json", expected)
    if not isinstance(said, dict) or not isinstance(said.get("adain"), dict):
        raise InputError(f"{folder / 'config.json'} has no table `adain`; expected {expected}")
    model = AdaInVc(resolve(AdaInConfig, said["adain"], f"{folder / 'config.json'} adain"))
    tensors = read_tensors(folder / "model.safetensors", "the weights of AdaIN-VC")
    try:
        model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
        normaliser = Normaliser(tensors["normaliser.mean"], tensors["normaliser.deviation"])
    except (RuntimeError, KeyError) as error:
        raise InputError(f"{folder / 'model.safetensors'} does not fit its config.json") from error
    return AdaInVoice(model.eval(), normaliser)
