"""Tables in Markdown and for a terminal, and their insertion into a README between two marks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from rwae_audio.evaluation.verification import Report
from rwae_audio.files import InputError

HEADER = ("system", "static EER %", "dynamic EER %", "gap", "minDCF")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = (0,)) -> str:
    """Return a table in Markdown.

    Args:
        header: The names of the columns.
        rows: The cells of each row.
        words: The indices of the columns with words, which are aligned left. Columns with numbers are aligned right.
    """
    rule = "|" + "".join("---|" if column in words else "---:|" for column in range(len(header)))
    lines = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table as lines for a terminal, in which each column is as wide as its widest cell."""
    cells = [*rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def marked(text: str, name: str, content: str) -> str:
    """Replace the part of a text between `<!-- name: begin -->` and `<!-- name: end -->`, and return the new text.

    Args:
        text: The text, such as a README.
        name: The name in the two marks.
        content: The new part.

    Raises:
        InputError: The text does not have both marks.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, begin_mark, remainder = text.partition(begin)
    _, end_mark, after = remainder.partition(end)
    if not begin_mark or not end_mark:
        raise InputError(f"the text has no marks {begin} … {end}; expected both")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def with_interval(value: float | None, interval: Sequence[float] | None, scale: float = 100, digits: int = 1) -> str:
    """Return a number with its interval as text, such as `6.7 [4.4, 9.7]`.

    Args:
        value: The number, or None, for which the text is empty.
        interval: The ends of its interval, or None.
        scale: The factor of all numbers; with the default, fractions become percentages.
        digits: The number of digits after the point.
    """
    if value is None:
        return ""
    number = f"{scale * value:.{digits}f}"
    if interval is None:
        return number
    low, high = (f"{scale * end:.{digits}f}" for end in interval)
    return f"{number} [{low}, {high}]"


def format_table(rows: Mapping[str, Report]) -> str:
    """Return the reports of systems as a table for a terminal, with a note below it if speech is synthetic or partial.

    Args:
        rows: The report of each system by its name, from `verification.report`.
    """
    lines = aligned([HEADER, *(cells(name, report) for name, report in rows.items())])
    lines.insert(1, "-" * len(lines[0]))
    if any(report["synthetic"] for report in rows.values()):
        lines.append("synthetic speech: these numbers say nothing about people")
    reasons = dict.fromkeys(report["partial"] for report in rows.values() if report.get("partial"))
    return "\n".join([*lines, *(f"partial: {reason}" for reason in reasons)])


def cells(name: str, report: Report) -> tuple[str, ...]:
    """Return the cells of a row of `format_table`, with rates in %."""
    mark = f" ({' and '.join(collapsed)} collapsed)" if (collapsed := report.get("collapsed")) else ""
    rates = (
        with_interval(code["eer"], code["interval"]) if code else "" for code in (report["static"], report["dynamic"])
    )
    return (name + mark, *rates, with_interval(report["gap"], None), f"{report['static']['min_dcf']:.3f}")
