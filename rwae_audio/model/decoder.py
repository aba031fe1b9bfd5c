"""The decoder p_θ(x_t | z^c, z^m_t), which turns codes into frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rwae_audio.model.config import ModelConfig
from rwae_audio.model.layers import ConvNeXtBlock, over_time
from rwae_audio.model.posterior import Network, append_vector


class Decoder(Network):
    """The decoder G(z^c, z^m_t[, a]), in one of three kinds.

    - "recurrent": an LSTM over the codes, and a linear layer on its states.
    - "frame": three linear layers on the codes of each frame.
    - "convolutional": ConvNeXt blocks over the codes, with z^c as their condition.

    Args:
        config: The settings of the model.

    Attributes:
        kind: The kind.
        context: Number of frames before and after a frame whose codes the convolutional decoder reads; 0 for other kinds.
    """

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

    def forward(self, static: Tensor, dynamic: Tensor, action: Tensor | None = None) -> Tensor:
        """Return the decoded frames (B, T, n_mels).

        Args:
            static: z^c, (B, static_dim).
            dynamic: z^m, (B, T, dynamic_dim).
            action: The action of each sequence, (B, A), or None in a model without actions.
        """
        return self.advance(static, dynamic, action=action)[0]

    def advance(
        self, static: Tensor, dynamic: Tensor, memory: Any = None, action: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Decode the next frames of sequences that come in chunks.

        Only a recurrent decoder continues from one chunk to the next. A convolutional decoder treats each chunk as a whole
        sequence, so up to `context` frames at either end of a chunk differ.

        Args:
            static: As in `forward`.
            dynamic: The codes of the chunk, (B, T, dynamic_dim).
            memory: The state of the LSTM after the chunk before, or None at the start.
            action: As in `forward`.

        Returns:
            The frames (B, T, n_mels), and the state of the LSTM after them.
        """
        codes = torch.cat([static[:, None].expand(-1, dynamic.shape[1], -1), append_vector(dynamic, action)], dim=-1)
        if self.kind == "recurrent":
            codes, memory = self.lstm(codes, memory)
        elif self.kind == "convolutional":
            codes = over_time(self.first, codes)
            for block in self.blocks:
                codes = block(codes, static)
        return self.frame(codes), memory
