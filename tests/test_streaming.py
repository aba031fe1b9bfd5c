"""Chunked is whole: of frames, codes and voices, for lengths around the borders of chunks, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from made_up import speech, tiny_bundle

from rwae_audio.data.audio import load_audio
from rwae_audio.files import ASSETS
from rwae_audio.inference import streaming
from rwae_audio.inference.bundle import Bundle, load_bundle
from rwae_audio.inference.embedding import embed
from rwae_audio.inference.streaming import in_chunks

KINDS = {
    "r-wae": {},
    "instance": {"dynamic_norm": "instance"},
    "feedback": {"feedback": True, "dynamic_norm": "none"},
    "full": {"dynamic_sees_static": True, "static_from": "segment", "decoder": "frame"},
    "fhvae": {"objective": "fhvae"},
    "dbse": {"objective": "dbse"},
    "residual": {"static_network": "residual"},
    "ahead": {"dynamic_look_ahead": 4, "dynamic_norm": "none", "decoder": "convolutional"},
    "all ahead": {"dynamic_look_ahead": 3, "feedback": True, "decoder": "convolutional"},
}


@pytest.fixture(scope="module", params=KINDS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle") / "b", **KINDS[request.param]))


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(streaming, "CHUNK", 120)
    return 120


def recording(frames: torch.Tensor, size: int = 50) -> Callable[[], Iterator[torch.Tensor]]:
    return lambda: iter(frames.split(size))


@pytest.mark.parametrize(("size", "least"), [(1, 1), (4, 1), (4, 3), (4, 4), (4, 9), (30, 2)])
def test_chunks_are_the_rows_in_order(size: int, least: int) -> None:
    rows = torch.arange(25)[:, None]
    for count in range(26):
        for piece in (1, 3, 7, 25):
            chunks = [*in_chunks(rows[:count].split(piece), size, least)] if count else []
            assert torch.equal(torch.cat([rows[:0], *chunks]), rows[:count])
            assert all(len(chunk) == size for chunk in chunks[:-1])
            assert len(chunks) <= 1 or least <= len(chunks[-1]) < size + least


def window_codes(bundle: Bundle, frames: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
    """Return the codes (T, dynamic_dim) by the encoder itself, window after window: 40 frames every 20, or every 40 where a
    code depends on where its segment begins. A later window replaces what has heard less before or after it."""
    config, codes = bundle.model.config, torch.zeros(len(frames), bundle.model.config.dynamic_dim)
    hop = 40 if config.by_segment else 20
    begin = 0
    for start in range(0, max(len(frames) - 40, 0) + hop, hop):
        start = max(min(start, len(frames) - 40), 0)
        window = bundle.normaliser(frames[start : start + 40])
        values = bundle.model.encode_dynamic(window[None], static, None).mean[0]
        codes[begin : start + 40] = values[begin - start :]
        begin = start + 40 - config.dynamic_look_ahead
        if start + 40 >= len(frames):
            break
    return codes


@pytest.mark.parametrize("count", [1, 2, 5, 30, 41, 119, 120, 121, 159, 160, 239, 241, 400])
def test_chunked_is_whole(bundle: Bundle, short_chunks: int, count: int) -> None:
    """Against the networks in one call: codes, voice and decoded frames of a recording that comes 50 frames at a time."""
    model, frames = bundle.model, bundle.frames(speech(0, 6.5))[:count]
    with torch.no_grad():
        vectors = embed(model, bundle.normaliser, 40, frames.numpy(), np.array([0]), np.array([count]))
        codes = window_codes(bundle, frames, torch.from_numpy(vectors.static).float())
        voice = torch.from_numpy(vectors.static[0]).float()
        decoded = bundle.normaliser.inverse(model.decoder(voice[None], codes[None])[0])
    torch.testing.assert_close(bundle.voice_chunks(recording(frames)())[0], voice, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat([*bundle.encode_chunks(recording(frames))]), codes, atol=1e-4, rtol=0)
    torch.testing.assert_close(bundle.encode(frames), codes, atol=1e-4, rtol=0)
    chunks = [*bundle.decode_chunks(voice, bundle.encode_chunks(recording(frames)))]
    torch.testing.assert_close(torch.cat(chunks), decoded, atol=1e-3, rtol=0)
    torch.testing.assert_close(bundle.reconstruct(frames), decoded, atol=1e-3, rtol=0)


def test_no_network_sees_more_than_a_chunk(bundle: Bundle, short_chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rwae_audio.model.rwae.EMBEDDING_WINDOW", 60)
    frames, seen = bundle.frames(speech(0, 20.0)), []
    for layer in bundle.model.modules():
        if isinstance(layer, torch.nn.LSTM):
            monkeypatch.setattr(layer, "forward", _counting(layer.forward, seen))
    voice = bundle.voice_chunks(recording(frames)())[0]
    chunks = [*bundle.decode_chunks(voice, bundle.encode_chunks(recording(frames)))]
    assert max(seen) / 2 <= max(map(len, chunks)) + 60 <= short_chunks + 100  # two windows read each frame
    assert sum(map(len, chunks)) == len(frames) > 10 * short_chunks


def _counting(forward: Callable, seen: list[int]) -> Callable:
    def counted(batch: torch.Tensor | torch.nn.utils.rnn.PackedSequence, *more: object) -> object:
        rows = batch.data if isinstance(batch, torch.nn.utils.rnn.PackedSequence) else batch.flatten(0, 1)
        seen.append(len(rows))
        return forward(batch, *more)

    return counted


def test_a_minute_is_as_good_as_two_seconds() -> None:
    """Every sixteenth speaker of the demo corpus through the shipped bundle, ten sentences over and over."""
    bundle, errors = load_bundle(), []
    for speaker in ("f02", "f34", "f66", "m21", "m53"):
        folder = ASSETS / "demo" / speaker
        samples = np.concatenate([load_audio(folder / f"{i}.ogg") for i in range(10)] * 6)[: 60 * 16000]
        for part in (32000, len(samples)):
            heard = [bundle.frames(samples[i : i + part]) for i in range(0, len(samples), part)]
            made = [bundle.normaliser(bundle.reconstruct(frames) - frames + bundle.normaliser.mean) for frames in heard]
            errors.append(torch.cat(made).square().mean())
    assert sum(errors[1::2]) <= 1.1 * sum(errors[::2])
