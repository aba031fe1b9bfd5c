"""Settings as dataclasses with bounds on their fields, and their creation from TOML and JSON tables."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from rwae_audio.files import InputError, read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Bounds:
    """The range of a number.

    Attributes:
        low: The lower end.
        high: The upper end.
        open_low: Whether the lower end is excluded.
        open_high: Whether the upper end is excluded.
    """

    low: float
    high: float = float("inf")
    open_low: bool = False
    open_high: bool = False

    def allow(self, value: float) -> bool:
        """Return whether the value is in the range."""
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        if self.high == float("inf"):
            return f"more than {self.low:g}" if self.open_low else f"{self.low:g} or more"
        low = f"more than {self.low:g}" if self.open_low else f"{self.low:g} or more"
        return f"{low} and {'less than' if self.open_high else 'at most'} {self.high:g}"


def at_least(low: float, default: Any) -> Any:
    """Return a dataclass field for a number that is at least `low`."""
    return field(default=default, metadata={"bounds": Bounds(low)})


def between(low: float, high: float, default: Any, *, open_low: bool = False) -> Any:
    """Return a dataclass field for a number in a range.

    Args:
        low: The lower end of the range.
        high: The upper end of the range, which is excluded.
        default: The default of the field.
        open_low: Whether the lower end is excluded.
    """
    return field(default=default, metadata={"bounds": Bounds(low, high, open_low, True)})


@dataclass(frozen=True)
class Settings:
    """The base of dataclasses of settings. Raises ValueError for a number outside the bounds of its field.

    Attributes:
        table: The name of the table in a configuration.
    """

    table: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            value, bounds = getattr(self, setting.name), setting.metadata.get("bounds")
            if bounds is not None and not bounds.allow(value):
                raise ValueError(f"[{self.table}] {setting.name} is {value}; expected {bounds}")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises InputError if the file is missing or malformed."""
    try:
        return tomllib.loads(read_text(path, "a TOML configuration"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from error


def check_tables(tables: Mapping[str, Any], *names: str) -> None:
    """Raise InputError if a configuration has a table whose name is not in `names`."""
    if unknown := set(tables) - set(names):
        *first, last = (f"[{name}]" for name in names)
        raise InputError(f"the configuration has a table [{min(unknown)}]; expected {', '.join(first)} and {last}")


def resolve(kind: type[Kind], table: Mapping[str, Any], where: str) -> Kind:
    """Create an instance of a dataclass from a table. Settings that are not in the table have their defaults.

    A value whose class has a method `from_table` is created by it.

    Args:
        kind: The dataclass.
        table: The values of settings by name.
        where: The name of the table in messages, such as "[model]".

    Raises:
        InputError: A setting is unknown (the message suggests the nearest known one), a value has the wrong type, is not
            one of its `Literal` choices, is outside its bounds, or raises ValueError in the dataclass.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{where} is {table!r}; expected a table of settings")
    hints = typing.get_type_hints(kind)
    fields = {setting.name: hints[setting.name] for setting in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        if key not in fields:
            raise InputError(f"{where} has no setting {key!r}; {nearest(key, list(fields))}")
        values[key] = _checked(value, fields[key], f"{where} {key}")
    try:
        return kind(**values)
    except ValueError as error:
        raise InputError(str(error)) from error


def nearest(name: str, names: list[str]) -> str:
    """Return the end of a message about an unknown name, with the nearest of the known names or all of them.

    Args:
        name: The unknown name.
        names: The known names.
    """
    matches = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {matches[0]!r}?" if matches else f"expected one of {', '.join(sorted(names))}"


def _checked(value: Any, hint: Any, where: str) -> Any:
    """Return a value of the type `hint`. Whole numbers are converted to floats and lists to tuples where needed.

    Raises InputError, with the place `where`, for a value of another type.
    """
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
    if hasattr(hint, "from_table"):
        return hint.from_table(value, where)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise InputError(f"{where} is {value!r}; expected {hint.__name__}")
    return value
