"""Hooks of the documentation's build with mkdocs: which pages and files it has, and where their links lead.

Every page of the repository is brought in under its path there. So a relative link holds on the site as it does in the
repository, and each page has one home. ADDRESSES and PREFIXES give the pages short addresses.

- Pictures and tables that a page links to are copied to source/.
- A source file that a page links to becomes a page with its text.
- A link to a folder becomes plain text.
- `<!-- commands -->` is replaced by the help of every console command.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from rwae_audio.settings import read_toml

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("*.md", ".github/*.md", "bench/*.md", "recipes/**/*.md", "rwae_audio/assets/*/README.md")
LEFT_OUT = ".github/pull_request_template.md"
ADDRESSES = {
    "README.md": "overview.html",
    "recipes/timit/EXTENDING.md": "extending.html",
    "recipes/timit/SCALE.md": "scale.html",
    "recipes/timit/DISTRIBUTED.md": "distributed.html",
    "recipes/timit/SETTINGS.md": "settings.html",
}
PREFIXES = {"recipes/docs/pages/": "", "recipes/": "", ".github/": "", "rwae_audio/assets/": "cards/"}
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".yaml": "yaml", ".cff": "yaml", ".txt": "text"}
CODE = re.compile(r"^( *)(```+|~~~+).*?^\1\2 *$|`[^`\n]+`", re.M | re.S)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")


@functools.cache
def pages() -> list[str]:
    """Return the paths of all pages of the repository, relative to its root."""
    found = {path.relative_to(ROOT).as_posix() for pattern in PAGES for path in ROOT.glob(pattern)}
    return sorted(found - {LEFT_OUT})


def address(page: str) -> str:
    """Return the address of a page on the site: `timit/notes.html` for recipes/timit/NOTES.md."""
    if page in ADDRESSES:
        return ADDRESSES[page]
    for prefix, short in PREFIXES.items():
        if page.startswith(prefix):
            page = short + page.removeprefix(prefix)
            break
    return re.sub(r"readme$", "index", page.removesuffix(".md").lower()) + ".html"


def links(text: str) -> Iterator[re.Match[str]]:
    """Yield the links and pictures of a page that stand outside of code: the groups are `!` or nothing, text and target."""
    code = [match.span() for match in CODE.finditer(text)]
    for match in LINK.finditer(text):
        if not any(begin <= match.start(3) < end for begin, end in code):
            yield match


def target_of(page: str, link: str) -> str | None:
    """Return the path in the repository that a relative link of a page leads to, or None for another address."""
    if re.match(r"[a-z]+:", link) or link.startswith("#"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link.partition("#")[0]))


def relinked(page: str, text: str) -> str:
    """Return the text of a page in which links lead to what the site has: pages of source files, and no folders."""
    parts, end = [], 0
    for match in links(text):
        target = target_of(page, match[3])
        if target is None:
            continue
        if (ROOT / target).is_dir():
            parts += [text[end : match.start()], match[2]]
        elif Path(target).suffix in LANGUAGES:
            parts += [text[end : match.end(3)], ".md)"]
        else:
            continue
        end = match.end()
    return "".join([*parts, text[end:]])


def source_page(path: str) -> str:
    """Return a page with the text of a source file, which the search leaves out."""
    text = (ROOT / path).read_text(encoding="utf-8")
    head = f"---\nsearch:\n  exclude: true\nhide:\n  - toc\n---\n\n# {Path(path).name}\n\n`{path}`\n\n"
    return f"{head}````{LANGUAGES[Path(path).suffix]}\n{text}\n````\n"


def commands() -> str:
    """Return a section for each console command with its help, as it is printed in a terminal of 100 columns."""
    sections = []
    for name, entry in sorted(read_toml(ROOT / "pyproject.toml")["project"]["scripts"].items()):
        module, _, function = entry.partition(":")
        main: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
        text = io.StringIO()
        terminal = mock.patch.dict("os.environ", COLUMNS="100")
        with terminal, contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main(["--help"])
        sections.append(f"## {name}\n\n```text\n{text.getvalue().rstrip()}\n```\n")
    return "\n".join(sections)


def title(page: str) -> str:
    """Return the first heading of a page."""
    match = re.search(r"^# (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.M)
    return match[1] if match else page


def navigation(nav: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the navigation, with a section for each recipe in place of a pattern: its README and the pages beside it."""
    placed = {page for tab in nav for pages in tab.values() if isinstance(pages, list) for page in _paths(pages)}
    return [
        {name: entry if isinstance(entry, list) else [*_recipes(entry, placed)] for name, entry in tab.items()}
        for tab in nav
    ]


def _paths(pages: Iterable[str | dict[str, str]]) -> Iterator[str]:
    for page in pages:
        yield from [page] if isinstance(page, str) else page.values()


def _recipes(pattern: str, placed: set[str]) -> Iterator[dict[str, list[str]]]:
    for readme in sorted(ROOT.glob(pattern)):
        beside = [path.relative_to(ROOT).as_posix() for path in sorted(readme.parent.glob("*.md")) if path != readme]
        page = readme.relative_to(ROOT).as_posix()
        yield {title(page): [page, *(path for path in beside if path not in placed)]}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring in all pages of the repository, and the files that they link to."""
    from mkdocs.structure.files import File, InclusionLevel

    def add(path: str, place: str, content: str | None = None) -> None:
        source = {"abs_src_path": str(ROOT / path)} if content is None else {"content": content}
        file = File.generated(config, path, inclusion=InclusionLevel.INCLUDED, **source)
        file.dest_uri = place
        files.append(file)

    for file in [file for file in files if file.is_documentation_page()]:
        files.remove(file)
    linked: set[str] = set()
    for page in pages():
        add(page, address(page))
        text = (ROOT / page).read_text(encoding="utf-8")
        linked |= {target for match in links(text) if (target := target_of(page, match[3]))}
    for path in sorted(linked - {*pages()}):
        if Path(path).suffix in LANGUAGES:
            add(f"{path}.md", f"source/{path.lstrip('.')}.html", source_page(path))
        elif (ROOT / path).is_file():
            add(path, f"source/{path.lstrip('.')}")
    config.nav = navigation(config.nav)
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name headings as GitHub does, so that the same anchors hold on both."""
    from pymdownx.slugs import slugify

    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the links of a page hold on the site, and fill in the help of the commands."""
    if page.file.src_uri not in pages():  # a page of a source file has no links
        return markdown
    text = relinked(page.file.src_uri, markdown)
    return text.replace("<!-- commands -->", commands()) if "<!-- commands -->" in text else text
