"""The model: a recurrent autoencoder with one static code for each sequence and one dynamic code for each frame.

Han, Min, Han, Li, Zhang: "Disentangled Recurrent Wasserstein Autoencoder" (R-WAE), ICLR 2021, arXiv 2101.07496.

    p(x_{1:T}, z) = p(z^c) · ∏_t p_ψ(z^m_t | z^m_{<t}) · p_θ(x_t | z^c, z^m_t)
    q(z | x_{1:T}) = q_φ(z^c | x_{1:T}) · ∏_t q_φ(z^m_t | z^m_{<t}, x_{≤t})

z^c is the static code, z^m_t the dynamic code of frame t. B sequences, T frames, A actions. Frames are normalised
log-mels (B, T, n_mels).
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

EMBEDDING_WINDOW = 400  # frames; a voice is clearer in a long window than in the mean over many short ones


class Sample(NamedTuple):
    """Sequences that are decoded from codes of the priors.

    Attributes:
        frames: Normalised log-mels, (n, T, n_mels).
        static: Static codes, (n, static_dim).
        dynamic: Dynamic codes, (n, T, dynamic_dim).
        action: Actions, one-hot, (n, A); None in a model without actions.
    """

    frames: Tensor
    static: Tensor
    dynamic: Tensor
    action: Tensor | None


class RWAE(nn.Module):
    """The four networks of R-WAE: static encoder, dynamic encoder, dynamic prior and decoder.

    A model with actions has a fifth network, the encoder of the action.

    Args:
        config: The settings of the model.
    """

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
        """Encode sequences, draw their codes and decode them.

        A convolutional decoder reads the codes of the padding for the last `context` frames of a padded sequence.

        Args:
            frames: The sequences, (B, T, n_mels), padded on the right.
            static_frames: The static encoder's window of the same utterances, (B, S, n_mels); None for `frames`.
            generator: The generator of the draws; None to take the means.
            lengths: The number of frames of each sequence, (B,), or None without padding.
            dynamic_frames: A perturbed copy of `frames` for the dynamic encoder, (B, T, n_mels); None for `frames`.
            second_frames: A second window for the static encoder, (B, S, n_mels), or None. Its code is not decoded.
        """
        if static_frames is None:
            static = self.static_encoder(frames, generator, lengths)
        else:
            static = self.static_encoder(static_frames, generator)
        dynamic_input = frames if dynamic_frames is None else dynamic_frames
        dynamic = self.encode_dynamic(dynamic_input, static.sample, generator, lengths)
        second = None if second_frames is None else self.static_encoder(second_frames, generator)
        action = None
        if self.action_encoder is not None:
            action = self.action_encoder(dynamic.sample, generator, lengths)
        reconstruction = self.decoder(static.sample, dynamic.sample, None if action is None else action.sample)
        return Output(static, dynamic, reconstruction, second, action)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        frames: int,
        generator: torch.Generator,
        static: Tensor | None = None,
        actions: Tensor | None = None,
    ) -> Sample:
        """Sample sequences from the priors: z^c ~ N(0, I), a ~ Cat(1/A), and z^m from the dynamic prior.

        Args:
            n: Number of sequences.
            frames: Number of frames of a sequence.
            generator: The generator of the draws.
            static: Static codes to use instead of draws, (n, static_dim).
            actions: Indices of the actions to use instead of draws, (n,), from 0.

        Raises:
            ValueError: The model does not have these actions.
        """
        like, count = self.prior.head.weight, self.config.actions
        if actions is not None and (not count or int(actions.min()) < 0 or int(actions.max()) >= count):
            expected = f"numbers from 0 to {count - 1}" if count else "None, as the model has no actions"
            raise ValueError(f"actions are {actions.tolist()}; expected {expected}")
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
        """Return the posterior of z^m, each part (B, T, dynamic_dim).

        If z^c comes from the first frame's feature h_1, the encoder reads h_t − h_1 instead of frame t.

        Args:
            frames: (B, T, n_mels), padded on the right.
            static: z^c, (B, static_dim), for an encoder with `dynamic_sees_static`.
            generator: The generator of the draws; None to take the means.
            lengths: The number of frames of each sequence, (B,), or None without padding.
        """
        if isinstance(self.static_encoder, FrameStaticEncoder):
            features = self.static_encoder.features(frames, lengths)
            frames = features - features[:, :1]
        return self.dynamic_encoder(frames, generator, lengths, static)

    @property
    def static_frames(self) -> int | None:
        """The number of frames in the static encoder's window, or None if it is the training segment."""
        return None if self.config.static_from in ("segment", "frame") else self.config.static_window

    def embedding_frames(self, segment: int) -> int:
        """Return the number of frames in the windows over which a recording's static code is averaged.

        A static encoder that reads the training segment gets segments; every other one gets longer windows than in training.

        Args:
            segment: The number of frames in a training segment.
        """
        return segment if self.static_frames is None else max(EMBEDDING_WINDOW, self.static_frames)


def parameters(model: nn.Module) -> int:
    """Return the number of trained weights of a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
