"""Content encodings of HTTP bodies: gzip and deflate, in with a limit and out when asked for.

zlib comes with python; it knows nothing of what the bytes mean.
"""

import gzip
import re
import zlib
from io import BytesIO

from pilotlight.errors import InvalidInputError, TooLargeError, UnsupportedError

LIMIT = 128_000_000  # bytes of a body once decompressed: 6 MB of gzip may hold a thousand times as much
WORTH_IT = 1024  # bytes; a smaller body gains less than its header costs
REFUSED = re.compile(r"q=0(\.0{0,3})?")  # the weight of an encoding that is not wanted; RFC 9110, 12.4.2
WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}  # zlib's words; HTTP's deflate is a zlib stream


def decompress(body: bytes, encoding: str) -> bytes:
    """The body as it was before `Content-Encoding`; never holds more than `LIMIT` bytes of it.

    `InvalidInputError` for bytes that are not that encoding, `TooLargeError` beyond the limit, `UnsupportedError` for
    another encoding.
    """
    encoding = encoding.strip().lower().replace("x-gzip", "gzip")  # its older name; RFC 9110, 8.4.1.3
    if encoding in ("", "identity"):
        return body
    if encoding not in WINDOWS:
        raise UnsupportedError(f"Content-Encoding {encoding!r} is not served; use {', '.join(WINDOWS)}.")
    stream = zlib.decompressobj(WINDOWS[encoding])
    try:
        data = stream.decompress(body, LIMIT)
    except zlib.error as exc:
        raise InvalidInputError(f"The body is not {encoding}, as its Content-Encoding says: {exc}.") from exc
    if stream.unconsumed_tail:
        raise too_large()
    if not stream.eof:
        raise InvalidInputError(f"The body ends in the middle of its {encoding}.")
    return several(body, encoding) if stream.unused_data else data


def several(body: bytes, encoding: str) -> bytes:
    """A body that goes on behind the end of its encoding: gzip may, with another member (RFC 1952, 2.2)."""
    if encoding != "gzip":
        raise InvalidInputError(f"The body goes on behind the end of its {encoding}.")
    try:
        with gzip.GzipFile(fileobj=BytesIO(body)) as members:
            data = members.read(LIMIT + 1)
    except (OSError, EOFError, zlib.error) as exc:
        raise InvalidInputError(f"The body goes on behind the end of its gzip, with what is none: {exc}.") from exc
    if len(data) > LIMIT:
        raise too_large()
    return data


def too_large() -> TooLargeError:
    """The error for a body that swells beyond the limit."""
    return TooLargeError(f"The body is more than {LIMIT:,} bytes once decompressed; send fewer items at once.")


def compress(body: bytes, accepted: str) -> tuple[bytes, str | None]:
    """The body in the first of the accepted encodings that is ours, and its name; as it is when there is none."""
    if len(body) < WORTH_IT or not accepted:
        return body, None
    offers = [offer.partition(";") for offer in accepted.lower().split(",")]
    wanted = [name.strip() for name, _, quality in offers if not REFUSED.fullmatch(quality.replace(" ", ""))]
    encoding = next((name for name in wanted if name in WINDOWS), None)
    if encoding is None:
        return body, None
    # Level 1: tensors hardly compress, and the caller waits.
    return (gzip.compress(body, 1, mtime=0) if encoding == "gzip" else zlib.compress(body, 1)), encoding
