"""The one place through which calls into native libraries go: tokenizers, Pillow, onnxruntime, arro3, zstd, obstore.

Their failures become errors of Pilotlight's tree. A panic of Rust is no `Exception` (pyo3's `PanicException` derives
from `BaseException`), so that without this it passes every `except Exception` and ends the environment. What ends the
process at once, such as abort() or a segmentation fault, cannot be caught here: see `native.child_process`, and
`functions.batch_worker.file_job` for lines of files.
"""

import re
from collections.abc import Callable
from contextlib import ContextDecorator
from types import TracebackType

from pilotlight.errors import InvalidInputError, OutOfMemoryError, PilotlightError, format_cause

MAX_CAUSE_LENGTH = 300  # characters of a library's message
# How libraries that have no MemoryError say that an allocation failed.
OUT_OF_MEMORY = re.compile(
    r"bad_alloc|[Ff]ailed to allocate|out of memory|[Cc]annot allocate memory|would require more than \d+ bytes"
)
QUOTED = re.compile(r"[`'\"].*", re.DOTALL)  # from where on a panic quotes what it failed on
PASSED_ERRORS = (PilotlightError, KeyboardInterrupt, SystemExit, GeneratorExit)
ErrorBuilder = Callable[[str], Exception]


class NativeCalls(ContextDecorator):
    """A `with` block, or a decorated function, whose calls into `library` fail as errors of Pilotlight's tree.

        TOKENIZING = NativeCalls("tokenizers", build_error, (Exception,))

        with TOKENIZING:
            encodings = tokenizer.encode_batch(texts)

    `build_error` makes the error of a sentence's end, such as "it has no vocabulary" or "tokenizers panicked". The
    library's own `errors` and panics come that way; a failed allocation is `OutOfMemoryError`, or what `build_error`
    makes if that is no `InvalidInputError`, unless the calls are for a caller's request. Any other `Exception` is a bug
    of ours and passes. `clean` takes out of the library's message what says nothing, before it is cut. It keeps no
    state, so that one object serves all threads; it takes 0.2 us where nothing fails.
    """

    def __init__(
        self,
        library: str,
        build_error: ErrorBuilder,
        errors: tuple[type[Exception], ...],
        clean: Callable[[str], str] = str,
        *,
        is_for_caller: bool = False,
    ) -> None:
        """Describe the calls; with `is_for_caller`, memory that is not found is always the matter of a request."""
        self._library = library
        self._build_error = build_error
        self._errors = errors
        self._clean = clean
        self._is_for_caller = is_for_caller

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise the error of Pilotlight's tree for a failure of the library."""
        if exc is None or isinstance(exc, PASSED_ERRORS):
            return
        if is_out_of_memory(exc, self._errors):
            raise self._build_memory_error(exc) from exc
        if isinstance(exc, self._errors):
            raise self._build_error(cut_cause(self._clean(str(exc)))) from exc
        if not isinstance(exc, Exception):
            raise self._build_error(f"{self._library} panicked: {shorten_panic(exc)}") from exc

    def _build_memory_error(self, exc: BaseException) -> Exception:
        """Build the error of an allocation that failed: of too much input, or of a model that needs too much."""
        cause = f"{self._library} found no memory for it{format_details(exc)}"
        error = self._build_error(cause)
        if self._is_for_caller or isinstance(error, InvalidInputError):
            return OutOfMemoryError(f"{format_cause(error)}; send less at once.")
        return error


def is_out_of_memory(exc: BaseException, errors: tuple[type[Exception], ...]) -> bool:
    """Return whether an exception of a library means that memory could not be allocated."""
    if isinstance(exc, MemoryError):
        return True
    is_foreign = isinstance(exc, errors) or not isinstance(exc, Exception)
    return is_foreign and OUT_OF_MEMORY.search(str(exc)) is not None


def format_details(exc: BaseException) -> str:
    """Format what an exception says beyond its type, for the end of a sentence; empty if it says nothing."""
    cause = shorten_cause(exc)
    return f" ({cause})" if cause else ""


def shorten_cause(exc: BaseException) -> str:
    """Return the message of a library's own error in one line, without its full stop and not too long."""
    return cut_cause(str(exc))


def cut_cause(message: str) -> str:
    """Return a message in one line, without its full stop, cut behind a sentence or else anywhere."""
    cause = " ".join(message.split()).rstrip(".")
    if len(cause) <= MAX_CAUSE_LENGTH:
        return cause
    start = cause[:MAX_CAUSE_LENGTH]
    sentences = start.rpartition(". ")[0]
    return sentences if len(sentences) > MAX_CAUSE_LENGTH // 2 else f"{start} ..."


def shorten_panic(exc: BaseException) -> str:
    """Return a panic's message up to where it quotes the data: Rust quotes a text that it cannot slice."""
    return QUOTED.sub("...", shorten_cause(exc)) or type(exc).__name__
