"""Files of vectors in every format: the same vectors, bad entries named, and nothing in them is ever run."""

from __future__ import annotations

import io
import pickle
import shutil
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rwae_audio.evaluation.trials import Trials
from rwae_audio.evaluation.vectors import read_vectors
from rwae_audio.evaluation.verification import cosine_scores
from rwae_audio.files import InputError

VECTORS = {"s1/a.wav": [3.0, 4.0], "s1/b.wav": [4.0, 3.0], "s2/a.wav": [0.0, -2.0]}
COSINES = [24 / 25, -4 / 5, -3 / 5]  # of the pairs in TRIALS


@pytest.fixture
def trials() -> Trials:
    return Trials(("s1/a", "s1/b", "s2/a"), np.array([0, 0, 1]), np.array([1, 2, 2]), np.array([True, False, False]))


class Canary:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


def arrays() -> dict[str, np.ndarray]:
    return {name: np.array(vector, dtype=np.float32) for name, vector in VECTORS.items()}


def safetensors(folder: Path) -> Path:
    save_file({name: torch.tensor(vector) for name, vector in VECTORS.items()}, folder / "e.safetensors")
    return folder / "e.safetensors"


def half(folder: Path) -> Path:
    """rwae-embed's keys, numbers of 16 bits."""
    tensors = {f"static/{name}": torch.tensor(vector).bfloat16() for name, vector in VECTORS.items()}
    save_file({**tensors, "dynamic/s1/a.wav": torch.ones(3, 2)}, folder / "e.safetensors")
    return folder / "e.safetensors"


def npz(folder: Path) -> Path:
    np.savez(folder / "e.npz", **arrays())
    return folder / "e.npz"


def npy(folder: Path) -> Path:
    for name, array in arrays().items():
        (folder / "npy" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / "npy" / name.replace(".wav", ".npy"), array)
    return folder / "npy"


def ark(folder: Path, *, text: bool = False, scp: bool = False) -> Path:
    from kaldiio import save_ark

    save_ark(str(folder / "e.ark"), arrays(), scp=str(folder / "e.scp"), text=text)
    return folder / ("e.scp" if scp else "e.ark")


FORMATS: dict[str, Callable[[Path], Path]] = {
    "safetensors": safetensors,
    "half": half,
    "npz": npz,
    "npy": npy,
    "ark": ark,
    "text ark": lambda folder: ark(folder, text=True),
    "scp": lambda folder: ark(folder, scp=True),
    "text scp": lambda folder: ark(folder, text=True, scp=True),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_vectors(kind: str, trials: Trials, tmp_path: Path) -> None:
    matched, vectors = read_vectors(FORMATS[kind](tmp_path), trials)
    assert vectors.dtype == np.float64
    assert vectors.tolist() == list(VECTORS.values())
    assert [name.removesuffix(".wav") for name in matched.names] == list(trials.names)
    assert cosine_scores(vectors, matched).tolist() == pytest.approx(COSINES)


def test_an_scp_that_moved_with_its_archive_is_read(trials: Trials, tmp_path: Path) -> None:
    ark(tmp_path, scp=True)
    lines = (tmp_path / "e.scp").read_text().replace(f"{tmp_path}/", "")
    (tmp_path / "e.scp").write_text("\ufeff" + lines)
    assert read_vectors(tmp_path / "e.scp", trials)[1].tolist() == list(VECTORS.values())


def test_names_of_npy_files_are_paths_below_the_folder(trials: Trials, tmp_path: Path) -> None:
    """`take.1.npy` is `take.1`; a name with .npy, .wav or neither means the same file; hidden files are passed over."""
    for place in ("x/take.1.npy", "y/take.1.npy", "x/.hidden.npy", ".cache/z.npy", "x/note.txt"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        np.save(tmp_path / place, np.full(2, float(len(place))))
    names = ("x/take.1.npy", "y/take.1.wav")
    pair = Trials(names, np.array([0]), np.array([1]), np.array([True]))
    matched, vectors = read_vectors(tmp_path, pair)
    assert matched.names == ("x/take.1", "y/take.1")
    assert vectors.tolist() == [[12, 12], [12, 12]]
    with pytest.raises(InputError, match=r"1 of 1 names in the trial list are unknown, the first x/\.hidden"):
        read_vectors(tmp_path, Trials(("x/.hidden",), np.array([0]), np.array([0]), np.array([True])))


BAD_ARRAYS = {
    "matrix": (np.ones((1, 2)), r"s1/b.* has shape \(1, 2\); expected a vector \(2,\) for each name"),
    "longer": (np.ones(3), r"s1/b.* has shape \(3,\)"),
    "number": (np.array(1.0), r"s1/b.* has shape \(\)"),
    "empty": (np.ones(0), r"s1/b.* has shape \(0,\)"),
    "words": (np.array(["a", "b"]), "s1/b.* holds <U1; expected real numbers"),
    "complex": (np.array([1j, 2]), "s1/b.* holds complex128"),
    "objects": (np.array([{}, {}]), "s1/b.* cannot be read"),
}


@pytest.mark.parametrize("kind", ["npz", "npy"])
@pytest.mark.parametrize("bad", BAD_ARRAYS)
def test_arrays_that_are_no_vectors_are_named(kind: str, bad: str, trials: Trials, tmp_path: Path) -> None:
    array, expected = BAD_ARRAYS[bad]
    path = FORMATS[kind](tmp_path)
    if kind == "npz":
        np.savez(path, **{**arrays(), "s1/b.wav": array}, allow_pickle=True)
    else:
        np.save(path / "s1/b.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=expected) as caught:
        read_vectors(path, trials)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_short_is_one_line(kind: str, trials: Trials, tmp_path: Path) -> None:
    path = FORMATS[kind](tmp_path)
    file = {"npy": tmp_path / "npy/s2/a.npy"}.get(kind, tmp_path / "e.ark" if "scp" in kind else path)
    data = file.read_bytes()
    for size in {0, 1, len(data) // 2, len(data) - 3}:
        file.write_bytes(data[:size])
        with pytest.raises(InputError) as caught:
            read_vectors(path, trials)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_vector_without_direction_is_named(value: float, trials: Trials, tmp_path: Path) -> None:
    np.save(npy(tmp_path) / "s2/a.npy", np.full(2, value))
    matched, vectors = read_vectors(tmp_path / "npy", trials)
    with pytest.raises(InputError, match="s2/a has a vector of length"):
        cosine_scores(vectors, matched)


def test_a_name_that_comes_twice_is_refused(trials: Trials, tmp_path: Path) -> None:
    path = ark(tmp_path)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(InputError, match=r"e\.ark has s1/a\.wav twice"):
        read_vectors(path, trials)
    scp = tmp_path / "e.scp"
    scp.write_text(2 * scp.read_text())
    with pytest.raises(InputError, match=r"e\.scp, line 4 has s1/a\.wav again"):
        read_vectors(scp, trials)
    shutil.copy(npy(tmp_path) / "s1/a.npy", tmp_path / "npy/s1/a.NPY")
    with pytest.raises(InputError, match=r"has two files of s1/a"):
        read_vectors(tmp_path / "npy", trials)


def test_a_list_that_could_mean_two_vectors_is_refused(trials: Trials, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", **{**arrays(), "s1/a.flac": np.ones(2)})
    with pytest.raises(InputError, match=r"names s1/a, which could be s1/a\.wav or s1/a\.flac"):
        read_vectors(tmp_path / "e.npz", trials)


# ---- nothing is run


@pytest.mark.parametrize(
    "line",
    ["s1/a.wav touch {canary} |", "s1/a.wav | touch {canary}", "s1/a.wav cat e.ark | touch {canary} | cat", "s1|a x:3"],
)
def test_a_command_in_an_scp_is_refused_and_not_run(line: str, trials: Trials, tmp_path: Path) -> None:
    path, canary = ark(tmp_path, scp=True), tmp_path / "canary"
    path.write_text(path.read_text() + line.format(canary=canary) + "\n")
    with pytest.raises(InputError, match=r"line 4 has a command \(\|\)"):
        read_vectors(path, trials)
    assert not canary.exists()


@pytest.mark.parametrize("scp", [False, True])
@pytest.mark.parametrize("kind", ["PKL", "NPY"])
def test_a_pickle_in_an_archive_is_refused_and_not_loaded(kind: str, scp: bool, trials: Trials, tmp_path: Path) -> None:
    """kaldiio's own reader loads both."""
    path, canary = ark(tmp_path, scp=scp), tmp_path / "canary"
    payload = pickle.dumps(Canary(canary))
    if kind == "NPY":
        np.save(buffer := io.BytesIO(), np.array([Canary(canary)]), allow_pickle=True)
        payload = b"\x02" + struct.pack(">H", len(buffer.getvalue())) + buffer.getvalue()
    archive = tmp_path / "e.ark"
    archive.write_bytes(b"s1/a.wav " + kind.encode() + payload + b"\n")
    (tmp_path / "e.scp").write_text(f"s1/a.wav {archive}:9\ns1/b.wav {archive}:9\ns2/a.wav {archive}:9\n")
    with pytest.raises(InputError, match=r"s1/a\.wav cannot be read"):
        read_vectors(path, trials)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists()  # the control: unpickled, it would have been made


@pytest.mark.parametrize("text", ["s1/a.wav", "s1/a.wav e.ark:9[0:1]", "s1/a.wav none.ark:9"])
def test_a_wrong_scp_is_one_line(text: str, trials: Trials, tmp_path: Path) -> None:
    (tmp_path / "e.scp").write_text(f"{text}\ns1/b.wav e.ark:3\ns2/a.wav e.ark:3\n")
    with pytest.raises(InputError, match=r"line 1 is|none\.ark does not exist"):
        read_vectors(tmp_path / "e.scp", trials)


def test_whole_numbers_first_do_not_round_the_rest(tmp_path: Path) -> None:
    """kaldiio's own reader of text takes the type of the first number for all."""
    (tmp_path / "e.ark").write_text("a  [ 1 0.25 ]\nb  [ 0.5 -1e-3 ]\n")
    pair = Trials(("a", "b"), np.array([0]), np.array([1]), np.array([True]))
    assert read_vectors(tmp_path / "e.ark", pair)[1].tolist() == [[1, 0.25], [0.5, -1e-3]]


def test_without_kaldiio_the_extra_is_named(trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ark(tmp_path)
    monkeypatch.setitem(sys.modules, "kaldiio", None)
    for name in (path, tmp_path / "e.scp"):
        with pytest.raises(InputError, match=r"pip install 'rwae-audio\[kaldi\]'"):
            read_vectors(name, trials)


def test_where_there_is_nothing_to_read(trials: Trials, tmp_path: Path) -> None:
    (tmp_path / "empty.scp").write_text("\n")
    (tmp_path / "folder.ark").mkdir()
    for name in ("none", "none.npz", "none.ark", "none.scp", "empty.scp", "folder.ark"):
        with pytest.raises(InputError, match=rf"{name}.*; expected embeddings: a \.safetensors"):
            read_vectors(tmp_path / name, trials)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "npz", "npy", "ark", "text ark", "scp"])
def test_altered_bytes_are_vectors_or_one_line(kind: str, trials: Trials, tmp_path: Path) -> None:
    path = FORMATS[kind](tmp_path)
    file = {"npy": tmp_path / "npy/s1/a.npy", "scp": tmp_path / "e.ark"}.get(kind, path)
    data, rng = file.read_bytes(), np.random.default_rng(0)
    reasons = []
    for _ in range(200):
        altered = bytearray(data)
        for place in rng.integers(len(data), size=3):
            altered[place] = rng.integers(256)
        file.write_bytes(altered)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ResourceWarning)  # an npz file stays open until it is forgotten
            try:
                matched, vectors = read_vectors(path, trials)
                cosine_scores(vectors, matched)
            except InputError as error:
                reasons.append(str(error))
    assert 20 < len(reasons) < 200
    assert not any("\n" in reason for reason in reasons)
