"""What an alias does: which version a request goes to, and what each change makes of its document.

Pure functions over `AliasDocument`; `registry` reads and swaps the documents, `runtime.catalog` asks where to go.
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from pilotlight.contracts.manifest import WHOLE, AliasDocument, Canary, Share, Suspension
from pilotlight.errors import InvalidInputError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds


def first(version: int, by: str, reason: str) -> AliasDocument:
    """The document of an alias that there was not before."""
    return AliasDocument(version, None, by, now(), reason)


def moved(document: AliasDocument, version: int, by: str, reason: str) -> AliasDocument:
    """Pointing to another version. Shares and a shadow end with the version that they were measured against."""
    return replace(
        followed(document, by, reason), version=version, previous=document.version, shares=(), canary=None, shadow=None
    )


def rolled_back(document: AliasDocument, by: str, reason: str) -> AliasDocument:
    """Pointing to where it pointed before; a trial that is under way is what is taken back first.

    `InvalidInputError` when the alias has pointed to one version only.
    """
    if document.canary is not None:
        return without_shares(document, by, reason)
    if document.previous is None:
        raise InvalidInputError(
            f"Version {document.version} is the first that this alias has pointed to; there is nothing to go back to."
        )
    return moved(document, document.previous, by, reason)


def shared(document: AliasDocument, shares: tuple[Share, ...], by: str, reason: str) -> AliasDocument:
    """Sending shares of the requests elsewhere; `InvalidInputError` when they make no sense together."""
    check_shares(document, shares)
    return replace(followed(document, by, reason), shares=shares, canary=None)


def tried(document: AliasDocument, canary: Canary, weight: int, by: str, reason: str) -> AliasDocument:
    """With a canary on that weight of the requests, in place of whatever shares there were."""
    shares = (Share(canary.version, weight),)
    check_shares(document, shares)
    return replace(followed(document, by, reason), shares=shares, canary=canary)


def without_shares(document: AliasDocument, by: str, reason: str) -> AliasDocument:
    """With every request for the version that it points to."""
    return replace(followed(document, by, reason), shares=(), canary=None)


def shadowed(document: AliasDocument, shadow: Share | None, by: str, reason: str) -> AliasDocument:
    """With a copy of a share of the requests for another version, or with none any more."""
    if shadow is not None and shadow.version == document.version:
        raise InvalidInputError(f"Version {shadow.version} serves already; a shadow is another version.")
    return replace(followed(document, by, reason), shadow=shadow)


def suspended(document: AliasDocument, by: str, reason: str) -> AliasDocument:
    """Out of service; one that is already keeps its first reason."""
    if document.suspended is not None:
        return document
    return replace(followed(document, by, reason), suspended=Suspension(by, now(), reason))


def resumed(document: AliasDocument, by: str, reason: str) -> AliasDocument:
    """In service; as it is if it was."""
    if document.suspended is None:
        return document
    return replace(followed(document, by, reason), suspended=None)


def followed(document: AliasDocument, by: str, reason: str) -> AliasDocument:
    """The next document: who made it, when and why, under the next number."""
    return replace(document, number=document.number + 1, by=by, at=now(), reason=reason)


def check_shares(document: AliasDocument, shares: tuple[Share, ...]) -> None:
    """Refuse shares for the version itself, two for one version, and those that leave it nothing."""
    versions = [share.version for share in shares]
    if document.version in versions:
        raise InvalidInputError(f"Version {document.version} is what the alias points to; its share is the rest.")
    if len(set(versions)) < len(versions):
        raise InvalidInputError(f"The shares name a version twice: {versions}.")
    given = sum(share.weight for share in shares)
    if given >= WHOLE:
        raise InvalidInputError(f"The shares are {given / WHOLE:.2%} together; they must leave some requests.")


def choose(document: AliasDocument, place: int) -> int:
    """The version for a request at that `place`, one of WHOLE.

    Shares lie from 0 upwards in their order: whoever was in a canary of 5 % is in it at 10 % too.
    """
    upper = 0
    for share in document.shares:
        upper += share.weight
        if place < upper:
            return share.version
    return document.version


def place(name: str, alias: str, key: str) -> int:
    """Where a caller's key lies among WHOLE places: the same at every request, in every environment.

    The alias is part of what is hashed, so that a key is not among the first at every experiment.
    """
    digest = hashlib.blake2b(f"{name}@{alias}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % WHOLE


def weight(percent: float) -> int:
    """Percent as a weight; the smallest is 0.01 %."""
    parts = round(percent * WHOLE / 100)
    if not 1 <= parts < WHOLE:
        raise InvalidInputError(f"{percent:g} % is no share: at least 0.01, less than 100.")
    return parts


def until(bake: str) -> str:
    """The time after a duration such as 90s, 30m, 2h or 1d from now, as RFC 3339 in UTC."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", bake)
    if found is None:
        raise InvalidInputError(f"{bake!r} is not a duration such as 90s, 30m, 2h or 1d.")
    return (datetime.now(UTC) + timedelta(seconds=int(found[1]) * UNITS[found[2]])).isoformat()


def now() -> str:
    """The time as RFC 3339 in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat()
