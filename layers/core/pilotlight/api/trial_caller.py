"""Who calls, as far as the gateway knows: for the sides and the evidence of a trial."""

from pilotlight.api.http import Request
from pilotlight.runtime.trial_callers import TrialCaller

CALLER_HEADER = "x-pilotlight-caller"  # of an authenticated caller: the user whom a split keeps at one version


def build_caller(request: Request) -> TrialCaller:
    """Build the caller whom the gateway knows, for the sides and the evidence of a trial.

    A token is its subject's, who is the user himself; a key or a role is a program's, which names its users.
    """
    context = request.context
    address = str((context.get("identity") or {}).get("sourceIp") or "")
    authorizer = context.get("authorizer") or {}
    subject = "" if authorizer.get("key") else str(authorizer.get("principalId") or "")
    return TrialCaller(request.identity, request.tenant, address, request.headers.get(CALLER_HEADER) or subject)
