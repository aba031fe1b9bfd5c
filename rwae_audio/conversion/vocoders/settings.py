"""The settings of the training of a neural vocoder: the tables [vocoder] and [train] of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from rwae_audio.conversion.vocoders.neural import VocoderConfig
from rwae_audio.conversion.vocoders.spectra import SIZES
from rwae_audio.data.features import MelConfig
from rwae_audio.files import InputError
from rwae_audio.settings import Bounds, Settings, at_least, between, check_tables, resolve


@dataclass(frozen=True)
class TrainConfig(Settings):
    """The settings of the training of a vocoder.

    Attributes:
        seed: The seed of all random numbers.
        updates: The number of updates.
        batch: The number of crops of an update.
        frames: The number of frames of a crop.
        decoded: The share of crops with log-mels that the bundle's model has encoded and decoded.
        moved: The share of crops with the log-mels of a copy at another pitch: where they are decoded as well, of a conversion
            into another voice, converted back. With 0 no copies are made.
        learning_rate: The largest learning rate.
        warmup: The number of updates over which the learning rate rises from 0.
        mel_weight: The weight of the distance of log-mels.
        adversarial: The weight of the hinge loss of the discriminators.
        matching: The weight of the distance of the discriminators' states. If it and `adversarial` are 0, there are no
            discriminators.
        width: The number of channels of the discriminators.
        judged: The number of development recordings that the judges rate at every evaluation (extra `judge`). The best
            checkpoint is then the one with the highest DNSMOS / 5 − CER. With 0, it is the one with the smallest spectral
            losses, or the last one if there are discriminators.
        precision: The arithmetic of the networks: `float32`, or `bf16` for bfloat16 by autocast if the device supports it.
            Sources, spectra, losses and optimizers are in float32 in both cases.
        evaluate_every: The number of updates between two evaluations.
    """

    table: ClassVar[str] = "train"
    seed: int = at_least(0, 0)
    updates: int = at_least(1, 2500)
    batch: int = at_least(1, 16)
    frames: int = at_least(2, 48)
    decoded: float = field(default=0.5, metadata={"bounds": Bounds(0, 1)})
    moved: float = field(default=0.0, metadata={"bounds": Bounds(0, 1)})
    learning_rate: float = between(0, 1, 1e-3, open_low=True)
    warmup: int = at_least(1, 100)
    mel_weight: float = at_least(0, 2.0)
    adversarial: float = at_least(0, 0.0)
    matching: float = at_least(0, 0.0)
    width: int = at_least(1, 16)
    judged: int = at_least(0, 0)
    precision: Literal["float32", "bf16"] = "float32"
    evaluate_every: int = at_least(1, 250)

    @property
    def against(self) -> bool:
        """Whether the vocoder is trained against discriminators."""
        return self.adversarial > 0 or self.matching > 0


@dataclass(frozen=True)
class RunConfig:
    """The configuration of a run: its tables [vocoder] and [train]."""

    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def of(cls, tables: Mapping[str, Any]) -> RunConfig:
        """Return the configuration with the settings in the tables and defaults for all others.

        Raises:
            InputError: A table or a setting is unknown, or a value is out of bounds.
        """
        check_tables(tables, "vocoder", "train")
        table = dict(tables.get("vocoder", {}))
        mel = MelConfig.from_table(table.pop("mel", {"preset": "vocoder"}))
        sizes = asdict(resolve(VocoderConfig, table, "[vocoder]"))
        train = resolve(TrainConfig, tables.get("train", {}), "[train]")
        if train.frames < (least := max(SIZES) // 2 // mel.hop_length + 2):  # half of a window is reflected at the ends
            raise InputError(f"[train] frames is {train.frames}; expected {least} or more")
        return cls(VocoderConfig(**{**sizes, "mel": mel}), train)

    def tables(self) -> dict[str, Any]:
        """Return the configuration as tables for JSON, the input of `of`."""
        return {"vocoder": asdict(self.vocoder), "train": asdict(self.train)}
