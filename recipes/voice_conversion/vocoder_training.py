"""What train_vocoder.py runs: the settings, one update, a look at the development recordings, the judges' ears."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from discriminators import Discriminators
from spectra import SIZES, Spectra, mel_distance, spectral_distance
from torch import Tensor
from vocoder_speech import Speech, draw

from rwae_audio.conversion.vocoders.griffin_lim import griffin_lim
from rwae_audio.conversion.vocoders.neural import Vocoder, VocoderConfig, load_vocoder, save_vocoder, vocode
from rwae_audio.data.corpora import by_corpus, planned_sources
from rwae_audio.data.features import MelConfig
from rwae_audio.devices import bf16_or_float32
from rwae_audio.files import InputError, read_json
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.inference.card import commands
from rwae_audio.model.posterior import run_in_bf16
from rwae_audio.randomness import generator
from rwae_audio.settings import resolve
from rwae_audio.training.checkpoint import Position, RunState, load_checkpoint, save_checkpoint
from rwae_audio.training.loop import MetricsLog, clip_gradients, train_loop


@dataclass(frozen=True)
class TrainConfig:
    """batch crops of `frames` an update; decoded: the share of them that the bundle's model has been through.

    adversarial, matching    weights of what the discriminators say (Discriminators.terms), 0 without any
    width                    of the discriminators
    precision                of the networks' passes: `float32`, or `bf16`, bfloat16 by autocast, where the device computes in
                             it. Sources, spectra, losses and the optimizers are float32 in any case
    judged                   so many development recordings are judged (extra `judge`) at every look, and the best checkpoint
                             is the one with the highest DNSMOS / 5 − CER; at 0, with the least of the spectral losses, or
                             the last one, where discriminators ask for more than these
    """

    seed: int = 0
    updates: int = 2500
    batch: int = 16
    frames: int = 48
    decoded: float = 0.5
    learning_rate: float = 1e-3
    warmup: int = 100
    mel_weight: float = 2.0
    adversarial: float = 0.0
    matching: float = 0.0
    width: int = 16
    judged: int = 0
    precision: Literal["float32", "bf16"] = "float32"
    evaluate_every: int = 250

    def __post_init__(self) -> None:
        leasts = {
            "seed": 0,
            "updates": 1,
            "batch": 1,
            "frames": 2,
            "warmup": 1,
            "width": 1,
            "judged": 0,
            "evaluate_every": 1,
        }
        for name, least in leasts.items():
            if getattr(self, name) < least:
                raise ValueError(f"[train] {name} is {getattr(self, name)}; expected {least} or more")
        if not 0 <= self.decoded <= 1:
            raise ValueError(f"[train] decoded is {self.decoded}; expected a share, 0 to 1")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"[train] learning_rate is {self.learning_rate}; expected between 0 and 1")
        for name in ("mel_weight", "adversarial", "matching"):
            if getattr(self, name) < 0:
                raise ValueError(f"[train] {name} is {getattr(self, name)}; expected 0 or more")

    @property
    def against(self) -> bool:
        """Are there discriminators?"""
        return self.adversarial > 0 or self.matching > 0


@dataclass(frozen=True)
class RunConfig:
    """The tables of a run."""

    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def of(cls, tables: dict[str, Any]) -> RunConfig:
        """From plain tables. Raises InputError."""
        if unknown := set(tables) - {"vocoder", "train"}:
            raise InputError(f"there is a table [{min(unknown)}]; expected [vocoder] and [train]")
        table = dict(tables.get("vocoder", {}))
        mel = MelConfig.from_table(table.pop("mel", {"preset": "vocoder"}))
        sizes = asdict(resolve(VocoderConfig, table, "[vocoder]"))
        train = resolve(TrainConfig, tables.get("train", {}), "[train]")
        if train.frames < (least := max(SIZES) // 2 // mel.hop_length + 2):  # the widest window reflects its half
            raise InputError(f"[train] frames is {train.frames}; expected {least} or more")
        return cls(VocoderConfig(**{**sizes, "mel": mel}), train)

    def tables(self) -> dict[str, Any]:
        return {"vocoder": asdict(self.vocoder), "train": asdict(self.train)}


def card(config: RunConfig, data: list[str], credit_lines: Sequence[str], hours: float, meta: dict[str, Any]) -> str:
    """README.md of a vocoder; data: the corpora's names."""
    mel, train = config.vocoder.mel, config.train
    against = " against discriminators" if train.against else ""
    sound = (
        "Consonants are soft and a voice can buzz"
        if against
        else "No discriminators: consonants are soft, a voice can buzz"
    )
    made = "\n".join(f"    {command}" for command in commands(meta))
    credits = "\n".join(f"- {line}" for line in credit_lines)
    return f"""# A vocoder of rwae-audio

Log-mel frames ({mel.n_mels} bins, windows of {mel.win_length} samples every {mel.hop_length}, {mel.sample_rate} Hz) and F0 →
speech: a ConvNeXt that filters a buzz and a hiss (`rwae_audio/conversion/vocoders/neural.py`).

- **Data**: {hours:.1f} hours of the training speakers of {", ".join(sorted(data))}.
- **Training**: after {meta["step"]} of {train.updates} updates{against}; {train.decoded:.0%} of the crops are log-mels that
  an R-WAE has decoded. Made with, in this order:

{made}

- **Intended use**: the voice of `rwae-vc`, for research and for voices whose owners consent; say that the result is synthetic.
- **Limits**: English, read and spelled speech, 16 kHz. {sound}. Where the F0 of a recording is not found, it whispers.

## Credits

{credits}
"""


def rate(settings: TrainConfig, step: int) -> float:
    """Of update `step`: a warm-up, then a cosine to a tenth."""
    fall = 0.55 + 0.45 * math.cos(math.pi * step / settings.updates)
    return settings.learning_rate * min(1.0, (step + 1) / settings.warmup) * fall


def train(
    config: RunConfig, speech: Mapping[str, Speech], folder: Path, plan: dict[str, Any], minutes: float | None = None
) -> None:
    """Train, from the folder's latest checkpoint on if it has one.

    Args:
        minutes: The time after which the run stops with a checkpoint.

    Raises:
        Interrupted: On Ctrl-C, once the checkpoint is written; TimeIsUp when the minutes are over.
    """
    train_loop(Training(config, speech, folder, plan), minutes=minutes)


class Training:
    """One run: the vocoder, its discriminators, their optimizers, and where it stands."""

    def __init__(self, config: RunConfig, speech: Mapping[str, Speech], folder: Path, plan: dict[str, Any]) -> None:
        settings = config.train
        self.config, self.settings, self.speech, self.folder, self.plan = config, settings, speech, folder, plan
        torch.manual_seed(generator(settings.seed, "weights").initial_seed() % 2**31)
        self.vocoder = Vocoder(config.vocoder)
        before = begin_with(self.vocoder, Path(plan["init"])) if plan.get("init") else []
        before += [*commands(load_bundle(plan.get("bundle")).meta), *plan.get("before", [])]
        self.before = [*dict.fromkeys(before)]
        self.discriminators = Discriminators(settings.width, settings.learning_rate) if settings.against else None
        self.ears = Ears() if settings.judged else None
        self.optimizer = torch.optim.AdamW(
            self.vocoder.parameters(), lr=settings.learning_rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True
        )
        self.device = self.vocoder.window.device
        self.bf16 = bf16_or_float32(settings.precision, self.device, lambda line: print(line, flush=True))
        self.latest, self.log = folder / "latest.safetensors", MetricsLog(folder / "metrics.jsonl")
        self.state = RunState(self.vocoder.network, self.optimizer, self.discriminators)
        self.position = load_checkpoint(self.latest, config, self.state) if self.latest.exists() else Position()
        self.log.drop_after(self.position.step)
        self.autocast(self.bf16)

    def autocast(self, on: bool) -> None:
        """Let the networks run in bfloat16, or in float32."""
        for model in (self.vocoder, self.discriminators):
            if model is not None:
                run_in_bf16(model, self.device, on)

    def update(self, step: int) -> dict[str, Tensor]:
        """Make one update, and return its losses and the norm of its gradient."""
        settings = self.settings
        log_mels, f0, recorded = draw(self.speech["train"], settings, step)
        made = Spectra(self.vocoder(log_mels, f0, generator(settings.seed, "sources", step)))
        wanted = Spectra(recorded)
        terms = {
            "spectral": spectral_distance(made, wanted),
            "mel": settings.mel_weight * mel_distance(made, wanted, self.config.vocoder.mel),
        }
        told = {}
        if self.discriminators is not None:
            set_rate(self.discriminators.optimizer, rate(settings, step))
            pictures = self.discriminators.pictures(wanted), self.discriminators.pictures(made)
            told["discriminators"] = self.discriminators.step(*pictures)
            for name, term in self.discriminators.terms(*pictures).items():
                terms[name] = getattr(settings, name) * term
        loss = torch.stack(list(terms.values())).sum()
        set_rate(self.optimizer, rate(settings, step))
        self.optimizer.zero_grad()
        loss.backward()
        norm = clip_gradients(self.vocoder.parameters(), 10.0)
        self.optimizer.step()
        return {"loss": loss, **terms, **told, "gradient": norm}

    def look(self, averages: dict[str, float]) -> None:
        """Log the averages and what the development recordings say, and keep the vocoder if it is the best one."""
        position, speech = self.position, self.speech["dev"]
        self.autocast(False)
        said = {**averages, **{f"dev/{name}": value for name, value in on_dev(self.vocoder, speech).items()}}
        score = -said["dev/natural"] - said["dev/decoded"]
        if self.discriminators is not None:
            score = float(position.step)
        if self.ears is not None:
            found = self.ears.judge(self.vocoder, speech, self.settings.judged)
            said |= {f"dev/{name}": value for name, value in found.items()}
            score = found["score"]
        self.autocast(self.bf16)
        self.log.write({"step": position.step, **said, "seconds": round(position.seconds, 1)})
        if score > position.best_score:
            position.best_score, position.best_step = score, position.step
            self.keep()
        position.sums = {}
        self.save()
        best = "  (best)" if position.best_step == position.step else ""
        print(json.dumps({key: round(value, 4) for key, value in said.items()}), position.step, best, flush=True)

    def keep(self) -> None:
        """Write the vocoder and its card."""
        meta = {"command": self.plan["command"], "step": self.position.step, "before": self.before}
        corpora, heard = [*by_corpus(planned_sources(self.plan))], self.speech["train"]
        text = card(self.config, corpora, heard.credits, heard.seconds / 3600, meta)
        save_vocoder(self.folder / "vocoder", self.vocoder, meta, text)

    def save(self) -> None:
        """Write the checkpoint that the run goes on with."""
        save_checkpoint(self.latest, self.config, self.state, self.position)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all that an optimizer moves."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def on_dev(vocoder: Vocoder, speech: Speech) -> dict[str, float]:
    """Both losses on whole recordings, of natural log-mels and of decoded ones."""
    vocoder.eval()
    totals = {"natural": 0.0, "decoded": 0.0}
    for begin, end in zip(speech.offsets[:-1], speech.offsets[1:], strict=True):
        for kind in totals:
            log_mels, f0, samples = (
                part[None] for part in speech.crop(int(begin), int(end - begin), kind == "decoded")
            )
            made, wanted = Spectra(vocoder(log_mels, f0, generator(0, "dev"))), Spectra(samples)
            totals[kind] += float(spectral_distance(made, wanted) + mel_distance(made, wanted, speech.mel))
    vocoder.train()
    return {kind: total / (len(speech.offsets) - 1) for kind, total in totals.items()}


def begin_with(vocoder: Vocoder, folder: Path) -> list[str]:
    """Give it the weights of the vocoder in `folder`; returns the commands that made that one. Raises InputError when it has
    other sizes."""
    found = load_vocoder(folder)
    if found.config != vocoder.config:
        raise InputError(f"the vocoder in {folder} has other sizes; expected those of [vocoder]")
    vocoder.load_state_dict(found.state_dict())
    return commands(read_json(folder / "config.json", "the folder of a vocoder").get("meta", {}))


class Ears:
    """What the judges hear of development recordings: how natural it is, and how many characters are misheard."""

    def __init__(self) -> None:
        from rwae_audio.evaluation import judges

        self.hear, self.rate, self.errors = judges.whisper(), judges.dnsmos(), judges.character_error_rate
        self.baseline: dict[str, float] = {}

    def judge(self, vocoder: Vocoder, speech: Speech, count: int) -> dict[str, float]:
        """Of the vocoder on `count` recordings' decoded and natural log-mels (and, once, of Griffin-Lim): mean DNSMOS, CER
        and `score`, both in one number, the mean of the two kinds."""
        known = [number for number, text in enumerate(speech.texts) if text]
        if not known:
            raise InputError("no development recording has a text; expected some, or train.judged = 0")
        chosen = known[:: -(-len(known) // count)]
        vocoder.eval()
        if not self.baseline:
            for kind in ("decoded", "natural"):
                self.baseline |= self.of(
                    f"griffin_lim_{kind}", chosen, speech, kind, lambda mels, f0: griffin_lim(mels, speech.mel)
                )
        said = {}
        for kind in ("decoded", "natural"):
            said |= self.of(kind, chosen, speech, kind, lambda mels, f0: vocode(vocoder, mels, f0))
        vocoder.train()
        score = sum(said[f"{kind}_mos"] / 5 - said[f"{kind}_cer"] for kind in ("decoded", "natural")) / 2
        return {**said, **self.baseline, "score": score}

    def of(self, name: str, chosen: list[int], speech: Speech, kind: str, sound: Any) -> dict[str, float]:
        heard = []
        for number in chosen:
            begin, end = (int(offset) for offset in speech.offsets[number : number + 2])
            log_mels, f0, _ = speech.crop(begin, end - begin, kind == "decoded")
            samples = sound(log_mels, f0).numpy()
            heard.append((self.rate(samples).overall, self.errors(speech.texts[number], self.hear(samples))))
        mos, cer = np.mean(heard, axis=0)
        return {f"{name}_mos": float(mos), f"{name}_cer": float(cer)}
