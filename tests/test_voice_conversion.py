"""The recipe of conversions: pairs, tables of what judges said, and a vocoder that is trained, stopped and gone on with."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from made_up import speech
from test_ladder import recordings

from rwae_audio import divergences, judges
from rwae_audio.audio import write_audio
from rwae_audio.commands.common import guarded
from rwae_audio.corpora.base import Utterance
from rwae_audio.features import PRESETS
from rwae_audio.files import InputError
from rwae_audio.neural_vocoder import Vocoder, VocoderConfig, load_vocoder

RECIPE = Path(__file__).parent.parent / "recipes/voice_conversion"
sys.path.insert(0, str(RECIPE))
import discriminators  # noqa: E402
import evaluate  # noqa: E402
import pairs  # noqa: E402
import picture  # noqa: E402
import samples  # noqa: E402
import tables  # noqa: E402
import train_vocoder  # noqa: E402
import vocoder_training  # noqa: E402


def utterances(speakers: list[str], each: int) -> list[Utterance]:
    return [Utterance(f"{s}/{u}.wav", s, "test", Path(f"{s}/{u}.wav")) for s in speakers for u in range(each)]


def test_pairs_are_fair_and_the_same_every_time() -> None:
    everyone = utterances(["fa", "fb", "ma", "mb", "mc"], 8)
    drawn = pairs.draw_pairs(everyone[:20], everyone, 60)
    speaker = {u.id: u.speaker for u in everyone}
    assert drawn == pairs.draw_pairs(everyone[:20], everyone, 60)
    assert drawn != pairs.draw_pairs(everyone[:20], everyone, 60, seed=1)
    assert sorted(pair.source for pair in drawn) == sorted(3 * [u.id for u in everyone[:20]])
    assert [speaker[pair.source][0] != pair.target[0] for pair in drawn] == [True, False] * 30
    for pair in drawn:
        assert speaker[pair.source] != pair.target
        assert {speaker[name] for name in (*pair.voice, *pair.references)} == {pair.target}
        assert len({*pair.voice, *pair.references}) == 8
    with pytest.raises(InputError, match="fa has 7 utterances; expected 8"):
        pairs.draw_pairs(utterances(["ma"], 1), utterances(["fa"], 7), 1)
    with pytest.raises(InputError, match=r"no target for fa/0\.wav"):
        pairs.draw_pairs(utterances(["fa"], 1), utterances(["fb"], 8), 1)


def test_a_picture_of_a_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    pair = pairs.read_pairs(RECIPE / "pairs/an4-dev.csv")[2]
    said = {}
    for i, name in enumerate((pair.source, *pair.voice)):
        path = tmp_path / f"{i}.wav"
        write_audio(path, speech(i, 0.8), 16000)
        said[name] = Utterance(name, f"speaker{i}", "dev", path)
    monkeypatch.setattr(picture, "heard_in", lambda listed, folders: said)
    assert picture.main(["--pairs", "2", "--out", str(tmp_path / "pair.png")]) == 0
    assert (tmp_path / "pair.png").read_bytes()[:4] == b"\x89PNG"
    assert f"speaker0 as {pair.target}" in capsys.readouterr().err
    with pytest.raises(InputError, match="--pairs 80; expected numbers from 0 to 79"):
        picture.main(["--pairs", "80"])


def test_a_page_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Every cell has a picture and a player, whose sound is the system's; the text is escaped; nothing is overwritten."""
    pair = pairs.read_pairs(RECIPE / "pairs/an4-dev.csv")[3]
    said = {}
    for i, name in enumerate((pair.source, *pair.voice)):
        write_audio(tmp_path / f"{i}.wav", speech(i, 0.8), 16000)
        said[name] = Utterance(name, f"speaker{i}", "dev", tmp_path / f"{i}.wav", text="ONE < TWO")
    monkeypatch.setattr(samples, "heard_in", lambda listed, folders: said)
    words = ["--pairs", "3", "--rows", "copy-griffin-lim", "--out", str(tmp_path / "page.html")]
    assert samples.main(words) == 0
    page = (tmp_path / "page.html").read_text()
    assert f"speaker0 as {pair.target}: ONE &lt; TWO" in page
    assert re.findall(r"<figcaption>([^<]+)", page) == ["source", "target", "copy-griffin-lim"]
    sounds = [base64.b64decode(found) for found in re.findall(r"data:audio/wav;base64,([^\"]+)", page)]
    assert len(sounds) == len(re.findall("data:image/png;base64,", page)) == 3
    for sound, number in zip(sounds, (0, 1), strict=False):
        np.testing.assert_allclose(soundfile.read(io.BytesIO(sound))[0], speech(number, 0.8), atol=2e-4)
    with pytest.raises(InputError, match="is there already"):
        samples.main(words)
    with pytest.raises(InputError, match="--rows wrold; did you mean 'world'"):
        samples.main([*words, "--force", "--rows", "wrold"])
    assert "wrote" in capsys.readouterr().err


def test_a_list_needs_its_corpora() -> None:
    with pytest.raises(InputError, match="--data names an4; expected an4 and timit"):
        pairs.heard_in("timit", {"an4": "somewhere"})


@pytest.mark.parametrize("name", pairs.LISTS)
def test_the_lists_that_are_kept(name: str) -> None:
    """As many pairs as they should be, of sources that are understood; a target is no voice of its own reference."""
    found = pairs.read_pairs(RECIPE / f"pairs/{name}.csv")
    heard = {row["id"]: float(row["cer"]) for row in csv.DictReader((RECIPE / f"pairs/{name}-heard.csv").open())}
    assert len(found) == pairs.LISTS[name]
    assert {pair.source for pair in found} <= {key for key, value in heard.items() if value <= pairs.MOST_CER + 5e-4}
    for pair in found:
        assert (len(pair.voice), len(pair.references)) == (pairs.VOICE, pairs.REFERENCES)
        assert all(f"/{pair.target}/" in name for name in (*pair.voice, *pair.references))
        assert pair.target not in pair.source


def said(target: str, **changes: float) -> dict[str, object]:
    numbers = dict.fromkeys(tables.COLUMNS[2:], 1.0)
    return {**numbers, "source": "x", "target": target, "voicefilter_source": 0.5, "resemblyzer_source": 0.5, **changes}


def test_a_table_of_what_judges_said(tmp_path: Path) -> None:
    place = tmp_path / "made-up"
    place.mkdir()
    natural = [
        {"encoder": encoder, "same": same, "cosine": cosine}
        for encoder in tables.ENCODERS
        for same, cosine in [(1, 0.9), (1, 0.7), (0, 0.6), (0, 0.4)]
    ]
    (place / "natural.csv").write_text(tables.as_csv(natural, ("encoder", "same", "cosine")))
    rows = [
        said("a", cer=0.1, resemblyzer_target=0.8),
        said("a", cer=0.5, resemblyzer_target=0.8),  # not understood
        said("b", cer=0.1, resemblyzer_target=0.55),  # nearer, and not near enough
        said("b", cer=0.1, resemblyzer_target=0.41, seconds=1.1, register=-3.0, correlation=np.nan),
    ]
    (place / "good.csv").write_text(tables.as_csv(rows))
    (place / "bad.csv").write_text(tables.as_csv([said("a", cer=2.0)] * 4))
    assert guarded(lambda: evaluate.main(["--no-judge", "--list", "an4-dev", "--into", str(tmp_path)]), "x") == 2
    place.rename(tmp_path / "an4-dev")
    assert evaluate.main(["--no-judge", "--list", "an4-dev", "--into", str(tmp_path)]) == 0
    text = (tmp_path / "an4-dev/table.md").read_text()
    assert (tmp_path / "an4-dev/plot.png").read_bytes()[:4] == b"\x89PNG"
    judged = (
        "25.0 [0.0, 50.0] | 75.0 [50.0, 100.0] | 100.0 [100.0, 100.0] | 0.640 | 75.0 [50.0, 100.0] | 20.0 [10.0, 30.0]"
    )
    assert f"| good | {judged} |" in text
    assert "| 1.00 | 1.00 | 1.5 | 1.0 |" in text
    assert text.index("| good |") < text.index("| bad |")
    (tmp_path / "an4-dev/short.csv").write_text(tables.as_csv(rows[:2]))
    with pytest.raises(InputError, match=r"different numbers of pairs \(bad 4, good 4, short 2\); expected"):
        tables.write_table(tmp_path / "an4-dev", "an4-dev")
    limits = tables.thresholds(tmp_path / "an4-dev")
    assert all(0.6 <= limit <= 0.7 for limit in limits.values())
    assert f"cosine over {limits['resemblyzer']:.3f}" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "timit=."], "--data names timit; expected an4"),
        (["--data", "an4=.", "--list", "timit"], "--data names an4; expected an4 and timit"),
        (["--data", "an4=.", "--bundle", "x"], "--bundle x; expected NAME=DIR"),
        (["--data", "an4=.", "--bundle", "world=."], "--bundle world is the name of another row"),
        (["--data", "an4=.", "--rows", "wold"], "--rows wold; did you mean 'world'?"),
    ],
)
def test_bad_input_of_evaluate_is_one_line(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(lambda: evaluate.main([*words, "--into", str(tmp_path / "new")]), "evaluate.py") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert expected in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("judged_by", [(), ("train.adversarial=0.1", "train.matching=0.1", "train.width=4")])
def test_a_vocoder_is_trained_and_goes_on(
    judged_by: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("auraloss")
    recordings(tmp_path / "data", "s{s}/{u}.wav", 8, 3)
    words = ["--data", f"folder={tmp_path / 'data'}", "--threads", "1"]
    for setting in (
        "train.batch=2",
        "train.frames=20",
        "train.evaluate_every=2",
        "vocoder.width=8",
        "vocoder.blocks=1",
        *judged_by,
    ):
        words += ["--set", setting]

    def call(*more: str) -> int:
        return guarded(lambda: train_vocoder.main([*more]), "train_vocoder.py")

    assert call(*words, "--set", "train.updates=4", "--out", str(tmp_path / "whole")) == 0, capsys.readouterr().err
    folder = tmp_path / "whole"
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4]
    assert ("train/discriminators" in log[0]) == bool(judged_by)
    assert "of 4 updates" in (folder / "vocoder/README.md").read_text()
    vocoder = load_vocoder(folder / "vocoder")
    assert (vocoder.config.width, vocoder.training) == (8, False)

    # a run that stopped after its first two updates
    plan = json.loads((folder / "run.json").read_text())
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/run.json").write_text(json.dumps(plan))
    step = vocoder_training.MetricsLog.write

    def stop_after(log: object, values: dict) -> None:
        step(log, values)
        if values["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocoder_training.MetricsLog, "write", stop_after)
        assert call("--resume", str(tmp_path / "parts"), "--threads", "1") == 130
    assert "stopped after update 2" in capsys.readouterr().err
    assert call("--resume", str(tmp_path / "parts"), "--threads", "1") == 0
    again = load_vocoder(tmp_path / "parts/vocoder")
    for (name, one), other in zip(vocoder.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert call("--resume", str(tmp_path / "parts"), "--init", str(folder / "vocoder")) == 2
    assert "expected no --init beside it" in capsys.readouterr().err
    (tmp_path / "parts/run.json").write_text("{}")
    assert call("--resume", str(tmp_path / "parts")) == 2
    assert "does not say what was run" in capsys.readouterr().err
    assert call(*words, "--set", "train.updates=0") == 2
    assert "[train] updates is 0; expected 1 or more" in capsys.readouterr().err
    assert call("--data", "folder=nowhere", "--test", "an4") == 2
    assert "--test an4 is not among the corpora given" in capsys.readouterr().err

    # another run that begins with its weights, and one that cannot
    more = ["--init", str(folder / "vocoder"), "--set", "train.updates=1", "--set", "train.learning_rate=1e-7"]
    assert call(*words, *more, "--out", str(tmp_path / "more")) == 0, capsys.readouterr().err
    begun = load_vocoder(tmp_path / "more/vocoder")
    assert (tmp_path / "more/vocoder/README.md").read_text().count("    python recipes/voice_conversion/") == 2
    for (name, one), other in zip(vocoder.state_dict().items(), begun.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=name)
    capsys.readouterr()
    assert call(*words, *more, "--set", "vocoder.width=4", "--out", str(tmp_path / "other")) == 2
    assert "has other sizes; expected those of [vocoder]" in capsys.readouterr().err


def test_what_judges_hear_of_a_vocoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNSMOS / 5 − CER, of decoded and natural frames; Griffin-Lim's are asked for once."""
    asked = []

    def rate(sound: np.ndarray) -> judges.Quality:
        asked.append(len(sound))
        return judges.Quality(1.0, 1.0, 2.5 if len(asked) > 4 else 1.5)

    monkeypatch.setattr(judges, "dnsmos", lambda: rate)
    monkeypatch.setattr(judges, "whisper", lambda: lambda sound: "ABCX")
    mel, frames = PRESETS["vocoder"], 12
    parts = {name: np.zeros((3 * frames, 80), np.float16) for name in ("log_mels", "decoded")}
    offsets = frames * np.arange(4)
    silence, f0 = np.zeros(3 * frames * 256, np.float16), np.zeros(3 * frames, np.float32)
    heard = vocoder_training.Speech(silence, **parts, f0=f0, offsets=offsets, mel=mel, texts=("ABCD", "", "ABCD"))
    vocoder, ears = Vocoder(VocoderConfig(width=8, blocks=1)), vocoder_training.Ears()
    found = ears.judge(vocoder, heard, 2)
    assert len(asked) == 8  # two recordings that have a text, two kinds of frames, two vocoders
    assert set(asked) == {(frames - 1) * 256}
    assert (found["griffin_lim_decoded_mos"], found["natural_mos"], found["decoded_cer"]) == (1.5, 2.5, 0.25)
    assert found["score"] == pytest.approx(2.5 / 5 - 0.25)
    assert ears.judge(vocoder, heard, 2) == found
    assert len(asked) == 12
    assert vocoder.training


def test_what_discriminators_ask_for() -> None:
    """At a score of 0 both hinges are 1; what was recorded has no distance from itself; two noises are soon told apart; and
    what the vocoder learns passes through them, into it alone."""
    torch.manual_seed(0)
    they = discriminators.Discriminators(4, 1e-2)
    assert sum(p.numel() for p in discriminators.Discriminators(16, 1e-3).parameters()) < 1e6
    recorded, made = 0.1 * torch.randn(2, 4000), 0.1 * torch.randn(2, 4000).cumsum(1)
    made.requires_grad_()
    same = they.terms(recorded, recorded.clone())
    assert float(same["matching"].detach()) == 0.0
    with divergences.frozen(they):
        told = they.terms(recorded, made)
        sum(told.values()).backward()
    assert made.grad is not None
    assert float(made.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in they.parameters())
    for one in they.each:
        one.last.parametrizations.weight.original0.data.zero_()  # the norm of its weight
        one.last.bias.data.zero_()
    assert float(they.terms(recorded, made)["adversarial"].detach()) == pytest.approx(1.0)
    losses = [they.step(recorded, made) for _ in range(30)]
    assert losses[0] == pytest.approx(2.0)
    assert losses[-1] < 1.0
