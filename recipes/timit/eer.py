"""Score a bundle on a corpus's speaker benchmark: for TIMIT the core test, 24 speakers × 8 utterances, 18,336 trials.

    python recipes/timit/eer.py --data timit=DIR --bundle runs/timit-rwae-mmd/bundle
    python recipes/timit/eer.py --data timit=nltk_data/corpora/timit        NLTK's free sample: a marked table

Static vector of an utterance: mean over its non-overlapping segments, the last one right-aligned; dynamic vector: mean
over its frames. The phone probe says how much of what is said the dynamic code holds: a classifier of single frames,
trained on training speakers' hand labels, beside the same on log-mels.
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
PROBED = 800  # training utterances at most: 40 minutes of TIMIT, more frames than the phone probe takes


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser, "the corpus to score on")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained bundle (the shipped one)")
    parser.add_argument("--device", default="cpu", help=DEVICE_HELP)
    parser.add_argument("--partial", action="store_true", help="go on when files of TIMIT are missing; marks the table")
    parser.add_argument("--with-sa", action="store_true", help="keep TIMIT's SA1 and SA2, which everybody says")
    parser.add_argument("--scores", type=Path, metavar="DIR", help="write the scores behind the table, a file a kind")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    corpus = read(options)

    from rwae_audio.evaluation.tables import format_table
    from rwae_audio.evaluation.verification import write_scores
    from rwae_audio.inference.bundle import load_bundle

    bundle = load_bundle(options.bundle, options.device)
    scores_folder(options.scores)
    said, scores, bench = score(bundle, corpus, progress=not options.json)
    for kind, values in scores.items() if options.scores else ():
        write_scores(options.scores / f"{kind}.txt", bench.trials, values)
    if options.json:
        print(json.dumps(said))
        return 0
    for note in corpus.notes:
        print(f"{corpus.name}: {note}")
    count = f"{said['trials']:,} trials, {said['target_trials']:,} of them target, {said['speakers']} speakers"
    print(f"{corpus.name}: {count}\n")
    print(format_table({bundle.config.objective.name: said}))
    print(f"\n{probe_line(said['phone'])}")
    if options.scores:
        say(NAME, f"wrote {', '.join(f'{kind}.txt' for kind in scores)} to {options.scores}")
    return 0


def read(options: argparse.Namespace) -> Corpus:
    """The corpus with test speakers; of its training speakers no more utterances than the phone probe needs."""
    from rwae_audio.data.corpora import by_corpus, corpus_sources, read_corpora
    from rwae_audio.evaluation.benchmark import with_benchmark

    sources = corpus_sources(options.data)
    if len(given := by_corpus(sources)) != 1:
        raise InputError(f"--data names {', '.join(given) or 'nothing'}; expected one corpus, such as timit=DIR")
    how = {"with_sa": options.with_sa, "partial": options.partial}
    (corpus,) = read_corpora(sources, options={source.reader: how for source in sources})
    corpus = corpus if corpus.of("test") else with_benchmark(corpus)
    labelled = [u for u in corpus.of("train") if u.phones]
    probed = random.Random(0).sample(labelled, min(PROBED, len(labelled)))
    return replace(corpus, utterances=(*sorted(probed, key=lambda u: u.id), *corpus.of("test")))


def scores_folder(folder: Path | None) -> None:
    """Made if it is not there. Raises InputError."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; expected a folder for the scores") from error


def score(bundle: Bundle, corpus: Corpus, progress: bool) -> tuple[dict[str, Any], dict[str, Any], Benchmark]:
    """What --json says, the scores by kind, and the benchmark."""
    from rwae_audio.data.store import open_store
    from rwae_audio.evaluation.benchmark import benchmark, embed_rows, model_row
    from rwae_audio.evaluation.probes import phone_report

    mel, model, normaliser = bundle.config.mel, bundle.model, bundle.normaliser
    store = open_store([corpus], mel, progress=progress)
    bench = benchmark(store, corpus, "test")
    said, scores = model_row(bench, embed_rows(bench, model, normaliser, mel), bundle.dynamic_mean)
    phones = {u.path: u.phones for u in corpus.utterances if u.phones}
    phone = phone_report(store, store.indices("train"), bench, model, normaliser, mel, phones)
    return {**said, "phone": phone}, scores, bench


def probe_line(phone: dict[str, Any]) -> str:
    """What the phone probe found."""
    if "z_m" not in phone:
        return "phone of a frame: left out, there are no training speakers with hand labels to train the probe on"
    shares = f"z^m {100 * phone['z_m']:.1f} %, log-mels {100 * phone['log_mel']:.1f} %"
    frames = f"{phone['test_frames']:,} frames of {phone['classes']} classes"
    asked = "at a segment's centre" if phone.get("per") == "segment" else "of a frame"
    return f"phone {asked}: {shares}, the commonest class {100 * phone['majority']:.1f} % ({frames})"


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
