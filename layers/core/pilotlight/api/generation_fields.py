"""The fields that chats and completions have in common, in the engine's terms; what cannot be served is refused."""

from collections.abc import Collection
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from pilotlight.api.conversation import ChoiceFormat, GrammarFormat, JsonFormat, OutputFormat, RegexFormat
from pilotlight.api.openai_errors import UNSUPPORTED
from pilotlight.api.schemas.chat import GenerationFields, JsonObject, ResponseFormat, StructuredOutputs
from pilotlight.errors import FieldError
from pilotlight.generation.request import SamplingOptions

if TYPE_CHECKING:
    from pilotlight.generation.language_model import LanguageModel

SMALLEST_TOP_P = 1e-9  # of which the likeliest token alone is left
SEED_RANGE = 1 << 63
FORMATS = "text, json_object or json_schema"
GUIDED_PREFIX = "guided_"


def build_sampling(fields: GenerationFields) -> SamplingOptions:
    """Build how tokens are drawn; what is absent has OpenAI's default."""
    return SamplingOptions(
        temperature=get_or_default(fields.temperature, 1.0),
        top_p=max(get_or_default(fields.top_p, 1.0), SMALLEST_TOP_P),
        top_k=max(get_or_default(fields.top_k, 0), 0),
        min_p=get_or_default(fields.min_p, 0.0),
        seed=None if fields.seed is None else fields.seed % SEED_RANGE,
        presence_penalty=get_or_default(fields.presence_penalty, 0.0),
        frequency_penalty=get_or_default(fields.frequency_penalty, 0.0),
        repetition_penalty=get_or_default(fields.repetition_penalty, 1.0),
        logit_bias=fields.logit_bias or {},
    )


def get_or_default(value: float | None, default: Any) -> Any:  # noqa: ANN401 - of the value's type
    """Return the value, or the default if there is none."""
    return default if value is None else value


def build_stop_strings(fields: GenerationFields) -> tuple[str, ...]:
    """Build the stop strings, of which one may come without a list."""
    return (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ())


def check_common_fields(fields: GenerationFields, max_tokens: int | None) -> None:
    """Check what no type can say: fields that need another one."""
    if fields.stream_options is not None and not fields.stream:
        raise FieldError(
            "stream_options are only for streams; set stream to true, or leave them out.", param="stream_options"
        )
    least = fields.min_tokens or 0
    if least > (inf if max_tokens is None else max_tokens):
        raise FieldError(f"min_tokens is {least}, more than the {max_tokens} of max_tokens.", param="min_tokens")


def refuse_fields(fields: GenerationFields, reasons: dict[str, str], harmless: Collection[object] = (None,)) -> None:
    """Refuse the fields of `reasons` that ask for something; each reason says what to do instead."""
    for name, reason in reasons.items():
        if getattr(fields, name) not in harmless:
            raise FieldError(f"{name} is not supported: {reason}", param=name, code=UNSUPPORTED)


def check_token_ids(fields: GenerationFields, model: "LanguageModel") -> None:
    """Check that the tokens in these fields are the model's."""
    size = model.spec.vocabulary_size
    for name, tokens in (("logit_bias", fields.logit_bias or ()), ("stop_token_ids", fields.stop_token_ids or ())):
        for token in tokens:
            if not 0 <= token < size:
                raise FieldError(
                    f"{name} has the token {token}, but the tokens of {model.name!r} are 0 to {size - 1}.", param=name
                )


def find_output_format(fields: GenerationFields) -> OutputFormat | None:
    """Find the form that the text must have; None if it is free."""
    found = [
        *list_response_format(fields.response_format),
        *list_structured_outputs(fields.structured_outputs, "structured_outputs."),
        *list_structured_outputs(build_guided_outputs(fields), GUIDED_PREFIX),
    ]
    if len(found) > 1:
        raise FieldError(
            f"{' and '.join(name for name, _ in found)} ask for several forms; leave one.", param=found[1][0]
        )
    return found[0][1] if found else None


def list_response_format(asked: ResponseFormat | None) -> list[tuple[str, OutputFormat]]:
    """List the form that OpenAI's field asks for, with its name: one or none."""
    if asked is None or asked.type == "text":
        return []
    if asked.type == "json_object":
        return [("response_format", JsonFormat())]
    if asked.type != "json_schema":
        raise FieldError(f"response_format.type is {asked.type!r}; use {FORMATS}.", param="response_format.type")
    if asked.json_schema is None or asked.json_schema.schema is None:
        raise FieldError(
            "response_format has the type json_schema, but no json_schema.schema; send one, or use json_object.",
            param="response_format.json_schema",
        )
    return [("response_format", JsonFormat(asked.json_schema.schema, bool(asked.json_schema.strict)))]


def build_guided_outputs(fields: GenerationFields) -> StructuredOutputs:
    """Build the newer form of the fields whose names begin with `guided_`."""
    return StructuredOutputs(
        json=fields.guided_json, regex=fields.guided_regex, choice=fields.guided_choice, grammar=fields.guided_grammar
    )


def list_structured_outputs(asked: StructuredOutputs | None, prefix: str) -> list[tuple[str, OutputFormat]]:
    """List the forms that vLLM's fields ask for, with their names."""
    found: list[tuple[str, OutputFormat]] = []
    if asked is None:
        return found
    if asked.json is not None:
        found.append((f"{prefix}json", JsonFormat(parse_schema(asked.json, f"{prefix}json"))))
    if asked.json_object:
        found.append((f"{prefix}json_object", JsonFormat()))
    if asked.regex is not None:
        found.append((f"{prefix}regex", RegexFormat(asked.regex)))
    if asked.choice is not None:
        found.append((f"{prefix}choice", ChoiceFormat(tuple(asked.choice))))
    if asked.grammar is not None:
        found.append((f"{prefix}grammar", GrammarFormat(asked.grammar)))
    return found


def parse_schema(schema: JsonObject | str | bool, name: str) -> JsonObject | bool:
    """Return a JSON schema, which vLLM's users may also send as text."""
    if not isinstance(schema, str):
        return schema
    try:
        parsed: JsonObject | bool = msgspec.json.decode(schema, type=dict[str, Any] | bool)
    except msgspec.DecodeError as exc:
        raise FieldError(f"{name} is a text that is no JSON schema: {exc}.", param=name) from exc
    return parsed
