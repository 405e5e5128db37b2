"""Clients of AWS's control plane, by the environment's profile, region and AWS_ENDPOINT_URL, as SAM takes them too."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from pilotlight.errors import InvalidInputError, NotFoundError, UnavailableError, format_cause

EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
MISSING_CODES = {"ResourceNotFoundException", "NoSuchBucket", "NoSuchEntity", "RepositoryNotFoundException",
                 "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}  # fmt: skip
SIGN_IN = "`aws configure` or `aws sso login` makes some, and --profile NAME or AWS_PROFILE names them"

OpenClient = Callable[[str], Any]  # a boto3 client of a service by its name


def open_aws_client(service: str) -> Any:  # noqa: ANN401 - boto3 ships no types
    """Open a client of a service; raise `InvalidInputError` without a region, or for a profile that there is not."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    session = open_session()
    try:
        return session.client(service, config=Config(retries={"mode": "standard", "max_attempts": 5}))
    except BotoCoreError as exc:
        raise InvalidInputError(f"AWS cannot be asked: {format_cause(exc)}. Set --region and --profile.") from exc


def find_region() -> str | None:
    """Find the region of the environment and its profile; None if neither names one."""
    region: str | None = open_session().region_name
    return region


def has_credentials() -> bool:
    """Return whether there are any credentials, which AWS may still refuse."""
    from botocore.exceptions import BotoCoreError

    try:
        return open_session().get_credentials() is not None
    except BotoCoreError as exc:
        raise UnavailableError(f"They cannot be read: {format_cause(exc)}; {SIGN_IN}.") from exc


def open_session() -> Any:  # noqa: ANN401
    """Open the session of the environment; raise `InvalidInputError` for a profile that there is not."""
    return _open_session(tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))


@lru_cache(maxsize=1)
def _open_session(variables: tuple[tuple[str, str], ...]) -> Any:  # noqa: ANN401
    """Open a session, once for the same variables: each parses anew what AWS's services take, in 100 ms."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.Session()
    except BotoCoreError as exc:
        raise InvalidInputError(f"{format_cause(exc)}; {SIGN_IN}.") from exc


@contextmanager
def translate_aws_errors(what: str) -> Iterator[None]:
    """Turn boto3's errors about `what`, such as "the stack 'models'", into Pilotlight's."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as exc:
        raise UnavailableError(f"There are no AWS credentials here; {SIGN_IN}.") from exc
    except ClientError as exc:
        code, said = exc.response["Error"]["Code"], exc.response["Error"].get("Message") or str(exc)
        if code in EXPIRED_CODES:
            raise UnavailableError(f"AWS does not take these credentials ({said.rstrip('.')}); {SIGN_IN}.") from exc
        if code in MISSING_CODES:
            raise NotFoundError(f"There is no {what.removeprefix('the ')} in this account and region.") from exc
        raise UnavailableError(f"AWS refused what was asked about {what}: {said.rstrip('.')} ({code}).") from exc
    except BotoCoreError as exc:
        raise UnavailableError(f"AWS cannot be asked about {what}: {format_cause(exc)}.") from exc
