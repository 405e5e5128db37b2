"""The result of the gate: each check with its numbers, and the verdict, stored where no publisher may write."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from pilotlight.contracts.names import Version
from pilotlight.registry.registry import judgement_path
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore

APPROVAL_CHECK = "approval"  # name of the only check that a person decides


class GateLimits(Struct, frozen=True):
    """How much worse than the champion a version may be, and by how much of it a limit must be broken to count.

    Points are percentage points of the metric, or what else it is told in (`quality`). Times have a ratio and an
    allowance: a model of 0.1 ms is not refused for taking 0.3, nor one of 2 s for taking 2.1.
    """

    margin_points: Annotated[float, Meta(ge=0)] | None = None  # below the champion's; null: the metric's own budget
    confidence: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95  # of being worse, by the paired bootstrap, that refuses
    quantized_points: Annotated[float, Meta(ge=0)] | None = None  # the most that a version's own budget counts for
    class_points: Annotated[float, Meta(ge=0)] = 20.0  # of a class's recall below the champion's
    class_examples: Annotated[int, Meta(ge=1)] = 10  # a class with fewer is not checked on its own
    latency_ratio: Annotated[float, Meta(gt=0)] = 2.0  # of a single warm request
    latency_ms: Annotated[float, Meta(ge=0)] = 5.0
    load_ratio: Annotated[float, Meta(gt=0)] = 2.0  # from the manifest to an open session
    load_s: Annotated[float, Meta(ge=0)] = 1.0


class GateCheck(Struct, frozen=True):
    """One question put to the version: passed or not, why in one sentence, and the numbers behind it.

    What could not be asked is not `checked`: it refuses nothing, and nothing is known of it.
    """

    name: str
    passed: bool
    why: str
    numbers: dict[str, float] = {}
    checked: bool = True

    @property
    def status(self) -> str:
        """The result in words: "passed", "refused" or "not checked"."""
        if not self.passed:
            return "refused"
        return "passed" if self.checked else "not checked"


class Verdict(Struct, frozen=True, kw_only=True):
    """`verdicts/<name>/<n>.json`: the latest examination of a version."""

    schema_version: Literal[1] = 1
    name: str
    version: Version
    champion: Version | None  # that it was compared with
    alias: str  # that it was evaluated for
    passed: bool
    checks: tuple[GateCheck, ...]
    limits: GateLimits
    memory_mb: int  # of the function that it must fit into
    machine: str
    at: str  # RFC 3339, UTC
    by: str
    seconds: float

    @property
    def is_awaiting_approval(self) -> bool:
        """Whether approval is the only check that failed."""
        return not self.passed and all(check.passed for check in self.checks if check.name != APPROVAL_CHECK)

    @property
    def reason(self) -> str:
        """Why the version was refused, in sentences; for a version that passed, how many checks it passed."""
        if failed := [check.why for check in self.checks if not check.passed]:
            return " ".join(failed)
        unchecked = [check.name for check in self.checks if not check.checked]
        if not unchecked:
            return f"All {len(self.checks)} checks passed."
        return f"{len(self.checks) - len(unchecked)} checks passed; not checked: {', '.join(unchecked)}."


def open_verdict(store: ObjectStore, name: str, version: int) -> Document[Verdict]:
    """Open the document of a version's verdict."""
    return Document(store, verdict_path(name, version), Verdict, name=name, version=version)


def verdict_path(name: str, version: int) -> str:
    """Return the key of a version's verdict."""
    return judgement_path("verdicts", name, version)
