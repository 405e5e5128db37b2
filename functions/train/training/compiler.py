"""torch.compile, and what it needs of a machine: it generates code, and compiles it where the training runs.

On a CPU it generates C++ for `g++`, or the compiler in CXX. On a GPU it generates kernels, and Triton compiles their
launchers with a C compiler: CC, `gcc` or `clang`. The first compilation takes minutes; `step` compiles one shape alone.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from pilotlight.errors import InvalidInputError, UnavailableError

Given = ParamSpec("Given")
Answer = TypeVar("Answer")
COMPILER_ERROR_MODULES = ("torch._dynamo", "torch._inductor")  # modules of the errors that compiling raises


def refuse_without_compiler(gpu_count: int, environment: Mapping[str, str] = os.environ) -> None:
    """Raise `InvalidInputError` where torch.compile would fail at the first step for lack of a compiler."""
    names = [environment.get("CC", ""), "gcc", "clang"] if gpu_count else [environment.get("CXX", "g++")]
    if not any(name and shutil.which(name, path=environment.get("PATH")) for name in names):
        kind, variable = ("C", "CC") if gpu_count else ("C++", "CXX")
        wanted = " or ".join(filter(None, names))
        raise InvalidInputError(
            f"compile: true needs a {kind} compiler here, {wanted}, and there is none on the PATH; install one, name "
            f"it by {variable}, or set compile=false."
        )


def compile_function(function: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Compile the function when it is first called; `UnavailableError` when that fails."""
    import torch  # here, so that a missing compiler is reported before torch is imported

    quick = torch.compile(function, dynamic=False)

    def call(*given: Given.args, **named: Given.kwargs) -> Answer:
        try:
            return quick(*given, **named)
        except RuntimeError as exc:
            if not type(exc).__module__.startswith(COMPILER_ERROR_MODULES):
                raise
            why = " ".join(str(exc).strip().split("\n\n", 1)[0].split()).rstrip(".")  # torch's advice comes after that
            raise UnavailableError(f"torch.compile failed: {why}. Set compile=false, or mend the compiler.") from exc

    return call
