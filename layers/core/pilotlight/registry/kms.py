"""Signatures by a key of AWS KMS; boto3 is imported at the first signature."""

from typing import Any

from pilotlight.errors import InvalidInputError, UnavailableError, format_cause
from pilotlight.registry.signing import ALGORITHM


class KmsSigner:
    """Signs with a key of KMS: an asymmetric RSA key for SIGN_VERIFY, by id, ARN or alias."""

    def __init__(self, key: str, client: Any = None) -> None:  # noqa: ANN401 - boto3 ships no types
        self.key = key
        self._client = client

    def sign(self, message: bytes) -> bytes:
        """Sign a message of at most 4,096 bytes."""
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        client = self._client or boto3.client("kms")
        try:
            response = client.sign(KeyId=self.key, Message=message, MessageType="RAW", SigningAlgorithm=ALGORITHM)
        except ClientError as exc:
            raise InvalidInputError(f"KMS does not sign with {self.key!r}: {format_cause(exc)}.") from exc
        except BotoCoreError as exc:
            raise UnavailableError(f"KMS cannot be asked to sign: {format_cause(exc)}.") from exc
        return bytes(response["Signature"])
