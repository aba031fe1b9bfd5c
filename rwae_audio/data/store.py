"""The frame store, a memory-mapped file of all utterances' log-mels, and the sampler of training batches."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rwae_audio.data.audio import read_audio
from rwae_audio.data.corpora.base import Corpus, Utterance
from rwae_audio.data.features import MelConfig, Normaliser
from rwae_audio.data.level import CUTOFF, NOMINAL, speech_of
from rwae_audio.devices import in_float32
from rwae_audio.files import InputError, read_json, whole_file, write_json

if TYPE_CHECKING:
    from rwae_audio.model import ModelConfig


PRECISION = np.float16  # the type of the numbers in a store
NORMALISED = 10_000_000  # frames, about 40 hours, that a normaliser is fitted to


@dataclass(frozen=True)
class FrameStore:
    """The log-mels of utterances.

    Attributes:
        frames: (N, n_mels), float16, memory-mapped; utterance u has frames[offsets[u]:offsets[u + 1]]. Its precision is
            0.004 nats or better below 8 nats (recipes/timit/NOTES.md has its effect).
        offsets: The first row of each utterance in `frames`, and the end of the last, (U + 1,).
        utterances: The utterances with frames.
        silent: The utterances without any sound, which have no frames.
        corpora: The corpus of each utterance; () for a single corpus.
    """

    frames: np.ndarray
    offsets: np.ndarray
    utterances: tuple[Utterance, ...]
    silent: tuple[Utterance, ...] = ()
    corpora: tuple[str, ...] = ()

    @cached_property
    def speakers(self) -> np.ndarray:
        """The number of each utterance's speaker, (U,).

        The same name in two corpora is two speakers; in two folders of one corpus it is one speaker.
        """
        corpora = self.corpora or ("",) * len(self.utterances)
        numbers: dict[tuple[str, str], int] = {}
        names = ((corpus, u.speaker) for corpus, u in zip(corpora, self.utterances, strict=True))
        return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """The number of frames of each utterance, (U,)."""
        return np.diff(self.offsets)

    def of(self, utterance: int) -> Tensor:
        """Return the log-mels (T, n_mels) of an utterance, float32."""
        rows = slice(self.offsets[utterance], self.offsets[utterance + 1])
        return in_float32(torch.from_numpy(np.array(self.frames[rows])))

    def gather(self, starts: np.ndarray, length: int) -> Tensor:
        """Return the log-mels (B, length, n_mels) that begin at the rows `starts` (B,), float32."""
        read_ahead(self.frames, starts, length)
        return in_float32(torch.from_numpy(self.frames[np.asarray(starts)[:, None] + np.arange(length)]))

    def normaliser(self, utterances: np.ndarray) -> Normaliser:
        """Return the normaliser of some utterances, given as indices into `utterances`.

        With more than NORMALISED frames only every second utterance, or fewer, is read: the statistics are as good.
        """
        total = int(self.lengths[utterances].sum())
        chosen = utterances[:: -(-total // NORMALISED)] if total else utterances
        parts = (self.frames[self.offsets[row] : self.offsets[row + 1]] for row in chosen)
        return Normaliser.fit(parts)

    def indices(self, split: str) -> np.ndarray:
        """Return the indices of a split's utterances in `utterances`."""
        return np.array([i for i, u in enumerate(self.utterances) if u.split == split], dtype=np.int64)


def read_ahead(frames: np.ndarray, starts: np.ndarray, length: int) -> None:
    """Request the memory pages of all windows of a memory-mapped array before the first window is read.

    Without the request the system reads them one after another, each with some 100 KB around it that no batch needs. On a
    file of 1,000 hours a batch of 128 takes a hundredth of the time. Nothing happens on systems without such a request.

    Args:
        frames: The array (N, n_mels).
        starts: The first row of each window, (B,).
        length: The number of rows of a window.
    """
    pages = getattr(frames, "_mmap", None)
    if pages is None or not hasattr(mmap, "MADV_WILLNEED"):
        return
    pages.madvise(mmap.MADV_RANDOM)
    size = frames.strides[0]
    for start in (np.asarray(starts) * size).tolist():
        page = start // mmap.PAGESIZE * mmap.PAGESIZE
        pages.madvise(mmap.MADV_WILLNEED, page, min(start + length * size, len(pages)) - page)


def cache_folder() -> Path:
    """Return the folder of the stores: $RWAE_CACHE, or rwae-audio in the user's cache folder."""
    folder = os.environ.get("RWAE_CACHE")
    return Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rwae-audio"


def store_files(corpora: Sequence[Corpus], mel: MelConfig, folder: Path) -> tuple[Path, Path]:
    """Return the paths of a store's frames and of its index.

    The name is a digest of the mel settings and of each utterance's id, stretch, file size and time of change, so that
    another corpus has another store. Raises InputError for a recording that no longer exists.
    """
    utterances = [utterance for corpus in corpora for utterance in corpus.utterances]
    try:
        stats = {path: path.stat() for path in {u.path for u in utterances}}
    except OSError as error:
        raise InputError(
            f"{error.filename} can no longer be read ({error.strerror}); expected the recording to stay"
        ) from error
    rows = [(u.id, str(u.path), u.start, u.end, stats[u.path].st_size, stats[u.path].st_mtime_ns) for u in utterances]
    made_of = [asdict(mel.frames()), PRECISION.__name__, NOMINAL, CUTOFF, rows]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    name = "-".join(corpus.name for corpus in corpora)[:48] + f"-{digest}"
    return folder / f"{name}.f16", folder / f"{name}.json"


def open_store(
    corpora: Sequence[Corpus], mel: MelConfig, folder: Path | None = None, progress: bool = False, workers: int = 2
) -> FrameStore:
    """Open the frame store of some corpora, and build it first if it is missing.

    The index is written last, so that it marks a complete store.

    Args:
        corpora: The corpora whose utterances the store holds.
        mel: The settings of the log-mels.
        folder: The folder of the store, `cache_folder()` if None.
        progress: Whether a progress bar is shown.
        workers: Number of threads that read recordings.

    Raises:
        InputError: There are no utterances, all are silent, or a recording cannot be read.
    """
    utterances = tuple(utterance for corpus in corpora for utterance in corpus.utterances)
    names = [corpus.name for corpus in corpora for _ in corpus.utterances]
    if not utterances:
        raise InputError("the corpora have no utterance; expected at least one")
    data, index = store_files(corpora, mel, cache_folder() if folder is None else Path(folder))
    if not index.exists():
        _build(utterances, mel, data, index, progress, workers)
    offsets = np.array(read_json(index, "the index of a frame store")["offsets"])
    expected = int(offsets[-1]) * mel.n_mels * np.dtype(PRECISION).itemsize
    if not data.exists() or data.stat().st_size != expected:
        raise InputError(f"{data} does not hold {expected} bytes; remove it and {index.name}, and it is built again")
    audible = np.diff(offsets) > 0
    if not audible.any():
        raise InputError(
            f"all {len(utterances)} recordings are silent, the first {utterances[0].path}; expected speech"
        )
    frames = np.memmap(data, dtype=PRECISION, mode="r", shape=(int(offsets[-1]), mel.n_mels))
    return FrameStore(
        frames,
        offsets[np.append(True, audible)],
        tuple(u for u, sound in zip(utterances, audible, strict=True) if sound),
        tuple(u for u, sound in zip(utterances, audible, strict=True) if not sound),
        tuple(name for name, sound in zip(names, audible, strict=True) if sound),
    )


def _build(
    utterances: Sequence[Utterance], mel: MelConfig, data: Path, index: Path, progress: bool, workers: int
) -> None:
    from tqdm import tqdm

    def frames(utterance: Utterance) -> np.ndarray:
        samples = read_audio(utterance.path, mel.sample_rate, utterance.start, utterance.end).samples
        speech = speech_of(samples, mel.sample_rate)
        if speech.level.silent:
            return np.zeros((0, mel.n_mels), dtype=PRECISION)
        try:
            return torch.cat([*speech.log_mels(mel)]).numpy().astype(PRECISION)
        except InputError as error:
            raise InputError(f"{utterance.path}: {error}") from error

    try:
        data.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make {data.parent} ({error.strerror}); expected another folder in RWAE_CACHE"
        ) from error
    offsets = [0]
    with whole_file(data) as temporary, temporary.open("wb") as file, ThreadPoolExecutor(workers) as pool:
        bar = tqdm(total=len(utterances), desc="log-mels", unit="file", disable=None if progress else True, leave=False)
        try:
            for start in range(0, len(utterances), 256):  # so that results never pile up behind the writer
                for values in pool.map(frames, utterances[start : start + 256]):
                    file.write(values.tobytes())  # its errors have a reason, unlike those of tofile
                    offsets.append(offsets[-1] + len(values))
                    bar.update()
        finally:
            bar.close()
    write_json(index, {"offsets": offsets})


@dataclass(frozen=True)
class Batch:
    """A training batch: crops of B utterances as raw log-mels.

    Attributes:
        frames: The segments that are encoded and reconstructed, (B, T, n_mels).
        static_frames: The windows of the static encoder, (B, S, n_mels), or None if it sees `frames`.
        second_frames: A second window of each utterance, (B, S, n_mels), or None.
        utterances: The index (B,) of each utterance among those that the sampler draws from.
    """

    frames: Tensor
    static_frames: Tensor | None
    second_frames: Tensor | None
    utterances: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        parts = (self.frames, self.static_frames, self.second_frames, self.utterances)
        return Batch(*(None if part is None else part.to(device) for part in parts))  # type: ignore[arg-type]


def drawing_weights(lengths: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Return the unnormalised probability (U,) with which each utterance is drawn.

    A speaker is drawn in proportion to the square root of the length of their speech, so that a speaker with one recording
    counts beside one with half an hour. One of their utterances is then drawn in proportion to its length.

    Args:
        lengths: The number of frames of each utterance, (U,).
        speakers: The number of each utterance's speaker, (U,).
    """
    _, speaker = np.unique(speakers, return_inverse=True)
    return lengths / np.sqrt(np.bincount(speaker, weights=lengths))[speaker]


class Sampler:
    """A sampler of training batches.

    Utterances are drawn by `drawing_weights`, among those that have at least a window. Crops are drawn uniformly within
    an utterance. With `pairs`, a second window for the static encoder is drawn from each.
    """

    def __init__(
        self, store: FrameStore, utterances: np.ndarray, segment: int, model: ModelConfig, pairs: bool = False
    ) -> None:
        self.segment = segment
        self.pairs = pairs
        self.of_segment = model.static_from in ("segment", "frame")
        self.window = segment if self.of_segment else max(segment, model.static_window)
        self.store = store
        lengths = store.lengths[utterances]
        long_enough = lengths >= self.window
        self.left_out = int((~long_enough).sum())
        if not long_enough.any():
            longest = int(lengths.max()) if len(lengths) else 0
            raise InputError(f"the longest training utterance has {longest} frames; expected {self.window} or more")
        self.starts, self.lengths = store.offsets[:-1][utterances[long_enough]], lengths[long_enough]
        self.weights = torch.from_numpy(drawing_weights(self.lengths, store.speakers[utterances[long_enough]]))
        self.device = torch.device("cpu")
        self.resident: Tensor | None = None  # all frames, once they are on a GPU

    def to(self, device: torch.device) -> Sampler:
        """Deliver batches on a device from here on, and return the sampler.

        All frames move to a GPU once if they take less than half of its free memory. Otherwise each batch is moved.
        """
        self.device, self.resident = device, None
        if device.type == "cuda" and self.store.frames.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            self.resident = torch.from_numpy(np.asarray(self.store.frames)).to(device)
        return self

    @property
    def segments(self) -> Tensor:
        """The number of segments of each utterance that is drawn from, (U,), with the incomplete last one."""
        return torch.from_numpy(-(-self.lengths // self.segment))

    def draw(self, size: int, generator: torch.Generator, part: slice = slice(None)) -> Batch:
        """Draw a batch of `size` crops, and return its rows `part`; crop i does not depend on `part`."""
        rows = torch.multinomial(self.weights, size, replacement=True, generator=generator).numpy()
        segment, window = (torch.rand(size, generator=generator, dtype=torch.float64).numpy() for _ in range(2))
        rows, segment, window = rows[part], segment[part], window[part]
        utterances = torch.from_numpy(rows).to(self.device)
        first, length = self.starts[rows], self.lengths[rows]
        begin = np.floor(segment * (length - self.segment + 1)).astype(np.int64)
        frames = self._gather(first + begin, self.segment)
        if self.of_segment:
            return Batch(frames, None, None, utterances)
        other = np.floor(window * (length - self.window + 1)).astype(np.int64)
        static_frames = self._gather(first + other, self.window)
        if not self.pairs:
            return Batch(frames, static_frames, None, utterances)
        again = torch.rand(size, generator=generator, dtype=torch.float64).numpy()[part]
        second = apart(other, length, self.window, again)
        return Batch(frames, static_frames, self._gather(first + second, self.window), utterances)

    def _gather(self, starts: np.ndarray, length: int) -> Tensor:
        """Return log-mels (B, length, n_mels) that begin at the rows `starts` (B,), on the sampler's device."""
        if self.resident is None:
            return self.store.gather(starts, length).to(self.device)
        return in_float32(self.resident[torch.from_numpy(starts[:, None] + np.arange(length)).to(self.device)])


def apart(other: np.ndarray, length: np.ndarray, window: int, uniform: np.ndarray) -> np.ndarray:
    """Return the start (B,) of a second window of each utterance that does not overlap the first.

    If there is no such place, it lies as far from the first window as the utterance allows.

    Args:
        other: The start of the first window, (B,).
        length: The length of the utterance, (B,).
        window: The length of a window, all in frames.
        uniform: Random numbers (B,) from 0 to 1 that choose the place.
    """
    before = np.maximum(other - window + 1, 0)  # number of places before the first window
    after = np.maximum(length - 2 * window - other + 1, 0)
    place = np.floor(uniform * (before + after)).astype(np.int64)
    free = np.where(place < before, place, place - before + other + window)
    farthest = np.where(2 * other > length - window, 0, length - window)
    return np.where(before + after > 0, free, farthest)
