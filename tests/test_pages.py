"""The pages on settings and on extending: the first is what the code says, and the second's code runs."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from made_up import speech
from made_up_training import CONFIG, metrics, run

from rwae_audio.data.corpora.readers import READERS
from rwae_audio.objectives import OBJECTIVES
from rwae_audio.settings import read_toml
from rwae_audio.training.trainer import RunConfig

RECIPE = Path(__file__).parent.parent / "recipes/timit"
sys.path.insert(0, str(RECIPE))
import settings_page  # noqa: E402


def test_the_page_of_settings_is_up_to_date() -> None:
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.page(), (
        "run python recipes/timit/settings_page.py"
    )


def test_there_are_few_settings() -> None:
    assert len(settings_page.settings()) <= 45


@pytest.fixture
def extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the code of EXTENDING.md leaves, run from top to bottom beside its files and some recordings."""
    text = (RECIPE / "EXTENDING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(python|toml)\n(.*?)^```$", text, re.M | re.S)
    for number, speaker in enumerate(("ANNA", "BOB", "CY", "DI", "ED", "FLO", "GUY")):
        (tmp_path / "recordings").mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"recordings/{speaker}-01.wav", speech(number, 0.7), 16000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "smooth", raising=False)
    monkeypatch.setitem(READERS, "hall", READERS["folder"])  # taken back after the test
    names: dict[str, Any] = {}
    for language, block in blocks:
        if language == "toml":
            Path("smooth.toml").write_text(block)
            continue
        if block.startswith("# smooth.py"):
            Path("smooth.py").write_text(block)
        else:
            exec(block, names)
    return names


def test_the_page_on_extending_adds_an_objective_and_a_corpus(
    extended: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(extended["terms"]) == {"reconstruction", "static", "dynamic", "smooth"}
    assert extended["config"].objective.smooth_weight == 2.0
    assert len(extended["corpus"].utterances) == 7
    assert {split: len(extended["corpus"].speakers(split)) for split in ("train", "dev", "test")} == {
        "train": 3,
        "dev": 2,
        "test": 2,
    }
    tables = CONFIG.tables() | {"objective": read_toml("smooth.toml")["objective"]}
    config = RunConfig.of(tables)
    run(tmp_path / "run", dataclasses.replace(config, train=dataclasses.replace(config.train, updates=2)))
    assert metrics(tmp_path / "run")[-1]["train/smooth"] > 0


def test_every_setting_has_a_sentence() -> None:
    for kind in OBJECTIVES.values():
        assert all(line.count("|") == 5 for line in settings_page.rows(kind.Settings))
