"""Probes of codes: classifiers that measure how well a code predicts the phone of a frame or the speaker of an utterance."""

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

MOST_FRAMES = 60_000  # training frames of a phone probe, at most
FOLDS = 8  # of the cross-validation of speaker probes
GRU_HIDDEN, GRU_FRAMES, GRU_BATCH, GRU_UPDATES = 64, 25, 64, 400


@dataclass(frozen=True)
class PhoneProbe:
    """The result of a phone probe.

    Attributes:
        accuracy: The share of test frames with the right class.
        majority: The accuracy of always naming the commonest class of the training frames.
        classes: The number of classes.
        train_frames: The number of training frames.
        test_frames: The number of test frames.
    """

    accuracy: float
    majority: float
    classes: int
    train_frames: int
    test_frames: int


@dataclass(frozen=True)
class SpeakerProbe:
    """The result of a speaker probe.

    Attributes:
        accuracy: The share of held-out utterances with the right speaker.
        chance: The accuracy of always naming the speaker with the most utterances.
    """

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

    Frames of silence and frames without a class ("") are left out. Test frames with a class that no training frame has
    count as wrong.

    Args:
        train_x: The codes of the training frames, (N, D).
        train_y: The classes of the training frames, strings, (N,).
        test_x: The codes of the test frames, (M, D).
        test_y: The classes of the test frames, strings, (M,).
        most: The largest number of training frames; if there are more, so many are drawn.
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
    """Fit a logistic regression to training frames, and return the predicted classes of test frames.

    All dimensions are standardised by the training frames. The loss is mean cross entropy + ‖W‖² / 2N, without a penalty
    on biases, as in scikit-learn with C = 1. It is convex, and is minimised from zero weights without random numbers.

    Args:
        train_x: The training frames, (N, D).
        train_y: The classes of the training frames, integers from 0, (N,).
        test_x: The test frames, (M, D).

    Returns:
        The predicted classes, (M,).
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
    """Return the fold in which each utterance is held out, (U,).

    The k-th utterance of a speaker is held out in fold k modulo `count`, so that all folds have all speakers.

    Args:
        speakers: The speaker of each utterance, (U,).
        count: The number of folds.
    """
    counts: Counter[str] = Counter()
    fold_of = []
    for speaker in speakers:
        fold_of.append(counts[speaker] % count)
        counts[speaker] += 1
    return np.array(fold_of)


def speaker_probe_linear(codes: Sequence[np.ndarray], speakers: Sequence[str]) -> SpeakerProbe:
    """Classify the speaker of each utterance by logistic regression on the mean and the deviation of its codes.

    Args:
        codes: The codes of each utterance, (T, D).
        speakers: The speaker of each utterance, (U,).
    """
    pooled = np.array([np.concatenate([code.mean(0), code.std(0)]) for code in codes])
    labels, fold_of = np.unique(np.array(speakers), return_inverse=True)[1], folds(speakers)
    predicted = np.zeros_like(labels)
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        predicted[held_out] = _linear(pooled[~held_out], labels[~held_out], pooled[held_out])
    return _speaker_probe(predicted, labels)


def speaker_probe_gru(codes: Sequence[np.ndarray], speakers: Sequence[str], seed: int = 0) -> SpeakerProbe:
    """Classify the speaker of each utterance by a GRU over its codes, which also uses their order.

    An update uses random stretches of GRU_FRAMES frames of GRU_BATCH training utterances. A held-out utterance is
    classified by the mean log-probabilities of its stretches.

    Args:
        codes: The codes of each utterance, (T, D).
        speakers: The speaker of each utterance, (U,).
        seed: The seed of the initial weights and of the batches.
    """
    labels, fold_of = np.unique(np.array(speakers), return_inverse=True)[1], folds(speakers)
    splits = [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in np.unique(fold_of)]
    sequences = [_standardised(codes, train) for train, _ in splits]
    draw = generator(seed, "speaker probe")
    model = _GRUs(len(splits), codes[0].shape[1], int(labels.max()) + 1, draw)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=GRU_UPDATES)
    for _ in range(GRU_UPDATES):
        frames, targets = [], []
        for (train, _), standardised in zip(splits, sequences, strict=True):
            rows = train[torch.randperm(len(train), generator=draw).numpy()[:GRU_BATCH]]
            frames.append(torch.stack([_crop(standardised[i], draw) for i in rows.tolist()]))
            targets.append(torch.from_numpy(labels[rows]))
        size = min(map(len, frames))
        logits = model(torch.stack([batch[:size] for batch in frames]))
        # the sum over folds, so that each network has the same gradient as if it were trained alone
        loss = F.cross_entropy(logits.flatten(0, 1), torch.cat([batch[:size] for batch in targets])) * len(splits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    predicted = np.zeros_like(labels)
    with torch.no_grad():
        for net, ((_, held_out), standardised) in enumerate(zip(splits, sequences, strict=True)):
            for i in held_out.tolist():
                logits = model(_stretches(standardised[i])[None], slice(net, net + 1))[0]
                predicted[i] = int(logits.log_softmax(1).mean(0).argmax())
    return _speaker_probe(predicted, labels)


def _speaker_probe(predicted: np.ndarray, labels: np.ndarray) -> SpeakerProbe:
    return SpeakerProbe(float((predicted == labels).mean()), float(np.bincount(labels).max() / len(labels)))


class _GRUs(nn.Module):
    """Several GRU classifiers that are computed together, which is several times as fast as one after another.

    The equations are those of torch.nn.GRU. The logits are a linear function of the mean state.
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
        """Return the logits of frames.

        Args:
            frames: Frames (nets, B, T, D).
            nets: The networks that are used, all by default.

        Returns:
            Logits (nets, B, K).
        """
        size, steps = frames.shape[1:3]
        inputs = torch.baddbmm(self.input_bias[nets], frames.flatten(1, 2), self.of_input[nets])
        state = frames.new_zeros(len(frames), size, GRU_HIDDEN)
        total = state
        for from_input in inputs.unflatten(1, (size, steps)).unbind(2):
            from_state = torch.baddbmm(self.state_bias[nets], state, self.of_state[nets])
            input_gates, input_candidate = from_input.split([2 * GRU_HIDDEN, GRU_HIDDEN], -1)
            state_gates, state_candidate = from_state.split([2 * GRU_HIDDEN, GRU_HIDDEN], -1)
            reset, update = torch.sigmoid(input_gates + state_gates).chunk(2, -1)
            state = torch.lerp(torch.tanh(input_candidate + reset * state_candidate), state, update)
            total = total + state
        return torch.baddbmm(self.out_bias[nets], total / steps, self.out[nets])


def _standardised(codes: Sequence[np.ndarray], train: np.ndarray) -> list[Tensor]:
    """Return codes (T, D) standardised by the utterances `train`, with T of at least GRU_FRAMES.

    The codes of shorter utterances are repeated.
    """
    frames = np.concatenate([codes[i] for i in train.tolist()])
    mean, deviation = frames.mean(axis=0, dtype=np.float64), np.maximum(frames.std(axis=0, dtype=np.float64), 1e-8)
    long_enough = (code[np.arange(max(len(code), GRU_FRAMES)) % len(code)] for code in codes)
    return [torch.from_numpy((code - mean) / deviation).float() for code in long_enough]


def _crop(code: Tensor, draw: torch.Generator) -> Tensor:
    """Return a random stretch (GRU_FRAMES, D) of codes (T, D)."""
    start = int(torch.randint(len(code) - GRU_FRAMES + 1, (), generator=draw))
    return code[start : start + GRU_FRAMES]


def _stretches(code: Tensor) -> Tensor:
    """Return stretches (S, GRU_FRAMES, D) of codes (T, D), which are spread evenly and cover all frames."""
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
    """Return the accuracies of phone probes on a model's codes and on log-mels.

    `z_m` is the accuracy from the dynamic code. `z_c` is the accuracy from the static code, which is repeated for all
    frames of its window. For a model with one dynamic code a segment, the class is the phone at the centre of the segment,
    and the report has the entry `per`. `left_out` counts the utterances without phones. It is the only entry if all
    training utterances or all test utterances are left out.

    Args:
        store: The frame store.
        train_rows: The indices of the training utterances in the store.
        bench: The benchmark with the test utterances.
        model: The model.
        normaliser: The normaliser of the frames.
        mel: The settings of the frames.
        phones: The phones of each recording, from alignment.phones_of.
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
    classes = [np.concatenate(list(frame_classes(store, split, mel, phones, folded))) for split in rows]
    codes, static = ([get(store, split, model, normaliser, mel) for split in rows] for get in (_codes, _static_codes))
    mels = [np.concatenate([store.of(row).numpy() for row in split]) for split in rows]
    centres = [_centres(store.lengths[split], segment) for split in rows]
    classes, codes, static, mels = (
        [frames[centre] for frames, centre in zip(splits, centres, strict=True)]
        for splits in (classes, codes, static, mels)
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
    """Return the accuracies of all probes: `phone` from `phone_report`, and `speaker` for the speakers of the benchmark.

    The arguments are those of `phone_report`.
    """
    codes = np.split(_codes(store, bench.rows, model, normaliser, mel), np.cumsum(bench.lengths)[:-1])
    linear, gru = (probe(codes, bench.speakers) for probe in (speaker_probe_linear, speaker_probe_gru))
    speaker = {"linear": linear.accuracy, "gru": gru.accuracy, "chance": linear.chance}
    speaker |= {"speakers": len(set(bench.speakers)), "utterances": len(bench.rows)}
    return {"phone": phone_report(store, train_rows, bench, model, normaliser, mel, phones), "speaker": speaker}


def _codes(store: FrameStore, rows: np.ndarray, model: RWAE, normaliser: Normaliser, mel: MelConfig) -> np.ndarray:
    """Return the dynamic codes (Σ T, D) of utterances, one after another."""
    starts, lengths = store.offsets[:-1][rows], store.lengths[rows]
    return embed(model, normaliser, mel.segment, store.frames, starts, lengths).codes


def _static_codes(
    store: FrameStore, rows: np.ndarray, model: RWAE, normaliser: Normaliser, mel: MelConfig
) -> np.ndarray:
    """Return the static codes (Σ T, D) of utterances, each repeated for all frames of its window."""
    cut = windows(store.offsets[:-1][rows], store.lengths[rows], model.embedding_frames(mel.segment))
    codes = embed(model, normaliser, mel.segment, store.frames, cut.start, cut.length).static
    return np.repeat(codes, cut.stop - cut.first, axis=0)


def _centres(lengths: np.ndarray, segment: int) -> np.ndarray:
    """Return the indices of the centres of segments, in utterances of lengths (U,) one after another.

    A segment is left out if its centre is in the segment before it. If segments have one frame, all frames are centres.
    """
    cut = windows(np.cumsum(lengths) - lengths, lengths, segment)
    return (cut.start + cut.length // 2)[cut.first <= cut.length // 2]


def _enough(rows: np.ndarray, lengths: np.ndarray, segment: int) -> np.ndarray:
    """Draw utterances from `rows` with 2 · MOST_FRAMES segments in all, since about half of them are silence."""
    order = rows[torch.randperm(len(rows), generator=generator(0, "phone probe")).numpy()]
    return np.sort(order[: np.searchsorted(np.cumsum(lengths[order]), 2 * MOST_FRAMES * segment) + 1])


def frame_classes(
    store: FrameStore,
    rows: np.ndarray,
    mel: MelConfig,
    phones: Mapping[Path, tuple[Phone, ...]],
    folded: Mapping[str, str | None],
) -> Iterator[np.ndarray]:
    """Yield the phone class at the centre of each frame, (T,), for each utterance."""
    for row in rows:
        samples = np.arange(store.lengths[row]) * mel.hop_length
        yield classes_at(phones[store.utterances[row].path], samples / mel.sample_rate, folded)
