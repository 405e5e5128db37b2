"""Start one process per GPU, on every machine of the job, through torchrun's own agent.

AWS Batch sets in each container of a multi-node job:

    AWS_BATCH_JOB_NUM_NODES                        how many machines there are
    AWS_BATCH_JOB_NODE_INDEX                       which one this is
    AWS_BATCH_JOB_MAIN_NODE_INDEX                  which one is the main one, whose exit code is the job's
    AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS   the main one's address; not set on the main one itself

torchrun exits with 1 whatever the exit codes of its processes are. So the first process of each machine writes its exit
code to a file, and the launcher exits with that.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from functions.train.errors import PausedError
from pilotlight.errors import InvalidInputError

MASTER_PORT = 29500  # torchrun's own default
EXIT_FILE = "PILOTLIGHT_EXIT_FILE"  # where the first process of a machine writes its exit code
SHUTDOWN_GRACE_S = "100"  # from SIGTERM to SIGKILL; ECS waits 110 s by its setting, Spot gives 120 s


@dataclass(frozen=True)
class ClusterLayout:
    """The machines of a job, as seen from one of them."""

    processes_per_node: int  # on this machine
    nodes: int = 1
    node_rank: int = 0  # of this machine; 0 is the main one
    main_address: str = "127.0.0.1"  # the main machine's address, as seen from this one

    @property
    def torchrun_arguments(self) -> list[str]:
        """The arguments for torchrun.

        With its static rendezvous, the main machine's first process is the main process. With c10d's it may be on any
        machine, and Batch ends the job when the main machine ends.
        """
        each = ["--nproc-per-node", str(self.processes_per_node)]
        if self.nodes == 1:
            return ["--standalone", *each]
        place = ["--nnodes", str(self.nodes), "--node-rank", str(self.node_rank)]
        return [*place, *each, "--master-addr", self.main_address, "--master-port", str(MASTER_PORT)]


def detect_cluster(
    environment: Mapping[str, str], processes: int | None, gpu_counter: Callable[[], int]
) -> ClusterLayout | None:
    """Detect the machines of the job; None where one process is enough, or where this is one of several already."""
    if "RANK" in environment:
        return None
    machines = read_integer(environment, "AWS_BATCH_JOB_NUM_NODES", 1)
    each = processes or max(1, gpu_counter())
    if machines == 1:
        return ClusterLayout(each) if each > 1 else None
    main, own = (read_integer(environment, f"AWS_BATCH_JOB_{name}_INDEX", 0) for name in ("MAIN_NODE", "NODE"))
    if own == main:
        return ClusterLayout(each, machines)
    address = environment.get("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS")
    if not address:
        raise InvalidInputError(
            f"Node {own} of {machines} does not know where the main node {main} is: "
            "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS is not set."
        )
    return ClusterLayout(each, machines, (own - main) % machines, address)


def read_integer(environment: Mapping[str, str], name: str, default: int) -> int:
    """Read an environment variable as an integer."""
    value = environment.get(name, "")
    if value and not value.isdecimal():
        raise InvalidInputError(f"{name} is {value!r}; it must be a whole number.")
    return int(value) if value else default


def count_gpus() -> int:
    """Count the GPUs of this process; imports torch, which takes seconds, only where there may be one."""
    if not [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")]:
        return 0
    import torch  # importing torch takes seconds, which are saved where there is no GPU

    return torch.cuda.device_count()


def launch_processes(cluster: ClusterLayout, train_arguments: Sequence[str]) -> int:
    """Run `python -m functions.train` with these arguments in every process; return the main process's exit code.

    75 where a signal arrived before there was one: nothing is lost, and the same run can be resumed.
    """
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_GRACE_S)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's own default, without its warning
    with TemporaryDirectory(prefix="pilotlight-launch-") as folder, raise_on_sigterm():
        file = Path(folder, "code")
        os.environ[EXIT_FILE] = str(file)
        try:
            exit_code = run_torchrun_agent(cluster.torchrun_arguments, train_arguments)
        except PausedError:
            exit_code = os.EX_TEMPFAIL
        return int(file.read_text()) if file.exists() else exit_code


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise `PausedError` on SIGTERM inside, until torchrun's agent has processes to forward it to."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise PausedError("Stopped by SIGTERM before anything was started.")

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_torchrun_agent(torchrun_arguments: Sequence[str], train_arguments: Sequence[str]) -> int:
    """Run torchrun's agent and return 0, 1, or 75 when a signal ended it.

    Our own arguments bypass its parser, which reads our --run as its --run-path.
    """
    from torch.distributed.elastic.multiprocessing import SignalException  # these import torch
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    parsed = parse_args([*torchrun_arguments, "--module", "functions.train"])  # type: ignore[no-untyped-call]  # torch leaves it untyped
    parsed.training_script_args = list(train_arguments)
    try:
        run(parsed)  # type: ignore[no-untyped-call]  # so is this
    except ChildFailedError:
        return 1  # the reason is on standard error
    except SignalException:
        return os.EX_TEMPFAIL
    return 0


def report_exit_code(code: int, environment: Mapping[str, str] = os.environ) -> int:
    """Report the exit code to the launcher, where there is one; return the code to exit with.

    A pause is a success for torchrun: with 75, it would stop the other processes and print a page.
    """
    file = environment.get(EXIT_FILE)
    if not file:
        return code
    if environment.get("LOCAL_RANK") == "0":
        Path(file).write_text(str(code))
    return 0 if code == os.EX_TEMPFAIL else code
