"""Credentials of the client and the commands for a server: a key, a token, or requests signed for IAM.

    PILOTLIGHT_KEY=plk_...      a key of `pilotlight keys create`, as the header authorization: Bearer
    PILOTLIGHT_TOKEN=...        a token of the server's issuer, in the same header
    PILOTLIGHT_AUTH=iam         AWS Signature Version 4, service execute-api, with the credentials that boto3 finds

Without any of them, a server of AWS's own domain that asks for a signature gets one.
"""

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from pilotlight.errors import InvalidInputError, format_cause

REGION_PATTERN = re.compile(
    r"\.execute-api(?:-fips)?\.([a-z0-9-]+)\."
)  # in the host of an API that has no domain of its own
AWS_HOST_PATTERN = re.compile(r"https://[^/@]+\.execute-api(?:-fips)?\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?(?:/|$)")
SIGNED_HEADERS = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
VARIABLES = ("PILOTLIGHT_KEY", "PILOTLIGHT_TOKEN", "PILOTLIGHT_AUTH")
SIGNATURE_HINT = "aws4-hmac-sha256"  # in WWW-Authenticate


class IamAuth(httpx2.Auth):
    """Signs each request; imports botocore, which takes 100 ms, only if it is used."""

    requires_request_body = True

    def __init__(self, url: str) -> None:
        """Raise `InvalidInputError` if there are no credentials, or no region for the URL."""
        import boto3
        from botocore.exceptions import BotoCoreError

        try:
            session = boto3.Session()
            self._credentials: Any = session.get_credentials()
        except BotoCoreError as exc:
            raise InvalidInputError(
                f"{url} asks for a signature, and there are no AWS credentials: {format_cause(exc)}."
            ) from exc
        region_match = REGION_PATTERN.search(url)
        self._region = region_match[1] if region_match else session.region_name
        if self._credentials is None:
            raise InvalidInputError(
                f"{url} asks for a signature, and there are no AWS credentials; run `aws configure`."
            )
        if not self._region:
            raise InvalidInputError(f"A signature is asked for, and {url} names no region; set AWS_REGION.")

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        """Sign the request over method, host, path, query and body."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        aws_request = AWSRequest(request.method, str(request.url), data=request.content)
        SigV4Auth(self._credentials.get_frozen_credentials(), "execute-api", self._region).add_auth(aws_request)
        request.headers.update(
            {name: aws_request.headers[name] for name in SIGNED_HEADERS if name in aws_request.headers}
        )
        yield request


class OfferedIamAuth(httpx2.Auth):
    """Signs requests once the server has said that it wants signatures, and not before."""

    requires_request_body = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._iam_auth: IamAuth | None = None

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        """Send the request, and again with a signature if the answer asks for one."""
        if self._iam_auth is None:
            response = yield request
            if SIGNATURE_HINT not in response.headers.get("www-authenticate", "").lower():
                return
            self._iam_auth = IamAuth(self._url)
        yield from self._iam_auth.auth_flow(request)


@dataclass(frozen=True)
class Credentials:
    """What is sent with each request; nothing by default."""

    headers: Mapping[str, str] = field(default_factory=dict)
    auth: httpx2.Auth | None = None

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.headers) or isinstance(self.auth, IamAuth)

    @classmethod
    def from_key(cls, key: str) -> "Credentials":
        """Build the credentials of a key or a token."""
        return cls({"authorization": f"Bearer {key.strip()}"})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], url: str) -> "Credentials":
        """Read the credentials for the server at `url`; raise `InvalidInputError` for contradicting variables."""
        # Without the line break of the file that one was read from.
        values = {name: environment.get(name, "").strip() for name in VARIABLES}
        auth = values["PILOTLIGHT_AUTH"]
        if auth not in ("", "iam"):
            raise InvalidInputError(f"PILOTLIGHT_AUTH is {auth!r}; it may be iam, or not set.")
        if len(several := [name for name, value in values.items() if value]) > 1:
            raise InvalidInputError(f"{' and '.join(several)} are set together, and a request has one of them.")
        if auth:
            return cls(auth=IamAuth(url))
        if key := values["PILOTLIGHT_KEY"] or values["PILOTLIGHT_TOKEN"]:
            return cls.from_key(key)
        return cls(auth=OfferedIamAuth(url)) if AWS_HOST_PATTERN.match(url) else cls()
