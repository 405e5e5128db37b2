"""How models write calls of tools: each family has its own markers around the same JSON.

| format | what the model writes |
|---|---|
| Hermes, Qwen | `<tool_call>`, a line `{"name": "f", "arguments": {...}}`, `</tool_call>`; for each call |
| SmolLM2 1.7B, xLAM | `<tool_call>[{"name": "f", "arguments": {...}}, ...]</tool_call>` |
| Llama 3 | `{"name": "f", "parameters": {...}}` as the whole answer, perhaps after `<|python_tag|>` |
| Mistral before 2025 | `[TOOL_CALLS][{"name": "f", "arguments": {...}}, ...]` |
| Mistral since 2025 | `[TOOL_CALLS]f[ARGS]{...}`; once for each call |
| Phi 4 | `<|tool_call|>[{"name": "f", "arguments": {...}}, ...]<|/tool_call|>` |

A model whose template knows no tools, or writes calls in yet another form, is told about tools by us, in the form of
Hermes; see `tool_prompt`.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from pilotlight.generation.constraints import WHITESPACE, ConstraintCompiler, quote_literal, write_schema
from pilotlight.generation.tools import Tool


class ToolCallFormat(Struct, frozen=True, kw_only=True):
    """The text around a call's JSON."""

    opening: str  # the marker before a call, or before the list of calls
    before: str = ""  # between the marker and the JSON
    closing: str = ""  # the marker after it, if there is one
    after: str = ""  # between the JSON and that marker
    arguments_key: str = "arguments"
    is_list: bool = False  # a marker stands before a list of calls, instead of before each
    is_bare: bool = False  # the JSON may also stand alone at the beginning of the answer
    name_end: str | None = None  # the name stands before this marker and the arguments behind it; else both are JSON
    is_single: bool = False  # an answer has one call at most
    has_short_ids: bool = False  # ids of calls are nine letters and digits


HERMES = ToolCallFormat(opening="<tool_call>", before="\n", after="\n", closing="</tool_call>")
# For models that were not trained to call tools: these do not know when to stop, and would call until the length ends.
UNTRAINED = msgspec.structs.replace(HERMES, is_single=True)
HERMES_LIST = ToolCallFormat(opening="<tool_call>", closing="</tool_call>", is_list=True)
LLAMA = ToolCallFormat(opening="<|python_tag|>", arguments_key="parameters", is_bare=True, is_single=True)
MISTRAL = ToolCallFormat(opening="[TOOL_CALLS]", is_list=True, has_short_ids=True)
MISTRAL_NAMED = ToolCallFormat(opening="[TOOL_CALLS]", name_end="[ARGS]", has_short_ids=True)
PHI = ToolCallFormat(opening="<|tool_call|>", closing="<|/tool_call|>", is_list=True)
# With which an object may have properties that `properties` does not name.
OPENING_KEYWORDS = {"additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref"}
OTHER_FORMS = ("<function=", "<arg_key>", "<parameter=", "[CALL_ID]", "<|tool_calls_section_begin|>")


def detect_format(template: str) -> ToolCallFormat | None:
    """Detect from a chat template's text how its model writes calls; None if in no form that is known here."""
    if any(form in template for form in OTHER_FORMS):
        return None
    if MISTRAL.opening in template:
        return MISTRAL_NAMED if "[ARGS]" in template else MISTRAL
    if PHI.opening in template and PHI.closing in template:
        return PHI
    if HERMES.opening in template and HERMES.closing in template:
        return HERMES_LIST if f"{HERMES.opening}[" in template.replace("\\n", "").replace("\n", "") else HERMES
    return LLAMA if '{"name": ' in template and '"parameters": ' in template else None


def write_grammar(
    form: ToolCallFormat,
    tools: Sequence[Tool],
    compiler: ConstraintCompiler,
    *,
    is_required: bool,
    is_parallel: bool,
    answer: str | None = None,
) -> str:
    """Write the grammar of an answer that has calls, must have them, or has text until it comes to a call.

    `answer` is the JSON schema, as text, of an answer without calls.
    """
    opening = compiler.write_marker(form.opening)
    rules = [f"start: {_write_start(form, opening, is_required=is_required, has_schema=answer is not None)}"]
    if not is_required and answer is None:
        rules += [r"TEXT: /\s{0,8}[^{\s](.|\n)*/ | " + '""' if form.is_bare else r"TEXT: /(.|\n)*/"]
        rules += [f"head[lazy]: TEXT {opening}" if not opening.startswith("<[") else f"head: TEXT {opening}"]
    if answer is not None:
        rules += [f"answer: %json {_hold_whitespace(answer)}"]
    rules += _write_units(form, opening, compiler, is_parallel=is_parallel and not form.is_single)
    rules += ["call: " + " | ".join(f"call_{i}" for i in range(len(tools)))]
    for i, tool in enumerate(tools):
        rules += [f"call_{i}: {_write_call(form, tool, compiler, f'arguments_{i}')}"]
        rules += [f"arguments_{i}: %json {_hold_whitespace(write_arguments_schema(tool), is_strict=tool.strict)}"]
    return "\n".join(rules)


def write_arguments_schema(tool: Tool) -> str:
    """Write the schema of a tool's arguments: an object, with no properties but those that it names."""
    is_closed = "properties" in tool.parameters and not OPENING_KEYWORDS & tool.parameters.keys()
    closing = {"additionalProperties": False} if is_closed else {}
    return write_schema({"type": "object", **tool.parameters, **closing})


def _write_start(form: ToolCallFormat, opening: str, *, is_required: bool, has_schema: bool) -> str:
    """Write what an answer is: calls, or else text or JSON."""
    calls = ["first rest"]
    if form.is_bare:
        calls += [f"{opening} first rest"] if not is_required else []
    else:
        calls = [f"{opening} first rest"]
    if is_required:
        return " | ".join(calls)
    return " | ".join(
        ["answer", *calls] if has_schema else ["TEXT", "head first rest", *(calls if form.is_bare else [])]
    )


def _write_units(form: ToolCallFormat, opening: str, compiler: ConstraintCompiler, *, is_parallel: bool) -> list[str]:
    """Write the rules for the first call after its marker, and for those that may follow it."""
    before = quote_literal(form.before)
    after = quote_literal(form.after) + (f" {compiler.write_marker(form.closing)}" if form.closing else "")
    if form.is_list:
        more = '(", " call)*' if is_parallel else ""
        return [f'first: {before} "[" call {more} "]" {after}', 'rest: ""']
    between = quote_literal("" if form.name_end else "\n")
    return [f"first: {before} call {after}", f"rest: ({between} {opening} first)*" if is_parallel else 'rest: ""']


def _write_call(form: ToolCallFormat, tool: Tool, compiler: ConstraintCompiler, arguments: str) -> str:
    """Write the rule of one tool's calls."""
    if form.name_end is not None:
        return f"{quote_literal(tool.name)} {compiler.write_marker(form.name_end)} {arguments}"
    head = f'{{"name": {quote_literal(tool.name)}, "{form.arguments_key}": '
    return f"{quote_literal(head)} {arguments} {quote_literal('}')}"


def _hold_whitespace(schema: str, *, is_strict: bool = True) -> str:
    """Add to a schema, as text, llguidance's options: bounded blanks, and whether all keywords must be enforced."""
    options = (
        f'"x-guidance":{{"whitespace_pattern":{quote_literal(WHITESPACE)},"lenient":{str(not is_strict).lower()}}}'
    )
    return f"{{{options}}}" if schema == "{}" else f"{{{options},{schema[1:]}"
