"""The house: eight wings over the ground floor, arrows that point one way, files of one sitting, functions of one screen."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

import rwae_audio

PACKAGE = Path(rwae_audio.__file__).parent
PROJECT = PACKAGE.parent
GROUND = "ground"
WINGS = (GROUND, "data", "model", "objectives", "training", "inference", "evaluation", "conversion", "commands")
FILES = sorted(PACKAGE.rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    """Return the tree of a file of Python."""
    return ast.parse(path.read_text(encoding="utf-8"))


def wing(module: str) -> str:
    """Return the wing of `rwae_audio.wing.name`, or the ground floor of `rwae_audio.name`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else GROUND


@functools.cache
def imports(path: Path) -> frozenset[tuple[str, str]]:
    """Return the module of a file with each module of the package that it imports when it runs, at once or later."""
    tree = parsed(path)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    pairs = set()
    module = ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [
                name if (PROJECT / Path(*name.split("."))).with_suffix(".py").is_file() else node.module
                for name in inside
            ]
        for name in names:
            if name.partition(".")[0] == "rwae_audio" and name != "rwae_audio":
                pairs.add((module, name))
    return frozenset(pairs)


def test_every_folder_is_a_wing() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert folders == set(WINGS) - {GROUND}


def test_no_arrow_points_up() -> None:
    """A wing imports those before it in WINGS, and itself."""
    up = {
        (one, other)
        for path in FILES
        if path != PACKAGE / "__init__.py"  # the public names, loaded when they are asked for
        for one, other in imports(path)
        if WINGS.index(wing(other)) > WINGS.index(wing(one))
    }
    assert not up


def test_no_two_modules_need_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        for one, other in imports(path):
            graph.setdefault(one, set()).add(other)
    graph.pop("rwae_audio", None)

    def reached(module: str) -> set[str]:
        seen, waiting = set(), [*graph.get(module, ())]
        while waiting:
            if (name := waiting.pop()) not in seen:
                seen.add(name)
                waiting += graph.get(name, ())
        return seen

    assert not [module for module in graph if module in reached(module)]


@pytest.mark.parametrize("folder", ["rwae_audio", "recipes", "bench"])
def test_a_file_fits_one_sitting_and_a_function_one_screen(folder: str) -> None:
    long = []
    for path in sorted((PROJECT / folder).rglob("*.py")):
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400:
            long.append(f"{path.name} has {count} lines")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:  # type: ignore[operator]
                long.append(f"{path.name}: {node.name}")
    assert not long


def test_only_commands_print_and_exit() -> None:
    loud = []
    for path in FILES:
        if path.parent.name != "commands":
            calls = [node.func for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
            loud += [path.name for call in calls if ast.unparse(call) in ("print", "sys.exit", "exit", "quit")]
    assert not loud


def test_a_recipe_imports_from_its_own_folder_and_from_the_package() -> None:
    scripts = sorted((PROJECT / "recipes").glob("*/*.py"))
    across = []
    for path in scripts:
        others = {script.stem for script in scripts} - {script.stem for script in path.parent.glob("*.py")}
        for node in ast.walk(parsed(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            across += [f"{path.parent.name}/{path.name}: {name}" for name in names if name in others]
    assert not across
