"""Download of free corpora: the archive is downloaded, its digest is checked, and it is unpacked, whole or not at all.

Without a network connection a user can put the archive into the folder by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from rwae_audio.files import NO_ROOM, InputError, whole_folder
from rwae_audio.settings import nearest

TIMEOUT = 60  # seconds without data after which a download fails


@dataclass(frozen=True)
class Archive:
    """An archive that can be downloaded.

    Attributes:
        urls: The addresses of the archive, tried in their order.
        digest: The published digest, `algorithm:hex`.
        folder: The folder of the recordings, relative to the archive and to the target folder.
        corpus: The name of the reader (`--data`).
    """

    urls: tuple[str, ...]
    digest: str
    folder: str
    corpus: str

    @property
    def file_name(self) -> str:
        """The file name of the archive."""
        return PurePosixPath(urlsplit(self.urls[0]).path).name


def archives() -> dict[str, Archive]:
    """Return the available archives by name. Those of LibriSpeech have the addresses and digests in torchaudio."""
    from torchaudio.datasets import librispeech

    by_name = {
        # CMU publishes no digest. This one is of NVIDIA's copy (in NeMo's tutorials), from public code. CMU's file may
        # have other bytes, so its address comes second and may fail the check.
        "an4": Archive(
            (
                "https://dldata-public.s3.us-east-2.amazonaws.com/an4_sphere.tar.gz",
                "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz",
            ),
            "sha256:a0525579493735d32b60fb6fa5975dd0eaacde087b0a4eeb7f13b7ef33077b12",
            "an4",
            "an4",
        ),
        # NLTK's index (nltk_data/index.xml) has only an MD5, which detects accidental changes, not malicious ones.
        "timit-sample": Archive(
            ("https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/timit.zip",),
            "md5:34c047c4749a811287f2c652104d7849",
            "timit",
            "timit",
        ),
    }
    for url, digest in librispeech._CHECKSUMS.items():
        subset = PurePosixPath(url).name.removesuffix(".tar.gz")
        place = f"{librispeech.FOLDER_IN_ARCHIVE}/{subset}"
        by_name[f"librispeech-{subset}"] = Archive((url,), f"sha256:{digest}", place, "librispeech")
    return by_name


def download(
    name: str, to: Path, progress: bool = False, available: Mapping[str, Archive] | None = None
) -> tuple[str, Path, bool]:
    """Download a corpus into a folder, unless it already exists there.

    If the folder contains the archive, it is checked and unpacked without a download.

    Args:
        name: The name of the corpus in `archives()`.
        to: The folder.
        progress: Whether a progress bar is shown.
        available: The archives by name, `archives()` if None.

    Returns:
        The name of the reader, the folder to read, and whether this call unpacked the corpus.

    Raises:
        InputError: The name is unknown, the download fails (the message explains how to place the archive by hand), the
            digest is wrong, or the archive has members outside its folder.
    """
    available = archives() if available is None else available
    if name not in available:
        raise InputError(f"there is nothing to download by the name {name}; {nearest(name, sorted(available))}")
    archive = available[name]
    place = to / archive.folder
    root = to / PurePosixPath(archive.folder).parts[0]
    if place.is_dir():
        return archive.corpus, root, False
    with _new_folder(place.parent), whole_folder(place) as temporary:
        by_hand = to / archive.file_name
        file = by_hand if by_hand.is_file() else temporary / archive.file_name
        if file == by_hand:
            _check(file, archive)
        else:
            _fetch(archive, file, by_hand, progress)
        _unpack(file, archive.folder, temporary)
        if file != by_hand:
            file.unlink()
    return archive.corpus, root, True


def _fetch(archive: Archive, file: Path, by_hand: Path, progress: bool) -> None:
    """Download an archive to `file` from the first address whose bytes have the expected digest."""
    from torch.hub import download_url_to_file  # as torchaudio's data sets do

    problem = ""
    for url in archive.urls:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(TIMEOUT)
        try:
            download_url_to_file(url, str(file), progress=progress)
            _check(file, archive)
            return
        except InputError as error:
            problem = problem or f"{url}: {error}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise  # `whole_folder` reports it
            problem = problem or f"cannot fetch {url} ({getattr(error, 'reason', None) or error})"
        finally:
            socket.setdefaulttimeout(before)
    raise InputError(
        f"{problem}; expected the archive: download it elsewhere, put it at {by_hand.absolute()} and try again"
    )


def _check(file: Path, archive: Archive) -> None:
    """Raise InputError if a file does not have the digest of the archive."""
    algorithm, _, expected = archive.digest.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise InputError(
            f"{file.name} has {file.stat().st_size:,} bytes with {algorithm} {digest.hexdigest()}; expected {expected} "
            "(it was cut short or altered)"
        )


def _unpack(file: Path, folder: str, to: Path) -> None:
    """Unpack an archive into `to`: the members in `folder` and those next to it (a licence, a list of speakers)."""
    try:
        if file.suffix == ".zip":
            _unzip(file, folder, to)
        else:
            _untar(file, folder, to)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{file.name} cannot be unpacked ({error}); expected a whole archive") from error


def _untar(file: Path, folder: str, to: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise InputError("this Python cannot unpack an archive safely; expected 3.10.12, 3.11.4 or later")

    def located(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo:
        target = _inside(member.linkname, folder) if member.islnk() else member.linkname
        return tarfile.data_filter(member.replace(name=_inside(member.name, folder), linkname=target), place)

    with tarfile.open(file) as tar:
        tar.extractall(to, filter=located)


def _unzip(file: Path, folder: str, to: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            member.filename = _inside(member.filename, folder) + "/" * member.is_dir()
            archive.extract(member, to)


def _inside(name: str, folder: str) -> str:
    """Return the path of an archive's member relative to the target folder. Raises InputError for a path outside it."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InputError(f"the archive has a member {name!r}; expected names inside it only")
    for base in (folder, PurePosixPath(folder).parent):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Create a folder and its missing parents; remove them when the block fails."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; expected a place that can be written to") from error
    try:
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
