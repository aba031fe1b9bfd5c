"""A page that opens from disk: elements whose text is escaped, with tables, pictures and sounds that lie in the page itself."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from rwae_audio.files import ASSETS, read_text

EMPTY = ("img", "meta")  # elements without an end tag
PEAK = 0.7  # of every sound


class Html(str):
    """Text that is HTML already. Any other text is escaped."""


def element(name: str, *children: str, **attributes: str) -> Html:
    """Return an element.

    Args:
        name: The name of the element.
        children: What it holds. Text that is not Html is escaped.
        attributes: Its attributes, which are escaped: `class_` stands for class, `aria_label` for aria-label.
    """
    inside = "".join(child if isinstance(child, Html) else html.escape(child) for child in children)
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    given = "".join(f' {names[key]}="{html.escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{inside}" + ("" if name in EMPTY else f"</{name}>"))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = (0,)) -> Html:
    """Return a table.

    Args:
        header: The head of each column.
        rows: The cells of each row.
        words: The numbers of the columns that stand on the left. The others, of numbers, stand on the right.
    """

    def row(kind: str, cells: Sequence[str]) -> Html:
        sides = ("words" if column in words else "numbers" for column in range(len(header)))
        return element("tr", *(element(kind, cell, class_=side) for cell, side in zip(cells, sides, strict=True)))

    head, body = element("thead", row("th", header)), element("tbody", *(row("td", cells) for cells in rows))
    return element("div", element("table", head, body), class_="wide")


def definitions(lines: Iterable[tuple[str, str]]) -> Html:
    """Return a list of names, each with its meaning."""
    return element("dl", *(part for name, text in lines for part in (element("dt", name), element("dd", text))))


def picture(png: bytes, description: str, kind: str = "plot") -> Html:
    """Return a picture.

    Args:
        png: The content of a PNG file.
        description: The text for readers who do not see it.
        kind: The class of the picture in the style sheet.
    """
    return element("img", src=_address("image/png", png), alt=description, class_=kind)


def player(samples: np.ndarray, rate: int, description: str) -> Html:
    """Return a player of a sound, which is scaled to the peak that all sounds have.

    Args:
        samples: The waveform (N,).
        rate: The sample rate in Hz.
        description: The text for readers who do not see the player.
    """
    import soundfile

    file, loudest = io.BytesIO(), float(np.abs(samples).max(initial=0.0))
    soundfile.write(file, samples * (PEAK / max(loudest, 1e-8)), rate, "PCM_16", format="FLAC")
    source = _address("audio/flac", file.getvalue())
    return element("audio", controls="", preload="metadata", src=source, aria_label=description)


def page(title: str, lead: Sequence[str], sections: Mapping[str, Sequence[str]]) -> str:
    """Return a page as text.

    Args:
        title: The title.
        lead: The elements below the title.
        sections: The elements of each section by its title. A list of links to them stands before the first.
    """
    names = {name: name.lower().replace(" ", "-") for name in sections}
    links = (element("a", name, href=f"#{place}") for name, place in names.items())
    body = [
        element("header", element("h1", title), *lead),
        element("nav", *links, aria_label="sections"),
        *(element("section", element("h2", name), *parts, id=names[name]) for name, parts in sections.items()),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(read_text(ASSETS / "report.css", "the style of a report"))),
    ]
    return f'<!doctype html>\n<html lang="en"><head>{"".join(head)}</head>\n<body>{chr(10).join(body)}</body></html>\n'


def _address(kind: str, data: bytes) -> str:
    """Return an address that holds a file of this media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
