"""The training of a model: one update, the look at the development speakers, and a run that can be resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.data.store import Batch, Sampler
from rwae_audio.devices import bf16_or_float32
from rwae_audio.distributed import local, mean_gradients, rank, start
from rwae_audio.files import InputError
from rwae_audio.model import RWAE, ModelConfig
from rwae_audio.model.posterior import run_in_bf16
from rwae_audio.objectives import Objective, ObjectiveSettings, build_objective, objective_settings
from rwae_audio.randomness import generator
from rwae_audio.settings import Settings, at_least, between, check_tables, resolve
from rwae_audio.training.checkpoint import Position, RunState, load_checkpoint, save_checkpoint
from rwae_audio.training.health import DETERMINISTIC, code_state, collapse_warning, collapsed_codes
from rwae_audio.training.loop import MetricsLog, clip_gradients, train_loop
from rwae_audio.training.perturbations import Perturbation, check_names, perturbed_views
from rwae_audio.training.views import normalised

WARMUP = 50  # updates
GRADIENT_CLIP = 50.0  # the largest norm of all gradients


@dataclass(frozen=True)
class TrainConfig(Settings):
    """The settings of a run.

    Attributes:
        seed: All random numbers follow from it.
        updates: Updates of the weights in all.
        batch: Sequences in an update, of all processes together.
        learning_rate: The highest rate of Adam; it rises for WARMUP updates and falls along a cosine to zero.
        evaluate_every: Updates between two looks at the development speakers.
        perturb: A list of perturbations of the training speech, such as `{ name = "tract", factor = 0.25 }`.
        precision: The networks run in `float32`, or in `bf16` where the device computes in it. Losses stay in float32.
        choose: The best checkpoint has the widest `gap` between dynamic and static EER, or the least reconstruction
            `error`.
    """

    table: ClassVar[str] = "train"
    seed: int = at_least(0, 0)
    updates: int = at_least(1, 2500)
    batch: int = at_least(2, 128)
    learning_rate: float = between(0, 1, 4e-3, open_low=True)
    evaluate_every: int = at_least(1, 250)
    perturb: tuple[Perturbation, ...] = ()
    precision: Literal["float32", "bf16"] = "float32"
    choose: Literal["gap", "error"] = "gap"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.perturb)


@dataclass(frozen=True)
class RunConfig:
    """The tables of a TOML file: [mel], [model], [objective], [train]."""

    mel: MelConfig = field(default_factory=MelConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveSettings = field(default_factory=objective_settings)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def of(cls, tables: Mapping[str, Any], outside: bool = True) -> RunConfig:
        """Return the defaults, with what the tables give instead.

        outside: Whether `[objective] name = "module:Class"` may import that module. A bundle, which may come from anyone,
        is read without: its objective is then a name.

        Raises InputError on whatever is unknown or out of range.
        """
        check_tables(tables, "mel", "model", "objective", "train")
        if not isinstance(objective := tables.get("objective", {}), Mapping):
            raise InputError(f"[objective] is {objective!r}; expected a table of settings")
        foreign = ":" in str(objective.get("name", "")) and not outside
        mel, model = MelConfig.from_table(tables.get("mel", {})), tables.get("model", {})
        if isinstance(model, Mapping):
            if "n_mels" in model:
                raise InputError("[model] has no setting 'n_mels'; expected it in [mel]")
            model = {**model, "n_mels": mel.n_mels}
        config = cls(
            mel,
            resolve(ModelConfig, model, "[model]"),
            ObjectiveSettings(str(objective["name"])) if foreign else objective_settings(objective),
            resolve(TrainConfig, tables.get("train", {}), "[train]"),
        )
        try:
            if not foreign:
                new_objective(config)
        except ValueError as error:  # the objective does not go with this model
            raise InputError(str(error)) from error
        return config

    def tables(self) -> dict[str, Any]:
        """Return plain tables for JSON, from which `of` makes the same configuration."""
        tables = {**asdict(self), "mel": self.mel.to_table()}
        del tables["model"]["n_mels"]  # that of [mel]
        return tables


class Board(Protocol):
    """A display of a run, such as the TensorBoard one of rwae_audio.training.board."""

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
    minutes: float | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: bool = False,
    board: Board | None = None,
    initial: RWAE | None = None,
) -> RWAE:
    """Train, and return the model with the weights that scored best on the development speakers.

    Among several processes (rwae_audio.distributed) each calls it alike. The first one alone evaluates and writes.

    Args:
        held_out: Raw log-mels of development speakers, for the collapse check.
        evaluate: Returns numbers to log for a model. Its `score` chooses the checkpoint: higher is better.
        folder: The run's folder, which gets metrics.jsonl and checkpoints/.
        resume: Go on from the folder's latest checkpoint, if it has one.
        minutes: The time after which the run stops with a checkpoint.
        initial: The model whose weights to begin with; drawn by the seed if None.

    Raises:
        Interrupted: On Ctrl-C, once the checkpoint is written; TimeIsUp when the minutes are over.
    """
    start()
    trainer = Trainer(config, sampler, normaliser, held_out, evaluate, folder, say, board, initial)
    trainer.begin(resume)
    train_loop(trainer, minutes=minutes, progress=progress)
    return trainer.best_model()


class Trainer:
    """The state of one run: the model, its objective, the training speech, and the position."""

    def __init__(
        self,
        config: RunConfig,
        sampler: Sampler,
        normaliser: Normaliser,
        held_out: Batch,
        evaluate: Callable[[RWAE], Mapping[str, float]],
        folder: Path,
        say: Callable[[str], None] = lambda line: None,
        board: Board | None = None,
        initial: RWAE | None = None,
        device: torch.device | None = None,
    ) -> None:
        from accelerate import PartialState

        settings, self.device = config.train, device or PartialState().device
        self.config, self.settings, self.held_out, self.evaluate = config, settings, held_out, evaluate
        self.folder, self.say, self.board = folder, say, board
        self.model = new_model(config)
        if initial is not None:
            self.model.load_state_dict(initial.state_dict())
        self.model.to(self.device).train()
        self.objective = new_objective(config, (sampler, normaliser)).to(self.device)
        self.learned = [*self.model.parameters(), *self.objective.joint_parameters()]
        self.optimizer = torch.optim.Adam(self.learned, lr=settings.learning_rate, fused=True)
        self.state = RunState(self.model, self.optimizer, self.objective)
        self.sampler, self.normaliser = sampler.to(self.device), normaliser.to(self.device)
        self.rows = local(settings.batch)
        self.bf16 = bf16_or_float32(settings.precision, self.device, say)
        self.latest, self.best = (folder / "checkpoints" / f"{name}.safetensors" for name in ("latest", "best"))
        self.log = MetricsLog(folder / "metrics.jsonl")
        self.position = Position()

    def begin(self, resume: bool) -> None:
        """Go on from the latest checkpoint, or begin anew where there is none."""
        if resume and self.latest.exists():
            self.position = load_checkpoint(self.latest, self.config, self.state)
        if rank() == 0:
            self.latest.parent.mkdir(parents=True, exist_ok=True)
            self.log.drop_after(self.position.step)
        self.autocast(self.bf16)

    def autocast(self, on: bool) -> None:
        """Let the networks' passes run in bfloat16, or in the precision of their weights."""
        for networks in (self.model, self.objective):
            run_in_bf16(networks, self.device, on)

    def update(self, step: int) -> dict[str, Tensor]:
        """Make one update, and return its losses and the norm of its gradient."""
        settings, seed = self.settings, self.settings.seed
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        batch = self.sampler.draw(settings.batch, generator(seed, "batch", step), self.rows)
        views = perturbed_views(batch, settings.perturb, self.normaliser, self.config.mel, seed, step)
        self.objective.begin(self.model, step, settings.updates)
        output = self.model(
            views.frames,
            views.static_frames,
            generator(seed, "posterior", step),
            dynamic_frames=views.dynamic_frames,
            second_frames=views.second_frames,
        )
        output = output._replace(
            static_frames=views.static_frames, utterances=batch.utterances, raw_frames=batch.frames
        )
        critics = self.objective.step_critics(self.model, output, views.frames, generator(seed, "critic", step))
        terms = self.objective(self.model, output, views.frames, generator(seed, "prior", step))
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad()
        loss.backward()
        mean_gradients(self.learned)
        norm = clip_gradients(self.learned, GRADIENT_CLIP)
        self.optimizer.step()
        return {"loss": loss, **terms, **critics, "gradient": norm}

    def look(self, averages: dict[str, float]) -> None:
        """End an epoch: averages, the development speakers, the collapse check, the best checkpoint."""
        position = self.position
        self.autocast(False)
        codes = code_state(self.model, *normalised(self.held_out, self.normaliser, self.device))
        scores = dict(self.evaluate(self.model))
        self.autocast(self.bf16)
        collapsed = collapsed_codes(codes)
        score = scores.pop("score") if self.settings.choose == "gap" else -codes["error"]
        score -= len(collapsed)  # a run without one of its codes is never the best one
        values = {**averages, **{f"dev/{name}": value for name, value in {**codes, **scores, "score": score}.items()}}
        self.log.write({"step": position.step, **values, "seconds": round(position.seconds, 1)})
        if self.board is not None:
            self.board.scalars(position.step, values)
            self.board.pictures(position.step, self.model, self.normaliser, self.held_out)
        position.sums = {}
        if score > position.best_score:
            position.best_score, position.best_step = score, position.step
            save_checkpoint(self.best, self.config, self.state, position)
        self.save()
        self.say(epoch_line(position, self.settings.updates, values))
        for code in collapsed:
            self.say(collapse_warning(code, codes, self.config.model.posterior))

    def save(self) -> None:
        """Write the checkpoint that the run goes on with."""
        save_checkpoint(self.latest, self.config, self.state, self.position)

    def best_model(self) -> RWAE:
        """Return the model with the weights of the best checkpoint, for evaluation."""
        self.autocast(False)
        load_checkpoint(self.best, self.config, RunState(self.model))
        return self.model.eval()


def new_model(config: RunConfig) -> RWAE:
    """Return the model as it is before the first update. Its weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(config.train.seed, "weights").initial_seed() % 2**31)
        return RWAE(config.model)


def new_objective(config: RunConfig, speech: tuple[Sampler, Normaliser] | None = None) -> Objective:
    """Return the objective as it is before its first step.

    Args:
        config: The configuration.
        speech: The sampler of the training utterances and the normaliser of their frames. None if there is nothing to train
            on yet.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(config.train.seed, "critics").initial_seed() % 2**31)
        objective = build_objective(config.objective, config.model)
        if speech is not None:
            objective.meet(*speech, config.train.seed)
        return objective


def learning_rate(settings: TrainConfig, step: int) -> float:
    """Return the rate of update `step`, counted from 0."""
    rate = settings.learning_rate * min(1.0, (step + 1) / WARMUP)
    return rate * 0.5 * (1 + math.cos(math.pi * step / settings.updates))


def epoch_line(position: Position, updates: int, values: Mapping[str, float]) -> str:
    """Return the line on an epoch that is printed."""
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
