"""Constraints on what a model may write: JSON, a JSON schema, a regular expression, a grammar, or one of several texts.

llguidance does the work. For each token it computes which may come next, so that the text is valid at every step.
A constraint is compiled once and kept, since agents send the same schema with each turn.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark

from pilotlight.errors import InvalidInputError, ModelRefusedError, TooLargeError, format_cause
from pilotlight.generation.request import BoolArray, TokenConstraint

# Blanks between the parts of a JSON document, at one place: models that prefer blanks would otherwise never end.
WHITESPACE = r"[\x20\x0A\x0D\x09]{1,8}"
MAX_GRAMMAR_BYTES = 256 * 1024  # text of a schema, expression or grammar
MAX_GBNF_BYTES = 8 * 1024  # its conversion takes time by the square of the length: 5 minutes for 200 kB
LARK_START = re.compile(r"^[ \t]*(%llguidance\b|start[^\n:]*:(?!:=))", re.MULTILINE)
# llguidance follows rules and references by recursion, about 3 kB for each, and overflowing the stack ends the process.
# The greatest chain that fits the limit above has 25,000 of them; pages of a stack that are not used take no memory.
COMPILER_STACK_BYTES = 256 * 1024 * 1024
KEPT_CONSTRAINTS = 64
MAX_CHOICES = 10_000
LIMITS = LLParserLimits(verbose_errors=False)  # messages without the state of the parser; its other limits are sane


class AddedToken(msgspec.Struct):
    """A token that the tokenizer finds before it splits a text."""

    id: int
    content: str


class TokenizerOutline(msgspec.Struct):
    """What is needed to know of a tokenizer.json."""

    added_tokens: list[AddedToken] = []


class GrammarConstraint:
    """The state of one choice's text in its grammar."""

    def __init__(self, matcher: LLMatcher, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._vocabulary_size = vocabulary_size

    @property
    def is_complete(self) -> bool:
        """Whether nothing but an end token may follow."""
        return bool(self._matcher.is_stopped() and self._matcher.is_accepting())

    def compute_mask(self) -> BoolArray:
        """Return which tokens may come next, (vocabulary,); end tokens are allowed where the text may end."""
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        bits = np.unpackbits(packed, count=min(self._vocabulary_size, packed.size * 8), bitorder="little")
        if bits.size < self._vocabulary_size:
            bits = np.pad(bits, (0, self._vocabulary_size - bits.size))
        mask: BoolArray = bits.view(np.bool_)
        return mask

    def accept(self, token: int) -> None:
        """Take the token that was chosen."""
        if not self._matcher.consume_token(token):
            self._check()

    def _check(self) -> None:
        """Raise if the grammar grew beyond llguidance's limits, or a token was taken that the mask forbids."""
        if self._matcher.is_error():
            raise InvalidInputError(f"The text cannot be held to its grammar: {_read_error(self._matcher)}.")


class CompiledConstraint:
    """A grammar for a model's tokens; each choice that it holds has a constraint of its own."""

    def __init__(self, matcher: LLMatcher, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._vocabulary_size = vocabulary_size

    def __call__(self) -> TokenConstraint:
        """Create a constraint at its beginning."""
        return GrammarConstraint(self._matcher.deep_copy(), self._vocabulary_size)


class ConstraintCompiler:
    """Compiles constraints for the tokens of one model; building it takes about half a second for 50,000 tokens."""

    def __init__(self, tokenizer_document: str, end_tokens: Sequence[int], vocabulary_size: int) -> None:
        self._vocabulary_size = vocabulary_size  # of the logits, which may have more columns than there are tokens
        self._tokenizer = _build_tokenizer(tokenizer_document, list(end_tokens), vocabulary_size)
        outline = msgspec.json.decode(tokenizer_document, type=TokenizerOutline)
        self._added_tokens = {token.content: token.id for token in outline.added_tokens}
        self._kept: OrderedDict[str, CompiledConstraint] = OrderedDict()
        self._lock = threading.Lock()

    def compile_json_object(self) -> CompiledConstraint:
        """Compile the constraint that a text is any JSON object."""
        return self.compile_json_schema({"type": "object"})

    def compile_json_schema(self, schema: Mapping[str, Any], *, strict: bool = True) -> CompiledConstraint:
        """Compile a JSON schema; if it is not strict, keywords that cannot be enforced are left out of account."""
        options = {"whitespace_pattern": WHITESPACE, "lenient": not strict}
        text = write_schema(schema)
        return self._get(
            f"json:{strict}:{text}",
            "JSON schema",
            lambda: LLMatcher.grammar_from_json_schema(text, overrides=options),  # type: ignore[arg-type]  # its stubs know fewer options
        )

    def compile_regex(self, pattern: str) -> CompiledConstraint:
        """Compile a regular expression that the whole text matches."""
        return self._get(f"regex:{pattern}", "regular expression", lambda: LLMatcher.grammar_from_regex(pattern))

    def compile_grammar(self, grammar: str) -> CompiledConstraint:
        """Compile a grammar in Lark's syntax, or in that of llama.cpp (GBNF)."""
        return self._get(
            f"grammar:{grammar}", "grammar", lambda: LLMatcher.grammar_from_lark(_convert_grammar(grammar))
        )

    def compile_choices(self, choices: Sequence[str]) -> CompiledConstraint:
        """Compile the constraint that the text is one of several."""
        if not 1 <= len(choices) <= MAX_CHOICES:
            raise InvalidInputError(f"There are {len(choices):,} choices; send 1 to {MAX_CHOICES:,}.")
        return self.compile_grammar("start: " + " | ".join(quote_literal(choice) for choice in choices))

    def write_marker(self, marker: str) -> str:
        """Write a marker as a symbol of a grammar: by its id if it is a special token, which has no text there."""
        token = self.find_special_token(marker)
        return quote_literal(marker) if token is None else f"<[{token}]>"

    def find_special_token(self, text: str) -> int | None:
        """Return the id of the special token of that text, or None; one that is not special is ordinary text."""
        token = self._added_tokens.get(text)
        return token if token is not None and self._tokenizer.is_special_token(token) else None

    def _get(self, key: str, kind: str, write: Callable[[], str]) -> CompiledConstraint:
        """Return a kept constraint, or compile it."""
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
        if (size := len(key.encode(errors="replace"))) > MAX_GRAMMAR_BYTES:
            raise TooLargeError(f"The {kind} has {size:,} bytes; at most {MAX_GRAMMAR_BYTES:,} are compiled.")
        compiled = CompiledConstraint(self._compile(write, kind), self._vocabulary_size)
        with self._lock:
            self._kept[key] = compiled
            while len(self._kept) > KEPT_CONSTRAINTS:
                self._kept.popitem(last=False)
        return compiled

    def _compile(self, write: Callable[[], str], kind: str) -> LLMatcher:
        try:
            matcher = _run_on_deep_stack(lambda: LLMatcher(self._tokenizer, write(), log_level=0, limits=LIMITS))
        except ValueError as exc:
            raise InvalidInputError(f"The {kind} cannot be compiled: {format_cause(exc)}.") from exc
        if matcher.is_error():
            raise InvalidInputError(f"The {kind} cannot be compiled: {_read_error(matcher)}.")
        return matcher


def write_schema(schema: Mapping[str, Any]) -> str:
    """Write a JSON schema as text, without the options that llguidance would read in it."""
    try:
        inexact = next(find_inexact_integers(schema), None)
        text = msgspec.json.encode({key: value for key, value in schema.items() if key != "x-guidance"}).decode()
    except (RecursionError, TypeError, ValueError, OverflowError) as exc:
        raise InvalidInputError(f"The JSON schema cannot be written as JSON: {format_cause(exc)}.") from exc
    if inexact is not None:
        raise InvalidInputError(
            f"The JSON schema has the number {inexact}, which no answer can be held to exactly, since numbers are "
            "compared as doubles; ask for a string."
        )
    return text


def find_inexact_integers(value: object) -> Iterator[int]:
    """Find the integers in a document that a double does not hold, by which llguidance would write another one."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from find_inexact_integers(each)
    elif isinstance(value, int) and int(float(value)) != value:
        yield value


def quote_literal(text: str) -> str:
    """Quote a text for a grammar in Lark's syntax, where literals are written as in JSON."""
    return msgspec.json.encode(text).decode()


def _build_tokenizer(document: str, end_tokens: list[int], vocabulary_size: int) -> LLTokenizer:
    try:
        return LLTokenizer(document, n_vocab=vocabulary_size, eos_token=end_tokens)
    except ValueError as exc:
        raise ModelRefusedError(f"The tokenizer cannot be used for constraints: {format_cause(exc)}.") from exc


def _convert_grammar(grammar: str) -> str:
    """Return a grammar in Lark's syntax as it is, and another one converted from GBNF."""
    if LARK_START.search(grammar):
        return grammar
    if (size := len(grammar.encode(errors="replace"))) > MAX_GBNF_BYTES:
        raise TooLargeError(f"The grammar has {size:,} bytes; in GBNF, {MAX_GBNF_BYTES:,} are read. Write it for Lark.")
    try:
        return gbnf_to_lark(grammar)
    except Exception as exc:  # the converter raises plain exceptions for mistakes in the grammar
        cause = " ".join(str(exc).split())
        raise InvalidInputError(f"The grammar is written neither for Lark nor as GBNF: {cause}.") from exc


def _run_on_deep_stack(compile_matcher: Callable[[], LLMatcher]) -> LLMatcher:
    """Run the compiler in a thread whose stack its recursion cannot overflow."""
    results: list[LLMatcher | Exception] = []

    def run() -> None:
        try:
            results.append(compile_matcher())
        except Exception as exc:  # noqa: BLE001  # raised again in the caller's thread
            results.append(exc)

    before = threading.stack_size(COMPILER_STACK_BYTES)
    try:
        thread = threading.Thread(target=run, name="grammar")
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if isinstance(result := results[0], Exception):
        raise result
    return result


def _read_error(matcher: LLMatcher) -> str:
    """Return llguidance's message in one line, without its hints for debugging."""
    lines = [line.strip() for line in matcher.get_error().replace("<non-verbose/>", "").splitlines()]
    return " ".join(line for line in lines if line).rstrip(".")
