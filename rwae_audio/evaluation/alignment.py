"""Text and audio → phones, by forced alignment with pocketsphinx (extra `judge`); and the 39 classes phones fold onto.

Huggins-Daines et al., Pocketsphinx, ICASSP 2006; its en-us acoustic model and CMU's dictionary come in its wheel.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora.base import Corpus, Phone, Utterance
from rwae_audio.data.store import cache_folder
from rwae_audio.files import InputError, read_json, read_text, write_json

RATE = 16000  # of the acoustic model, Hz
STEP, WINDOW = 0.01, 0.025625  # of its frames, seconds
# A beam of 0 prunes nothing: with the default beams a fifth of long utterances has no path to the last word. The best
# path through a lattice gives phones fewer frames than states. Pauses: the default, 0.005, misses short ones.
SEARCH: dict[str, Any] = {"beam": 0.0, "pbeam": 0.0, "wbeam": 0.0, "bestpath": False, "silprob": 0.1}

# Lee & Hon, Speaker-independent phone recognition using hidden Markov models, IEEE Trans. ASSP 1989: TIMIT's 61 labels
# → 39 classes. None: a glottal stop is left out. ARPAbet is a subset, in upper case.
SILENCE = "sil"
_KEPT = "iy ih eh ae ah uw uh aa ey ay oy aw ow er l r w y m n ng v f dh th z s sh jh ch b p d dx t g k hh"
_FOLDED = "ao:aa ax:ah ax-h:ah axr:er el:l em:m en:n eng:ng hv:hh ix:ih nx:n ux:uw zh:sh"
_TIMIT: dict[str, str | None] = {
    **{label: label for label in _KEPT.split()},
    **dict(pair.split(":") for pair in _FOLDED.split()),
    **dict.fromkeys(["bcl", "dcl", "gcl", "pcl", "tcl", "kcl", "pau", "epi", "h#", "sil"], SILENCE),
    "q": None,
}
FOLD = {**_TIMIT, **{label.upper(): to for label, to in _TIMIT.items()}}


def folding(labels: Iterable[str]) -> dict[str, str | None]:
    """Each label of a corpus → its class. Other inventories than TIMIT's and ARPAbet (the demo corpus has eSpeak's)
    keep their labels, except that a pause is SILENCE in all of them."""
    labels = set(labels)
    if labels <= FOLD.keys():
        return {label: FOLD[label] for label in labels}
    return {label: SILENCE if label in ("h#", "pau", "sil", "SIL") else label for label in labels}


def classes_at(phones: Iterable[Phone], times: np.ndarray, folded: Mapping[str, str | None]) -> np.ndarray:
    """The class (T,) at each of the times (T,), seconds; "" where there is no phone, or one that is left out."""
    phones = [phone for phone in phones if phone.end > phone.start]
    if not phones:
        return np.full(len(times), "")
    names = np.array([folded[phone.label] or "" for phone in phones])
    at = np.searchsorted([phone.start for phone in phones], times, side="right") - 1
    return np.where((at >= 0) & (times < np.array([phone.end for phone in phones])[at]), names[at], "")


@dataclass(frozen=True)
class Alignments:
    """phones: audio file → its phones; left_out: why utterances have none → how many."""

    phones: Mapping[Path, tuple[Phone, ...]]
    left_out: Mapping[str, int]


class LeftOutError(Exception):
    """Why an utterance cannot be aligned."""


def phones_of(corpus: Corpus, folder: Path | None = None, progress: bool = False) -> Alignments:
    """The corpus's own phones where it has any (utterances without are counted), else what alignment gives."""
    own = {u.path: u.phones for u in corpus.utterances if u.phones}
    if not own:
        return align_corpus(corpus, folder, progress)
    missing = len(corpus.utterances) - len(own)
    return Alignments(own, {"without phones": missing} if missing else {})


def align_corpus(corpus: Corpus, folder: Path | None = None, progress: bool = False) -> Alignments:
    """Align every utterance that has a text; kept as JSON in `folder` (rwae_audio.data.store.cache_folder() when None).

    The file's name is a digest of what the phones depend on: ids, sizes and times of change of the audio, texts,
    dictionary, search and version of pocketsphinx. Raises InputError when pocketsphinx is not installed.
    """
    _pocketsphinx()
    folder = cache_folder() if folder is None else Path(folder)
    dictionary = _dictionary(corpus)
    stats = [(u.id, u.path.stat().st_size, u.path.stat().st_mtime_ns, u.text) for u in corpus.utterances]
    parts = [stats, dictionary, SEARCH, importlib.metadata.version("pocketsphinx")]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    file = folder / f"{corpus.name}-phones-{digest}.json"
    if not file.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {folder} ({error.strerror}); name another folder in RWAE_CACHE") from error
        write_json(file, _aligned(corpus.utterances, Aligner(dictionary), progress))
    table = read_json(file, "phones found by alignment")
    paths = {u.id: u.path for u in corpus.utterances}
    phones = {paths[name]: _unpacked(line) for name, line in table["phones"].items()}
    return Alignments(phones, dict(Counter(table["left_out"].values())))


def _aligned(utterances: Iterable[Utterance], aligner: Aligner, progress: bool) -> dict[str, dict[str, str]]:
    from tqdm import tqdm

    phones, left_out = {}, {}
    for u in tqdm(utterances, desc="phones", unit="file", disable=None if progress else True, leave=False):
        try:
            if not u.text:
                raise LeftOutError("without text")
            if u.start or u.end is not None:  # phones are kept by recording
                raise LeftOutError("part of a longer recording")
            phones[u.id] = _packed(aligner.align(load_audio(u.path, RATE), u.text))
        except LeftOutError as reason:
            left_out[u.id] = str(reason)
    return {"phones": phones, "left_out": left_out}


def _packed(phones: tuple[Phone, ...]) -> str:
    """`start label start label … end`, in seconds: phones of an alignment follow each other without a gap."""
    return " ".join([*(f"{phone.start:.4f} {phone.label}" for phone in phones), f"{phones[-1].end:.4f}"])


def _unpacked(line: str) -> tuple[Phone, ...]:
    words = line.split()
    times = [float(word) for word in words[::2]]
    return tuple(Phone(start, end, label) for start, end, label in zip(times, times[1:], words[1::2], strict=False))


def _dictionary(corpus: Corpus) -> str:
    """The text of etc/<corpus>.dic, where CMU Sphinx's tools keep a corpus's own dictionary, or nothing."""
    for place in corpus.utterances[0].path.parents if corpus.utterances else ():
        file = place / "etc" / f"{corpus.name}.dic"
        if file.is_file():
            return read_text(file, "a pronouncing dictionary")
    return ""


def _pocketsphinx() -> Any:
    try:
        import pocketsphinx
    except ImportError as error:
        raise InputError(
            "pocketsphinx, which finds phones by alignment, is not installed; expected `pip install 'rwae-audio[judge]'`"
        ) from error
    return pocketsphinx


class Aligner:
    """pocketsphinx with its own dictionary and more pronunciations: lines `WORD AA B`, `WORD(2) AA C` of `dictionary`."""

    def __init__(self, dictionary: str = "") -> None:
        pocketsphinx = _pocketsphinx()
        params = Path(pocketsphinx.get_model_path("en-us/en-us/feat.params")).read_text(encoding="ascii")
        with tempfile.NamedTemporaryFile("w", suffix=".params") as file:
            # its noise estimate goes on from one utterance to the next: phones would depend on what came before
            file.write(params.replace("-remove_noise yes", "-remove_noise no"))
            file.flush()
            self.decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL", featparams=file.name, **SEARCH)
        for line in dictionary.splitlines():
            if line.strip():
                word, phones = line.split(maxsplit=1)
                self._add(word.split("(")[0].lower(), " ".join(phones.split()))

    def _add(self, word: str, phones: str) -> None:
        name, count = word, 1
        while (known := self.decoder.lookup_word(name)) is not None:
            if known == phones:
                return
            count += 1
            name = f"{word}({count})"
        self.decoder.add_word(name, phones, False)

    def words(self, text: str) -> list[str]:
        """The words as the dictionary has them. Raises LeftOutError when there are none, or one is not in it."""
        words = []
        for word in re.findall(r"[\w']+", text.lower()):
            names = [name for name in (word, word.strip("'")) if name and self.decoder.lookup_word(name) is not None]
            if not names:
                raise LeftOutError("a word is not in the dictionary")
            words.append(names[0])
        if not words:
            raise LeftOutError("without text")
        return words

    def align(self, samples: np.ndarray, text: str) -> tuple[Phone, ...]:
        """The phones of samples (N,) at 16 kHz that say `text`: ARPAbet, and SIL for pauses and noises.

        A boundary between two frames lies halfway between their centres. Raises LeftOutError when the text cannot be
        aligned.
        """
        if bytes_lost(samples):
            raise LeftOutError("damaged audio")
        words = self.words(text)
        audio = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2").tobytes()
        try:
            self.decoder.set_align_text(" ".join(words))
            self._decode(audio)  # words
            if self.decoder.seg() is None:
                raise LeftOutError("not aligned")
            self.decoder.set_alignment()
            self._decode(audio)  # their phones
            found = [
                (phone.name, phone.start, phone.duration) for word in self.decoder.get_alignment() for phone in word
            ]
        except (RuntimeError, TypeError) as error:  # TypeError: the alignment is None
            raise LeftOutError("not aligned") from error
        times = [0.0, *(start * STEP + (WINDOW - STEP) / 2 for _, start, _ in found[1:])]
        last = (found[-1][1] + found[-1][2]) * STEP + (WINDOW - STEP) / 2
        labels = ["SIL" if name.startswith("+") else name for name, _, _ in found]
        return tuple(Phone(*piece) for piece in zip(times, [*times[1:], last], labels, strict=True))

    def _decode(self, audio: bytes) -> None:
        self.decoder.start_utt()
        self.decoder.process_raw(audio, no_search=False, full_utt=True)
        self.decoder.end_utt()


def bytes_lost(samples: np.ndarray) -> bool:
    """Whether 16-bit samples (N,) at 16 kHz lost a byte somewhere, so that high and low bytes change places after it:
    20 ms of white noise at full scale. So a copy of NLTK's TIMIT sample in which every CR LF had become LF: 14 of 40."""
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320).astype(np.float64)
    frames = frames - frames.mean(axis=1, keepdims=True)
    power = np.square(frames).mean(axis=1)
    neighbours = (frames[:, 1:] * frames[:, :-1]).mean(axis=1)
    return bool(((power > 0.4**2) & (neighbours < 0.3 * power)).any())


@dataclass(frozen=True)
class Agreement:
    """Shares of frames, every 10 ms, whose class is the hand label's; `speech` leaves out hand-labelled silence, which
    has the closures of stops: an aligned stop holds its own."""

    all: float
    speech: float
    frames: int
    utterances: int


def agreement(aligned: Mapping[Path, tuple[Phone, ...]], hand: Mapping[Path, tuple[Phone, ...]]) -> Agreement:
    """Compare the files that both have. Frames without a class on either side are left out."""
    both = [path for path in hand if path in aligned]
    pairs = []
    for path in both:
        times = np.arange(STEP / 2, hand[path][-1].end, STEP)
        pairs.append((classes_at(hand[path], times, FOLD), classes_at(aligned[path], times, FOLD)))
    if not pairs:
        raise InputError("no utterance has both hand labels and an alignment; expected at least one")
    truth, found = (np.concatenate(side) for side in zip(*pairs, strict=True))
    labelled = (truth != "") & (found != "")
    same, speech = (truth == found)[labelled], (truth != SILENCE)[labelled]
    return Agreement(float(same.mean()), float(same[speech].mean()), int(labelled.sum()), len(both))
