"""A run: one readable loop, checkpoints that are whole, and a resumed run that equals the uninterrupted one."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rwae_audio.actions import word_shape
from rwae_audio.checkpoint import Position, RunState, load_checkpoint, save_checkpoint
from rwae_audio.config import resolve
from rwae_audio.distributed import average_numbers, barrier, local, mean_gradients, rank, start
from rwae_audio.features import MelConfig, Normaliser
from rwae_audio.files import InputError
from rwae_audio.loop import Interrupted, MetricsLog, clip_gradients, interruptible
from rwae_audio.model import RWAE, ModelConfig
from rwae_audio.objectives import OBJECTIVES, Objective, ObjectiveConfig
from rwae_audio.perturb import CHANNELS, channelled, equalised, warp_frequencies, warp_mels
from rwae_audio.randomness import generator
from rwae_audio.store import Batch, Sampler

COLLAPSED = 0.05  # a code whose absence costs less reconstruction error than this, relatively, is collapsed
DETERMINISTIC = 0.1  # a posterior variance under this


@dataclass(frozen=True)
class TrainConfig:
    """One run: how many updates on how much, how fast, and how often the development speakers are asked.

    batch       sequences an update, of all processes together
    schedule    the learning rate stays `constant`, or falls to zero along a `cosine`, after `warmup` updates
    voice_warp  the mel axis of all that is drawn of an utterance is stretched by one factor, up to this far from 1, drawn
                anew each time: another voice that says the same (vocal tract length perturbation, Jaitly & Hinton 2013)
    tract_warp  the same on the frequency axis in Hz, which is what a vocal tract of another length does
    mel_warp    the mel axis of the dynamic encoder's input is stretched by up to this factor, drawn anew each sequence
    colour      standard deviation, in nats, of a smooth random curve over the mel axis that is added to the dynamic encoder's
                input, drawn anew each sequence: what is said is left when the spectrum as a whole is another one
    ema_decay   of the exponential moving average of the weights, an update, which is what the development speakers choose
                from and what is kept (Polyak & Juditsky 1992); at 0 there is none, and the weights are as they are
    channel     what the static encoder's second window (its only one, where the objective has no second) goes through, each
                with a chance of a half, drawn anew: names of perturb.CHANNELS in their order
    choose      what makes a checkpoint the best one on development speakers: the `gap` between dynamic and static EER, or
                the least reconstruction `error`
    action_start    for so many updates an action is to be the cluster (k-means) of what the utterance sounds like; then what
                it agrees on with its neighbour's, in a model with actions
    temperature_start, temperature_end    of the draw of an action (Gumbel-softmax), falling from one to the other in equal
                ratios, in a model with actions
    equalise    standard deviation, in nats, of a smooth random curve over the mel axis that is added to the static
                encoder's second window, where the objective has one: the voice is what is left when the channel changes
    """

    seed: int = 0
    updates: int = 2500
    batch: int = 128
    learning_rate: float = 4e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: int = 50
    gradient_clip: float = 50.0
    evaluate_every: int = 250
    voice_warp: float = 0.0
    tract_warp: float = 0.0
    mel_warp: float = 0.0
    equalise: float = 0.0
    colour: float = 0.0
    ema_decay: float = 0.0
    channel: tuple[str, ...] = ()
    choose: Literal["gap", "error"] = "gap"
    action_start: int = 0
    temperature_start: float = 1.0
    temperature_end: float = 0.3

    def __post_init__(self) -> None:
        for name, least in {
            "updates": 1,
            "batch": 2,
            "evaluate_every": 1,
            "warmup": 0,
            "seed": 0,
            "action_start": 0,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(f"[train] {name} is {getattr(self, name)}; expected {least} or more")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"[train] learning_rate is {self.learning_rate}; expected between 0 and 1")
        for name in ("voice_warp", "tract_warp", "mel_warp"):
            if not 0 <= getattr(self, name) < 0.5:
                raise ValueError(f"[train] {name} is {getattr(self, name)}; expected at least 0 and under 0.5")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"[train] ema_decay is {self.ema_decay}; expected at least 0 and under 1")
        if not 0 < self.temperature_end <= self.temperature_start:
            given = f"{self.temperature_start} and {self.temperature_end}"
            raise ValueError(f"[train] temperature_start and temperature_end are {given}; expected it to fall, above 0")
        for name in self.channel:
            if name not in CHANNELS:
                raise ValueError(f"[train] channel has {name!r}; expected some of {', '.join(CHANNELS)}")
        for name in ("equalise", "colour"):
            if not 0 <= getattr(self, name) < 10:
                raise ValueError(f"[train] {name} is {getattr(self, name)}; expected at least 0 and under 10 nats")


@dataclass(frozen=True)
class RunConfig:
    """The tables of a TOML file: [mel], [model], [objective], [train]."""

    mel: MelConfig = field(default_factory=MelConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def of(cls, tables: Mapping[str, Any]) -> RunConfig:
        """Defaults, with what the tables give instead. Raises InputError on whatever is unknown or out of range."""
        kinds = {"model": ModelConfig, "objective": ObjectiveConfig, "train": TrainConfig}
        if unknown := set(tables) - {"mel", *kinds}:
            raise InputError(f"there is a table [{min(unknown)}]; expected [mel], [model], [objective] and [train]")
        parts: dict[str, Any] = {k: resolve(kind, tables.get(k, {}), f"[{k}]") for k, kind in kinds.items()}
        config = cls(MelConfig.from_table(tables.get("mel", {})), **parts)
        if config.mel.n_mels != config.model.n_mels:
            raise InputError(f"[model] n_mels is {config.model.n_mels}; expected [mel] n_mels, {config.mel.n_mels}")
        try:
            new_objective(config)
        except ValueError as error:  # the objective does not go with this model
            raise InputError(str(error)) from error
        return config

    def tables(self) -> dict[str, Any]:
        """Plain tables for JSON, from which `of` makes the same configuration."""
        return {**asdict(self), "mel": self.mel.to_table()}


class Board(Protocol):
    """Where a run shows itself; rwae_audio.board has the TensorBoard one."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def pictures(self, step: int, model: RWAE, normaliser: Normaliser, batch: Batch) -> None: ...


def train(
    config: RunConfig,
    sampler: Sampler,
    normaliser: Normaliser,
    held_out: Batch,
    evaluate: Callable[[RWAE], Mapping[str, float]],
    folder: Path,
    *,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: bool = False,
    board: Board | None = None,
    initial: RWAE | None = None,
) -> RWAE:
    """Train, and return the model with the weights that scored best on the development speakers.

    held_out: raw log-mels of development speakers, for the collapse check; evaluate: the model → numbers to log, of
    which `score` (higher is better) chooses the checkpoint; folder: the run's, which gets metrics.jsonl and
    checkpoints/; initial: whose weights to begin with, drawn by the seed if None. Raises Interrupted on Ctrl-C, once the
    checkpoint is written.

    Among several processes (rwae_audio.distributed) each calls it alike; the first one alone evaluates and writes.
    """
    from accelerate import Accelerator
    from tqdm import tqdm

    start()
    accelerator, first = Accelerator(), rank() == 0
    settings = config.train
    model = new_model(config)
    if initial is not None:
        model.load_state_dict(initial.state_dict())
    model = accelerator.prepare_model(model, evaluation_mode=True)  # no wrapper: see mean_gradients
    objective = new_objective(config, sampler.segments).to(accelerator.device)
    learned = [*model.parameters(), *objective.joint_parameters()]
    optimizer = accelerator.prepare_optimizer(torch.optim.Adam(learned, lr=settings.learning_rate))
    average = ema(model, settings.ema_decay) if settings.ema_decay else None
    judged: RWAE = model if average is None else cast(RWAE, average.module)  # what is looked at and kept
    state = RunState(model, optimizer.optimizer, objective, average)
    rows = local(settings.batch)
    latest, best = (folder / "checkpoints" / f"{name}.safetensors" for name in ("latest", "best"))
    started = resume and latest.exists()  # a run that was stopped before its first checkpoint begins anew
    clusters = shape_clusters(sampler, config) if config.model.actions and settings.action_start else None
    position = load_checkpoint(latest, config, state) if started else Position()
    log = MetricsLog(folder / "metrics.jsonl")
    if first:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        log.drop_after(position.step)

    def update(step: int) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        batch = sampler.draw(settings.batch, generator(settings.seed, "batch", step), rows)
        shapes = word_shape(batch.frames).to(accelerator.device) if config.model.actions else None
        if settings.voice_warp:
            batch = batch.map(
                lambda part: warp_mels(part, settings.voice_warp, generator(settings.seed, "voice", step))
            )
        if settings.tract_warp:
            batch = batch.map(
                lambda part: warp_frequencies(
                    part, settings.tract_warp, generator(settings.seed, "tract", step), config.mel
                )
            )
        if settings.channel:
            batch = through_channels(batch, config, step)
        frames, static_frames = normalised(batch, normaliser, accelerator.device)
        dynamic_frames, second_frames = None, None
        if settings.colour:
            coloured = equalised(batch.frames, settings.colour, generator(settings.seed, "colour", step))
            dynamic_frames = normaliser(coloured).to(accelerator.device)
        if settings.mel_warp:
            heard = frames if dynamic_frames is None else dynamic_frames
            dynamic_frames = warp_mels(heard, settings.mel_warp, generator(settings.seed, "warp", step))
        if batch.second_frames is not None:
            other = equalised(batch.second_frames, settings.equalise, generator(settings.seed, "equalise", step))
            second_frames = normaliser(other).to(accelerator.device)
        noise = generator(settings.seed, "posterior", step)
        output = model(
            frames,
            static_frames,
            noise,
            dynamic_frames=dynamic_frames,
            second_frames=second_frames,
            temperature=temperature(settings, step),
        )
        output = output._replace(
            static_frames=static_frames, utterances=batch.utterances.to(accelerator.device), shapes=shapes
        )
        if step < settings.action_start and clusters is not None:
            output = output._replace(clusters=clusters[batch.utterances].to(accelerator.device))
        critics = objective.step_critics(model, output, generator(settings.seed, "critic", step))
        terms = objective(model, output, frames, generator(settings.seed, "prior", step))
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        accelerator.backward(loss)
        mean_gradients(learned)
        norm = clip_gradients(learned, settings.gradient_clip, step)
        optimizer.step()
        if average is not None:
            average.update_parameters(model)
        logged = {name: term.item() for name, term in terms.items()}
        return average_numbers({"loss": loss.item(), **logged, **critics, "gradient": norm}, accelerator.device)

    def look() -> None:
        """The end of an epoch: averages, the development speakers, the collapse check, the best checkpoint."""
        count = position.sums.pop("updates")
        values = {f"train/{name}": total / count for name, total in position.sums.items()}
        position.sums = {}
        codes = code_state(judged, *normalised(held_out, normaliser, accelerator.device))
        scores = dict(evaluate(judged))
        collapsed = collapsed_codes(codes)
        score = scores.pop("score") if settings.choose == "gap" else -codes["error"]
        score -= len(collapsed)  # a run without one of its codes is never the best one
        values |= {f"dev/{name}": value for name, value in {**codes, **scores, "score": score}.items()}
        log.write({"step": position.step, **values, "seconds": round(position.seconds, 1)})
        if board is not None:
            board.scalars(position.step, values)
            board.pictures(position.step, judged, normaliser, held_out)
        if score > position.best_score:
            position.best_score, position.best_step = score, position.step
            save_checkpoint(best, config, state, position)
        save_checkpoint(latest, config, state, position)
        say(epoch_line(position, settings.updates, values))
        for code in collapsed:
            say(collapse_warning(code, codes, getattr(config.model, f"{code}_posterior")))

    model.train()
    bar = tqdm(
        total=settings.updates, initial=position.step, unit="update", disable=None if progress and first else True
    )
    with interruptible() as stopped, contextlib.closing(bar):
        while position.step < settings.updates:
            began = time.monotonic()
            values = update(position.step)
            position.seconds += time.monotonic() - began
            position.step += 1
            for name, value in {**values, "updates": 1}.items():
                position.sums[name] = position.sums.get(name, 0.0) + value
            bar.update()
            bar.set_postfix(loss=f"{values['loss']:.0f}", refresh=False)
            if position.step % settings.evaluate_every == 0 or position.step == settings.updates:
                if first:
                    look()
                barrier()
            if average_numbers({"stopped": stopped()}, accelerator.device)["stopped"]:  # any of the processes
                if first:
                    save_checkpoint(latest, config, state, position)
                barrier()
                raise Interrupted(f"stopped after update {position.step} of {settings.updates}")
    load_checkpoint(best, config, RunState(model, average=average))
    return accelerator.unwrap_model(judged).eval()


def new_model(config: RunConfig) -> RWAE:
    """The model as it is before the first update; its weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(config.train.seed, "weights").initial_seed() % 2**31)
        return RWAE(config.model)


def ema(model: torch.nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a model's weights and running statistics; its first step copies them."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True).eval()


def new_objective(config: RunConfig, segments: Tensor | None = None) -> Objective:
    """The objective with what it learns, if it learns anything, as that is before its first step.

    segments: how many each training utterance has, (U,); None where there is nothing to train on yet.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(config.train.seed, "critics").initial_seed() % 2**31)
        objective = OBJECTIVES[config.objective.name](config.objective, config.model)
        if segments is not None:
            objective.meet(segments)
        return objective


def normalised(batch: Batch, normaliser: Normaliser, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The two parts of a batch as the model wants them."""
    static = None if batch.static_frames is None else normaliser(batch.static_frames).to(device)
    return normaliser(batch.frames).to(device), static


def through_channels(batch: Batch, config: RunConfig, step: int) -> Batch:
    """Return the batch with one window of the static encoder through random channels, and the other one as it was.

    An objective without a second window has its only one changed. A static code that is read off the segment itself has
    no window, and nothing changes.
    """
    name = "static_frames" if batch.second_frames is None else "second_frames"
    window = getattr(batch, name)
    if window is None:
        return batch
    noise = generator(config.train.seed, "channel", step)
    return replace(batch, **{name: channelled(window, config.train.channel, noise, config.mel)})


def shape_clusters(sampler: Sampler, config: RunConfig) -> Tensor:
    """The cluster (U,) of each training utterance by `word_shape` of its first segment: k-means, one cluster an action."""
    from sklearn.cluster import KMeans

    shapes = word_shape(sampler.store.gather(sampler.starts, sampler.segment)).numpy()
    state = generator(config.train.seed, "clusters").initial_seed() % 2**31
    found = KMeans(config.model.actions, n_init=10, random_state=state).fit_predict(shapes)
    return torch.from_numpy(found).long()


def learning_rate(settings: TrainConfig, step: int) -> float:
    """The rate of update `step`, counted from 0."""
    rate = settings.learning_rate * min(1.0, (step + 1) / max(settings.warmup, 1))
    if settings.schedule == "constant":
        return rate
    return rate * 0.5 * (1 + math.cos(math.pi * step / settings.updates))


def temperature(settings: TrainConfig, step: int) -> float:
    """Of the draw of an action in update `step`, counted from 0."""
    fall = settings.temperature_end / settings.temperature_start
    return settings.temperature_start * fall ** (step / settings.updates)


@torch.no_grad()
def code_state(model: RWAE, frames: Tensor, static_frames: Tensor | None) -> dict[str, float]:
    """Is either code alive? frames (B, T, n_mels), normalised, of held-out speakers.

    `*_effect`: how much the squared error grows, relatively, when the code is replaced by its mean over the batch;
    `*_variance`: the posterior's mean variance; `error`: the squared error a frame and bin.
    """
    training = model.training
    model.eval()
    output = model(frames, static_frames)
    static, dynamic = output.static.mean, output.dynamic.mean
    action = None if output.action is None else output.action.sample

    def error(static: Tensor, dynamic: Tensor) -> float:
        return float((model.decoder(static, dynamic, action) - frames).square().mean())

    whole = error(static, dynamic)
    without_static = error(static.mean(0).expand_as(static), dynamic)
    without_dynamic = error(static, dynamic.mean((0, 1)).expand_as(dynamic))
    model.train(training)
    return {
        "error": whole,
        "static_effect": without_static / whole - 1,
        "dynamic_effect": without_dynamic / whole - 1,
        "static_variance": float(output.static.variance.mean()),
        "dynamic_variance": float(output.dynamic.variance.mean()),
    }


def collapsed_codes(state: Mapping[str, float]) -> list[str]:
    """Which of the codes have collapsed, by code_state's effects."""
    return [code for code in ("static", "dynamic") if state[f"{code}_effect"] < COLLAPSED]


def collapse_warning(code: str, state: Mapping[str, float], posterior: str) -> str:
    """What is wrong, in words, and what to try; posterior: the kind that the model is configured with."""
    kind = "deterministic" if state[f"{code}_variance"] < DETERMINISTIC else "noisy"
    advice = f"a smaller [objective] {code}_weight, or train for longer"
    if posterior == "learned":
        advice = f'{code}_posterior = "fixed" (a learned one may ignore its input at no cost), or {advice}'
    return (
        f"warning: the {code} code has collapsed: without it the reconstruction error grows by only "
        f"{100 * state[f'{code}_effect']:.1f} % (posterior {kind}, mean variance {state[f'{code}_variance']:.3g}); "
        f"try {advice}"
    )


def epoch_line(position: Position, updates: int, values: Mapping[str, float]) -> str:
    """One line for those who watch."""
    parts = [f"update {position.step}/{updates}", f"{position.seconds:.0f} s", f"loss {values['train/loss']:.1f}"]
    for name in ("static_eer", "dynamic_eer"):
        if f"dev/{name}" in values:
            parts.append(f"dev {name.replace('_eer', ' EER')} {100 * values[f'dev/{name}']:.1f} %")
    parts.append(f"error {values['dev/error']:.3f}")
    parts.append(
        f"effect of static {100 * values['dev/static_effect']:.0f} %, dynamic {100 * values['dev/dynamic_effect']:.0f} %"
    )
    for code in ("static", "dynamic"):
        if values[f"dev/{code}_variance"] < DETERMINISTIC:
            parts.append(f"{code} posterior deterministic")
    return "  ".join(parts) + ("  (best)" if position.best_step == position.step else "")
