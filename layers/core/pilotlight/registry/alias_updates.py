"""What an alias does: which version a request goes to, and what each change makes of its document.

Pure functions over `AliasDocument`; `registry` reads and swaps the documents, `runtime.model_manager` asks where to go.
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from pilotlight.contracts.alias import TOTAL_WEIGHT, AliasDocument, Canary, Suspension, TrafficShare
from pilotlight.contracts.codec import format_utc_now
from pilotlight.errors import InvalidInputError

SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds


def build_first_document(version: int, actor: str, reason: str) -> AliasDocument:
    """The document of an alias that there was not before."""
    return AliasDocument(version, None, actor, format_utc_now(), reason)


def point_to(document: AliasDocument, version: int, actor: str, reason: str) -> AliasDocument:
    """Pointing to another version. Shares and a shadow end with the version that they were measured against."""
    return replace(
        build_next_document(document, actor, reason),
        version=version,
        previous=document.version,
        shares=(),
        canary=None,
        shadow=None,
    )


def roll_back(document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """Pointing to where it pointed before; a trial that is under way is what is taken back first.

    `InvalidInputError` when the alias has pointed to one version only.
    """
    if document.canary is not None:
        return clear_traffic_split(document, actor, reason)
    if document.previous is None:
        raise InvalidInputError(
            f"Version {document.version} is the first that this alias has pointed to; there is nothing to go back to."
        )
    return point_to(document, document.previous, actor, reason)


def set_traffic_split(
    document: AliasDocument, shares: tuple[TrafficShare, ...], actor: str, reason: str
) -> AliasDocument:
    """Sending shares of the requests elsewhere; `InvalidInputError` when they make no sense together."""
    check_shares(document, shares)
    return replace(build_next_document(document, actor, reason), shares=shares, canary=None)


def start_canary(document: AliasDocument, canary: Canary, weight: int, actor: str, reason: str) -> AliasDocument:
    """With a canary on that weight of the requests, in place of whatever shares there were."""
    shares = (TrafficShare(canary.version, weight),)
    check_shares(document, shares)
    return replace(build_next_document(document, actor, reason), shares=shares, canary=canary)


def clear_traffic_split(document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """With every request for the version that it points to."""
    return replace(build_next_document(document, actor, reason), shares=(), canary=None)


def set_shadow(document: AliasDocument, shadow: TrafficShare | None, actor: str, reason: str) -> AliasDocument:
    """With a copy of a share of the requests for another version, or with none any more."""
    if shadow is not None and shadow.version == document.version:
        raise InvalidInputError(f"Version {shadow.version} serves already; a shadow is another version.")
    return replace(build_next_document(document, actor, reason), shadow=shadow)


def suspend_alias(document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """Out of service; one that is already keeps its first reason."""
    if document.suspended is not None:
        return document
    return replace(build_next_document(document, actor, reason), suspended=Suspension(actor, format_utc_now(), reason))


def resume_alias(document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """In service; as it is if it was."""
    if document.suspended is None:
        return document
    return replace(build_next_document(document, actor, reason), suspended=None)


def build_next_document(document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """The next document: who made it, when and why, under the next number."""
    return replace(document, number=document.number + 1, by=actor, at=format_utc_now(), reason=reason)


def check_shares(document: AliasDocument, shares: tuple[TrafficShare, ...]) -> None:
    """Refuse shares for the version itself, two for one version, and those that leave it nothing."""
    versions = [share.version for share in shares]
    if document.version in versions:
        raise InvalidInputError(f"Version {document.version} is what the alias points to; its share is the rest.")
    if len(set(versions)) < len(versions):
        raise InvalidInputError(f"The shares name a version twice: {versions}.")
    total_weight = sum(share.weight for share in shares)
    if total_weight >= TOTAL_WEIGHT:
        raise InvalidInputError(
            f"The shares are {total_weight / TOTAL_WEIGHT:.2%} together; they must leave some requests."
        )


def choose_version(document: AliasDocument, slot: int) -> int:
    """The version for a request at that `slot`, one of WHOLE.

    Shares lie from 0 upwards in their order: whoever was in a canary of 5 % is in it at 10 % too.
    """
    upper = 0
    for share in document.shares:
        upper += share.weight
        if slot < upper:
            return share.version
    return document.version


def hash_to_slot(name: str, alias: str, key: str) -> int:
    """Where a caller's key lies among WHOLE places: the same at every request, in every environment.

    The alias is part of what is hashed, so that a key is not among the first at every experiment.
    """
    digest = hashlib.blake2b(f"{name}@{alias}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % TOTAL_WEIGHT


def weight_from_percent(percent: float) -> int:
    """Percent as a weight; the smallest is 0.01 %."""
    parts = round(percent * TOTAL_WEIGHT / 100)
    if not 1 <= parts < TOTAL_WEIGHT:
        raise InvalidInputError(f"{percent:g} % is no share: at least 0.01, less than 100.")
    return parts


def compute_bake_end(bake: str) -> str:
    """The time after a duration such as 90s, 30m, 2h or 1d from now, as RFC 3339 in UTC."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", bake)
    if match is None:
        raise InvalidInputError(f"{bake!r} is not a duration such as 90s, 30m, 2h or 1d.")
    return (datetime.now(UTC) + timedelta(seconds=int(match[1]) * SECONDS_PER_UNIT[match[2]])).isoformat()
