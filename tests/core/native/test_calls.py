"""Whatever a native library raises, a caller of it gets an error of the tree, without the data that it quotes."""

import pytest

from pilotlight.errors import InvalidInputError, ModelRefusedError, NotFoundError, PilotlightError, TooLargeError
from pilotlight.native.calls import NativeCalls


class PanicException(BaseException):
    """As pyo3 raises it: no `Exception`."""


class LibraryError(Exception):
    """A library's own."""


def refuse(cause: str) -> InvalidInputError:
    return InvalidInputError(f"The input is refused: {cause}.")


READING = NativeCalls("reader", refuse, (LibraryError,))
OPENING = NativeCalls("reader", lambda cause: ModelRefusedError(f"It does not open: {cause}."), (LibraryError,))


@READING
def read(exc: BaseException | None = None) -> str:
    """Read, or fail."""
    if exc is not None:
        raise exc
    return "read"


def test_what_succeeds_is_left_alone() -> None:
    assert read() == "read"
    assert read.__name__ == "read"


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (LibraryError("no\n  header."), InvalidInputError, "The input is refused: no header."),
        (LibraryError("x" * 400), InvalidInputError, f"The input is refused: {'x' * 300} ...."),
        (PanicException("index out of bounds"), InvalidInputError, "refused: reader panicked: index out of bounds."),
        (PanicException("byte index 1 of `secret é`"), InvalidInputError, "reader panicked: byte index 1 of ...."),
        (PanicException(), InvalidInputError, "reader panicked: PanicException."),
        (MemoryError(), TooLargeError, "refused: reader found no memory for it; send less at once."),
        (LibraryError("std::bad_alloc"), TooLargeError, "no memory for it (std::bad_alloc); send less at once."),
        (PanicException("Failed to allocate 9 bytes"), TooLargeError, "(Failed to allocate 9 bytes); send less"),
    ],
)
def test_failures_are_errors_of_the_tree(raised: BaseException, kind: type[PilotlightError], text: str) -> None:
    with pytest.raises(PilotlightError) as found:
        read(raised)
    assert type(found.value) is kind
    assert text in str(found.value)
    assert found.value.__cause__ is raised


def test_a_model_without_memory_is_refused_and_not_too_large_a_request() -> None:
    with (
        pytest.raises(ModelRefusedError, match=r"It does not open: reader found no memory for it \(std::bad_alloc\)\."),
        OPENING,
    ):
        raise LibraryError("std::bad_alloc")


@pytest.mark.parametrize(
    "raised", [NotFoundError("none"), KeyboardInterrupt(), SystemExit(3), KeyError("a bug of ours")]
)
def test_what_is_no_failure_of_the_library_passes(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as found:
        read(raised)
    assert found.value is raised


def test_calls_may_be_nested() -> None:
    with pytest.raises(InvalidInputError, match="panicked"), OPENING:
        read(PanicException("inner"))
