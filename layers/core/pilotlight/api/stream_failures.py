"""What a stream says when it fails after its first frame, when its status is long sent.

A stream that just ended would look complete to clients, so it always ends with a frame of its protocol that says why.
"""

import logging
from collections.abc import Callable, Iterable, Iterator

from pilotlight.api.router import format_traceback
from pilotlight.errors import PilotlightError, shorten_message

LOG = logging.getLogger("pilotlight.api")
UNKNOWN_FAILURE = "The server failed on this request; its log says why."
FailureWriter = Callable[[str, PilotlightError | None], Iterable[bytes]]  # a sentence for the caller, and its error


def tell_failure(frames: Iterable[bytes], write_failure: FailureWriter) -> Iterator[bytes]:
    """Yield the frames; if making them fails, yield those of the failure, and end."""
    try:
        yield from frames
    except PilotlightError as exc:
        yield from write_failure(shorten_message(str(exc)), exc)
    except Exception as exc:  # noqa: BLE001 - the last resort: the log has the bug, the caller a frame
        LOG.error(  # noqa: TRY400 - without its text, which may quote the request
            "A stream failed: %s\n%s", type(exc).__name__, format_traceback(exc)
        )
        yield from write_failure(UNKNOWN_FAILURE, None)
