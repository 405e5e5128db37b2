"""Tie a process to the gateway that started it, then run the program that it was started for.

    python parent_watchdog.py GATEWAY_PID MODULE [ARGUMENT ...]

On Linux the kernel kills it as soon as the gateway has ended, even if the gateway itself was killed. Elsewhere a
runtime client ends by itself once its long poll breaks. It runs in the environment's process, as a file, and imports
nothing of ours.
"""

import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tie_to_parent(gateway_pid: int) -> None:
    """Ask the kernel for SIGKILL at the gateway's death; exit at once if the gateway has ended already."""
    if sys.platform != "linux":
        return
    import ctypes  # only linux needs it

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != gateway_pid:
        sys.exit("The gateway that started this environment is gone.")


def main(arguments: list[str]) -> None:
    """Run the module of the second argument, with the arguments after it."""
    gateway_pid, module, *rest = arguments
    tie_to_parent(int(gateway_pid))
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
