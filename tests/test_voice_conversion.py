"""The recipe of conversions: pairs, and tables of what judges said."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from made_up import speech

from rwae_audio.commands.common import guarded
from rwae_audio.conversion.vocoders import neural as neural_vocoder
from rwae_audio.data.audio import write_audio
from rwae_audio.data.corpora import Source
from rwae_audio.data.corpora.base import Utterance
from rwae_audio.evaluation import judges
from rwae_audio.files import InputError
from rwae_audio.inference.bundle import load_bundle

RECIPE = Path(__file__).parent.parent / "recipes/voice_conversion"
sys.path.insert(0, str(RECIPE))
import evaluate  # noqa: E402
import pairs  # noqa: E402
import picture  # noqa: E402
import samples  # noqa: E402
import tables  # noqa: E402


def utterances(speakers: list[str], each: int) -> list[Utterance]:
    return [Utterance(f"{s}/{u}.wav", s, "test", Path(f"{s}/{u}.wav")) for s in speakers for u in range(each)]


def test_pairs_are_fair_and_the_same_every_time() -> None:
    everyone = utterances(["fa", "fb", "ma", "mb", "mc"], 8)
    gender = {u.speaker: u.speaker[0] for u in everyone}
    drawn = pairs.draw_pairs(everyone[:20], everyone, 60, gender)
    speaker = {u.id: u.speaker for u in everyone}
    assert drawn == pairs.draw_pairs(everyone[:20], everyone, 60, gender)
    assert drawn != pairs.draw_pairs(everyone[:20], everyone, 60, gender, seed=1)
    assert sorted(pair.source for pair in drawn) == sorted(3 * [u.id for u in everyone[:20]])
    assert [speaker[pair.source][0] != pair.target[0] for pair in drawn] == [True, False] * 30
    for pair in drawn:
        assert speaker[pair.source] != pair.target
        assert {speaker[name] for name in (*pair.voice, *pair.references)} == {pair.target}
        assert len({*pair.voice, *pair.references}) == 8
    with pytest.raises(InputError, match="fa has 7 utterances; expected 8"):
        pairs.draw_pairs(utterances(["ma"], 1), utterances(["fa"], 7), 1, gender)
    with pytest.raises(InputError, match=r"no target for fa/0\.wav"):
        pairs.draw_pairs(utterances(["fa"], 1), utterances(["fb"], 8), 1, gender)


@pytest.mark.slow
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


@pytest.mark.slow
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
    with pytest.raises(InputError, match="exists already"):
        samples.main(words)
    with pytest.raises(InputError, match="--rows wrold; did you mean 'world'"):
        samples.main([*words, "--force", "--rows", "wrold"])
    assert "wrote" in capsys.readouterr().err


def test_a_list_needs_its_corpora() -> None:
    with pytest.raises(InputError, match="--data names an4; expected an4 and timit"):
        pairs.heard_in("timit", [Source("an4", "somewhere", "an4")])


@pytest.mark.parametrize("name", pairs.LISTS)
def test_the_lists_that_are_kept(name: str) -> None:
    """As many pairs as they should be, of sources that are understood; a target is no voice of its own reference."""
    found = pairs.read_pairs(RECIPE / f"pairs/{name}.csv")
    heard = {row["id"]: float(row["cer"]) for row in csv.DictReader((RECIPE / f"pairs/{name}-heard.csv").open())}
    how = pairs.LISTS[name]
    assert len(found) == how.pairs
    assert {pair.source for pair in found} <= {key for key, value in heard.items() if value <= how.most_cer + 5e-4}
    for pair in found:
        assert (len(pair.voice), len(pair.references)) == (pairs.VOICE, pairs.REFERENCES)
        speakers = {speaker_of(name) for name in (*pair.voice, *pair.references)}
        assert len(speakers) == 1
        assert speakers != {speaker_of(pair.source)}
        assert pair.target in next(iter(speakers))


def speaker_of(name: str) -> str:
    """Return the speaker's folder in an utterance's id, of LibriSpeech the one above the chapter's."""
    folders = Path(name).parts
    return folders[-3] if folders[-2].isdigit() else folders[-2]


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
    (place / "bad.csv").write_text(tables.as_csv([said(target, cer=2.0) for target in "aabb"]))
    assert guarded(lambda: evaluate.main(["--no-judge", "--list", "an4-dev", "--into", str(tmp_path)]), "x") == 2
    place.rename(tmp_path / "an4-dev")
    assert evaluate.main(["--no-judge", "--list", "an4-dev", "--into", str(tmp_path)]) == 0
    text = (tmp_path / "an4-dev/table.md").read_text()
    assert (tmp_path / "an4-dev/plot.png").read_bytes()[:4] == b"\x89PNG"
    judged = (
        "25.0 [0.0, 50.0] | 25.0 [0.0, 50.0] | 75.0 [50.0, 100.0] | 75.0 [50.0, 100.0] | 20.0 [10.0, 30.0] | 1.00 | 1.00 | "
        "100.0 | 100.0 | 100.0 | 100.0 [100.0, 100.0] | 50.0 [0.0, 100.0] | 50.0 [50.0, 50.0] | 75.0 [50.0, 100.0] | "
        "100.0 [100.0, 100.0] | 0.640 | 1.00 | 1.5 | 1.0"
    )
    assert f"| good | {judged} |" in text
    assert text.index("| good |") < text.index("| bad |")
    (tmp_path / "an4-dev/short.csv").write_text(tables.as_csv(rows[:2]))
    with pytest.raises(InputError, match=r"different numbers of pairs \(bad 4, good 4, short 2\); expected"):
        tables.write_table(tmp_path / "an4-dev", "an4-dev")
    limits = tables.thresholds(tmp_path / "an4-dev")
    assert all(0.6 <= limit <= 0.7 for limit in limits.values())
    assert f"speakers: {limits['resemblyzer']:.3f} and {limits['voicefilter']:.3f}." in text


def test_the_cer_of_a_row_is_pooled() -> None:
    rows = [said("a", cer=0.5, letters=10.0, deletions=5.0), said("b", cer=0.0, letters=30.0, deletions=0.0)]
    written = [dict(zip(tables.COLUMNS, line.split(","), strict=True)) for line in tables.as_csv(rows).split()[1:]]
    limits = dict.fromkeys(tables.ENCODERS, 0.5)
    judged = tables.measures(written, limits)
    assert tables.bracketed(judged, "cer", 100)[0] == pytest.approx(12.5)
    assert tables.cell(judged, "deletions") == "12.5"
    older = [{key: value for key, value in row.items() if key not in ("letters", *tables.EDITS)} for row in written]
    assert tables.bracketed(tables.measures(older, limits), "cer", 100)[0] == pytest.approx(25.0)
    assert tables.cell(tables.measures(older, limits), "deletions") == ""


def test_how_much_more_often_ours_is_accepted() -> None:
    """Pair by pair, the interval over targets; nothing where ours is not judged, or nothing else is."""
    targets = np.array(["a", "a", "b", "b"])
    pairs_of = {"target": targets, "source": np.array(["s"] * 4)}
    ours, other = ({**pairs_of, "accepted": np.array(each)} for each in ([1.0, 0, 1, 1], [0.0, 0, 1, 1]))
    lines = tables.ahead({"rwae": ours, "world": other})
    assert lines[2:] == ["- than `world`: +25.0 [+0.0, +50.0]", ""]
    assert tables.ahead({"world": other, "source": other}) == tables.ahead({"rwae": ours}) == []


def test_intervals_are_over_the_speakers_of_both_sides() -> None:
    """What depends on the source's speaker alone, or on the target's alone, is as uncertain as there are few of them."""
    wide = {"source": np.repeat(["a", "b"], 50), "target": np.tile(np.arange(50).astype(str), 2)}
    other = {"source": wide["target"], "target": wide["source"]}
    for said in (wide, other):
        value = (np.repeat(["a", "b"], 50) == "a").astype(float)
        assert tables.bracketed({**said, "nearer": value}, "nearer", 100) == (50.0, 0.0, 100.0)
        mean, low, high = tables.bracketed({**said, "nearer": np.tile(np.arange(50) % 2, 2).astype(float)}, "nearer")
        assert mean == 0.5
        assert 0.3 < low < 0.42
        assert 0.58 < high < 0.7


def test_rows_of_other_pairs_are_not_compared(tmp_path: Path) -> None:
    natural = [{"encoder": e, "same": same, "cosine": float(same)} for e in tables.ENCODERS for same in (0, 1)]
    (tmp_path / "natural.csv").write_text(tables.as_csv(natural, ("encoder", "same", "cosine")))
    (tmp_path / "one.csv").write_text(tables.as_csv([said("a"), said("b")]))
    (tmp_path / "two.csv").write_text(tables.as_csv([said("b"), said("a")]))
    with pytest.raises(InputError, match="have different pairs; expected those of one list"):
        tables.write_table(tmp_path, "made-up")


def test_a_pair_that_nobody_can_compare_is_left_out() -> None:
    rows = [said("a", resemblyzer_target=0.8), said("a", resemblyzer_target=0.2), said("a", resemblyzer_source=np.nan)]
    written = [dict(zip(tables.COLUMNS, line.split(","), strict=True)) for line in tables.as_csv(rows).split()[1:]]
    found = tables.measures(written, dict.fromkeys(tables.ENCODERS, 0.5))
    np.testing.assert_array_equal(found["nearer"], [1, 0, np.nan])
    np.testing.assert_array_equal(found["nearer_both"], [1, 0, np.nan])
    assert tables.bracketed(found, "nearer")[0] == 0.5
    assert tables.bracketed(found, "nearer_voicefilter")[0] == 1.0


def test_mcd_is_of_what_says_the_same() -> None:
    rows = [said("a", cer=0.1, mcd=4.0), said("a", cer=0.9, mcd=9.0)]
    written = [dict(zip(tables.COLUMNS, line.split(","), strict=True)) for line in tables.as_csv(rows).split()[1:]]
    limits = dict.fromkeys(tables.ENCODERS, 0.5)
    assert tables.cell(tables.measures(written, limits), "mcd") == "4.0"
    assert tables.cell(tables.measures(written[1:], limits), "mcd") == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["natural-test", "an4-test", "timit"])
def test_the_tables_that_are_kept_are_those_of_their_rows(name: str, tmp_path: Path) -> None:
    """table.md, and between its marks the README's; and every row says what it was made with."""
    kept = RECIPE / "results" / name
    shutil.copytree(kept, tmp_path / name)
    tables.write_table(tmp_path / name, name)
    text = (tmp_path / name / "table.md").read_text()
    assert text == (kept / "table.md").read_text()
    rows = [path for path in kept.glob("*.csv") if path.stem != "natural"]
    readme = (RECIPE / "README.md").read_text().partition(f"<!-- {name}: begin -->")[2]
    readme = readme.partition(f"<!-- {name}: end -->")[0]
    columns = len(tables.SHORT) + 2  # and the row's name
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [f"{'|'.join(line.split('|')[:columns])}|" for line in lines] == readme.split("\n")[2:-2]
    assert len(lines) == 2 + len(rows)
    listed = evaluate.sha256(RECIPE / "pairs" / f"{name}.csv")
    for path in rows:
        assert json.loads(path.with_suffix(".json").read_text())["list"] == listed, path
    assert json.loads((kept / "natural.json").read_text()) == {"list": listed}
    shipped = json.loads((kept / "rwae.json").read_text())
    assert shipped["bundle"] == load_bundle().digest
    assert shipped["vocoder"] == evaluate.sha256(neural_vocoder.SHIPPED / "vocoder.safetensors")


VERSA = ("pred.scp", "gt.scp", "text")
OPINIONS = SimpleNamespace(  # judges whose encoders tell a recording by its level
    SPEAKERS=dict.fromkeys(tables.ENCODERS, lambda: lambda s: np.array([np.cos(np.mean(s)), np.sin(np.mean(s))])),
    whisper=lambda threads: lambda samples: f"{np.mean(samples):.1f}",
    dnsmos=lambda: lambda samples: judges.Quality(1.0, 2.0, 3.0),
    distillmos=lambda: lambda samples: 4.0,
    hama=lambda: lambda samples: [f"{np.mean(samples):.1f}", "a"],
    phone_error_rate=lambda expected, recognised: float(expected != recognised) / len(expected),
    character_errors=lambda text, heard: judges.CharacterErrors(3, 3 * int(text != heard), 0, 0),
    fundamental=lambda samples: np.full(4, 100.0),
    pitch=lambda source, made, theirs: judges.Pitch(1.0, float(len(theirs)), 0.5),
    mel_cepstral_distortion=lambda said, made: float(np.abs(said - made[: len(said)]).mean()),
    RATE=16000,
)


@pytest.fixture
def opinions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> evaluate.Judges:
    """Of recordings of speakers a, b (levels 0.1, 0.2) and t (0.8): a has one in the pairs and three others, b five."""
    said = {}
    for speaker, level, count in (("a", 0.1, 4), ("b", 0.2, 5), ("t", 0.8, 8)):
        for number in range(count):
            name = f"{speaker}/{number}.wav"
            path = tmp_path / "speech" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.full(1600, level), 16000, "FLOAT")
            said[name] = Utterance(name, speaker, "test", path, text=f"{level}")
    voice, references = (tuple(f"t/{number}.wav" for number in some) for some in (range(3), range(3, 8)))
    drawn = [pairs.Pair(source, "t", voice, references) for source in ("a/0.wav", *(f"b/{n}.wav" for n in range(5)))]
    heard = {**dict.fromkeys(said, 0.2), "t/1.wav": 0.1, "t/2.wav": 0.5, "elsewhere": 0.0}
    return evaluate.Judges(said, drawn, heard, OPINIONS)


def test_a_pair_is_judged_by_other_recordings_of_both(opinions: evaluate.Judges) -> None:
    assert opinions.of_speaker("a", "a/0.wav") == ["a/1.wav", "a/2.wav", "a/3.wav"]  # the pairs name none
    assert opinions.of_speaker("b", "b/2.wav") == ["b/0.wav", "b/1.wav", "b/3.wav", "b/4.wav"]
    assert opinions.of_speaker("t", "b/2.wav") == [f"t/{n}.wav" for n in range(5)]
    heard: list[tuple[np.ndarray, int]] = []

    def spoken(source: np.ndarray, voice: list[np.ndarray]) -> np.ndarray:
        heard.append((source, len(voice)))
        return np.full(3200, 0.8)

    said = opinions.judge(opinions.pairs[0], evaluate.System(spoken))
    assert set(said) == set(tables.COLUMNS)
    np.testing.assert_allclose(heard[0][0], 0.1)
    assert heard[0][1] == 3
    for encoder in tables.ENCODERS:
        assert said[f"{encoder}_target"] == pytest.approx(1.0)
        assert said[f"{encoder}_source"] == pytest.approx(np.cos(0.7))
    assert (said["cer"], said["register"]) == (1.0, 20.0)  # of five references
    assert (said["overall"], said["distillmos"], said["phones"]) == (3.0, 4.0, 0.5)
    assert (said["seconds"], said["wanted_seconds"]) == (0.2, 0.1)
    assert said["mcd"] == pytest.approx(0.7)

    opinions.samples["t/1.wav"] = np.full(800, 0.8)
    said = opinions.judge(opinions.pairs[0], evaluate.System(spoken, of_target=True))
    assert len(heard[1][0]) == 800  # the one that was understood best
    assert (said["cer"], said["wanted_seconds"]) == (0.0, 0.05)

    opinions.judge(opinions.pairs[0], evaluate.System(spoken, of_minute=True))
    assert heard[2][1] == 3  # all others of the target are compared with
    opinions.utterances = {**opinions.utterances, "t/8.wav": opinions.utterances["t/0.wav"]}
    assert opinions.minute(opinions.pairs[0]) == ["t/0.wav", "t/1.wav", "t/2.wav", "t/8.wav"]

    natural = opinions.natural()
    assert len(natural) == 2 * 8  # only t is a target
    assert {(row["same"], round(row["cosine"], 6)) for row in natural} == {(1, 1.0)}


@pytest.mark.slow
def test_rows_go_on_and_keep_to_their_weights(
    opinions: evaluate.Judges,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls, digest, fails = [], "a" * 64, [3]

    def convert(source: np.ndarray, voice: list[np.ndarray]) -> np.ndarray:
        calls.append(len(calls))
        if len(calls) in fails:
            raise KeyboardInterrupt
        return source + len(calls)

    monkeypatch.setattr(evaluate, "Judges", lambda *given: opinions)
    monkeypatch.setattr(evaluate, "heard_in", lambda listed, folders: {})
    monkeypatch.setattr(evaluate, "read_pairs", lambda path: opinions.pairs)
    monkeypatch.setattr(
        evaluate, "named_systems", lambda *given: {"new": evaluate.System(convert, False, {"bundle": digest})}
    )
    words = ["--data", "an4=.", "--list", "an4-dev", "--into", str(tmp_path / "into")]
    with pytest.raises(KeyboardInterrupt):
        evaluate.main(words)
    place = tmp_path / "into/an4-dev"
    assert len(tables.read_csv(place / "new.csv")) == 2
    assert evaluate.main(words) == 0
    assert evaluate.main(words) == 0  # nothing is judged again
    assert len(calls) == 1 + len(opinions.pairs)
    capsys.readouterr()
    kept = tmp_path / "kept"
    assert evaluate.main([*words, "--audio", str(kept)]) == 0
    assert f"new: judged before, so no conversions are written to {kept / 'new'}" in capsys.readouterr().err
    assert evaluate.main([*words[:-1], str(tmp_path / "again"), "--audio", str(kept)]) == 0
    calls[:] = calls[: 1 + len(opinions.pairs)]
    assert len(list(kept.glob("new/*_as_t.wav"))) == len(opinions.pairs)
    lists = {name: dict(map(str.split, (kept / "new" / name).read_text().splitlines())) for name in VERSA}
    assert len({tuple(of_name) for of_name in lists.values()}) == 1
    assert len(lists["text"]) == len(opinions.pairs)
    assert lists["text"]["0_0_as_t"] == "0.1"
    for name, file in lists["pred.scp"].items():
        assert Path(file) == kept / "new" / f"{name}.wav"
        assert Path(lists["gt.scp"][name]).parent.name == "t"
    rows = tables.read_csv(place / "new.csv")
    assert [row["source"] for row in rows] == [pair.source for pair in opinions.pairs]
    assert rows[1]["mcd"] == "2.0000"
    assert "| new |" in (place / "table.md").read_text()
    digest = "b" * 64
    capsys.readouterr()
    assert guarded(lambda: evaluate.main(words), "evaluate.py") == 2
    assert "new.csv was judged with bundle aaaaaaaaaaaa…; expected bbbbbbbbbbbb…" in capsys.readouterr().err
    (place / "new.json").unlink()
    assert guarded(lambda: evaluate.main(words), "evaluate.py") == 2
    assert "new.csv was judged with list of unknown digest" in capsys.readouterr().err
    (place / "natural.json").write_text(json.dumps({"list": "c" * 64}))
    assert guarded(lambda: evaluate.main(words), "evaluate.py") == 2
    assert "natural.csv was judged with list cccccccccccc…; expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "timit=."], "--data names timit; expected an4"),
        (["--data", "an4=.", "--list", "timit"], "--data names an4; expected an4 and timit"),
        (["--data", "an4=.", "--bundle", "x"], "--bundle x; expected NAME=DIR"),
        (["--data", "an4=.", "--bundle", "world=."], "--bundle world is the name of another row"),
        (["--data", "an4=.", "--bundle", "natural=."], "--bundle natural is the name of another row"),
        (["--data", "an4=.", "--bundle", "rwae-keep=."], "--bundle rwae-keep is the name of another row"),
        (["--data", "an4=.", "--adain", "rwae-keep=."], "--adain rwae-keep is the name of another row"),
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
