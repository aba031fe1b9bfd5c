"""The card of a bundle, with the head that the Hugging Face Hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rwae_audio.data.corpora.base import Corpus
from rwae_audio.training.trainer import RunConfig

TAGS = ("speech", "disentanglement", "wasserstein-autoencoder", "speaker-verification")
HUB_NAMES = {  # corpora that the Hub has under another name
    "librispeech": "openslr/librispeech_asr",
    "speechocean762": "mispeech/speechocean762",
    "timit": "timit-asr/timit_asr",
}
HUB_NAME = re.compile(r"([\w.-]+/)?[\w.-]+", re.ASCII)  # the Hub refuses a card with other names
LICENCE = (
    "The code of rwae-audio has the MIT licence. The weights were trained on the corpora below. Use the weights, and pass "
    "them on, with these credits and on the terms of these corpora."
)


def commands(meta: Mapping[str, Any]) -> list[str]:
    """The commands that made it, in their order: `before`, those of what it was begun with, and its own."""
    return [*meta.get("before", []), meta.get("command", "rwae-audio")]


def credits_of(corpora: Iterable[Corpus]) -> list[str]:
    """The line that thanks the makers of each corpus, once each."""
    return [*dict.fromkeys(corpus.credit or f"{corpus.name}: no credit is known." for corpus in corpora)]


def head(corpora: Sequence[str], converts: bool) -> str:
    """Return the YAML head of a card.

    The Hub's `license: other` stands for LICENCE: the MIT licence is the code's, and no other includes the credits.

    Args:
        corpora: Their names.
        converts: Whether the model converts voices.
    """
    lines = ["---", "license: other", "license_name: credits-and-terms-of-the-corpora"]
    names = [HUB_NAMES.get(name, name) for name in dict.fromkeys(corpora)]
    names = [name for name in names if HUB_NAME.fullmatch(name)]
    lines += ["datasets:", *(f'- "{name}"' for name in names)] if names else []
    lines += ["metrics:", "- eer", "tags:", *(f"- {tag}" for tag in TAGS)]
    lines += ["- voice-conversion", "pipeline_tag: audio-to-audio"] if converts else []
    return "\n".join([*lines, "library_name: rwae-audio", "---", ""])


def card(config: RunConfig, corpora: Sequence[Corpus], hours: float, meta: Mapping[str, Any]) -> str:
    """The bundle's README.md: what it is, what it was trained on, whom to thank, what it is for and what not.

    hours: of the training speakers' speech in these corpora; meta: what else is known.
    """
    data = ", ".join(f"{corpus.name} ({len(corpus.speakers('train'))} training speakers)" for corpus in corpora)
    synthetic = all(corpus.synthetic for corpus in corpora)
    return "\n".join(
        [
            head([corpus.name for corpus in corpora], converts=not config.model.actions),
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
            "## Licence",
            "",
            LICENCE,
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
