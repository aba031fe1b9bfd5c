"""Listeners: two networks, trained with labels of natural speech, that judge what a model decodes while it is trained.

One recognises the phone of each frame, and the other computes an embedding of the voice. recipes/voice_conversion/
train_listeners.py trains them. Their weights do not change while they judge.

Words by the states of a speech recogniser: Li, Zare, Mesgarani, "StarGANv2-VC", Interspeech 2021, arXiv 2107.10394. Voices by a
verifier of speakers: Cai, Zhang, Li, "From Speaker Verification to Multispeaker Speech Synthesis, Deep Transfer with Feedback
Constraint", Interspeech 2020, arXiv 2005.04587. B sequences, T frames.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.data.features import Normaliser
from rwae_audio.files import InputError, read_header, read_tensors, write_tensors
from rwae_audio.model import ModelConfig
from rwae_audio.model.layers import ConvNeXtBlock, over_time
from rwae_audio.model.posterior import Network
from rwae_audio.model.static_encoder import StaticEncoder

WIDTH, BLOCKS, KERNEL = 256, 4, 7  # channels, blocks and their kernel in frames, of the phone listener
VOICE_WIDTH, VOICE_DIM = 192, 128  # channels of the voice listener, dimensions of its embeddings
EXPECTED = "the listeners that train_listeners.py writes"


class Heard(NamedTuple):
    """The output of the phone listener.

    Attributes:
        logits: The logits of the phones, (B, T, P).
        states: The states of all blocks, each (B, T, WIDTH).
    """

    logits: Tensor
    states: list[Tensor]


class PhoneListener(Network):
    """Convolutions over time that recognise the phone of each frame.

    Args:
        n_mels: Mel bins of the frames.
        phones: The number of phones, P.
    """

    def __init__(self, n_mels: int, phones: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(n_mels, WIDTH, 5, padding=2)
        self.blocks = nn.ModuleList(ConvNeXtBlock(WIDTH, KERNEL, 2, 0.5) for _ in range(BLOCKS))
        self.norm, self.last = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, phones)

    def forward(self, frames: Tensor) -> Heard:
        """Listen to normalised frames (B, T, n_mels)."""
        hidden, states = over_time(self.first, frames), []
        for block in self.blocks:
            hidden = block(hidden)
            states.append(hidden)
        return Heard(self.last(self.norm(hidden)), states)


class VoiceListener(Network):
    """An encoder of voices: residual convolutions and attentive pooling, as in the static encoder of R-WAE+.

    Args:
        n_mels: Mel bins of the frames.
    """

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        config = ModelConfig(
            n_mels=n_mels, static_dim=VOICE_DIM, static_hidden=VOICE_WIDTH, static_network="residual", posterior="fixed"
        )
        self.encoder = StaticEncoder(config)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the embeddings (B, VOICE_DIM), of length 1, of normalised frames (B, T, n_mels)."""
        return F.normalize(self.encoder(frames, None).mean, dim=1)


class Listeners(nn.Module):
    """Both listeners, and the normaliser of the frames that they listen to.

    Args:
        normaliser: The normaliser.
        phones: The names of the phones.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, normaliser: Normaliser, phones: Sequence[str]) -> None:
        super().__init__()
        n_mels, self.phones = len(normaliser.mean), tuple(phones)
        self.register_buffer("mean", normaliser.mean.clone())
        self.register_buffer("deviation", normaliser.deviation.clone())
        self.phone, self.voice = PhoneListener(n_mels, len(phones)), VoiceListener(n_mels)

    def lost_words(self, decoded: Tensor, wanted: Heard) -> Tensor:
        """Return how much of the phones a decoding loses, a scalar, at least 0.

        It is the KL divergence from the phones in the decoding to those in the speech, in nats a frame, and the mean
        relative distance of the phone listener's states.

        Args:
            decoded: Decoded frames, (B, T, n_mels).
            wanted: The output of the phone listener for speech with the same words.
        """
        heard = self.phone(decoded)
        pairs = zip(heard.states, wanted.states, strict=True)
        distances = torch.stack([(a - b).abs().mean() / b.abs().mean() for a, b in pairs])
        log_heard, log_wanted = (logits.log_softmax(-1) for logits in (heard.logits, wanted.logits))
        lost = log_wanted.exp() * (log_wanted - log_heard)
        return lost.sum(-1).mean() + distances.mean()

    def lost_voices(self, decoded: Tensor, wanted: Tensor) -> Tensor:
        """Return one minus the mean cosine between the voices of decoded frames and the wanted voices.

        Args:
            decoded: Decoded frames, (B, T, n_mels).
            wanted: The output of the voice listener for speech in the wanted voices, (B, VOICE_DIM).
        """
        return 1 - (self.voice(decoded) * wanted).sum(1).mean()


def write_listeners(path: Path, listeners: Listeners, command: str) -> None:
    """Write listeners into a safetensors file, with the command that trained them in its header."""
    header = {"phones": json.dumps(listeners.phones), "command": command}
    write_tensors(path, {name: value.contiguous() for name, value in listeners.state_dict().items()}, header)


def read_listeners(path: str | Path, normaliser: Normaliser) -> Listeners:
    """Read listeners, with weights that do not learn.

    Args:
        path: The file.
        normaliser: The normaliser of the frames that they will listen to.

    Raises:
        InputError: The file cannot be read or is another one, or its listeners have another normaliser.
    """
    tensors = read_tensors(Path(path), EXPECTED)
    try:
        phones = json.loads(read_header(Path(path))["phones"])
        listeners = Listeners(Normaliser(tensors["mean"], tensors["deviation"]), phones)
        listeners.load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{path} has other weights; expected {EXPECTED}") from error
    own = Normaliser(listeners.mean, listeners.deviation)
    for mine, other in ((own.mean, normaliser.mean), (own.deviation, normaliser.deviation)):
        if mine.shape != other.shape or not torch.allclose(mine, other.to(mine), atol=1e-4):
            raise InputError(
                f"{path} was trained with another normaliser; expected listeners that were trained with the bundle of --init"
            )
    return listeners.eval().requires_grad_(False)
