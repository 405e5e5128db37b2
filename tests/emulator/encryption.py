"""The keys with which buckets and functions are encrypted, which ministack's CloudFormation passes over."""

from typing import Any

from ministack.services import lambda_svc, s3
from ministack.services.cloudformation import provisioners


def extend() -> None:
    """Add all of this to the running ministack."""
    put, delete = s3._put_bucket_encryption, s3._delete_bucket_encryption
    known = tuple(provisioners._S3_BUCKET_CONFIGURATIONS)
    provisioners._S3_BUCKET_CONFIGURATIONS = (*known, ("BucketEncryption", write_encryption, put, delete))
    function = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]
    function["create"] = _with_key(function["create"], properties=1)
    function["update"] = _with_key(function["update"], properties=2)


def write_encryption(given: dict[str, Any]) -> bytes:
    """Write the property as S3's document."""
    rules = "".join(map(_write_rule, given["ServerSideEncryptionConfiguration"]))
    return f'<ServerSideEncryptionConfiguration xmlns="{s3.S3_NS}">{rules}</ServerSideEncryptionConfiguration>'.encode()


def _write_rule(rule: dict[str, Any]) -> str:
    default = "".join(f"<{name}>{value}</{name}>" for name, value in rule["ServerSideEncryptionByDefault"].items())
    key = str(rule.get("BucketKeyEnabled", False)).lower()
    applied = f"<ApplyServerSideEncryptionByDefault>{default}</ApplyServerSideEncryptionByDefault>"
    return f"<Rule>{applied}<BucketKeyEnabled>{key}</BucketKeyEnabled></Rule>"


def _with_key(make: Any, properties: int) -> Any:  # noqa: ANN401 - ministack has no types
    """Keep the key of a function's variables; `properties` is the place of its properties among the arguments."""

    def make_function(*given: Any) -> Any:  # noqa: ANN401 - ministack's own
        made = make(*given)
        lambda_svc._functions[made[0]]["config"]["KMSKeyArn"] = given[properties].get("KmsKeyArn") or ""
        return made

    return make_function
