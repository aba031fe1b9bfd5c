"""The listeners: their losses against their definitions, their file, a run in which they judge, and their own training."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from made_up import speech
from made_up_commands import called
from made_up_training import CONFIG, metrics, run, store
from torch import Tensor
from torch.nn import functional as F

from rwae_audio.commands.common import guarded
from rwae_audio.data.features import Normaliser
from rwae_audio.files import InputError
from rwae_audio.model import RWAE, ModelConfig
from rwae_audio.objectives import objective_settings
from rwae_audio.objectives.listeners import Listeners, read_listeners, write_listeners
from rwae_audio.objectives.rwae_plus import PHONES, VOICES, RwaePlus
from rwae_audio.randomness import generator
from rwae_audio.training.loop import Interrupted

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes/voice_conversion"))
import train_listeners

NAMES = ("aa", "b", "sil")


def made(normaliser: Normaliser) -> Listeners:
    torch.manual_seed(0)
    return Listeners(normaliser, NAMES).eval().requires_grad_(False)


def plain(n_mels: int = 8) -> Normaliser:
    return Normaliser(torch.zeros(n_mels), torch.ones(n_mels))


def frames_of(name: str, length: int = 12) -> Tensor:
    return torch.randn(5, length, 8, generator=generator(0, name))


def test_lost_words_against_sums_by_hand() -> None:
    listeners, speech, decoded = made(plain()), frames_of("speech"), frames_of("decoded").requires_grad_()
    heard, wanted = listeners.phone(decoded), listeners.phone(speech)
    p, q = (part.logits.softmax(-1) for part in (wanted, heard))
    divergence = sum(p[..., k] * (p[..., k] / q[..., k]).log() for k in range(len(NAMES))).mean()
    distances = [((a - b).abs().sum() / b.abs().sum()) for a, b in zip(heard.states, wanted.states, strict=True)]
    lost = listeners.lost_words(decoded, wanted)
    torch.testing.assert_close(lost, divergence + sum(distances) / len(distances))
    assert listeners.lost_words(speech, wanted).item() == pytest.approx(0, abs=1e-6)
    lost.backward()
    assert listeners.lost_words(decoded - 0.5 * decoded.grad / decoded.grad.norm(), wanted) < lost
    assert all(weight.grad is None for weight in listeners.parameters())


def test_lost_voices_against_cosines_by_hand() -> None:
    listeners, decoded, windows = made(plain()), frames_of("decoded").requires_grad_(), frames_of("window", 20)
    one, other = (listeners.voice.encoder(part, None).mean for part in (decoded, windows))
    wanted = listeners.voice(windows)
    lost = listeners.lost_voices(decoded, wanted)
    torch.testing.assert_close(lost, 1 - F.cosine_similarity(one, other).mean())
    assert listeners.lost_voices(windows, wanted).item() == pytest.approx(0, abs=1e-6)
    lost.backward()
    assert listeners.lost_voices(decoded - 0.5 * decoded.grad / decoded.grad.norm(), wanted) < lost
    assert all(weight.grad is None for weight in listeners.parameters())


def test_terms_of_the_listeners() -> None:
    """Reconstructions are compared with the utterance's own window, swaps with that of the utterance before it."""
    torch.manual_seed(0)
    model = RWAE(ModelConfig(n_mels=8, static_dim=4, dynamic_dim=3, static_hidden=8, dynamic_hidden=8)).train()
    frames, windows = frames_of("speech"), frames_of("window", 20)
    output = model(frames, windows, generator(0, "noise"), second_frames=windows + 0.5)._replace(static_frames=windows)
    settings = objective_settings("rwae-plus", listeners="x")
    objective = RwaePlus(settings, model.config)
    objective.listeners = listeners = made(plain())
    terms = objective(model, output, frames, generator(0, "prior"))
    swapped = model.decoder(output.static.sample.roll(1, 0), output.dynamic.sample)
    phones, voices = listeners.phone(frames), listeners.voice(windows)
    expected = {
        "phones_own": PHONES * listeners.lost_words(output.reconstruction, phones),
        "phones_swap": PHONES * listeners.lost_words(swapped, phones),
        "voice_own": VOICES * listeners.lost_voices(output.reconstruction, voices),
        "voice_swap": VOICES * listeners.lost_voices(swapped, voices.roll(1, 0)),
    }
    assert set(terms) == {"reconstruction", "static", "dynamic", "pair", *expected}
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term)
    torch.stack([terms[name] for name in expected]).sum().backward()
    assert model.decoder.lstm.weight_ih_l0.grad.any()
    assert all(weight.grad is None for weight in listeners.parameters())


def test_a_file_of_listeners_is_read_again_for_its_own_normaliser_alone(tmp_path: Path) -> None:
    normaliser, path = Normaliser(torch.randn(8), torch.rand(8) + 1), tmp_path / "listeners.safetensors"
    listeners = made(normaliser)
    write_listeners(path, listeners, "train_listeners.py")
    again = read_listeners(path, normaliser)
    assert again.phones == NAMES
    assert not again.training
    assert torch.equal(again.phone(frames_of("speech")).logits, listeners.phone(frames_of("speech")).logits)
    assert not any(weight.requires_grad for weight in again.parameters())
    with pytest.raises(InputError, match="was trained with another normaliser; expected"):
        read_listeners(path, replace(normaliser, mean=normaliser.mean + 0.01))
    with pytest.raises(InputError, match="another normaliser"):
        read_listeners(path, plain(9))
    with pytest.raises(InputError, match=r"none\.safetensors"):
        read_listeners(tmp_path / "none.safetensors", normaliser)
    run(tmp_path / "run")
    with pytest.raises(InputError, match="has other weights; expected the listeners"):
        read_listeners(tmp_path / "run/checkpoints/latest.safetensors", normaliser)


def test_a_resumed_run_with_listeners_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "listeners.safetensors"
    write_listeners(path, made(Normaliser.fit(store().frames)), "train_listeners.py")
    objective = objective_settings("rwae-plus", listeners=str(path))
    config = replace(CONFIG, objective=objective)
    whole = run(tmp_path / "whole", config)
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", config, stop_at=4)
    resumed = run(tmp_path / "parts", config, resume=True)
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    path.unlink()
    with pytest.raises(InputError, match=r"listeners.safetensors"):
        run(tmp_path / "third", config)


@pytest.mark.slow
def test_listeners_learn_the_demo_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("speechbrain")
    words = ["--updates", "40", "40", "--threads", "1", "--out", tmp_path / "run"]
    code, out, err = called(train_listeners.main, words, capsys)
    assert (code, err) == (0, "")
    assert "listeners.safetensors: for [objective] listeners" in out
    results = re.findall(r"update 40/40 .* dev (?:EER )?([\d.]+) %", out)
    right, rate = map(float, results)
    assert right > 12
    assert rate < 25


def test_listeners_need_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for speaker in range(16):
        (tmp_path / f"data/s{speaker // 2}").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"data/s{speaker // 2}/{speaker % 2}.wav", speech(speaker, 1.8), 16000)
    words = ["--data", f"folder={tmp_path / 'data'}", "--threads", "1", "--out", tmp_path / "run"]
    code, _, err = called(
        lambda given: guarded(lambda: train_listeners.main(given), train_listeners.NAME), words, capsys
    )
    assert code == 2
    assert "no corpus of --data has texts" in err
    assert not (tmp_path / "run").exists()
