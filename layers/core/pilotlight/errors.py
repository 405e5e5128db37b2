"""Everything that can go wrong, as one tree.

    PilotlightError
    ├── InvalidInputError          the caller's request, file or recipe is wrong
    │   ├── MethodNotAllowedError  right route, wrong verb
    │   ├── TooLargeError          more bytes than the limit
    │   └── UnsupportedTypeError   a body of a type or charset that is not read
    ├── NotFoundError              no such route, model, version, alias or object
    ├── UnsupportedError           a right request for something that is not built
    ├── ConflictError              somebody else wrote first
    │   ├── AlreadyExistsError     create-only put, and the object is there
    │   ├── ChangedError           compare-and-swap put, and the object has changed
    │   └── PreconditionError      the caller's If-Match speaks of another state
    └── UnavailableError           not now, or not here; may say after how many seconds to ask again
        ├── LoadingError           the model is still being opened
        ├── DeadlineError          the time that this request has is over
        ├── StoreError             the object store did not answer as it should
        │   └── DeniedError        these credentials may not do that
        ├── SuspendedError         the alias was taken out of service
        └── ModelRefusedError      the version's bytes are not what its manifest says, or do not open
            └── DoesNotFitError    the version is larger than the memory it may use

A message says what happened, with the value, and what to do. `pilotlight.api.router` alone knows their HTTP statuses.
"""

from collections.abc import Iterable


class PilotlightError(Exception):
    """Whatever Pilotlight raises on purpose; its text is fit to be shown to the caller."""


class InvalidInputError(PilotlightError):
    """The caller sent something wrong and can mend it."""


class MethodNotAllowedError(InvalidInputError):
    """The route exists, but not for this verb; `allowed` are those that it takes."""

    def __init__(self, message: str, *, allowed: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class TooLargeError(InvalidInputError):
    """The caller sent more bytes than the limit."""


class UnsupportedTypeError(InvalidInputError):
    """The body's media type or charset is not one that the route reads."""


class NotFoundError(PilotlightError):
    """There is nothing under that name."""


class UnsupportedError(PilotlightError):
    """The request is well formed and asks for something that is not built."""


class ConflictError(PilotlightError):
    """Somebody else wrote first; read again and decide anew."""


class AlreadyExistsError(ConflictError):
    """A create-only put found an object in its place."""


class ChangedError(ConflictError):
    """A compare-and-swap put found another e_tag than the one it was given."""


class PreconditionError(ConflictError):
    """What is to be changed is no longer what the caller says that it has seen."""


class UnavailableError(PilotlightError):
    """The request is right, but it cannot be served now; `retry_after` says in how many seconds it may be."""

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LoadingError(UnavailableError):
    """The model that should answer is being opened, which takes longer than this request can wait."""


class DeadlineError(UnavailableError):
    """The answer would come after the function or the gateway has given up."""


class StoreError(UnavailableError):
    """The object store failed, after its own retries."""


class DeniedError(StoreError):
    """The object store knows who asks, and does not let him."""


class SuspendedError(UnavailableError):
    """Somebody took the alias out of service, on purpose; its versions can still be named."""


class ModelRefusedError(UnavailableError):
    """A version was not loaded: wrong hash, wrong size, or a graph that does not open."""


class DoesNotFitError(ModelRefusedError):
    """A version needs more memory than the function may spend on models."""


def format_cause(exc: BaseException) -> str:
    """What another library says, for the middle of a sentence of ours: without its own full stop."""
    return str(exc).rstrip(".")
