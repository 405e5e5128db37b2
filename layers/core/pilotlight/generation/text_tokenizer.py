"""A language model's tokenizer: text to tokens, tokens to text, and the true bytes of each token.

Two kinds are known, which are those of all models that are imported: byte-level BPE, which writes each byte as a
character of its own (GPT-2's table), and BPE of SentencePiece's kind, which writes a space as U+2581 and a byte that is
in none of its pieces as <0xE2>.
"""

import json
import re
from collections.abc import Sequence
from functools import cached_property, partial
from threading import Lock
from typing import Any

from tokenizers import Tokenizer

from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.native.calls import NativeCalls

SPACE_MARK = "\u2581"  # which SentencePiece writes for a space
BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
PRINTABLE_BYTES = (*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1))


def build_tokenizing_error(cause: str) -> InvalidInputError:
    """Build the error of a text or tokens that the tokenizer refuses."""
    return InvalidInputError(f"The tokenizer refused the prompt: {cause}.")


def build_tokenizer_error(path: str, cause: str) -> ModelRefusedError:
    """Build the error of a file that is not a tokenizer."""
    return ModelRefusedError(f"{path} is not a tokenizer.json: {cause}.")


TOKENIZING = NativeCalls("tokenizers", build_tokenizing_error, (Exception,))  # the library raises nothing narrower


class TextTokenizer:
    """The tokenizer that a `tokenizer.json` describes; all methods are thread-safe."""

    def __init__(self, content: bytes, path: str = "tokenizer.json") -> None:
        """Parse the file's content; `ModelRefusedError`, which names `path`, if it is not a tokenizer."""
        with NativeCalls("tokenizers", partial(build_tokenizer_error, path), (Exception,)):
            self._tokenizer = Tokenizer.from_buffer(content)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self._added: dict[int, Any] = self._tokenizer.get_added_tokens_decoder()
            self._base_size: int = self._tokenizer.get_vocab_size(with_added_tokens=False)
        self.json_document = content.decode()
        self._special = frozenset(token for token, added in self._added.items() if added.special)
        self._bytes: dict[int, bytes] = {}
        self._lock = Lock()  # of the flag by which the library decides about special tokens in a text

    @property
    def vocabulary_size(self) -> int:
        """The number of token ids, which is the greatest one plus 1."""
        return max(self._base_size, *(token + 1 for token in self._added), 0)

    def encode(self, text: str, *, parse_special: bool = True, add_special: bool = False) -> list[int]:
        """Turn a text into token ids.

        Args:
            text: the text.
            parse_special: whether special tokens that are written out in the text become those tokens, as they must
                in a rendered chat template; else they are ordinary text.
            add_special: whether the tokenizer adds what it puts around a text, such as a token that begins it.


        """
        with self._lock, TOKENIZING:
            self._tokenizer.encode_special_tokens = not parse_special
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special).ids
        return ids

    @TOKENIZING
    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Turn token ids into a text, in which bytes that are no character are U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def is_special(self, token: int) -> bool:
        """Return whether a token is one of those that are not part of a text."""
        return token in self._special

    @TOKENIZING
    def find_token(self, text: str) -> int | None:
        """Find the token that is written so in the vocabulary, such as `<|im_end|>`."""
        token: int | None = self._tokenizer.token_to_id(text)
        return token

    def get_bytes(self, token: int) -> bytes:
        """Return a token's bytes as they stand in a text; of a special token, its name; none of an unused id."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._compute_bytes(token)
        return known

    def _compute_bytes(self, token: int) -> bytes:
        added = self._added.get(token)
        if added is not None:
            return str(added.content).encode()
        with TOKENIZING:
            piece: str | None = self._tokenizer.id_to_token(token)
        if piece is None:
            return b""
        return self._decode_byte_level(piece) if self._is_byte_level else decode_sentence_piece(piece)

    def _decode_byte_level(self, piece: str) -> bytes:
        table = self._byte_values
        return b"".join(table[each] if each in table else each.encode() for each in piece)

    @cached_property
    def _byte_values(self) -> dict[str, bytes]:
        return {character: bytes([byte]) for byte, character in enumerate(list_byte_characters())}

    @cached_property
    def _is_byte_level(self) -> bool:
        decoder = json.loads(self.json_document).get("decoder") or {}
        kinds = {decoder.get("type"), *(each["type"] for each in decoder.get("decoders", ()))}
        return "ByteLevel" in kinds


def decode_sentence_piece(piece: str) -> bytes:
    """Return the bytes of one of SentencePiece's pieces."""
    byte = BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE_MARK, " ").encode()


def list_byte_characters() -> list[str]:
    """List the characters by which byte-level BPE writes the bytes 0 to 255.

    Printable bytes are themselves in Latin-1, the others U+0100 and following (GPT-2's encoder.py).
    """
    others = iter(range(256, 512))
    return [chr(byte) if byte in PRINTABLE_BYTES else chr(next(others)) for byte in range(256)]
