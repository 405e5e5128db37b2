"""The exceptions that Pilotlight raises, as one tree.

    PilotlightError
    ├── InvalidInputError          the caller's request, file or recipe is wrong
    │   ├── MethodNotAllowedError  right route, wrong verb
    │   ├── ContextLengthError     more tokens than a language model's context
    │   ├── TooLargeError          more bytes than the limit
    │   │   └── OutOfMemoryError   an allocation failed
    │   ├── UnsupportedTypeError   a body of a type, charset or encoding that is not read
    │   └── FieldError             one field of the body; it has OpenAI's `param` and `code`
    ├── NotFoundError              no such route, model, version, alias or object
    ├── UnsupportedError           a valid request for something that is not implemented
    ├── ConflictError              another writer was first
    │   ├── AlreadyExistsError     create-only put, and the object exists
    │   ├── ChangedError           compare-and-swap put, and the object has changed
    │   └── PreconditionError      the caller's If-Match names another state
    └── UnavailableError           not now, or not here; may have the seconds after which to try again
        ├── LoadingError           the model is still being opened
        ├── DeadlineError          the request's time is over
        ├── StoreError             the object store failed
        │   └── DeniedError        the credentials do not allow it
        ├── BrokenDocumentError    a document of the store that cannot be read as what it must be
        ├── LimitExceededError     as many as there may be at once are under way
        ├── SuspendedError         the alias was taken out of service
        └── ModelRefusedError      the version's bytes differ from its manifest, or do not open
            └── DoesNotFitError    the version is larger than the memory it may use

A message contains what happened, the value, and what to do. Only `pilotlight.api.router` maps them to HTTP statuses.
"""

from collections.abc import Iterable

MAX_SHOWN_BYTES = 1_400  # of a message to a caller
# Of a longer one: what happened, and what to do. A quote or backslash takes two bytes in JSON.
SHOWN_START_BYTES, SHOWN_END_BYTES = 700, 250
STORE_RETRY_S = 2  # after which a store that was slow or away may answer again


class PilotlightError(Exception):
    """Base of all errors that Pilotlight raises on purpose; the text may be shown to the caller."""


class InvalidInputError(PilotlightError):
    """The caller sent something wrong and can correct it."""


class MethodNotAllowedError(InvalidInputError):
    """The route exists, but not for this verb; `allowed` lists its verbs."""

    def __init__(self, message: str, *, allowed: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class ContextLengthError(InvalidInputError):
    """The caller's prompt leaves no room for an answer in the language model's context; both lengths are in tokens."""

    def __init__(self, prompt_tokens: int, context_length: int, *, is_estimate: bool = False) -> None:
        super().__init__(
            f"The prompt has {'about ' if is_estimate else ''}{prompt_tokens:,} tokens, and the model's context is "
            f"{context_length:,} tokens for prompt and answer together; send a prompt of at most "
            f"{context_length - 1:,} tokens."
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class TooLargeError(InvalidInputError):
    """The caller sent more bytes than the limit."""


class OutOfMemoryError(TooLargeError):
    """The caller's request needs more memory than could be allocated."""


class UnsupportedTypeError(InvalidInputError):
    """The body's media type or charset is not one that the route reads."""


class FieldError(InvalidInputError):
    """One field of the body is wrong: `param` is its path, and `code` is OpenAI's word for what is wrong with it."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class NotFoundError(PilotlightError):
    """Nothing exists under that name."""


class UnsupportedError(PilotlightError):
    """The request is well formed, but what it asks for is not implemented."""


class ConflictError(PilotlightError):
    """Another writer was first; read again and decide again."""


class AlreadyExistsError(ConflictError):
    """A create-only put found an existing object."""


class ChangedError(ConflictError):
    """A compare-and-swap put found an e_tag other than the expected one."""


class PreconditionError(ConflictError):
    """The object to change is no longer in the state that the caller has seen."""


class UnavailableError(PilotlightError):
    """The request is valid, but cannot be served now; it may be in `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LoadingError(UnavailableError):
    """The model is being opened, which takes longer than this request can wait."""


class DeadlineError(UnavailableError):
    """The answer would come after the function or the gateway has given up."""


class StoreError(UnavailableError):
    """The object store failed, after its own retries."""

    def __init__(self, message: str, *, retry_after: int | None = STORE_RETRY_S) -> None:
        super().__init__(message, retry_after=retry_after)


class DeniedError(StoreError):
    """The object store knows the caller, but denies the access, which time does not change."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=None)


class BrokenDocumentError(UnavailableError):
    """A document of the store is not what it must be: truncated, no JSON, of another form, too large."""


class LimitExceededError(UnavailableError):
    """As much of this is under way as there may be at once; a later request may find room."""


class SuspendedError(UnavailableError):
    """The alias was deliberately taken out of service; its versions can still be named."""


class ModelRefusedError(UnavailableError):
    """A version was not loaded: wrong hash, wrong size, or a graph that does not open."""


class DoesNotFitError(ModelRefusedError):
    """A version needs more memory than the function may spend on models."""


def format_cause(exc: BaseException) -> str:
    """Format another library's message for the middle of a sentence: without its full stop."""
    return str(exc).rstrip(".")


def shorten_message(message: str) -> str:
    """Shorten a message to a caller that quotes much of what he has sent: leave out its middle."""
    if len(message) <= MAX_SHOWN_BYTES // 4:  # no character has more bytes
        return message
    data = message.encode(errors="replace")
    if len(data) <= MAX_SHOWN_BYTES:
        return message
    start, end = data[:SHOWN_START_BYTES], data[-SHOWN_END_BYTES:]
    left_out = len(data) - len(start) - len(end)
    return f"{start.decode(errors='ignore')} [... {left_out:,} bytes ...] {end.decode(errors='ignore')}"
