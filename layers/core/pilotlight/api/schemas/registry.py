"""Request and response bodies of the registry's routes, for the function, its OpenAPI document and the client.

Documents of the store that a route returns as they are have their types in `contracts`.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from msgspec import Struct

from pilotlight.api.schemas.request_body import STRICT, matches, request_body
from pilotlight.contracts.alias import AliasDocument, Canary, UnreadableDocument
from pilotlight.contracts.manifest import Precision
from pilotlight.contracts.names import CANDIDATE, ModelReference, is_version
from pilotlight.contracts.signed_upload import PresignedUpload
from pilotlight.errors import InvalidInputError, UnavailableError

# 3 and "3" are the same version.
VersionNumber = Annotated[str, matches(r"^([1-9][0-9]{0,17})$")] | Annotated[int, STRICT, Ge(1)]
Percent = Annotated[float, STRICT, Ge(0), Lt(100)]
Reason = Annotated[str, MaxLen(1000)]
Flag = Annotated[bool, STRICT]
Answer = TypeVar("Answer")
MAX_VERSION_FILES = 500  # that are uploaded: a response has a URL of up to 2 kB for each


@request_body("is not an order to promote")
class PromoteBody:
    """Bring a version to the alias through the gate; a forced one is moved even if it is refused, and says why."""

    version: VersionNumber | None = None  # the candidate, if none is named
    force: Flag = False
    why: Reason = ""


@request_body("is not a canary")
class CanaryBody:
    """Try a version on a share of the alias's requests; 0 percent ends the trial."""

    version: VersionNumber
    percent: Percent = 10.0
    bake: str = "1h"  # the time after which it is promoted if it passed: 90s, 30m, 2h, 1d
    max_error_rate: Annotated[float, STRICT, Ge(0), Le(1)] = 0.01
    max_latency_ratio: Annotated[float, STRICT, Gt(0)] = 2.0
    max_drift: Annotated[float, STRICT, Ge(0), Le(1)] = 0.25
    min_requests: Annotated[int, STRICT, Ge(1)] = 50
    why: Reason = "trial"

    def to_canary(self, until: str) -> Canary:
        """Return the canary that ends at `until`."""
        limits = (self.max_error_rate, self.max_latency_ratio, self.max_drift, self.min_requests)
        return Canary(parse_version_number(self.version), until, *limits)


@request_body("is not a share")
class TrafficShareBody:
    """A version's part of the requests."""

    version: VersionNumber
    percent: Annotated[float, STRICT, Gt(0), Lt(100)]


@request_body("is not a split")
class TrafficSplitBody:
    """Share the alias's requests out; an authenticated caller's users stay at one version. No shares end it."""

    shares: Annotated[list[TrafficShareBody], MaxLen(100)]
    why: Reason = "split"


@request_body("is not a shadow")
class ShadowBody:
    """Send copies of a share of the requests to another version too; 0 percent ends it."""

    version: VersionNumber
    percent: Percent = 10.0
    why: Reason = "shadow"


@request_body("is not an order to roll back")
class RollbackBody:
    """End the alias's trial or, without one, go back to where it pointed before."""

    why: Reason = "rolled back over HTTP"


@request_body("is not a decision about a version")
class ApprovalBody:
    """Approve or reject a version."""

    state: Literal["approved", "rejected"]
    why: Annotated[str, MinLen(1), MaxLen(1000)]


@request_body("is not an order to prune")
class PruneBody:
    """Remove old versions that no alias needs; unless `dry_run` is false, only say which."""

    keep: Annotated[int, STRICT, Ge(1)] = 5
    dry_run: Flag = True


@request_body("is not a file of a version")
class VersionFileBody:
    """A file that is to be uploaded: its path below the version, its size and its sha256 in hex."""

    path: str
    bytes: Annotated[int, STRICT, Ge(0)]  # at most 5,000,000,000, S3's limit for one PUT
    sha256: Annotated[str, matches(r"^[0-9a-f]{64}$")]


@request_body("is not the announcement of a version")
class NewVersionBody:
    """A version to be uploaded: its manifest, without what the server sets (version, created, files), and its files."""

    manifest: dict[str, Any]
    files: Annotated[list[VersionFileBody], MinLen(1), MaxLen(MAX_VERSION_FILES)]


class UploadedFile(Struct, frozen=True):
    """A file of a version that is being uploaded; `presigned` is the request that uploads it."""

    path: str
    bytes: int
    sha256: str
    uploaded: bool
    presigned: PresignedUpload | None  # null once it has arrived


class VersionUpload(Struct, frozen=True):
    """A version that is being uploaded, and visible to nobody until it is committed."""

    model: str
    version: str
    by: str  # who is recorded as its publisher
    files: list[UploadedFile]

    @property
    def missing(self) -> list[UploadedFile]:
        """The files that have not arrived."""
        return [file for file in self.files if not file.uploaded]


class VersionSummary(Struct, frozen=True, omit_defaults=True):
    """A version in a few words; with an `error`, what could not be read is empty."""

    version: str
    aliases: list[str]  # aliases that point to it
    serve: Precision | None
    bytes: int
    metric: str | None
    metrics: dict[str, dict[str, float]]  # of each variant
    approval: Literal["pending", "approved", "rejected"] | None
    created: str
    by: str
    error: str | None = None  # which document is broken


class ModelDetail(Struct, frozen=True, omit_defaults=True):
    """A model: its aliases, and its newest versions, newest first."""

    name: str
    aliases: dict[str, AliasDocument]
    versions: list[VersionSummary]
    total: int  # of its versions
    errors: dict[str, str] = {}  # aliases whose documents are broken, and why


class ModelSummary(Struct, frozen=True, omit_defaults=True):
    """A model in a list; the champion is null where its first publisher died before it had one."""

    name: str
    versions: list[str]  # oldest first
    champion: str | None
    error: str | None = None  # why the champion's document cannot be read


class ModelList(Struct, frozen=True):
    """Every model."""

    models: list[ModelSummary]


class BrokenAlias(Struct, frozen=True):
    """An alias in a list whose document is broken."""

    error: str


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
    """Decode a response for a client; raise `UnavailableError` if the server is not a registry."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as exc:
        raise UnavailableError(f"The server did not answer as a registry does: {exc}.") from exc


def parse_history(body: bytes) -> list[AliasDocument | UnreadableDocument]:
    """Decode an alias's history for a client; rows that the server could not read have an error."""
    rows = parse_response(body, list[msgspec.Raw])
    return [parse_history_row(bytes(row)) for row in rows]


def parse_history_row(row: bytes) -> AliasDocument | UnreadableDocument:
    """Decode a row of an alias's history."""
    if "error" in parse_response(row, dict[str, Any]):
        return parse_response(row, UnreadableDocument)
    return parse_response(row, AliasDocument)


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


def parse_path_version(text: str) -> int:
    """Parse the version in a path; raise `InvalidInputError` for an alias, which may move between two requests."""
    if not is_version(text):
        raise InvalidInputError(f"{text!r} is not a version; here it takes a number: 1, 2, 3, ...")
    return int(text)


def format_etag(document: AliasDocument) -> str:
    """Format the ETag of an alias: the number of its document."""
    return f'"{document.number}"'


def is_if_match_satisfied(if_match: str | None, current_etag: str | None) -> bool:
    """Return whether an If-Match allows a change of a document with the ETag `current_etag` (RFC 9110, 13.1.1)."""
    if if_match is None:
        return True
    if if_match.strip() == "*":
        return current_etag is not None
    return current_etag in re.findall(r'"[^"]*"', re.sub(r'W/"[^"]*"', "", if_match))  # weak ones never match
