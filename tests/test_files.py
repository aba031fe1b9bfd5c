"""Whole files or none, whole folders or none, and one line about what cannot be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from rwae_audio import files
from rwae_audio.files import InputError, read_json, read_text, whole_file, whole_folder, write_json, write_text
from rwae_audio.settings import read_toml


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path  # beside it: a rename is atomic within one file system only
        assert temporary.suffix == ".txt"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_file_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"

    def fail() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_the_umasks(tmp_path: Path, umask: int) -> None:
    write_text(tmp_path / "a.txt", "x")
    with whole_folder(tmp_path / "folder") as temporary:
        (temporary / "b.txt").write_text("x")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask
    assert os.umask(umask) == umask  # asking for it has not changed it


def test_where_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*: it is a folder; expected the name of a file"):
        write_text(tmp_path / "folder", "x")
    with pytest.raises(InputError, match=r"No such file or directory; expected a folder that can be written to"):
        write_text(tmp_path / "none" / "a", "x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"Not a directory; expected a folder that can be written to"):
        write_text(tmp_path / "file" / "a", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for content in ("old", "new"):
        with whole_folder(path) as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / content).write_text(content)
    assert [entry.name for entry in (path / "deep").iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "run"

    def write(text: str, *, fail: bool) -> None:
        with whole_folder(path) as temporary:
            (temporary / "a").write_text(text)
            if fail:
                raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write("half", fail=True)
    assert list(tmp_path.iterdir()) == []
    write("old", fail=False)
    with pytest.raises(ValueError, match="stop"):
        write("half", fail=True)
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_old_folder_is_put_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "a").write_text("old")
    replace, calls = os.replace, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", second_fails)
    with pytest.raises(OSError, match="Input/output error"), whole_folder(path) as temporary:
        (temporary / "a").write_text("new")
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_where_a_folder_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(InputError, match="it is a file; expected the name of a folder"), whole_folder(path):
        pass
    assert path.read_text() == "mine"
    with (
        pytest.raises(InputError, match="expected a folder that can be written to"),
        whole_folder(tmp_path / "none" / "run"),
    ):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_text_and_json_come_back(tmp_path: Path) -> None:
    value = {"eer": 0.047, "interval": [0.03, 0.06], "name": "wähle ≤ 5"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json", "a report") == value
    write_text(tmp_path / "a.txt", "ja, ≤ 5\n")
    assert read_text(tmp_path / "a.txt", "a text") == "ja, ≤ 5\n"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    """Editors on Windows write one; the mark elsewhere in a text is a letter of it."""
    for name, text in (("a.txt", "ja\ufeff\n"), ("a.json", '{"a": 1}'), ("a.toml", "[mel]\nn_mels = 40\n")):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_text(tmp_path / "a.txt", "a text") == "ja\ufeff\n"
    assert read_json(tmp_path / "a.json", "a report") == {"a": 1}
    assert read_toml(tmp_path / "a.toml") == {"mel": {"n_mels": 40}}


def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes("wähle\n".encode("latin-1"))
    (tmp_path / "broken").write_text('{"a": 1,\n')
    cases = {
        "none": "does not exist",
        "pipe": "is not a regular file",
        "": "is a folder",
        "latin": "cannot be read as text",
        "x" * 300: "cannot be read as text",
        "broken": "is not JSON",
    }
    for name, says in cases.items():
        with pytest.raises(InputError, match=f"{says}.*; expected a trial list") as error:
            read_json(tmp_path / name, "a trial list")
        assert "\n" not in str(error.value)
