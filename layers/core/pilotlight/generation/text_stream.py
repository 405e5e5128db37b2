"""Turn the bytes of tokens into text while they come: whole characters only, and never U+FFFD."""

from codecs import getincrementaldecoder

UTF8_DECODER = getincrementaldecoder("utf-8")


class TextStream:
    """The text of one choice. A character comes out when its last byte has come in; at the end, a part is dropped.

    Bytes that are in no character, which a model may emit, are dropped.
    """

    def __init__(self) -> None:
        self._decoder = UTF8_DECODER(errors="ignore")

    def push(self, content: bytes) -> str:
        """Take the bytes of the next token, and return the characters that are whole with them."""
        return self._decoder.decode(content)


def decode_whole_characters(content: bytes) -> str:
    """Return the whole characters of some bytes, as far as there are any."""
    return content.decode("utf-8", errors="ignore")
