"""The training of a neural vocoder: updates, evaluation on development recordings, checkpoints, and the vocoder's card."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rwae_audio.conversion.vocoders.crops import KINDS, Speech, draw
from rwae_audio.conversion.vocoders.discriminators import Discriminators
from rwae_audio.conversion.vocoders.griffin_lim import griffin_lim
from rwae_audio.conversion.vocoders.neural import Vocoder, load_vocoder, save_vocoder, vocode
from rwae_audio.conversion.vocoders.settings import RunConfig, TrainConfig
from rwae_audio.conversion.vocoders.spectra import Spectra, mel_distance, spectral_distance
from rwae_audio.data.corpora import by_corpus, planned_sources
from rwae_audio.devices import bf16_or_float32
from rwae_audio.files import InputError, read_json
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.inference.card import commands
from rwae_audio.model.posterior import run_in_bf16
from rwae_audio.randomness import generator
from rwae_audio.training.checkpoint import Position, RunState, load_checkpoint, save_checkpoint
from rwae_audio.training.loop import MetricsLog, clip_gradients, train_loop

Say = Callable[[str], None]  # gets each line of text for the user
Vocode = Callable[[Tensor, Tensor, Tensor], Tensor]  # log-mels (T, n_mels), F0 (T,), static code (d,) → samples (N,)


def card(config: RunConfig, data: list[str], credit_lines: Sequence[str], hours: float, meta: dict[str, Any]) -> str:
    """Return the card (README.md) of a vocoder.

    Args:
        config: The configuration.
        data: The names of the corpora.
        credit_lines: The credits of the corpora, a line for each.
        hours: The hours of training speech.
        meta: The metadata of the vocoder: the commands that trained it, and the number of updates.
    """
    mel, train = config.vocoder.mel, config.train
    against = " against discriminators" if train.against else ""
    moved = f", and {train.moved:.0%} are of copies at another pitch" if train.moved else ""
    voice = ", which knows the voice by the static code of one bundle" if config.vocoder.voice else ""
    quality = (
        "Consonants are soft and a voice can buzz"
        if against
        else "No discriminators: consonants are soft, a voice can buzz"
    )
    command_lines = "\n".join(f"    {command}" for command in commands(meta))
    credits = "\n".join(f"- {line}" for line in credit_lines)
    return f"""# A vocoder of rwae-audio

Log-mel frames ({mel.n_mels} bins, windows of {mel.win_length} samples every {mel.hop_length}, {mel.sample_rate} Hz) and F0 →
speech: a ConvNeXt that filters a buzz and a hiss (`rwae_audio/conversion/vocoders/neural.py`){voice}.

- **Data**: {hours:.1f} hours of the training speakers of {", ".join(sorted(data))}.
- **Training**: after {meta["step"]} of {train.updates} updates{against}; {train.decoded:.0%} of the crops are log-mels that
  an R-WAE has decoded{moved}. Made with, in this order:

{command_lines}

- **Intended use**: the voice of `rwae-vc`, for research and for voices whose owners consent; say that the result is synthetic.
- **Limits**: English, read and spelled speech, 16 kHz. {quality}. Where the F0 of a recording is not found, it whispers.

## Credits

{credits}
"""


def rate(settings: TrainConfig, step: int) -> float:
    """Return the learning rate of update `step`: it rises linearly, and falls to a tenth along a cosine."""
    fall = 0.55 + 0.45 * math.cos(math.pi * step / settings.updates)
    return settings.learning_rate * min(1.0, (step + 1) / settings.warmup) * fall


def train_vocoder(
    config: RunConfig,
    speech: Mapping[str, Speech],
    folder: Path,
    plan: Mapping[str, Any],
    *,
    minutes: float | None = None,
    say: Say = lambda line: None,
) -> None:
    """Train a vocoder, or continue from the latest checkpoint in the folder.

    Args:
        config: The configuration.
        speech: The recordings of the splits `train` and `dev`.
        folder: The run folder, to which metrics.jsonl, latest.safetensors and vocoder/, the best vocoder so far, are written.
        plan: The content of run.json: `command` and `data`, and optionally `bundle`, `init` and `before`.
        minutes: The time in minutes after which the run stops with a checkpoint, or None.
        say: A function that gets a line of text for every evaluation.

    Raises:
        Interrupted: Ctrl-C was pressed; a checkpoint has been written.
        TimeIsUp: The minutes are over; a checkpoint has been written.
    """
    train_loop(Training(config, speech, folder, plan, say), minutes=minutes)


class Training:
    """A training run: the vocoder, its discriminators, their optimizers, and its progress (`position`)."""

    def __init__(
        self, config: RunConfig, speech: Mapping[str, Speech], folder: Path, plan: Mapping[str, Any], say: Say
    ) -> None:
        self.config, self.speech, self.folder, self.plan, self.say = config, speech, folder, plan, say
        self.settings = settings = config.train
        torch.manual_seed(generator(settings.seed, "weights").initial_seed() % 2**31)
        self.vocoder = Vocoder(config.vocoder)
        before = begin_with(self.vocoder, Path(plan["init"])) if plan.get("init") else []
        bundle = load_bundle(plan.get("bundle"))
        self.vocoder.bundle = bundle.digest if config.vocoder.voice else ""
        before += [*commands(bundle.meta), *plan.get("before", [])]
        self.before = [*dict.fromkeys(before)]
        self.discriminators = Discriminators(settings.width, settings.learning_rate) if settings.against else None
        self.judges = Judges() if settings.judged else None
        self.optimizer = torch.optim.AdamW(
            self.vocoder.parameters(), lr=settings.learning_rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True
        )
        self.device = self.vocoder.window.device
        self.bf16 = bf16_or_float32(settings.precision, self.device, say)
        self.latest, self.log = folder / "latest.safetensors", MetricsLog(folder / "metrics.jsonl")
        self.state = RunState(self.vocoder.network, self.optimizer, self.discriminators)
        self.position = load_checkpoint(self.latest, config, self.state) if self.latest.exists() else Position()
        self.log.drop_after(self.position.step)
        self.autocast(self.bf16)

    def autocast(self, on: bool) -> None:
        """Run the networks in bfloat16 if `on` is true, and otherwise in float32."""
        for model in (self.vocoder, self.discriminators):
            if model is not None:
                run_in_bf16(model, self.device, on)

    def update(self, step: int) -> dict[str, Tensor]:
        """Make update number `step`, and return its losses and the norm of the gradient."""
        settings = self.settings
        log_mels, f0, recorded, voices = draw(self.speech["train"], settings, step)
        output = Spectra(self.vocoder(log_mels, f0, generator(settings.seed, "sources", step), voices))
        target = Spectra(recorded)
        terms = {
            "spectral": spectral_distance(output, target),
            "mel": settings.mel_weight * mel_distance(output, target, self.config.vocoder.mel),
        }
        scalars = {}
        if self.discriminators is not None:
            set_rate(self.discriminators.optimizer, rate(settings, step))
            pictures = self.discriminators.pictures(target), self.discriminators.pictures(output)
            scalars["discriminators"] = self.discriminators.step(*pictures)
            for name, term in self.discriminators.terms(*pictures).items():
                terms[name] = getattr(settings, name) * term
        loss = torch.stack(list(terms.values())).sum()
        set_rate(self.optimizer, rate(settings, step))
        self.optimizer.zero_grad()
        loss.backward()
        norm = clip_gradients(self.vocoder.parameters(), 10.0)
        self.optimizer.step()
        return {"loss": loss, **terms, **scalars, "gradient": norm}

    def look(self, averages: dict[str, float]) -> None:
        """Evaluate the vocoder on development recordings, and write it if it is the best one so far.

        Args:
            averages: The mean losses of the updates since the last evaluation, which are logged as well.
        """
        position, speech = self.position, self.speech["dev"]
        self.autocast(False)
        measures = on_dev(self.vocoder, speech)
        score = -sum(measures.values())
        if self.discriminators is not None:
            score = float(position.step)
        if self.judges is not None:
            measures |= self.judges.judge(self.vocoder, speech, self.settings.judged)
            score = measures["score"]
        self.autocast(self.bf16)
        values = {**averages, **{f"dev/{name}": value for name, value in measures.items()}}
        self.log.write({"step": position.step, **values, "seconds": round(position.seconds, 1)})
        if score > position.best_score:
            position.best_score, position.best_step = score, position.step
            self.keep()
        position.sums = {}
        self.save()
        best = "  (best)" if position.best_step == position.step else ""
        line = json.dumps({key: round(value, 4) for key, value in values.items()})
        self.say(f"update {position.step}/{self.settings.updates}: {line}{best}")

    def keep(self) -> None:
        """Write the vocoder with its card."""
        meta = {"command": self.plan["command"], "step": self.position.step, "before": self.before}
        corpora, speech = [*by_corpus(planned_sources(self.plan))], self.speech["train"]
        text = card(self.config, corpora, speech.credits, speech.seconds / 3600, meta)
        save_vocoder(self.folder / "vocoder", self.vocoder, meta, text)

    def save(self) -> None:
        """Write the checkpoint from which the run can be continued."""
        save_checkpoint(self.latest, self.config, self.state, self.position)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters of an optimizer."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def on_dev(vocoder: Vocoder, speech: Speech) -> dict[str, float]:
    """Return the mean spectral losses on whole recordings, for each kind of log-mels (see KINDS in speech.py)."""
    vocoder.eval()
    totals = dict.fromkeys(KINDS[: len(speech.log_mels)], 0.0)
    for begin, end, code in zip(speech.offsets[:-1], speech.offsets[1:], speech.voices, strict=True):
        voice = torch.tensor(code)[None].float()
        for kind in totals:
            log_mels, f0, samples = (part[None] for part in speech.crop(int(begin), int(end - begin), kind))
            output, target = Spectra(vocoder(log_mels, f0, generator(0, "dev"), voice)), Spectra(samples)
            totals[kind] += float(spectral_distance(output, target) + mel_distance(output, target, speech.mel))
    vocoder.train()
    return {kind: total / (len(speech.offsets) - 1) for kind, total in totals.items()}


def begin_with(vocoder: Vocoder, folder: Path) -> list[str]:
    """Copy the weights of the vocoder in `folder` into a vocoder, and return the commands that trained them.

    The vocoder may have more blocks than that in `folder`: each of them begins as the identity. It may know voices where that
    in `folder` does not.

    Raises:
        InputError: The vocoder has fewer blocks, or the other sizes of the two vocoders differ.
    """
    initial = load_vocoder(folder)
    blocks, voice = initial.config.blocks, vocoder.config.voice
    same = replace(initial.config, blocks=vocoder.config.blocks, voice=voice) == vocoder.config
    if not same or blocks > vocoder.config.blocks or initial.config.voice not in (0, voice):
        knows = f" and a voice of {initial.config.voice}" if initial.config.voice else ""
        raise InputError(
            f"the vocoder in {folder} has {blocks} blocks and a width of {initial.config.width}{knows}; expected the sizes "
            "of [vocoder], or fewer blocks or no voice"
        )
    vocoder.load_state_dict(initial.state_dict(), strict=False)
    for block in [*vocoder.network.blocks][blocks:]:
        nn.init.zeros_(block.scale)
    return commands(read_json(folder / "config.json", "the folder of a vocoder").get("meta", {}))


class Judges:
    """Judges of a vocoder: the quality of its output (DNSMOS), and the character error rate of a speech recogniser (CER)."""

    def __init__(self) -> None:
        from rwae_audio.evaluation import judges

        self.transcribe, self.rate, self.error_rate = judges.whisper(), judges.dnsmos(), judges.character_error_rate
        self.baseline: dict[str, float] = {}

    def judge(self, vocoder: Vocoder, speech: Speech, count: int) -> dict[str, float]:
        """Return the ratings of the vocoder and, for comparison, of Griffin-Lim, which is rated once.

        Args:
            vocoder: The vocoder.
            speech: The development recordings.
            count: The number of recordings that are rated, spread over the recordings with a text.

        Returns:
            The means `natural_mos` and `natural_cer` from natural log-mels, and `decoded_mos` and `decoded_cer` from decoded
            log-mels. Griffin-Lim has the same entries with the prefix `griffin_lim_`. `score` is the vocoder's mean of
            DNSMOS / 5 − CER.

        Raises:
            InputError: No recording has a text.
        """
        with_text = [number for number, text in enumerate(speech.texts) if text]
        if not with_text:
            raise InputError("no development recording has a text; expected at least one, or train.judged = 0")
        chosen = with_text[:: -(-len(with_text) // count)]
        vocoder.eval()
        if not self.baseline:
            for kind in ("decoded", "natural"):
                ratings = self._ratings(chosen, speech, kind, lambda mels, f0, _: griffin_lim(mels, speech.mel))
                self.baseline |= {f"griffin_lim_{name}": value for name, value in ratings.items()}
        ratings = {}
        for kind in ("decoded", "natural"):
            ratings |= self._ratings(
                chosen, speech, kind, lambda mels, f0, voice: vocode(vocoder.of(voice, vocoder.bundle), mels, f0)
            )
        vocoder.train()
        score = sum(ratings[f"{kind}_mos"] / 5 - ratings[f"{kind}_cer"] for kind in ("decoded", "natural")) / 2
        return {**ratings, **self.baseline, "score": score}

    def _ratings(self, chosen: list[int], speech: Speech, kind: str, vocoder: Vocode) -> dict[str, float]:
        """Return the mean DNSMOS and the mean CER of a vocoder's output for `natural` or `decoded` log-mels."""
        ratings = []
        for number in chosen:
            begin, end = (int(offset) for offset in speech.offsets[number : number + 2])
            log_mels, f0, _ = speech.crop(begin, end - begin, kind)
            samples = vocoder(log_mels, f0, torch.tensor(speech.voices[number])).numpy()
            error_rate = self.error_rate(speech.texts[number], self.transcribe(samples))
            ratings.append((self.rate(samples).overall, error_rate))
        mos, cer = np.mean(ratings, axis=0)
        return {f"{kind}_mos": float(mos), f"{kind}_cer": float(cer)}
