"""What train_vocoder.py runs: the settings, the speech, the losses, the loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from discriminators import Discriminators
from torch import Tensor

from rwae_audio.bundle import load_bundle
from rwae_audio.card import commands, credits_of
from rwae_audio.checkpoint import Position, RunState, load_checkpoint, save_checkpoint
from rwae_audio.commands.resume import keep_content
from rwae_audio.corpora import by_corpus, planned_sources
from rwae_audio.divergences import frozen
from rwae_audio.features import MelConfig, log_mel, mel_filters
from rwae_audio.files import InputError, read_json
from rwae_audio.level import speech_of
from rwae_audio.loop import Interrupted, MetricsLog, clip_gradients, interruptible
from rwae_audio.neural_vocoder import Vocoder, VocoderConfig, load_vocoder, save_vocoder, vocode
from rwae_audio.randomness import generator
from rwae_audio.settings import resolve
from rwae_audio.vocoder import griffin_lim


@dataclass(frozen=True)
class TrainConfig:
    """batch crops of `frames` an update; decoded: the share of them that the bundle's model has been through.

    adversarial, matching    weights of what the discriminators say (Discriminators.terms), 0 without any
    width                    of the discriminators
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
        return cls(VocoderConfig(**{**sizes, "mel": mel}), resolve(TrainConfig, tables.get("train", {}), "[train]"))

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
speech: a ConvNeXt that filters a buzz and a hiss (`rwae_audio/neural_vocoder.py`).

- **Data**: {hours:.1f} hours of the training speakers of {", ".join(sorted(data))}.
- **Training**: after {meta["step"]} of {train.updates} updates{against}; {train.decoded:.0%} of the crops are log-mels that
  an R-WAE has decoded. Made with, in this order:

{made}

- **Intended use**: the voice of `rwae-vc`, for research and for voices whose owners consent; say that the result is synthetic.
- **Limits**: English, read and spelled speech, 16 kHz. {sound}. Where the F0 of a recording is not found, it whispers.

## Credits

{credits}
"""


@dataclass(frozen=True)
class Speech:
    """Recordings one after another: samples (N,), of frame t the hop_length ones from t · hop_length on; frames of log-mels,
    of what the model makes of them (T, n_mels), and F0 (T,); offsets (U + 1,): where each recording's frames begin; texts:
    what is said in each, "" where that is not known; credits: the line that thanks the makers of each corpus."""

    samples: np.ndarray
    log_mels: np.ndarray
    decoded: np.ndarray
    f0: np.ndarray
    offsets: np.ndarray
    mel: MelConfig
    texts: tuple[str, ...]
    credits: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.mel.sample_rate

    def crop(self, begin: int, frames: int, decoded: bool) -> tuple[Tensor, Tensor, Tensor]:
        """log-mels (frames, n_mels), F0 (frames,), samples ((frames − 1) · hop_length,)."""
        part = slice(begin, begin + frames)
        hop = self.mel.hop_length
        samples = self.samples[begin * hop : (begin + frames - 1) * hop]
        found = (self.decoded if decoded else self.log_mels)[part], self.f0[part], samples
        return tuple(torch.from_numpy(np.asarray(values, dtype=np.float32)) for values in found)  # type: ignore[return-value]


def read_speech(plan: dict[str, Any], split: str, config: RunConfig) -> Speech:
    """The recordings of a split: of all corpora to train on, of the tested ones otherwise (every fourth).

    Raises InputError when none is long enough.
    """
    from tqdm import tqdm

    from rwae_audio.audio import load_audio
    from rwae_audio.benchmark import with_benchmark
    from rwae_audio.corpora import planned_corpora
    from rwae_audio.pitch import fundamental

    bundle, mel = load_bundle(plan.get("bundle")), config.vocoder.mel
    if bundle.config.mel.frames() != mel.frames():
        raise InputError("the bundle has frames of another kind; expected those of [vocoder] mel")
    utterances = []
    corpora = planned_corpora(plan)
    keep_content(plan, corpora)
    for corpus in (with_benchmark(corpus) if corpus.name in plan["test"] else corpus for corpus in corpora):
        if split == "train" or corpus.name in plan["test"]:
            found = corpus.of(split)
            utterances += found if split == "train" else found[::4]
    parts: dict[str, list[np.ndarray]] = {"samples": [], "log_mels": [], "decoded": [], "f0": []}
    texts: list[str] = []
    hop = mel.hop_length
    for utterance in tqdm(utterances, split, disable=None):
        samples = load_audio(utterance.path, mel.sample_rate, utterance.start, utterance.end)
        recording = speech_of(samples, mel.sample_rate)
        if recording.level.count < mel.shortest or recording.level.silent:
            continue
        samples = np.concatenate([*recording.blocks()])
        log_mels = log_mel(torch.from_numpy(samples), mel)
        parts["log_mels"].append(log_mels.numpy().astype(np.float16))
        parts["decoded"].append(bundle.reconstruct(log_mels).numpy().astype(np.float16))
        parts["f0"].append(fundamental(samples, mel).astype(np.float32))
        samples = np.pad(samples, (0, max(hop * len(log_mels) - len(samples), 0)))[: hop * len(log_mels)]
        parts["samples"].append(samples.astype(np.float16))
        texts.append(utterance.text or "")
    lengths = [len(part) for part in parts["f0"]]
    least = config.train.frames if split == "train" else 1
    if max(lengths, default=0) < least:
        raise InputError(
            f"the longest {split} recording has {max(lengths, default=0)} frames; expected {least} or more"
        )
    offsets = np.cumsum([0, *lengths])
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    credit_lines = tuple(credits_of(corpora))
    return Speech(**whole, offsets=offsets, mel=mel, texts=tuple(texts), credits=credit_lines)


def spectral_losses() -> Any:
    """auraloss's multi-resolution STFT loss, windows a quarter of their length apart: with its own, which lie closer, an update
    takes 1.6 times as long."""
    try:
        from auraloss.freq import MultiResolutionSTFTLoss
    except ImportError as error:
        wanted = "`pip install 'rwae-audio[vocoder]'`"
        raise InputError(f"auraloss cannot be imported ({error}); expected {wanted}") from error
    sizes = [512, 1024, 2048]
    return MultiResolutionSTFTLoss(sizes, [size // 4 for size in sizes], sizes)


def mel_distance(made: Tensor, wanted: Tensor, mel: MelConfig) -> Tensor:
    """Mean |difference| of the log-mels of samples (B, N): a scalar, nats."""
    window, filters = torch.hann_window(mel.win_length), mel_filters(mel)

    def log_mels(samples: Tensor) -> Tensor:
        spectrum = torch.stft(samples, mel.n_fft, mel.hop_length, mel.win_length, window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return ((power + 1e-10).sqrt().transpose(1, 2) @ filters).clamp_min(1e-4).log()

    return (log_mels(made) - log_mels(wanted)).abs().mean()


def draw(speech: Speech, settings: TrainConfig, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """A batch: log-mels (B, T, n_mels), F0 (B, T), samples (B, N)."""
    noise = generator(settings.seed, "batch", step)
    lengths = np.diff(speech.offsets)
    long = np.flatnonzero(lengths >= settings.frames)
    room = np.cumsum(lengths[long] - settings.frames + 1)
    crops = []
    for place in (torch.rand(settings.batch, generator=noise).double() * float(room[-1])).long().tolist():
        which = int(np.searchsorted(room, place, side="right"))
        begin = int(speech.offsets[long[which]]) + place - (int(room[which - 1]) if which else 0)
        crops.append((begin, bool(torch.rand((), generator=noise) < settings.decoded)))
    batch = [speech.crop(begin, settings.frames, decoded) for begin, decoded in crops]
    return tuple(torch.stack(parts) for parts in zip(*batch, strict=True))  # type: ignore[return-value]


def rate(settings: TrainConfig, step: int) -> float:
    """Of update `step`: a warm-up, then a cosine to a tenth."""
    fall = 0.55 + 0.45 * math.cos(math.pi * step / settings.updates)
    return settings.learning_rate * min(1.0, (step + 1) / settings.warmup) * fall


def train(config: RunConfig, speech: dict[str, Speech], losses: Any, folder: Path, plan: dict[str, Any]) -> None:
    """The loop. Raises Interrupted on Ctrl-C, once its checkpoint is written."""
    settings, mel = config.train, config.vocoder.mel
    torch.manual_seed(generator(settings.seed, "weights").initial_seed() % 2**31)
    vocoder = Vocoder(config.vocoder)
    before = begin_with(vocoder, Path(plan["init"])) if plan.get("init") else []
    before = [*dict.fromkeys([*before, *commands(load_bundle(plan.get("bundle")).meta), *plan.get("before", [])])]
    discriminators = Discriminators(settings.width, settings.learning_rate) if settings.against else None
    ears = Ears() if settings.judged else None
    optimizer = torch.optim.AdamW(vocoder.parameters(), lr=settings.learning_rate, betas=(0.8, 0.99), weight_decay=0.01)
    state, latest = RunState(vocoder, optimizer, discriminators), folder / "latest.safetensors"
    position = load_checkpoint(latest, config, state) if latest.exists() else Position()
    log = MetricsLog(folder / "metrics.jsonl")
    log.drop_after(position.step)
    with interruptible() as stopped:
        while position.step < settings.updates and not stopped():
            began = time.monotonic()
            for group in optimizer.param_groups:
                group["lr"] = rate(settings, position.step)
            log_mels, f0, samples = draw(speech["train"], settings, position.step)
            made = vocoder(log_mels, f0, generator(settings.seed, "sources", position.step))
            terms = {
                "spectral": losses(made[:, None], samples[:, None]),
                "mel": settings.mel_weight * mel_distance(made, samples, mel),
            }
            told = {}
            if discriminators is not None:
                for group in discriminators.optimizer.param_groups:
                    group["lr"] = rate(settings, position.step)
                told["discriminators"] = discriminators.step(samples, made)
                with frozen(discriminators):
                    for name, term in discriminators.terms(samples, made).items():
                        terms[name] = getattr(settings, name) * term
            optimizer.zero_grad()
            sum(terms.values()).backward()  # type: ignore[union-attr]
            clip_gradients(vocoder.parameters(), 10.0, position.step)
            optimizer.step()
            position.step += 1
            position.seconds += time.monotonic() - began
            for name, value in {**{k: v.item() for k, v in terms.items()}, **told, "updates": 1}.items():
                position.sums[name] = position.sums.get(name, 0.0) + value
            if position.step % settings.evaluate_every == 0 or position.step == settings.updates:
                count = position.sums.pop("updates")
                said = {f"train/{name}": total / count for name, total in position.sums.items()}
                said |= {f"dev/{name}": value for name, value in on_dev(vocoder, speech["dev"], losses).items()}
                position.sums = {}
                score = -said["dev/natural"] - said["dev/decoded"]
                if discriminators is not None:
                    score = float(position.step)
                if ears is not None:
                    found = ears.judge(vocoder, speech["dev"], settings.judged)
                    said |= {f"dev/{name}": value for name, value in found.items()}
                    score = found["score"]
                log.write({"step": position.step, **said, "seconds": round(position.seconds, 1)})
                if score > position.best_score:
                    position.best_score, position.best_step = score, position.step
                    meta = {"command": plan["command"], "step": position.step, "before": before}
                    text = card(
                        config,
                        [*by_corpus(planned_sources(plan))],
                        speech["train"].credits,
                        speech["train"].seconds / 3600,
                        meta,
                    )
                    save_vocoder(folder / "vocoder", vocoder, meta, text)
                save_checkpoint(latest, config, state, position)
                best = "  (best)" if position.best_step == position.step else ""
                print(
                    json.dumps({key: round(value, 4) for key, value in said.items()}), position.step, best, flush=True
                )
    if position.step < settings.updates:
        save_checkpoint(latest, config, state, position)
        raise Interrupted(f"stopped after update {position.step} of {settings.updates}")


@torch.no_grad()
def on_dev(vocoder: Vocoder, speech: Speech, losses: Any) -> dict[str, float]:
    """Both losses on whole recordings, of natural log-mels and of decoded ones."""
    vocoder.eval()
    totals = {"natural": 0.0, "decoded": 0.0}
    for begin, end in zip(speech.offsets[:-1], speech.offsets[1:], strict=True):
        for kind in totals:
            log_mels, f0, samples = (
                part[None] for part in speech.crop(int(begin), int(end - begin), kind == "decoded")
            )
            made = vocoder(log_mels, f0, generator(0, "dev"))
            totals[kind] += float(losses(made[:, None], samples[:, None]) + mel_distance(made, samples, speech.mel))
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
        from rwae_audio import judges

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
