"""The frame store: whole or absent, keyed by what it holds; crops and windows that lie where they should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rwae_audio.data.audio import load_audio
from rwae_audio.data.corpora.base import Corpus, Utterance
from rwae_audio.data.features import MelConfig, Normaliser, log_mel
from rwae_audio.data.level import levelled
from rwae_audio.data.store import FrameStore, Sampler, apart, open_store
from rwae_audio.files import InputError
from rwae_audio.inference.embedding import embed, windows
from rwae_audio.model import RWAE, ModelConfig
from rwae_audio.randomness import generator

MEL = MelConfig(segment=10)
NEAR = {"atol": 0.015, "rtol": 0.0}
HALVES = {"first": slice(0, 3), "second": slice(3, 5)}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    rng = np.random.default_rng(0)
    utterances = []
    for i in range(5):
        path = tmp_path / "audio" / f"s{i}" / "a.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, 0.1 * rng.standard_normal(4000 + 1600 * i), 16000)
        utterances.append(Utterance(f"s{i}/a.wav", f"s{i}", "train" if i else "dev", path))
    return Corpus("made-up", tuple(utterances), {}, ())


def test_store_holds_every_utterance_as_log_mel_gives_it(corpus: Corpus, tmp_path: Path) -> None:
    store = open_store([corpus], MEL, tmp_path / "cache")
    for row, utterance in enumerate(corpus.utterances):
        expected = log_mel(torch.from_numpy(levelled(load_audio(utterance.path), 16000)), MEL)
        torch.testing.assert_close(store.of(row), expected, rtol=2**-11, atol=1e-5)  # float16
    assert store.indices("dev").tolist() == [0]
    assert store.gather(store.offsets[:2], 4).shape == (2, 4, 80)
    torch.testing.assert_close(store.gather(store.offsets[:-1] + 2, 4)[3], store.of(3)[2:6])


def test_a_second_opening_reads_what_is_there(corpus: Corpus, tmp_path: Path) -> None:
    first = open_store([corpus], MEL, tmp_path / "cache")
    for utterance in corpus.utterances:  # same size, same time: the store does not look inside
        stat = utterance.path.stat()
        utterance.path.write_bytes(b"x" * stat.st_size)
        __import__("os").utime(utterance.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = open_store([corpus], MEL, tmp_path / "cache")
    assert np.array_equal(first.frames, again.frames)


def test_other_settings_or_a_changed_file_get_a_store_of_their_own(corpus: Corpus, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    open_store([corpus], MEL, cache)
    open_store([corpus], replace(MEL, n_mels=40), cache)
    soundfile.write(corpus.utterances[1].path, 0.1 * np.random.default_rng(1).standard_normal(9000), 16000)
    store = open_store([corpus], MEL, cache)
    assert len(list(cache.glob("*.json"))) == 3
    assert store.lengths[1] == 1 + 9000 // 160


def test_a_failed_build_leaves_nothing(corpus: Corpus, tmp_path: Path) -> None:
    corpus.utterances[3].path.write_bytes(b"not audio")
    with pytest.raises(InputError, match="s3"):
        open_store([corpus], MEL, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_store_of_another_size_is_not_used(corpus: Corpus, tmp_path: Path) -> None:
    open_store([corpus], MEL, tmp_path / "cache")
    data = next((tmp_path / "cache").glob("*.f16"))
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(InputError, match="remove it"):
        open_store([corpus], MEL, tmp_path / "cache")


def test_an_utterance_under_one_window_is_named(corpus: Corpus, tmp_path: Path) -> None:
    soundfile.write(corpus.utterances[2].path, 0.1 * np.random.default_rng(1).standard_normal(100), 16000)
    with pytest.raises(InputError, match=r"s2.*under one analysis window"):
        open_store([corpus], MEL, tmp_path / "cache")


def test_a_silent_recording_is_left_out_and_named(corpus: Corpus, tmp_path: Path) -> None:
    for i, offset in ((1, 0.0), (4, 0.2)):
        soundfile.write(corpus.utterances[i].path, np.full(9000, offset), 16000)
    for _ in ("built", "read again"):
        store = open_store([corpus], MEL, tmp_path / "cache")
        assert [u.speaker for u in store.utterances] == ["s0", "s2", "s3"]
        assert [u.speaker for u in store.silent] == ["s1", "s4"]
        assert store.lengths.tolist() == [1 + (4000 + 1600 * i) // 160 for i in (0, 2, 3)]
    for utterance in corpus.utterances:
        soundfile.write(utterance.path, np.zeros(9000), 16000)
    with pytest.raises(InputError, match="all 5 recordings are silent"):
        open_store([corpus], MEL, tmp_path / "cache")


def numbered(lengths: list[int], speakers: str = "", corpora: tuple[str, ...] = ()) -> FrameStore:
    """Every frame says which utterance it is of, and where in it; speakers: a letter an utterance, each its own without."""
    speakers = speakers or "".join(chr(97 + i) for i in range(len(lengths)))
    frames = [np.stack([np.full(n, u), np.arange(n)], 1) for u, n in enumerate(lengths)]
    utterances = tuple(Utterance(f"{u}", speaker, "train", Path("x")) for u, speaker in enumerate(speakers))
    offsets = np.cumsum([0, *lengths])
    return FrameStore(np.concatenate(frames).astype(np.float32), offsets, utterances, corpora=corpora)


@pytest.mark.parametrize("where", ["segment", "frame", "another"])
def test_crops_stay_inside_their_utterance(where: str) -> None:
    store = numbered([5, 40, 100, 31])
    model = ModelConfig(static_from=where, static_window=30, dynamic_norm="none")
    sampler = Sampler(store, np.arange(4), 10, model)
    assert sampler.left_out == 1
    batch = sampler.draw(2000, generator(0, "batch"))
    owner, place = batch.frames[..., 0], batch.frames[..., 1]
    assert (owner == owner[:, :1]).all()
    assert (place.diff(dim=1) == 1).all()
    assert set(owner[:, 0].tolist()) == {1.0, 2.0, 3.0}
    assert torch.equal(batch.utterances + 1, owner[:, 0].long())
    first = place[owner[:, 0] == 2][:, 0]
    assert (first.min(), first.max()) == (0, 90)
    if where in ("segment", "frame"):
        assert batch.static_frames is None
        return
    assert batch.static_frames is not None
    window = batch.static_frames
    assert window.shape[1] == 30
    assert torch.equal(window[:, 0, 0], owner[:, 0])
    assert (window[..., 1].diff(dim=1) == 1).all()
    inside = (window[:, 0, 1] <= place[:, 0]) & (place[:, -1] <= window[:, -1, 1])
    assert 0 < inside.float().mean() < 1  # the window lies anywhere, around the segment or beside it


def test_a_second_window_is_drawn_after_everything_else() -> None:
    store = numbered([40, 100, 31])
    model = ModelConfig(static_from="another", static_window=30)
    alone = Sampler(store, np.arange(3), 10, model).draw(2000, generator(0, "batch"))
    both = Sampler(store, np.arange(3), 10, model, pairs=True).draw(2000, generator(0, "batch"))
    assert alone.second_frames is None
    assert torch.equal(alone.frames, both.frames)
    assert alone.static_frames is not None
    assert both.static_frames is not None
    assert both.second_frames is not None
    assert torch.equal(alone.static_frames, both.static_frames)
    assert torch.equal(both.second_frames[:, 0, 0], both.frames[:, 0, 0])
    owner, first, second = both.frames[:, 0, 0], both.static_frames[:, 0, 1], both.second_frames[:, 0, 1]
    roomy = owner == 1  # 100 frames: whatever lies where, there is room for another 30
    assert ((second - first).abs()[roomy] >= 30).all()
    assert (second[roomy].min(), second[roomy].max()) == (0, 70)
    tight = owner == 0
    assert set(second[tight].tolist()) == {0.0, 10.0}
    assert torch.equal(second[tight] == 0, first[tight] > 5)


def test_places_apart_are_equally_likely() -> None:
    drawn = (np.arange(6000) + 0.5) / 6000
    starts = apart(np.full(6000, 12), np.full(6000, 40), 10, drawn)  # free: 0 to 2 and 22 to 30
    places, counts = np.unique(starts, return_counts=True)
    assert places.tolist() == [0, 1, 2, *range(22, 31)]
    assert (counts == 500).all()


def shares(store: FrameStore, rows: np.ndarray) -> torch.Tensor:
    """How often each of the rows is drawn, of 20,000 times."""
    sampler = Sampler(store, rows, 10, ModelConfig(static_from="segment"))
    owner = sampler.draw(20000, generator(0, "batch")).frames[:, 0, 0]
    return torch.bincount(owner.long(), minlength=len(store.utterances))[rows].float() / 20000


def test_speakers_are_drawn_by_the_root_of_all_that_they_say() -> None:
    """The first has 100 frames in one utterance, the second 400 in three; what is too short for a window does not count."""
    store = numbered([100, 100, 250, 50, 9], speakers="abbbb")
    expected = torch.tensor([10.0, 20 * 100 / 400, 20 * 250 / 400, 20 * 50 / 400]) / 30
    torch.testing.assert_close(shares(store, np.arange(5))[:4], expected, atol=0.015, rtol=0)
    # of the second, one utterance alone: its length is then all that is said
    torch.testing.assert_close(shares(store, np.array([0, 3])), torch.tensor([10.0, 50**0.5]) / (10 + 50**0.5), **NEAR)


def test_one_name_in_two_corpora_is_two_speakers() -> None:
    same, other = (numbered([100, 100, 100], "aaa", corpora) for corpora in (("x", "x", "x"), ("x", "x", "y")))
    assert same.speakers.tolist() == [0, 0, 0]
    assert other.speakers.tolist() == [0, 0, 1]
    torch.testing.assert_close(shares(same, np.arange(3)), torch.full((3,), 1 / 3), **NEAR)
    two = torch.tensor([200**0.5 / 2, 200**0.5 / 2, 10.0])
    torch.testing.assert_close(shares(other, np.arange(3)), two / two.sum(), **NEAR)


def test_a_store_knows_the_corpus_of_each_utterance(corpus: Corpus, tmp_path: Path) -> None:
    """Also where a silent one is left out before them."""
    soundfile.write(corpus.utterances[0].path, np.zeros(9000), 16000)
    halves = [replace(corpus, name=name, utterances=corpus.utterances[part]) for name, part in HALVES.items()]
    store = open_store(halves, MEL, tmp_path / "cache")
    assert store.corpora == ("first", "first", "second", "second")
    assert [u.speaker for u in store.utterances] == ["s1", "s2", "s3", "s4"]


def test_another_segment_has_the_same_frames(corpus: Corpus, tmp_path: Path) -> None:
    for segment in (10, 20):
        open_store([corpus], replace(MEL, segment=segment), tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.json"))) == 1


def test_a_store_of_corpora_with_long_names_can_be_written(corpus: Corpus, tmp_path: Path) -> None:
    parts = [
        replace(corpus, name=letter * 60, utterances=corpus.utterances[i : i + 1]) for i, letter in enumerate("äöüé")
    ]
    assert len(open_store(parts, MEL, tmp_path / "cache").utterances) == 4


@pytest.mark.parametrize(("overlap", "ahead"), [(0, 0), (5, 0), (5, 4), (9, 3), (3, 3)])
def test_windows_give_every_frame_once_and_the_last_is_right_aligned(overlap: int, ahead: int) -> None:
    starts, lengths = np.array([0, 47, 57, 60]), np.array([47, 10, 3, 20])
    cut = windows(starts, lengths, 10, overlap, ahead)
    for u in range(4):
        mine = cut.owner == u
        fresh = [
            frame
            for s, skip, stop in zip(cut.start[mine], cut.first[mine], cut.stop[mine], strict=True)
            for frame in range(s + skip, s + stop)
        ]
        assert fresh == list(range(starts[u], starts[u] + lengths[u]))
        assert cut.start[mine][-1] + cut.length[mine][-1] == starts[u] + lengths[u]
        assert all(cut.stop[mine][:-1] == 10 - ahead)
        assert all(cut.first[mine][1:] >= overlap - ahead)
    if not overlap:
        assert cut.length.tolist() == [10, 10, 10, 10, 10, 10, 3, 10, 10]


@pytest.mark.parametrize(("full", "window"), [(False, 15), (True, 15), (True, 20)])
def test_vectors_are_the_means_that_the_benchmark_defines(
    full: bool, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Static: mean over windows; dynamic: mean over frames, given that static vector where the encoder sees it; one
    utterance at a time gives what all together give."""
    torch.manual_seed(0)
    monkeypatch.setattr("rwae_audio.model.rwae.EMBEDDING_WINDOW", window)
    config = ModelConfig(n_mels=6, static_dim=4, dynamic_dim=3, static_window=15, dynamic_sees_static=full)
    model, size = RWAE(config), window
    lengths = np.array([47, 8, 30])
    starts = np.cumsum(lengths) - lengths
    frames = torch.randn(85, 6, generator=generator(0, "frames"))
    normaliser = Normaliser.fit(frames)
    together = embed(model, normaliser, 10, frames.numpy(), starts, lengths)
    assert model.training
    model.eval()
    for u, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        mine = normaliser(frames[start : start + length])
        places = (
            [0] if length < size else [*range(0, length - size + 1, size), *([length - size] if length % size else [])]
        )
        static = torch.stack([model.static_encoder(mine[None, p : p + size], None).mean[0] for p in places]).mean(0)
        np.testing.assert_allclose(together.static[u], static.detach(), atol=1e-5)
        cut = [mine[p : p + 10] for p in range(0, length - 9, 10)] or [mine]
        codes = torch.cat([model.dynamic_encoder(part[None], None, None, static[None]).mean[0] for part in cut])
        if length % 10 and length > 10:
            last = model.dynamic_encoder(mine[None, -10:], None, None, static[None]).mean[0]
            codes = torch.cat([codes, last[-(length % 10) :]])
        np.testing.assert_allclose(together.codes[start : start + length], codes.detach(), atol=1e-5)
        np.testing.assert_allclose(together.dynamic[u], codes.detach().mean(0), atol=1e-5)


def test_a_large_store_is_normalised_by_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.randn(1000, 4, generator=generator(0, "frames")) * 3 + 1
    utterances = tuple(Utterance(f"{i}.wav", "s", "train", Path(f"{i}.wav")) for i in range(100))
    store = FrameStore(frames.numpy(), 10 * np.arange(101), utterances)
    whole, rows = store.normaliser(np.arange(100)), np.arange(100)
    torch.testing.assert_close(whole.mean, frames.mean(0))
    monkeypatch.setattr("rwae_audio.data.store.NORMALISED", 250)  # a quarter of them
    part = store.normaliser(rows)
    quarter = torch.cat([frames[10 * i : 10 * i + 10] for i in range(0, 100, 4)])
    torch.testing.assert_close(part.mean, quarter.mean(0))
    torch.testing.assert_close(part.deviation, quarter.std(0, correction=0))


def test_windows_of_a_file_are_what_the_file_holds(tmp_path: Path) -> None:
    """The request for pages reaches to the end of the file and no further."""
    values = np.arange(50_000 * 80, dtype=np.float32).reshape(-1, 80)
    values.tofile(tmp_path / "frames")
    frames = np.memmap(tmp_path / "frames", dtype=np.float32, mode="r", shape=values.shape)
    store = FrameStore(frames, np.array([0, 50_000]), (Utterance("a", "s", "train", Path("a")),))
    starts = np.array([0, 12_345, 49_940])
    drawn = store.gather(starts, 60).numpy()
    assert all((window == values[start : start + 60]).all() for window, start in zip(drawn, starts, strict=True))
