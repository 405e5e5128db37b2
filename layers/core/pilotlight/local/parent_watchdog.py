"""Tie a process to the gateway that started it, then run the program that it was started for.

    python parent_watchdog.py GATEWAY_PID MODULE [ARGUMENT ...]
    python parent_watchdog.py GATEWAY_PID /PATH/OF/PROGRAM [ARGUMENT ...]

On Linux the kernel kills it as soon as the gateway has ended, even if the gateway itself was killed. Elsewhere a
runtime client ends by itself once its long poll breaks. It runs in the environment's process, as a file, and imports
nothing of ours.
"""

import os
import runpy
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tie_to_parent(gateway_pid: int) -> None:
    """Ask the kernel for SIGKILL at the gateway's death; exit at once if the gateway has ended already."""
    if sys.platform != "linux":
        return
    import ctypes  # only linux needs it

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != gateway_pid:
        sys.exit("The gateway that started this environment is gone.")


def become_program(path: str, arguments: list[str]) -> NoReturn:
    """Become a program, which stays tied; exit as Lambda does if it is not there, or not to be run."""
    if not os.access(path, os.F_OK):
        sys.exit(f"{path}: does not exist")
    if not os.access(path, os.X_OK):
        sys.exit(f"{path}: is not an executable")
    os.execv(path, [path, *arguments])  # noqa: S606 - the wrapper that the template names


def main(arguments: list[str]) -> None:
    """Run the module of the second argument, with the arguments after it; or become the program of that path."""
    gateway_pid, module, *rest = arguments
    tie_to_parent(int(gateway_pid))
    if os.path.isabs(module):  # noqa: PTH117 - no module has such a name, and pathlib would be one more import
        become_program(module, rest)
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
