"""One readable line for each line of the log: Lambda's JSON, the usage log's, the gateway's, and plain text."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from pilotlight.deployment.log_events import LogEvent

# Of a JSON line: what the readable one has in its own places, and what is noise beside them.
LEVELS, TEXTS, IDS = (
    ("level", "log_level"),
    ("message", "errorMessage", "msg"),
    ("correlation_id", "request", "requestId"),
)
HIDDEN = {"timestamp", "time", "at", "_aws", "logger", "AWSRequestId", "stackTrace", "trace", *LEVELS, *TEXTS, *IDS}
TEXT_LEVEL = re.compile(r"\[(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\]\s+")  # how Lambda begins a line of text
PLATFORM_PREFIX = "platform."  # of the type of Lambda's own lines
HIDDEN_OF_PLATFORM = {"requestId", "tracing.spanId", "tracing.value"}
MAX_FIELD = 300  # characters of a field's value; --json shows all


def format_event(event: LogEvent, width: int = 0) -> str:
    """Format an event: time, what wrote it, level, what it says, and its correlation id; `width` is of the second."""
    level, said, correlation_id = describe_message(event.message)
    at = f"{event.at:%H:%M:%S}.{event.at_ms % 1000:03d}"
    end = f"  [{correlation_id}]" if correlation_id else ""
    return f"{at}  {event.source:<{width}}  {level:<5}  {said}{end}"


def describe_message(message: str) -> tuple[str, str, str]:
    """Describe a line: its level, what it says, and the id of its call; the last two may be empty."""
    fields = parse_fields(message)
    if fields is None:
        marked = TEXT_LEVEL.match(message)
        text = message[marked.end() :] if marked else message
        return marked["level"] if marked else "INFO", text.rstrip().replace("\t", " ").replace("\n", "\n    "), ""
    record, kind = fields.get("record"), str(fields.get("type", ""))
    if isinstance(record, dict) and kind.startswith(PLATFORM_PREFIX):
        said = format_fields(flatten_fields(record), HIDDEN_OF_PLATFORM)
        return "INFO", f"{kind}: {said}", str(record.get("requestId", ""))
    correlation_id = str(find_first(fields, IDS))
    level = str(find_first(fields, LEVELS)) or guess_level(fields)
    text, rest = str(find_first(fields, TEXTS)), format_fields(fields, HIDDEN)
    trace = "".join(f"\n    {line.rstrip()}" for line in map(str, fields.get("stackTrace") or ()))
    return level, f"{text}  {rest}".strip() + trace, correlation_id


def parse_fields(message: str) -> Mapping[str, Any] | None:
    """Parse a line that is a JSON object; None for any other."""
    try:
        return msgspec.json.decode(message, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None


def find_first(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:  # noqa: ANN401 - any JSON
    """Find the first of these fields that says something; an empty text if none does."""
    return next((fields[name] for name in names if fields.get(name)), "")


def guess_level(fields: Mapping[str, Any]) -> str:
    """Guess the level of a line without one, such as the gateway's, by its HTTP status."""
    status = str(fields.get("status", ""))
    return "ERROR" if status.startswith("5") else "WARN" if status.startswith("4") else "INFO"


def flatten_fields(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested objects: `metrics.durationMs`."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= flatten_fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def format_fields(fields: Mapping[str, Any], hidden: set[str]) -> str:
    """Format the fields that say something as `name=value`."""
    shown = {name: value for name, value in fields.items() if name not in hidden and value not in ("", None, "-")}
    return " ".join(f"{name}={format_value(value)}" for name, value in shown.items())


def format_value(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Format a value of a field: a text as it is, a list of one number as that, other JSON as JSON."""
    if isinstance(value, list) and len(value) == 1:
        return format_value(value[0])
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_FIELD else f"{text[:MAX_FIELD]}..."
