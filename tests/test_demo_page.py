"""The page to try the toolkit: what its functions answer, what the command refuses, and a conversion in a real browser."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from made_up import speech, tiny_bundle

from rwae_audio.commands import demo
from rwae_audio.conversion.converter import Converter
from rwae_audio.data.corpora.demo import DEMO
from rwae_audio.inference.bundle import SHIPPED, Bundle

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = """address => new Promise((done, failed) => {
    const audio = new Audio(address);
    audio.onloadedmetadata = () => done(audio.duration);
    audio.onerror = () => failed(new Error("the browser cannot play " + address));
})"""  # how long the sound at an address is for the browser
needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio, of the extra `demo`, is not installed")


@pytest.fixture(scope="module")
def converters() -> dict[str, Converter]:
    return demo.the_converters(None, "cpu", None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Recordings by what they are."""
    folder = tmp_path_factory.mktemp("files")
    sounds = {name: speech(seed, 1.3) for seed, name in enumerate(("source", "target", "second"))}
    sounds |= {"silent": np.zeros(16000, dtype=np.float32), "short": speech(0, 0.02)}
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, 16000)
    (folder / "text.wav").write_text("no sound at all")
    return {path.stem: str(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("digits") / "bundle", actions=3)


@pytest.fixture(scope="module")
def digits(digits_folder: Path) -> Bundle:
    return demo.the_digits(digits_folder)


def asked(converters: Mapping[str, Converter], files: Mapping[str, str], **changes: object) -> demo.Answer:
    order = demo.Order(files["source"], files["target"], consent=True)
    return demo.answered(demo.convert, converters, order._replace(**changes))


def samples_of(answer: demo.Answer) -> np.ndarray:
    assert answer.sound is not None, answer.text
    return answer.sound[1]


def test_the_wanted_vocoder_comes_first_and_others_follow_where_they_fit(tmp_path: Path) -> None:
    assert [*demo.the_converters(None, "cpu", None)] == ["neural", "griffin-lim"]
    assert [*demo.the_converters(None, "cpu", "griffin-lim")] == ["griffin-lim", "neural"]
    assert [*demo.the_converters(tiny_bundle(tmp_path / "paper", "paper"), "cpu", None)] == ["griffin-lim"]


def test_the_sound_is_the_converters(converters: dict[str, Converter], files: dict[str, str]) -> None:
    answer = asked(converters, files)
    converter = converters["neural"]
    source, _ = soundfile.read(files["source"], dtype="float32")
    expected = converter.convert(source, 16000, converter.voice(files["target"]))
    assert answer.sound is not None
    assert answer.sound[0] == 16000
    assert answer.sound[1].dtype == np.int16
    np.testing.assert_allclose(answer.sound[1] / 32767, expected, atol=1e-3)
    assert np.abs(answer.sound[1]).max() > 1000


def test_pitch_and_vocoder_are_heard(converters: dict[str, Converter], files: dict[str, str]) -> None:
    sounds = [
        samples_of(asked(converters, files, **changes))
        for changes in ({}, {"pitch": "keep"}, {"vocoder": "griffin-lim"})
    ]
    assert len({sound.tobytes() for sound in sounds}) == 3
    assert len({len(sound) for sound in sounds}) == 1


def test_the_slider_goes_from_one_voice_to_the_other(converters: dict[str, Converter], files: dict[str, str]) -> None:
    first, second = (samples_of(asked(converters, files, target=files[name])) for name in ("target", "second"))
    for position, expected in ((0.0, first), (1.0, second)):
        sound = samples_of(asked(converters, files, second=files["second"], position=position))
        np.testing.assert_array_equal(sound, expected)
    middle = samples_of(asked(converters, files, second=files["second"], position=0.5))
    assert not np.array_equal(middle, first)
    assert not np.array_equal(middle, second)


def test_the_picture_has_a_column_a_recording_and_units(
    converters: dict[str, Converter], files: dict[str, str]
) -> None:
    answer = asked(converters, files, second=files["second"])
    assert answer.figure is not None
    panels = [axes for axes in answer.figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["source", "conversion", "target", "second target"]
    for axes in panels:  # the frames fill their axes
        assert axes.images[0].get_extent()[:2] == pytest.approx(axes.get_xlim())
        assert axes.get_xlim() == pytest.approx((0, 1.3), abs=0.05)
    labels = {text for axes in answer.figure.axes for text in (axes.get_xlabel(), axes.get_ylabel())}
    assert labels >= {"time, s", "frequency, kHz", "F0, Hz", "level, dB"}
    answer.figure.savefig(io.BytesIO(), format="png")


def test_only_the_start_of_a_long_recording_is_drawn(
    converters: dict[str, Converter], files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SHOWN", 1.0)
    figure = asked(converters, files).figure
    assert figure is not None
    panels = [axes for axes in figure.axes if axes.images and axes.get_title()]
    assert len(panels) == 3
    assert all(axes.images[0].get_extent()[1] == pytest.approx(1.0, abs=0.05) for axes in panels)


@pytest.mark.parametrize("consent", [False, None])
def test_nothing_is_converted_without_consent(
    converters: dict[str, Converter], files: dict[str, str], consent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Converter, "convert_file", lambda *_, **__: pytest.fail("converted"))
    answer = asked(converters, files, consent=consent)
    assert (answer.sound, answer.figure) == (None, None)
    assert "consent" in answer.text
    assert "\n" not in answer.text


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *((place, kind) for place in ("source", "target", "second") for kind in ("silent", "short", "text")),
        *(("source", None), ("target", None)),
    ],
)
def test_a_bad_recording_is_one_line_that_names_it(
    converters: dict[str, Converter], files: dict[str, str], place: str, kind: str | None
) -> None:
    answer = asked(converters, files, **{place: kind and files[kind]})
    assert (answer.sound, answer.figure) == (None, None)
    assert "\n" not in answer.text
    assert str(Path(files["source"]).parent) not in answer.text
    name = {"second": "second target"}.get(place, place)
    assert answer.text.lower().startswith((name, f"the {name}"))
    assert kind is None or f"{kind}.wav" in answer.text


def test_a_recording_may_be_long_but_not_longer(
    converters: dict[str, Converter], files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "LONGEST", 1.3)
    assert asked(converters, files).sound is not None
    monkeypatch.setattr(demo, "LONGEST", 1.2)
    answer = asked(converters, files)
    assert answer.sound is None
    assert "1.2 s" in answer.text


def test_samples_that_would_clip_are_scaled_down() -> None:
    assert demo.sixteen_bits(np.array([0.5, -1.0])).tolist() == [16384, -32767]
    assert demo.sixteen_bits(np.array([1.0, -4.0])).tolist() == [8192, -32767]
    assert demo.sixteen_bits(np.zeros(2)).tolist() == [0, 0]


def test_speech_from_the_priors_depends_on_action_voice_and_take(digits: Bundle) -> None:
    answers = [demo.generate(digits, *values) for values in (("1", 0, 0), ("2", 0, 0), ("1", 5, 0), ("1", 0, 5))]
    sounds = [samples_of(answer) for answer in answers]
    assert len({sound.tobytes() for sound in sounds}) == 4
    assert all(np.abs(sound).max() > 0 for sound in sounds)
    np.testing.assert_array_equal(samples_of(demo.generate(digits, "1", 0, 0)), sounds[0])
    every = demo.generate(digits, demo.ALL, 0, 0)
    assert len(samples_of(every)) == 3 * len(sounds[0])
    assert every.figure is not None
    titles = [axes.get_title() for axes in every.figure.axes if axes.get_title()]
    assert titles == ["action 0", "action 1", "action 2"]


def command(*words: str, environment: Mapping[str, str] | None = None, code: str = "") -> list[str]:
    return [
        sys.executable,
        "-c",
        f"import sys; {code}from rwae_audio.commands.demo import main; sys.exit(main())",
        *words,
    ]


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["--port", "0"], "--port 0"),
        (["--bundle", "nowhere"], "nowhere"),
        (["--digits", str(SHIPPED)], "--digits"),
        (["--vocoder", "flute"], "flute"),
    ],
)
def test_what_the_command_refuses(words: list[str], culprit: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = demo.main(words)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert culprit in error
    assert error.count("\n") == 1


def test_without_gradio_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    code = "sys.modules['gradio'] = None; "
    done = subprocess.run(
        command(code=code), cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "pip install 'rwae-audio[demo]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


class Server(NamedTuple):
    process: subprocess.Popen
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


@contextlib.contextmanager
def served(folder: Path, *words: str) -> Iterator[Server]:
    """The command, once it serves; its temporary files and its folder are in `folder`."""
    (folder / "here").mkdir()
    (folder / "temporary").mkdir()
    port = free_port()
    environment = {**os.environ, "TMPDIR": str(folder / "temporary"), "GRADIO_SERVER_NAME": "0.0.0.0"}
    with subprocess.Popen(
        command("--port", str(port), *words),
        cwd=folder / "here",
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert str(port) in line, line + process.stderr.read()
            yield Server(process, port, folder)
        finally:
            process.kill()


@needs_gradio
def test_the_page_is_for_this_machine_alone_and_leaves_nothing(tmp_path: Path, digits_folder: Path) -> None:
    with served(tmp_path, "--digits", str(digits_folder)) as server:
        page = urllib.request.urlopen(server.url).read().decode()
        assert "Generate" in page
        with pytest.raises(OSError), socket.create_connection(("127.0.0.2", server.port), timeout=5):  # noqa: PT011
            pass
        (private,) = (tmp_path / "temporary").iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
        assert uploaded(server, 1000) == 200
        assert sum(path.stat().st_size == 1000 for path in private.rglob("*")) == 1
        assert uploaded(server, 51 << 20) == 413
        taken = subprocess.run(command("--port", str(server.port)), capture_output=True, text=True)
        assert (taken.returncode, taken.stderr.count("\n")) == (2, 1)
        assert f"--port {server.port}" in taken.stderr
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    assert not [*(tmp_path / "temporary").iterdir()]
    assert not [*(tmp_path / "here").iterdir()]


def uploaded(server: Server, size: int) -> int:
    """Upload a file of so many bytes, and return the HTTP status."""
    head = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
    body = head + bytes(size) + b"\r\n--edge--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    request = urllib.request.Request(f"{server.url}/gradio_api/upload", body, kind)
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code


@needs_gradio
@pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed")
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_conversion_in_a_browser(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with served(tmp_path) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(900_000)
        asked_for: set[str] = set()
        page.on("request", lambda request: asked_for.add(request.url))
        page.goto(server.url)
        for name, file in (("source", DEMO / "m01/0.ogg"), ("target", DEMO / "f02/0.ogg")):
            page.set_input_files(f"#{name} input[type=file]", file)
            page.wait_for_selector(f"#{name} audio", state="attached")
        page.click("#convert")  # without consent
        page.wait_for_function("document.querySelector('#report textarea').value.includes('consent')")
        assert not page.query_selector("#conversion a[download]")
        page.check("#consent input")
        page.click("#convert")
        player = "document.querySelector('#conversion"
        page.wait_for_function(f"{player} audio') && !['', '0:00'].includes({player} #duration')?.textContent ?? '')")
        page.wait_for_selector("#picture img")
        address = page.get_attribute("#conversion a[download]", "href")
        assert address is not None
        seconds = page.evaluate(SECONDS, address)
        sound = page.request.get(address).body()
        browser.close()
    samples, rate = soundfile.read(io.BytesIO(sound))
    assert rate == 16000
    assert len(samples) / rate == pytest.approx(soundfile.info(DEMO / "m01/0.ogg").duration, abs=0.01)
    assert seconds == pytest.approx(len(samples) / rate, abs=0.01)
    assert np.sqrt(np.mean(samples**2)) > 0.01
    elsewhere = {url for url in asked_for if not url.startswith((server.url, "data:", "blob:"))}
    assert not elsewhere
