"""Phone labels of recordings: forced alignment with pocketsphinx (extra `judge`), and the mapping to 39 phone classes.

Pocketsphinx: Huggins-Daines et al., ICASSP 2006. Its wheel contains an English acoustic model (en-us) and CMU's
pronouncing dictionary.
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

RATE = 16000  # Hz, the sample rate of the acoustic model
STEP, WINDOW = 0.01, 0.025625  # seconds, the hop and the length of the acoustic model's frames
# A beam of 0 disables pruning: with the default beams the search fails for a fifth of long utterances. `bestpath` would
# produce phones with fewer frames than states. The default `silprob`, 0.005, misses short pauses.
SEARCH: dict[str, Any] = {"beam": 0.0, "pbeam": 0.0, "wbeam": 0.0, "bestpath": False, "silprob": 0.1}

# TIMIT's 61 labels → 39 classes, by Lee & Hon, "Speaker-independent phone recognition using hidden Markov models", IEEE
# Trans. ASSP 1989. The glottal stop has no class. The labels of ARPAbet, in upper case, are a subset.
SILENCE = "sil"
_UNCHANGED = "iy ih eh ae ah uw uh aa ey ay oy aw ow er l r w y m n ng v f dh th z s sh jh ch b p d dx t g k hh"
_FOLDED = "ao:aa ax:ah ax-h:ah axr:er el:l em:m en:n eng:ng hv:hh ix:ih nx:n ux:uw zh:sh"
_TIMIT: dict[str, str | None] = {
    **{label: label for label in _UNCHANGED.split()},
    **dict(pair.split(":") for pair in _FOLDED.split()),
    **dict.fromkeys(["bcl", "dcl", "gcl", "pcl", "tcl", "kcl", "pau", "epi", "h#", "sil"], SILENCE),
    "q": None,
}
FOLD = {**_TIMIT, **{label.upper(): to for label, to in _TIMIT.items()}}


def folding(labels: Iterable[str]) -> dict[str, str | None]:
    """Return the class of each phone label of a corpus.

    Labels of TIMIT and of ARPAbet have 39 classes; None stands for a label without a class. In a corpus with other labels,
    such as the demo corpus, each label is a class, and labels of pauses are SILENCE.
    """
    labels = set(labels)
    if labels <= FOLD.keys():
        return {label: FOLD[label] for label in labels}
    return {label: SILENCE if label in ("h#", "pau", "sil", "SIL") else label for label in labels}


def classes_at(phones: Iterable[Phone], times: np.ndarray, folded: Mapping[str, str | None]) -> np.ndarray:
    """Return the phone class of a recording at given times.

    Args:
        phones: The phones of the recording, in the order of time.
        times: The times in seconds, (T,).
        folded: The class of each label, from `folding`.

    Returns:
        The classes (T,), "" at times without a phone and for phones without a class.
    """
    phones = [phone for phone in phones if phone.end > phone.start]
    if not phones:
        return np.full(len(times), "")
    classes = np.array([folded[phone.label] or "" for phone in phones])
    index = np.searchsorted([phone.start for phone in phones], times, side="right") - 1
    return np.where((index >= 0) & (times < np.array([phone.end for phone in phones])[index]), classes[index], "")


@dataclass(frozen=True)
class Alignments:
    """The phone labels of a corpus.

    Attributes:
        phones: The phones of each recording, by its path.
        left_out: The number of utterances without phones, by the reason.
    """

    phones: Mapping[Path, tuple[Phone, ...]]
    left_out: Mapping[str, int]


class LeftOutError(Exception):
    """The reason why an utterance cannot be aligned."""


def phones_of(corpus: Corpus, folder: Path | None = None, progress: bool = False) -> Alignments:
    """Return the phone labels of a corpus: those that the corpus comes with, or else a forced alignment.

    Args:
        corpus: The corpus.
        folder: The folder of cached alignments, as in `align_corpus`.
        progress: Whether a progress bar is shown.

    Raises:
        InputError: The corpus has no phone labels, and it cannot be aligned.
    """
    labelled = {u.path: u.phones for u in corpus.utterances if u.phones}
    if not labelled:
        return align_corpus(corpus, folder, progress)
    missing = len(corpus.utterances) - len(labelled)
    return Alignments(labelled, {"without phones": missing} if missing else {})


def align_corpus(corpus: Corpus, folder: Path | None = None, progress: bool = False) -> Alignments:
    """Align every utterance that has a text, and cache the phones in a JSON file.

    The name of the file has a digest of all inputs. These are the recordings (ids, sizes, times of change), the texts, the
    dictionary, the search settings and the version of pocketsphinx.

    Args:
        corpus: The corpus.
        folder: The folder of the file, `rwae_audio.data.store.cache_folder()` if None.
        progress: Whether a progress bar is shown.

    Raises:
        InputError: pocketsphinx is not installed, or the folder cannot be created.
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
            raise InputError(
                f"cannot make {folder} ({error.strerror}); expected another folder in RWAE_CACHE"
            ) from error
        write_json(file, _aligned(corpus.utterances, Aligner(dictionary), progress))
    table = read_json(file, "phones found by alignment")
    paths = {u.id: u.path for u in corpus.utterances}
    phones = {paths[name]: _unpacked(line) for name, line in table["phones"].items()}
    return Alignments(phones, dict(Counter(table["left_out"].values())))


def _aligned(utterances: Iterable[Utterance], aligner: Aligner, progress: bool) -> dict[str, dict[str, str]]:
    """Return the content of the cache file: phones by utterance, and the reason why other utterances are left out."""
    from tqdm import tqdm

    phones, left_out = {}, {}
    for u in tqdm(utterances, desc="phones", unit="file", disable=None if progress else True, leave=False):
        try:
            if not u.text:
                raise LeftOutError("without text")
            if u.start or u.end is not None:  # phones are cached by recording
                raise LeftOutError("part of a longer recording")
            phones[u.id] = _packed(aligner.align(load_audio(u.path, RATE), u.text))
        except LeftOutError as reason:
            left_out[u.id] = str(reason)
    return {"phones": phones, "left_out": left_out}


def _packed(phones: tuple[Phone, ...]) -> str:
    """Return phones without gaps between them as a line `start label start label … end`, with times in seconds."""
    return " ".join([*(f"{phone.start:.4f} {phone.label}" for phone in phones), f"{phones[-1].end:.4f}"])


def _unpacked(line: str) -> tuple[Phone, ...]:
    """Return the phones in a line of `_packed`."""
    words = line.split()
    times = [float(word) for word in words[::2]]
    return tuple(Phone(start, end, label) for start, end, label in zip(times, times[1:], words[1::2], strict=False))


def _dictionary(corpus: Corpus) -> str:
    """Return the text of the dictionary that a corpus brings (etc/<corpus>.dic, CMU Sphinx's layout), or ""."""
    for folder in corpus.utterances[0].path.parents if corpus.utterances else ():
        file = folder / "etc" / f"{corpus.name}.dic"
        if file.is_file():
            return read_text(file, "a pronouncing dictionary")
    return ""


def _pocketsphinx() -> Any:
    try:
        import pocketsphinx
    except ImportError as error:
        raise InputError(
            "pocketsphinx, the aligner of phones, is not installed; expected `pip install 'rwae-audio[judge]'`"
        ) from error
    return pocketsphinx


class Aligner:
    """An aligner of texts with recordings, based on pocketsphinx."""

    def __init__(self, dictionary: str = "") -> None:
        """Load the acoustic model and the dictionary of pocketsphinx.

        Args:
            dictionary: Further pronunciations, in lines such as `WORD AA B` and `WORD(2) AA C`.

        Raises:
            InputError: pocketsphinx is not installed.
        """
        pocketsphinx = _pocketsphinx()
        params = Path(pocketsphinx.get_model_path("en-us/en-us/feat.params")).read_text(encoding="ascii")
        with tempfile.NamedTemporaryFile("w", suffix=".params") as file:
            # noise is estimated over several utterances, so the phones of one would depend on earlier ones
            file.write(params.replace("-remove_noise yes", "-remove_noise no"))
            file.flush()
            self.decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL", featparams=file.name, **SEARCH)
        for line in dictionary.splitlines():
            if line.strip():
                word, phones = line.split(maxsplit=1)
                self._add(word.split("(")[0].lower(), " ".join(phones.split()))

    def _add(self, word: str, phones: str) -> None:
        """Add a pronunciation of a word, unless the dictionary has it."""
        name, count = word, 1
        while (entry := self.decoder.lookup_word(name)) is not None:
            if entry == phones:
                return
            count += 1
            name = f"{word}({count})"
        self.decoder.add_word(name, phones, False)

    def words(self, text: str) -> list[str]:
        """Return the words of a text in the spelling of the dictionary.

        Raises:
            LeftOutError: The text has no words, or a word is not in the dictionary.
        """
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
        """Align a text with its recording.

        Args:
            samples: The samples of the recording, (N,), at 16 kHz.
            text: The words.

        Returns:
            The phones in ARPAbet, with SIL for pauses and noises. Times are in seconds. A boundary between two phones is
            halfway between the centres of two frames of the acoustic model.

        Raises:
            LeftOutError: The text cannot be aligned.
        """
        if bytes_lost(samples):
            raise LeftOutError("damaged audio")
        words = self.words(text)
        audio = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2").tobytes()
        try:
            self.decoder.set_align_text(" ".join(words))
            self._decode(audio)  # finds the times of words
            if self.decoder.seg() is None:
                raise LeftOutError("not aligned")
            self.decoder.set_alignment()
            self._decode(audio)  # finds the times of phones
            segments = [
                (phone.name, phone.start, phone.duration) for word in self.decoder.get_alignment() for phone in word
            ]
        except (RuntimeError, TypeError) as error:  # TypeError: the alignment is None
            raise LeftOutError("not aligned") from error
        times = [0.0, *(start * STEP + (WINDOW - STEP) / 2 for _, start, _ in segments[1:])]
        last = (segments[-1][1] + segments[-1][2]) * STEP + (WINDOW - STEP) / 2
        labels = ["SIL" if name.startswith("+") else name for name, _, _ in segments]
        return tuple(Phone(*piece) for piece in zip(times, [*times[1:], last], labels, strict=True))

    def _decode(self, audio: bytes) -> None:
        self.decoder.start_utt()
        self.decoder.process_raw(audio, no_search=False, full_utt=True)
        self.decoder.end_utt()


def bytes_lost(samples: np.ndarray) -> bool:
    """Return whether 16-bit samples (N,) at 16 kHz have lost a byte.

    After a lost byte the high and low bytes of samples are exchanged, which sounds like white noise at full scale. So 20 ms
    of such noise are looked for. In a copy of NLTK's TIMIT sample every CR LF had become LF, which damaged 14 of 40
    recordings in this way.
    """
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320).astype(np.float64)
    frames = frames - frames.mean(axis=1, keepdims=True)
    power = np.square(frames).mean(axis=1)
    neighbours = (frames[:, 1:] * frames[:, :-1]).mean(axis=1)
    return bool(((power > 0.4**2) & (neighbours < 0.3 * power)).any())
