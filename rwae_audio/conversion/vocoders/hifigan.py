"""The vocoder HiFi-GAN, which is SpeechBrain's generator of 16 kHz speech; its weights are not in the package.

Kong, Kim, Bae, "HiFi-GAN", NeurIPS 2020, arXiv 2010.05646. The configuration is that of
`speechbrain/tts-hifigan-libritts-16kHz` (Apache 2.0) for log-mels with the preset `vocoder`. The script
recipes/voice_conversion/fetch_hifigan.py downloads and converts the weights. HiFi-GAN takes no F0: it infers the pitch from
the log-mels, and decoded log-mels are too smooth to show it well.
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
CONTEXT = 16  # frames before and after a frame on which its samples depend; half of all kernels is under 15 frames


class Hifigan(nn.Module):
    """The generator without weight norm, in evaluation mode. Its weights are random until `load_hifigan` loads them."""

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
        """Return the samples (T, hop_length) of log-mels (T, n_mels); row t begins at the centre of frame t."""
        device = next(self.parameters()).device
        return self.generator(log_mels.T[None].to(device)).view(-1, self.mel.hop_length).cpu()

    def chunks(self, frames: Iterable[Tensor], f0: Tensor | None = None, seed: int = 0) -> Iterator[Tensor]:
        """Yield the samples of a recording of any length, (m,) at a time and (T − 1) · hop_length in all.

        Args:
            frames: Log-mels in chunks (n, n_mels), T frames in all. They are processed in constant memory.
            f0: Not used.
            seed: Not used.
        """
        return between_frames(in_context(self, frames, CONTEXT))


def new_generator() -> Any:
    """Return SpeechBrain's HifiganGenerator with the sizes GENERATOR. Raises InputError without SpeechBrain."""
    try:
        from speechbrain.lobes.models.HifiGAN import HifiganGenerator
    except ImportError as error:
        raise InputError(f"HiFi-GAN is SpeechBrain's, which cannot be imported ({error}); expected {EXTRA}") from error
    return HifiganGenerator(**GENERATOR)


def weights_path() -> Path:
    """Return the path of the weights in the cache folder, to which fetch_hifigan.py writes them."""
    return cache_folder() / "hifigan.safetensors"


def load_hifigan(path: Path | None = None) -> Hifigan:
    """Read HiFi-GAN.

    Args:
        path: A file that fetch_hifigan.py wrote, weights_path() if None.

    Raises:
        InputError: The file is missing or has other weights, or SpeechBrain is not installed.
    """
    path = path or weights_path()
    if not path.is_file():
        fetch = "python recipes/voice_conversion/fetch_hifigan.py"
        raise InputError(f"{path} does not exist; expected the weights of HiFi-GAN, which `{fetch}` writes")
    weights = read_tensors(path, "the weights of HiFi-GAN")
    hifigan = Hifigan()
    try:
        hifigan.generator.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path} has other weights; expected those of {SOURCE}, converted") from error
    return hifigan
