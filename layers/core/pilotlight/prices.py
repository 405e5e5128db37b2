"""What AWS charges, in USD: the one place, with the date and the source of each number.

Region us-east-1, first tier, no free tier, no savings plan; other regions are a few percent dearer.
"""

from math import ceil

AS_OF = "2026-09-19"
SOURCE = "AWS Price List API, offers AWSLambda, AmazonApiGateway and AmazonS3 of us-east-1, read 2026-09-19"

LAMBDA_GB_SECOND = {"x86_64": 0.0000166667, "arm64": 0.0000133334}  # up to 6 and 7.5 billion GB-seconds a month
LAMBDA_REQUEST = 0.20 / 1e6
REST_API_REQUEST = 3.50 / 1e6  # up to 333 million a month
S3_GET = 0.0004 / 1e3
S3_PUT = 0.005 / 1e3
S3_GB_MONTH = 0.023
SQS_REQUEST = 0.40 / 1e6
LOGS_GB = 0.50

ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}
MB_PER_GB = 1024  # in Lambda's bill
MS_PER_S = 1000


def architecture(machine: str) -> str:
    """Lambda's word for what `platform.machine()` says; x86_64, the dearer one, for what Lambda does not have."""
    return ARCHITECTURES.get(machine.lower(), "x86_64")


def billed_ms(seconds: float) -> int:
    """A duration as Lambda bills it: each millisecond that has begun."""
    return max(1, ceil(seconds * MS_PER_S))


def gb_seconds(memory_mb: int, milliseconds: float) -> float:
    """What is billed for a duration on a function of so much memory."""
    return memory_mb / MB_PER_GB * milliseconds / MS_PER_S


def lambda_usd(memory_mb: int, milliseconds: float, architecture: str) -> float:
    """The price of one invocation: its request and its duration."""
    return LAMBDA_REQUEST + gb_seconds(memory_mb, milliseconds) * LAMBDA_GB_SECOND[architecture]
