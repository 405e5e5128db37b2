"""Build the IAM policy for API Gateway from scopes: exactly the routes of those scopes.

A route's `{parameter}` becomes `*`, which in IAM matches slashes too, so every pattern begins with a verb: with `*` for
the verb, `prod/*/ping` would match `prod/GET/registry/models/ping`. Source of the form: API Gateway Developer Guide,
Output from a Lambda authorizer; it may have 8 KB.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from functions.authorize.caller import Caller
from pilotlight.api.routes import SCOPES, VERBS
from pilotlight.contracts.scopes import Scope

MAX_POLICY_BYTES = 8192  # bytes of an answer


def build_policy(caller: Caller, method_arn: str) -> dict[str, Any]:
    """Build the answer for API Gateway, which may cache it for this key or token and all its routes."""
    stage = "/".join(method_arn.split("/")[:2])  # arn:aws:execute-api:region:account:api/stage
    allowed = [f"{stage}/{each}" for each in list_resources(caller.scopes)]
    response: dict[str, Any] = {
        "principalId": caller.principal,
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [_build_statement("Allow", allowed) if allowed else _build_statement("Deny", [f"{stage}/*"])],
        },
        "context": {"tenant": caller.tenant, "scopes": " ".join(sorted(caller.scopes)), "key": caller.key_name},
    }
    return response | ({"usageIdentifierKey": caller.usage_key} if caller.usage_key else {})


@lru_cache
def list_resources(scopes: frozenset[Scope]) -> list[str]:
    """List verbs with paths, such as `GET/v2/models/*`."""
    return [f"{verb}{path}" for scope in sorted(scopes) for path in build_path_patterns(scope) for verb in VERBS[scope]]


def build_path_patterns(scope: Scope) -> Iterator[str]:
    """Yield the paths of a scope, few and short since the answer must be small, but without another scope's routes.

    A `/` at the end of a path is no part of its route.
    """
    paths = {_shorten_path(route.partition("{")[0], scope) for route, needed in SCOPES.items() if needed == scope}
    paths |= {f"{path}/" for path in paths if not path.endswith("*")}
    for path in sorted(paths):
        if not any(other != path and fnmatchcase(path, other) for other in paths):
            yield path


def _shorten_path(path: str, scope: Scope) -> str:
    """Return the shortest beginning of a path that begins no path of another scope, with `*`; else the path itself.

    Both the beginnings and the others' routes end before the first parameter, which may be any text.
    """
    others = [route.partition("{") for route, needed in SCOPES.items() if needed != scope]
    for length in range(len("/") + 1, len(path) + 1):
        beginning = path[:length]
        if not any(head.startswith(beginning) or (brace and beginning.startswith(head)) for head, brace, _ in others):
            return f"{beginning}*"
    return path


def _build_statement(effect: str, resources: list[str]) -> dict[str, Any]:
    return {"Effect": effect, "Action": "execute-api:Invoke", "Resource": resources}
