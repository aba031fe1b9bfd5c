"""The Disentangled Recurrent Wasserstein Autoencoder: one static code a sequence, one dynamic code a frame.

Han, Min, Han, Li, Zhang: "Disentangled Recurrent Wasserstein Autoencoder", ICLR 2021, arXiv 2101.07496.

    p(x_{1:T}, z) = p(z^c) · ∏_t p_ψ(z^m_t | z^m_{<t}) · p_θ(x_t | z^c, z^m_t)
    q(z | x_{1:T}) = q_φ(z^c | x_{1:T}) · ∏_t q_φ(z^m_t | z^m_{<t}, x_{≤t})

Knows shapes, not losses. B sequences, T frames; frames are normalised log-mels (B, T, n_mels).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rwae_audio.model.actions import ActionEncoder, one_hot
from rwae_audio.model.config import ModelConfig
from rwae_audio.model.decoder import Decoder
from rwae_audio.model.dynamic_encoder import DynamicEncoder
from rwae_audio.model.posterior import Output, Posterior
from rwae_audio.model.prior import DynamicPrior
from rwae_audio.model.static_encoder import FrameStaticEncoder, StaticEncoder


class Sample(NamedTuple):
    """Sequences from the priors, with their codes.

    Attributes:
        frames: Normalised log-mels, (n, T, n_mels).
        static: Static codes, (n, static_dim).
        dynamic: Dynamic codes, (n, T, dynamic_dim).
        action: Actions, (n, A); None in a model without.
    """

    frames: Tensor
    static: Tensor
    dynamic: Tensor
    action: Tensor | None


class RWAE(nn.Module):
    """The four networks, put together, and a fifth where there are actions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.static_encoder = FrameStaticEncoder(config) if config.static_from == "frame" else StaticEncoder(config)
        self.dynamic_encoder = DynamicEncoder(config)
        self.prior = DynamicPrior(config)
        self.decoder = Decoder(config)
        self.action_encoder = ActionEncoder(config) if config.actions else None

    def forward(
        self,
        frames: Tensor,
        static_frames: Tensor | None = None,
        generator: torch.Generator | None = None,
        lengths: Tensor | None = None,
        dynamic_frames: Tensor | None = None,
        second_frames: Tensor | None = None,
    ) -> Output:
        """Encode, draw (means without a generator) and decode.

        What a convolutional decoder makes of the last `context` frames before a padding depends on what stands there.

        Args:
            frames: (B, T, n_mels), padded on the right where `lengths` (B,) says so.
            static_frames: (B, S, n_mels), the static encoder's window of the same utterances; None for the frames.
            dynamic_frames: (B, T, n_mels), a perturbed copy of the frames for the dynamic encoder; None for the frames.
            second_frames: (B, S, n_mels), a second window for the static encoder. Nothing is decoded from its code.
        """
        if static_frames is None:
            static = self.static_encoder(frames, generator, lengths)
        else:
            static = self.static_encoder(static_frames, generator)
        heard = frames if dynamic_frames is None else dynamic_frames
        dynamic = self.encode_dynamic(heard, static.sample, generator, lengths)
        second = None if second_frames is None else self.static_encoder(second_frames, generator)
        action = None
        if self.action_encoder is not None:
            action = self.action_encoder(dynamic.sample, generator, lengths)
        decoded = self.decoder(static.sample, dynamic.sample, None if action is None else action.sample)
        return Output(static, dynamic, decoded, second, action)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        frames: int,
        generator: torch.Generator,
        static: Tensor | None = None,
        actions: Tensor | None = None,
    ) -> Sample:
        """Return n sequences of `frames` frames from the priors.

        z^c ~ N(0, I), or `static` (n, static_dim); a ~ Cat(1/A), or `actions` (n,), numbers from 0; z^m from the prior on
        its own samples.

        Raises ValueError for actions that the model does not have.
        """
        like, count = self.prior.head.weight, self.config.actions
        if actions is not None and (not count or int(actions.min()) < 0 or int(actions.max()) >= count):
            raise ValueError(
                f"actions are {actions.tolist()}; expected numbers from 0 to {count - 1}, of a model with any"
            )
        if static is None:
            static = torch.randn((n, self.config.static_dim), generator=generator).to(like)
        if count and actions is None:
            actions = torch.randint(count, (n,), generator=generator)
        action = None if actions is None else one_hot(actions, count).to(like)
        dynamic = self.prior.rollout(n, frames, generator, action)
        return Sample(self.decoder(static, dynamic, action), static, dynamic, action)

    def encode_dynamic(
        self, frames: Tensor, static: Tensor, generator: torch.Generator | None, lengths: Tensor | None = None
    ) -> Posterior:
        """Return z^m (B, T, dynamic_dim) of frames (B, T, n_mels), given z^c (B, static_dim) for an encoder that sees it.

        Where z^c is the first frame's, the encoder sees h_t − h_1 instead of the frames.
        """
        if isinstance(self.static_encoder, FrameStaticEncoder):
            features = self.static_encoder.features(frames, lengths)
            frames = features - features[:, :1]
        return self.dynamic_encoder(frames, generator, lengths, static)

    @property
    def static_frames(self) -> int | None:
        """The length of the static encoder's window, or None where it is the training segment itself."""
        return None if self.config.static_from in ("segment", "frame") else self.config.static_window

    def embedding_frames(self, segment: int) -> int:
        """The length of the windows that a recording's static code is the mean over; segment: that of training."""
        return self.config.embedding_window or self.static_frames or segment


def parameters(model: nn.Module) -> int:
    """Return the number of trained weights."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
