"""A proxy before the emulator's gateway that does for it what AWS's does with the answer of an authorizer.

AWS takes the key that meters a request from the authorizer's `usageIdentifierKey`, since the API says
`ApiKeySourceType: AUTHORIZER`. ministack 1.5.33 does not read that, and takes `x-api-key` from the caller. So the proxy
asks the deployed authorizer for the meter, and sends it in the caller's name. A request that it refuses goes on as it
came: the gateway asks the authorizer itself and decides alone.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import ClientError

from tests.core.doctor.broken_servers import Asked, Next, Told, running

REGION, ACCOUNT = "us-east-1", "000000000000"  # the emulator's


class MeteringGateway:
    """Names the meter of each request; `authorizer` is the function that knows it."""

    def __init__(self, api: str, authorizer: str, usage_plan: str) -> None:
        self._api = api
        self._authorizer = authorizer
        self._usage_plan = usage_plan
        self._lambda = boto3.client("lambda")
        self._gateway = boto3.client("apigateway")

    def __call__(self, asked: Asked, onward: Next) -> Told:
        """Pass a request on, with its meter, to the API that is meant."""
        headers = {**asked.headers, "host": f"{self._api}.execute-api.localhost"}
        if meter := self.find_meter(asked):
            if "x-api-key" in headers:
                self._let_pass(headers["x-api-key"])
            else:
                headers["x-api-key"] = meter
        return onward(asked._replace(headers=headers))

    def find_meter(self, asked: Asked) -> str:
        """Find the value of the meter of a request; empty if the authorizer refuses it."""
        path = urlsplit(asked.path).path
        event = {
            "type": "REQUEST",
            "methodArn": f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{self._api}/prod/{asked.method}{path}",
            "headers": dict(asked.headers),
        }
        answer = self._lambda.invoke(FunctionName=self._authorizer, Payload=json.dumps(event))
        found: str = json.load(answer["Payload"]).get("usageIdentifierKey", "")
        return found

    def _let_pass(self, key: str) -> None:
        """Make a valid key, which the authorizer must see where the emulator wants a meter, a meter too."""
        try:
            made = self._gateway.create_api_key(name=key, value=key, enabled=True)["id"]
        except ClientError as exc:
            if exc.response["Error"]["Code"] != "ConflictException":
                raise
            return
        self._gateway.create_usage_plan_key(usagePlanId=self._usage_plan, keyId=made, keyType="API_KEY")


@contextmanager
def metering_proxy(api: str, authorizer: str, usage_plan: str) -> Iterator[str]:
    """Yield the URL of an API below such a proxy, without its stage."""
    with running(os.environ["AWS_ENDPOINT_URL"], MeteringGateway(api, authorizer, usage_plan)) as (url, _):
        yield url
