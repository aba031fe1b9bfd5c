"""The judgement of a pair: all measures of a conversion, from its waveform and from natural recordings of both speakers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import Pair
from systems import System
from tables import ENCODERS

from rwae_audio.data.corpora.base import Utterance
from rwae_audio.evaluation import judges

MINUTE = 60.0  # seconds of the target to which a voice is adapted
FEW = 4  # utterances of a speaker that the pairs should name; if there are fewer, other utterances are used as well


def spoken(pair: Pair, system: System, errors: Mapping[str, float]) -> str:
    """Return the id of the utterance whose words a system has to say.

    It is the source of the pair, but a system with `of_target` gets a recording of the target. This is the one with the lowest
    character error rate, since sources were selected by this rate as well.

    Args:
        pair: The pair.
        system: The system.
        errors: The character error rates of natural utterances, by id.
    """
    return min(pair.voice, key=lambda name: errors.get(name, 1.0)) if system.of_target else pair.source


class Judges:
    """All judges, with a cache of their results for natural recordings."""

    def __init__(
        self,
        utterances: Mapping[str, Utterance],
        pairs: Sequence[Pair],
        errors: Mapping[str, float],
        models: Any = judges,
    ) -> None:
        """Load all judges.

        Args:
            utterances: The utterances of the corpora by id.
            pairs: The pairs of the list.
            errors: The character error rates of natural utterances, by id.
            models: The module with the judges, `rwae_audio.evaluation.judges` except in tests.

        Raises:
            InputError: A judge is not installed.
        """
        self.utterances, self.pairs, self.errors, self.models = utterances, pairs, errors, models
        self.embed = {name: models.SPEAKERS[name]() for name in ENCODERS}
        self.transcribe = models.whisper(torch.get_num_threads())
        self.rate, self.rate_by_distillmos, self.recognise = models.dnsmos(), models.distillmos(), models.hama()
        self.samples: dict[str, np.ndarray] = {}
        self.vectors: dict[tuple[str, str], np.ndarray] = {}
        self.contours: dict[str, np.ndarray] = {}
        self.phones_of: dict[str, list[str]] = {}

    def recording(self, name: str) -> np.ndarray:
        """Return the samples (N,) of an utterance."""
        from rwae_audio.data.audio import load_audio

        if name not in self.samples:
            self.samples[name] = load_audio(self.utterances[name].path)
        return self.samples[name]

    def vector(self, encoder: str, name: str) -> np.ndarray:
        """Return the embedding (256,) of an utterance by an encoder."""
        if (encoder, name) not in self.vectors:
            self.vectors[encoder, name] = self.embed[encoder](self.recording(name))
        return self.vectors[encoder, name]

    def f0(self, name: str) -> np.ndarray:
        """Return the F0 contour (T,) of an utterance in Hz."""
        if name not in self.contours:
            self.contours[name] = self.models.fundamental(self.recording(name))
        return self.contours[name]

    def phones(self, name: str) -> list[str]:
        """Return the phones that are recognised in an utterance."""
        if name not in self.phones_of:
            self.phones_of[name] = self.recognise(self.recording(name))
        return self.phones_of[name]

    def voice(self, encoder: str, names: Sequence[str]) -> np.ndarray:
        """Return the mean embedding of utterances by an encoder, scaled to length 1, (256,)."""
        mean = np.mean([self.vector(encoder, name) for name in names], axis=0)
        return mean / np.linalg.norm(mean)

    def minute(self, pair: Pair) -> list[str]:
        """Return utterances of the target of a pair with a duration of a minute, or of all utterances if it is shorter.

        They begin with the recordings of the pair's voice. The references of the pair are left out.
        """
        utterances = [name for name in sorted(self.utterances) if self.utterances[name].speaker == pair.target]
        names = [*pair.voice, *(name for name in utterances if name not in (*pair.voice, *pair.references))]
        seconds = np.cumsum([len(self.recording(name)) / self.models.RATE for name in names])
        return names[: max(len(pair.voice), 1 + int(np.searchsorted(seconds, MINUTE)))]

    def of_speaker(self, speaker: str, excluded: str, count: int = 5) -> list[str]:
        """Return up to `count` utterances of a speaker for comparisons.

        They are utterances that the pairs name. If these are fewer than FEW, other utterances with a known character error
        rate follow.

        Args:
            speaker: The speaker.
            excluded: An utterance that is left out.
            count: The largest number of utterances.
        """
        in_pairs, others = (
            [name for name in by_speaker.get(speaker, []) if name != excluded] for by_speaker in self.by_speaker
        )
        return [*in_pairs, *(others if len(in_pairs) < FEW else [])][:count]

    @functools.cached_property
    def by_speaker(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The sorted utterances of each speaker that the pairs name, and those that have only a character error rate."""
        in_pairs = {name for pair in self.pairs for name in (pair.source, *pair.voice, *pair.references)}
        others = {name for name in self.errors if name in self.utterances} - in_pairs
        groups: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
        for names, group in zip((in_pairs, others), groups, strict=True):
            for name in sorted(names):
                group.setdefault(self.utterances[name].speaker, []).append(name)
        return groups

    def judge(self, pair: Pair, system: System, file: Path | None = None) -> dict[str, Any]:
        """Convert a pair by a system, and return all measures of the conversion, with the keys COLUMNS.

        Args:
            pair: The pair.
            system: The system.
            file: The file to which the conversion is written, or None.
        """
        spoken_id = spoken(pair, system, self.errors)
        source = self.recording(spoken_id)
        recordings = [self.recording(name) for name in (self.minute(pair) if system.of_minute else pair.voice)]
        converted = np.asarray(system.convert(source, recordings), dtype=np.float32)
        if file is not None:
            self.write(file, converted)
        measures: dict[str, Any] = {"source": pair.source, "target": pair.target}
        source_speaker = self.of_speaker(self.utterances[pair.source].speaker, pair.source)
        for encoder in ENCODERS:
            vector = self.embed[encoder](converted)
            measures[f"{encoder}_target"] = float(vector @ self.voice(encoder, pair.references))
            measures[f"{encoder}_source"] = (
                float(vector @ self.voice(encoder, source_speaker)) if source_speaker else np.nan
            )
        errors = self.models.character_errors(self.utterances[spoken_id].text or "", self.transcribe(converted))
        measures |= {"cer": errors.rate, **errors._asdict()}
        measures["phones"] = self.models.phone_error_rate(self.phones(spoken_id), self.recognise(converted))
        measures |= {**self.rate(converted)._asdict(), "distillmos": self.rate_by_distillmos(converted)}
        target_f0 = np.concatenate([self.f0(name) for name in pair.references])
        measures |= self.models.pitch(self.f0(spoken_id), self.models.fundamental(converted), target_f0)._asdict()
        rate = self.models.RATE
        measures |= {"seconds": len(converted) / rate, "wanted_seconds": len(source) / rate}
        return measures | {"mcd": self.models.mel_cepstral_distortion(source, converted)}

    def write(self, file: Path, samples: np.ndarray) -> None:
        """Write samples (N,) to a file, and create its folder."""
        from rwae_audio.data.audio import write_audio

        file.parent.mkdir(parents=True, exist_ok=True)
        write_audio(file, samples, self.models.RATE)

    def natural(self) -> list[dict[str, Any]]:
        """Return speaker verification trials of natural recordings, from which the thresholds of the encoders follow.

        Each utterance of a target is compared with five other utterances of each target.
        """
        names = sorted({name for pair in self.pairs for name in (*pair.voice, *pair.references)})
        speakers = sorted({self.utterances[name].speaker for name in names})
        rows = []
        for encoder in ENCODERS:
            for name in names:
                for speaker in speakers:
                    cosine = float(self.vector(encoder, name) @ self.voice(encoder, self.of_speaker(speaker, name)))
                    same = int(self.utterances[name].speaker == speaker)
                    rows.append({"encoder": encoder, "same": same, "cosine": cosine})
        return rows
