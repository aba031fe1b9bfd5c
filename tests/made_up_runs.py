"""Finished runs of made-up scores, as train.py leaves them, without a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rwae_audio.evaluation.trials import all_pairs
from rwae_audio.evaluation.verification import report, write_scores
from rwae_audio.training.trainer import RunConfig


def run_folder(folder: Path, name: str, seed: int, noise: float) -> Path:
    """A finished run of made-up scores: 8 speakers × 4; both codes score the voice plus noise."""
    speakers = np.repeat(np.arange(8), 4)
    trials = all_pairs([f"s{s}/{i}.wav" for i, s in enumerate(speakers)], [str(s) for s in speakers])
    voices, rng = np.random.default_rng(0).standard_normal((8, 5)), np.random.default_rng(seed)
    static, dynamic = (voices[speakers] + scale * rng.standard_normal((32, 5)) for scale in (noise, 3.0))
    said, scores = report(static, dynamic, trials, np.zeros(5), synthetic=True)
    (folder / "scores").mkdir(parents=True)
    for kind, values in scores.items():
        write_scores(folder / "scores" / f"{name}.{kind}.txt", trials, values)
    plan = {
        "name": name,
        "test": ["an4"],
        "command": f"python train.py --config {name}.toml --seed {seed} --out {folder}",
    }
    for file, value in {"run": plan, "config": {"train": {"seed": seed}}, "table": {"an4": {name: said}}}.items():
        (folder / f"{file}.json").write_text(json.dumps(value))
    return folder


def made_up_run(folder: Path, name: str, seed: int = 0, noise: float = 0.6, collapsed: tuple[str, ...] = ()) -> Path:
    """run_folder's run with all that a finished one without a bundle has."""
    run_folder(folder, name, seed, noise)
    plan = json.loads((folder / "run.json").read_text()) | {"config": {}, "data": [["an4", "x", "an4"]]}
    table = json.loads((folder / "table.json").read_text())
    table["an4"][name] |= {"codes": {"error": 0.4 + seed, "static_variance": 0.25}, "collapsed": list(collapsed)}
    config = RunConfig.of({"train": {"seed": seed}}).tables()
    for file, value in {"run": plan, "table": table, "config": config, "eer": {"an4": table["an4"][name]}}.items():
        (folder / f"{file}.json").write_text(json.dumps(value))
    lines = [json.dumps({"step": step, "seconds": 0.5 * step}) for step in (10, 20)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder
