"""LibriSpeech, Panayotov et al., ICASSP 2015 (OpenSLR 12): <subset>/<speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac."""

from __future__ import annotations

from pathlib import Path

from rwae_audio.corpora.base import Corpus, Split, Utterance, audio_files, nothing_found
from rwae_audio.files import read_text

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def read_librispeech(folder: Path) -> Corpus:
    """Any subsets of the official tree: the folder that holds them, its parent, or one subset; split by their names.

    Texts from <speaker>-<chapter>.trans.txt where it is there. Ids start with the subset's name.
    """
    root = folder / "LibriSpeech" if (folder / "LibriSpeech").is_dir() else folder
    root = root.parent if root.name.startswith(SPLITS) and not _subsets(root) else root
    subsets = [folder] if root == folder.parent else _subsets(root)
    utterances, texts = [], 0
    for subset in subsets:
        split = next(split for split in SPLITS if subset.name.startswith(split))
        heard = _texts(subset)
        for path, name in audio_files(subset, (".flac",)):
            parts = name.split("/")
            if len(parts) == 3 and path.stem.startswith(f"{parts[0]}-{parts[1]}-"):
                text = heard.get(path.stem)
                texts += text is not None
                utterances.append(Utterance(f"{subset.name}/{name}", parts[0], split, path, text))
    if not utterances:
        raise nothing_found(folder, "train-*/, dev-*/ or test-*/ with <speaker>/<chapter>/*.flac (LibriSpeech)")
    notes = (
        [] if texts == len(utterances) else [f"{len(utterances) - texts} of {len(utterances)} utterances have no text"]
    )
    return Corpus("librispeech", tuple(utterances), {}, tuple(notes))


def _subsets(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(
        path for path in root.iterdir() if path.is_dir() and path.name.startswith(tuple(f"{s}-" for s in SPLITS))
    )


def _texts(subset: Path) -> dict[str, str]:
    """Lines such as `26-496-0000 WHAT WAS SAID`."""
    texts = {}
    for path in subset.glob("*/*/*.trans.txt"):
        for line in read_text(path, "LibriSpeech's transcriptions").splitlines():
            name, _, text = line.partition(" ")
            texts[name] = text
    return texts
