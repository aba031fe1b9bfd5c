"""A torchaudio that does not load is one line."""

from __future__ import annotations

import sys

import pytest

from rwae_audio.data.torch_audio import torchaudio
from rwae_audio.files import InputError


def test_a_torchaudio_that_does_not_load_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchaudio() is sys.modules["torchaudio"]
    monkeypatch.setitem(sys.modules, "torchaudio", None)  # import raises
    with pytest.raises(InputError, match=r"pip install .* torch torchaudio"):
        torchaudio()
