"""Devices: those of this machine are found, and any other name is one line that says which there are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_up import speech

from rwae_audio.devices import available_devices, find_device
from rwae_audio.files import InputError
from rwae_audio.inference.bundle import load_bundle


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has two CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with neither CUDA nor MPS."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
def test_every_gpu_has_a_name() -> None:
    assert available_devices() == ["cpu", "cuda", "cuda:0", "cuda:1"]
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match=r"cuda:2 .*; expected cpu or cuda or cuda:0 or cuda:1$"):
        find_device("cuda:2")


def test_apples_gpu_is_mps(monkeypatch: pytest.MonkeyPatch, no_gpu: None) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert available_devices() == ["cpu", "mps"]
    assert find_device("mps") == torch.device("mps")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["mps", "cuda", "cuda:1", "meta", "xpu", "tpu9", "", "CPU", "cpu:-1", "expected cuda"])
def test_a_device_that_is_not_here_is_one_short_line(name: str) -> None:
    with pytest.raises(InputError, match=r"; expected cpu$") as caught:
        find_device(name)
    assert f"device {name} " in str(caught.value)
    assert len(str(caught.value)) < 80


def test_a_bundle_is_on_the_device_that_it_is_given(bundle_folder: Path) -> None:
    bundle = load_bundle(bundle_folder, device="cpu")
    assert bundle.to(torch.device("cpu")) is bundle
    assert {parameter.device for parameter in bundle.model.parameters()} == {torch.device("cpu")}
    for move in (lambda: load_bundle(bundle_folder, "cuda:99"), lambda: bundle.to("cuda:99")):
        with pytest.raises(InputError, match="cuda:99"):
            move()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_a_gpu_gives_the_codes_of_the_cpu(bundle_folder: Path) -> None:
    samples = speech(0)
    ours, theirs = (load_bundle(bundle_folder, name).embed(samples) for name in ("cuda", "cpu"))
    torch.testing.assert_close(*(torch.from_numpy(part.codes) for part in (ours, theirs)), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(*(torch.from_numpy(part.static) for part in (ours, theirs)), atol=1e-3, rtol=1e-3)
