"""The document of an alias: the version it points to, how its traffic is split, and its canary and shadow."""

from typing import Annotated

from msgspec import Meta, Struct

from pilotlight.contracts.names import Version

TOTAL_WEIGHT = 10_000  # the sum of the weights of all shares; a weight of 1 is 0.01 %


class Suspension(Struct, frozen=True):
    """That an alias answers nobody for now: who took it out of service, when and why."""

    by: str
    at: str  # RFC 3339, UTC
    reason: str


class TrafficShare(Struct, frozen=True):
    """A part of an alias's requests that goes to another version than the one it points to."""

    version: Version
    weight: Annotated[int, Meta(ge=1, le=TOTAL_WEIGHT)]  # of TOTAL_WEIGHT requests


class Canary(Struct, frozen=True):
    """A trial of a version on a share of an alias's requests: what ends it, and how.

    `functions/promote` promotes the version when `until` has passed, and takes the share away as soon as one of the
    limits is broken; each environment stops by itself before that (`runtime.canary_monitor`). The limits are those of
    hypotheses: a stop needs evidence that one is broken (infra/decisions/0067).
    """

    version: Version
    until: str  # RFC 3339, UTC: the end of the bake time
    max_error_rate: Annotated[float, Meta(ge=0, le=1)] = 0.01
    max_latency_ratio: Annotated[float, Meta(gt=0)] = 2.0  # inference time over the champion's, for as many rows
    max_drift: Annotated[float, Meta(ge=0, le=1)] = 0.25  # total variation between the two versions' answers
    min_requests: Annotated[int, Meta(ge=1)] = 50  # of the canary in an environment, before it decides


class AliasDocument(Struct, frozen=True):
    """Where an alias points, where it pointed before, and who moved it, when and why.

    Replaced as a whole by compare-and-swap, each time under the next number. `aliases` says which changes there are and
    which version a request goes to. `suspended` outlives moves: what somebody took out of service, no promotion brings
    back (infra/decisions/0014).
    """

    version: Version
    previous: Version | None
    by: str
    at: str  # RFC 3339, UTC
    reason: str
    suspended: Suspension | None = None
    number: Annotated[int, Meta(ge=1)] = 1  # of this document among all of the alias
    shares: tuple[TrafficShare, ...] = ()  # together less than TOTAL_WEIGHT; the rest goes to `version`
    canary: Canary | None = None  # why there is a share, if it is for a canary
    shadow: TrafficShare | None = None  # receives copies of its share of the requests, off the caller's path
    split_salt: str = ""  # with which a split hashes its sticky callers; empty for one that keeps nobody
    model: str = ""  # whose alias it is, and which; empty in documents of former releases
    alias: str = ""

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing for the version itself; msgspec reports it as an invalid document."""
        total_weight = sum(share.weight for share in self.shares)
        if total_weight >= TOTAL_WEIGHT:
            raise ValueError(
                f"shares out {total_weight} of {TOTAL_WEIGHT} requests, and leaves none for version {self.version}"
            )
