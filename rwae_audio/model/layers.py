"""Layers that convolve frames over time: residual blocks, ConvNeXt blocks, and attentive pooling over frames.

The static encoder uses the residual blocks and the pooling. The decoder and the vocoder use the ConvNeXt blocks.
B sequences, S or T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.devices import in_float32
from rwae_audio.model.posterior import Standardise, frame_mask


class ResidualConvolutions(nn.Module):
    """The frame layers of ECAPA-TDNN, from frames (B, S, n_mels) to states (B, ⌈S / stride⌉, 2 · width).

    A convolution is followed by three residual blocks. A linear layer reads the concatenated outputs of all three.
    Desplanques, Thienpondt, Demuynck, "ECAPA-TDNN", Interspeech 2020.

    Args:
        n_mels: Mel bins of the frames.
        width: Channels of the blocks.
        stride: Stride of the first convolution, in frames.

    Attributes:
        width: Channels of the output, twice those of the blocks.
    """

    def __init__(self, n_mels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride, self.width = stride, 2 * width
        self.first, self.first_norm = nn.Conv1d(n_mels, width, 5, stride, padding=2), Standardise(width)
        self.blocks = nn.ModuleList(ResidualBlock(width, dilation) for dilation in (2, 3, 4))
        self.last, self.last_norm = nn.Linear(len(self.blocks) * width, self.width), Standardise(self.width)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the states of frames.

        Args:
            frames: (B, S, n_mels), padded on the right. The values of the padding have no influence.
            lengths: The number of frames of each sequence, (B,), or None without padding.

        Returns:
            The states, (B, ⌈S / stride⌉, 2 · width). Those of the padding are meaningless.
        """
        states = over_time(self.first, _masked(frames, padding_mask(lengths, frames)))
        mask = padding_mask(strided_lengths(lengths, self.stride), states)
        states = _masked(_standardised(self.first_norm, F.relu(states)), mask)
        outputs = []
        for block in self.blocks:
            states = block(states, mask)
            outputs.append(states)
        return _standardised(self.last_norm, F.relu(self.last(torch.cat(outputs, dim=-1))))


class ResidualBlock(nn.Module):
    """The SE-Res2 block of ECAPA-TDNN, from states (B, S, width) to states of the same shape.

    The channels are split into `parts` equal parts. The first part is passed on unchanged. Each other part is convolved,
    after the output of the part before it has been added. Squeeze and excitation then scales each channel by a factor
    that depends on the mean of all channels over time.

    Args:
        width: Channels of the states.
        dilation: Dilation of the convolutions, in frames.
        parts: Number of parts.
        squeezed: Width of the layer between the channels' means and their factors.
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
        """Return the block's output for states (B, S, width) with the mask (B, S, 1), or None without padding."""
        inputs = _masked(_standardised(self.into_norm, F.relu(self.into(states))), mask)
        unchanged, *parts = inputs.split(self.size, dim=-1)
        outputs, previous = [unchanged], None
        for part, layer, norm in zip(parts, self.convolutions, self.norms, strict=True):
            part = part if previous is None else part + previous
            previous = _masked(_standardised(norm, F.relu(over_time(layer, part))), mask)
            outputs.append(previous)
        residual = _masked(_standardised(self.out_norm, F.relu(self.out(torch.cat(outputs, dim=-1)))), mask)
        mean = residual.mean(1) if mask is None else residual.sum(1) / mask.sum(1)
        return torch.addcmul(states, residual, self.weigh(mean)[:, None].to(residual))


class AttentivePooling(nn.Module):
    """Weighted mean and standard deviation over time, from states (B, S, width) to standardised (B, 2 · width).

    Okabe, Koshinaka, Shinoda, "Attentive statistics pooling for deep speaker embedding", Interspeech 2018. Each channel
    has its own weights over time, as in Desplanques et al., "ECAPA-TDNN", Interspeech 2020.

    Args:
        width: Channels of the states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # a constant added to a channel's scores changes no weight, so they have no bias
        self.score = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, width, bias=False))
        self.norm = Standardise(2 * width)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """Return the pooled states (B, 2 · width) of states (B, S, width) with the mask (B, S, 1), or None."""
        score = in_float32(self.score(states))
        weight = (score if mask is None else score.masked_fill(mask == 0, -torch.inf)).softmax(1)
        states = in_float32(states)
        weighted = weight * states
        mean = weighted.sum(1)
        variance = (weighted * states).sum(1) - mean.square()
        return self.norm(torch.cat([mean, variance.clamp_min(1e-5).sqrt()], dim=-1))


class ConvNeXtBlock(nn.Module):
    """A ConvNeXt block over time, from states (B, T, width) to states of the same shape.

    A depthwise convolution mixes frames, and two linear layers mix the channels of each frame. A condition (B, condition)
    scales and shifts the normalised states between them.

    Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545. Blocks over time: Siuzdak, "Vocos", ICLR 2024,
    arXiv 2306.00814. Scale and shift: Perez et al., "FiLM", AAAI 2018, arXiv 1709.07871.

    Args:
        width: Channels of the states.
        kernel: Frames in the kernel of the convolution, an odd number.
        expansion: Ratio of the hidden layer's width to `width`.
        share: Initial factor of the residual that is added to the input.
        condition: Dimensions of the condition; 0 for a block without.
    """

    def __init__(self, width: int, kernel: int, expansion: int, share: float, condition: int = 0) -> None:
        super().__init__()
        self.time = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), share))
        self.modulate = nn.Linear(condition, 2 * width) if condition else None

    def forward(self, states: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the block's output.

        Args:
            states: (B, T, width).
            condition: (B, condition), for a block with a condition.
        """
        hidden = self.norm(over_time(self.time, states))
        if self.modulate is not None:
            gain, shift = self.modulate(condition)[:, None].chunk(2, dim=-1)
            hidden = torch.addcmul(shift.to(hidden), hidden, (1 + gain).to(hidden))
        # the scale is applied to the weights of the last layer, which are fewer than its outputs
        weight, bias = self.scale[:, None] * self.narrow.weight, self.scale * self.narrow.bias
        return states + F.linear(F.gelu(self.widen(hidden)), weight, bias)


def over_time(layer: nn.Module, states: Tensor) -> Tensor:
    """Apply a Conv1d over the time axis of states: (B, S, d) → (B, S', d').

    The convolution is computed as one of images that are one pixel high. States and such images have the same memory
    layout, with the channels innermost, so nothing is copied. A depthwise convolution takes half the time of nn.Conv1d.
    """
    assert isinstance(layer, nn.Conv1d)
    images = states.transpose(1, 2)[:, :, None]
    padding, dilation = int(layer.padding[0]), layer.dilation[0]
    convolved = F.conv2d(
        images, layer.weight[:, :, None], layer.bias, (1, layer.stride[0]), (0, padding), (1, dilation), layer.groups
    )
    return convolved[:, :, 0].transpose(1, 2)


def strided_lengths(lengths: Tensor | None, stride: int) -> Tensor | None:
    """Return the lengths (B,) of sequences of which every `stride`-th frame is read: ⌈length / stride⌉."""
    return None if lengths is None else (lengths + stride - 1) // stride


def padding_mask(lengths: Tensor | None, states: Tensor) -> Tensor | None:
    """Return the mask (B, S, 1) of states (B, S, d): 1 inside each sequence, 0 in its padding; None without padding."""
    return None if lengths is None else frame_mask(lengths, states)


def _masked(states: Tensor, mask: Tensor | None) -> Tensor:
    return states if mask is None else states * mask


def _standardised(norm: nn.Module, states: Tensor) -> Tensor:
    """Standardise each channel of states (B, S, d) over all their frames."""
    return norm(states.flatten(0, 1)).view_as(states)
