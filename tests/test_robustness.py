"""Degradations of recordings, and the recipe that scores embeddings of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from made_up import speech

from rwae_audio.commands.common import guarded
from rwae_audio.conversion.reading import read_file
from rwae_audio.conversion.voice import voice_of
from rwae_audio.data.audio import read_audio
from rwae_audio.data.corpora import Corpus, read_corpus
from rwae_audio.data.store import open_store
from rwae_audio.evaluation.benchmark import benchmark
from rwae_audio.evaluation.trials import all_pairs, write_trials
from rwae_audio.files import write_tensors
from rwae_audio.inference.bundle import load_bundle

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes/timit"))
import degradations
import ecapa
import ladder_runs
import robustness
from degradations import CONDITIONS, RATE, active_level, with_babble, with_noise

BY_NAME = {condition.name: condition for condition in CONDITIONS}
WAVEFORM = speech(3, 4.0)
SPEAKERS, EACH = 4, 3


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def degraded(name: str, waveform: np.ndarray = WAVEFORM, seed: int = 0) -> np.ndarray:
    talkers = [speech(number, 1.0 + 0.3 * number) for number in (0, 1, 4)]
    return BY_NAME[name].degrade(waveform, generator(seed), talkers)


def decibels(ratio: float) -> float:
    return float(20 * np.log10(ratio))


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def test_the_active_level_knows_no_pauses_and_no_offset() -> None:
    tone = 0.1 * np.sin(2 * np.pi * 200 * np.arange(2 * RATE) / RATE)
    assert active_level(tone) == pytest.approx(0.1 / np.sqrt(2), rel=1e-3)
    padded = np.concatenate([np.zeros(RATE), tone, np.zeros(3 * RATE)]).astype(np.float32)
    for waveform in (padded, padded + np.float32(0.02)):
        assert abs(decibels(active_level(waveform) / rms(tone))) < 0.1
    assert active_level(tone[:100]) > 0  # it is shorter than one block
    assert active_level(np.zeros(10)) == 0


@pytest.mark.parametrize(("name", "gain"), [("quiet", -20), ("loud", 10)])
def test_the_level_changes_and_nothing_is_clipped(name: str, gain: float) -> None:
    loud = WAVEFORM / np.abs(WAVEFORM).max() * np.float32(0.9)
    result = degraded(name, loud)
    assert decibels(rms(result) / rms(loud)) == pytest.approx(gain, abs=1e-3)
    np.testing.assert_allclose(result, loud * 10 ** (gain / 20), rtol=1e-5)


def test_the_offset_is_added_to_each_sample() -> None:
    np.testing.assert_allclose(degraded("offset") - WAVEFORM, 0.02, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "ratio"), [("hum", 20), ("noise-20", 20), ("noise-10", 10), ("babble-20", 20), ("babble-10", 10)]
)
def test_what_is_added_lies_as_far_below_the_speech_as_it_says(name: str, ratio: float) -> None:
    for scale in (1.0, 0.01):  # relative to the speech, however loud it is
        waveform = WAVEFORM * np.float32(scale)
        added = degraded(name, waveform) - waveform
        assert decibels(active_level(waveform) / rms(added)) == pytest.approx(ratio, abs=0.1)


def test_the_hum_is_that_of_the_mains() -> None:
    added = degraded("hum") - WAVEFORM
    power = np.square(np.abs(np.fft.rfft(added[: 3 * RATE])))  # bins are a third of a hertz apart
    mains = power[[150, 300, 450, 600, 750, 900]]
    assert mains.sum() > 0.99 * power.sum()
    assert (np.diff(mains) < 0).all()


def test_the_noise_is_white_and_the_babble_is_the_talkers() -> None:
    noise = with_noise(WAVEFORM, generator(), 10) - WAVEFORM
    power = np.square(np.abs(np.fft.rfft(noise))).reshape(-1)
    bands = [band.mean() for band in np.array_split(power[1:], 8)]
    assert max(bands) < 1.2 * min(bands)
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    babble = with_babble(WAVEFORM, generator(), [tone, 0.01 * tone], 10) - WAVEFORM
    power = np.square(np.abs(np.fft.rfft(babble[:RATE])))
    assert power[435:446].sum() > 0.99 * power.sum()


def test_the_room_falls_by_60_db_in_t60() -> None:
    response = degradations.room_response(generator())
    assert np.square(response).sum() == pytest.approx(1)
    assert response.argmax() == 0
    decay = 10 * np.log10(np.cumsum(np.square(response)[::-1])[::-1])  # Schroeder's backward integration
    inside = np.flatnonzero((decay < -5) & (decay > -35))
    slope = np.polyfit(inside / RATE, decay[inside], 1)[0]
    assert -60 / slope == pytest.approx(0.3, abs=0.03)
    impulse = np.zeros(RATE, dtype=np.float32)
    impulse[1000] = 1.0
    heard = degradations.reverberated(impulse, generator())
    assert heard.shape == impulse.shape
    np.testing.assert_allclose(heard[:1000], 0, atol=1e-6)
    np.testing.assert_allclose(heard[1000 : 1000 + len(response)], response, atol=1e-6)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_same_seed_makes_the_same_file_and_another_does_not(name: str, tmp_path: Path) -> None:
    condition = BY_NAME[name]
    files = []
    for number, seed in enumerate((0, 0, 1)):
        path = tmp_path / condition.place(f"{number}.flac")
        degradations.write_recording(path, degraded(name, seed=seed), condition)
        files.append(read_audio(path).samples)
    np.testing.assert_array_equal(files[0], files[1])
    drawn = name.split("-")[0] in ("hum", "noise", "babble", "room")
    assert np.array_equal(files[0], files[2]) != drawn


@pytest.mark.parametrize("name", ["mp3-64", "mp3-32", "opus-16"])
def test_the_codecs_have_their_bit_rate(name: str, tmp_path: Path) -> None:
    condition = BY_NAME[name]
    path = tmp_path / condition.place("a.wav")
    waveform = with_noise(WAVEFORM, generator(), 15)  # Opus gives a clean buzz fewer bits than a recording
    degradations.write_recording(path, waveform, condition)
    info = soundfile.info(path)
    assert (info.format, info.samplerate) == ("MP3" if condition.kind == "mp3" else "OGG", RATE)
    real = 8 * path.stat().st_size / 1000 / (len(WAVEFORM) / RATE)
    assert real == pytest.approx(condition.bit_rate, rel=0.15)
    assert real == pytest.approx(float(name.split("-")[1]), rel=0.15)


@pytest.mark.parametrize(("name", "rate"), [("rate-11025", 11025), ("rate-8000", 8000)])
def test_a_lower_rate_has_nothing_above_half_of_it(name: str, rate: int, tmp_path: Path) -> None:
    noise = 0.1 * generator().standard_normal(RATE).astype(np.float32)
    degradations.write_recording(tmp_path / "a.wav", noise, BY_NAME[name])
    audio = read_audio(tmp_path / "a.wav", RATE)
    assert (audio.source_rate, len(audio.samples)) == (rate, RATE)
    power = np.square(np.abs(np.fft.rfft(audio.samples * np.hanning(RATE))))  # a bin a hertz
    assert power[rate // 2 + 100 :].sum() < 1e-6 * power.sum()
    assert power[rate // 4 : rate // 2 - 500].mean() > 0.5 * power[100 : rate // 4].mean()


def test_a_float_file_keeps_its_samples(tmp_path: Path) -> None:
    loud = degraded("loud", 3 * WAVEFORM)
    assert np.abs(loud).max() > 1
    for name in ("plain", "loud"):
        degradations.write_recording(tmp_path / f"{name}.wav", loud, BY_NAME[name])
        np.testing.assert_array_equal(read_audio(tmp_path / f"{name}.wav").samples, loud)
    assert (tmp_path / "plain.wav").read_bytes() == (tmp_path / "loud.wav").read_bytes()


def test_babble_is_by_nobody_in_the_trials(tmp_path: Path) -> None:
    for speaker in range(8):
        for session in range(2):
            path = tmp_path / f"s{speaker}/{session}/a.wav"
            path.parent.mkdir(parents=True)
            soundfile.write(path, np.zeros(10), RATE)
    names = [f"s{speaker}/0/a.wav" for speaker in (0, 0, 1, 1)]
    names[1], names[3] = "s0/0/b.wav", "s1/0/b.wav"
    trials = all_pairs(names, ["0", "0", "1", "1"])
    paths = [tmp_path / name for name in names]
    for pool in degradations.babblers(trials, paths, tmp_path, 6):  # neither s0/1 nor s1/1
        speakers = {path.relative_to(tmp_path).parts[0] for group in pool for path in group}
        assert speakers == {f"s{number}" for number in range(2, 8)}
    everybody = {"0": set(paths[:2]), "1": set(paths[2:])}
    for speaker, pool in zip("0011", degradations.babblers(trials, paths, tmp_path, 99), strict=True):
        assert {path for group in pool for path in group} == everybody["1" if speaker == "0" else "0"]


def test_where_nobody_else_is_there_babble_is_by_speakers_that_no_trial_compares(tmp_path: Path) -> None:
    lines = [("a", "a"), ("b", "b"), ("c", "c"), ("a", "b")]
    rows = [f"{int(one == other)} {one}0.wav {other}1.wav" for one, other in lines]
    (tmp_path / "list.txt").write_text("\n".join(rows))
    trials = robustness.read_trials(tmp_path / "list.txt")
    pools = degradations.babblers(trials, [Path(name) for name in trials.names], tmp_path, 1)
    heard = [{path.name[0] for group in pool for path in group} for pool in pools]
    expected = {"a0.wav": {"c"}, "a1.wav": {"b", "c"}, "b0.wav": {"a", "c"}, "b1.wav": {"c"}}
    expected |= {"c0.wav": {"a", "b"}, "c1.wav": {"a", "b"}}
    assert dict(zip(trials.names, heard, strict=True)) == expected


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with made-up speech in wav/ and all its pairs in trials.txt; nobody writes to it."""
    folder = tmp_path_factory.mktemp("corpus")
    names = [f"s{speaker}/{number}.flac" for speaker in range(SPEAKERS) for number in range(EACH)]
    for number, name in enumerate(names):
        (folder / "wav" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / "wav" / name, speech(number // EACH, 0.8 + 0.1 * (number % EACH)), RATE)
    write_trials(folder / "trials.txt", all_pairs(names, [name.split("/")[0] for name in names]))
    return folder


@pytest.fixture
def call(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """The script with these words and the made-up corpus, in this process, as if resemblyzer were not installed."""
    monkeypatch.setitem(sys.modules, "resemblyzer", None)

    def run(*words: object, audio: bool = True) -> int:
        command = ["--trials", corpus / "trials.txt", *words, "--threads", 1]
        command += ["--audio-dir", corpus / "wav"] if audio else []
        monkeypatch.setattr(sys, "argv", ["robustness.py", *(str(word) for word in command)])
        return guarded(robustness.main, "robustness.py")

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def test_a_bundle_and_the_vectors_of_the_written_files_have_the_same_table(
    call: Callable[..., int], corpus: Path, bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--bundle", bundle_folder, "--out", tmp_path / "own", "--replicates", 20) == 0
    out, err = capsys.readouterr()
    assert [line.split(" is left out")[0] for line in err.splitlines()[:2]] == [
        *("robustness.py: d-vector", "robustness.py: ecapa"),
    ]
    assert len(out.splitlines()) == 1 + len(CONDITIONS) + 1
    report = json.loads((tmp_path / "own/robustness.json").read_text())
    assert report["command"].startswith("python recipes/timit/robustness.py --trials $DIR/trials.txt --bundle $DIR/")
    assert (report["seed"], report["trials"], report["target_trials"]) == (0, 66, 12)
    (row,) = report["rows"].values()
    assert set(row) == {*BY_NAME, "mean"}
    assert row["plain"]["test"] == row["plain"]["both"]
    others = [row[name]["test"]["eer"] for name in BY_NAME if name != "plain"]
    assert row["mean"]["test"]["eer"] == pytest.approx(np.mean(others))
    low, high = row["mean"]["both"]["interval"]
    assert 0 <= low <= high <= 1
    assert len({row[name]["test"]["eer"] for name in row}) > 3
    text = (tmp_path / "own/robustness.md").read_text()
    assert text.count("\n|") == 1 + 1 + len(CONDITIONS) + 1
    assert (tmp_path / "own/robustness.png").read_bytes().startswith(b"\x89PNG")

    assert call("--write", tmp_path / "degraded") == 0
    bundle, vectors = load_bundle(bundle_folder), tmp_path / "tiny"
    vectors.mkdir()
    assert {path.name for path in (tmp_path / "degraded").iterdir()} == set(BY_NAME)
    for condition in CONDITIONS:
        folder = tmp_path / "degraded" / condition.name
        names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.*"))]
        assert names == [f"s{s}/{u}.{condition.kind}" for s in range(SPEAKERS) for u in range(EACH)]
        codes = {name: voice_of(bundle, read_file(folder / name, bundle.config.mel), False).code for name in names}
        write_tensors(vectors / f"{condition.name}.safetensors", codes)
    words = ["--embeddings", vectors, "--replicates", 20]
    assert call(*words, "--out", tmp_path / "theirs", audio=False) == 0
    assert json.loads((tmp_path / "theirs/robustness.json").read_text())["rows"] == {"tiny": row}
    both = ["--bundle", bundle_folder, "--out", tmp_path / "both", "--seed", 1]
    assert call(*words, *both) == 0
    rows = json.loads((tmp_path / "both/robustness.json").read_text())["rows"]
    assert rows["tiny"] == row
    (own,) = (values for name, values in rows.items() if name != "tiny")
    assert own["quiet"] == row["quiet"]  # nothing is drawn
    assert own["noise-10"] != row["noise-10"]


def test_the_network_of_an_ecapa_run_is_a_row(
    call: Callable[..., int],
    bundle_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("speechbrain")
    monkeypatch.setattr(ecapa, "CHANNELS", (8, 8, 8, 8, 24))
    run, bundle = tmp_path / "run", load_bundle(bundle_folder)
    run.mkdir()
    (run / "config.json").write_text(json.dumps(bundle.config.tables()))
    torch.manual_seed(0)
    network = ecapa.new_network(bundle.config.mel.n_mels).eval()
    ecapa.save(network, bundle.normaliser, run / ecapa.WEIGHTS)
    words = ["--bundle", bundle_folder, "--replicates", 2]
    assert call(*words, "--ecapa", run, "--out", tmp_path / "out") == 0
    rows = json.loads((tmp_path / "out/robustness.json").read_text())["rows"]
    assert list(rows) == [bundle.config.objective.name, "ecapa"]
    soundfile.write(tmp_path / "a.wav", WAVEFORM, RATE)
    (vector,) = ecapa.embedder(run)([tmp_path / "a.wav"])
    frames = bundle.normaliser(bundle.frames(read_audio(tmp_path / "a.wav").samples))
    with torch.no_grad():
        np.testing.assert_allclose(vector, network(frames[None])[0, 0].numpy(), rtol=1e-3, atol=1e-4)  # float16 frames
    capsys.readouterr()
    write_tensors(run / ecapa.WEIGHTS, {"mean": torch.zeros(2)})
    assert call(*words, "--ecapa", run, "--out", tmp_path / "other") == 2
    assert ecapa.WEIGHTS in capsys.readouterr().err


def test_bad_input_is_one_line_and_nothing_is_written(
    call: Callable[..., int], corpus: Path, bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    vectors = {name: torch.ones(3) for name in robustness.read_trials(corpus / "trials.txt").names}
    for name in BY_NAME:
        (tmp_path / "mixed").mkdir(exist_ok=True)
        longer = {key: torch.ones(4) for key in vectors} if name == "loud" else vectors
        write_tensors(tmp_path / f"mixed/{name}.safetensors", longer)
    before = sorted(tmp_path.rglob("*"))
    for words, audio, culprit in (
        (["--write", tmp_path / "there"], True, "there exists already"),
        (["--out", tmp_path / "there"], True, "there exists already"),
        (["--embeddings", tmp_path / "there"], False, "plain, quiet"),
        (["--embeddings", tmp_path / "none"], False, "none is not a folder"),
        (["--embeddings", tmp_path / "mixed"], False, "several lengths"),
        (["--audio-dir", tmp_path / "there"], False, "s0/0.flac"),
        (["--ecapa", tmp_path / "there", "--bundle", bundle_folder], True, "config.json"),
    ):
        assert call(*words, audio=audio) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert culprit in err
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(SystemExit):
        call(audio=False)
    assert "--audio-dir" in capsys.readouterr().err


def test_two_recordings_that_become_one_are_refused(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a.wav", "a.flac", "b.wav", "c.wav"]
    for name in names:
        soundfile.write(tmp_path / name, speech(0, 0.5), RATE)
    write_trials(tmp_path / "list.txt", all_pairs(names, ["a", "a", "b", "b"]))
    words = ["--trials", tmp_path / "list.txt", "--audio-dir", tmp_path, "--write", tmp_path / "out"]
    assert call(*words, audio=False) == 2
    assert "become a.wav" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_ladder_measures_a_bundle_on_degraded_recordings(bundle_folder: Path, tmp_path: Path) -> None:
    """Degraded recordings are written once; the rates are those of the recipe's own score."""
    demo, bundle = read_corpus("demo"), load_bundle(bundle_folder)
    chosen = [*demo.speakers("train")[:2], *demo.speakers("test")[:2]]
    utterances = [u for name in chosen for u in demo.utterances if u.speaker == name][::3]
    corpus = Corpus("demo", tuple(utterances), synthetic=True)
    bench = benchmark(open_store([corpus], bundle.config.mel, tmp_path / "cache"), corpus, "test")
    folder = tmp_path / "degraded/demo"
    first = ladder_runs.degraded_rates(bundle, corpus, bench, folder)
    recording = folder / "noise-20" / CONDITIONS[0].place(bench.trials.names[0])
    assert 0 <= first["degraded"]["both"]["eer"] <= 1
    noisy, clean = (read_audio(path, RATE).samples for path in (recording, bench.store.utterances[bench.rows[0]].path))
    assert active_level(noisy - clean) == pytest.approx(0.1 * active_level(clean), rel=0.1)
    before = recording.stat().st_mtime_ns
    assert ladder_runs.degraded_rates(bundle, corpus, bench, folder) == first
    assert recording.stat().st_mtime_ns == before
    vectors = {
        condition.name: np.stack(
            [
                voice_of(bundle, read_file(folder / condition.name / condition.place(name), bundle.config.mel)).code
                for name in bench.trials.names
            ]
        )
        for condition in CONDITIONS
    }
    assert robustness.score(bench.trials, vectors, 10)["mean"]["test"]["eer"] == first["degraded"]["test"]["eer"]
