"""A torchaudio that does not load is one line."""

from __future__ import annotations

import sys

import pytest

from rwae_audio.data.torch_audio import torchaudio
from rwae_audio.files import InputError


class OtherCuda:
    """A finder of modules that fails as torchaudio does beside a torch for another version of CUDA."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "torchaudio":
            raise RuntimeError("PyTorch has CUDA version 13.2 whereas TorchAudio has CUDA version 13.0")


def test_a_torchaudio_for_another_cuda_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    monkeypatch.setattr(sys, "meta_path", [OtherCuda(), *sys.meta_path])
    with pytest.raises(InputError, match="torchaudio"):
        torchaudio()


def test_a_torchaudio_that_does_not_load_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchaudio() is sys.modules["torchaudio"]
    monkeypatch.setitem(sys.modules, "torchaudio", None)  # import raises
    with pytest.raises(InputError, match=r"pip install .* torch torchaudio"):
        torchaudio()
