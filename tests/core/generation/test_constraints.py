import json
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pilotlight.errors import InvalidInputError, ModelRefusedError, TooLargeError
from pilotlight.generation.constraints import MAX_CHOICES, MAX_GRAMMAR_BYTES, ConstraintCompiler
from pilotlight.generation.request import ConstraintFactory, TokenConstraint
from tests.core.generation.byte_tokenizer import END, build_tokenizer

TOKENIZER = build_tokenizer()
END_OF_TURN = 1
TOKENS = TOKENIZER.get_vocab_size()
VOCABULARY = TOKENS + 7  # columns of the logits without a token
COMPILER = ConstraintCompiler(TOKENIZER.to_str(), [END, END_OF_TURN], VOCABULARY)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def find(token: str) -> int:
    found = TOKENIZER.token_to_id(token)
    assert found is not None
    return found


def accept(constraint: TokenConstraint, text: str) -> bool:
    """Feed a text by its own tokens; return whether the masks allow each of them."""
    for token in TOKENIZER.encode(text).ids:
        if not constraint.compute_mask()[token]:
            return False
        constraint.accept(token)
    return True


def may_end(constraint: TokenConstraint) -> bool:
    return bool(constraint.compute_mask()[END])


def matches(factory: ConstraintFactory, text: str) -> bool:
    constraint = factory()
    return accept(constraint, text) and may_end(constraint)


def sample(factory: ConstraintFactory, choose: Callable[[np.ndarray], int], limit: int = 400) -> tuple[str, bool]:
    """Draw tokens under the mask until the end; return the text, and whether it ended."""
    constraint = factory()
    tokens: list[int] = []
    for _ in range(limit):
        token = choose(np.flatnonzero(constraint.compute_mask()))
        if token in {END, END_OF_TURN}:
            return TOKENIZER.decode(tokens), True
        constraint.accept(token)
        tokens.append(token)
    return TOKENIZER.decode(tokens, skip_special_tokens=False), False


def test_a_mask_has_a_place_for_each_column_of_the_logits() -> None:
    mask = COMPILER.compile_json_object()().compute_mask()
    assert mask.shape == (VOCABULARY,)
    assert mask.dtype == np.bool_
    assert not mask[TOKENS:].any()


def test_json_ends_when_it_is_complete_and_not_before() -> None:
    constraint = COMPILER.compile_json_schema(PERSON)()
    assert accept(constraint, '{"name": "Ada", "age": 36')
    assert not may_end(constraint)
    assert not constraint.is_complete
    assert accept(constraint, "}")
    assert constraint.is_complete
    assert np.flatnonzero(constraint.compute_mask()).tolist() == [END, END_OF_TURN]


def test_a_text_that_may_end_or_go_on_is_not_complete() -> None:
    constraint = COMPILER.compile_regex("a+")()
    assert accept(constraint, "a")
    assert may_end(constraint)
    assert not constraint.is_complete


def test_the_end_can_be_accepted_and_completes() -> None:
    constraint = COMPILER.compile_regex("a+")()
    accept(constraint, "a")
    constraint.accept(END)
    assert constraint.is_complete


@pytest.mark.parametrize("blank", [" ", "\n", "\t"])
@pytest.mark.parametrize("before", ["{", '{"name"', '{"name":', '{"name":"a"', '{"name":"a",', '{"name":"a","age":1'])
def test_at_most_eight_blanks_stand_in_a_row(before: str, blank: str) -> None:
    compiled = COMPILER.compile_json_schema(PERSON)
    assert accept(compiled(), before + blank * 8)
    assert not accept(compiled(), before + blank * 9)


def test_a_model_that_prefers_blanks_ends_in_valid_json() -> None:
    blanks = {find(token) for token in ("Ġ", "ĠĠ", "ĠĠĠĠĠĠĠĠ", "Ċ", "ĊĊ")}
    closing = [find(token) for token in ('"', '"}', "}", "1")]

    def prefer(allowed: np.ndarray) -> int:
        wanted = [*closing, *blanks] if in_string() else [*blanks, *closing]
        return next((token for token in wanted if token in allowed), int(allowed[0]))

    written: list[int] = []

    def in_string() -> bool:
        return TOKENIZER.decode(written).count('"') % 2 == 1

    def choose(allowed: np.ndarray) -> int:
        written.append(prefer(allowed))
        return written[-1]

    text, has_ended = sample(COMPILER.compile_json_schema(PERSON), choose, 200)
    assert has_ended
    Draft202012Validator(PERSON).validate(json.loads(text))
    assert max(len(run) for run in re.findall(r"\s+", text)) == 8


def test_callers_cannot_widen_the_blanks() -> None:
    schema = {**PERSON, "x-guidance": {"whitespace_pattern": " *", "lenient": True}}
    assert not accept(COMPILER.compile_json_schema(schema)(), "{" + " " * 9)


def test_any_object_is_json_and_nothing_else() -> None:
    compiled = COMPILER.compile_json_object()
    assert matches(compiled, '{"a": [1, null, {"b": "é😀"}]}')
    assert not matches(compiled, "[1]")
    assert not matches(compiled, '{"a": 1} ')


def test_choices_are_taken_to_the_letter() -> None:
    choices = ["yes", "no", 'a"b\\c\n/é😀', ".*"]
    compiled = COMPILER.compile_choices(choices)
    assert all(matches(compiled, choice) for choice in choices)
    assert not any(matches(compiled, text) for text in ["ye", "yes ", "maybe", "xx", ""])


@pytest.mark.parametrize("choices", [[], ["a"] * (MAX_CHOICES + 1)])
def test_a_wrong_number_of_choices_is_refused(choices: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="send 1 to 10,000"):
        COMPILER.compile_choices(choices)


def test_an_expression_matches_the_whole_text() -> None:
    compiled = COMPILER.compile_regex(r"^\d{3}-[a-c]+/$")
    assert matches(compiled, "123-abc/")
    assert not matches(compiled, "123-abc/x")


def test_grammars_are_read_in_both_syntaxes() -> None:
    lark = COMPILER.compile_grammar('start: "a" b*\nb: "b"')
    gbnf = COMPILER.compile_grammar('root ::= "a" b*\nb ::= "b"')
    for compiled in (lark, gbnf):
        assert matches(compiled, "abb")
        assert not matches(compiled, "ba")


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "object", "not": {}, "unevaluatedProperties": False}, "not"),
        ({"type": "string", "format": "horoscope"}, "horoscope"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "strng"}, "strng"),
        ({"$ref": "http://localhost/schema"}, "http://localhost/schema"),
        ({"$ref": "#/$defs/none"}, "none"),
    ],
)
def test_a_schema_that_cannot_be_held_to_is_refused_by_what_it_has(schema: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=f"The JSON schema cannot be compiled: .*{re.escape(named)}"):
        COMPILER.compile_json_schema(schema)


def test_a_schema_that_is_not_strict_is_held_to_as_far_as_it_goes() -> None:
    compiled = COMPILER.compile_json_schema({**PERSON, "not": {"required": ["x"]}}, strict=False)
    assert matches(compiled, '{"name": "a", "age": 1}')
    assert not matches(compiled, '{"name": "a"}')


@pytest.mark.parametrize(
    ("compile_it", "message"),
    [
        (lambda: COMPILER.compile_regex("(a"), "The regular expression cannot be compiled: .*unclosed group"),
        (lambda: COMPILER.compile_grammar("start: <nope>"), "The grammar cannot be compiled: .*unknown special token"),
        (lambda: COMPILER.compile_grammar("start: missing"), "The grammar cannot be compiled: .*missing"),
        (lambda: COMPILER.compile_grammar("root := ((("), "neither for Lark nor as GBNF: Expected ::= at line 1"),
        (lambda: COMPILER.compile_grammar(""), "neither for Lark nor as GBNF: No 'root' rule found"),
        (lambda: COMPILER.compile_grammar("root ::= " + "(" * 3000), "neither for Lark nor as GBNF: .*recursion"),
        (lambda: COMPILER.compile_json_schema({"enum": [object()]}), "cannot be written as JSON"),
    ],
)
def test_what_cannot_be_read_is_refused(compile_it: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        compile_it()
    assert "\n" not in str(caught.value)


def nest(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


HOSTILE = {
    "nested": lambda: COMPILER.compile_json_schema(nest(500)),
    "product": lambda: COMPILER.compile_json_schema(
        {"allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {}}} for j in range(4)]} for i in range(12)]}
    ),
    "circle": lambda: COMPILER.compile_json_schema(
        {
            "$ref": "#/$defs/a",
            "$defs": {
                "a": {"allOf": [{"$ref": "#/$defs/b"}, {"type": "object"}]},
                "b": {"allOf": [{"$ref": "#/$defs/a"}]},
            },
        }
    ),
    "brackets": lambda: COMPILER.compile_regex("(" * 50_000 + "a" + ")" * 50_000),
    "groups": lambda: COMPILER.compile_grammar("start: " + "(" * 50_000 + '"a"' + ")" * 50_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_take_too_much_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        HOSTILE[name]()


def test_too_long_a_grammar_is_refused_by_its_size() -> None:
    with pytest.raises(TooLargeError, match=f"at most {MAX_GRAMMAR_BYTES:,} are compiled"):
        COMPILER.compile_regex("a" * MAX_GRAMMAR_BYTES)


def test_a_long_grammar_in_gbnf_is_refused() -> None:
    with pytest.raises(TooLargeError, match=r"in GBNF, 8,192 are read\. Write it for Lark"):
        COMPILER.compile_grammar('root ::= "a"' + "\n" * 200_000)


def test_the_longest_chain_of_rules_does_not_overflow_the_stack() -> None:
    # llguidance recurses from rule to rule: a chain of 4,000 ended the process on an ordinary thread's stack.
    def name(i: int) -> str:
        return "r" + "".join("abcdefghij"[int(digit)] for digit in str(i))

    count = 15_000
    rules = [f"{name(i)}:{name(i + 1)}" for i in range(count)]
    grammar = "\n".join([f"start:{name(0)}", *rules, f'{name(count)}:"x"'])
    assert matches(COMPILER.compile_grammar(grammar), "x")
    terminals = "\n".join(line.upper() for line in [*rules, f'{name(count)}:"X"'])
    assert matches(COMPILER.compile_grammar(f"start: {name(0).upper()}\n{terminals}"), "X")
    definitions = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(6_000)}
    schema = {"$ref": "#/$defs/a0", "$defs": {**definitions, "a6000": {"type": "integer"}}}
    assert matches(COMPILER.compile_json_schema(schema), "1")


def test_a_schema_is_compiled_once() -> None:
    compiled = COMPILER.compile_json_schema(PERSON)
    assert COMPILER.compile_json_schema(json.loads(json.dumps(PERSON))) is compiled
    assert COMPILER.compile_json_schema(PERSON, strict=False) is not compiled


def test_choices_of_one_request_do_not_share_their_state() -> None:
    compiled = COMPILER.compile_json_schema(PERSON)
    first, second = compiled(), compiled()
    assert accept(first, '{"name"')
    assert accept(second, '{"name": "a", "age": 1}')
    assert accept(first, ': "b", "age": 2}')
    assert first.is_complete
    assert matches(compiled, '{"name": "c", "age": 3}')


def test_a_token_that_the_mask_forbids_is_an_error() -> None:
    constraint = COMPILER.compile_json_object()()
    with pytest.raises(InvalidInputError, match="cannot be held to its grammar"):
        constraint.accept(find("a"))


def test_a_tokenizer_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelRefusedError, match="cannot be used for constraints"):
        ConstraintCompiler(TOKENIZER.to_str(), [END], TOKENS - 1)
    with pytest.raises(ModelRefusedError, match="cannot be used for constraints"):
        ConstraintCompiler("{}", [END], TOKENS)


def test_special_tokens_are_known_by_their_text() -> None:
    assert COMPILER.find_special_token("<|end_of_turn|>") == END_OF_TURN
    assert COMPILER.find_special_token("Hello") is None
    assert COMPILER.write_marker("<|end_of_turn|>") == "<[1]>"
    assert COMPILER.write_marker("<x>") == '"<x>"'


NAMES = st.text(st.sampled_from('abcé "\\'), min_size=1, max_size=4)
LEAVES = st.one_of(
    st.just({"type": "string"}),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size}, *[st.integers(0, 99)] * 2),
    st.builds(lambda size: {"type": "string", "maxLength": size}, st.integers(0, 5)),
    st.builds(
        lambda values: {"enum": values},
        st.lists(NAMES | st.integers(-(2**53), 2**53) | st.none(), min_size=1, max_size=3),
    ),
    st.sampled_from([{"type": "string", "format": "date"}, {"type": "string", "pattern": "^[a-c]{2}$"}]),
)


def build_object(properties: dict[str, Any], required: int) -> dict[str, Any]:
    names = list(properties)[:required]
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(build_object, st.dictionaries(NAMES, inner, max_size=3), st.integers(0, 3)),
        st.builds(lambda items, most: {"type": "array", "items": items, "maxItems": most}, inner, st.integers(0, 3)),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(SCHEMAS, st.integers(0, 2**32))
def test_random_tokens_under_the_mask_give_valid_json_or_stop_at_the_length(schema: dict[str, Any], seed: int) -> None:
    generator = random.Random(seed)  # noqa: S311
    quote = find('"')

    def choose(allowed: np.ndarray) -> int:
        ends = generator.random() < 0.2 and quote in allowed  # or strings would hardly end
        return quote if ends else int(generator.choice(allowed))

    text, has_ended = sample(COMPILER.compile_json_schema(schema), choose)
    if has_ended:
        Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 10**400])
def test_a_number_that_no_double_holds_is_refused(number: int) -> None:
    """Llguidance would let the model write 2^53 in the place of 2^53 + 1."""
    with pytest.raises(InvalidInputError, match=r"schema"):
        COMPILER.compile_json_schema({"type": "object", "properties": {"id": {"enum": [1, number]}}})


def test_a_large_number_that_a_double_holds_is_taken() -> None:
    assert matches(COMPILER.compile_json_schema({"const": 2**53}), str(2**53))
