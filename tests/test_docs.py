"""The documentation: its links lead somewhere, its commands have only options that exist, its Python compiles, it is built."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

import rwae_audio
from rwae_audio.commands.common import Parser
from rwae_audio.settings import read_toml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "recipes/docs"
SCRIPTS = read_toml(ROOT / "pyproject.toml")["project"]["scripts"]
sys.path.insert(0, str(DOCS))
import hooks  # noqa: E402
import pictures  # noqa: E402

PAGES = [*hooks.pages(), hooks.LEFT_OUT]
REFERENCE = re.findall(
    r"^::: (\S+)$",
    "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "pages/reference").glob("*.md")),
    re.M,
)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block of code: its language, or "", and its text without the indentation of the fence."""

    language: str
    code: str


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for indent, language, code in re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.M | re.S):
        yield Block(language, re.sub(rf"^{indent}", "", code, flags=re.M))


@cache
def anchors(page: str) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^( *)```.*?^\1```$", "", text_of(page), flags=re.M | re.S), re.M)
    found: list[str] = []
    for title in titles:
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        anchor = re.sub(r"[^\w -]", "", shown).lower().replace(" ", "-")
        count = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other) is not None for other in found)
        found.append(f"{anchor}-{count}" if count else anchor)
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """A relative link finds a file or a folder of the repository, and one to a heading finds the heading."""
    for match in hooks.links(text_of(page)):
        link = match[3]
        if re.match(r"(https|mailto):", link):
            continue
        target = hooks.target_of(page, link) or page
        assert (ROOT / target).exists(), link
        assert not target.startswith(".."), link
        if heading := link.partition("#")[2]:
            assert heading in anchors(target), link


def test_a_dead_link_would_be_found() -> None:
    """A control: what the test above reads of a page, and that code is not read."""
    text = "[a](b.md#c) ![d\ne](f.png)\n\n`[g](h)`\n\n```\n[i](j)\n```\n[k](https://l)"
    assert [match[3] for match in hooks.links(text)] == ["b.md#c", "f.png", "https://l"]
    assert hooks.target_of("recipes/timit/NOTES.md", "../../README.md#x") == "README.md"
    assert anchors("recipes/docs/pages/concepts.md") >= {"trials-and-the-eer", "collapse"}
    assert "no-such-heading" not in anchors("recipes/docs/pages/concepts.md")


class Use(NamedTuple):
    """An option of a program on a page."""

    page: str
    option: str


def shell_lines(page: str) -> Iterator[str]:
    """Yield the command lines of a page: those of blocks of code, fenced or indented, and those in a sentence.

    A block that checks another commit out has that commit's commands, and is left out.
    """
    text = text_of(page)
    fenced = [block.code for block in blocks(text) if block.language in ("", "sh", "bash")]
    indented = re.findall(r"^ {4}((?:python|rwae-).*)$", text, re.M)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.M | re.S))
    for code in [*(code for code in fenced if "git checkout" not in code), *indented, *spans]:
        for line in re.sub(r"\\\n\s*", "", code).splitlines():
            yield from re.split(r" (?:&&|\|) ", line.partition(" #")[0])


def used() -> dict[str, set[Use]]:
    """Return the options of every program on all pages; a script is called by its path."""
    found: dict[str, set[Use]] = {}
    for page in PAGES:
        for line in shell_lines(page):
            words = [word.strip("[]…,") for word in line.split()]
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            if words and words[0] in SCRIPTS:
                program, words = words[0], words[1:]
            elif words and words[0] in ("python", "torchrun", "accelerate"):
                places = [i for i, word in enumerate(words) if re.fullmatch(r"(recipes|bench)/[\w/]+\.py", word)]
                if not places:
                    continue
                program, words = words[places[0]], words[places[0] + 1 :]
            else:
                continue
            words = words[: words.index("--")] if "--" in words else words  # names follow
            options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            found.setdefault(program, set()).update(Use(page, option) for option in options)
    return found


USED = used()


class ParsedError(Exception):
    """Raised in place of the parsing of a command line; `parser` would have parsed it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def options_of(program: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the options that a command, or a script of the recipes, knows."""

    def parse(parser: argparse.ArgumentParser, *words: Any) -> NoReturn:
        raise ParsedError(parser)

    if program in SCRIPTS:
        name, _, function = SCRIPTS[program].partition(":")
        main = getattr(importlib.import_module(name), function)
    else:
        path = ROOT / program
        monkeypatch.syspath_prepend(str(path.parent))
        spec = importlib.util.spec_from_file_location(f"script_{path.parent.name}_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        try:
            spec.loader.exec_module(module)
        except ModuleNotFoundError as error:
            pytest.skip(f"{error.name} is not installed")
        if not hasattr(module, "main"):  # a script without options
            return set()
        main = module.main
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(Parser, "parse_args", parse)
    with pytest.raises(ParsedError) as stop:
        main(*([[]] if inspect.signature(main).parameters else []))
    return set(stop.value.parser._option_string_actions)


@pytest.mark.parametrize("program", sorted(USED))
def test_pages_name_only_options_that_exist(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert program in SCRIPTS or (ROOT / program).is_file()
    known = options_of(program, monkeypatch)
    assert [use for use in sorted(USED[program]) if use.option not in known] == []


def test_the_pages_use_every_command() -> None:
    """A control: commands, scripts, launchers and options in brackets are read."""
    assert set(SCRIPTS) <= set(USED)
    assert Use("recipes/docs/pages/tutorial.md", "--adapt") in USED["rwae-vc"]
    assert Use("recipes/timit/DISTRIBUTED.md", "--data") in USED["recipes/timit/train.py"]
    assert Use("README.md", "-o") in USED["rwae-vc"]
    assert not any(use.option.startswith("--nproc") for use in USED["recipes/timit/train.py"])


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in text_of(page)])
def test_python_compiles(page: str) -> None:
    for block in blocks(text_of(page)):
        if block.language == "python":
            compile(block.code, page, "exec")


def resolved(name: str) -> Any:
    """Return the object of a dotted name: a module, or something in one."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError:
        return importlib.import_module(name)


def test_the_reference_has_the_public_names() -> None:
    documented = [resolved(name) for name in REFERENCE]
    assert len(set(REFERENCE)) == len(REFERENCE)
    names = [name for name in rwae_audio.__all__ if name != "__version__"]
    assert [name for name in names if getattr(rwae_audio, name) not in documented] == []
    assert [name for name, thing in zip(REFERENCE, documented, strict=True) if not (thing.__doc__ or "").strip()] == []


def test_the_table_of_the_tutorial_is_the_ladders() -> None:
    assert pictures.example() in text_of("recipes/docs/pages/tutorial.md"), "run python recipes/docs/pictures.py"


def test_pages_have_addresses_of_their_own() -> None:
    addresses = [hooks.address(page) for page in hooks.pages()]
    assert len(set(addresses)) == len(addresses)
    assert hooks.address("recipes/docs/pages/index.md") == "index.html"
    assert hooks.address("recipes/timit/NOTES.md") == "timit/notes.html"


def test_links_are_made_to_hold_on_the_site() -> None:
    """Source files are pages there, folders are plain text, and all else stays as it is."""
    text = "[a](../timit) [b](ladder.py) [c](NOTES.md#x) `[d](../timit)` ![e](swaps.png) [f](https://g)"
    assert hooks.relinked("recipes/timit/README.md", text) == (
        "a [b](ladder.py.md) [c](NOTES.md#x) `[d](../timit)` ![e](swaps.png) [f](https://g)"
    )


def test_every_recipe_is_in_the_navigation() -> None:
    tabs = hooks.navigation([{"Start": ["recipes/timit/SETTINGS.md"]}, {"Recipes": "recipes/*/README.md"}])
    listed = [page for recipe in tabs[1]["Recipes"] for pages in recipe.values() for page in pages]
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("recipes/*/README.md")} <= set(listed)
    assert "recipes/timit/NOTES.md" in listed
    assert "recipes/timit/SETTINGS.md" not in listed


def test_the_help_of_every_command_is_shown() -> None:
    text = hooks.commands()
    for name in SCRIPTS:
        assert f"## {name}\n\n```text\nusage: {name} " in text
    assert "--adapt N" in text


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers.python"):
        pytest.importorskip(package, reason="the documentation needs the extra `docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(DOCS / "mkdocs.yml")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path / "site")], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    site = tmp_path / "site"
    for page in hooks.pages():
        assert (site / hooks.address(page)).is_file(), page
    for html in site.rglob("*.html"):  # a page asks no other machine for anything
        text = html.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//", text), html
    assert "rwae-vc [-h]" in (site / "commands.html").read_text(encoding="utf-8")
    assert "convert_file" in (site / "reference/conversion.html").read_text(encoding="utf-8")
