"""The report of a run: one page that parses, needs nothing from elsewhere, and shows and sounds what the run has."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from made_up import speech
from made_up_commands import TINY
from PIL import Image

from rwae_audio.commands import train
from rwae_audio.evaluation import page, plots
from rwae_audio.evaluation.report import settings_table
from rwae_audio.training.trainer import RunConfig

CORPORA = ("one", "two")


class Parsed(HTMLParser):
    """A page: its elements, the text of each, and the cells of its tables. An end without its beginning is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in page.EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str]]:
        """The attributes of each element of this name."""
        return [attributes for name, attributes in self.elements if name == tag]


def content(address: str, kind: str) -> io.BytesIO:
    """The file in an address."""
    head = f"data:{kind};base64,"
    assert address.startswith(head)
    return io.BytesIO(base64.b64decode(address.removeprefix(head), validate=True))


def test_text_and_attributes_are_escaped_and_html_is_not() -> None:
    inner = page.element("b", "<i> & co")
    text = page.element("p", "1 < 2 ", inner, title='"<')
    assert text == '<p title="&quot;&lt;">1 &lt; 2 <b>&lt;i&gt; &amp; co</b></p>'
    parsed = Parsed(page.table(("a", "b"), [("<td>", inner)]))
    assert parsed.rows == [["a", "b"], ["<td>", "<i> & co"]]


def test_a_sound_comes_back_at_one_peak() -> None:
    for samples in (speech(0), 1e-3 * speech(0), np.zeros(800)):
        (audio,) = Parsed(page.player(samples, 16000, "heard")).of("audio")
        assert audio["aria-label"] == "heard"
        sound, rate = soundfile.read(content(audio["src"], "audio/flac"))
        assert rate == 16000
        peak = page.PEAK if samples.any() else 0
        np.testing.assert_allclose(sound, samples * peak / max(np.abs(samples).max(), 1e-8), atol=1e-4)


def test_a_thumbnail_has_a_pixel_for_each_value_and_low_bins_below() -> None:
    frames = np.zeros((30, 8))
    frames[:, 0], frames[3] = 5.0, -5.0
    image = Image.open(io.BytesIO(plots.thumbnail(frames, (-1.0, 1.0)))).convert("L")
    shades = np.asarray(image).astype(int)
    assert shades.shape == (8, 30)
    assert (shades[-1, 5:] > shades[0, 5:] + 50).all()
    assert (shades[:, 3] < shades[0, 5] - 50).all()


@pytest.mark.parametrize("objective", ["rwae-mmd", "fhvae"])
def test_every_setting_is_shown_and_the_defaults_are_marked(objective: str) -> None:
    model = {
        "static_from": "segment",
        "dynamic_per": "segment",
        "dynamic_sees_static": True,
        "dynamic_offset_variance": 0,
    }
    tables = {"objective": {"name": objective}, "model": model if objective == "fhvae" else {}, "train": {"seed": 3}}
    config = RunConfig.of(tables)
    rows = {name: cells for name, *cells in Parsed(settings_table(config)).rows}
    assert set(rows) == {"setting"} | {f"{name}.{key}" for name, table in config.tables().items() for key in table}
    assert rows["train.seed"] == ["3", "default: 0"]
    assert rows["train.batch"] == ["128", "default"]
    assert rows["objective.name"] == [f'"{objective}"', "default"]
    assert (rows["model.static_from"][1] == "default") == (objective == "rwae-mmd")


class Finished(NamedTuple):
    folder: Path
    printed: str
    text: str
    page: Parsed


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A tiny run on two corpora, whose speakers and folder have names that would be HTML."""
    where = tmp_path_factory.mktemp("report")
    for number, corpus in enumerate(CORPORA):
        for s in range(8):
            speaker = where / corpus / f"<script>{s}"
            speaker.mkdir(parents=True)
            for u in range(3):
                soundfile.write(speaker / f"{u}.wav", speech(s + 8 * number, 0.8 + 0.1 * u), 16000)
    words = [word for name in CORPORA for word in ("--data", f"folder={where / name}", "--test", name)]
    folder = where / "<b>run"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setenv("RWAE_CACHE", str(where / "cache"))
        assert train.main([*words, "--out", str(folder), "--no-tensorboard", *TINY]) == 0
    text = (folder / "report.html").read_text(encoding="utf-8")
    return Finished(folder, printed.getvalue(), text, Parsed(text))


@pytest.mark.slow
def test_the_page_needs_nothing_from_elsewhere(finished: Finished) -> None:
    """No script, no style sheet, no font; links lead to sections of the page."""
    assert len(finished.text) < 3_000_000
    assert {tag for tag, _ in finished.page.elements} & {"script", "link", "iframe", "object", "embed", "base"} == set()
    for tag, attributes in finished.page.elements:
        assert attributes.get("src", "data:").startswith("data:"), tag
        assert not any(name.startswith("on") or name in ("srcset", "poster", "style") for name in attributes)
    (style,) = (text for tag, text in finished.page.texts if tag == "style")
    assert not re.search(r"url\(|@import", style)
    places = [attributes["href"] for attributes in finished.page.of("a")]
    assert places
    assert set(places) == {f"#{section['id']}" for section in finished.page.of("section")}
    assert str(finished.folder.parent / "report.html") not in finished.text
    assert str(finished.folder) + "/report.html" in finished.printed.splitlines()[-1]


@pytest.mark.slow
def test_pictures_and_sounds_can_be_seen_and_heard(finished: Finished) -> None:
    images, sounds = finished.page.of("img"), finished.page.of("audio")
    speakers = len({row["aria-label"].split(" as ")[1] for row in sounds if " as " in row["aria-label"]})
    assert speakers >= 2
    assert len(sounds) == len(CORPORA) * speakers * (speakers + 1)
    assert len(images) == len(sounds) + 1 + 2 * len(CORPORA)  # curves; DET and map of each corpus
    for image in images:
        picture = Image.open(content(image["src"], "image/png"))
        picture.load()
        assert len(picture.convert("L").getcolors()) > 5
        assert image["alt"]
    heard = []
    for sound in sounds:
        samples, rate = soundfile.read(content(sound["src"], "audio/flac"))
        assert rate == 16000
        assert 0.5 < len(samples) / rate <= 2
        assert samples.std() > 0.01
        heard.append(samples)
    assert len({samples.tobytes() for samples in heard}) == len(heard)


@pytest.mark.slow
def test_names_are_text(finished: Finished) -> None:
    assert "<script" not in finished.text
    assert "<b>run" not in finished.text
    assert ("h1", "Report of the run <b>run") in finished.page.texts
    heads = [cell for row in finished.page.rows for cell in row if cell.startswith("as ")]
    assert heads
    assert all(re.fullmatch(r"as <script>\d", head) for head in heads)


@pytest.mark.slow
def test_the_numbers_are_those_of_the_run(finished: Finished) -> None:
    results = json.loads((finished.folder / "eer.json").read_text())
    rows = [row for row in finished.page.rows if row[0].split(" ")[0] == "paper-mmd"]
    assert len(rows) == len(results) == 2
    for report, (_, static, dynamic, gap, cost) in zip(results.values(), rows, strict=True):
        for cell, code in ((static, "static"), (dynamic, "dynamic")):
            numbers = [float(number) for number in re.findall(r"[\d.]+", cell)]
            assert numbers == pytest.approx(
                [100 * report[code]["eer"], *(100 * x for x in report[code]["interval"])], abs=0.06
            )
        assert float(gap) == pytest.approx(100 * report["gap"], abs=0.06)
        assert float(cost) == pytest.approx(report["static"]["min_dcf"], abs=6e-4)
    plan = json.loads((finished.folder / "run.json").read_text())
    assert ("pre", plan["command"]) in finished.page.texts
    trained = [row for row in finished.page.rows if row[:2] in ([name, "training"] for name in CORPORA)]
    assert [row[2:4] for row in trained] == [["4", "12"]] * 2
    card = (finished.folder / "bundle" / "README.md").read_text()
    assert card.partition("\n---\n")[2].strip() in {text for tag, text in finished.page.texts if tag == "pre"}
