"""The secret behind which the gateway emulates AWS's own APIs, as the first segment of their paths.

    http://127.0.0.1:8080/<secret>/2015-03-31/functions/PredictFunction/invocations

A segment of the path and no key to sign with, since handlers call with unmodified boto3 and with whichever credentials
a profile or a store on S3 gives them: the gateway could not check their signatures. It reaches the handlers in
AWS_ENDPOINT_URL_LAMBDA and AWS_ENDPOINT_URL_EVENTBRIDGE, and nothing else.
"""

import hmac
import re
from collections.abc import MutableMapping
from ipaddress import ip_address
from typing import Any

from pilotlight.errors import InvalidInputError
from pilotlight.local.gateway_errors import DENIED, GatewayError

SHORTEST = 16  # characters
FORM = re.compile(rf"[A-Za-z0-9_-]{{{SHORTEST},128}}")


class ControlSecret:
    """The secret of one gateway."""

    def __init__(self, secret: str) -> None:
        if not FORM.fullmatch(secret):
            raise InvalidInputError(
                f"The control secret has {len(secret)} characters; take {SHORTEST} to 128 letters, digits, _ and -."
            )
        self.path = f"/{secret}"

    def split_path(self, raw_path: bytes) -> tuple[str, str]:
        """Split a path into a first segment that may be a secret, which may be empty, and what an AWS API would get."""
        path = raw_path.decode("latin-1")
        head, _, rest = path[1:].partition("/")
        return (f"/{head}", f"/{rest}") if FORM.fullmatch(head) else ("", path)

    def check_caller(self, scope: MutableMapping[str, Any]) -> str:
        """Check that a caller is on this machine and knows the secret; return the path without it.

        The request's path is replaced by that one, so that no log shows the secret.
        """
        secret, path = self.split_path(scope["raw_path"])
        scope["raw_path"] = path.encode("latin-1")
        client, server = scope["client"], scope["server"]
        is_near = client is not None and (ip_address(client[0]).is_loopback or client[0] == server[0])
        if not (is_near and hmac.compare_digest(secret.encode(), self.path.encode())):
            raise GatewayError(
                DENIED, "This API is for the functions of this gateway alone, whose endpoints carry its secret."
            )
        return path
