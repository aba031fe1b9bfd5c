"""Two processes give what one gives: gradients, critics, crops, noise, a run; and what the MMD's gather costs.

Run by torchrun, this file is the two processes: they leave what they got in a folder, and the tests compare.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import SWITCHES
from made_up_training import CONFIG, MODEL, run, store
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from rwae_audio import distributed
from rwae_audio.data.features import MelConfig
from rwae_audio.data.perturb import CHANNELS, channelled, equalised, shuffled, warp_frequencies, warp_mels
from rwae_audio.data.store import Sampler
from rwae_audio.files import InputError
from rwae_audio.model import ModelConfig, Standardise, normal
from rwae_audio.objectives import objective_settings
from rwae_audio.objectives.divergences import mmd
from rwae_audio.objectives.rwae_mmd import dynamic_penalty, static_penalty
from rwae_audio.randomness import generator
from rwae_audio.training import trainer
from rwae_audio.training.loop import Interrupted
from rwae_audio.training.trainer import RunConfig, new_model

ROOT = Path(__file__).parent.parent
PROCESSES = 2
CASES = {
    "mmd": (objective_settings("rwae-mmd"), {}),
    "mmd-joint": (objective_settings("rwae-mmd", dynamic_match="joint"), {"feedback": True}),
    "smmd": (objective_settings("rwae-smmd"), {}),
    "smmd-joint": (objective_settings("rwae-smmd", dynamic_match="joint"), {"posterior": "learned"}),
    "gan": (objective_settings("rwae-gan"), {}),
    "plus": (objective_settings("rwae-plus"), {}),
    "plus-swap": (objective_settings("rwae-plus", swap_weight=2.0, critic_weight=1.0), {}),
    "dbse": (objective_settings("dbse"), SWITCHES["dbse"]),
    "c-dsvae": (objective_settings("c-dsvae"), SWITCHES["c-dsvae"]),
    "skd": (objective_settings("skd"), SWITCHES["skd"]),
    "diffsda": (objective_settings("diffsda"), SWITCHES["diffsda"]),
    "s3vae": (objective_settings("s3vae"), SWITCHES["s3vae"]),
    "fhvae": (objective_settings("fhvae"), SWITCHES["fhvae"]),
    "dsvae": (objective_settings("dsvae"), {"dynamic_offset_variance": 0.0, "posterior": "learned"}),
}
B, T, STATIC, DYNAMIC = 12, 5, 4, 3  # of the measured penalties


def configuration(case: str, updates: int) -> RunConfig:
    objective, changes = CASES[case]
    train = replace(CONFIG.train, updates=updates)
    return replace(CONFIG, objective=objective, model=replace(MODEL, **changes), train=train)


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """And nothing is clipped, so that Adam's first mean is a tenth of the gradient."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, "GRADIENT_CLIP", 1e9)
            yield
    finally:
        torch.set_default_dtype(before)


# What both sides compute


def draws() -> dict[str, torch.Tensor]:
    """This process's rows of a batch, of its warped copy, of noise; and the numbers for which rows do not matter."""
    rows = distributed.local(B)
    batch = Sampler(store(), np.arange(12), 6, MODEL).draw(B, generator(0, "batch"), rows)
    frames = torch.randn(B, 6, 8, generator=generator(0, "frames"))[rows]
    codes = torch.randn(B, 3, generator=generator(0, "codes"))[rows].requires_grad_()
    standardise = Standardise(3)
    standard = standardise(codes)
    (distributed.world_size() * standard.pow(3).sum()).backward()
    assert codes.grad is not None
    return {
        "frames": batch.frames,
        "static_frames": batch.static_frames,
        "warped": warp_mels(frames, 0.3, generator(0, "warp")),
        "stretched": warp_frequencies(frames, 0.3, generator(0, "tract"), MelConfig(n_mels=8)),
        "equalised": equalised(frames, 0.3, generator(0, "equalise")),
        "channelled": channelled(frames, [*CHANNELS], generator(0, "channel"), MelConfig(n_mels=8)),
        "shuffled": shuffled(frames, generator(0, "shuffle")),
        "noise": normal((len(frames), 2, 3), generator(0, "noise"), frames),
        "standard": standard.detach(),
        "standard_gradient": codes.grad / distributed.world_size(),
        "whole/mean": standardise.running_mean,
        "whole/variance": standardise.running_var,
        "whole/average": distributed.average(frames.mean(0)),
    }


def cost() -> dict[str, list[int]]:
    """Bytes that one process receives in each message of a pass over both penalties, and FLOPs of their kernels."""
    messages: dict[str, list[int]] = {"gathered": [], "scattered": []}
    all_gather, reduce_scatter = torch.distributed.all_gather_into_tensor, torch.distributed.reduce_scatter_tensor

    def counted_gather(whole: torch.Tensor, own: torch.Tensor) -> None:
        messages["gathered"].append(whole.nbytes - own.nbytes)
        all_gather(whole, own)

    def counted_scatter(own: torch.Tensor, whole: torch.Tensor) -> None:
        messages["scattered"].append(whole.nbytes - own.nbytes)
        reduce_scatter(own, whole)

    torch.distributed.all_gather_into_tensor = counted_gather
    torch.distributed.reduce_scatter_tensor = counted_scatter
    count = B // distributed.world_size()
    static, dynamic = torch.randn(count, STATIC).requires_grad_(), torch.randn(count, T, DYNAMIC).requires_grad_()
    model = new_model(replace(CONFIG, model=replace(MODEL, static_dim=STATIC, dynamic_dim=DYNAMIC)))
    penalty = static_penalty(static, generator(0, "static"))
    (penalty + dynamic_penalty(model, dynamic, generator(0, "dynamic"))).backward()
    torch.distributed.all_gather_into_tensor = all_gather
    torch.distributed.reduce_scatter_tensor = reduce_scatter

    flops = []
    for codes, drawn in ((static, torch.randn(count, STATIC)), (dynamic, torch.zeros_like(dynamic).requires_grad_())):
        q, p = distributed.gather(codes), distributed.gather(drawn)
        with FlopCounterMode(display=False) as counter:
            (mmd(q, p) if q.ndim == 2 else mmd(q.transpose(0, 1), p.transpose(0, 1)).sum()).backward()
        flops.append(counter.get_total_flops())
    return {**messages, "flops": flops}


def two_processes(folder: Path) -> None:
    """What torchrun starts: every case in float64, then a run that is stopped by a signal to the second process."""
    distributed.start()
    rank = distributed.rank()
    writes: list[str] = []

    def watch(event: str, details: tuple) -> None:
        writing = event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writing or event in ("os.mkdir", "os.rename", "os.remove", "os.truncate"):
            writes.append(str(details[0]))

    with in_float64():
        drawn = {name: value.detach().contiguous() for name, value in draws().items()}
        report = {"world_size": distributed.world_size(), **cost()}
        sys.addaudithook(watch)
        for case in CASES:
            run(folder / case, configuration(case, updates=1))
        model = run(folder / "whole", configuration("mmd", updates=8))
        try:
            run(folder / "stopped", configuration("mmd", updates=8), stop_at=3 if rank == 1 else None)
        except Interrupted as stop:
            report["stopped"] = str(stop)
    report["writes"] = [name for name in writes if str(folder) in name]
    try:
        distributed.local(7)
    except InputError as error:
        report["error"] = str(error)
    report["folder"] = distributed.from_first(lambda: f"named by process {rank}")
    distributed.leave()
    report["alone"] = distributed.world_size()
    save_file(
        drawn | {f"model/{name}": v.contiguous() for name, v in model.state_dict().items()}, folder / f"{rank}.st"
    )
    (folder / f"{rank}.json").write_text(json.dumps(report))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the two processes leave."""
    folder = tmp_path_factory.mktemp("together")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={PROCESSES}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = [*torchrun, __file__, str(folder)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def reports(folder: Path) -> list[dict]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(PROCESSES)]


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], prefix: str = "") -> float:
    """The largest between two checkpoints, over the tensors whose name begins with `prefix`."""
    assert set(a) == set(b)
    names = [name for name in a if name.startswith(prefix)]
    assert names
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in names)


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_critics_are_those_of_one_process(together: Path, tmp_path: Path, case: str) -> None:
    with in_float64():
        run(tmp_path, configuration(case, updates=1))
    one, two = (load_file(folder / "checkpoints/latest.safetensors") for folder in (tmp_path, together / case))
    gradients = [{name: 10 * value for name, value in part.items() if name.endswith("exp_avg")} for part in (one, two)]
    assert max(float(value.abs().max()) for value in gradients[0].values()) > 1e-2
    assert difference(*gradients) < 1e-9
    if case.startswith(("smmd", "gan")):
        assert difference(one, two, "objective.") < 1e-9
        assert difference(one, two, "optimizer-") < 1e-9
    if configuration(case, updates=1).model.posterior == "fixed":
        assert difference(one, two, "model.dynamic_encoder.norm") < 1e-9


def test_a_run_of_two_processes_ends_where_that_of_one_does(together: Path, tmp_path: Path) -> None:
    with in_float64():
        model = run(tmp_path, configuration("mmd", updates=8))
    for rank in range(PROCESSES):
        left = load_file(together / f"{rank}.st")
        found = {name[6:]: value for name, value in left.items() if name.startswith("model/")}
        assert difference(dict(model.state_dict()), found) < 1e-6
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path, together / "whole")
    ]
    for one, two in zip(*lines, strict=True):
        # losses are logged as float32
        assert {**two, "seconds": 0} == pytest.approx({**one, "seconds": 0}, rel=1e-7, abs=1e-6)


def test_crops_noise_and_warps_are_keyed_by_the_row_of_the_global_batch(together: Path) -> None:
    with in_float64():
        whole = draws()
    parts = [load_file(together / f"{rank}.st") for rank in range(PROCESSES)]
    for name, value in whole.items():
        if name.startswith("whole/"):
            assert all(torch.allclose(part[name], value, rtol=0, atol=1e-12) for part in parts), name
        elif name.startswith("standard"):
            torch.testing.assert_close(torch.cat([part[name] for part in parts]), value.detach(), rtol=0, atol=1e-10)
        else:
            assert torch.equal(torch.cat([part[name] for part in parts]), value), name


def test_a_signal_to_one_process_stops_both_and_one_goes_on(together: Path, tmp_path: Path) -> None:
    assert [report["stopped"] for report in reports(together)] == ["stopped after update 4 of 8"] * PROCESSES
    with in_float64():
        run(together / "stopped", configuration("mmd", updates=8), resume=True)
    latest = [load_file(together / name / "checkpoints/latest.safetensors") for name in ("whole", "stopped")]
    assert difference(*latest, "model.") < 1e-6


def test_the_first_process_alone_writes(together: Path) -> None:
    first, second = reports(together)
    assert any("latest.safetensors" in name for name in first["writes"])
    assert second["writes"] == []
    assert (first["folder"], second["folder"]) == ("named by process 0",) * PROCESSES
    assert [report["alone"] for report in (first, second)] == [1, 1]


def test_a_batch_that_cannot_be_split_is_said(together: Path) -> None:
    for report in reports(together):
        assert report["error"] == "a batch of 7 cannot be divided among 2 processes; expected a multiple of 2"


# The cost of the MMD, as the page has it: n numbers of `size` bytes, W processes


def gathered_bytes(batch: int, world: int, steps: int, static: int, dynamic: int, size: int = 4) -> int:
    """Received by each process in the forward pass: codes and prior draws, and the prior's mean variance a step."""
    return (world - 1) * (batch // world * 2 * (static + steps * dynamic) + steps) * size


def scattered_bytes(batch: int, world: int, steps: int, static: int, dynamic: int, size: int = 4) -> int:
    """In the backward pass; the draws of N(0, I) have no gradient."""
    return (world - 1) * (batch // world) * (static + 2 * steps * dynamic) * size


def kernel_flops(batch: int, steps: int, static: int, dynamic: int) -> list[int]:
    """Matrix products of the static and of the dynamic penalty, forward and backward."""
    return [12 * batch**2 * static, 18 * steps * batch**2 * dynamic]


def test_the_gather_costs_what_the_formula_says(together: Path) -> None:
    sizes = (B, PROCESSES, T, STATIC, DYNAMIC, 8)
    for report in reports(together):
        assert report["world_size"] == PROCESSES
        assert sum(report["gathered"]) == gathered_bytes(*sizes)
        assert sum(report["scattered"]) == scattered_bytes(*sizes)
        assert report["flops"] == kernel_flops(B, T, STATIC, DYNAMIC)


def test_the_page_says_what_the_formulas_give() -> None:
    page = (ROOT / "recipes/timit/DISTRIBUTED.md").read_text()
    model, steps, world = ModelConfig(), MelConfig().segment, 8
    sizes = (steps, model.static_dim, model.dynamic_dim)
    for batch in (128, 1024, 8192):
        moved = (gathered_bytes(batch, world, *sizes) + scattered_bytes(batch, world, *sizes)) / 1e6
        flops, kernel = sum(kernel_flops(batch, *sizes)) / 1e9, (steps + 1) * batch**2 * 4 / 1e9
        assert f"| {batch:,} | {moved:.2f} MB | {flops:.2f} GFLOP | {kernel:.3f} GB |" in page


def test_one_process_is_left_alone() -> None:
    rows = torch.randn(4, 2)
    assert distributed.gather(rows) is rows
    assert distributed.average(rows) is rows
    assert distributed.local(7) == slice(0, 7)
    assert distributed.average_numbers({"loss": 1.5}, torch.device("cpu")) == {"loss": 1.5}
    one, torchs = Standardise(3), torch.nn.BatchNorm1d(3, affine=False, momentum=0.01)
    values = torch.randn(10, 3, generator=generator(0, "values"))
    assert torch.equal(one(values), torchs(values))
    assert all(torch.equal(torchs.state_dict()[name], value) for name, value in one.state_dict().items())
    assert torch.equal(one.eval()(values), torchs.eval()(values))


if __name__ == "__main__":
    two_processes(Path(sys.argv[1]))
