"""Converters in folders and on the Hugging Face Hub, of which a stand-in on the loopback has the part."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import speech, tiny_bundle
from stand_in_hub import COMMIT, Hub, serving

from rwae_audio.conversion.converter import Converter
from rwae_audio.conversion.vocoders.griffin_lim import GriffinLim
from rwae_audio.conversion.vocoders.neural import SHIPPED, Vocoder, VocoderConfig, save_vocoder
from rwae_audio.data.corpora.base import Corpus
from rwae_audio.files import InputError
from rwae_audio.inference.bundle import SHIPPED as SHIPPED_BUNDLE
from rwae_audio.inference.bundle import load_bundle
from rwae_audio.inference.card import card
from rwae_audio.settings import read_toml
from rwae_audio.training.trainer import RunConfig

ROOT = Path(__file__).parent.parent


@pytest.fixture
def pretrained(bundle_folder: Path, tmp_path: Path) -> Path:
    """A tiny bundle with a tiny vocoder of its own."""
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "pretrained"))
    torch.manual_seed(1)
    save_vocoder(folder / "vocoder", Vocoder(VocoderConfig(width=16, blocks=1)), {"step": 5}, "# Vocoder\n")
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serving() as hub:
        yield hub


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def elsewhere(hub: str, place: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in another process, to which `hub` is the address of the Hub."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(place / "hf"), "HF_TOKEN": "hf_made_up", "PYTHONPATH": str(ROOT)}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1"}
    head = "import sys\nfrom rwae_audio import Converter, InputError\n"
    return subprocess.run(
        [sys.executable, "-c", head + code],
        env=environment | variables,
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_saved_converter_comes_back_with_its_vocoder(pretrained: Path, tmp_path: Path) -> None:
    converter = Converter.from_pretrained(pretrained)
    assert isinstance(converter.vocoder, Vocoder)
    assert converter.vocoder.config.width == 16
    converter.save_pretrained(tmp_path / "new/again")
    assert files(tmp_path / "new/again") == files(pretrained)
    again = Converter.from_pretrained(tmp_path / "new/again")
    assert again.bundle.digest == converter.bundle.digest
    sounds = [each.convert(speech(0), 16000, each.voice(speech(1), 16000)) for each in (converter, again)]
    assert np.array_equal(*sounds)
    other = Converter.from_pretrained(pretrained, device="cpu")
    other.vocoder = GriffinLim(other.bundle.config.mel)
    other.save_pretrained(tmp_path / "new/again")  # replaces it
    assert not (tmp_path / "new/again/vocoder").exists()


def test_the_converter_in_the_package_is_saved_as_it_is(tmp_path: Path) -> None:
    Converter.load().save_pretrained(tmp_path / "copy")
    shipped = {**files(SHIPPED_BUNDLE), **{f"vocoder/{name}": data for name, data in files(SHIPPED).items()}}
    copy = files(tmp_path / "copy")
    assert {name for name, data in copy.items() if data != shipped.pop(name)} <= {"config.json"}
    assert not shipped
    assert load_bundle(tmp_path / "copy").config == load_bundle().config  # where every setting is written


def test_without_a_vocoder_it_is_chosen_by_the_log_mels(bundle_folder: Path, tmp_path: Path) -> None:
    own = Converter.from_pretrained(bundle_folder).vocoder
    assert isinstance(own, Vocoder)
    assert own.config.width == 256
    paper = Converter.from_pretrained(tiny_bundle(tmp_path / "paper", "paper"))
    assert isinstance(paper.vocoder, GriffinLim)


def test_a_folder_with_other_files_is_not_replaced(pretrained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        Converter.from_pretrained(pretrained).save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine/thesis.tex").exists()


@pytest.mark.parametrize("name", ["./nothing", "/no/such/folder", "nothing", "a/b/c", "a b/c"])
def test_a_name_that_is_none_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="folder"):
        Converter.from_pretrained(name)


def test_a_folder_has_no_revisions(pretrained: Path) -> None:
    with pytest.raises(InputError, match="revision is 'v1'"):
        Converter.from_pretrained(pretrained, revision="v1")


def test_a_converter_goes_to_the_hub_and_comes_back(hub: Hub, pretrained: Path, tmp_path: Path) -> None:
    code = f"""
print(Converter.from_pretrained({str(pretrained)!r}).push_to_hub("me/voices", private=True))
for revision in (None, "{COMMIT}"):
    converter = Converter.from_pretrained("me/voices", revision)
    print(converter.bundle.digest, converter.vocoder.config.width)
converter.save_pretrained("fetched")
"""
    done = elsewhere(hub.address, tmp_path, code)
    assert done.returncode == 0, done.stderr
    digest = json.loads((pretrained / "config.json").read_text())["sha256"]
    assert done.stdout.splitlines() == [f"{hub.address}/me/voices/commit/{COMMIT}", *2 * [f"{digest} 16"]]
    assert hub.private == {"me/voices": True}
    assert hub.repositories["me/voices"] == files(pretrained) == files(tmp_path / "fetched")


def test_only_the_files_of_a_converter_are_fetched(hub: Hub, pretrained: Path, tmp_path: Path) -> None:
    hub.repositories["me/more"] = {**files(pretrained), "model.bin": b"pickle", "setup.py": b"", "x.json": b"{}"}
    done = elsewhere(hub.address, tmp_path, 'print(Converter.from_pretrained("me/more").sample_rate)')
    assert done.stdout == "16000\n", done.stderr
    assert set(hub.fetched) == set(files(pretrained))
    offline = elsewhere(hub.address, tmp_path, 'Converter.from_pretrained("me/more")', HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr  # what was fetched once is there


def test_what_goes_wrong_on_the_hub_is_one_line(hub: Hub, pretrained: Path, tmp_path: Path) -> None:
    hub.repositories["me/voices"] = files(pretrained)
    hub.repositories["me/empty"] = {"x.txt": b""}
    hub.forbidden.add("them/voices")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    code = """
calls = {"nobody/here": [None], "me/voices": ["v7"], "me/empty": [None], "-a/b": [None]}
for name, (revision,) in calls.items():
    try:
        Converter.from_pretrained(name, revision)
    except InputError as error:
        print(error)
try:
    Converter.load().push_to_hub("them/voices")
except InputError as error:
    print(error)
"""
    done = elsewhere(hub.address, tmp_path, code)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    for line, name in zip(lines, ("nobody/here", "v7", "config.json", "-a/b", "them/voices"), strict=True):
        assert name in line
        assert "expected" in line or name == "-a/b"
    done = elsewhere(nowhere, tmp_path, code.replace('"me/voices": ["v7"], "me/empty": [None], "-a/b": [None]', ""))
    assert done.returncode == 0, done.stderr
    assert all("expected a connection" in line for line in done.stdout.splitlines())
    assert len(done.stdout.splitlines()) == 2


def test_the_card_that_ships_has_the_head_that_is_made() -> None:
    text = (SHIPPED_BUNDLE / "README.md").read_text()
    head = pytest.importorskip("yaml").safe_load(text.split("---\n")[1])
    assert head["license"] == "other"
    assert "openslr/librispeech_asr" in head["datasets"]
    assert {"voice-conversion", "speech"} <= set(head["tags"])
    assert head["library_name"] == read_toml(ROOT / "pyproject.toml")["project"]["name"]
    names = ("an4", "librispeech", "speechocean762", "kathleen")
    made = card(RunConfig(), [Corpus(name, ()) for name in names], 1.0, {})
    assert made.split("---\n")[1] == text.split("---\n")[1]


def test_a_corpus_whose_name_the_hub_refuses_stays_out_of_the_head() -> None:
    yaml = pytest.importorskip("yaml")
    text = card(RunConfig(), [Corpus('Ann\'s "talks": 1', ()), Corpus("null", ())], 0.5, {})
    assert yaml.safe_load(text.split("---\n")[1])["datasets"] == ["null"]
    assert "Ann's" in text
    actions = card(RunConfig.of({"model": {"actions": 3}}), [], 0.5, {}).split("---\n")[1]
    assert "datasets" not in actions
    assert "voice-conversion" not in actions


def test_torch_hub_finds_the_converter(pretrained: Path, tmp_path: Path) -> None:
    for name in (None, str(pretrained)):
        converter = torch.hub.load(str(ROOT), "converter", name, source="local")
        assert converter.sample_rate == 16000
        assert (converter.bundle.config.model.static_dim == 64) == (name is None)
