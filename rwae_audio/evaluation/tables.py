"""Tables: in Markdown, in columns for a terminal, between the marks of a README, and the table of a benchmark's reports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from rwae_audio.evaluation.verification import Report
from rwae_audio.files import InputError

HEADER = ("system", "static EER %", "dynamic EER %", "gap", "minDCF")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = (0,)) -> str:
    """Return a table in Markdown.

    Args:
        words: The numbers of the columns that stand on the left; the others, of numbers, stand on the right.
    """
    rule = "|" + "".join("---|" if column in words else "---:|" for column in range(len(header)))
    lines = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return lines for a terminal, in which each column is as wide as its widest cell."""
    cells = [*rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def marked(text: str, name: str, content: str) -> str:
    """Return a text whose part between `<!-- name: begin -->` and `<!-- name: end -->` is `content`.

    Raises InputError when it does not have both marks.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, first, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise InputError(f"the text has no marks {begin} … {end}; expected both")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def with_interval(value: float | None, interval: Sequence[float] | None, scale: float = 100, digits: int = 1) -> str:
    """Return a number with its interval as text, `6.7 [4.4, 9.7]`: in % by default, and empty without a number."""
    if value is None:
        return ""
    number = f"{scale * value:.{digits}f}"
    if interval is None:
        return number
    low, high = (f"{scale * end:.{digits}f}" for end in interval)
    return f"{number} [{low}, {high}]"


def format_table(rows: Mapping[str, Report]) -> str:
    """Return the reports of some systems as a table for a terminal, which says where speech is synthetic or partial."""
    lines = aligned([HEADER, *(_cells(name, report) for name, report in rows.items())])
    lines.insert(1, "-" * len(lines[0]))
    if any(report["synthetic"] for report in rows.values()):
        lines.append("synthetic speech: these numbers say nothing about people")
    reasons = dict.fromkeys(report["partial"] for report in rows.values() if report.get("partial"))
    return "\n".join([*lines, *(f"partial: {reason}" for reason in reasons)])


def _cells(name: str, report: Report) -> tuple[str, ...]:
    """Return a row of the table, rates in %."""
    mark = f" ({' and '.join(collapsed)} collapsed)" if (collapsed := report.get("collapsed")) else ""
    rates = (
        with_interval(code["eer"], code["interval"]) if code else "" for code in (report["static"], report["dynamic"])
    )
    return (name + mark, *rates, with_interval(report["gap"], None), f"{report['static']['min_dcf']:.3f}")
