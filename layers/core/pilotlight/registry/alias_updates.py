"""Aliases: which version a request goes to, and the document that each change makes.

Pure functions over `AliasDocument`; `registry` reads and swaps the documents, `runtime.model_manager` routes requests.
"""

import hashlib
import secrets

from msgspec.structs import replace

from pilotlight.contracts.alias import TOTAL_WEIGHT, AliasDocument, Canary, Suspension, TrafficShare
from pilotlight.contracts.codec import format_utc_now
from pilotlight.contracts.durations import compute_end
from pilotlight.errors import InvalidInputError

SALT_BYTES = 16  # of randomness


def build_first_document(version: int, actor: str, reason: str) -> AliasDocument:
    """Build the document of a new alias."""
    return AliasDocument(version, None, actor, format_utc_now(), reason)


def point_to(document: AliasDocument, version: int, actor: str, reason: str) -> AliasDocument:
    """Point the alias to another version. Shares and a shadow end: they were measured against the former version."""
    return replace(
        build_next_document(document, actor, reason),
        version=version,
        previous=document.version,
        shares=(),
        canary=None,
        shadow=None,
        split_salt="",
    )


def roll_back(document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """End the alias's canary or, without one, point the alias to its previous version.

    Raises `InvalidInputError` when the alias has pointed to one version only.
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
    """Send shares of the requests to other versions; raise `InvalidInputError` for contradictory shares.

    A split that is changed keeps its salt, so that callers stay where they are as far as the shares allow.
    """
    check_shares(document, shares)
    salt = (document.split_salt or secrets.token_hex(SALT_BYTES)) if shares else ""
    return replace(build_next_document(document, actor, reason), shares=shares, canary=None, split_salt=salt)


def start_canary(document: AliasDocument, canary: Canary, weight: int, actor: str, reason: str) -> AliasDocument:
    """Start a canary on `weight` of the requests, in place of the existing shares."""
    shares = (TrafficShare(canary.version, weight),)
    check_shares(document, shares)
    return replace(build_next_document(document, actor, reason), shares=shares, canary=canary, split_salt="")


def clear_traffic_split(document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """Send every request to the version that the alias points to."""
    return replace(build_next_document(document, actor, reason), shares=(), canary=None, split_salt="")


def set_shadow(document: AliasDocument, shadow: TrafficShare | None, actor: str, reason: str) -> AliasDocument:
    """Send copies of a share of the requests to another version; None ends that."""
    if shadow is not None and shadow.version == document.version:
        raise InvalidInputError(f"Version {shadow.version} serves already; a shadow is another version.")
    return replace(build_next_document(document, actor, reason), shadow=shadow)


def suspend_alias(document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """Take the alias out of service; a suspended one keeps its first reason."""
    if document.suspended is not None:
        return document
    return replace(build_next_document(document, actor, reason), suspended=Suspension(actor, format_utc_now(), reason))


def resume_alias(document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """Put the alias back into service; return an alias in service unchanged."""
    if document.suspended is None:
        return document
    return replace(build_next_document(document, actor, reason), suspended=None)


def build_next_document(document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """Build the next document, with its number, actor, time and reason."""
    return replace(document, number=document.number + 1, by=actor, at=format_utc_now(), reason=reason)


def check_shares(document: AliasDocument, shares: tuple[TrafficShare, ...]) -> None:
    """Refuse a share of the alias's own version, two shares of one version, and shares that leave it no requests."""
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
    """Choose the version for a request at a slot from 0 to below TOTAL_WEIGHT.

    Shares take the slots from 0 upwards in their order: a caller in a share of 5 % is in it at 10 % too.
    """
    upper = 0
    for share in document.shares:
        upper += share.weight
        if slot < upper:
            return share.version
    return document.version


def hash_to_slot(salt: str, key: str) -> int:
    """Hash a caller's key to one of TOTAL_WEIGHT slots: the same at every request, in every environment.

    Callers do not know the salt, so that they cannot compute a key's slot; and no key has a low one in every split.
    """
    digest = hashlib.blake2b(f"{salt}/{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % TOTAL_WEIGHT


def weight_from_percent(percent: float) -> int:
    """Convert percent to a weight; the smallest is 0.01 %."""
    parts = round(percent * TOTAL_WEIGHT / 100)
    if not 1 <= parts < TOTAL_WEIGHT:
        raise InvalidInputError(f"{percent:g} % is no share: at least 0.01, less than 100.")
    return parts


def compute_bake_end(bake: str) -> str:
    """Return the time after a duration such as 90s, 30m, 2h or 1d from now, as RFC 3339 in UTC."""
    return compute_end(bake).isoformat()
