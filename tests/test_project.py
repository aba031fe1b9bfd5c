"""What a contributor meets first: one version everywhere, workflows that parse."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import rwae_audio
from rwae_audio.settings import read_toml

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
YAML = [*WORKFLOWS, *sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")), ROOT / ".pre-commit-config.yaml"]
YAML += [ROOT / "CITATION.cff"]
PROJECT = read_toml(ROOT / "pyproject.toml")["project"]


def parsed(path: Path) -> Any:
    """Return the content of a YAML file; the test is skipped without PyYAML."""
    return pytest.importorskip("yaml").safe_load(path.read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    """Return the path below the repository's root, as the name of a test."""
    return path.relative_to(ROOT).as_posix()


def test_there_is_one_version() -> None:
    """The metadata is read from the package; the changelog and the citation repeat its version."""
    changes = re.findall(r"^## \[(.+)\] - (?:Unreleased|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    cited = re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited == [rwae_audio.__version__]
    assert changes[0] == rwae_audio.__version__
    assert "version" in PROJECT["dynamic"]
    dynamic = read_toml(ROOT / "pyproject.toml")["tool"]["setuptools"]["dynamic"]
    assert dynamic["version"] == {"attr": "rwae_audio.__version__"}


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.startswith("# Changelog\n")
    assert len(re.findall(r"^## ", text, re.M)) == len(re.findall(r"^## \[\d+\.\d+\.\d+\] - ", text, re.M))
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= kinds


@pytest.mark.parametrize("name", PROJECT["scripts"])
def test_each_command_says_its_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, function = PROJECT["scripts"][name].partition(":")
    with pytest.raises(SystemExit) as stop:
        getattr(importlib.import_module(module), function)(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"{name} {rwae_audio.__version__}\n"


@pytest.mark.parametrize("path", YAML, ids=relative)
def test_yaml_parses(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "\t" not in text
    assert text.endswith("\n")
    assert isinstance(parsed(path), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=relative)
def test_workflows_ask_for_little(path: Path) -> None:
    """A workflow reads the repository and no more, a job ends some day, and each action has a version."""
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "group" in workflow["concurrency"]
    for name, job in workflow["jobs"].items():
        assert set(job.get("permissions", {})) <= {"id-token"}, name
        assert "uses" in job or job["timeout-minutes"] <= 60, name
        for step in job.get("steps", ()):
            assert re.search(r"@(release/)?v\d+$", step.get("uses", "@v1")), step


def test_workflows_test_what_the_package_promises() -> None:
    jobs = parsed(GITHUB / "workflows/ci.yml")["jobs"]
    versions = jobs["quick"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert {str(include["python"]) for include in jobs["wheel"]["strategy"]["matrix"]["include"]} <= set(versions)
    assert parsed(GITHUB / "workflows/release.yml")["jobs"]["publish"]["needs"] == ["version", "ci"]
    script = GITHUB / "scripts/try_commands.sh"
    assert script.stat().st_mode & 0o100
    assert all(name in script.read_text(encoding="utf-8") for name in ("rwae-vc", "rwae-embed", "rwae-eer"))


def test_the_guide_names_every_wing() -> None:
    wings = [path.parent.name for path in (ROOT / "rwae_audio").glob("*/__init__.py")]
    line = next(line for line in (GITHUB / "CONTRIBUTING.md").read_text().splitlines() if "data/ → " in line)
    assert sorted(line.split()[::2]) == sorted(f"{wing}/" for wing in wings)
