"""The interpreter while a handler is imported, which is a third of a cold start's CPU (infra/decisions/0048).

Imported before numpy. It knows the process, not what it is going to serve.
"""

import gc
import os


def starting() -> None:
    """Before the large imports: no search for garbage, since imports leave none, and no threads for matrices.

    numpy's OpenBLAS starts a thread for each CPU, and each spins for 25 ms before it sleeps, on the very CPU that the
    fetch needs. No handler multiplies matrices by numpy.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()


def started() -> None:
    """After them: what is there now stays for good, and is not looked at again by any later search."""
    gc.freeze()
    gc.enable()
