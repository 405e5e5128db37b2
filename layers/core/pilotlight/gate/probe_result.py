"""What the gate's probe measures of a version, in a process of its own (`gate.probe`)."""

from msgspec import Struct

from pilotlight.contracts.manifest import Precision


class TextTimes(Struct, frozen=True):
    """How long a text of a language model takes, in ms."""

    first_token_ms: float  # of a prompt of 64 tokens
    token_ms: float  # of each further one


class ProbeResult(Struct, frozen=True, kw_only=True):
    """What the probe measured. A version that cannot be opened has an `error` and no numbers."""

    error: str | None = None
    golden: str | None = None  # why the golden requests failed
    finite: bool | None = None  # whether answers to generated requests are finite; None if none was sent
    finite_at_first: bool | None = None  # the same of the first that it answered, with numbers of either sign
    load_s: float = 0.0
    peak_mb: float = 0.0  # resident memory of the process, MB of 1,000,000 bytes
    latency_ms: float = 0.0  # median of single requests
    text_times: TextTimes | None = None  # of a language model
    answered: tuple[Precision, ...] = ()  # variants whose answers were written
