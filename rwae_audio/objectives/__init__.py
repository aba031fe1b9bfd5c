"""The objectives that a model is trained with: one file a method, chosen by `[objective] name`."""

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
from rwae_audio.objectives.baselines.dsvae import Dsvae
from rwae_audio.objectives.baselines.fhvae import Fhvae
from rwae_audio.objectives.baselines.s3vae import S3vae
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
}


def objective_class(name: str) -> type[Objective]:
    """Return the objective of this name: one of OBJECTIVES, or `module:Class` of code outside the package.

    Raises InputError for a name that is neither.
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
    """Return the settings of the objective that a table [objective] names, or of the one of this name, with changes.

    Raises InputError for an unknown objective and for a setting that it does not have.
    """
    given = {"name": table} if isinstance(table, str) else table
    name = given.get("name", DEFAULT)
    if not isinstance(name, str):
        raise InputError(f"[objective] name is {name!r}; expected one of {', '.join(OBJECTIVES)} (or module:Class)")
    return resolve(objective_class(name).Settings, {**given, **changes, "name": name}, "[objective]")


def build_objective(settings: ObjectiveSettings, model: ModelConfig) -> Objective:
    """Return the objective of these settings for a model, with terms of the model's actions where it has any.

    Raises ValueError where they do not go together.
    """
    objective = objective_class(settings.name)(settings, model)
    return Actions(objective, model) if model.actions else objective


__all__ = ["OBJECTIVES", "Objective", "ObjectiveSettings", "build_objective", "objective_class", "objective_settings"]
