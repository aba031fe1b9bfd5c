"""Tables in Markdown, for a terminal and in READMEs."""

from __future__ import annotations

import pytest

from rwae_audio.evaluation.tables import aligned, format_table, markdown_table, marked, with_interval
from rwae_audio.files import InputError


def test_a_table_in_markdown_has_its_numbers_on_the_right() -> None:
    assert markdown_table(("row", "n"), [("a", "1"), ("b", "")]) == "| row | n |\n|---|---:|\n| a | 1 |\n| b |  |"
    assert markdown_table(("n", "row", "kind"), [], words=(1, 2)) == "| n | row | kind |\n|---:|---|---|"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert aligned([("row", "n"), ("longer", "")]) == ["row     n", "longer"]


def test_what_stands_between_the_marks_of_a_text_is_replaced() -> None:
    text = "a\n<!-- t: begin -->\nold\n<!-- t: end -->\nb\n"
    once = marked(text, "t", "new")
    assert once == "a\n<!-- t: begin -->\n\nnew\n\n<!-- t: end -->\nb\n"
    assert marked(once, "t", "new") == once
    for wrong in (text.replace("end", "eng"), text.replace("begin", "begun"), ""):
        with pytest.raises(InputError, match=r"has no marks <!-- t: begin --> … <!-- t: end -->; expected both"):
            marked(wrong, "t", "new")


def test_a_number_with_its_interval() -> None:
    assert with_interval(0.0471, [0.031, 0.0649]) == "4.7 [3.1, 6.5]"
    assert with_interval(0.4, None) == "40.0"
    assert with_interval(None, None) == ""
    assert with_interval(2.5, (1.25, 3.0), scale=1, digits=2) == "2.50 [1.25, 3.00]"


def test_a_table_of_reports_says_what_is_synthetic_partial_and_collapsed() -> None:
    row = {
        "static": {"eer": 0.0471, "interval": [0.031, 0.0649], "min_dcf": 0.25},
        "dynamic": {"eer": 0.4, "interval": None, "min_dcf": 1.0},
        "gap": 0.3529,
        "synthetic": False,
    }
    alone = {**row, "dynamic": None, "gap": None}
    assert format_table({"rwae": row, "mel": alone}).splitlines() == [
        "system  static EER %    dynamic EER %  gap   minDCF",
        "-" * len("system  static EER %    dynamic EER %  gap   minDCF"),
        "rwae    4.7 [3.1, 6.5]  40.0           35.3  0.250",
        "mel     4.7 [3.1, 6.5]                       0.250",
    ]
    whole = {"a": {**row, "synthetic": True, "partial": "half is missing"}, "b": {**row, "collapsed": ["static"]}}
    lines = format_table({**whole, "c": {**row, "partial": "half is missing"}}).splitlines()
    assert lines[3].startswith("b (static collapsed)  4.7")
    assert lines[5:] == ["synthetic speech: these numbers say nothing about people", "partial: half is missing"]
