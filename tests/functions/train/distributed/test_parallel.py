"""Two processes train what one would have, in copies and in slices; a batch is shared out whole."""

import inspect
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from functions.train.data import loader
from functions.train.data.split import Splits
from functions.train.distributed import parallel
from functions.train.distributed.process_group import SINGLE_PROCESS, ProcessGroup, read_process_group
from functions.train.training.prediction import share_examples
from functions.train.training.step import count_accumulation_parts
from tests.functions.train.distributed.worker_processes import BROKEN, WAYS, few, scored, trained

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
TOLERANCE = 2e-5  # of a weight; the order in which two processes add is another one
CPU = torch.device("cpu")


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun gives a process."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    path = os.pathsep.join([str(ROOT), str(ROOT / "layers/core")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | {name: str(is_) for name, is_ in place.items()}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that two processes ended with."""
    folder = tmp_path_factory.mktemp("several")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "error", "-m", "tests.functions.train.distributed.worker_processes", str(folder)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment(rank, 2, port), stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return folder


@pytest.fixture(scope="module")
def splits() -> Splits:
    return few()


@pytest.mark.parametrize("name", [name for name in WAYS if name != "dropped"])
def test_two_processes_train_what_one_would_have(name: str, together: Path, splits: Splits) -> None:
    found = load_file(together / f"{name}.safetensors")
    for key, weights in trained(name, splits).items():
        torch.testing.assert_close(found[key], weights, rtol=0, atol=TOLERANCE)


def test_two_processes_evaluate_a_part_each_to_the_same_scores(together: Path) -> None:
    first, second = (json.loads((together / f"scores-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    expected = scored()
    assert first.keys() == expected.keys()
    for name, values in expected.items():
        assert first[name] == pytest.approx(values, rel=1e-6, nan_ok=True), name  # the network rounds by batch
        for count in {"accuracy", "balanced_accuracy", "f1", "top_5"} & values.keys():
            assert first[name][count] == values[count], (name, count)  # from whole numbers, and so exact


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("examples", [1, 2, 7, 64, 1000])
def test_every_example_is_evaluated_once_in_as_many_batches(examples: int, size: int) -> None:
    shares = [list(share_examples(examples, 10, ProcessGroup(rank, size))) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1  # or a sharded network would wait for a process for ever
    assert sorted(row for share in shares for start, stop in share for row in range(start, stop)) == [*range(examples)]
    assert all(stop - start <= 10 and start < examples for share in shares for start, stop in share)


def test_buffers_are_kept_from_being_sent_by_torch_of_either_name() -> None:
    def of_2_11(module: object, device_ids: object = None, broadcast_buffers: bool = True) -> None: ...

    def of_2_13(module: object, broadcast_buffers: bool | None = None, forward_sync_buffers: object = None) -> None: ...

    assert parallel.get_buffer_options(of_2_11) == {"broadcast_buffers": False}
    assert parallel.get_buffer_options(of_2_13) == {"forward_sync_buffers": False}
    (known,) = parallel.get_buffer_options(DistributedDataParallel)
    assert known in inspect.signature(DistributedDataParallel).parameters


@pytest.mark.parametrize("name", BROKEN)
def test_resumed_together_is_the_unbroken_one_bit_for_bit(name: str, together: Path) -> None:
    found, expected = (load_file(together / f"{name}{suffix}.safetensors") for suffix in (", broken", ""))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("examples", [2, 3, 4, 5, 64, 1001])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_every_example_is_shared_out_evenly(examples: int, size: int) -> None:
    batch = torch.arange(examples)
    shares = [ProcessGroup(rank, size).shard_batch(batch) for rank in range(size)]
    if examples < size:  # too small to share: all of them work through it all
        assert all(torch.equal(share, batch) for share in shares)
    else:
        assert torch.equal(torch.cat(shares), batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("examples", "processes", "expected"), [(64, 1, 5), (64, 8, 4), (7, 2, 1), (3, 8, 1)])
def test_all_processes_work_through_equally_many_parts(examples: int, processes: int, expected: int) -> None:
    assert count_accumulation_parts(5, examples, processes) == expected


@pytest.mark.parametrize("examples", range(1, 14))
@pytest.mark.parametrize("size", [2, 3, 4, 12])
def test_batches_hold_every_example_once_and_never_one_alone(examples: int, size: int) -> None:
    sizes = loader.compute_batch_sizes(examples, size)
    assert sum(sizes) == examples
    assert all(part > 1 for part in sizes) or examples == 1
    assert all(part == size for part in sizes[:-1])
    assert sizes[-1] <= size + 1


def test_place_is_what_torchrun_says() -> None:
    assert read_process_group({}) == SINGLE_PROCESS
    assert read_process_group({"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}) == ProcessGroup(9, 16, 1)


def test_alone_nothing_is_shared_or_told() -> None:
    value = torch.arange(3)
    assert (
        SINGLE_PROCESS.shard_batch(value)
        is SINGLE_PROCESS.sum_over_ranks(value)
        is SINGLE_PROCESS.broadcast(value)
        is value
    )
    assert (
        SINGLE_PROCESS.max_over_ranks(2),
        SINGLE_PROCESS.broadcast_bytes(b"x"),
        SINGLE_PROCESS.broadcast_tensors({"a": value}),
        SINGLE_PROCESS.is_main,
    ) == (2, b"x", {"a": value}, True)


def test_model_too_large_for_a_gpu_is_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Linear(1000, 1000, bias=False)  # 16 MB with gradients and Adam's moments

    class Gpu:
        total_memory = 20_000_000

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Gpu)
    assert parallel.choose_strategy("auto", network, CPU) == "ddp"
    assert parallel.choose_strategy("fsdp", network, CPU) == "fsdp"
    assert parallel.choose_strategy("auto", network, torch.device("cuda")) == "fsdp"
    monkeypatch.setattr(Gpu, "total_memory", 40_000_000)
    assert parallel.choose_strategy("auto", network, torch.device("cuda")) == "ddp"
