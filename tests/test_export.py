"""A converter as ONNX networks: they say what PyTorch says, and convert without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from made_up import speech, tiny_bundle

from rwae_audio.commands import export as command
from rwae_audio.conversion.converter import Converter
from rwae_audio.conversion.export import LENGTHS, TOLERANCE, export
from rwae_audio.data.level import levelled
from rwae_audio.inference.bundle import load_bundle

pytest.importorskip("onnx")
RECIPE = Path(__file__).parent.parent / "recipes/voice_conversion"
sys.path.insert(0, str(RECIPE))
from onnx_convert import OnnxConverter  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converter in the package, exported."""
    folder = tmp_path_factory.mktemp("onnx") / "out"
    assert max(export(Converter.load(), folder).values()) <= TOLERANCE
    return folder


def test_the_folder_is_whole(folder: Path) -> None:
    networks = {"static.onnx", "dynamic.onnx", "decoder.onnx", "vocoder.onnx"}
    assert {path.name for path in folder.iterdir()} == networks | {"settings.json", "arrays.npz"}
    assert len(set(LENGTHS)) == 3


def test_the_example_hears_and_says_what_the_package_does(folder: Path) -> None:
    """A source of several windows, the last of which overlaps more than the others; other batches than those of the check."""
    bundle, example = load_bundle(), OnnxConverter(folder)
    samples = speech(3, 7.3)
    waveform, _ = example.levelled(samples)
    np.testing.assert_allclose(waveform, levelled(samples, 16000), rtol=0, atol=1e-6)
    frames = bundle.frames(samples)
    np.testing.assert_allclose(example.frames(waveform), frames.numpy(), rtol=0, atol=2e-2)
    exact = frames.numpy()
    np.testing.assert_allclose(example.voice(exact)[0], bundle.voice(frames).numpy(), rtol=0, atol=1e-3)
    np.testing.assert_allclose(example.codes(exact), bundle.encode(frames).numpy(), rtol=0, atol=1e-3)


def test_the_example_converts(folder: Path) -> None:
    source, target, example, converter = speech(0, 1.5), speech(1, 1.2), OnnxConverter(folder), Converter.load()
    sound = example.convert(source, target)
    expected = converter.convert(source, 16000, converter.voice(target, 16000))
    assert sound.shape == expected.shape
    ours, theirs = (converter.bundle.frames(np.asarray(each, dtype=np.float32)) for each in (sound, expected))
    other = converter.bundle.frames(target[: len(source)])
    length = min(len(ours), len(other))
    distance = (ours - theirs).abs().mean()
    assert distance < 0.5 * (ours[:length] - other[:length]).abs().mean()  # the noise is another
    whisper = OnnxConverter(folder, pitch=False).convert(source, target)
    assert whisper.shape == source.shape
    assert not np.allclose(whisper, sound)


def test_the_example_needs_no_torch(folder: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        soundfile.write(tmp_path / f"{name}.wav", speech(number, 1.0), 16000)
    names = [str(each) for each in (folder, tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "out.wav")]
    code = f"import sys; sys.modules.update(torch=None, rwae_audio=None); sys.argv[1:] = {names}\n"
    code += "import onnx_convert; onnx_convert.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=RECIPE, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("onnxruntime: "), done.stderr
    assert soundfile.info(tmp_path / "out.wav").frames == 16000


@pytest.mark.parametrize(
    "switches",
    [{"dynamic_sees_static": True}, {"decoder": "recurrent", "dynamic_norm": "instance"}, {"objective": "dbse"}],
)
def test_other_models_have_a_form_as_well(switches: dict[str, Any], tmp_path: Path) -> None:
    converter = Converter.from_pretrained(tiny_bundle(tmp_path / "tiny", "paper", **switches))
    assert set(export(converter, tmp_path / "out")) == {"static", "dynamic", "decoder"}
    frames = converter.bundle.frames(speech(2, 1.1))
    codes = OnnxConverter(tmp_path / "out").codes(frames.numpy())
    torch.testing.assert_close(torch.from_numpy(codes), converter.bundle.encode(frames), rtol=0, atol=1e-4)


def test_what_cannot_be_exported_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = tiny_bundle(tmp_path / "tiny", feedback=True)
    assert command.main([str(tmp_path / "out"), "--bundle", str(tiny)]) == 2
    assert "feedback" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert command.main([str(tmp_path), "--bundle", str(tiny)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_command_says_how_near_each_network_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = tiny_bundle(tmp_path / "tiny", "paper")
    assert command.main([str(tmp_path / "out"), "--bundle", str(tiny)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["static.onnx", "dynamic.onnx", "decoder.onnx"]
    assert json.loads((tmp_path / "out/settings.json").read_text())["vocoder"] is False
