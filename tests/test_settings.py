"""Tables → dataclasses: defaults, differences, and an error that names what was meant."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from rwae_audio.files import ASSETS, InputError
from rwae_audio.model import ModelConfig
from rwae_audio.objectives import OBJECTIVES
from rwae_audio.settings import Settings, at_least, between, nearest, read_toml, resolve
from rwae_audio.training.trainer import RunConfig, TrainConfig

RECIPES = Path(__file__).parent.parent / "recipes"
CONFIGURATIONS = sorted([*RECIPES.rglob("*.toml"), *ASSETS.rglob("*.toml")])


@dataclass(frozen=True)
class Oven:
    degrees: float = 180.0
    minutes: int = 30
    fan: bool = False
    name: str = "oven"
    mode: Literal["top", "bottom"] = "top"
    scales: tuple[float, ...] = (1.0, 2.0)
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.minutes < 0:
            raise ValueError(f"minutes is {self.minutes}; expected 0 or more")


@dataclass(frozen=True)
class Kettle(Settings):
    table: ClassVar[str] = "kettle"
    cups: int = at_least(1, 4)
    colour: str = "red"
    fill: float = between(0, 1, 0.5)
    power: float = between(0, 3, 2.0, open_low=True)


def test_defaults_and_differences() -> None:
    assert resolve(Oven, {}, "[oven]") == Oven()
    table = {"degrees": 200, "fan": True, "mode": "bottom", "scales": [1, 0.5], "limit": 3}
    oven = resolve(Oven, table, "[oven]")
    assert oven == Oven(degrees=200.0, fan=True, mode="bottom", scales=(1.0, 0.5), limit=3)
    assert type(oven.degrees) is float  # so that a written 200 and 200.0 are the same settings
    assert type(oven.scales[0]) is float
    assert resolve(Oven, {"limit": None}, "[oven]").limit is None


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"degres": 1}, r"\[oven\] has no setting 'degres'; did you mean 'degrees'\?"),
        ({"zzz": 1}, r"\[oven\] has no setting 'zzz'; expected one of degrees, fan, limit, minutes"),
        ({"minutes": 1.5}, r"\[oven\] minutes is 1\.5; expected int"),
        ({"minutes": True}, r"\[oven\] minutes is True; expected int"),
        ({"degrees": "hot"}, r"\[oven\] degrees is 'hot'; expected float"),
        ({"degrees": True}, r"\[oven\] degrees is True; expected float"),
        ({"fan": 1}, r"\[oven\] fan is 1; expected bool"),
        ({"name": 3}, r"\[oven\] name is 3; expected str"),
        ({"mode": "botom"}, r"\[oven\] mode is 'botom'; did you mean 'bottom'\?"),
        ({"mode": ["top"]}, r"\[oven\] mode is \['top'\]"),
        ({"scales": 1.0}, r"\[oven\] scales is 1\.0; expected a list"),
        ({"scales": ["a"]}, r"\[oven\] scales is 'a'; expected float"),
        ({"limit": "none"}, r"\[oven\] limit is 'none'; expected int"),
        ({"minutes": -1}, r"minutes is -1; expected 0 or more"),
        ([1, 2], r"\[oven\] is \[1, 2\]; expected a table of settings"),
        (3, r"\[oven\] is 3; expected a table of settings"),
    ],
)
def test_what_does_not_fit_is_an_input_error(table: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        resolve(Oven, table, "[oven]")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"cups": 0}, "cups is 0; expected 1 or more"),
        ({"fill": -0.1}, "fill is -0.1; expected 0 or more and less than 1"),
        ({"fill": 1}, "fill is 1.0; expected 0 or more and less than 1"),
        ({"fill": math.nan}, "fill is nan; expected 0 or more and less than 1"),
        ({"power": 0}, "power is 0.0; expected more than 0 and less than 3"),
        ({"power": 3.0}, "power is 3.0; expected more than 0 and less than 3"),
    ],
)
def test_a_number_out_of_bounds_names_table_and_setting(table: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        resolve(Kettle, table, "[kettle]")
    assert str(error.value) == f"[kettle] {says}"
    setting, value = next(iter(table.items()))
    if isinstance(value, float):
        with pytest.raises(ValueError, match=rf"^\[kettle\] {setting} is "):
            Kettle(**table)


def test_numbers_at_their_bounds() -> None:
    kettle = resolve(Kettle, {"cups": 1, "fill": 0, "power": 1e-9}, "[kettle]")
    assert kettle == Kettle(cups=1, fill=0.0, power=1e-9)
    assert resolve(Kettle, {"cups": 10**9, "fill": 0.999}, "[kettle]").cups == 10**9
    assert "table" not in dataclasses.asdict(kettle)


@pytest.mark.parametrize("kind", [ModelConfig, TrainConfig, *(kind.Settings for kind in OBJECTIVES.values())])
def test_every_number_of_a_configuration_has_bounds_and_keeps_to_them(kind: type[Settings]) -> None:
    numbers = [setting for setting in dataclasses.fields(kind) if type(setting.default) in (int, float)]
    assert len(numbers) > 1
    for setting in numbers:
        below = setting.metadata["bounds"].low - 1
        with pytest.raises(InputError, match=rf"^\[{kind.table}\] {setting.name} is {below}"):
            resolve(kind, {setting.name: below}, f"[{kind.table}]")


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_the_tables_of_a_recipe_make_the_same_configuration(path: Path) -> None:
    config = RunConfig.of(read_toml(path))
    assert RunConfig.of(config.tables()) == config
    assert RunConfig.of(json.loads(json.dumps(config.tables()))) == config
    assert {(table, key) for table, part in read_toml(path).items() for key in part} <= {
        ("mel", "preset"),
        *((table, key) for table, part in config.tables().items() for key in part),
    }


def test_nearest_names_one_or_all() -> None:
    assert nearest("libri", ["an4", "librispeech", "timit"]) == "did you mean 'librispeech'?"
    assert nearest("q", ["b", "a"]) == "expected one of a, b"


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('[mel]\npreset = "paper"\n[train]\nupdates = 10\n')
    assert read_toml(path) == {"mel": {"preset": "paper"}, "train": {"updates": 10}}
    for content in ("[mel\n", "a = \n", "a = 1\na = 2\n"):
        path.write_text(content)
        with pytest.raises(InputError, match=r"a\.toml is not TOML: ") as error:
            read_toml(path)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"none\.toml does not exist; expected a TOML configuration"):
        read_toml(tmp_path / "none.toml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_toml(path)
