"""Probes of the dynamic code: it should tell the phone of a frame, and should not tell the speaker of an utterance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.data.corpora.base import Phone
from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.data.store import FrameStore
from rwae_audio.evaluation.alignment import SILENCE, classes_at, folding
from rwae_audio.evaluation.benchmark import Benchmark
from rwae_audio.files import InputError
from rwae_audio.inference.embedding import embed, windows
from rwae_audio.model import RWAE
from rwae_audio.randomness import generator

MOST_FRAMES = 60_000  # frames that a phone probe is trained on
FOLDS = 8
GRU_HIDDEN, GRU_FRAMES, GRU_BATCH, GRU_UPDATES = 64, 25, 64, 400


@dataclass(frozen=True)
class PhoneProbe:
    """The accuracy on test frames of the phone probe, and of the majority class of training."""

    accuracy: float
    majority: float
    classes: int
    train_frames: int
    test_frames: int


@dataclass(frozen=True)
class SpeakerProbe:
    """The share of held-out utterances with the right speaker; `chance` is the largest share of a speaker's utterances."""

    accuracy: float
    chance: float


def phone_probe(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    most: int = MOST_FRAMES,
    seed: int = 0,
) -> PhoneProbe:
    """Classify the phones of single frames by multinomial logistic regression.

    Frames of silence and without a class ("") are left out. A test frame of a class that training lacks counts as wrong.

    Args:
        train_x: The training frames, (N, D).
        train_y: Their classes as strings, (N,).
        test_x: The test frames, (M, D).
        test_y: Their classes, (M,).
        most: The number of training frames that are drawn.
        seed: The seed of the draw.

    Raises:
        InputError: No training or no test frame remains.
    """
    train, test = (np.flatnonzero((y != SILENCE) & (y != "")) for y in (train_y, test_y))
    if not len(train) or not len(test):
        raise InputError(
            f"{len(train)} training and {len(test)} test frames have a phone; expected at least one of both"
        )
    if len(train) > most:
        order = torch.randperm(len(train), generator=generator(seed, "phone probe")).numpy()
        train = np.sort(train[order[:most]])
    names, targets, counts = np.unique(train_y[train], return_inverse=True, return_counts=True)
    predicted = names[_linear(train_x[train], targets, test_x[test])]
    truth = test_y[test]
    majority = float((truth == names[counts.argmax()]).mean())
    return PhoneProbe(float((predicted == truth).mean()), majority, len(names), len(train), len(test))


def _linear(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray) -> np.ndarray:
    """Return the classes (M,) of test_x (M, D) by logistic regression on train_x (N, D), train_y (N,) ∈ 0 … K − 1.

    Dimensions are standardised by train_x. The loss is mean cross entropy + ‖W‖² / 2N (scikit-learn's C = 1), with free
    biases. It is convex and minimised from zero, without random numbers.
    """
    mean, deviation = train_x.mean(axis=0, dtype=np.float64), train_x.std(axis=0, dtype=np.float64)
    x, held_out = (
        torch.from_numpy((values - mean) / np.maximum(deviation, 1e-8)).float() for values in (train_x, test_x)
    )
    y = torch.from_numpy(train_y)
    weight = torch.zeros(x.shape[1], int(train_y.max()) + 1, requires_grad=True)
    bias = torch.zeros(weight.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, tolerance_change=1e-7, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight + bias, y) + weight.square().sum() / (2 * len(x))
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return (held_out @ weight + bias).argmax(1).numpy()


def folds(speakers: Sequence[str], count: int = FOLDS) -> np.ndarray:
    """Return the fold (U,) in which each utterance is held out: k modulo `count` for a speaker's k-th utterance."""
    counts: Counter[str] = Counter()
    places = []
    for speaker in speakers:
        places.append(counts[speaker] % count)
        counts[speaker] += 1
    return np.array(places)


def speaker_probe_linear(codes: Sequence[np.ndarray], speakers: Sequence[str]) -> SpeakerProbe:
    """Classify the speaker of each utterance by logistic regression on mean and deviation of its codes (T, D)."""
    pooled = np.array([np.concatenate([code.mean(0), code.std(0)]) for code in codes])
    labels, places = np.unique(np.array(speakers), return_inverse=True)[1], folds(speakers)
    named = np.zeros_like(labels)
    for place in np.unique(places):
        held_out = places == place
        named[held_out] = _linear(pooled[~held_out], labels[~held_out], pooled[held_out])
    return _speaker_probe(named, labels)


def speaker_probe_gru(codes: Sequence[np.ndarray], speakers: Sequence[str], seed: int = 0) -> SpeakerProbe:
    """Classify the speaker of each utterance by a GRU over its codes (T, D), which also uses their order.

    An update uses random stretches of GRU_FRAMES frames of GRU_BATCH training utterances. A held-out utterance is
    classified by the mean log-probabilities of its stretches.
    """
    labels, places = np.unique(np.array(speakers), return_inverse=True)[1], folds(speakers)
    sides = [(np.flatnonzero(places != place), np.flatnonzero(places == place)) for place in np.unique(places)]
    sequences = [_standardised(codes, train) for train, _ in sides]
    draw = generator(seed, "speaker probe")
    model = _GRUs(len(sides), codes[0].shape[1], int(labels.max()) + 1, draw)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=GRU_UPDATES)
    for _ in range(GRU_UPDATES):
        frames, targets = [], []
        for (train, _), ours in zip(sides, sequences, strict=True):
            rows = train[torch.randperm(len(train), generator=draw).numpy()[:GRU_BATCH]]
            frames.append(torch.stack([_crop(ours[i], draw) for i in rows.tolist()]))
            targets.append(torch.from_numpy(labels[rows]))
        size = min(map(len, frames))
        logits = model(torch.stack([side[:size] for side in frames]))
        # a sum over folds, so that each network has the gradient of training alone
        loss = F.cross_entropy(logits.flatten(0, 1), torch.cat([side[:size] for side in targets])) * len(sides)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    named = np.zeros_like(labels)
    with torch.no_grad():
        for net, ((_, held_out), ours) in enumerate(zip(sides, sequences, strict=True)):
            for i in held_out.tolist():
                logits = model(_stretches(ours[i])[None], slice(net, net + 1))[0]
                named[i] = int(logits.log_softmax(1).mean(0).argmax())
    return _speaker_probe(named, labels)


def _speaker_probe(named: np.ndarray, labels: np.ndarray) -> SpeakerProbe:
    return SpeakerProbe(float((named == labels).mean()), float(np.bincount(labels).max() / len(labels)))


class _GRUs(nn.Module):
    """A GRU for each fold, computed together, which is several times as fast as separate ones.

    The equations are those of torch.nn.GRU. Logits are linear in the mean state.
    """

    def __init__(self, nets: int, width: int, classes: int, draw: torch.Generator) -> None:
        super().__init__()

        def uniform(*shape: int) -> nn.Parameter:
            bound = GRU_HIDDEN**-0.5
            return nn.Parameter(torch.empty(nets, *shape).uniform_(-bound, bound, generator=draw))

        self.of_input, self.input_bias = uniform(width, 3 * GRU_HIDDEN), uniform(1, 3 * GRU_HIDDEN)
        self.of_state, self.state_bias = uniform(GRU_HIDDEN, 3 * GRU_HIDDEN), uniform(1, 3 * GRU_HIDDEN)
        self.out, self.out_bias = uniform(GRU_HIDDEN, classes), uniform(1, classes)

    def forward(self, frames: Tensor, nets: slice = slice(None)) -> Tensor:
        """Return the logits (nets, B, K) of frames (nets, B, T, D)."""
        size, steps = frames.shape[1:3]
        flat = torch.baddbmm(self.input_bias[nets], frames.flatten(1, 2), self.of_input[nets])
        state = frames.new_zeros(len(frames), size, GRU_HIDDEN)
        total = state
        for step in flat.unflatten(1, (size, steps)).unbind(2):
            from_state = torch.baddbmm(self.state_bias[nets], state, self.of_state[nets])
            both, new = step.split([2 * GRU_HIDDEN, GRU_HIDDEN], -1)
            gates, candidate = from_state.split([2 * GRU_HIDDEN, GRU_HIDDEN], -1)
            reset, update = torch.sigmoid(both + gates).chunk(2, -1)
            state = torch.lerp(torch.tanh(new + reset * candidate), state, update)
            total = total + state
        return torch.baddbmm(self.out_bias[nets], total / steps, self.out[nets])


def _standardised(codes: Sequence[np.ndarray], train: np.ndarray) -> list[Tensor]:
    """Standardise codes (T, D) by the frames of utterances `train`; codes of under GRU_FRAMES frames are repeated."""
    frames = np.concatenate([codes[i] for i in train.tolist()])
    mean, deviation = frames.mean(axis=0, dtype=np.float64), np.maximum(frames.std(axis=0, dtype=np.float64), 1e-8)
    long_enough = (code[np.arange(max(len(code), GRU_FRAMES)) % len(code)] for code in codes)
    return [torch.from_numpy((code - mean) / deviation).float() for code in long_enough]


def _crop(code: Tensor, draw: torch.Generator) -> Tensor:
    """Return a random stretch (GRU_FRAMES, D) of codes (T, D)."""
    start = int(torch.randint(len(code) - GRU_FRAMES + 1, (), generator=draw))
    return code[start : start + GRU_FRAMES]


def _stretches(code: Tensor) -> Tensor:
    """Return stretches (S, GRU_FRAMES, D) of codes (T, D) that are spread evenly and cover all frames."""
    starts = np.linspace(0, len(code) - GRU_FRAMES, -(-len(code) // GRU_FRAMES)).round().astype(int)
    return torch.stack([code[start : start + GRU_FRAMES] for start in starts])


def phone_report(
    store: FrameStore,
    train_rows: np.ndarray,
    bench: Benchmark,
    model: RWAE,
    normaliser: Normaliser,
    mel: MelConfig,
    phones: Mapping[Path, tuple[Phone, ...]],
) -> dict[str, Any]:
    """Return the report of phone probes on a model's codes and on the log-mels.

    `z_m` is the probe on the dynamic code, `z_c` that on the static code, repeated for all frames of its window. If the
    model has a dynamic code for each segment, the class is the phone at its centre, and the report has `per` segment.
    Utterances without phones are left out and counted; if none remains on one side, the count is the whole report.

    Args:
        store: The frame store.
        train_rows: The indices of the training utterances in the store.
        bench: The benchmark with the test utterances.
        model: The model.
        normaliser: The normaliser of the frames.
        mel: The settings of the frames.
        phones: The phones of each recording, as from alignment.phones_of.
    """
    with_phones = [
        np.array([row for row in rows if store.utterances[row].path in phones], dtype=np.int64)
        for rows in (train_rows, bench.rows)
    ]
    left_out = {"train": len(train_rows) - len(with_phones[0]), "test": len(bench.rows) - len(with_phones[1])}
    if not all(len(rows) for rows in with_phones):
        return {"left_out": left_out}
    segment = mel.segment if model.config.dynamic_per == "segment" else 1
    rows = (_enough(with_phones[0], store.lengths, segment), with_phones[1])
    folded = folding({phone.label for labels in phones.values() for phone in labels})
    classes = [np.concatenate(list(_classes(store, side, mel, phones, folded))) for side in rows]
    codes, static = ([get(store, side, model, normaliser, mel) for side in rows] for get in (_codes, _static_codes))
    mels = [np.concatenate([store.of(row).numpy() for row in side]) for side in rows]
    centres = [_centres(store.lengths[side], segment) for side in rows]
    classes, codes, static, mels = (
        [side[keep] for side, keep in zip(sides, centres, strict=True)] for sides in (classes, codes, static, mels)
    )
    z_m, z_c, log_mel = (phone_probe(train, classes[0], test, classes[1]) for train, test in (codes, static, mels))
    shares = {"z_m": z_m.accuracy, "z_c": z_c.accuracy, "log_mel": log_mel.accuracy, "majority": z_m.majority}
    counts = {"classes": z_m.classes, "train_frames": z_m.train_frames, "test_frames": z_m.test_frames}
    return {"left_out": left_out, **({"per": "segment"} if segment > 1 else {}), **shares, **counts}


def probe_report(
    store: FrameStore,
    train_rows: np.ndarray,
    bench: Benchmark,
    model: RWAE,
    normaliser: Normaliser,
    mel: MelConfig,
    phones: Mapping[Path, tuple[Phone, ...]],
) -> dict[str, Any]:
    """Return the report of all probes: `phone` (see phone_report), and `speaker` among the benchmark's speakers."""
    everyone = np.split(_codes(store, bench.rows, model, normaliser, mel), np.cumsum(bench.lengths)[:-1])
    linear, gru = (probe(everyone, bench.speakers) for probe in (speaker_probe_linear, speaker_probe_gru))
    speaker = {"linear": linear.accuracy, "gru": gru.accuracy, "chance": linear.chance}
    speaker |= {"speakers": len(set(bench.speakers)), "utterances": len(bench.rows)}
    return {"phone": phone_report(store, train_rows, bench, model, normaliser, mel, phones), "speaker": speaker}


def _codes(store: FrameStore, rows: np.ndarray, model: RWAE, normaliser: Normaliser, mel: MelConfig) -> np.ndarray:
    """Return the dynamic codes (Σ T, D) of the utterances."""
    starts, lengths = store.offsets[:-1][rows], store.lengths[rows]
    return embed(model, normaliser, mel.segment, store.frames, starts, lengths).codes


def _static_codes(
    store: FrameStore, rows: np.ndarray, model: RWAE, normaliser: Normaliser, mel: MelConfig
) -> np.ndarray:
    """Return the static codes (Σ T, D) of the utterances, each repeated for all frames of its window."""
    where = windows(store.offsets[:-1][rows], store.lengths[rows], model.embedding_frames(mel.segment))
    codes = embed(model, normaliser, mel.segment, store.frames, where.start, where.length).static
    return np.repeat(codes, where.stop - where.first, axis=0)


def _centres(lengths: np.ndarray, segment: int) -> np.ndarray:
    """Return the frames that are the centre of a segment of `segment` frames, of concatenated utterances of lengths (U,).

    Of two overlapping segments the first counts. With segments of one frame it is all frames.
    """
    cut = windows(np.cumsum(lengths) - lengths, lengths, segment)
    return (cut.start + cut.length // 2)[cut.first <= cut.length // 2]


def _enough(rows: np.ndarray, lengths: np.ndarray, segment: int) -> np.ndarray:
    """Draw utterances from `rows` with 2 · MOST_FRAMES segments of `segment` frames, over half of which are speech."""
    order = rows[torch.randperm(len(rows), generator=generator(0, "phone probe")).numpy()]
    return np.sort(order[: np.searchsorted(np.cumsum(lengths[order]), 2 * MOST_FRAMES * segment) + 1])


def _classes(
    store: FrameStore,
    rows: np.ndarray,
    mel: MelConfig,
    phones: Mapping[Path, tuple[Phone, ...]],
    folded: Mapping[str, str | None],
) -> Iterator[np.ndarray]:
    """Yield the phone class (T,) at the centre of each frame, utterance by utterance."""
    for row in rows:
        samples = np.arange(store.lengths[row]) * mel.hop_length
        yield classes_at(phones[store.utterances[row].path], samples / mel.sample_rate, folded)
