"""HiFi-GAN, log-mel frames → waveform: SpeechBrain's generator of 16 kHz speech, whose weights are not in the package.

Kong, Kim, Bae, "HiFi-GAN", NeurIPS 2020, arXiv 2010.05646. The configuration is that of
`speechbrain/tts-hifigan-libritts-16kHz` (Apache 2.0), which reads the frames of [mel] preset `vocoder`; its weights are
fetched and converted once, by recipes/voice_conversion/fetch_hifigan.py. It finds the pitch in the frames: there is no F0 to
give it, and on frames that a decoder has smoothed it guesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rwae_audio.data.features import PRESETS
from rwae_audio.data.store import cache_folder
from rwae_audio.files import InputError, read_tensors
from rwae_audio.inference.streaming import between_frames, in_context

SOURCE = "speechbrain/tts-hifigan-libritts-16kHz"
EXTRA = "`pip install 'rwae-audio[hifigan]'`"
GENERATOR: dict[str, Any] = {
    "in_channels": 80,
    "out_channels": 1,
    "resblock_type": "1",
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "resblock_kernel_sizes": [3, 7, 11],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 512,
    "upsample_factors": [8, 8, 2, 2],
}
CONTEXT = 16  # frames on either side of one that its sound depends on: all kernels' halves add up to under 15


class Hifigan(nn.Module):
    """The generator, without its weight norm, in evaluation mode; its weights are random ones until they are loaded."""

    name = "hifigan"
    takes_pitch = False

    def __init__(self) -> None:
        super().__init__()
        self.mel = PRESETS["vocoder"]
        self.generator = new_generator()
        self.generator.remove_weight_norm()
        self.eval()

    @torch.no_grad()
    def forward(self, log_mels: Tensor) -> Tensor:
        """log_mels (T, n_mels) → samples (T, hop_length): row t begins at the centre of frame t."""
        device = next(self.parameters()).device
        return self.generator(log_mels.T[None].to(device)).view(-1, self.mel.hop_length).cpu()

    def chunks(self, frames: Iterable[Tensor], f0: Tensor | None = None, seed: int = 0) -> Iterator[Tensor]:
        """Yield samples, (m,) at a time, (T − 1) · hop_length in all, for log-mels that come (n, n_mels) at a time.

        Memory does not grow with them. `f0` and `seed` are not used.
        """
        return between_frames(in_context(self, frames, CONTEXT))


def new_generator() -> Any:
    """SpeechBrain's HifiganGenerator with GENERATOR's sizes. Raises InputError when SpeechBrain is not installed."""
    try:
        from speechbrain.lobes.models.HifiGAN import HifiganGenerator
    except ImportError as error:
        raise InputError(f"HiFi-GAN is SpeechBrain's, which cannot be imported ({error}); expected {EXTRA}") from error
    return HifiganGenerator(**GENERATOR)


def weights_path() -> Path:
    """Return the path of the weights in the cache folder, where fetch_hifigan.py leaves them."""
    return cache_folder() / "hifigan.safetensors"


def load_hifigan(path: Path | None = None) -> Hifigan:
    """Read HiFi-GAN from a file of fetch_hifigan.py, weights_path() if None. Raises InputError for another file."""
    path = path or weights_path()
    if not path.is_file():
        fetch = "python recipes/voice_conversion/fetch_hifigan.py"
        raise InputError(f"{path} does not exist; expected the weights of HiFi-GAN, which `{fetch}` leaves there")
    weights = read_tensors(path, "the weights of HiFi-GAN")
    hifigan = Hifigan()
    try:
        hifigan.generator.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path} has other weights; expected those of {SOURCE}, converted") from error
    return hifigan
