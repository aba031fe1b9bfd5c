"""Fixtures that several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timit_trees
from made_up import tiny_bundle

# files of tests that start processes, or train for longer than moments: `make quick` leaves them out, as it leaves out
# single tests with `@pytest.mark.slow`, which take over half a second or import a large library
SLOW = (
    *(
        "commands",
        "demo",
        "demo_page",
        "digits",
        "distributed",
        "export",
        "hostile",
        "hub",
        "ladder",
        "learning",
        "mutations",
        "no_pickle",
    ),
    *(
        "package",
        "precision",
        "project",
        "recipes",
        "resume",
        "robustness",
        "timit",
        "timit_recipes",
        "trainer",
        "tutorial",
    ),
    *(
        "vc_many",
        "vocoder_training",
        "adain_vc",
        "streaming",
        "theory",
        "probes",
        "long_lists",
    ),
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave slow files out of `make quick` before they are imported."""
    quick = config.getoption("markexpr") == "not slow"
    return True if quick and collection_path.stem.removeprefix("test_") in SLOW else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow files."""
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real speech (an4/, librispeech/, timit_sample/) that RWAE_CORPORA names."""
    folder = os.environ.get("RWAE_CORPORA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RWAE_CORPORA does not name a folder with an4/, librispeech/ and timit_sample/")
    return Path(folder)


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle with tiny layers, preset `vocoder`; nobody writes to it."""
    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def timit_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short clips and label files, for timit_trees to link to."""
    timit_trees.clips(pool := tmp_path_factory.mktemp("timit") / "pool")
    return pool


@pytest.fixture(scope="session")
def timit_tree(timit_pool: Path) -> Path:
    """TIMIT as released: 630 speakers with the official ids, labels beside; nobody writes to it."""
    return timit_trees.tree(timit_pool.parent / "TIMIT", timit_pool, labels=True)
