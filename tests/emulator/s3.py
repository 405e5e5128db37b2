"""S3: a bucket's own key with the rights that it asks of callers, and conditions on conditional writes.

ministack's CloudFormation passes over a bucket's encryption, nothing asks for rights over the key, and policies do not
see whether a write is conditional.
"""

from typing import Any

from ministack.core import iam_actions
from ministack.services import s3
from ministack.services.cloudformation import provisioners

KEY_HEADER = "x-amz-server-side-encryption-aws-kms-key-id"
KEY_ACTIONS = {
    "GetObject": ("kms:Decrypt",),
    "GetObjectVersion": ("kms:Decrypt",),
    "PutObject": ("kms:GenerateDataKey",),
}
ENCRYPTION = (
    "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm>"
    "<KMSMasterKeyID>{}</KMSMasterKeyID></ApplyServerSideEncryptionByDefault><BucketKeyEnabled>true</BucketKeyEnabled>"
    "</Rule></ServerSideEncryptionConfiguration>"
)


def extend() -> None:
    """Add all of this to the running ministack."""
    handlers = provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]
    handlers["create"] = _encrypt_after(handlers["create"])
    iam_actions.s3_additional_checks = _check_key_after(iam_actions.s3_additional_checks)
    iam_actions.s3_service_context = _describe_write_after(iam_actions.s3_service_context)


def find_key(bucket: str) -> str:
    """Find the key of KMS with which a bucket encrypts; empty for S3's own."""
    return str(s3._bucket_default_sse_headers(bucket).get(KEY_HEADER, ""))


def _encrypt_after(create: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def create_bucket(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:  # noqa: ANN401 - ministack's
        created = create(logical_id, props, stack_name)
        for rule in props.get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration", ()):
            if key := rule["ServerSideEncryptionByDefault"].get("KMSMasterKeyID"):
                s3._put_bucket_encryption(created[0], ENCRYPTION.format(key).encode())
        return created

    return create_bucket


def _check_key_after(list_checks: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Check the rights over the key, too; for a part of an upload, which S3 joins to others, both."""

    def list_all(method: str, path: str, headers: Any, body: bytes, query: Any) -> list[tuple[str, str]]:  # noqa: ANN401
        checks: list[tuple[str, str]] = list_checks(method, path, headers, body, query)
        key = find_key(path.lstrip("/").partition("/")[0])
        if not key or method == "HEAD":  # which reads no byte
            return checks
        needed = list(KEY_ACTIONS.get(iam_actions._s3_action(method, path, query), ()))
        needed += ["kms:Decrypt"] if needed and "uploadId" in query else []
        return [*checks, *((action, key) for action in needed)]

    return list_all


def _describe_write_after(describe: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Say whether a write is conditional, and whether it makes an object: of an upload, only its last request does."""

    def describe_request(action: str, query: Any, path: str = "", headers: Any = None) -> dict[str, Any]:  # noqa: ANN401
        context: dict[str, Any] = describe(action, query, path, headers)
        if action != "s3:PutObject":
            return context
        conditions = {f"s3:{name}": headers[name] for name in ("if-match", "if-none-match") if headers.get(name)}
        is_part = "partNumber" in query or "uploads" in query
        return {**context, **conditions, "s3:ObjectCreationOperation": str(not is_part).lower()}

    return describe_request
