"""Request and response bodies of the registry's routes, for the function, its OpenAPI document and the client.

Documents of the store that a route returns as they are have their types in `contracts`.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from pilotlight.contracts.alias import AliasDocument, Canary
from pilotlight.contracts.manifest import Precision
from pilotlight.contracts.names import CANDIDATE, ModelReference, Version, is_version
from pilotlight.errors import InvalidInputError, UnavailableError

VersionNumber = Annotated[str, Meta(pattern=r"^([1-9][0-9]{0,17})$")] | Version  # 3 and "3" are the same version
Percent = Annotated[float, Meta(ge=0, lt=100)]
Reason = Annotated[str, Meta(max_length=1000)]
Answer = TypeVar("Answer")


class PromoteBody(Struct, forbid_unknown_fields=True):
    """Bring a version to the alias through the gate; a forced one is moved even if it is refused, and says why."""

    version: VersionNumber | None = None  # the candidate, if none is named
    force: bool = False
    why: Reason = ""


class CanaryBody(Struct, forbid_unknown_fields=True):
    """Try a version on a share of the alias's requests; 0 percent ends the trial."""

    version: VersionNumber
    percent: Percent = 10.0
    bake: str = "1h"  # after which it is promoted if it held: 90s, 30m, 2h, 1d
    max_error_rate: Annotated[float, Meta(ge=0, le=1)] = 0.01
    max_latency_ratio: Annotated[float, Meta(gt=0)] = 2.0
    max_drift: Annotated[float, Meta(ge=0, le=1)] = 0.25
    min_requests: Annotated[int, Meta(ge=1)] = 50
    why: Reason = "trial"

    def to_canary(self, until: str) -> Canary:
        """Return the canary that ends at `until`."""
        limits = (self.max_error_rate, self.max_latency_ratio, self.max_drift, self.min_requests)
        return Canary(parse_version_number(self.version), until, *limits)


class TrafficShareBody(Struct, forbid_unknown_fields=True):
    """A version's part of the requests."""

    version: VersionNumber
    percent: Annotated[float, Meta(gt=0, lt=100)]


class TrafficSplitBody(Struct, forbid_unknown_fields=True):
    """Share the alias's requests out, each caller always to the same version; no shares end it."""

    shares: Annotated[list[TrafficShareBody], Meta(max_length=100)]
    why: Reason = "split"


class ShadowBody(Struct, forbid_unknown_fields=True):
    """Send copies of a share of the requests to another version too; 0 percent ends it."""

    version: VersionNumber
    percent: Percent = 10.0
    why: Reason = "shadow"


class RollbackBody(Struct, forbid_unknown_fields=True):
    """End the alias's trial or, without one, go back to where it pointed before."""

    why: Reason = "rolled back over HTTP"


class ApprovalBody(Struct, forbid_unknown_fields=True):
    """Approve or reject a version."""

    state: Literal["approved", "rejected"]
    why: Annotated[str, Meta(min_length=1, max_length=1000)]


class PruneBody(Struct, forbid_unknown_fields=True):
    """Remove old versions that no alias needs; unless `dry_run` is false, only say which."""

    keep: Annotated[int, Meta(ge=1)] = 5
    dry_run: bool = True


class VersionSummary(Struct, frozen=True):
    """A version in a few words."""

    version: str
    aliases: list[str]  # that point to it
    serve: Precision
    bytes: int
    metric: str | None
    metrics: dict[str, dict[str, float]]  # of each variant
    approval: Literal["pending", "approved", "rejected"]
    created: str
    by: str


class ModelDetail(Struct, frozen=True):
    """A model: its aliases, and its newest versions, newest first."""

    name: str
    aliases: dict[str, AliasDocument]
    versions: list[VersionSummary]
    total: int  # of its versions


class ModelSummary(Struct, frozen=True):
    """A model in a list; the champion is null where its first publisher died before it had one."""

    name: str
    versions: list[str]  # oldest first
    champion: str | None


class ModelList(Struct, frozen=True):
    """Every model."""

    models: list[ModelSummary]


class DeletedVersion(Struct, frozen=True):
    """A version that is gone."""

    deleted: str


class PruneResult(Struct, frozen=True):
    """What was removed, or would be, and why the rest stays."""

    model: str
    versions: list[str]
    orphans: list[str]  # files of uploads that were never finished
    kept: dict[str, str]  # version to reason
    done: bool


class ErrorBody(Struct, frozen=True):
    """Any error: what was wrong, and what to do."""

    error: str


def parse_response(body: bytes, kind: type[Answer]) -> Answer:
    """Decode a response for a client; raise `UnavailableError` when the server is no registry."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as exc:
        raise UnavailableError(f"The server did not answer as a registry does: {exc}.") from exc


def parse_version_number(version: str | int) -> int:
    """Convert a version to a number."""
    return int(version)


def build_reference(model: str, version: str | int | None) -> ModelReference:
    """Build the reference to the version of a body; without one, to the candidate."""
    return (
        ModelReference(model, alias=CANDIDATE)
        if version is None
        else ModelReference(model, parse_version_number(version))
    )


def get_path_version(parameters: Mapping[str, str]) -> int:
    """Return the version of a path; raise `InvalidInputError` for an alias, which may move meanwhile."""
    text = parameters["version"]
    if not is_version(text):
        raise InvalidInputError(f"{text!r} is not a version; here it takes a number: 1, 2, 3, ...")
    return int(text)


def parse_query_number(query: Mapping[str, str], name: str, default: int, minimum: int = 1) -> int:
    """Parse a whole number of a query; raise `InvalidInputError` for another text or a number below `minimum`."""
    text = query.get(name, str(default))
    if not (text.isdecimal() and text.isascii() and 0 < len(text) < 6 and int(text) >= minimum):
        raise InvalidInputError(f"{name}={text} is not a number from {minimum} to 99999.")
    return int(text)


def format_etag(document: AliasDocument) -> str:
    """Format the ETag of an alias: the number of its document."""
    return f'"{document.number}"'


def is_if_match_satisfied(if_match: str | None, current_etag: str | None) -> bool:
    """Return whether an If-Match allows a change of what has the ETag `current_etag` (RFC 9110, 13.1.1)."""
    if if_match is None:
        return True
    if if_match.strip() == "*":
        return current_etag is not None
    return current_etag in re.findall(r'"[^"]*"', re.sub(r'W/"[^"]*"', "", if_match))  # weak ones never match
