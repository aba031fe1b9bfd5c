"""Dynamic codes that are fitted to a source, so that a conversion keeps more of its words.

The dynamic encoder computes the codes of a recording in one pass. Near them there are others from which the decoder returns
frames that are closer to the recording. A few steps of gradient descent find them; the weights stay as they are. Inference of
this kind is called semi-amortised (Kim et al. 2018, arXiv 1802.02550; Marino et al. 2018, arXiv 1807.09356).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rwae_audio.inference import streaming
from rwae_audio.inference.bundle import Bundle
from rwae_audio.model.decoder import Decoder

STEPS, RATE, DISTANCE = 3, 0.1, 2.0  # chosen on development pairs (recipes/voice_conversion/NOTES.md)


def fitted_codes(bundle: Bundle, voice: Tensor, frames: Tensor) -> Tensor:
    """Return the dynamic codes (T, dynamic_dim) of log-mels (T, n_mels) in one piece. See `fitted_chunks`."""
    return torch.cat([*fitted_chunks(bundle, voice, lambda: [frames])])


def fitted_chunks(bundle: Bundle, voice: Tensor, recording: streaming.Recording) -> Iterator[Tensor]:
    """Yield the dynamic codes of a recording in chunks (n, dynamic_dim), fitted to its log-mels.

    Only a convolutional decoder is fitted to, because it depends on few frames before and after a frame. With another one,
    and where the frames of a segment share a code, the codes are those of the encoder.

    Args:
        bundle: The bundle.
        voice: The static code of the recording itself, (static_dim,).
        recording: A function that returns the log-mels from the start, in chunks (n, n_mels). It is called twice.
    """
    config, decoder = bundle.model.config, bundle.model.decoder
    codes = bundle.encode_chunks(recording)
    if config.by_segment or not decoder.context:
        yield from codes
        return
    device = next(decoder.parameters()).device

    def fit(rows: Tensor) -> Tensor:
        frames, start = rows.to(device).split([config.n_mels, config.dynamic_dim], dim=1)
        return fitted(decoder, voice.to(device), frames, start).cpu()

    chunks = (streaming.in_chunks(part, streaming.CHUNK) for part in (map(bundle.normaliser, recording()), codes))
    rows = (torch.cat(parts, dim=1) for parts in zip(*chunks, strict=True))
    yield from streaming.in_context(fit, rows, 2 * decoder.context)


def fitted(decoder: Decoder, voice: Tensor, frames: Tensor, start: Tensor) -> Tensor:
    """Return the dynamic codes (T, dynamic_dim) near `start` from which a decoder returns given frames.

    The loss of a frame is the cost of the Wasserstein autoencoder, which is the squared error of the decoded frame, plus
    DISTANCE times the squared distance of its code from the start.

    Args:
        decoder: The decoder. Its weights and their gradients stay as they are.
        voice: The static code, (static_dim,).
        frames: The normalised log-mels, (T, n_mels).
        start: The codes of the encoder, (T, dynamic_dim).
    """
    with torch.inference_mode(False), torch.enable_grad():
        voice, frames, start = voice.clone(), frames.clone(), start.clone()
        codes = start.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([codes], lr=RATE)
        for _ in range(STEPS):
            error = (decoder(voice[None], codes[None])[0] - frames).square().sum()
            loss = error + DISTANCE * (codes - start).square().sum()
            (codes.grad,) = torch.autograd.grad(loss, [codes])
            optimizer.step()
    return codes.detach()
