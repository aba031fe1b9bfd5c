"""The training of the vocoder: a run that is stopped and gone on with in both precisions, and what judges hear of it."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_commands import recordings
from torch import nn

from rwae_audio.commands.common import guarded
from rwae_audio.conversion.pitch import HIGHEST, LOWEST
from rwae_audio.conversion.vocoders import crops, training
from rwae_audio.conversion.vocoders import speech as vocoder_speech
from rwae_audio.conversion.vocoders.crops import Speech
from rwae_audio.conversion.vocoders.neural import Vocoder, VocoderConfig, load_vocoder, save_vocoder, vocode
from rwae_audio.conversion.vocoders.settings import RunConfig
from rwae_audio.data.corpora import an4, folder
from rwae_audio.data.features import PRESETS
from rwae_audio.devices import has_bf16
from rwae_audio.evaluation import judges
from rwae_audio.files import InputError, read_tensors
from rwae_audio.inference.bundle import load_bundle

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes/voice_conversion"))
import train_vocoder

CPU = torch.device("cpu")
AGAINST = ("train.adversarial=0.1", "train.matching=0.1", "train.width=4", "train.moved=0.5", "vocoder.voice=64")
needs_bf16 = pytest.mark.skipif(not has_bf16(CPU), reason="this CPU has no bfloat16 arithmetic")


# ---- a run


def words_of(tmp_path: Path, *settings: str) -> list[str]:
    """A run of four updates on made-up recordings, with two looks."""
    if not (tmp_path / "data").exists():
        recordings(tmp_path / "data", "s{s}/{u}.wav", 8, 3)
    words = ["--data", f"folder={tmp_path / 'data'}", "--threads", "1"]
    sizes = ("train.updates=4", "train.batch=2", "train.frames=20", "train.evaluate_every=2")
    for setting in (*sizes, "vocoder.width=8", "vocoder.blocks=1", *settings):
        words += ["--set", setting]
    return words


def call(*more: str) -> int:
    return guarded(lambda: train_vocoder.main([*more]), "train_vocoder.py")


def same_but_for_seconds(one: Path, other: Path) -> None:
    """Both runs have the same log, but for the seconds, and the same bits in their checkpoints."""
    logs = []
    for run in (one, other):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        logs.append([{key: value for key, value in line.items() if key != "seconds"} for line in lines])
    assert logs[0] == logs[1]
    whole, parts = (read_tensors(run / "latest.safetensors", "a checkpoint") for run in (one, other))
    assert set(whole) == set(parts)
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def stopped(folder: Path, plan: str, *how: str) -> int:
    """Begin a run of this plan that Ctrl-C stops during its first look, or that is stopped as `how` says."""
    folder.mkdir()
    (folder / "run.json").write_text(plan)
    write = training.MetricsLog.write

    def then_stop(log: object, values: dict) -> None:
        write(log, values)
        if values["step"] == 2 and not how:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.MetricsLog, "write", then_stop)
        return call("--resume", str(folder), "--threads", "1", *how)


BOTH = pytest.param("train.precision=bf16", marks=needs_bf16)


@pytest.mark.parametrize("precision", ["train.precision=float32", BOTH])
@pytest.mark.parametrize("judged_by", [(), AGAINST], ids=["alone", "against"])
def test_a_vocoder_is_trained_and_goes_on(
    judged_by: tuple[str, ...], precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run that goes on, after Ctrl-C and after its minutes, has the bits of the uninterrupted one."""
    words, whole = words_of(tmp_path, precision, *judged_by), tmp_path / "whole"
    assert call(*words, "--out", str(whole)) == 0, capsys.readouterr().err
    log = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4]
    names = [
        "loss",
        "spectral",
        "mel",
        *(["adversarial", "matching", "discriminators"] if judged_by else []),
        "gradient",
    ]
    assert [name for name in log[0] if name.startswith("train/")] == [f"train/{name}" for name in names]
    assert all(math.isfinite(value) for line in log for value in line.values())
    kinds = ("natural", "decoded", *(("moved", "returned") if judged_by else ()))
    assert {name for name in log[0] if name.startswith("dev/")} == {f"dev/{kind}" for kind in kinds}
    assert "of 4 updates" in (whole / "vocoder/README.md").read_text()
    vocoder = load_vocoder(whole / "vocoder")
    assert (vocoder.config.width, vocoder.training) == (8, False)
    assert vocoder.bundle == (load_bundle().digest if judged_by else "")
    assert not judged_by or vocoder.network.constant.weight.abs().max() > 0
    plan = (whole / "run.json").read_text()
    assert stopped(tmp_path / "parts", plan) == 130
    on = "continue with: python recipes/voice_conversion/train_vocoder.py --resume"
    assert f"stopped after update 2 of 4; {on} {tmp_path / 'parts'}\n" in capsys.readouterr().err
    assert call("--resume", str(tmp_path / "parts"), "--threads", "1") == 0
    same_but_for_seconds(whole, tmp_path / "parts")
    assert stopped(tmp_path / "late", plan, "--minutes", "1e-9") == 0
    assert capsys.readouterr().out.endswith(f"stopped after update 1 of 4; {on} {tmp_path / 'late'}\n")
    assert call("--resume", str(tmp_path / "late"), "--threads", "1", "--minutes", "60") == 0
    same_but_for_seconds(whole, tmp_path / "late")


def test_what_a_run_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And another run that begins with a vocoder's weights, and one that cannot."""
    words, whole = words_of(tmp_path), tmp_path / "whole"
    assert call(*words, "--out", str(whole)) == 0, capsys.readouterr().err
    vocoder = load_vocoder(whole / "vocoder")
    assert call("--resume", str(whole), "--init", str(whole / "vocoder")) == 2
    assert "expected no --init with it" in capsys.readouterr().err
    for setting, expected in {
        "updates=0": "updates is 0; expected 1 or more",
        "frames=5": "frames is 5; expected 6 or more",
        "precision=bf8": "precision is 'bf8'; expected one of bf16, float32",
    }.items():
        assert call(*words, "--set", f"train.{setting}") == 2
        assert expected in capsys.readouterr().err
    assert call("--data", "folder=nowhere", "--test", "an4") == 2
    assert "--test an4 is not among the corpora given" in capsys.readouterr().err
    more = ["--init", str(whole / "vocoder"), "--set", "train.updates=1", "--set", "train.learning_rate=1e-7"]
    assert call(*words, *more, "--out", str(tmp_path / "more")) == 0, capsys.readouterr().err
    begun = load_vocoder(tmp_path / "more/vocoder")
    assert (tmp_path / "more/vocoder/README.md").read_text().count(
        "    python recipes/voice_conversion/train_vocoder.py"
    ) == 2
    for (name, one), other in zip(vocoder.state_dict().items(), begun.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=name)
    capsys.readouterr()
    assert call(*words, *more, "--set", "vocoder.width=4", "--out", str(tmp_path / "other")) == 2
    assert "has 1 blocks and a width of 8; expected the sizes of [vocoder], or fewer blocks" in capsys.readouterr().err
    (whole / "run.json").write_text("{}")
    assert call("--resume", str(whole)) == 2
    assert "is not the plan of a run" in capsys.readouterr().err


def test_without_bf16_arithmetic_the_run_says_so_and_goes_on_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    runs = {}
    for precision in ("float32", "bf16"):
        words = words_of(tmp_path, f"train.precision={precision}", "train.updates=2", *AGAINST)
        assert call(*words, "--out", str(tmp_path / precision)) == 0, capsys.readouterr().err
        lines = capsys.readouterr().out.splitlines()
        said = [line for line in lines if "bfloat16" in line]
        assert said == ["this cpu has no bfloat16 arithmetic: training in float32"] * (precision == "bf16")
        runs[precision] = tmp_path / precision
    same_but_for_seconds(*runs.values())


@needs_bf16
def test_a_look_is_in_float32_and_updates_are_in_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned, looked = set(), set()
    linear: Callable[..., torch.Tensor] = nn.functional.linear

    def watched(*values: torch.Tensor) -> torch.Tensor:
        result = linear(*values)
        (learned if torch.is_grad_enabled() else looked).add(result.dtype)
        return result

    monkeypatch.setattr(nn.functional, "linear", watched)
    assert call(*words_of(tmp_path, "train.precision=bf16", "train.updates=2"), "--out", str(tmp_path / "run")) == 0
    assert learned == {torch.bfloat16}
    tensors = read_tensors(tmp_path / "run/latest.safetensors", "a checkpoint")
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    assert looked == {torch.float32}


def test_the_log_of_a_vocoder_has_what_judges_hear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the best by their score is kept, beside Griffin-Lim's figures."""
    monkeypatch.setattr(judges, "dnsmos", lambda: lambda sound: judges.Quality(1.0, 1.0, 2.0))
    monkeypatch.setattr(judges, "whisper", lambda: lambda sound: "AB")
    monkeypatch.setattr(judges, "character_error_rate", lambda said, heard: 0.25)
    recordings(tmp_path / "data", "s{s}/{u}.wav", 8, 3)
    words = ["--data", f"folder={tmp_path / 'data'}", "--threads", "1", "--out", str(tmp_path / "run")]
    settings = ("updates=2", "evaluate_every=1", "judged=1", "batch=2", "frames=20")
    words += [word for setting in settings for word in ("--set", f"train.{setting}")]
    words += ["--set", "vocoder.width=8", "--set", "vocoder.blocks=1"]
    read = vocoder_speech.read_speech

    def with_texts(plan: dict, split: str, config: RunConfig) -> Speech:
        speech = read(plan, split, config)  # a folder has no texts
        return replace(speech, texts=("AB",) * len(speech.texts))

    monkeypatch.setattr(vocoder_speech, "read_speech", with_texts)
    assert guarded(lambda: train_vocoder.main(words), "train_vocoder.py") == 0, capsys.readouterr().err
    log = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2]
    for line in log:
        assert line["dev/score"] == pytest.approx(2.0 / 5 - 0.25)
        assert (line["dev/griffin_lim_decoded_mos"], line["dev/natural_cer"]) == (2.0, 0.25)
    card = (tmp_path / "run/vocoder/README.md").read_text()
    assert "after 1 of 2 updates" in card  # the second scores no better
    assert folder.CREDIT in card
    assert an4.CREDIT not in card


def test_copies_at_another_pitch(monkeypatch: pytest.MonkeyPatch) -> None:
    """F0 is moved by one factor for a recording, within its range; unvoiced frames stay unvoiced."""
    contours = []
    vocoder = Vocoder(VocoderConfig(width=8, blocks=1))
    monkeypatch.setattr(crops, "vocode", lambda *words: contours.append(words[2]) or vocode(*words))
    f0 = np.array([0, 100, 120, 0, 150, 90, 0, 450], dtype=np.float32)
    log_mels = torch.zeros(len(f0), 80)
    copies = [crops.at_another_pitch(vocoder, log_mels, f0, torch.Generator().manual_seed(seed)) for seed in range(40)]
    assert {copy.shape for copy in copies} == {log_mels.shape}
    assert not torch.equal(copies[0], copies[1])
    moves = np.log(np.stack([contour.numpy()[[1, 2, 4, 5]] / f0[[1, 2, 4, 5]] for contour in contours]))
    inside = np.stack([contour.numpy()[5] > LOWEST for contour in contours])
    assert np.ptp(moves[inside], axis=1).max() < 1e-5
    assert -0.6 <= moves[inside].min() < -0.2
    assert 0.4 < moves.max() <= 0.6 + 1e-6
    for contour in contours:
        assert (contour.numpy()[f0 == 0] == 0).all()
        assert contour[f0 > 0].min() >= LOWEST
        assert contour.max() <= HIGHEST


def test_a_deeper_vocoder_begins_as_the_one_that_it_is_made_from(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shallow, deep = (Vocoder(VocoderConfig(width=8, blocks=blocks)).eval() for blocks in (2, 4))
    nn.init.normal_(shallow.network.head.weight)
    save_vocoder(tmp_path / "shallow", shallow, {"command": "made with"})
    assert training.begin_with(deep, tmp_path / "shallow") == ["made with"]
    log_mels, f0 = torch.randn(30, 80), torch.full((30,), 120.0)
    expected = vocode(load_vocoder(tmp_path / "shallow"), log_mels, f0)
    torch.testing.assert_close(vocode(deep, log_mels, f0), expected)
    deep.network.blocks[3].scale.data.fill_(1)
    assert not torch.allclose(vocode(deep, log_mels, f0), expected, rtol=1e-2)
    with pytest.raises(InputError, match="has 2 blocks and a width of 8; expected the sizes"):
        training.begin_with(Vocoder(VocoderConfig(width=8, blocks=1)), tmp_path / "shallow")


def test_conversions_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their dynamic codes are those of a conversion into a voice read before, and their voice is that of the recording."""
    options = train_vocoder.arguments(words_of(tmp_path, "train.moved=0.5"))
    plan = train_vocoder.new_plan(options)
    shipped, decoded, copied = load_bundle(), [], []
    copy = vocoder_speech.at_another_pitch

    class Watched:
        config, digest, voice, encode = shipped.config, shipped.digest, shipped.voice, shipped.encode

        def decode(self, voice: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            decoded.append((voice, codes, shipped.decode(voice, codes)))
            return decoded[-1][2]

    def watched_copy(vocoder: Vocoder, log_mels: torch.Tensor, *more: object) -> torch.Tensor:
        copied.append((log_mels, copy(vocoder, log_mels, *more)))
        return copied[-1][1]

    monkeypatch.setattr(vocoder_speech, "load_bundle", lambda folder: Watched())
    monkeypatch.setattr(vocoder_speech, "at_another_pitch", watched_copy)
    heard = vocoder_speech.read_speech(plan, "train", RunConfig.of(plan["config"]))
    recordings_read = len(heard.offsets) - 1
    assert (len(decoded), len(copied)) == (3 * recordings_read, 2 * recordings_read)
    own = [voice for voice, _, _ in decoded[::3]]
    strangers = 0
    for number in range(recordings_read):
        part = slice(*heard.offsets[number : number + 2])
        (voice, codes, reconstruction), (other, same_codes, there), (back_voice, back_codes, back) = decoded[
            3 * number : 3 * number + 3
        ]
        (converted, copy_of_converted), (natural, moved) = copied[2 * number : 2 * number + 2]
        assert same_codes is codes
        assert back_voice is voice
        assert converted is there
        assert any(other is known for known in own[: number + 1])
        strangers += other is not voice
        torch.testing.assert_close(back_codes, shipped.encode(copy_of_converted))
        for kind, log_mels in enumerate((natural, reconstruction, moved, back)):
            np.testing.assert_array_equal(heard.log_mels[kind, part], log_mels.half().numpy())
    assert strangers > recordings_read / 2


def test_copies_need_a_vocoder_of_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Vocoder(VocoderConfig(mel=replace(PRESETS["vocoder"], hop_length=160), width=8, blocks=1))
    monkeypatch.setattr(vocoder_speech, "load_vocoder", lambda folder: other)
    assert call(*words_of(tmp_path, "train.moved=0.5"), "--out", str(tmp_path / "run")) == 2
    assert "copies at another pitch has frames of another kind; expected one of those of" in capsys.readouterr().err


def test_a_vocoder_knows_static_codes_of_the_bundles_dimensions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words_of(tmp_path, "vocoder.voice=3"), "--out", str(tmp_path / "run")) == 2
    assert "[vocoder] voice is 3; expected 64, the static dimensions of the bundle, or 0" in capsys.readouterr().err


def test_a_vocoder_that_knows_voices_begins_as_one_that_does_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain, knowing = (Vocoder(VocoderConfig(width=8, blocks=1, voice=voice)).eval() for voice in (0, 3))
    nn.init.normal_(plain.network.head.weight)
    save_vocoder(tmp_path / "plain", plain, {})
    training.begin_with(knowing, tmp_path / "plain")
    knowing.bundle, (log_mels, f0) = "b", (torch.randn(30, 80), torch.full((30,), 120.0))
    expected = vocode(load_vocoder(tmp_path / "plain"), log_mels, f0)
    torch.testing.assert_close(vocode(knowing.of(torch.ones(3), "b"), log_mels, f0), expected)
    save_vocoder(tmp_path / "knowing", knowing, {})
    with pytest.raises(InputError, match="a width of 8 and a voice of 3; expected the sizes"):
        training.begin_with(Vocoder(VocoderConfig(width=8, blocks=1)), tmp_path / "knowing")


def test_a_vocoder_needs_recordings_that_are_long_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recordings(tmp_path / "data", "s{s}/{u}.wav", 8, 2)
    words = ["--data", f"folder={tmp_path / 'data'}", "--set", "train.frames=200", "--out", str(tmp_path / "run")]
    assert guarded(lambda: train_vocoder.main(words), "train_vocoder.py") == 2
    assert "the longest train recording has 57 frames; expected 200 or more" in capsys.readouterr().err


def test_what_judges_hear_of_a_vocoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNSMOS / 5 − CER, of decoded and natural frames; Griffin-Lim's are asked for once."""
    asked = []

    def rate(sound: np.ndarray) -> judges.Quality:
        asked.append(len(sound))
        return judges.Quality(1.0, 1.0, 2.5 if len(asked) > 4 else 1.5)

    monkeypatch.setattr(judges, "dnsmos", lambda: rate)
    monkeypatch.setattr(judges, "whisper", lambda: lambda sound: "ABCX")
    mel, frames = PRESETS["vocoder"], 12
    log_mels = np.zeros((2, 3 * frames, 80), np.float16)
    offsets = frames * np.arange(4)
    silence, f0 = np.zeros(3 * frames * 256, np.float16), np.zeros(3 * frames, np.float32)
    heard = Speech(silence, log_mels, f0, offsets, np.zeros((3, 64)), mel, texts=("ABCD", "", "ABCD"))
    vocoder, judge = Vocoder(VocoderConfig(width=8, blocks=1)), training.Judges()
    found = judge.judge(vocoder, heard, 2)
    assert len(asked) == 8  # two recordings that have a text, two kinds of frames, two vocoders
    assert set(asked) == {(frames - 1) * 256}
    assert (found["griffin_lim_decoded_mos"], found["natural_mos"], found["decoded_cer"]) == (1.5, 2.5, 0.25)
    assert found["score"] == pytest.approx(2.5 / 5 - 0.25)
    assert judge.judge(vocoder, heard, 2) == found
    assert len(asked) == 12
    assert vocoder.training
