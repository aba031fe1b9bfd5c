"""The settings of a vocoder's training: the tables [vocoder] and [train]."""

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
    """The settings of a vocoder's training: its length, its data and its losses.

    batch, frames            how many crops an update has, and how long each is
    decoded                  the share of the crops whose log-mels the bundle's model has encoded and decoded
    mel_weight               the weight of the distance of log-mels
    adversarial, matching    the weights of the discriminators' two terms; without either there are no discriminators
    width                    the channels of the discriminators
    precision                the arithmetic of the networks' passes: `float32`, or `bf16`, bfloat16 by autocast, where the
                             device computes in it. Sources, spectra, losses and the optimizers are float32 in any case
    judged                   how many development recordings are judged (extra `judge`) at every look. The best checkpoint
                             is then the one with the highest DNSMOS / 5 − CER. At 0 it is the one with the least of the
                             spectral losses, or the last one, where discriminators ask for more than these
    """

    table: ClassVar[str] = "train"
    seed: int = at_least(0, 0)
    updates: int = at_least(1, 2500)
    batch: int = at_least(1, 16)
    frames: int = at_least(2, 48)
    decoded: float = field(default=0.5, metadata={"bounds": Bounds(0, 1)})
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
        """Whether there are discriminators."""
        return self.adversarial > 0 or self.matching > 0


@dataclass(frozen=True)
class RunConfig:
    """The tables of a run."""

    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def of(cls, tables: Mapping[str, Any]) -> RunConfig:
        """Return the defaults, with what the tables give instead. Raises InputError."""
        check_tables(tables, "vocoder", "train")
        table = dict(tables.get("vocoder", {}))
        mel = MelConfig.from_table(table.pop("mel", {"preset": "vocoder"}))
        sizes = asdict(resolve(VocoderConfig, table, "[vocoder]"))
        train = resolve(TrainConfig, tables.get("train", {}), "[train]")
        if train.frames < (least := max(SIZES) // 2 // mel.hop_length + 2):  # the widest window reflects its half
            raise InputError(f"[train] frames is {train.frames}; expected {least} or more")
        return cls(VocoderConfig(**{**sizes, "mel": mel}), train)

    def tables(self) -> dict[str, Any]:
        """Return plain tables for JSON, from which `of` makes the same configuration."""
        return {"vocoder": asdict(self.vocoder), "train": asdict(self.train)}
