"""Who calls, as a key or a token says it."""

from dataclasses import dataclass

from pilotlight.contracts.scopes import Scope


@dataclass(frozen=True)
class Caller:
    """The holder of a key or a token."""

    principal: str  # unique and not forgeable: a key's id, a token's subject
    tenant: str  # empty for the stack's own callers
    scopes: frozenset[Scope]
    key_name: str = ""
    usage_key: str = ""  # value of the API Gateway key to whose usage plan this request counts
