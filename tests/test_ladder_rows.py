"""What a ladder keeps: scores, configurations, a line a run; and the tables that are kept are those of the rows kept."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import made_up_run

from rwae_audio.evaluation.trials import all_pairs
from rwae_audio.evaluation.verification import cosine_scores, eer
from rwae_audio.files import InputError
from rwae_audio.settings import read_toml, tomllib
from rwae_audio.training.trainer import RunConfig

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes/timit"))
import ladder  # noqa: E402
import ladder_overview  # noqa: E402
import ladder_rows  # noqa: E402


def test_scores_in_float16_give_the_same_rates() -> None:
    rng, speakers = np.random.default_rng(0), np.repeat(np.arange(24), 8)
    trials = all_pairs([str(i) for i in range(192)], [str(s) for s in speakers])
    for offset in (0.0, 30.0):  # 30: all cosines are over 0.99
        voices = rng.standard_normal((24, 16))[speakers] + 1.5 * rng.standard_normal((192, 16)) + offset
        scores = cosine_scores(voices, trials)
        rounded = ladder_rows.half(scores)
        assert rounded.dtype == np.float16
        assert 0.05 < eer(scores, trials.target) < 0.4
        assert eer(rounded, trials.target) == pytest.approx(eer(scores, trials.target), abs=5e-4)


def test_a_configuration_is_kept_as_differences_that_train_takes() -> None:
    tables = read_toml(ROOT / "rwae_audio/assets/conf/rwae-plus.toml")
    tables["train"] = {**tables["train"], "seed": 7, "learning_rate": 1e-5}
    other = ladder_rows.differences(RunConfig.of(tables).tables())
    assert "seed" not in other["train"]
    assert tomllib.loads(ladder_rows.toml(other)) == json.loads(json.dumps(other))
    assert RunConfig.of({**other, "train": {**other["train"], "seed": 7}}) == RunConfig.of(tables)
    assert ladder_rows.differences({}) == {}


@pytest.mark.slow
def test_a_run_tested_on_two_corpora_is_a_row_of_two_ladders(tmp_path: Path) -> None:
    """Each with the scores of its own folder."""
    run, other = (made_up_run(tmp_path / name, "dsvae", seed) for seed, name in enumerate(("run", "other")))
    for source, name in ((run, "an4"), (other, "mine")):
        (source / "scores").rename(tmp_path / f"{name} scores")
    (run / "scores").mkdir()
    for name in ("an4", "mine"):
        (tmp_path / f"{name} scores").rename(run / "scores" / name)
    plan, table, second = (
        json.loads(path.read_text()) for path in (run / "run.json", run / "table.json", other / "table.json")
    )
    (run / "run.json").write_text(json.dumps({**plan, "test": ["an4", "mine"]}))
    (run / "table.json").write_text(json.dumps({**table, "mine": second["an4"]}))
    assert ladder.main(["--collect", str(run), "--into", str(tmp_path / "ladder")]) == 0
    for name, said in {"an4": table["an4"], "mine": second["an4"]}.items():
        row = ladder_rows.read_rows(tmp_path / "ladder" / name)["dsvae-0"]
        assert row["test"] == name
        assert row["static"]["eer"] == pytest.approx(said["dsvae"]["static"]["eer"], abs=5e-4)
        assert (tmp_path / "ladder" / name / "ladder.md").is_file()


@pytest.mark.parametrize("place", ["an4", "speechocean762"])
def test_the_table_that_is_kept_is_that_of_its_rows(place: str) -> None:
    """The rates in ladder.csv and the ranks' table of ladder.md (without the intervals, which take minutes)."""
    kept = ROOT / "recipes/timit/ladder" / place
    runs: dict[str, list[dict]] = {}
    for row in ladder_rows.read_rows(kept).values():
        runs.setdefault(row["name"], []).append(row)
    table = {line["row"]: line for line in csv.DictReader((kept / "ladder.csv").open())}
    assert set(table) == set(runs)
    text = (kept / "ladder.md").read_text()
    for name, rows in runs.items():
        assert int(table[name]["seeds"]) == len(rows)
        for code in ("static", "dynamic"):
            rates = [row[code]["eer"] for row in rows if row[code]]
            said = table[name][f"{code}_eer"]
            assert (float(said) if said else None) == (pytest.approx(np.mean(rates), rel=1e-5) if rates else None), name
            assert not rates or f" {100 * np.mean(rates):.1f} [" in re.search(rf"\| {name} .*", text).group(), name


def test_the_readme_says_what_the_ladder_says(tmp_path: Path) -> None:
    tables = ladder_overview.read_overview(ladder.SHOWN)
    for path in ladder.READMES:
        readme = path.read_text()
        assert ladder_overview.rendered(readme, tables) == readme
        assert all(f"\n| {name} | " in readme for name in ladder_overview.SHOWN)
    with pytest.raises(InputError, match="has no marks"):
        ladder_overview.rendered("no marks", tables)
    with pytest.raises(InputError, match="expected the tables of a ladder"):
        ladder_overview.read_overview(tmp_path)


def test_systems_are_in_the_order_of_their_mean_gap_over_all_lists() -> None:
    """System a is ahead on one list, b on both together, and c is missing from one list."""

    def row(static: float, dynamic: float) -> dict[str, str]:
        spans = {f"{code}_{end}": "0.5" for code in ("static", "dynamic", "gap") for end in ("low", "high")}
        return {"static_eer": str(static), "dynamic_eer": str(dynamic), "gap": str(dynamic - static), **spans}

    tables = {"one": {"a": row(0.05, 0.45), "b": row(0.1, 0.45), "c": row(0, 0.5)}}
    tables["two"] = {"a": row(0.2, 0.4), "b": row(0.02, 0.4)}
    text = ladder_overview.rendered("<!-- ladder.csv: begin --><!-- ladder.csv: end -->", tables, ("a", "b", "c"))
    cells = [line.split(" | ") for line in text.splitlines() if line.startswith(("| a", "| b", "| c"))]
    assert [(line[0], line[-1]) for line in cells] == [("| b", "36.5 |"), ("| a", "30.0 |")]
    assert cells[1][1] == "5.0 [50.0, 50.0]"


def test_what_is_no_row_is_one_line(tmp_path: Path) -> None:
    assert ladder_rows.read_rows(tmp_path) == {}
    (tmp_path / "runs.jsonl").write_text("{\n")
    with pytest.raises(InputError, match=r"runs\.jsonl has a line that is not JSON"):
        ladder_rows.read_rows(tmp_path)
