"""Corpora that are free to fetch: download, check the digest, unpack; by hand where there is no network.

An archive is unpacked into a folder of its own, which is there when it is whole and not before.
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

TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class Archive:
    """urls: the same bytes at each, tried in turn; digest: `algorithm:hex`, as published; folder: where the recordings
    are in the archive, and below the folder that is asked for; corpus: the reader's name (`--data`)."""

    urls: tuple[str, ...]
    digest: str
    folder: str
    corpus: str

    @property
    def file_name(self) -> str:
        """What the archive is called."""
        return PurePosixPath(urlsplit(self.urls[0]).path).name


def archives() -> dict[str, Archive]:
    """Every name that `download` knows. LibriSpeech's addresses and digests are torchaudio's."""
    from torchaudio.datasets import librispeech

    known = {
        # CMU publishes no digest. This one is NVIDIA's copy's (NeMo's tutorials read it), as public code states it;
        # whether CMU's own file has the same bytes is not known, so that file comes second and may be refused.
        "an4": Archive(
            (
                "https://dldata-public.s3.us-east-2.amazonaws.com/an4_sphere.tar.gz",
                "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz",
            ),
            "sha256:a0525579493735d32b60fb6fa5975dd0eaacde087b0a4eeb7f13b7ef33077b12",
            "an4",
            "an4",
        ),
        # NLTK's index (nltk_data/index.xml) gives an MD5 and nothing stronger: proof against accidents, not malice.
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
        known[f"librispeech-{subset}"] = Archive((url,), f"sha256:{digest}", place, "librispeech")
    return known


def download(
    name: str, to: Path, progress: bool = False, known: Mapping[str, Archive] | None = None
) -> tuple[str, Path, bool]:
    """The corpus's reader, the folder for it, and whether it was fetched now: what is there already is left alone.

    An archive that lies in `to` is checked and unpacked instead of fetched. Raises InputError without a network (and
    says what to put where), for other bytes than expected, and for an archive that reaches out of its folder.
    """
    known = archives() if known is None else known
    if name not in known:
        raise InputError(f"there is nothing to download by the name {name}; {nearest(name, sorted(known))}")
    archive = known[name]
    place = to / archive.folder
    root = to / PurePosixPath(archive.folder).parts[0]
    if place.is_dir():
        return archive.corpus, root, False
    with _made(place.parent), whole_folder(place) as temporary:
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
    """The first of the addresses that gives the right bytes."""
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
                raise
            problem = problem or f"cannot fetch {url} ({getattr(error, 'reason', None) or error})"
        finally:
            socket.setdefaulttimeout(before)
    raise InputError(f"{problem}; download it elsewhere, put it there as {by_hand.absolute()}, and call this again")


def _check(file: Path, archive: Archive) -> None:
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
    """The members below `folder` into `to`; those beside it (a licence, a list of speakers) as well."""
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

    def placed(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo:
        target = _inside(member.linkname, folder) if member.islnk() else member.linkname
        return tarfile.data_filter(member.replace(name=_inside(member.name, folder), linkname=target), place)

    with tarfile.open(file) as tar:
        tar.extractall(to, filter=placed)


def _unzip(file: Path, folder: str, to: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            member.filename = _inside(member.filename, folder) + "/" * member.is_dir()
            archive.extract(member, to)


def _inside(name: str, folder: str) -> str:
    """A member's name below the folder that it goes to. Raises InputError for one that climbs out."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InputError(f"the archive has a member {name!r}; expected names inside it only")
    for base in (folder, PurePosixPath(folder).parent):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make the folder and those that it lies in; take them away again when the block fails."""
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
