"""Download of converters from the Hugging Face Hub, and upload to it.

A repository has the files of a bundle and, in vocoder/, those of a neural vocoder. Only files of these names are
downloaded: safetensors, JSON and the cards, which have the credits. No file is unpickled or executed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from rwae_audio.files import InputError

FILES = ("model.safetensors", "config.json", "README.md")
VOCODER = "vocoder"
VOCODER_FILES = (f"{VOCODER}/vocoder.safetensors", f"{VOCODER}/config.json", f"{VOCODER}/README.md")
NAME = re.compile(r"[\w.-]*\w/\w[\w.-]*", re.ASCII)  # owner/name, unlike paths that begin with ./ or /


def pretrained_folder(name: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a converter. A repository on the Hub is downloaded into the cache of huggingface_hub.

    Args:
        name: A folder, or a repository on the Hub, `owner/name`.
        revision: A branch, a tag or a commit of the repository; None for the newest.

    Raises:
        InputError: The name is neither, a revision is given for a folder, or the repository cannot be downloaded.
    """
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise InputError(
                f"revision is {revision!r} and {name} is a folder; expected a repository on the Hub, or no revision"
            )
        return folder
    if not NAME.fullmatch(str(name)):
        raise InputError(f"{name} is no folder; expected one, or the name of a repository on the Hub (owner/name)")
    from huggingface_hub import snapshot_download

    with _one_line(f"cannot fetch {name}" + (f" at {revision}" if revision else "")):
        files = [*FILES, *VOCODER_FILES]
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=files))


def upload(folder: Path, name: str, private: bool) -> str:
    """Upload the files of a converter to a repository on the Hub, which is created if it is missing.

    Args:
        folder: The folder of the converter.
        name: The repository, `owner/name`.
        private: Whether a new repository is private. An existing repository is not changed in this respect.

    Returns:
        The address of the commit.

    Raises:
        InputError: The Hub cannot be reached, or does not permit the upload.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"{name} is no name of a repository on the Hub; expected owner/name")
    from huggingface_hub import HfApi

    with _one_line(f"cannot upload to {name}"):
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        files = [*FILES, *VOCODER_FILES]
        message = "Upload a converter of rwae-audio"
        return str(api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=files, commit_message=message))


@contextlib.contextmanager
def _one_line(failure: str) -> Iterator[None]:
    """Convert an error of the Hub or of the network to an InputError whose message begins with `failure`."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise InputError(f"{failure}: its owner admits readers one by one; expected a token of one of them") from error
    except RepositoryNotFoundError as error:
        expected = "a repository on the Hub, or a token that may read it (hf auth login)"
        raise InputError(f"{failure}: it was not found, or is private; expected {expected}") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{failure}: the revision does not exist; expected a branch, a tag or a commit") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise InputError(f"{failure}: the Hub cannot be reached; expected a connection, or a folder") from error
    except HFValidationError as error:
        raise InputError(f"{failure}: {_first_line(error)}") from error
    except HfHubHTTPError as error:
        if getattr(error.response, "status_code", None) in (401, 403):
            expected = "a token with the permission (hf auth login)"
            raise InputError(f"{failure}: the Hub does not permit it; expected {expected}") from error
        raise InputError(f"{failure}: {_first_line(error)}") from error
    # the base classes are the errors of the HTTP library that huggingface_hub uses
    except (*HfHubHTTPError.__bases__, OSError) as error:  # type: ignore[misc]
        raise InputError(f"{failure}: {_first_line(error)}; expected a connection to the Hub") from error


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its class if there is no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
