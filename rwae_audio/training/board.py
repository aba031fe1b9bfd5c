"""The TensorBoard log of a run: scalars, reconstructed and converted segments as images, and sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.data.store import Batch
from rwae_audio.model import RWAE

Sound = Callable[[Tensor, MelConfig], Tensor]  # log-mels (T, n_mels) and their settings → samples (N,)


class TensorBoard:
    """A writer of TensorBoard events.

    Args:
        folder: The folder of the events.
        mel: The settings of the log-mels.
        step: The update from which a resumed run continues. Events after it are dropped.
        sound: Makes a waveform from log-mels, as `griffin_lim` does. Without it there is no sound in the log.
    """

    def __init__(self, folder: Path, mel: MelConfig, step: int = 0, sound: Sound | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=step + 1)
        self.mel, self.sound = mel, sound

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars, by name, for an update."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    @torch.no_grad()
    def pictures(self, step: int, model: RWAE, normaliser: Normaliser, batch: Batch) -> None:
        """Write images and sounds of up to four segments.

        The image `reconstructions` has the segments above their reconstructions. In the image `swaps` each row is one
        segment and each column one voice.

        Args:
            step: The number of the update.
            model: The model, left in the mode that it came in.
            normaliser: The normaliser of log-mels.
            batch: Raw log-mels of development speakers.
        """
        training = model.training
        model.eval()
        device = next(model.parameters()).device
        frames = normaliser(batch.frames[:4]).to(device)
        static_frames = None if batch.static_frames is None else normaliser(batch.static_frames[:4]).to(device)
        output = model(frames, static_frames)
        count = len(frames)
        pairs = torch.cat([_row(frames), _row(output.reconstruction)])
        static = output.static.mean.repeat(count, 1)
        dynamic = output.dynamic.mean.repeat_interleave(count, 0)
        swaps = model.decoder(static, dynamic).unflatten(0, (count, count))
        self.writer.add_image("reconstructions", _grey(pairs), step, dataformats="HW")
        self.writer.add_image("swaps", _grey(torch.cat([_row(segments) for segments in swaps])), step, dataformats="HW")
        if self.sound is not None:
            for name, segment in {"source": frames[0], "reconstruction": output.reconstruction[0]}.items():
                samples = self.sound(normaliser.inverse(segment.cpu()), self.mel)
                peak = float(samples.abs().max())
                self.writer.add_audio(name, (samples / max(peak, 1.0))[None], step, sample_rate=self.mel.sample_rate)
        self.writer.flush()
        model.train(training)

    def close(self) -> None:
        """Close the file of events."""
        self.writer.close()


def _row(frames: Tensor) -> Tensor:
    """Return frames (B, T, n_mels) side by side as an image (n_mels, B · T) with the low bins at the bottom."""
    return frames.flatten(0, 1).T.flip(0)


def _grey(image: Tensor) -> Tensor:
    """Return normalised log-mels as greys in [0, 1], black at −2 and white at 2 standard deviations."""
    return ((image + 2) / 4).clamp(0, 1).cpu()
