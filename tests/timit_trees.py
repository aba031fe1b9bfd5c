"""TIMIT in the layouts in which people have it, made of a few short clips: what the tests of reader and recipes read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile
from made_up import speech

from rwae_audio.data.corpora.timit import LISTS

STYLES = ("official", "lower", "beside", "riff")
SPEAKERS = (Path(__file__).parent / "timit_speakers.txt").read_text().split()  # TRAIN/DR1/FCJF0, all 630
CLIPS = 12
LABELS = {
    "PHN": "0 1600 h#\n1600 4000 sh\n4000 6400 iy\n6400 8000 hv\n8000 10400 ae\n10400 11600 dcl\n11600 12800 h#\n",
    "TXT": "0 12800 She had\n",
    "WRD": "1600 6400 she\n6400 11600 had\n",
}


def sentences(folder: str) -> list[str]:
    """The speaker's ten: of the core test as in the list, of the others made up, none of them twice."""
    official = (LISTS / "core_test_utterances.txt").read_text().split()
    mine = [name.split("/")[-1][:-4] for name in official if name.startswith(f"{folder}/")]
    i = SPEAKERS.index(folder)
    return [
        "SA1",
        "SA2",
        *(mine or [f"SX{1 + (i + k) % 450}" for k in range(5)] + [f"SI{451 + i + k}" for k in range(3)]),
    ]


def clips(pool: Path) -> None:
    """0.nist, 0.wav … and the label files, to be linked to; 0.8 s each, silent in no frame."""
    pool.mkdir(parents=True)
    for i in range(CLIPS):
        samples = np.round(speech(i, 0.8) * 32767).astype(np.int16)
        for kind in ("NIST", "WAV"):
            soundfile.write(pool / f"{i}.{kind.lower()}", samples, 16000, format=kind, subtype="PCM_16")
    for kind, text in LABELS.items():
        (pool / kind).write_text(text)


def tree(root: Path, pool: Path, style: str = "official", labels: bool = False) -> Path:
    """All 630 speakers × 10 utterances below `root`, as links into `pool` (made by clips)."""
    suffixes = {"official": [".WAV"], "lower": [".wav"], "beside": [".WAV", ".WAV.wav"], "riff": [".WAV.wav"]}[style]
    for i, speaker in enumerate(SPEAKERS):
        folder = root / (speaker.lower() if style == "lower" else speaker)
        folder.mkdir(parents=True)
        for j, sentence in enumerate(sentences(speaker)):
            name = sentence.lower() if style == "lower" else sentence
            for suffix in suffixes:
                kind = "wav" if suffix == ".WAV.wav" else "nist"
                os.link(pool / f"{(i + 5 * (j % 2)) % CLIPS}.{kind}", folder / f"{name}{suffix}")
            for kind in LABELS if labels else ():
                os.link(pool / kind, folder / f"{name}.{kind.lower() if style == 'lower' else kind}")
    return root


def sample(root: Path, pool: Path, speakers: tuple[str, ...] = ("dr1-fvmh0", "dr5-mbgt0")) -> Path:
    """NLTK's layout, without labels."""
    for i, speaker in enumerate(speakers):
        (root / speaker).mkdir(parents=True)
        for sentence in ("sa1", "sa2", "si600", "sx1", "sx2"):
            os.link(pool / f"{i}.wav", root / speaker / f"{sentence}.wav")
    (root / "timitdic.txt").write_text("; words\n")
    return root


def small(root: Path, pool: Path) -> Path:
    """As released, with labels, but six made-up speakers with two utterances each."""
    for speaker in ("TRAIN/DR1/FAAX0", "TRAIN/DR2/MAAX0", *(f"TEST/DR{i}/MBBX{i}" for i in range(1, 5))):
        (root / speaker).mkdir(parents=True)
        for sentence in ("SX1", "SX2"):
            os.link(pool / "0.nist", root / speaker / f"{sentence}.WAV")
            for kind in LABELS:
                os.link(pool / kind, root / speaker / f"{sentence}.{kind}")
    return root
