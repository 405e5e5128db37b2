"""Bodies of chats and completions as hypothesis draws them: right ones, nearly right ones, and any JSON."""

from typing import Any

from hypothesis import strategies as st

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SCHEMAS = st.sampled_from(
    [
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        {"enum": ["x", 1, None]},
        {"type": "nothing"},
        {"$ref": "#/missing"},
        True,
        False,
        {},
    ]
)
FUNCTIONS = st.fixed_dictionaries(
    {"name": st.sampled_from(["f", "g", "", "a b"])}, optional={"parameters": SCHEMAS, "strict": st.booleans()}
)
TOOLS = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["function", "function", "web_search"]), "function": FUNCTIONS}),
    max_size=2,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(max_size=3),
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": st.text(max_size=3), "arguments": st.sampled_from(["{}", '{"a": 1}', "", "{", "[1]"])}
            ),
        }
    ),
    max_size=2,
)
PARTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "text", "image_url", "refusal"])}, optional={"text": st.text(max_size=5)}
    ),
    max_size=3,
)
MESSAGES = (
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "system", "assistant", "tool", "developer", "x"])},
            optional={
                "content": st.text(max_size=9) | PARTS | JSON_VALUES,
                "tool_calls": CALLS | JSON_VALUES,
                "tool_call_id": st.text(max_size=3),
                "name": JSON_VALUES,
            },
        ),
        min_size=1,
        max_size=4,
    )
    | JSON_VALUES
)
RIGHT_MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=9)}),
    min_size=1,
    max_size=3,
)
LIKELY = st.sampled_from([0, 1, 2, 0.5, -1, True, False, None, "auto", "none", "required", ["a"], "ab"])
ANY_FIELD = LIKELY | JSON_VALUES
COMMON_NAMES = (
    "temperature", "top_p", "n", "max_tokens", "seed", "presence_penalty", "frequency_penalty", "top_k", "min_p",
    "repetition_penalty", "stop_token_ids", "min_tokens", "ignore_eos", "include_stop_str_in_output", "echo",
    "return_token_ids", "prompt_lookup", "unknown", "guided_json", "user",
)  # fmt: skip
CHAT_NAMES = (
    "max_completion_tokens", "logprobs", "top_logprobs", "tool_choice", "parallel_tool_calls", "metadata",
    "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "reasoning_effort", "modalities",
    "audio", "functions",
)  # fmt: skip
COMPLETION_NAMES = ("logprobs", "best_of", "suffix", "add_special_tokens")
COMMON: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(COMMON_NAMES, ANY_FIELD)
COMMON |= {
    "stream": st.booleans(),
    "stream_options": st.none() | st.just({"include_usage": True}) | JSON_VALUES,
    "logit_bias": st.dictionaries(st.sampled_from(["1", "65", "9999", "x"]), LIKELY, max_size=2),
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=3),
    "guided_regex": st.sampled_from(["a+", "[a", "(", "x{2}", "\\d", ""]),
    "guided_grammar": st.sampled_from(['start: "a"', "start:", 'root ::= "x"', "x"]),
    "guided_choice": st.lists(st.text(max_size=4), max_size=3),
    "structured_outputs": st.fixed_dictionaries({}, optional={"json": SCHEMAS, "regex": st.just("b"), "x": LIKELY}),
    "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}, {"type": "x"}, {"type": 1}])
    | st.fixed_dictionaries(
        {
            "type": st.just("json_schema"),
            "json_schema": st.fixed_dictionaries({"name": st.just("n"), "schema": SCHEMAS, "strict": st.booleans()}),
        }
    ),
}


def draw_some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw a few of the fields: of many, one is always wrong."""
    names = st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: fields[name] for name in chosen}))


CHAT_FIELDS = COMMON | dict.fromkeys(CHAT_NAMES, ANY_FIELD) | {"tools": TOOLS | JSON_VALUES}
CHAT_BODIES = st.builds(
    lambda messages, fields: {"messages": messages, **fields},
    st.one_of(*[RIGHT_MESSAGES] * 5, MESSAGES),  # as many right ones, for the other fields to matter
    draw_some(CHAT_FIELDS),
)
PROMPTS = (
    st.text(max_size=9)
    | st.lists(st.text(max_size=3), max_size=3)
    | st.lists(st.integers(-1, 270), max_size=4)
    | st.lists(st.lists(st.integers(0, 262), max_size=3), max_size=3)
    | JSON_VALUES
)
COMPLETION_BODIES = st.builds(
    lambda prompt, fields: {"prompt": prompt, **fields},
    PROMPTS,
    draw_some(COMMON | dict.fromkeys(COMPLETION_NAMES, ANY_FIELD)),
)
