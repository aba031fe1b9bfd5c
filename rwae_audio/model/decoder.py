"""p_θ(x_t | z^c, z^m_t): codes → frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rwae_audio.model.config import ModelConfig
from rwae_audio.model.layers import ConvNeXtBlock, over_time
from rwae_audio.model.posterior import Network
from rwae_audio.model.prior import beside


class Decoder(Network):
    """G(z^c, z^m_t[, a]): an LSTM over the codes whose state drives the frame, the same two layers frame by frame, or
    ConvNeXt blocks over the codes, `context` frames of which are heard on either side of one."""

    KERNEL = 7
    BLOCKS = 5

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inputs, hidden = config.static_dim + config.dynamic_dim + config.actions, config.decoder_hidden
        self.kind, self.context = config.decoder, 0
        if self.kind == "convolutional":
            self.first = nn.Conv1d(inputs, hidden, self.KERNEL, padding=self.KERNEL // 2)
            self.blocks = nn.ModuleList(
                ConvNeXtBlock(hidden, self.KERNEL, 3, 1.0 / self.BLOCKS, config.static_dim) for _ in range(self.BLOCKS)
            )
            self.frame: nn.Module = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, config.n_mels))
            self.context = (self.BLOCKS + 1) * (self.KERNEL // 2)
        elif self.kind == "recurrent":
            self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
            self.frame = nn.Linear(hidden, config.n_mels)
        else:
            self.frame = nn.Sequential(
                nn.Linear(inputs, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, config.n_mels),
            )

    def forward(
        self, static: Tensor, dynamic: Tensor, action: Tensor | None = None, modulation: Tensor | None = None
    ) -> Tensor:
        """static (B, static_dim), dynamic (B, T, dynamic_dim), action (B, A) → frames (B, T, n_mels).

        modulation: What one voice adds to the gains and shifts of the convolutional blocks, (BLOCKS, 2 · decoder_hidden).
        """
        return self.advance(static, dynamic, action=action, modulation=modulation)[0]

    def advance(
        self,
        static: Tensor,
        dynamic: Tensor,
        memory: Any = None,
        action: Tensor | None = None,
        modulation: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """`forward` of codes that go on where `memory` (the LSTM's states) stands, and the memory after them; convolutions
        know none: their first and last `context` frames are other ones in the middle of a sequence."""
        codes = torch.cat([static[:, None].expand(-1, dynamic.shape[1], -1), beside(dynamic, action)], dim=-1)
        if self.kind == "recurrent":
            codes, memory = self.lstm(codes, memory)
        elif self.kind == "convolutional":
            codes = over_time(self.first, codes)
            for number, block in enumerate(self.blocks):
                codes = block(codes, static, None if modulation is None else modulation[number])
        return self.frame(codes), memory
