"""Reader of LibriSpeech (OpenSLR 12), Panayotov et al., ICASSP 2015.

<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac
<subset>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt      optional
"""

from __future__ import annotations

from pathlib import Path

from rwae_audio.data.corpora.base import (
    Corpus,
    Split,
    Utterance,
    audio_files,
    copies_note,
    listing,
    nothing_found,
    once_each,
    other_files,
    skipped_note,
)
from rwae_audio.files import read_text

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
CREDIT = (
    "LibriSpeech ({}), V. Panayotov, G. Chen, D. Povey, S. Khudanpur, ICASSP 2015; "
    "recordings from LibriVox; CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)."
)


def read_librispeech(folder: Path) -> Corpus:
    """Read the subsets of LibriSpeech in a folder.

    The split of a subset is the start of its name (train, dev or test). Ids start with the name of the subset. Recordings
    in other formats than FLAC are read as well.

    Args:
        folder: A folder with subsets, a subset, or the parent of LibriSpeech/.

    Raises:
        InputError: The folder is not LibriSpeech.
    """
    root = folder / "LibriSpeech" if (folder / "LibriSpeech").is_dir() else folder
    root = root.parent if root.name.startswith(SPLITS) and not _subsets(root) else root
    subsets = [folder] if root == folder.parent else _subsets(root)
    utterances, copies = [], 0
    elsewhere, unread = list[str](), list[str]()
    for subset in subsets:
        split = next(split for split in SPLITS if subset.name.startswith(split))
        text_of = _texts(subset)
        unread += [f"{subset.name}/{name}" for name in other_files(subset, beside=(".txt",))]
        files, count = once_each(audio_files(subset))
        copies += count
        for path, name in files:
            parts = name.split("/")
            if len(parts) == 3 and path.stem.startswith(f"{parts[0]}-{parts[1]}-"):
                text = text_of.get(path.stem)
                utterances.append(Utterance(f"{subset.name}/{name}", parts[0], split, path, text))
            else:
                elsewhere.append(f"{subset.name}/{name}")
    silent = {name.split("/")[1] for name in unread if name.count("/") > 1} - {u.speaker for u in utterances}
    skipped = skipped_note(unread, silent)
    if not utterances:
        expected = "train-*/, dev-*/ or test-*/ with <speaker>/<chapter>/*.flac (LibriSpeech)"
        raise nothing_found(folder, expected, skipped)
    notes, textless = [], sum(u.text is None for u in utterances)
    if textless:
        notes.append(f"{textless} of {len(utterances)} utterances have no text")
    if elsewhere:
        notes.append(f"skipped {len(elsewhere)} files without a name of LibriSpeech: {listing(elsewhere)}")
    notes += copies_note(copies)
    credit = CREDIT.format(", ".join(subset.name for subset in subsets))
    return Corpus("librispeech", tuple(utterances), {}, (*notes, *skipped), credit=credit)


def _subsets(root: Path) -> list[Path]:
    """Return the folders in `root` that are named like subsets, sorted."""
    if not root.is_dir():
        return []
    return sorted(
        path for path in root.iterdir() if path.is_dir() and path.name.startswith(tuple(f"{s}-" for s in SPLITS))
    )


def _texts(subset: Path) -> dict[str, str]:
    """Return the text of each utterance of a subset by its name, from lines such as `26-496-0000 SOME WORDS`."""
    texts = {}
    for path in subset.glob("*/*/*.trans.txt"):
        for line in read_text(path, "LibriSpeech's transcriptions").splitlines():
            name, _, text = line.partition(" ")
            texts[name] = text
    return texts
