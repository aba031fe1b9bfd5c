"""Train ECAPA-TDNN with speaker labels, a supervised reference for the ladder (extra `judge`).

    python recipes/timit/ecapa.py --data an4=DIR --data librispeech=DIR --test an4 --out runs/ladder/ecapa-0
    python recipes/timit/ladder.py --collect runs/ladder/ecapa-0

The network is SpeechBrain's (Desplanques et al. 2020), trained with an additive angular margin softmax. Frames, utterances
and speakers are those of the other systems of the ladder. It is not ranked with them, since they have no labels. The embedding
of an utterance is the output of the network for all its frames. `robustness.py --ecapa` uses the network in the run folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwae_audio.commands.common import Parser, guarded, new_folder, set_value
from rwae_audio.commands.data import add_corpora, add_hold_out, data_plan
from rwae_audio.commands.runs import add_set, command_line, configuration, tell
from rwae_audio.files import InputError, only_one, read_json, read_tensors, write_json, write_tensors

if TYPE_CHECKING:
    import numpy as np
    import torch

    from rwae_audio.data.features import Normaliser
    from rwae_audio.evaluation.benchmark import Benchmark
    from rwae_audio.evaluation.experiment import Experiment

NAME = "ecapa.py"
HERE = Path(__file__).resolve().parent
CHANNELS, DIM, CROP = (128, 128, 128, 128, 384), 128, 60  # crops of 0.96 s, the static window of the other systems
MARGIN, SCALE = 0.2, 30.0  # of the additive angular margin softmax
EXTRA = "`pip install 'rwae-audio[judge]'`"
WEIGHTS = "network.safetensors"  # the file of the network in the run folder
TRAIN = {"updates": 1800, "evaluate_every": 150, "batch": 64, "learning_rate": 2e-3}  # a quarter of an hour on one core


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpora(parser, "a corpus to train on")
    add_hold_out(parser)
    text = "a TOML file or a configuration of the package, of which the frames are used (default: rwae-mmd)"
    parser.add_argument("--config", default="rwae-mmd", metavar="FILE", help=text)
    add_set(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the seed of the run (default: 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder (default: a new one in runs/)")
    parser.add_argument("--threads", type=int, metavar="N", help="the number of CPU threads (default: all cores)")
    parser.add_argument("--no-test", action="store_true", help="stop after the training, without tests")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the recipe, and return its exit code."""
    options = arguments(argv)
    from rwae_audio.settings import read_toml

    tables = read_toml(configuration(options.config)) | {"train": {**TRAIN, "seed": options.seed}}
    for change in options.set:
        set_value(tables, change)
    plan = {"config": tables, "name": "ecapa", **data_plan(options), "supervised": True}
    return run(options, {**plan, "command": command_line(f"python recipes/timit/{NAME}")})


def run(options: argparse.Namespace, plan: dict[str, Any]) -> int:
    """Train and test the network, write the run folder, and return the exit code.

    Args:
        options: The parsed command line.
        plan: The plan of the run, which is written to run.json.
    """
    import torch
    from ladder_runs import heard_elsewhere, leave_vectors

    from rwae_audio.data.corpora import by_corpus, corpus_sources
    from rwae_audio.evaluation.experiment import prepare_planned
    from rwae_audio.model import parameters
    from rwae_audio.training.trainer import RunConfig

    trained_on = by_corpus(plan["data"])
    elsewhere = [s for s in corpus_sources(options.elsewhere, "--elsewhere") if s.corpus not in trained_on]
    if options.threads:
        torch.set_num_threads(options.threads)
    config = RunConfig.of(plan["config"])
    ready = prepare_planned(config, plan, tell)
    folder = new_folder(options.out, f"{'-'.join(plan['test'])}-ecapa")
    with only_one(folder):
        write_json(folder / "run.json", plan)
        network = train(ready, folder)
        write_json(folder / "config.json", config.tables())
        save(network, ready.normaliser, folder / WEIGHTS)
        if options.no_test:
            return 0
        vectors = {name: embed(network, ready.normaliser, bench) for name, bench in ready.test.items()}
        reports = heard_elsewhere(elsewhere, config.mel, lambda bench: embed(network, ready.normaliser, bench))
        extra = {"parameters": parameters(network), "elsewhere": reports}
        for name, report in leave_vectors(folder, plan["name"], ready.test, vectors, extra).items():
            tell(f"{name}: EER {100 * report['static']['eer']:.2f} %, in {folder}")
    return 0


def new_network(n_mels: int) -> torch.nn.Module:
    """Return ECAPA-TDNN with random weights. Raises InputError if SpeechBrain is not installed."""
    try:
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    except ImportError as error:
        raise InputError(f"speechbrain cannot be imported ({error}); expected {EXTRA}") from error
    return ECAPA_TDNN(n_mels, channels=list(CHANNELS), lin_neurons=DIM, attention_channels=64, se_channels=64)


def save(network: torch.nn.Module, normaliser: Normaliser, path: Path) -> None:
    """Write a trained network and the normaliser of its frames into a safetensors file."""
    tensors = {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    write_tensors(path, {**tensors, "mean": normaliser.mean, "deviation": normaliser.deviation})


def embedder(run: Path) -> Callable[[Sequence[Path]], Iterator[np.ndarray]]:
    """Return a function from the paths of recordings to their embeddings (DIM,) by the network of a finished run.

    Args:
        run: The run folder.

    Raises:
        InputError: The run folder does not have such a network.
    """
    import torch

    from rwae_audio.data.corpora.base import Corpus, Utterance
    from rwae_audio.data.features import Normaliser
    from rwae_audio.data.store import open_store
    from rwae_audio.training.trainer import RunConfig

    mel = RunConfig.of(read_json(run / "config.json", "a run of ecapa.py")).mel
    tensors = read_tensors(run / WEIGHTS, "the network of a run of ecapa.py")
    network = new_network(mel.n_mels).eval()
    try:
        normaliser = Normaliser(tensors.pop("mean"), tensors.pop("deviation"))
        network.load_state_dict({name.removeprefix("network."): value for name, value in tensors.items()})
    except (KeyError, RuntimeError) as error:
        text = f"{run / WEIGHTS} does not hold this network and its normaliser; expected a run folder of ecapa.py"
        raise InputError(text) from error

    def vectors(paths: Sequence[Path]) -> Iterator[np.ndarray]:
        utterances = tuple(Utterance(str(path), "", "test", path) for path in paths)
        with tempfile.TemporaryDirectory() as folder:
            store = open_store([Corpus("recordings", utterances)], mel, Path(folder))
            for row in range(len(paths)):
                with torch.no_grad():
                    yield network(normaliser(store.of(row))[None])[0, 0].double().numpy()

    return vectors


def train(ready: Experiment, folder: Path) -> torch.nn.Module:
    """Train a network, and return the one with the smallest EER on development speakers, in evaluation mode.

    Args:
        ready: The configuration and the data.
        folder: The run folder, to which metrics.jsonl is written.

    Raises:
        InputError: SpeechBrain is not installed.
    """
    import numpy as np
    import torch

    try:
        from speechbrain.lobes.models.ECAPA_TDNN import Classifier
        from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
    except ImportError as error:
        raise InputError(f"speechbrain cannot be imported ({error}); expected {EXTRA}") from error

    from rwae_audio.model import parameters
    from rwae_audio.randomness import generator
    from rwae_audio.training.loop import MetricsLog
    from rwae_audio.training.trainer import learning_rate

    settings = ready.config.train
    speakers = np.unique(ready.store.speakers[ready.train_rows])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(settings.seed, "ecapa").initial_seed() % 2**31)
        network = new_network(ready.config.mel.n_mels)
        classifier = Classifier(DIM, out_neurons=len(speakers))
    size = f"{parameters(network):,} parameters, {len(speakers)} speakers"
    tell(f"ecapa, {settings.updates} updates, seed {settings.seed}, {size}, in {folder}")
    weights = [*network.parameters(), *classifier.parameters()]
    optimizer = torch.optim.Adam(weights)
    loss_of = LogSoftmaxWrapper(AdditiveAngularMargin(MARGIN, SCALE))
    log, best, state, seconds = MetricsLog(folder / "metrics.jsonl"), 1.0, network.state_dict(), 0.0
    log.drop_after(0)
    for step in range(settings.updates):
        began = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        frames, rows = crops(ready, generator(settings.seed, "batch", step))
        labels = torch.from_numpy(np.searchsorted(speakers, ready.store.speakers[rows]))
        vectors = network.train()(ready.normaliser(frames))
        loss = loss_of(classifier(vectors), labels[:, None])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 5.0)
        optimizer.step()
        seconds += time.monotonic() - began
        if (step + 1) % settings.evaluate_every == 0 or step + 1 == settings.updates:
            rate = dev_rate(network, ready)
            losses = {"train/loss": loss.item(), "dev/static_eer": rate}
            log.write({"step": step + 1, **losses, "seconds": round(seconds, 1)})
            progress = f"update {step + 1}/{settings.updates}  {seconds:.0f} s  loss {loss.item():.2f}"
            tell(f"{progress}  dev EER {100 * rate:.2f} %")
            if rate < best:
                best, state = rate, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    return network.eval()


def dev_rate(network: torch.nn.Module, ready: Experiment) -> float:
    """Return the EER of a network on development speakers, averaged over the tested corpora."""
    import numpy as np

    from rwae_audio.evaluation.verification import cosine_scores, eer

    rates = [
        eer(cosine_scores(embed(network, ready.normaliser, bench), bench.trials), bench.trials.target)
        for bench in ready.dev.values()
    ]
    return float(np.mean(rates))


def crops(ready: Experiment, noise: torch.Generator) -> tuple[torch.Tensor, np.ndarray]:
    """Draw crops of training utterances with the probabilities of store.Sampler.

    Args:
        ready: The configuration and the data.
        noise: The random numbers.

    Returns:
        Log-mels that are not normalised, (B, CROP, n_mels), and the index of the utterance of each crop, (B,).
    """
    import numpy as np
    import torch

    from rwae_audio.data.store import drawing_weights

    size = ready.config.train.batch
    rows = ready.train_rows[ready.store.lengths[ready.train_rows] >= CROP]
    lengths = ready.store.lengths[rows]
    weights = torch.from_numpy(drawing_weights(lengths, ready.store.speakers[rows]))
    chosen = torch.multinomial(weights, size, replacement=True, generator=noise).numpy()
    position = torch.rand(size, generator=noise, dtype=torch.float64).numpy()
    begin = np.floor(position * (lengths[chosen] - CROP + 1)).astype(np.int64)
    return ready.store.gather(ready.store.offsets[rows[chosen]] + begin, CROP), rows[chosen]


def embed(network: torch.nn.Module, normaliser: Normaliser, bench: Benchmark) -> np.ndarray:
    """Return the embeddings (M, DIM) of the utterances of a benchmark."""
    import torch

    with torch.no_grad():
        network.eval()
        vectors = [network(normaliser(bench.store.of(int(row)))[None])[0, 0] for row in bench.rows]
    return torch.stack(vectors).double().numpy()


if __name__ == "__main__":
    sys.exit(guarded(main, NAME))
