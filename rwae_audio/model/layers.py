"""Convolutions over time: a static encoder's other way to read frames, pooled by attention, as speaker recognition has it; and
the blocks that decoder and vocoder are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.model.posterior import Standardise, frame_mask, in_float32


class ResidualConvolutions(nn.Module):
    """Frames (B, S, n_mels) → states (B, ⌈S / stride⌉, 2 · width): a convolution, three residual blocks, and what all
    three say side by side.

    The frame layers of Desplanques, Thienpondt, Demuynck, "ECAPA-TDNN", Interspeech 2020.
    """

    def __init__(self, n_mels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride, self.width = stride, 2 * width
        self.first, self.first_norm = nn.Conv1d(n_mels, width, 5, stride, padding=2), Standardise(width)
        self.blocks = nn.ModuleList(ResidualBlock(width, dilation) for dilation in (2, 3, 4))
        self.last, self.last_norm = nn.Linear(len(self.blocks) * width, self.width), Standardise(self.width)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """lengths (B,) of the frames; what stands in the padding is neither read nor of use."""
        states = over_time(self.first, _masked(frames, _mask(lengths, frames)))
        mask = _mask(None if lengths is None else (lengths + self.stride - 1) // self.stride, states)
        states = _masked(_standardised(self.first_norm, F.relu(states)), mask)
        said = []
        for block in self.blocks:
            states = block(states, mask)
            said.append(states)
        return _standardised(self.last_norm, F.relu(self.last(torch.cat(said, dim=-1))))


class ResidualBlock(nn.Module):
    """The SE-Res2 block: states (B, S, width), mask (B, S, 1) or None → (B, S, width).

    A quarter of the channels stays as it is, and each other quarter is convolved on top of the one before. Channels are
    weighed by what all of them are over time.
    """

    def __init__(self, width: int, dilation: int, parts: int = 4, squeezed: int = 64) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.into_norm, self.out_norm = Standardise(width), Standardise(width)
        self.size = width // parts
        self.convolutions = nn.ModuleList(
            nn.Conv1d(self.size, self.size, 3, padding=dilation, dilation=dilation) for _ in range(parts - 1)
        )
        self.norms = nn.ModuleList(Standardise(self.size) for _ in range(parts - 1))
        self.weigh = nn.Sequential(nn.Linear(width, squeezed), nn.ReLU(), nn.Linear(squeezed, width), nn.Sigmoid())

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        into = _masked(_standardised(self.into_norm, F.relu(self.into(states))), mask)
        first, *parts = into.split(self.size, dim=-1)
        said, last = [first], None
        for part, layer, norm in zip(parts, self.convolutions, self.norms, strict=True):
            heard = part if last is None else part + last
            last = _masked(_standardised(norm, F.relu(over_time(layer, heard))), mask)
            said.append(last)
        new = _masked(_standardised(self.out_norm, F.relu(self.out(torch.cat(said, dim=-1)))), mask)
        mean = new.mean(1) if mask is None else new.sum(1) / mask.sum(1)
        return torch.addcmul(states, new, self.weigh(mean)[:, None].to(new))


def over_time(layer: nn.Module, states: Tensor) -> Tensor:
    """Convolve states (B, S, d) over their time, which gives (B, S', d').

    This is a convolution over images one pixel high. Their channels lie innermost in memory, as those of the states do,
    so that nothing is copied. The depthwise convolution of a ConvNeXt block takes half of nn.Conv1d's time.
    """
    assert isinstance(layer, nn.Conv1d)
    images = states.transpose(1, 2)[:, :, None]
    padding, dilation = int(layer.padding[0]), layer.dilation[0]
    convolved = F.conv2d(
        images, layer.weight[:, :, None], layer.bias, (1, layer.stride[0]), (0, padding), (1, dilation), layer.groups
    )
    return convolved[:, :, 0].transpose(1, 2)


def _mask(lengths: Tensor | None, states: Tensor) -> Tensor | None:
    """Return the mask (B, S, 1) of sequences of these lengths, or None where there is no padding."""
    return None if lengths is None else frame_mask(lengths, states)


def _masked(states: Tensor, mask: Tensor | None) -> Tensor:
    return states if mask is None else states * mask


def _standardised(norm: nn.Module, states: Tensor) -> Tensor:
    return norm(states.flatten(0, 1)).view_as(states)


class ConvNeXtBlock(nn.Module):
    """States (B, T, width) → the same: each channel over time, then all channels of a frame; the `share` of what it says is
    added at first. With `condition`, its normalised states are scaled and shifted by a vector (B, condition).

    Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545, over time as in Siuzdak, "Vocos", ICLR 2024, arXiv
    2306.00814; scaled and shifted as in Perez et al., "FiLM", AAAI 2018, arXiv 1709.07871.
    """

    def __init__(self, width: int, kernel: int, expansion: int, share: float, condition: int = 0) -> None:
        super().__init__()
        self.time = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), share))
        self.modulate = nn.Linear(condition, 2 * width) if condition else None

    def forward(self, states: Tensor, condition: Tensor | None = None, modulation: Tensor | None = None) -> Tensor:
        """Run the block; modulation (2 · width,): what is added to the gain and the shift that the condition gives."""
        heard = self.norm(over_time(self.time, states))
        if self.modulate is not None:
            factors = self.modulate(condition)
            gain, shift = (factors if modulation is None else factors + modulation)[:, None].chunk(2, dim=-1)
            heard = torch.addcmul(shift.to(heard), heard, (1 + gain).to(heard))
        # the share scales the last layer's few weights instead of its many results
        weight, bias = self.scale[:, None] * self.narrow.weight, self.scale * self.narrow.bias
        return states + F.linear(F.gelu(self.widen(heard)), weight, bias)


class AttentivePooling(nn.Module):
    """States (B, S, width) → (B, 2 · width), standardised: each channel's mean and deviation over time, weighted.

    Okabe, Koshinaka, Shinoda, "Attentive statistics pooling for deep speaker embedding", Interspeech 2018, with weights
    of a channel's own (Desplanques et al., "ECAPA-TDNN", Interspeech 2020).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # a constant added to a channel's scores changes no weight, so they have no bias
        self.score = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, width, bias=False))
        self.norm = Standardise(2 * width)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        score = in_float32(self.score(states))
        weight = (score if mask is None else score.masked_fill(mask == 0, -torch.inf)).softmax(1)
        states = in_float32(states)
        weighted = weight * states
        mean = weighted.sum(1)
        variance = (weighted * states).sum(1) - mean.square()
        return self.norm(torch.cat([mean, variance.clamp_min(1e-5).sqrt()], dim=-1))
