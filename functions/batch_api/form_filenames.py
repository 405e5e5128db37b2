r"""File names in multipart forms as clients write them, beside plain UTF-8.

    filename*=UTF-8''%C5%BElu%C5%A5.jsonl      RFC 5987, of Java's and older .NET's clients
    filename="=?UTF-8?B?xb5sdcWl?="            RFC 2047, of mail libraries
    filename="C:\Users\me\a.jsonl"                the whole path

The name is only shown; nothing is stored under it.
"""

import re
import unicodedata
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from urllib.parse import unquote_to_bytes

from pilotlight.errors import InvalidInputError

EXTENDED = re.compile(r";\s*filename\*\s*=\s*\"?([A-Za-z0-9_-]*)'[^']*'([^;\"\s]*)", re.IGNORECASE)
ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[bqBQ]\?[^?]*\?=")
DEFAULT_NAME = "file"


def find_filename(disposition: str, plain: str | None) -> str:
    """Find a file's name in its header; `plain` is the one that the parser has found.

    Raises `InvalidInputError` for a name that does not decode, or has control characters.
    """
    extended = EXTENDED.search(disposition)
    try:
        if extended is not None:
            name = unquote_to_bytes(extended[2]).decode(extended[1] or "utf-8")
        elif plain and ENCODED_WORD.search(plain):
            name = str(make_header(decode_header(plain)))
        else:
            name = plain or ""
    except (UnicodeDecodeError, LookupError, HeaderParseError, ValueError) as exc:
        raise InvalidInputError(f"The file name in {disposition[:200]!r} does not decode: {exc}.") from exc
    name = re.split(r"[/\\]", name)[-1]
    if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in name):
        raise InvalidInputError(f"The file name {name[:200]!r} has a control character.")
    return name or DEFAULT_NAME
