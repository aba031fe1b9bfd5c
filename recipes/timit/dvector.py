"""Compute the d-vectors of resemblyzer, a pre-trained supervised reference for the ladder (extra `judge`).

    python recipes/timit/dvector.py --data an4=DIR --out runs/ladder/d-vector
    python recipes/timit/ladder.py --collect runs/ladder/d-vector
    rwae-eer --embeddings runs/ladder/d-vector/vectors.safetensors --trials LIST        the same EER

resemblyzer 0.1.4 (Wan et al. 2018) was trained with the labels of thousands of speakers. Its wheel contains its weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rwae_audio.commands.common import Parser, guarded, new_folder
from rwae_audio.commands.data import add_corpora, tested
from rwae_audio.commands.runs import command_line
from rwae_audio.files import InputError, write_json, write_tensors

NAME = "dvector.py"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpora(parser, "the corpus to embed")
    parser.add_argument(
        "--split", choices=("dev", "test"), default="test", help="the split of the trial list (default: test)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder (default: a new one in runs/)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    try:
        from resemblyzer import VoiceEncoder, preprocess_wav
    except ImportError as error:
        extra = "`pip install 'rwae-audio[judge]'` (resemblyzer 0.1.4, setuptools under 81)"
        raise InputError(f"resemblyzer cannot be imported ({error}); expected {extra}") from error
    import numpy as np
    import torch
    from ladder_runs import heard_elsewhere, leave_vectors

    from rwae_audio.data.audio import load_audio
    from rwae_audio.data.corpora import corpus_sources, read_corpora
    from rwae_audio.data.store import open_store
    from rwae_audio.evaluation.benchmark import Benchmark, benchmarks, with_benchmark
    from rwae_audio.evaluation.experiment import corpus_place
    from rwae_audio.training.trainer import RunConfig

    sources, elsewhere = corpus_sources(options.data), corpus_sources(options.elsewhere, "--elsewhere")
    test = tested(options.test, sources)
    config, sources = RunConfig(), [source for source in sources if source.corpus in test]
    corpora = [with_benchmark(corpus) for corpus in read_corpora(sources)]
    store = open_store(corpora, config.mel)  # the benchmark of a corpus without a trial list depends on the lengths
    benches = benchmarks(store, corpora, test, options.split)
    encoder = VoiceEncoder("cpu", verbose=False)

    def embed(bench: Benchmark) -> np.ndarray:
        utterances = [bench.store.utterances[row] for row in bench.rows]
        waveforms = (load_audio(u.path, 16000, u.start, u.end) for u in utterances)
        return np.stack([encoder.embed_utterance(preprocess_wav(waveform)) for waveform in waveforms])

    vectors = {name: embed(bench) for name, bench in benches.items()}
    folder = new_folder(options.out, f"{'-'.join(test)}-d-vector")
    plan = {"config": {}, "name": "d-vector", "data": sources, "test": test, "supervised": True}
    write_json(folder / "run.json", {**plan, "seedless": True, "command": command_line(f"python recipes/timit/{NAME}")})
    write_json(folder / "config.json", config.tables())
    for name, bench in benches.items():
        corpus_folder = corpus_place(folder, name, test)
        corpus_folder.mkdir(exist_ok=True)
        rows = dict(zip(bench.trials.names, torch.from_numpy(vectors[name]), strict=True))
        write_tensors(corpus_folder / "vectors.safetensors", rows)
    count = sum(weight.numel() for weight in encoder.parameters())
    reports = heard_elsewhere(elsewhere, config.mel, embed)
    extra = {"parameters": count, "elsewhere": reports}
    for name, report in leave_vectors(folder, "d-vector", benches, vectors, extra).items():
        print(f"{name}, {options.split}: EER {100 * report['static']['eer']:.2f} %, in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
