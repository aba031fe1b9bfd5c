"""The objectives by their names in `[objective] name`. Each method has a file; baselines are in `baselines/`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from rwae_audio.files import InputError
from rwae_audio.model import ModelConfig
from rwae_audio.objectives.actions import Actions
from rwae_audio.objectives.base import Objective, ObjectiveSettings
from rwae_audio.objectives.baselines.c_dsvae import CDsvae
from rwae_audio.objectives.baselines.dbse import Dbse
from rwae_audio.objectives.baselines.diffsda import Diffsda
from rwae_audio.objectives.baselines.dsvae import Dsvae
from rwae_audio.objectives.baselines.fhvae import Fhvae
from rwae_audio.objectives.baselines.s3vae import S3vae
from rwae_audio.objectives.baselines.skd import Skd
from rwae_audio.objectives.rwae_gan import RwaeGan
from rwae_audio.objectives.rwae_mmd import RwaeMmd
from rwae_audio.objectives.rwae_plus import RwaePlus
from rwae_audio.objectives.rwae_smmd import RwaeSmmd
from rwae_audio.settings import nearest, resolve

DEFAULT = "rwae-mmd"
OBJECTIVES: dict[str, type[Objective]] = {
    "rwae-mmd": RwaeMmd,
    "rwae-smmd": RwaeSmmd,
    "rwae-gan": RwaeGan,
    "rwae-plus": RwaePlus,
    "dsvae": Dsvae,
    "fhvae": Fhvae,
    "s3vae": S3vae,
    "c-dsvae": CDsvae,
    "dbse": Dbse,
    "skd": Skd,
    "diffsda": Diffsda,
}


def objective_class(name: str) -> type[Objective]:
    """Return the class of an objective.

    Args:
        name: A name in OBJECTIVES, or `module:Class` for a class outside the package, whose module is imported.

    Raises:
        InputError: The name is unknown, the class cannot be imported, or it is no subclass of Objective.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    module, _, kind = name.partition(":")
    if not kind or not all(part.isidentifier() for part in module.split(".")):
        raise InputError(f"[objective] name is {name!r}; {nearest(name, list(OBJECTIVES))} (or module:Class)")
    try:
        objective = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError) as error:
        raise InputError(f"[objective] name is {name!r}, which cannot be imported ({error})") from error
    if not (isinstance(objective, type) and issubclass(objective, Objective)):
        raise InputError(f"[objective] name is {name!r}; expected a subclass of rwae_audio.objectives.Objective")
    return objective


def objective_settings(table: Mapping[str, Any] | str = DEFAULT, **changes: Any) -> ObjectiveSettings:
    """Return the settings of an objective.

    Args:
        table: The table [objective], or the name of an objective for its defaults.
        changes: Settings that replace those of the table.

    Raises:
        InputError: The objective is unknown, or does not have one of the settings.
    """
    settings = {"name": table} if isinstance(table, str) else table
    name = settings.get("name", DEFAULT)
    if not isinstance(name, str):
        raise InputError(f"[objective] name is {name!r}; expected one of {', '.join(OBJECTIVES)} (or module:Class)")
    return resolve(objective_class(name).Settings, {**settings, **changes, "name": name}, "[objective]")


def build_objective(settings: ObjectiveSettings, model: ModelConfig) -> Objective:
    """Return the objective for a model, wrapped in `Actions` if the model has actions.

    Args:
        settings: The settings of the objective.
        model: The settings of the model.

    Raises:
        ValueError: The objective cannot train such a model.
    """
    objective = objective_class(settings.name)(settings, model)
    return Actions(objective, model) if model.actions else objective


__all__ = ["OBJECTIVES", "Objective", "ObjectiveSettings", "build_objective", "objective_class", "objective_settings"]
