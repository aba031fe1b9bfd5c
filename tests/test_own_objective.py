"""An objective from code outside the package: found by `module:Class`, with settings of its own, and trained like the rest."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_training import CONFIG, metrics, run

from rwae_audio.files import InputError
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.objectives import OBJECTIVES, objective_class, objective_settings
from rwae_audio.training.checkpoint import RunState, load_checkpoint
from rwae_audio.training.trainer import RunConfig, new_model, new_objective

OWN = '''
"""Reconstruction, and a learned scale of the voices of two windows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rwae_audio.objectives import Objective, ObjectiveSettings
from rwae_audio.objectives.base import squared_error
from rwae_audio.settings import at_least


@dataclass(frozen=True)
class OwnSettings(ObjectiveSettings):
    voice_weight: float = at_least(0, 2.0)


class Own(Objective):
    Settings = OwnSettings
    pairs = True

    def __init__(self, config, model):
        super().__init__(config, model)
        self.scale = torch.nn.Parameter(torch.ones(model.static_dim))

    def joint_parameters(self):
        return [self.scale]

    def forward(self, model, output, frames, generator):
        apart = (self.scale * (output.static.sample - output.second.sample)).square().mean()
        return {
            "reconstruction": squared_error(output.reconstruction, frames),
            "voice": self.config.voice_weight * apart,
        }


class Plain(Objective):
    """No settings of its own."""

    def forward(self, model, output, frames, generator):
        return {"reconstruction": squared_error(output.reconstruction, frames)}


class Other:
    pass
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that can be imported while the test runs."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/own_objective.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.delitem(sys.modules, "own_objective", raising=False)
    return "own_objective"


def configuration(**objective: Any) -> RunConfig:
    """The configuration of the trainer's tests, two updates long, with this table [objective]."""
    tables = json.loads(json.dumps(CONFIG.tables()))
    return RunConfig.of({**tables, "objective": objective, "train": {**tables["train"], "updates": 2}})


def test_an_objective_of_ones_own_has_its_settings_and_trains(outside: str, tmp_path: Path) -> None:
    config = configuration(name=f"{outside}:Own", voice_weight=3)
    kind = type(config.objective)
    assert (kind.__module__, kind.__name__) == (outside, "OwnSettings")
    assert config.objective == kind(name=f"{outside}:Own", voice_weight=3.0)
    assert RunConfig.of(json.loads(json.dumps(config.tables()))) == config
    before = new_model(config)
    model = run(tmp_path / "run", config)
    line = metrics(tmp_path / "run")[-1]
    assert line["train/voice"] > 0
    assert line["train/loss"] == pytest.approx(line["train/reconstruction"] + line["train/voice"])
    assert not torch.equal(model.decoder.frame.weight, before.decoder.frame.weight)
    objective = new_objective(config)
    state = RunState(new_model(config), objective=objective)
    assert load_checkpoint(tmp_path / "run/checkpoints/latest.safetensors", config, state).step == 2
    assert not torch.equal(objective.get_parameter("scale"), torch.ones(4))  # learned with the model, and kept


def test_an_objective_without_settings_of_its_own_has_those_of_all(outside: str, tmp_path: Path) -> None:
    config = configuration(name=f"{outside}:Plain", static_weight=2.0)
    assert config.objective == objective_settings(f"{outside}:Plain", static_weight=2.0)
    run(tmp_path / "run", config)
    assert metrics(tmp_path / "run")[-1]["train/reconstruction"] > 0


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"name": "rwae-mdm"}, r"name is 'rwae-mdm'; did you mean 'rwae-mmd'\? \(or module:Class\)"),
        ({"name": "zzz"}, r"name is 'zzz'; expected one of c-dsvae, .*, skd \(or module:Class\)"),
        ({"name": ""}, r"name is ''; expected one of "),
        ({"name": ":Own"}, r"name is ':Own'; expected one of .* \(or module:Class\)"),
        ({"name": "own_objective:"}, r"name is 'own_objective:'; .* \(or module:Class\)"),
        ({"name": ".own_objective:Own"}, r"name is '\.own_objective:Own'; .* \(or module:Class\)"),
        ({"name": "no_such_module:Own"}, r"name is 'no_such_module:Own', which cannot be imported \(No module named"),
        ({"name": "own_objective:Nobody"}, r"name is 'own_objective:Nobody', which cannot be imported \(.* 'Nobody'"),
        ({"name": "own_objective:Other"}, r"name is 'own_objective:Other'; expected a subclass of rwae_audio\."),
        ({"name": "own_objective:torch"}, r"name is 'own_objective:torch'; expected a subclass of rwae_audio\."),
        (
            {"name": "own_objective:Own", "voice_weigth": 1.0},
            r"no setting 'voice_weigth'; did you mean 'voice_weight'\?",
        ),
        ({"name": "own_objective:Own", "voice_weight": -1}, r"voice_weight is -1\.0; expected 0 or more"),
        ({"name": "own_objective:Own", "pair_weight": 1.0}, r"no setting 'pair_weight'; "),
        ({"name": "rwae-plus", "dynamic_match": "joint"}, r"no setting 'dynamic_match'; "),
        ({"name": "dsvae", "prior_weight": 1.0}, r"no setting 'prior_weight'; "),
        ({"name": "s3vae", "action_weight": 1.0}, r"no setting 'action_weight'; "),
        ({"pair_weight": 1.0}, r"no setting 'pair_weight'; did you mean 'prior_weight'\?"),
    ],
)
def test_names_and_settings_that_do_not_fit_are_one_line(outside: str, table: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=rf"^\[objective\] (has )?{says}") as error:
        RunConfig.of({"objective": table})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_has_settings_of_its_own_name(name: str) -> None:
    settings = objective_settings(name)
    assert settings == objective_class(name).Settings()
    assert settings.name == name
    assert objective_settings(name, static_weight=3).static_weight == 3.0
    with pytest.raises(InputError, match=r"^\[objective\] has no setting 'wieght'; "):
        objective_settings(name, wieght=1.0)


def test_a_bundle_imports_nothing_that_its_configuration_names(bundle_folder: Path, tmp_path: Path) -> None:
    """A bundle may come from anyone: what it names as its objective is not run, and its codes are there all the same."""
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    description = json.loads((folder / "config.json").read_text())
    description["objective"] = {"name": "no_such_module:Class", "weight_of_it": 3.0}
    (folder / "config.json").write_text(json.dumps(description))
    bundle, plain = load_bundle(folder), load_bundle(bundle_folder)
    assert bundle.config.objective.name == "no_such_module:Class"
    frames = torch.randn(80, bundle.config.mel.n_mels)
    assert torch.equal(bundle.voice(frames), plain.voice(frames))
    with pytest.raises(InputError, match="cannot be imported"):
        RunConfig.of({"objective": description["objective"]})
