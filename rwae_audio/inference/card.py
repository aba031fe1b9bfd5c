"""The card of a bundle (its README.md), with the YAML head that the Hugging Face Hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rwae_audio.data.corpora.base import Corpus
from rwae_audio.training.trainer import RunConfig

TAGS = ("speech", "disentanglement", "wasserstein-autoencoder", "speaker-verification")
HUB_NAMES = {  # names of corpora on the Hub that differ from ours
    "librispeech": "openslr/librispeech_asr",
    "speechocean762": "mispeech/speechocean762",
    "timit": "timit-asr/timit_asr",
}
HUB_NAME = re.compile(r"([\w.-]+/)?[\w.-]+", re.ASCII)  # names of data sets that the Hub accepts in a card
LICENCE = (
    "The code of rwae-audio has the MIT licence. The weights were trained on the corpora below. Use the weights, and pass "
    "them on, with these credits and on the terms of these corpora."
)


def commands(meta: Mapping[str, Any]) -> list[str]:
    """Return the commands that trained a model, in their order.

    Args:
        meta: The facts about the training: `before`, the commands of the initial weights, and `command`.
    """
    return [*meta.get("before", []), meta.get("command", "rwae-audio")]


def credits_of(corpora: Iterable[Corpus]) -> list[str]:
    """Return the credits of corpora, each once."""
    return [*dict.fromkeys(corpus.credit or f"{corpus.name}: no credit is known." for corpus in corpora)]


def head(corpora: Sequence[str], converts: bool) -> str:
    """Return the YAML head of a card.

    The licence is `other` on the Hub. The MIT licence is that of the code alone, and does not include the credits.

    Args:
        corpora: The names of the corpora.
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
    """Return the card of a bundle: its contents, training, licence, credits, intended use and limits.

    Args:
        config: The settings of the run.
        corpora: The training corpora.
        hours: The duration of the training speech in hours.
        meta: Further facts about the training, among them its command.
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
