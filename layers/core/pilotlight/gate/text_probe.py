"""Tokenize hostile texts in a process of its own: `python -m pilotlight.gate.text_probe STEPS LENGTH < tokenizer.json`.

A tokenizer brings patterns of its own, and one such as `(a+)+$` takes a time that doubles with each letter: the
library's engine gives up and panics, or takes seconds. Such a tokenizer is refused before a caller finds its text.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.errors import PilotlightError
from pilotlight.native import child_process

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MEMORY_BYTES = 2_000_000_000
PROBE_SECONDS = 60.0  # for all texts; the usual tokenizers take 1 s
TEXT_CHARACTERS = 16_000  # of a text
MAX_TEXT_SECONDS = 0.5  # for one; the usual tokenizers take 0.03 s, and one whose time grows with the square 1 s
MAX_LETTERS = 60  # that are taken from the tokenizer's own patterns
PIECES = (
    "a", "ab", "A1", " ", "\n", "\t \n", "a ", "0", "1.", "'s", "-", "é", "e\u0301", "\u0301", "中", "ע", "😀",
    "👩\u200d", "\u00a0", "\u0000", "<",
)  # fmt: skip
END = "!"  # after which a pattern that needs another end has to try anew


def find_tokenizer_failure(content: bytes, steps: TextPreprocessing, length: int | None) -> str:
    """Return why a tokenizer.json is no good for hostile texts, as a clause; empty if it is."""
    return child_process.run_module(
        "pilotlight.gate.text_probe",
        [msgspec.json.encode(steps).decode(), str(length or 0)],
        memory_bytes=MEMORY_BYTES,
        seconds=PROBE_SECONDS,
        stdin=content,
    ).failure


def iterate_hostile_texts(content: bytes) -> Iterator[str]:
    """Yield texts of one repeated piece, some pieces from the tokenizer's own patterns."""
    for piece in (*PIECES, *collect_letters(json.loads(content))):
        yield piece * (TEXT_CHARACTERS // len(piece)) + END


def collect_letters(document: Any) -> list[str]:  # noqa: ANN401 - any JSON
    """Collect the letters of the patterns in a tokenizer.json, and each pattern's letters in a row."""
    letters: dict[str, None] = {}
    for pattern in iterate_patterns(document):
        own = [letter for letter in pattern if letter.isalnum() or ord(letter) > 127]
        letters |= dict.fromkeys(["".join(own), *own] if own else [])
    return list(letters)[:MAX_LETTERS]


def iterate_patterns(node: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """Yield the patterns and the texts that normalizers and pre-tokenizers look for; not the vocabulary."""
    if isinstance(node, list):
        for each in node:
            yield from iterate_patterns(each)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("Regex", "String") and isinstance(value, str):
                yield value
            elif key not in ("vocab", "merges", "added_tokens"):
                yield from iterate_patterns(value)


def probe_tokenizer(tokenizer: "Tokenizer", content: bytes) -> str:
    """Tokenize the hostile texts one by one; return the first failure, or an empty text."""
    from pilotlight.processing import text

    for hostile in iterate_hostile_texts(content):
        what = f"a text of {len(hostile):,} characters, {hostile[:8]!r} again and again,"
        started = time.process_time()
        try:
            text.encode_texts(tokenizer, [hostile])
        except PilotlightError as exc:
            return f"{what} fails: {exc}"
        seconds = time.process_time() - started
        if seconds > MAX_TEXT_SECONDS:
            return f"{what} takes {seconds:.1f} s to be tokenized, more than {MAX_TEXT_SECONDS:g}"
    return ""


def main() -> None:
    """Load the tokenizer and tokenize the texts; end with its failure on standard error."""
    from pilotlight.processing import text

    steps = msgspec.json.decode(sys.argv[1], type=TextPreprocessing)
    content = sys.stdin.buffer.read()
    max_tokens = int(sys.argv[2]) or None
    child_process.exit_with_failure(lambda: probe_tokenizer(text.load_tokenizer(content, steps, max_tokens), content))


if __name__ == "__main__":
    main()
