"""A fault that is not the program's is retried while the run makes progress, and ends it when it repeats."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from functions.train import __main__ as command
from functions.train import fault_recovery
from functions.train.distributed.process_group import SINGLE_PROCESS, join_process_group, translate_faults
from functions.train.errors import DeviceFaultError, DeviceMemoryError
from functions.train.fault_recovery import count_oom_kills, decide_retry, find_progress, is_device_fault
from pilotlight.storage.object_store import ObjectStore, open_store

ECC = "CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be asynchronously reported"


def checkpoint(store: ObjectStore, step: int, folder: str = "") -> None:
    store.put(f"runs/r/{folder}checkpoints/step-{step}/manifest.json", b"{}")


def test_fault_is_retried_while_there_is_progress() -> None:
    store, said = open_store("memory://"), list[str]()
    assert decide_retry(store, "r", "lost", said.append) == 1
    store.put("runs/r/checkpoints/step-9/tensors.safetensors", b"half an upload")
    assert decide_retry(store, "r", "lost", said.append) == 1
    checkpoint(store, 7)
    assert decide_retry(store, "r", "lost", said.append) == 75
    assert decide_retry(store, "r", "lost", said.append) == 1
    checkpoint(store, 10)  # 10 is more than 7, also where texts are compared
    assert decide_retry(store, "r", "lost", said.append) == 75
    store.put("runs/r/fault.json", b"broken")
    assert decide_retry(store, "r", "lost", said.append) == 75
    assert decide_retry(store, None, "lost", said.append) == 1
    assert [line.split(",")[0] for line in said[1:5]] == [
        "There is no checkpoint to go on from",
        "The run goes on from its checkpoint of step 7: the exit code is 75",
        "There is no checkpoint after step 7",
        "The run goes on from its checkpoint of step 10: the exit code is 75",
    ]


def test_folds_come_before_the_training() -> None:
    store = open_store("memory://")
    checkpoint(store, 90, "folds/2/")
    assert decide_retry(store, "r", "lost", print) == 75
    checkpoint(store, 3, "folds/11/")
    assert decide_retry(store, "r", "lost", print) == 75
    checkpoint(store, 1)
    assert decide_retry(store, "r", "lost", print) == 75
    assert find_progress(store, "r") == (fault_recovery.MAIN_TRAINING, 1)
    assert find_progress(store, "other") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ECC, True),
        ("CUDA error: unspecified launch failure", True),
        ("NVRM: Xid (PCI:0000:00:1e): 79, GPU has fallen off the bus", True),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", True),
        ("CUDA error: device-side assert triggered", False),
        ("CUDA error: out of memory", False),
        ("CUDA error: no kernel image is available for execution on the device", False),
        ("CUDA error: invalid device ordinal", False),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_faults_of_a_device_and_errors_of_the_program(text: str, expected: bool) -> None:
    assert is_device_fault(RuntimeError(text)) is expected


def test_failing_gpu_of_the_only_process_is_one_sentence() -> None:
    said = r"The GPU of process 0 failed: CUDA error: .* encountered\. Start the"
    with pytest.raises(DeviceFaultError, match=said), join_process_group({}):
        raise RuntimeError(ECC)
    with (
        pytest.raises(
            DeviceMemoryError, match=r"too little memory: CUDA out of memory. Tried to allocate 2 GiB. Set a"
        ),
        translate_faults(SINGLE_PROCESS),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    with pytest.raises(RuntimeError, match="Connection"), join_process_group({}):
        raise RuntimeError("Connection refused")  # of one process this is no lost one


@pytest.mark.parametrize(("prepare", "code"), [(lambda store: checkpoint(store, 4), 75), (lambda _: None, 1)])
def test_command_ends_with_the_code_that_batch_reads(
    prepare: Callable[[ObjectStore], None],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise DeviceFaultError("The GPU of process 0 failed.")

    monkeypatch.setattr(command, "join_and_run", fail)
    prepare(open_store(str(tmp_path)))
    assert command.main(["digits", "--store", str(tmp_path), "--run", "r"]) == code
    assert capsys.readouterr().err.startswith("The GPU of process 0 failed.\n")


def test_kernel_counts_what_it_killed(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    assert count_oom_kills(events) == 0
    events.write_text("low 0\nhigh 2\nmax 0\noom 5\noom_kill 3\noom_group_kill 0\n")
    assert count_oom_kills(events) == 3


def test_decision_needs_no_torch() -> None:
    code = "import sys, functions.train.fault_recovery; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": ":".join(sys.path)}).returncode
        == 0
    )
