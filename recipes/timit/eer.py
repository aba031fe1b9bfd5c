"""Run the speaker benchmark of a corpus with a bundle. On TIMIT it is the core test: 24 speakers, 18,336 trials.

    python recipes/timit/eer.py --data timit=DIR --bundle runs/timit-paper-mmd/bundle
    python recipes/timit/eer.py --data timit=nltk_data/corpora/timit        NLTK's free sample; the table is marked as partial

The static embedding of an utterance is the mean over its segments, which do not overlap except for the last one. The dynamic
embedding is the mean over its frames. The phone probe measures the phonetic content of the dynamic code. It is a classifier
of single frames, trained on hand labels of the training speakers. Its accuracy from log-mels is shown for comparison.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.commands.common import DEVICE_HELP, Parser, guarded, say
from rwae_audio.commands.data import add_data
from rwae_audio.files import InputError

if TYPE_CHECKING:
    from rwae_audio.data.corpora import Corpus
    from rwae_audio.evaluation.benchmark import Benchmark
    from rwae_audio.inference.bundle import Bundle

NAME = "eer.py"
PROBED = 800  # training utterances, at most: 40 minutes of TIMIT, which are more frames than the phone probe uses


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser, "the corpus")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained model (default: the one in the package)")
    parser.add_argument("--device", default="cpu", help=DEVICE_HELP)
    parser.add_argument(
        "--partial", action="store_true", help="allow missing files of TIMIT; the table gets a note about them"
    )
    parser.add_argument("--with-sa", action="store_true", help="use TIMIT's SA1 and SA2 too, which every speaker reads")
    parser.add_argument(
        "--scores", type=Path, metavar="DIR", help="write the scores of each kind to a file in this folder"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    corpus = read(options)

    from rwae_audio.evaluation.tables import format_table
    from rwae_audio.evaluation.verification import write_scores
    from rwae_audio.inference.bundle import load_bundle

    bundle = load_bundle(options.bundle, options.device)
    make_folder(options.scores)
    report, scores, bench = score(bundle, corpus, progress=not options.json)
    for kind, values in scores.items() if options.scores else ():
        write_scores(options.scores / f"{kind}.txt", bench.trials, values)
    if options.json:
        print(json.dumps(report))
        return 0
    for note in corpus.notes:
        print(f"{corpus.name}: {note}")
    count = f"{report['trials']:,} trials, {report['target_trials']:,} of them target, {report['speakers']} speakers"
    print(f"{corpus.name}: {count}\n")
    print(format_table({bundle.config.objective.name: report}))
    print(f"\n{probe_line(report['phone'])}")
    if options.scores:
        say(NAME, f"wrote {', '.join(f'{kind}.txt' for kind in scores)} to {options.scores}")
    return 0


def read(options: argparse.Namespace) -> Corpus:
    """Return the corpus of --data, with all test utterances and the training utterances that the phone probe needs.

    Raises:
        InputError: --data does not name one corpus, or the corpus cannot be read.
    """
    from rwae_audio.data.corpora import by_corpus, corpus_sources, read_corpora
    from rwae_audio.evaluation.benchmark import with_benchmark

    sources = corpus_sources(options.data)
    if len(names := by_corpus(sources)) != 1:
        raise InputError(f"--data names {', '.join(names) or 'nothing'}; expected one corpus, such as timit=DIR")
    settings = {"with_sa": options.with_sa, "partial": options.partial}
    (corpus,) = read_corpora(sources, options={source.reader: settings for source in sources})
    corpus = corpus if corpus.of("test") else with_benchmark(corpus)
    labelled = [u for u in corpus.of("train") if u.phones]
    probed = random.Random(0).sample(labelled, min(PROBED, len(labelled)))
    return replace(corpus, utterances=(*sorted(probed, key=lambda u: u.id), *corpus.of("test")))


def make_folder(folder: Path | None) -> None:
    """Create the folder of --scores, unless it is None. Raises InputError if it cannot be created."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; expected a folder for the scores") from error


def score(bundle: Bundle, corpus: Corpus, progress: bool) -> tuple[dict[str, Any], dict[str, Any], Benchmark]:
    """Return the report for --json, the scores (N,) by kind, and the benchmark.

    Args:
        bundle: The bundle.
        corpus: The corpus.
        progress: Whether a progress bar is shown.
    """
    from rwae_audio.data.store import open_store
    from rwae_audio.evaluation.benchmark import benchmark, embed_rows, model_row
    from rwae_audio.evaluation.probes import phone_report

    mel, model, normaliser = bundle.config.mel, bundle.model, bundle.normaliser
    store = open_store([corpus], mel, progress=progress)
    bench = benchmark(store, corpus, "test")
    report, scores = model_row(bench, embed_rows(bench, model, normaliser, mel), bundle.dynamic_mean)
    phones = {u.path: u.phones for u in corpus.utterances if u.phones}
    phone = phone_report(store, store.indices("train"), bench, model, normaliser, mel, phones)
    return {**report, "phone": phone}, scores, bench


def probe_line(phone: dict[str, Any]) -> str:
    """Return a line about the results of the phone probe, from `phone_report`."""
    if "z_m" not in phone:
        return "phone of a frame: left out, since no training speaker has hand labels for the probe"
    shares = f"z^m {100 * phone['z_m']:.1f} %, log-mels {100 * phone['log_mel']:.1f} %"
    frames = f"{phone['test_frames']:,} frames of {phone['classes']} classes"
    where = "at a segment's centre" if phone.get("per") == "segment" else "of a frame"
    return f"phone {where}: {shares}, the commonest class {100 * phone['majority']:.1f} % ({frames})"


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
