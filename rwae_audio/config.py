"""TOML and JSON tables → frozen dataclasses; an unknown key or a wrong type is an InputError that says so."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rwae_audio.files import InputError, read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Config = TypeVar("Config")


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises InputError when it is missing or malformed."""
    try:
        return tomllib.loads(read_text(path, "a TOML configuration"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from error


def resolve(kind: type[Config], table: Mapping[str, Any], where: str) -> Config:
    """An instance of the dataclass `kind`: its defaults, with what `table` gives instead.

    `where` names the table in messages, e.g. "[model]". Raises InputError on an unknown key (naming the nearest known
    one), on a value of the wrong type and on one outside a `Literal`'s choices; whatever else the class asks for it
    checks in its own `__post_init__`.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{where} is {table!r}; expected a table of settings")
    hints = typing.get_type_hints(kind)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        if key not in fields:
            raise InputError(f"{where} has no setting {key!r}; {nearest(key, list(fields))}")
        values[key] = _checked(value, fields[key], f"{where} {key}")
    try:
        return kind(**values)
    except ValueError as error:  # a class that must know nothing of ours (ModelConfig) says it this way
        raise InputError(str(error)) from error


def nearest(name: str, known: list[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(known))}"


def _checked(value: Any, hint: Any, where: str) -> Any:
    """`value` when it is of the type `hint` says; whole numbers pass as floats and lists as tuples."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{where} is {value!r}; {nearest(str(value), [str(a) for a in arguments])}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _checked(value, next(a for a in arguments if a is not type(None)), where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where} is {value!r}; expected a list")
        return tuple(_checked(item, arguments[0], where) for item in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise InputError(f"{where} is {value!r}; expected {hint.__name__}")
    return value
