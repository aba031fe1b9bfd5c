"""`rwae-train --download`: fetched, checked and unpacked whole, or one line that says what to put where.

The archives are made up, and come from a server on this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import soundfile
from made_up import speech
from made_up_commands import listing, refused

from rwae_audio.commands import train
from rwae_audio.data.corpora import READERS, download, read_corpus
from rwae_audio.data.corpora.download import Archive, archives
from rwae_audio.files import InputError


def sound(name: str) -> bytes:
    buffer = io.BytesIO()
    kind, subtype = ("NIST", "PCM_16") if name.endswith(".sph") else (name.rpartition(".")[2].upper(), "PCM_16")
    soundfile.write(buffer, speech(0, 0.1), 16000, format=kind, subtype=subtype)
    return buffer.getvalue()


def packed(*names: str, links: dict[str, str] | None = None) -> bytes:
    """A .tar.gz with a recording or a line of text of each name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            data = b"a line\n" if name.lower().endswith(".txt") else sound(name)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"" if name.endswith("/") else sound(name))
    return buffer.getvalue()


AN4 = [f"an4/wav/an4_clstk/{s}/an1-{s}-b.sph" for s in ("fash", "fbbh", "fclc", "mjda", "mkdb")]
AN4 += ["an4/wav/an4test_clstk/fcaw/an406-fcaw-b.sph", "an4/README.txt"]
DEV = ["LibriSpeech/dev-clean/84/121123/84-121123-0000.flac", "LibriSpeech/LICENSE.TXT"]
SERVED: dict[str, bytes] = {
    "an4.tar.gz": packed(*AN4),
    "dev-clean.tar.gz": packed(*DEV),
    "timit.zip": zipped("timit/", "timit/dr1-fvmh0/", "timit/dr1-fvmh0/sx1.wav"),
    "climbs.tar.gz": packed("an4/wav/an4_clstk/fash/an1-fash-b.sph", "an4/../../evil.sph"),
    "absolute.tar.gz": packed("/tmp/rwae-evil.sph"),
    "link.tar.gz": packed(*AN4, links={"an4/wav/out": "../../../../etc"}),
    "climbs.zip": zipped("timit/dr1-fvmh0/sx1.wav", "timit/../../evil.wav"),
    "no.tar.gz": b"this is no archive, whatever its digest",
    "no.zip": b"this is no archive, whatever its digest",
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name, _, how = self.path.lstrip("/").partition("?")
        if name not in SERVED:
            self.send_error(404)
            return
        data = SERVED[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write({"short": data[:-20], "altered": data[:-1] + b"x"}.get(how, data))

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as there:
        threading.Thread(target=there.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{there.server_port}"
        there.shutdown()


def known(*urls: str, folder: str = "an4", corpus: str = "an4", algorithm: str = "sha256") -> dict[str, Archive]:
    """A table with one archive, `it`, whose digest is that of the whole one."""
    name = urls[-1].rpartition("/")[2].partition("?")[0]
    digest = hashlib.new(algorithm, SERVED.get(name, b"")).hexdigest()
    return {"it": Archive(urls, f"{algorithm}:{digest}", folder, corpus)}


Fetch = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fetch:
    """fetch(table, name): what `rwae-train --download name --to corpora` does with that table."""
    monkeypatch.chdir(tmp_path)

    def call(table: dict[str, Archive], name: str = "it") -> tuple[int, str, str]:
        monkeypatch.setattr(download, "archives", lambda: table)
        code = train.main(["--download", name, "--to", "corpora"])
        return (code, *capsys.readouterr())

    return call


@pytest.mark.parametrize(
    ("file", "folder", "corpus", "count"),
    [
        ("an4.tar.gz", "an4", "an4", 6),
        ("dev-clean.tar.gz", "LibriSpeech/dev-clean", "librispeech", 1),
        ("timit.zip", "timit", "timit", 1),
    ],
)
def test_what_is_fetched_is_read(
    file: str, folder: str, corpus: str, count: int, server: str, fetch: Fetch, tmp_path: Path
) -> None:
    table = known(f"{server}/{file}", folder=folder, corpus=corpus, algorithm="md5" if corpus == "timit" else "sha256")
    code, out, err = fetch(table)
    assert (code, err) == (0, "")
    root = Path("corpora") / folder.split("/")[0]
    assert out == f"it is now in {root}: --data {corpus}={root}\n"
    options = {"partial": True} if corpus == "timit" else {}
    assert len(read_corpus(corpus, root, **options).utterances) == count
    assert not [path for path in listing(tmp_path) if path.endswith((".gz", ".zip")) or ".part" in path]
    before = listing(tmp_path)
    assert fetch(known("http://127.0.0.1:9/nowhere.tar.gz", folder=folder, corpus=corpus))[1].startswith(
        "it is already "
    )
    assert listing(tmp_path) == before


def test_a_second_subset_joins_the_first_and_licences_come_along(server: str, fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "corpora/LibriSpeech/train-clean-100").mkdir(parents=True)
    assert fetch(known(f"{server}/dev-clean.tar.gz", folder="LibriSpeech/dev-clean", corpus="librispeech"))[0] == 0
    assert sorted(path.name for path in (tmp_path / "corpora/LibriSpeech").iterdir()) == [
        "dev-clean",
        "train-clean-100",
    ]
    assert (tmp_path / "corpora/LibriSpeech/dev-clean/LICENSE.TXT").is_file()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("an4.tar.gz?short", r"has [\d,]+ bytes with sha256 \w{64}; expected \w{64} \(it was cut short or altered\)"),
        ("an4.tar.gz?altered", r"has [\d,]+ bytes with sha256 \w{64}; expected \w{64} \(it was cut short or altered\)"),
        ("gone.tar.gz", r"cannot fetch http://\S+/gone\.tar\.gz \(Not Found\)"),
        ("climbs.tar.gz", r"the archive has a member 'an4/\.\./\.\./evil\.sph'; expected names inside it only"),
        ("absolute.tar.gz", r"the archive has a member '/tmp/rwae-evil\.sph'; expected names inside it only"),
        ("link.tar.gz", r"link\.tar\.gz cannot be unpacked \(.*outside.*\); expected a whole archive"),
        ("climbs.zip", r"the archive has a member 'timit/\.\./\.\./evil\.wav'; expected names inside it only"),
        ("no.tar.gz", r"no\.tar\.gz cannot be unpacked \(.*\); expected a whole archive"),
        ("no.zip", r"no\.zip cannot be unpacked \(.*\); expected a whole archive"),
    ],
)
def test_what_will_not_do_is_one_line_and_leaves_nothing(
    address: str, expected: str, server: str, fetch: Fetch, tmp_path: Path
) -> None:
    done = fetch(known(f"{server}/{address}"))
    refused(done, "rwae-train", "")
    assert re.search(expected, done[2]), done[2]
    if "expected a whole archive" not in expected and "member" not in expected:
        by_hand = tmp_path / "corpora" / address.partition("?")[0]
        assert f"put it at {by_hand} " in done[2]
    assert listing(tmp_path) == []
    assert not (tmp_path.parent / "evil.sph").exists()


def test_without_a_network_it_says_what_to_put_where_and_then_takes_it(
    server: str, fetch: Fetch, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/an4.tar.gz"
    table = known(nowhere)
    done = fetch(table)
    place = tmp_path / "corpora/an4.tar.gz"
    refused(done, "rwae-train", f"cannot fetch {nowhere} ([Errno 111] Connection refused); expected the archive")
    assert f"put it at {place} " in done[2]
    assert listing(tmp_path) == []
    place.parent.mkdir()
    place.write_bytes(SERVED["an4.tar.gz"][:-9])
    refused(fetch(table), "rwae-train", "(it was cut short or altered)")
    place.write_bytes(SERVED["an4.tar.gz"])
    assert fetch(table)[0] == 0
    assert place.is_file()  # whoever put it there may want it
    assert len(read_corpus("an4", tmp_path / "corpora/an4").utterances) == 6


def test_a_second_address_is_tried(server: str, fetch: Fetch, tmp_path: Path) -> None:
    for first in ("gone.tar.gz", "an4.tar.gz?altered"):
        assert fetch(known(f"{server}/{first}", f"{server}/an4.tar.gz"))[0] == 0
        assert len(read_corpus("an4", tmp_path / "corpora/an4").utterances) == 6
        (tmp_path / "corpora").rename(tmp_path / first[:4])


def test_a_silent_server_is_given_up(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/an4.tar.gz"
        refused(fetch(known(address)), "rwae-train", f"cannot fetch {address} (timed out)")
    assert socket.getdefaulttimeout() is None


def test_a_bar_shows_how_far_it_is(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download.download("it", tmp_path, progress=True, available=known(f"{server}/an4.tar.gz"))
    assert "100%" in capsys.readouterr().err


def test_where_nothing_can_be_written_is_one_line(server: str, fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "corpora").write_text("a file")
    refused(fetch(known(f"{server}/an4.tar.gz")), "rwae-train", "cannot make corpora")


def test_the_table_names_readers_and_has_a_digest_for_all(fetch: Fetch) -> None:
    table = archives()
    assert {
        "an4",
        "timit-sample",
        "librispeech-dev-clean",
        "librispeech-test-clean",
        "librispeech-train-clean-100",
    } <= set(table)
    lengths = {"sha256": 64, "md5": 32}
    for archive in table.values():
        algorithm, _, digest = archive.digest.partition(":")
        assert re.fullmatch(f"[0-9a-f]{{{lengths[algorithm]}}}", digest)
        assert archive.corpus in READERS
        assert archive.file_name.endswith((".tar.gz", ".zip"))
    refused(fetch(table, "an5"), "rwae-train", "nothing to download by the name an5; did you mean 'an4'?")


def test_members_go_below_the_folder_that_is_asked_for() -> None:
    inside = partial(download._inside, folder="LibriSpeech/dev-clean")
    assert inside("LibriSpeech/dev-clean/1/2/a.flac") == "1/2/a.flac"
    assert inside("./LibriSpeech/SPEAKERS.TXT") == "SPEAKERS.TXT"
    for name in ("..", "LibriSpeech/dev-clean/../../../x", "/x", "a\\..\\..\\x", "a\0b"):
        with contextlib.suppress(InputError):
            pytest.fail(f"{name} was taken, as {inside(name)}")
