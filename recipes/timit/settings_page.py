"""Write SETTINGS.md, which lists every setting with its default, its bounds and its description from the docstrings.

python recipes/timit/settings_page.py
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rwae_audio.data.features import MelConfig
from rwae_audio.model import ModelConfig
from rwae_audio.objectives import DEFAULT, OBJECTIVES, ObjectiveSettings
from rwae_audio.training.perturbations import PERTURBATIONS
from rwae_audio.training.trainer import TrainConfig

PAGE = Path(__file__).parent / "SETTINGS.md"
HEAD = """# Settings

A configuration is a TOML file of differences from these defaults. `--set TABLE.KEY=VALUE` changes one. A setting that is
unknown or out of bounds is refused, with the nearest known one. `python recipes/timit/settings_page.py` writes this page.
"""


def descriptions(kind: type) -> dict[str, str]:
    """Return the description of each attribute in the docstrings of a class and its bases."""
    sentences: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        text = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for name, sentence in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.M):
            sentences[name] = " ".join(sentence.split())
    return sentences


def allowed(field: dataclasses.Field, hint: Any) -> str:
    """Return the bounds or the choices of a setting as Markdown.

    Args:
        field: The field of the dataclass.
        hint: The type of the field.
    """
    if bounds := field.metadata.get("bounds"):
        return str(bounds)
    choices = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and typing.get_origin(choices[0]) is typing.Literal:
        choices = typing.get_args(choices[0])
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(f"`{choice}`" for choice in choices)
    return "true, false" if hint is bool else ""


def rows(kind: type, without: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield a row of the table for each setting of a class.

    Args:
        kind: The dataclass.
        without: The names of settings that are left out.

    Raises:
        KeyError: The docstring does not describe a setting.
    """
    hints, sentences = typing.get_type_hints(kind), descriptions(kind)
    for field in dataclasses.fields(kind):
        if field.name not in without:
            default = json.dumps(field.default, default=list)
            yield f"| `{field.name}` | {default} | {allowed(field, hints[field.name])} | {sentences[field.name]} |"


def section(title: str, kind: type, without: frozenset[str] = frozenset()) -> str:
    """Return the section of a class with a title and a table, or "" if it has no settings.

    Args:
        title: The title.
        kind: The dataclass.
        without: The names of settings that are left out.
    """
    lines = [*rows(kind, without)]
    table = ["| setting | default | bounds or choices | |", "|---|---|---|---|", *lines]
    return "\n".join([f"## {title}", "", *table, ""]) if lines else ""


def page() -> str:
    """Return the text of SETTINGS.md."""
    common = frozenset(field.name for field in dataclasses.fields(ObjectiveSettings))
    default = OBJECTIVES[DEFAULT].Settings
    own = frozenset(field.name for field in dataclasses.fields(default)) - common
    parts = [
        section("[mel]", MelConfig),
        section("[model]", ModelConfig, frozenset({"n_mels"})),
        section("[objective], of every objective", default, own),
        *(section(f'[objective] of name = "{name}"', kind.Settings, common) for name, kind in OBJECTIVES.items()),
        section("[train]", TrainConfig),
        *(
            section(f'[train] perturb, {{ name = "{name}" }}', kind, frozenset({"name"}))
            for name, kind in PERTURBATIONS.items()
        ),
    ]
    return "\n".join([HEAD, *filter(None, parts)])


def settings() -> set[tuple[str, str]]:
    """Return the table and the name of every setting of a configuration."""
    tables = [("mel", MelConfig), ("model", ModelConfig), ("train", TrainConfig)]
    tables += [("objective", kind.Settings) for kind in OBJECTIVES.values()]
    names = {(table, field.name) for table, kind in tables for field in dataclasses.fields(kind)}
    return names - {("model", "n_mels")}  # its value comes from [mel]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
