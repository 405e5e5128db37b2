"""One stack in modes that few have: tokens of an issuer, a key for its data, a domain, SnapStart, a private API, arm64.

What the emulator only records is looked at as it was recorded: it starts no provisioned environment before a request,
takes no snapshot (the hooks are called in Lambda's runtime by test_snapshots.py), knows no endpoints of a VPC, and has
no arm64. The stack changes from test to test, in the order of this file.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest

from pilotlight.registry.registry import Registry
from tests import fakes
from tests.e2e.deploy.builds import Template, build_changed, build_for_arm64
from tests.e2e.deploy.callers import X
from tests.e2e.deploy.conftest import DeployedStack, sam_deploy
from tests.e2e.deploy.emulator_process import TRUSTED
from tests.issuer import AUDIENCE, NAME, FakeIssuer, rsa_key

STACK = "pilotlight-modes"
DOMAIN = "models.example.com"
HOST = "host.docker.internal"  # this machine, as containers call it
REFETCHED_S = 60  # within which an authorizer asks the issuer for a key that it does not know: half a minute, and some
MODEL = "/v2/models/double"
VPC_ENDPOINT = "vpce-0123456789abcdef0"


@dataclass
class Modes:
    """The stack, the issuer of its tokens, and the key of its data."""

    stack: DeployedStack
    issuer: FakeIssuer
    data_key: str
    package: Path

    def get(self, token: str, path: str = MODEL) -> httpx2.Response:
        """Get a path with this token; empty for none."""
        return self.stack.get(path, key=token)

    def list_functions(self) -> list[dict[str, Any]]:
        listed = boto3.client("lambda").list_functions()["Functions"]
        return [one for one in listed if one["FunctionName"].startswith(f"{STACK}-")]

    def find_function(self, name: str) -> str:
        (found,) = (one["FunctionName"] for one in self.list_functions() if f"{STACK}-{name}-" in one["FunctionName"])
        return str(found)


@pytest.fixture(scope="module")
def modes(
    emulator: str, emulator_folder: Path, packaged: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Modes]:
    issuer, folder = FakeIssuer(), tmp_path_factory.mktemp("issuer")
    with issuer.served(folder, "0.0.0.0", HOST) as (keys, certificate):  # noqa: S104 - containers reach no loopback
        begin = certificate.read_text().index("-----BEGIN CERTIFICATE-----")  # after its private key
        (emulator_folder / TRUSTED).write_text(certificate.read_text()[begin:])
        data_key = boto3.client("kms").create_key()["KeyMetadata"]["Arn"]
        certified = boto3.client("acm").request_certificate(DomainName=DOMAIN)["CertificateArn"]
        given = {"Auth": "jwt", "JwtIssuer": NAME, "JwtAudience": AUDIENCE, "JwtKeys": keys, "DataKey": data_key}
        given |= {"DomainName": DOMAIN, "Certificate": certified, "ProvisionedConcurrency": "1", "AccessLogs": "off"}
        sam_deploy(packaged, STACK, **given)
        stack = DeployedStack(STACK)
        stack.url = f"{emulator}/_aws/execute-api/{stack.outputs['ApiId']}/prod"
        fakes.publish(Registry(stack.store))
        yield Modes(stack, issuer, data_key, packaged)
    (emulator_folder / TRUSTED).unlink()


def test_a_token_of_the_issuer_opens_the_routes_of_its_scopes(modes: Modes) -> None:
    for kid in ("one", "two"):  # RS256 and ES256
        assert modes.get(modes.issuer.token(kid)).status_code == 200
    infer = modes.issuer.token()
    answer = httpx2.post(
        f"{modes.stack.url}{MODEL}/infer", json=X, headers={"authorization": f"Bearer {infer}"}, timeout=60
    )
    assert answer.json()["outputs"][0]["data"] == [2, 0, 2]
    for path in ("/registry/models", "/v1/files", "/v1/trainings"):
        refused = modes.get(infer, path)
        assert (refused.status_code, "has not the scope" in refused.json()["message"]) == (403, True)
        assert modes.get(modes.issuer.token(scope="infer batch admin train"), path).status_code == 200


def test_other_tokens_open_nothing(modes: Modes) -> None:
    token, now = modes.issuer.token, int(time.time())
    stranger = FakeIssuer(keys={"one": rsa_key()})  # whose key has the name of one that is known
    wrong = {
        "another audience": token(aud="another"),
        "expired": token(exp=now - 120),
        "not yet": token(nbf=now + 600),
        "another issuer": token(iss="https://another.example.com/"),
        "another key": stranger.token(),
        "no token": "",
        "a key": f"plk_{'a' * 12}_{'A' * 43}",
    }
    answers = {name: modes.get(one) for name, one in wrong.items()}
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(wrong, 401)
    for answer in answers.values():
        assert (answer.headers["www-authenticate"], "message" in answer.json()) == ("Bearer", True)
    assert modes.get(token(scope="")).status_code == 403


def test_the_issuers_keys_rotate(modes: Modes) -> None:
    """Tokens of a new key are taken within half a minute, and from then on those of the former one refused."""
    former = [modes.issuer.token(sub=str(number)) for number in range(2)]
    assert modes.get(former[0]).status_code == 200
    modes.issuer.keys["three"] = rsa_key()
    old = modes.issuer.keys.pop("one")
    fakes.eventually(lambda: modes.get(modes.issuer.token("three")).status_code == 200, REFETCHED_S)
    assert modes.get(former[1]).status_code == 401
    modes.issuer.keys["one"] = old


def test_an_issuer_that_is_down(modes: Modes) -> None:
    """Keys that are known go on; an authorizer that starts meanwhile says that it cannot check, and that is not 401."""
    modes.issuer.is_down = True
    assert modes.get(modes.issuer.token("two", sub="known")).status_code == 200
    authorizer = modes.find_function("AuthorizeFunction")
    boto3.client("lambda").update_function_configuration(FunctionName=authorizer, Description="Starts anew.")
    refused = modes.get(modes.issuer.token("two", sub="unknown"))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "cannot be checked at the moment" in refused.json()["message"]
    modes.issuer.is_down = False
    fakes.eventually(lambda: modes.get(modes.issuer.token("two")).status_code == 200, REFETCHED_S)


def test_the_key_for_data_is_on_all_that_keeps_some(modes: Modes) -> None:
    client, bucket = boto3.client("s3"), modes.stack.outputs["Bucket"]
    (rule,) = client.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": modes.data_key}
    manifest = client.head_object(Bucket=bucket, Key="models/double/versions/1/manifest.json")
    assert manifest["ServerSideEncryption"] == "aws:kms"
    groups = boto3.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{STACK}-")["logGroups"]
    assert len(groups) == len(modes.list_functions())
    assert {one["kmsKeyId"] for one in groups} == {modes.data_key}
    keys = {one["FunctionName"].split("Function")[0]: one.get("KMSKeyArn") for one in modes.list_functions()}
    assert {name for name, key in keys.items() if key != modes.data_key} == {f"{STACK}-Authorize"}, keys


def test_environments_are_provisioned_on_the_alias(modes: Modes) -> None:
    found = boto3.client("lambda").get_provisioned_concurrency_config(
        FunctionName=modes.find_function("PredictFunction"), Qualifier="live"
    )
    assert (found["RequestedProvisionedConcurrentExecutions"], found["Status"]) == (1, "READY")


def test_the_domain_leads_to_the_stage(modes: Modes, emulator: str) -> None:
    """Without /prod, and with the same keys."""
    sent = {"host": DOMAIN, "authorization": f"Bearer {modes.issuer.token('two')}"}
    found = httpx2.get(f"{emulator}{MODEL}", headers=sent, timeout=60)
    assert (found.status_code, found.json()["name"]) == (200, "double")
    assert httpx2.get(f"{emulator}{MODEL}", headers={"host": DOMAIN}, timeout=60).status_code == 401


def test_too_many_requests_are_told_to_wait(modes: Modes) -> None:
    """After an update of that stack to Auth=keys, with a snapshot to start from in place of warm environments."""
    given = {"Auth": "keys", "RateLimit": "1", "SnapStart": "PublishedVersions", "ProvisionedConcurrency": "0"}
    sam_deploy(modes.package, STACK, AccessLogs="off", DomainName="", **given)
    assert modes.get(modes.stack.key).status_code == 200
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: modes.get(modes.stack.key), range(80)))
    assert {one.status_code for one in answers} == {200, 429}
    refused = next(one for one in answers if one.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json() == {"message": "Too Many Requests"}


def test_snapshots_are_of_published_versions(modes: Modes) -> None:
    client, name = boto3.client("lambda"), modes.find_function("PredictFunction")
    live = client.get_function_configuration(FunctionName=name, Qualifier="live")
    assert live["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"}
    with pytest.raises(client.exceptions.ProvisionedConcurrencyConfigNotFoundException):
        client.get_provisioned_concurrency_config(FunctionName=name, Qualifier="live")


def make_private(template: Template) -> None:
    """Set VpcEndpoint."""
    template["Mappings"]["Settings"]["Network"]["VpcEndpoint"] = VPC_ENDPOINT
    condition = template["Conditions"]["IsPrivate"]["Fn::Not"][0]["Fn::Equals"]
    assert condition == ["", ""]
    condition[0] = VPC_ENDPOINT  # which YAML's alias is in template.yaml


def test_a_private_api_answers_its_endpoint_alone(modes: Modes, tmp_path: Path) -> None:
    build = build_changed(tmp_path, make_private)
    build_for_arm64(build)
    sam_deploy(build, STACK, AccessLogs="off", Auth="keys", Architecture="arm64", RateLimit="1000", DomainName="")
    api = boto3.client("apigateway").get_rest_api(restApiId=modes.stack.outputs["ApiId"])
    assert api["endpointConfiguration"]["types"] == ["PRIVATE"]
    assert api["endpointConfiguration"]["vpcEndpointIds"] == [VPC_ENDPOINT]
    assert VPC_ENDPOINT in api["policy"]
    assert modes.get(modes.stack.key).status_code == 403


def test_every_function_and_layer_is_for_arm64(modes: Modes) -> None:
    """After that deploy; nothing of it runs here."""
    assert {tuple(one["Architectures"]) for one in modes.list_functions()} == {("arm64",)}
    client = boto3.client("lambda")
    used = {layer["Arn"] for one in modes.list_functions() for layer in one.get("Layers", ())}
    assert len(used) == 5  # three of the stack, and two of the nested one of the batch function
    for arn in used:
        assert client.get_layer_version_by_arn(Arn=arn)["CompatibleArchitectures"] == ["arm64"]
