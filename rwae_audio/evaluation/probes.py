"""What the dynamic code still knows: the phone of one frame, which it should, and the speaker of an utterance, which
it should not."""

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

MOST_FRAMES = 60_000  # that a phone probe is trained on
FOLDS = 8
GRU_HIDDEN, GRU_FRAMES, GRU_BATCH, GRU_UPDATES = 64, 25, 64, 400


@dataclass(frozen=True)
class PhoneProbe:
    """Shares of test frames named rightly: by the probe, and by always saying the commonest class of training."""

    accuracy: float
    majority: float
    classes: int
    train_frames: int
    test_frames: int


@dataclass(frozen=True)
class SpeakerProbe:
    """Share of held-out utterances whose speaker is named; chance: the largest share of utterances that a speaker has."""

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
    """Multinomial logistic regression on one frame: x (N, D), y (N,) classes as strings.

    Frames of silence and without a class ("") are left out on both sides; of what is left, `most` training frames are
    drawn. A test frame of a class that training lacks counts as wrong. Raises InputError when no frame is left.
    """
    kept, tested = (np.flatnonzero((y != SILENCE) & (y != "")) for y in (train_y, test_y))
    if not len(kept) or not len(tested):
        raise InputError(f"{len(kept)} training and {len(tested)} test frames have a phone; expected some of both")
    if len(kept) > most:
        order = torch.randperm(len(kept), generator=generator(seed, "phone probe")).numpy()
        kept = np.sort(kept[order[:most]])
    names, targets, counts = np.unique(train_y[kept], return_inverse=True, return_counts=True)
    predicted = names[_linear(train_x[kept], targets, test_x[tested])]
    truth = test_y[tested]
    majority = float((truth == names[counts.argmax()]).mean())
    return PhoneProbe(float((predicted == truth).mean()), majority, len(names), len(kept), len(tested))


def _linear(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray) -> np.ndarray:
    """The class (M,) of each test_x (M, D), by logistic regression on train_x (N, D), train_y (N,) ∈ 0 … K − 1.

    Dimensions are standardised by train_x. It minimises mean cross entropy + ‖W‖² / 2N (scikit-learn's C = 1), biases
    free, from zero: the problem is convex and nothing is drawn.
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
    """The fold (U,) in which each utterance is held out: a speaker's k-th utterance in fold k modulo `count`."""
    seen: Counter[str] = Counter()
    places = []
    for speaker in speakers:
        places.append(seen[speaker] % count)
        seen[speaker] += 1
    return np.array(places)


def speaker_probe_linear(codes: Sequence[np.ndarray], speakers: Sequence[str]) -> SpeakerProbe:
    """Logistic regression on mean and standard deviation over an utterance of its codes (T, D), one an utterance."""
    pooled = np.array([np.concatenate([code.mean(0), code.std(0)]) for code in codes])
    labels, places = np.unique(np.array(speakers), return_inverse=True)[1], folds(speakers)
    named = np.zeros_like(labels)
    for place in np.unique(places):
        held_out = places == place
        named[held_out] = _linear(pooled[~held_out], labels[~held_out], pooled[held_out])
    return _speaker_probe(named, labels)


def speaker_probe_gru(codes: Sequence[np.ndarray], speakers: Sequence[str], seed: int = 0) -> SpeakerProbe:
    """A GRU over codes (T, D), one array an utterance: it also hears the order that mean and deviation lose.

    An update takes random stretches of GRU_FRAMES frames of GRU_BATCH training utterances; an utterance held out is
    named by the mean of its stretches' log-probabilities.
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
        # a sum over folds: each network has its own gradient, as if it were trained alone
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
    """One network a fold, side by side (one call a step for all is several times as fast): frames (nets, B, T, D) →
    logits (nets, B, K), from the mean of a GRU's states. Equations of torch.nn.GRU."""

    def __init__(self, nets: int, width: int, classes: int, draw: torch.Generator) -> None:
        super().__init__()

        def uniform(*shape: int) -> nn.Parameter:
            bound = GRU_HIDDEN**-0.5
            return nn.Parameter(torch.empty(nets, *shape).uniform_(-bound, bound, generator=draw))

        self.of_input, self.input_bias = uniform(width, 3 * GRU_HIDDEN), uniform(1, 3 * GRU_HIDDEN)
        self.of_state, self.state_bias = uniform(GRU_HIDDEN, 3 * GRU_HIDDEN), uniform(1, 3 * GRU_HIDDEN)
        self.out, self.out_bias = uniform(GRU_HIDDEN, classes), uniform(1, classes)

    def forward(self, frames: Tensor, nets: slice = slice(None)) -> Tensor:
        size, steps = frames.shape[1:3]
        flat = torch.baddbmm(self.input_bias[nets], frames.flatten(1, 2), self.of_input[nets])
        state = frames.new_zeros(len(frames), size, GRU_HIDDEN)
        total = state
        for given in flat.unflatten(1, (size, steps)).unbind(2):
            from_state = torch.baddbmm(self.state_bias[nets], state, self.of_state[nets])
            both, new = given.split([2 * GRU_HIDDEN, GRU_HIDDEN], -1)
            gates, candidate = from_state.split([2 * GRU_HIDDEN, GRU_HIDDEN], -1)
            reset, update = torch.sigmoid(both + gates).chunk(2, -1)
            state = torch.lerp(torch.tanh(new + reset * candidate), state, update)
            total = total + state
        return torch.baddbmm(self.out_bias[nets], total / steps, self.out[nets])


def _standardised(codes: Sequence[np.ndarray], train: np.ndarray) -> list[Tensor]:
    """Codes (T, D) as a GRU takes them, by the frames of utterances `train`; a short one is said again from its start."""
    frames = np.concatenate([codes[i] for i in train.tolist()])
    mean, deviation = frames.mean(axis=0, dtype=np.float64), np.maximum(frames.std(axis=0, dtype=np.float64), 1e-8)
    long_enough = (code[np.arange(max(len(code), GRU_FRAMES)) % len(code)] for code in codes)
    return [torch.from_numpy((code - mean) / deviation).float() for code in long_enough]


def _crop(code: Tensor, draw: torch.Generator) -> Tensor:
    """A random stretch (GRU_FRAMES, D) of codes (T, D)."""
    start = int(torch.randint(len(code) - GRU_FRAMES + 1, (), generator=draw))
    return code[start : start + GRU_FRAMES]


def _stretches(code: Tensor) -> Tensor:
    """Codes (T, D) → (S, GRU_FRAMES, D), as evenly spread as they go, all frames in at least one."""
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
    """The phone probes, on a model's codes and on the log-mels, trained on `train_rows`, tested on the benchmark's
    utterances; `z_c`: on the static code, each window's held for all of its frames. phones: audio file → phones, as
    alignment.phones_of gives them; utterances without are left out and counted, and where one side has none at all
    that count is the whole report. Of a code a segment, the phone at the segment's centre is asked, and the report
    says so: `per` segment.
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
    codes, held = ([side_of(store, side, model, normaliser, mel) for side in rows] for side_of in (_codes, _held))
    mels = [np.concatenate([store.of(row).numpy() for row in side]) for side in rows]
    kept = [_centres(store.lengths[side], segment) for side in rows]
    classes, codes, held, mels = (
        [side[keep] for side, keep in zip(of, kept, strict=True)] for of in (classes, codes, held, mels)
    )
    z_m, z_c, log_mel = (phone_probe(train, classes[0], test, classes[1]) for train, test in (codes, held, mels))
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
    """All probes of a model: phone (phone_report) and speaker (among the benchmark's)."""
    everyone = np.split(_codes(store, bench.rows, model, normaliser, mel), np.cumsum(bench.lengths)[:-1])
    linear, gru = (probe(everyone, bench.speakers) for probe in (speaker_probe_linear, speaker_probe_gru))
    speaker = {"linear": linear.accuracy, "gru": gru.accuracy, "chance": linear.chance}
    speaker |= {"speakers": len(set(bench.speakers)), "utterances": len(bench.rows)}
    return {"phone": phone_report(store, train_rows, bench, model, normaliser, mel, phones), "speaker": speaker}


def _codes(store: FrameStore, rows: np.ndarray, model: RWAE, normaliser: Normaliser, mel: MelConfig) -> np.ndarray:
    """The dynamic codes (Σ T, D) of the utterances."""
    starts, lengths = store.offsets[:-1][rows], store.lengths[rows]
    return embed(model, normaliser, mel.segment, store.frames, starts, lengths).codes


def _held(store: FrameStore, rows: np.ndarray, model: RWAE, normaliser: Normaliser, mel: MelConfig) -> np.ndarray:
    """The static codes (Σ T, D) of the utterances, each window's for all of its frames."""
    where = windows(store.offsets[:-1][rows], store.lengths[rows], model.embedding_frames(mel.segment))
    codes = embed(model, normaliser, mel.segment, store.frames, where.start, where.length).static
    return np.repeat(codes, where.stop - where.first, axis=0)


def _centres(lengths: np.ndarray, segment: int) -> np.ndarray:
    """The frames, of utterances of these lengths (U,) one after the other, that are the centre of a segment of `segment`
    frames, all in the first of two overlapping ones: all frames for segments of one."""
    cut = windows(np.cumsum(lengths) - lengths, lengths, segment)
    return (cut.start + cut.length // 2)[cut.first <= cut.length // 2]


def _enough(rows: np.ndarray, lengths: np.ndarray, segment: int) -> np.ndarray:
    """Utterances, drawn from `rows`, of 2 · MOST_FRAMES segments (of one frame, or as many): over half of them are speech."""
    order = rows[torch.randperm(len(rows), generator=generator(0, "phone probe")).numpy()]
    return np.sort(order[: np.searchsorted(np.cumsum(lengths[order]), 2 * MOST_FRAMES * segment) + 1])


def _classes(
    store: FrameStore,
    rows: np.ndarray,
    mel: MelConfig,
    phones: Mapping[Path, tuple[Phone, ...]],
    folded: Mapping[str, str | None],
) -> Iterator[np.ndarray]:
    """The phone class (T,) at the centre of each frame of the utterances."""
    for row in rows:
        samples = np.arange(store.lengths[row]) * mel.hop_length
        yield classes_at(phones[store.utterances[row].path], samples / mel.sample_rate, folded)
