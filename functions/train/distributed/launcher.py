"""Start one process per GPU, on every machine of the job, through torchrun's own agent.

AWS Batch sets in each container of a multi-node job:

    AWS_BATCH_JOB_NUM_NODES                        how many machines there are
    AWS_BATCH_JOB_NODE_INDEX                       which one this is
    AWS_BATCH_JOB_MAIN_NODE_INDEX                  which one is the main one, whose exit code is the job's
    AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS   the main one's address; not set on the main one itself

torchrun exits with 1 whatever the exit codes of its processes are. So each process writes its exit code to a file. The
launcher exits with that of the first process, or of one whose program failed. Where a process was lost or a GPU failed,
`fault_recovery` decides whether the job is to be retried.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

from functions.train.data.shared_downloads import FOLDER_VARIABLE
from functions.train.distributed.network_interface import name_network_interface
from functions.train.errors import PausedError
from functions.train.fault_recovery import FAULT, GIVE_UP, count_oom_kills
from pilotlight.errors import InvalidInputError

MASTER_PORT = 29500  # torchrun's own default
EXIT_FILE = "PILOTLIGHT_EXIT_FILE"  # where the first process of a machine writes its exit code
SIGNAL_BASE = 128  # exit codes from here on are those of killed processes
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


def launch_processes(
    cluster: ClusterLayout,
    train_arguments: Sequence[str],
    decide_retry: Callable[[str], int] = lambda _: GIVE_UP,
) -> int:
    """Run `python -m functions.train` with these arguments in every process; return the job's exit code.

    75 where a signal arrived before there was one: nothing is lost, and the same run can be resumed. `decide_retry`
    takes why a process was lost and returns the exit code then.
    """
    if cluster.nodes > 1:
        name_network_interface(os.environ, cluster.main_address if cluster.node_rank else None)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_GRACE_S)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's own default, without its warning
    with TemporaryDirectory(prefix="pilotlight-launch-") as folder, raise_on_sigterm():
        file = Path(folder, "code")
        os.environ[EXIT_FILE], os.environ[FOLDER_VARIABLE] = str(file), str(Path(folder, "downloads"))
        oom_kills = count_oom_kills()
        try:
            exit_code = run_torchrun_agent(cluster.torchrun_arguments, train_arguments)
        except PausedError:
            exit_code = os.EX_TEMPFAIL
        code = combine_exit_codes(read_exit_codes(file), exit_code)
    if code < SIGNAL_BASE and code != FAULT:
        return code
    if count_oom_kills() > oom_kills:
        sys.stderr.write(
            "A process was killed for lack of memory, so that the exit code is 1: the same happens again. Give the job "
            "more memory (MemoryMb), or set a smaller batch_size.\n"
        )
        return GIVE_UP
    if cluster.node_rank:  # the main machine's exit code is the job's, and it alone records the fault
        return GIVE_UP
    return decide_retry(describe_fault(code))


def read_exit_codes(file: Path) -> dict[int, int]:
    """Read the exit codes that the processes of this machine have written, by their place on it."""
    written = [(0, file), *((int(path.suffix[1:]), path) for path in file.parent.glob(f"{file.name}.*"))]
    return {place: int(path.read_text()) for place, path in written if path.exists()}


def combine_exit_codes(codes: Mapping[int, int], agent_code: int) -> int:
    """Combine what the processes wrote and how the agent saw them end into one exit code.

    A process that fails takes the others with it, so that its own code counts and not that they lost it.
    """
    if failed := [code for _, code in sorted(codes.items()) if code not in (0, os.EX_TEMPFAIL, FAULT)]:
        return failed[0]
    if FAULT in codes.values():
        return GIVE_UP if agent_code == GIVE_UP else FAULT
    return codes.get(0, agent_code)


def describe_fault(code: int) -> str:
    """Describe what became of a process."""
    return "a process or a GPU was lost" if code == FAULT else f"a process was ended by signal {code - SIGNAL_BASE}"


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
    """Run torchrun's agent and return 0, 75 when a signal ended it, or how its processes failed.

    That is 1 for an error of the program, 76 for a fault that a process reported, and 128 and the number of the signal
    where one was killed.

    Our own arguments bypass its parser, which reads our --run as its --run-path.
    """
    from torch.distributed.elastic.multiprocessing import SignalException  # these import torch
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    parsed = parse_args([*torchrun_arguments, "--module", "functions.train"])  # type: ignore[no-untyped-call]  # torch leaves it untyped
    parsed.training_script_args = list(train_arguments)
    try:
        run(parsed)  # type: ignore[no-untyped-call]  # so is this
    except ChildFailedError as exc:  # the reason is on standard error
        return summarize_failures([failure.exitcode for failure in exc.failures.values()])
    except SignalException:
        return os.EX_TEMPFAIL
    return 0


def summarize_failures(exit_codes: Sequence[int]) -> int:
    """Summarize how processes failed, killed ones as negative numbers; the agent ends the others by SIGTERM."""
    if any(code > 0 and code != FAULT for code in exit_codes):
        return GIVE_UP
    signals = [-code for code in exit_codes if code < 0]
    own = [number for number in signals if number != signal.SIGTERM]
    return FAULT if FAULT in exit_codes or not signals else SIGNAL_BASE + (own or signals)[0]


def report_exit_code(code: int, environment: Mapping[str, str] = os.environ) -> int:
    """Report the exit code to the launcher, where there is one; return the code to exit with.

    A pause is a success for torchrun: with 75, it would stop the other processes and print a page.
    """
    file = environment.get(EXIT_FILE)
    if not file:
        return code
    place = environment.get("LOCAL_RANK", "0")
    Path(file if place == "0" else f"{file}.{place}").write_text(str(code))
    return 0 if code == os.EX_TEMPFAIL else code


def end_process(code: int) -> NoReturn:
    """End this process with an exit code: what it has said is written, and no destructor of a library is run.

    One of torch's threads that outlives the interpreter by a moment ends a process that is done with SIGABRT
    ("terminate called without an active exception"): seen once among some hundred processes that had trained together.
    torchrun takes that for a failure, and stops the others, of which one may be publishing.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):  # nobody reads it any more
            stream.flush()
    os._exit(code)
