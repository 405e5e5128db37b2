"""Configure the interpreter while a handler is imported, which is a third of a cold start's CPU (infra/decisions/0017).

Imported before all other modules. It depends on the process, not on what the process serves.
"""

import gc
import os
import sys
from types import ModuleType

BLAS_THREADS = "OPENBLAS_NUM_THREADS"
DOCSTRING_MODULES = ("numpy._core._add_newdocs", "numpy._core._add_newdocs_scalars")


def begin_imports() -> None:
    """Prepare the process for the large imports.

    Garbage collection is off, since imports leave no garbage. OpenBLAS gets one thread: by default it starts one for
    each CPU, each of which spins for 25 ms before it sleeps, on the CPU that the fetch needs; no handler multiplies
    matrices with numpy. Two modules with docstrings of numpy's compiled functions, for `help()`, are skipped: 9 ms.
    """
    gc.disable()
    os.environ.setdefault(BLAS_THREADS, "1")
    for name in DOCSTRING_MODULES:
        sys.modules.setdefault(name, ModuleType(name))


def finish_imports() -> None:
    """Exclude the imported objects from garbage collection, since they stay for good, and turn it on again."""
    gc.freeze()
    gc.enable()
