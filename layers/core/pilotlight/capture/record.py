"""The records in a file of captures, and the key of that file.

captures/<model>/<version>/<date>/<hour>/<environment>-<n>.jsonl.gz                  one line for each request, UTC
captures/tenant=<name>/<model>/<version>/<date>/<hour>/<environment>-<n>.jsonl.gz    those of a tenant
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from pilotlight.contracts.tenant import tenant_folder

CAPTURES_FOLDER = "captures"
HOUR_FORMAT = "%Y-%m-%d/%H"


class RawInput(Struct, frozen=True):
    """An input as it was sent: V2's fields, with BYTES in base64."""

    datatype: str
    shape: tuple[int, ...]
    data: list[Any]


class CaptureRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of one request. Features and answers have one value for each example, null where it is missing."""

    at: str  # RFC 3339, UTC
    rows: int = 1  # examples in the request, of which `MAX_EXAMPLES` at most are kept
    features: Mapping[str, list[float | str | None]] = {}
    answers: Mapping[str, list[float | str | None]] = {}
    hashed: Mapping[str, list[str | None]] = {}  # equal values have equal hashes, under the store's own key
    inputs: Mapping[str, RawInput] = {}  # if the policy keeps them whole


def capture_path(model: str, version: int, at: datetime, environment: str, number: int, tenant: str = "") -> str:
    """Return the key of a file of captures."""
    hour = at.astimezone(UTC).strftime(HOUR_FORMAT)
    return f"{tenant_folder(CAPTURES_FOLDER, tenant)}/{model}/{version}/{hour}/{environment}-{number}.jsonl.gz"
