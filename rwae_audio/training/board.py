"""The TensorBoard of a run: losses, posterior variances, reconstructions, a swap grid, sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.data.store import Batch
from rwae_audio.model import RWAE

Sound = Callable[[Tensor, MelConfig], Tensor]


class TensorBoard:
    """Writes events to a folder. Those after update `step`, where a resumed run goes on, are dropped.

    sound: Makes samples (N,) of log-mels (T, n_mels), as griffin_lim does. There is nothing to hear without it.
    """

    def __init__(self, folder: Path, mel: MelConfig, step: int = 0, sound: Sound | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=step + 1)
        self.mel, self.sound = mel, sound

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point a name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    @torch.no_grad()
    def pictures(self, step: int, model: RWAE, normaliser: Normaliser, batch: Batch) -> None:
        """Four held-out segments: above their reconstructions; source (rows) in the voice of each (columns); sound."""
        training = model.training
        model.eval()
        device = next(model.parameters()).device
        frames = normaliser(batch.frames[:4]).to(device)
        static_frames = None if batch.static_frames is None else normaliser(batch.static_frames[:4]).to(device)
        output = model(frames, static_frames)
        count = len(frames)
        pairs = torch.cat([_strip(frames), _strip(output.reconstruction)])
        voices = output.static.mean.repeat(count, 1)
        words = output.dynamic.mean.repeat_interleave(count, 0)
        swapped = model.decoder(voices, words).unflatten(0, (count, count))
        self.writer.add_image("reconstructions", _image(pairs), step, dataformats="HW")
        self.writer.add_image("swaps", _image(torch.cat([_strip(row) for row in swapped])), step, dataformats="HW")
        heard = {"source": frames[0], "reconstruction": output.reconstruction[0]} if self.sound is not None else {}
        for name, value in heard.items():
            sound = self.sound(normaliser.inverse(value.cpu()), self.mel)  # type: ignore[misc]
            peak = float(sound.abs().max())
            self.writer.add_audio(name, (sound / max(peak, 1.0))[None], step, sample_rate=self.mel.sample_rate)
        self.writer.flush()
        model.train(training)

    def close(self) -> None:
        self.writer.close()


def _strip(frames: Tensor) -> Tensor:
    """(B, T, n_mels) → one picture (n_mels, B · T), low bins below."""
    return frames.flatten(0, 1).T.flip(0)


def _image(picture: Tensor) -> Tensor:
    """Normalised log-mels → greys in [0, 1]: two deviations below the mean is black, two above is white."""
    return ((picture + 2) / 4).clamp(0, 1).cpu()
