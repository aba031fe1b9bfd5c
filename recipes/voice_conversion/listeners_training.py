"""The training of the listeners (see train_listeners.py): a classifier of phones, and an encoder of voices."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwae_audio.data.perturb import CHANNELS, channelled, stretched, warp_frequencies
from rwae_audio.data.store import Sampler
from rwae_audio.devices import bf16_or_float32
from rwae_audio.evaluation.alignment import SILENCE, folding, phones_of
from rwae_audio.evaluation.experiment import Experiment
from rwae_audio.evaluation.probes import frame_classes
from rwae_audio.evaluation.verification import cosine_scores, eer
from rwae_audio.files import InputError
from rwae_audio.model import ModelConfig
from rwae_audio.model.posterior import run_in_bf16
from rwae_audio.objectives.listeners import VOICE_DIM, Listeners
from rwae_audio.randomness import generator

CPU = torch.device("cpu")
CROP = 96  # frames, the segment of converter-swaps.toml
TRACT = 0.2  # largest change of the frequency axis for the phone listener
TRACTS = (1.0, 0.87, 1.15)  # stretches of the frequency axis; each makes another speaker for the voice listener
PHONE_BATCH, VOICE_BATCH = 64, 112  # crops in an update
MARGIN, SCALE = 0.2, 30.0  # of the additive angular margin softmax
WARMUP, CLIP = 100, 5.0  # updates until the highest rate, largest norm of the gradient
EVERY = 200  # updates between two tests on development speakers
UNKNOWN = -1  # the class of a frame without a phone


@dataclass(frozen=True)
class Lesson:
    """The training of one listener.

    Attributes:
        name: What it learns.
        learned: The modules whose weights it trains. The first one is the listener.
        loss: Returns the loss of an update, a scalar.
        test: Returns what the listener can do with development speakers, in words.
        rate: The highest rate of AdamW, which falls along a cosine.
        decay: The weight decay of AdamW.
    """

    name: str
    learned: tuple[nn.Module, ...]
    loss: Callable[[int], Tensor]
    test: Callable[[], str]
    rate: float
    decay: float


def train_listeners(
    ready: Experiment,
    names: list[str],
    classes: np.ndarray,
    updates: Sequence[int],
    seed: int,
    bf16: bool,
    tell: Callable[[str], None],
) -> Listeners:
    """Train both listeners.

    Args:
        ready: The speech, with the normaliser of the frames.
        names: The names of the phone classes, from `phone_classes`.
        classes: The class of each frame, from `phone_classes`.
        updates: The updates of the phone listener and of the voice listener.
        seed: The seed of all random numbers.
        bf16: Whether to train in bfloat16 if the device supports it.
        tell: A function that gets each line of text for the user.

    Raises:
        InputError: SpeechBrain is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "listeners").initial_seed() % 2**31)
        listeners = Listeners(ready.normaliser, names)
        lessons = phone_lesson(ready, listeners, classes, seed), voice_lesson(ready, listeners, seed)
    run_in_bf16(listeners, CPU, bf16_or_float32("bf16" if bf16 else "float32", CPU, tell))
    for lesson, count in zip(lessons, updates, strict=True):
        train(lesson, count, tell)
    return listeners.eval()


def train(lesson: Lesson, updates: int, tell: Callable[[str], None]) -> None:
    """Make all updates of a lesson."""
    weights = [weight for module in lesson.learned for weight in module.parameters()]
    optimizer, began = torch.optim.AdamW(weights, weight_decay=lesson.decay, fused=True), time.monotonic()
    for step in range(updates):
        rise, fall = min(1.0, (step + 1) / WARMUP), 0.5 * (1 + math.cos(math.pi * step / updates))
        for group in optimizer.param_groups:
            group["lr"] = lesson.rate * rise * fall
        loss = lesson.loss(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        if (step + 1) % EVERY == 0 or step + 1 == updates:
            lesson.learned[0].eval()
            with torch.no_grad():
                result = lesson.test()
            lesson.learned[0].train()
            seconds = time.monotonic() - began
            tell(f"{lesson.name}: update {step + 1}/{updates}  {seconds:.0f} s  loss {loss.item():.2f}  {result}")


def phone_classes(ready: Experiment) -> tuple[list[str], np.ndarray]:
    """Return the names of the phone classes, and the class of each frame in the store, (N,) float32, or UNKNOWN.

    Raises:
        InputError: No utterance has a text or phones, or pocketsphinx is not installed.
    """
    phones: dict[Path, Any] = {}
    for corpus in ready.corpora:
        if any(u.text or u.phones for u in corpus.utterances):
            phones |= phones_of(corpus, progress=sys.stderr.isatty()).phones
    if not phones:
        raise InputError("no corpus of --data has texts; expected one, since the phone listener learns from them")
    store, mel = ready.store, ready.config.mel
    folded = folding({phone.label for labels in phones.values() for phone in labels})
    names = sorted({name for name in folded.values() if name})
    number = {name: float(index) for index, name in enumerate(names)}
    classes = np.full(len(store.frames), UNKNOWN, dtype=np.float32)
    rows = np.array([row for row, u in enumerate(store.utterances) if u.path in phones and u.end is None])
    for row, found in zip(rows, frame_classes(store, rows, mel, phones, folded), strict=True):
        classes[store.offsets[row] : store.offsets[row + 1]] = [number.get(name, UNKNOWN) for name in found]
    return names, classes


def phone_lesson(ready: Experiment, listeners: Listeners, classes: np.ndarray, seed: int) -> Lesson:
    """Return the lesson of phones: crops with another vocal tract and another channel each.

    Args:
        ready: The speech.
        listeners: The listeners.
        classes: The class of each frame, from `phone_classes`.
        seed: The seed of all random numbers.
    """
    store, mel, network = ready.store, ready.config.mel, listeners.phone
    of_row = [classes[begin:end] for begin, end in zip(store.offsets, store.offsets[1:], strict=False)]
    rows = np.array([row for row in ready.train_rows if (of_row[row] != UNKNOWN).any()])
    segments = ModelConfig(n_mels=mel.n_mels, static_from="segment")
    speech = Sampler(store, rows, CROP, segments)
    targets = Sampler(replace(store, frames=classes[:, None]), rows, CROP, segments)
    silence = listeners.phones.index(SILENCE) if SILENCE in listeners.phones else UNKNOWN

    def loss(step: int) -> Tensor:
        frames, wanted = (
            sampler.draw(PHONE_BATCH, generator(seed, "phone crops", step)).frames for sampler in (speech, targets)
        )
        noise = generator(seed, "phone channels", step)
        frames = channelled(warp_frequencies(frames, TRACT, noise, mel), tuple(CHANNELS), noise, mel)
        logits = network(ready.normaliser(frames)).logits
        return F.cross_entropy(logits.flatten(0, 1), wanted.flatten().long(), ignore_index=UNKNOWN)

    def test() -> str:
        right = []
        for row in np.concatenate([bench.rows for bench in ready.dev.values()]):
            heard = network(ready.normaliser(store.of(int(row)))[None]).logits[0].argmax(1).numpy()
            spoken = (of_row[row] != UNKNOWN) & (of_row[row] != silence)
            right.append((heard == of_row[row])[spoken])
        return f"dev {100 * np.concatenate(right).mean():.1f} % of frames right"

    return Lesson("phones", (network,), loss, test, rate=1e-3, decay=1e-2)


def voice_lesson(ready: Experiment, listeners: Listeners, seed: int) -> Lesson:
    """Return the lesson of voices: the training speakers, each also with two other vocal tracts as other speakers.

    Args:
        ready: The speech.
        listeners: The listeners.
        seed: The seed of all random numbers.

    Raises:
        InputError: SpeechBrain is not installed.
    """
    try:
        from speechbrain.lobes.models.ECAPA_TDNN import Classifier
        from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
    except ImportError as error:
        raise InputError(
            f"speechbrain cannot be imported ({error}); expected `pip install 'rwae-audio[judge]'`"
        ) from error
    store, mel, network = ready.store, ready.config.mel, listeners.voice
    rows = ready.train_rows[store.lengths[ready.train_rows] >= CROP]
    _, speakers = np.unique(store.speakers[rows], return_inverse=True)
    count = int(speakers.max()) + 1
    classifier = Classifier(VOICE_DIM, out_neurons=len(TRACTS) * count)
    speech = Sampler(store, rows, CROP, ModelConfig(n_mels=mel.n_mels, static_from="segment"))
    loss_of = LogSoftmaxWrapper(AdditiveAngularMargin(MARGIN, SCALE))

    def loss(step: int) -> Tensor:
        batch, noise = (
            speech.draw(VOICE_BATCH, generator(seed, "voice crops", step)),
            generator(seed, "voice channels", step),
        )
        tracts = torch.randint(len(TRACTS), (len(batch.frames),), generator=noise)
        frames = stretched(batch.frames, torch.tensor(TRACTS)[tracts], mel)
        vectors = network(ready.normaliser(channelled(frames, ("equaliser",), noise, mel)))
        wanted = torch.from_numpy(speakers)[batch.utterances] + count * tracts
        return loss_of(classifier(vectors[:, None]), wanted[:, None])

    def test() -> str:
        rates = []
        for bench in ready.dev.values():
            vectors = [
                network(ready.normaliser(bench.store.of(int(row)))[None])[0].double().numpy() for row in bench.rows
            ]
            rates.append(eer(cosine_scores(np.stack(vectors), bench.trials), bench.trials.target))
        return f"dev EER {100 * np.mean(rates):.2f} %"

    return Lesson("voices", (network, classifier), loss, test, rate=2e-3, decay=1e-4)
