"""Credentials of the commands for a server: an API key, a token, or requests signed for IAM.

    PILOTLIGHT_API_KEY=...      the header x-api-key
    PILOTLIGHT_TOKEN=...        the header authorization: Bearer
    PILOTLIGHT_AUTH=iam         AWS Signature Version 4, service execute-api, with the credentials that boto3 finds

A key may accompany either of the others: a usage plan counts by it.
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
SIGNED_HEADERS = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")


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
                f"PILOTLIGHT_AUTH is iam, and there are no AWS credentials: {format_cause(exc)}."
            ) from exc
        region_match = REGION_PATTERN.search(url)
        self._region = region_match[1] if region_match else session.region_name
        if self._credentials is None:
            raise InvalidInputError("PILOTLIGHT_AUTH is iam, and there are no AWS credentials; run `aws configure`.")
        if not self._region:
            raise InvalidInputError(f"PILOTLIGHT_AUTH is iam, and {url} names no region; set AWS_REGION.")

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


@dataclass(frozen=True)
class Credentials:
    """What is sent with each request; nothing by default."""

    headers: Mapping[str, str] = field(default_factory=dict)
    iam_auth: IamAuth | None = None

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.headers) or self.iam_auth is not None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], url: str) -> "Credentials":
        """Read the credentials for the server at `url`; raise `InvalidInputError` for contradicting variables."""
        # Without the line break of the file that one was read from.
        key, token, auth = (environment.get(f"PILOTLIGHT_{name}", "").strip() for name in ("API_KEY", "TOKEN", "AUTH"))
        if auth not in ("", "iam"):
            raise InvalidInputError(f"PILOTLIGHT_AUTH is {auth!r}; it may be iam, or not set.")
        if auth and token:
            raise InvalidInputError("PILOTLIGHT_AUTH and PILOTLIGHT_TOKEN are both set, and a request has one of them.")
        all_headers = {"x-api-key": key, "authorization": token and f"Bearer {token}"}
        headers = {name: value for name, value in all_headers.items() if value}
        return cls(headers, IamAuth(url) if auth else None)
