"""The interpreter while a handler is imported, which is a third of a cold start's CPU (infra/decisions/0017).

Imported before anything else. It knows the process, not what it is going to serve.
"""

import gc
import os
import sys
from types import ModuleType

BLAS_THREADS = "OPENBLAS_NUM_THREADS"
DOCSTRING_MODULES = ("numpy._core._add_newdocs", "numpy._core._add_newdocs_scalars")


def begin_imports() -> None:
    """Before the large imports.

    No search for garbage, since imports leave none. No threads for matrices: numpy's OpenBLAS starts one for each CPU,
    and each spins for 25 ms before it sleeps, on the very CPU that the fetch needs; no handler multiplies matrices by
    numpy. No docstrings of numpy's compiled functions, which two modules bring, 9 ms, for `help()`.
    """
    gc.disable()
    os.environ.setdefault(BLAS_THREADS, "1")
    for name in DOCSTRING_MODULES:
        sys.modules.setdefault(name, ModuleType(name))


def finish_imports() -> None:
    """After them: what is there now stays for good, and is not looked at again by any later search."""
    gc.freeze()
    gc.enable()
