"""A bundle comes back bit for bit, or not at all; its verbs say what they give."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import TINY, corpora, speech, tiny_bundle
from safetensors.torch import load_file, save_file

import rwae_audio
from rwae_audio.data.corpora.base import Corpus
from rwae_audio.data.features import Normaliser, log_mel
from rwae_audio.data.level import levelled
from rwae_audio.files import InputError, sha256
from rwae_audio.inference.bundle import Bundle, load_bundle, save_bundle
from rwae_audio.inference.card import card
from rwae_audio.model import RWAE
from rwae_audio.training.trainer import RunConfig


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return load_bundle(bundle_folder)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    tables = {"mel": {"preset": "paper"}, "model": {**TINY, "decoder": "frame"}, "train": {"seed": 7, "batch": 3}}
    config = RunConfig.of(tables)
    model = RWAE(config.model)
    normaliser = Normaliser(torch.randn(80), torch.rand(80) + 0.5)
    mean = np.array([0.1, -1, 1e-8, 3])
    save_bundle(tmp_path / "b", config, model, normaliser, mean, synthetic=True, meta={"hours": 0.3}, card="# card\n")
    loaded = load_bundle(tmp_path / "b")
    assert loaded.config == config
    assert not loaded.model.training
    assert loaded.synthetic is True
    assert loaded.meta == {"hours": 0.3}
    assert np.array_equal(loaded.dynamic_mean, mean.astype(np.float32))
    assert torch.equal(loaded.normaliser.mean, normaliser.mean)
    assert torch.equal(loaded.normaliser.deviation, normaliser.deviation)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name
    assert (tmp_path / "b/README.md").read_text() == "# card\n"
    assert loaded.digest == json.loads((tmp_path / "b/config.json").read_text())["sha256"]


def test_a_bundle_of_half_the_size_has_the_weights_to_three_digits(tmp_path: Path) -> None:
    config = RunConfig.of({"mel": {"preset": "paper"}, "model": TINY})
    model, normaliser = RWAE(config.model), Normaliser(torch.randn(80), torch.rand(80) + 0.5)
    for half in (False, True):
        place = tmp_path / str(half)
        save_bundle(place, config, model, normaliser, np.zeros(4), synthetic=True, meta={}, card="", half=half)
    whole, halved = (load_bundle(tmp_path / name) for name in ("False", "True"))
    assert torch.equal(halved.normaliser.mean, whole.normaliser.mean)
    for name, value in whole.model.state_dict().items():
        given = halved.model.state_dict()[name]
        assert given.dtype == value.dtype, name
        torch.testing.assert_close(given, value, rtol=1e-3, atol=1e-6)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("False", "True")]
    assert sizes[1] < 0.65 * sizes[0]


def test_the_same_bundle_is_the_same_bytes(bundle_folder: Path, tmp_path: Path) -> None:
    again = tiny_bundle(tmp_path / "again")
    for path in bundle_folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def change_config(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        changed = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({key: value for key, value in changed.items() if value != "gone"}))

    return change


def change_weights(change: Callable[[dict[str, torch.Tensor]], object], vouch: bool = True) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        if vouch:
            change_config(sha256=sha256(path))(folder)

    return write


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "is not a folder; expected a bundle"),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "does not exist; expected the bundle's weights",
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "does not exist; expected a bundle's conf"),
    "not JSON": (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
    "not a table": (lambda folder: (folder / "config.json").write_text("[]"), "has no sha256"),
    "other format": (change_config(format=2), "has bundle format 2 .*; expected format 1"),
    "no format": (change_config(format="gone"), "has bundle format None"),
    "no mel table": (change_config(mel="gone"), "has no table 'mel'"),
    "unknown setting": (change_config(train={"sed": 1}), r"\[train\] has no setting 'sed'; did you mean 'seed'"),
    "two numbers of mels": (change_config(mel={"n_mels": 40}), "has shape .*; expected "),
    "digest no text": (change_config(sha256=5), "expected 5…"),
    "cut short": (cut, "is not a whole safetensors file"),
    "empty": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "is not a whole safetensors file"),
    "altered": (flip_a_bit, "was altered"),
    "replaced": (change_weights(lambda tensors: tensors["dynamic_mean"].add_(1), vouch=False), "was altered"),
    "missing tensor": (change_weights(lambda tensors: tensors.pop("normaliser.mean")), "no tensor normaliser.mean"),
    "wrong shape": (
        change_weights(lambda tensors: tensors.update(dynamic_mean=torch.zeros(5))),
        r"dynamic_mean has shape \(5,\); expected \(4,\)",
    ),
    "one too many": (change_weights(lambda tensors: tensors.update(x=torch.zeros(1))), "has a tensor x"),
    "other sizes": (change_config(model={**TINY, "decoder_hidden": 9}), r"expected \(36, 10\)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_bundle_is_one_line(name: str, bundle_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    spoil, expected = BROKEN[name]
    spoil(folder)
    with pytest.raises(InputError, match=expected) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(InputError, match="is not a folder"):
        load_bundle(tmp_path / "model.ckpt")


def test_the_card_credits_its_corpora_and_asks_for_consent(bundle_folder: Path) -> None:
    text = (bundle_folder / "README.md").read_text()
    assert "an4 (3 training speakers), librispeech (2 training speakers), 1.50 hours" in text
    for credit in (
        "Carnegie Mellon University",
        "DARPA|Defense Advanced Research Projects Agency",
        "CC BY 4.0",
        "LibriVox",
    ):
        assert any(part in text for part in credit.split("|")), credit
    assert "consent" in text
    assert "    made up" in text
    assert "TIMIT" not in text
    assert "ynthetic" not in text
    assert "Synthetic speech only" in card(RunConfig(), corpora(synthetic=True), 0.5, {})
    assert "- mine: no credit is known." in card(RunConfig(), [Corpus("mine", ())], 0.5, {})


def test_frames_are_log_mels_at_the_bundles_settings(bundle: Bundle) -> None:
    sound = speech(5)
    assert bundle.sample_rate == 16000
    expected = log_mel(torch.from_numpy(levelled(sound, 16000)), bundle.config.mel)
    torch.testing.assert_close(bundle.frames(sound), expected, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="under one analysis window"):
        bundle.frames(sound[:1000])


def test_verbs_give_their_shapes(bundle: Bundle) -> None:
    source, target = bundle.frames(speech(0, 1.3)), bundle.frames(speech(1, 0.8))
    codes, voice = bundle.encode(source), bundle.voice(target)
    assert codes.shape == (len(source), 4)
    assert voice.shape == (6,)
    assert bundle.decode(voice, codes).shape == source.shape
    converted = bundle.convert(source, target)
    assert converted.shape == source.shape
    assert converted.dtype == torch.float32
    assert not converted.requires_grad
    assert torch.equal(converted, bundle.decode(voice, codes))
    vectors = bundle.embed(speech(0, 1.3))
    assert (vectors.static.shape, vectors.dynamic.shape, vectors.codes.shape) == ((1, 6), (1, 4), (len(source), 4))


def test_reconstruction_is_conversion_to_oneself(bundle: Bundle) -> None:
    frames = bundle.frames(speech(2))
    assert torch.equal(bundle.convert(frames, frames), bundle.reconstruct(frames))
    assert not torch.equal(bundle.convert(frames, bundle.frames(speech(3))), bundle.reconstruct(frames))


def test_a_full_posterior_is_given_the_recordings_own_voice(tmp_path: Path) -> None:
    full = load_bundle(tiny_bundle(tmp_path / "full", dynamic_sees_static=True))
    source, target = full.frames(speech(0))[:40], full.frames(speech(1))  # a source of one window
    own = full.model.dynamic_encoder(full.normaliser(source)[None], None, None, full.voice(source)[None]).mean[0]
    torch.testing.assert_close(full.encode(source), own.detach())
    assert torch.equal(full.convert(source, target), full.decode(full.voice(target), full.encode(source)))


@pytest.mark.parametrize("objective", ["fhvae", "dbse"])
def test_codes_of_segments_are_those_of_the_segments_of_training(tmp_path: Path, objective: str) -> None:
    each = load_bundle(tiny_bundle(tmp_path / "each", objective=objective))
    source = each.frames(speech(0))
    codes, segment = each.encode(source), each.config.mel.segment
    assert torch.equal(codes, torch.from_numpy(each.embed(speech(0)).codes))
    assert torch.equal(codes[:segment], codes[:1].expand(segment, -1)) == (objective == "fhvae")
    assert not torch.allclose(codes[segment - 1], codes[segment])
    assert each.reconstruct(source).shape == source.shape


def test_codes_are_means_without_noise(bundle: Bundle) -> None:
    """What a code is does not move with the global seed."""
    frames = bundle.frames(speech(2))
    first = bundle.reconstruct(frames)
    torch.manual_seed(99)
    assert torch.equal(bundle.reconstruct(frames), first)


def test_a_voice_is_the_mean_over_its_recordings(bundle: Bundle) -> None:
    one, other = bundle.frames(speech(1, 0.7)), bundle.frames(speech(4, 2.1))
    expected = (len(one) * bundle.voice(one) + len(other) * bundle.voice(other)) / (len(one) + len(other))
    torch.testing.assert_close(bundle.voice(one, other), expected)
    torch.testing.assert_close(bundle.voice(other, one), expected)
    torch.testing.assert_close(bundle.voice(one, one), bundle.voice(one))
    torch.testing.assert_close(
        bundle.voice(one).double(), torch.from_numpy(bundle.embed(speech(1, 0.7)).static[0]), rtol=1e-5, atol=1e-6
    )


def test_the_package_gives_what_it_names() -> None:
    for name in rwae_audio.__all__:
        assert getattr(rwae_audio, name) is not None, name
    assert rwae_audio.load_bundle is load_bundle
    assert set(rwae_audio.__all__) <= set(dir(rwae_audio))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rwae_audio.nothing  # noqa: B018
