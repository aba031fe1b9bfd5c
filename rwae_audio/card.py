"""The card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rwae_audio.trainer import RunConfig

CREDITS = {
    "demo": "Built-in demo corpus: synthetic speech made with eSpeak NG; texts and recordings CC0.",
    "an4": "AN4, Copyright (c) 1991-2005 Carnegie Mellon University, all rights reserved; free for use for any purpose. "
    "This work was supported in part by funding from the Defense Advanced Research Projects Agency and the National "
    "Science Foundation of the United States of America, and the CMU Sphinx Speech Consortium. AN4 is provided by "
    'Carnegie Mellon University "as is", without warranty of any kind.',
    "librispeech": "LibriSpeech (train-clean-100), V. Panayotov, G. Chen, D. Povey, S. Khudanpur, ICASSP 2015; "
    "recordings from LibriVox; CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/).",
    "timit": "TIMIT Acoustic-Phonetic Continuous Speech Corpus, Garofolo et al., LDC93S1; licensed by the LDC, whose "
    "terms decide how these weights may be passed on.",
    "digits": "Arabic Speech Commands, A. Ghandoura, F. Hjabo, O. Al Dakkak, 2021; CC BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/).",
    "demo-digits": "Built-in demo corpus: synthetic spoken digits made with eSpeak NG; CC0.",
    "folder": "Recordings of the person who trained this bundle.",
}


def commands(meta: Mapping[str, Any]) -> list[str]:
    """The commands that made it, in their order: `before`, those of what it was begun with, and its own."""
    return [*meta.get("before", []), meta.get("command", "rwae-audio")]


def card(config: RunConfig, speakers: Mapping[str, int], hours: float, meta: Mapping[str, Any], synthetic: bool) -> str:
    """The bundle's README.md: what it is, what it was trained on, whom to thank, what it is for and what not.

    speakers: corpus → how many of its speakers were trained on; hours: of their speech; meta: what else is known.
    """
    data = ", ".join(f"{name} ({count} training speakers)" for name, count in speakers.items())
    return "\n".join(
        [
            f"# An R-WAE bundle ({config.objective.name})",
            "",
            f"A Disentangled Recurrent Wasserstein Autoencoder of speech, made with rwae-audio: a static code of "
            f"{config.model.static_dim} numbers a recording (who speaks) and a dynamic code of {config.model.dynamic_dim} "
            f"a frame (what is said), {config.mel.sample_rate} Hz, {config.mel.hop_length} samples a frame.",
            "",
            "- `model.safetensors`: weights, the log-mels' mean and deviation, the mean dynamic vector",
            "- `config.json`: every setting, and the SHA-256 of the weights",
            "",
            "## Made with",
            "",
            *(f"    {command}" for command in commands(meta)),
            "",
            f"Trained on {data}, {hours:.2f} hours; seed {config.train.seed}; the checkpoint was chosen on "
            "development speakers.",
            *(["", "**Synthetic speech only: its numbers say nothing about people.**"] if synthetic else []),
            "",
            "## Credits",
            "",
            *(f"- {CREDITS[name]}" for name in speakers),
            "",
            "## Intended use and limits",
            "",
            "Research on disentangled representations of speech: speaker benchmark, voice conversion, comparison of "
            "methods. A voice is converted only with its owner's consent. Trained on little, read, mostly American "
            "English speech; it is no means of identifying anybody.",
            "",
        ]
    )
