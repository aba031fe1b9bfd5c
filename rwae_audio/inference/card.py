"""The card of a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rwae_audio.data.corpora.base import Corpus
from rwae_audio.training.trainer import RunConfig


def commands(meta: Mapping[str, Any]) -> list[str]:
    """The commands that made it, in their order: `before`, those of what it was begun with, and its own."""
    return [*meta.get("before", []), meta.get("command", "rwae-audio")]


def credits_of(corpora: Iterable[Corpus]) -> list[str]:
    """The line that thanks the makers of each corpus, once each."""
    return [*dict.fromkeys(corpus.credit or f"{corpus.name}: no credit is known." for corpus in corpora)]


def card(config: RunConfig, corpora: Sequence[Corpus], hours: float, meta: Mapping[str, Any]) -> str:
    """The bundle's README.md: what it is, what it was trained on, whom to thank, what it is for and what not.

    hours: of the training speakers' speech in these corpora; meta: what else is known.
    """
    data = ", ".join(f"{corpus.name} ({len(corpus.speakers('train'))} training speakers)" for corpus in corpora)
    synthetic = all(corpus.synthetic for corpus in corpora)
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
            *(f"- {credit}" for credit in credits_of(corpora)),
            "",
            "## Intended use and limits",
            "",
            "Research on disentangled representations of speech: speaker benchmark, voice conversion, comparison of "
            "methods. A voice is converted only with its owner's consent. Trained on little, read, mostly American "
            "English speech; it is no means of identifying anybody.",
            "",
        ]
    )
