"""`tokenizer.json`, whoever wrote it: that it can be read, and that it names no token that the model does not have."""

from typing import Any

import msgspec
from tokenizers import Tokenizer

from pilotlight.errors import InvalidInputError, format_cause


def load_tokenizer(content: bytes, origin: str) -> Tokenizer:
    """Load the tokenizer; `InvalidInputError` if it is none."""
    try:
        return Tokenizer.from_str(content.decode())
    except Exception as exc:
        raise InvalidInputError(f"{origin} has a tokenizer that cannot be read: {format_cause(exc)}.") from exc


def fit_tokenizer_json(content: bytes, origin: str, vocabulary_size: int) -> bytes:
    """Return the document without added tokens that the model has no embeddings of, such as Gemma's of an image.

    `InvalidInputError` if more is missing: such a tokenizer is another model's.
    """
    load_tokenizer(content, origin)
    document: dict[str, Any] = msgspec.json.decode(content)
    words = document.get("model", {}).get("vocab")
    highest = max(words.values(), default=0) if isinstance(words, dict) else len(words or ()) - 1
    added = document.get("added_tokens", [])
    beyond = [token for token in added if token["id"] >= vocabulary_size]
    if not beyond and highest < vocabulary_size:
        return content
    if isinstance(words, dict):
        for token in beyond:
            words.pop(token["content"], None)
        highest = max(words.values(), default=0)
    if highest >= vocabulary_size:
        raise InvalidInputError(
            f"{origin} has a tokenizer with the token {highest}, but embeddings of {vocabulary_size} tokens; the "
            "tokenizer is another model's."
        )
    document["added_tokens"] = [token for token in added if token["id"] < vocabulary_size]
    return msgspec.json.encode(document)
