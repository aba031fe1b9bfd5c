"""The static code of real recordings does not depend on the level, an offset or an empty channel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rwae_audio.conversion.reading import read_file
from rwae_audio.conversion.voice import voice_of
from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora.base import audio_files
from rwae_audio.inference.bundle import Bundle, load_bundle

RATE, FILES, SECONDS = 16000, 16, 3
LEVELS = (-40, -20, -6, 10)  # dB
PLACES = ("an4/wav", "librispeech", "speechocean762/WAVE")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The shipped bundle."""
    return load_bundle()


def copies(waveform: np.ndarray) -> Iterator[tuple[str, np.ndarray, str]]:
    """Yield copies of a waveform (N,): their name, their samples, their subtype as libsndfile calls it.

    In 16 bits a copy that is quieter than the recording loses what lies under the last bit, so it is not among them.
    """
    for level in LEVELS:
        scaled = waveform * np.float32(10 ** (level / 20))
        yield f"{level:+} dB, float", scaled, "FLOAT"
        if level > 0 and np.abs(scaled).max() < 1:
            yield f"{level:+} dB, 16 bits", scaled, "PCM_16"
    yield "offset 0.1, float", waveform + np.float32(0.1), "FLOAT"
    if np.abs(waveform + 0.1).max() < 1:
        yield "offset 0.1, 16 bits", waveform + np.float32(0.1), "PCM_16"
    yield "left alone", np.stack([waveform, np.zeros_like(waveform)], axis=1), "FLOAT"


def cosines(bundle: Bundle, paths: list[Path], folder: Path) -> dict[str, np.ndarray]:
    """Return the cosines of each kind of copy's static code with the plain copy's."""
    cosine: dict[str, list[float]] = {}
    for path in paths:
        waveform = load_audio(path, RATE)[: SECONDS * RATE]
        soundfile.write(folder / "plain.wav", waveform, RATE, subtype="FLOAT")
        plain = voice_of(bundle, read_file(folder / "plain.wav", bundle.config.mel)).code.double().numpy()
        for name, samples, subtype in copies(waveform):
            soundfile.write(folder / "copy.wav", samples, RATE, subtype=subtype)
            code = voice_of(bundle, read_file(folder / "copy.wav", bundle.config.mel)).code.double().numpy()
            norm = np.linalg.norm(code) * np.linalg.norm(plain)
            cosine.setdefault(name, []).append(float(code @ plain / norm))
    return {name: np.array(values) for name, values in cosine.items()}


@pytest.mark.parametrize("place", PLACES)
def test_the_code_is_that_of_the_plain_copy(place: str, corpora: Path, bundle: Bundle, tmp_path: Path) -> None:
    paths = [path for path, _ in audio_files(corpora / place)]
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, FILES).astype(int)]
    least = {name: values.min() for name, values in cosines(bundle, chosen, tmp_path).items()}
    low = {name: round(value, 4) for name, value in least.items() if value < 0.999}
    assert not low, f"{place}: {low}"
