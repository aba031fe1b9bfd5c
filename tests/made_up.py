"""Made-up speech and an untrained bundle: what the tests of bundles, vocoder and commands run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from rwae_audio.data.corpora import an4, librispeech
from rwae_audio.data.corpora.base import Corpus, Utterance
from rwae_audio.data.features import Normaliser, log_mel
from rwae_audio.inference.bundle import save_bundle
from rwae_audio.inference.card import card
from rwae_audio.model import RWAE
from rwae_audio.training.trainer import RunConfig

TINY = {
    **dict.fromkeys(("static_hidden", "dynamic_hidden", "prior_hidden", "decoder_hidden"), 8),
    **{"static_dim": 6, "dynamic_dim": 4, "static_window": 30},
}

INDEPENDENT = {"dynamic_offset_variance": 0.0}  # noise, as the KL terms want it
SWITCHES: dict[str, dict[str, Any]] = {  # objective → the switches of ModelConfig that it asks for
    **{name: {} for name in ("rwae-mmd", "rwae-smmd", "rwae-gan", "rwae-plus")},
    "dsvae": INDEPENDENT,
    "s3vae": INDEPENDENT,
    "c-dsvae": INDEPENDENT,
    "skd": INDEPENDENT,
    "diffsda": INDEPENDENT,
    "dbse": {**INDEPENDENT, "static_from": "frame", "dynamic_norm": "none"},
    "fhvae": {**INDEPENDENT, "static_from": "segment", "dynamic_per": "segment", "dynamic_sees_static": True},
}


def speech(seed: int = 0, seconds: float = 1.0, rate: int = 16000) -> np.ndarray:
    """A voice whose pitch and formants depend on `seed`, in syllables with pauses between them; (N,), peak 0.3."""
    time = np.arange(int(seconds * rate)) / rate
    pitch = (100 + 23 * (seed % 7)) * (1 + 0.08 * np.sin(2 * np.pi * 1.7 * time + seed))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = (500 + 150 * np.sin(3 * time + seed), 1500 + 400 * np.sin(5 * time), 2600 + 40 * seed)
    sound = np.zeros(len(time))
    for k in range(1, 30):
        height = sum(np.exp(-(((k * pitch - formant) / 180) ** 2)) for formant in formants)
        sound += np.where(k * pitch < rate / 2, (0.02 + height) / k**0.5, 0) * np.sin(k * phase)
    sound = sound * np.clip(np.sin(2 * np.pi * 2.5 * time + 0.3 * seed) + 0.3, 0, None)
    sound += 1e-4 * np.random.default_rng(seed).standard_normal(len(time))
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def corpora(synthetic: bool = False) -> list[Corpus]:
    """AN4 with three training speakers and LibriSpeech with two, without their recordings."""
    sizes = {"an4": (3, an4.CREDIT), "librispeech": (2, librispeech.CREDIT)}
    return [
        Corpus(
            name,
            tuple(Utterance(f"{name}-{i}", f"s{i}", "train", Path("x.wav")) for i in range(count)),
            synthetic=synthetic,
            credit=credit,
        )
        for name, (count, credit) in sizes.items()
    ]


def tiny_bundle(
    folder: Path,
    preset: str = "vocoder",
    *,
    synthetic: bool = False,
    objective: str = "rwae-mmd",
    **switches: Any,
) -> Path:
    """Save an untrained model with tiny layers as a bundle, for this objective, with these of ModelConfig's switches;
    returns its folder."""
    model = {**TINY, **SWITCHES[objective], **switches}
    config = RunConfig.of({"mel": {"preset": preset}, "model": model, "objective": {"name": objective}})
    torch.manual_seed(0)
    frames = [log_mel(torch.from_numpy(speech(seed)), config.mel) for seed in range(4)]
    text = card(config, corpora(synthetic), 1.5, {"command": "made up"})
    mean = np.linspace(-0.1, 0.1, config.model.dynamic_dim)
    model, normaliser = RWAE(config.model), Normaliser.fit(frames)
    save_bundle(folder, config, model, normaliser, mean, synthetic=synthetic, meta={"command": "made up"}, card=text)
    return folder
