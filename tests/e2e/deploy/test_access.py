"""Who may call a deployed stack: keys, tenants, open models and signatures, by unmodified clients."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
import httpx2
import numpy as np
import openai
import pytest
import tritonclient.http as triton
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tritonclient.utils import InferenceServerException

from pilotlight.cli.doctor import check_server
from pilotlight.client.auth import OfferedIamAuth
from pilotlight.client.client import Client, Tensor
from pilotlight.errors import PilotlightError
from pilotlight.registry.registry import Registry
from tests import fakes
from tests.e2e.deploy import callers
from tests.e2e.deploy.conftest import BUILT, PILOTLIGHT, ROOT, DeployedStack, needs_iam, read_outputs, sam_deploy

Stacks = tuple[DeployedStack, DeployedStack]
INFER: Any = "/v2/models/double/infer"  # the client's type lists OpenAI's own
FORGOTTEN_S = 75  # within which a revoked key is dead: the authorizer's minute, and some
TENANT_STACK = "acme"
X = Tensor("x", "FP32", [1, 3], [1, 0, 1])


@dataclass(frozen=True)
class Guarded:
    """A stack with Auth=keys and a model, and the keys of its callers."""

    stack: DeployedStack
    infer: str
    acme: str
    rival: str
    revoked: str
    rotated: str  # the former key of that name
    successor: str


@pytest.fixture(scope="module")
def guarded(stacks: Stacks) -> Guarded:
    """Keys made as infra/docs/deploy.md says; two of them worked, and were revoked and rotated."""
    stack = stacks[0]
    if not has_model(stack):
        fakes.publish(Registry(stack.store))
    sam_deploy(ROOT / "infra" / "tenant.yaml", TENANT_STACK, Tenant="acme", Api=stack.outputs["ApiId"])
    meter = read_outputs(TENANT_STACK)["Key"]
    leaver, rotated = stack.create_key("leaver", "infer"), stack.create_key("rotated", "infer")
    for key in (leaver, rotated):
        assert stack.get("/v2/models/double", key=key).status_code == 200
    subprocess.run([PILOTLIGHT, "keys", "revoke", "leaver", "--store", stack.store_url], check=True)
    command = [str(PILOTLIGHT), "keys", "rotate", "rotated", "--store", stack.store_url]
    successor = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return Guarded(
        stack,
        infer=stack.create_key("app", "infer"),
        acme=stack.create_key("acme-app", "infer,batch", "--tenant", "acme", "--meter", meter),
        rival=stack.create_key("rival-app", "infer,batch", "--tenant", "rival", "--plan", stack.outputs["UsagePlan"]),
        revoked=leaver,
        rotated=rotated,
        successor=successor,
    )


def has_model(stack: DeployedStack) -> bool:
    return any(path.startswith("models/double/") for path in stack.store.list_paths("models"))


def ask_triton(url: str, headers: dict[str, str]) -> list[float]:
    """Ask the model by tritonclient as it comes; the emulator decodes binary answers only for who accepts them."""
    with triton.InferenceServerClient(url.removeprefix("http://"), network_timeout=60) as client:
        x = triton.InferInput("x", [1, 3], "FP32")
        x.set_data_from_numpy(np.array([[1, 0, 1]], "float32"), binary_data=False)
        y = triton.InferRequestedOutput("y", binary_data=False)
        return list(client.infer("double", [x], outputs=[y], headers=headers).as_numpy("y").ravel())


def open_openai(stack: DeployedStack, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0)


def line(number: int) -> bytes:
    x = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [number, 0, 1]}
    asked = {"custom_id": str(number), "method": "POST", "url": INFER, "body": {"inputs": [x]}}
    return json.dumps(asked).encode() + b"\n"


@pytest.mark.parametrize("path", ["/v2", "/v2/models/double", "/v1/files", "/registry/models", "/v1/trainings"])
def test_a_route_wants_a_key(guarded: Guarded, path: str) -> None:
    stack = guarded.stack
    refused = stack.get(path)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert "pilotlight keys create" in refused.json()["message"]
    unknown = re.sub(r"_[^_].*", f"_{'a' * 12}_{'A' * 43}", guarded.infer, count=1)
    assert stack.get(path, key=unknown).status_code == 401
    wrong = guarded.infer[:-1] + ("A" if guarded.infer[-1] != "A" else "B")
    assert stack.get(path, key=wrong).status_code == 401


def test_a_meter_opens_nothing(guarded: Guarded) -> None:
    gateway = boto3.client("apigateway")
    meters = [one["value"] for one in gateway.get_api_keys(includeValues=True)["items"]]
    tenant = gateway.get_api_key(apiKey=read_outputs(TENANT_STACK)["Key"], includeValue=True)["value"]
    assert tenant in meters
    for meter in (one for one in meters if not one.startswith("plk_")):
        for path in ("/v2", "/registry/models", "/v1/files"):
            assert guarded.stack.get(path, **{"x-api-key": meter}).status_code == 401
            assert guarded.stack.get(path, key=meter).status_code == 401


def test_a_key_opens_the_routes_of_its_scopes_alone(guarded: Guarded) -> None:
    get = guarded.stack.get
    assert get("/v2/models/double", key=guarded.infer).status_code == 200
    for path in ("/registry/models", "/v1/files", "/v1/trainings"):
        refused = get(path, key=guarded.infer)
        assert refused.status_code == 403
        assert "has not the scope" in refused.json()["message"]
        assert get(path, key=guarded.stack.key).status_code != 403


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_tritonclient_sends_a_key_in_either_header(guarded: Guarded, header: str) -> None:
    key = guarded.infer if header == "x-api-key" else f"Bearer {guarded.infer}"
    assert ask_triton(guarded.stack.url, {header: key}) == [2, 0, 2]
    with pytest.raises(InferenceServerException):
        ask_triton(guarded.stack.url, {header: key[:-2]})


def test_our_client_takes_a_key(guarded: Guarded) -> None:
    with Client(guarded.stack.url, key=guarded.infer) as client:
        assert client.infer("double", [X]).get_output("y").data == [2, 0, 2]


def test_a_tenant_has_files_and_batches_of_his_own(guarded: Guarded) -> None:
    """By the openai client, with IAM enforced on all that the functions do in the tenant's folders."""
    stack = guarded.stack
    with open_openai(stack, guarded.acme) as acme, open_openai(stack, guarded.rival) as rival:
        file = acme.files.create(file=("a.jsonl", b"".join(map(line, range(3)))), purpose="batch")
        batch = acme.batches.create(input_file_id=file.id, endpoint=INFER, completion_window="24h")
        fakes.eventually(lambda: acme.batches.retrieve(batch.id).status == "completed", 120)
        done = acme.batches.retrieve(batch.id)
        assert done.output_file_id is not None
        assert len(acme.files.content(done.output_file_id).text.splitlines()) == 3
        assert file.id in {one.id for one in acme.files.list()}
        assert batch.id in {one.id for one in acme.batches.list()}
        for theirs in (rival, open_openai(stack, stack.key)):
            assert file.id not in {one.id for one in theirs.files.list()}
            assert batch.id not in {one.id for one in theirs.batches.list()}
            files: tuple[Callable[[str], object], ...] = (
                theirs.files.retrieve, theirs.files.content, theirs.files.delete,
            )  # fmt: skip
            batches: tuple[Callable[[str], object], ...] = (theirs.batches.retrieve, theirs.batches.cancel)
            asked = [(ask, each) for ask in files for each in (file.id, done.output_file_id)]
            for ask, each in [*asked, *((ask, batch.id) for ask in batches)]:
                with pytest.raises(openai.NotFoundError):
                    ask(each)
            with pytest.raises(openai.APIStatusError):
                theirs.batches.create(input_file_id=file.id, endpoint=INFER, completion_window="24h")
        assert acme.files.delete(file.id).deleted
    own = [path for path in stack.store.list_paths("") if file.id in path or batch.id.removeprefix("batch_") in path]
    assert any(path.startswith("outbox/batches/tenant=acme/") for path in own)
    assert all("/tenant=acme/" in path for path in own if not path.startswith("keys/"))


def test_the_command_promotes_and_rolls_back_by_a_key(guarded: Guarded) -> None:
    """By the functions' own roles; the history has the name of the key."""
    stack, registry = guarded.stack, Registry(guarded.stack.store)
    for _ in range(2):
        fakes.publish(registry, "release")

    def run(*words: str, key: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PILOTLIGHT_KEY": key}
        command = [str(PILOTLIGHT), *words, "--url", stack.url]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    refused = run("promote", "release:2", key=guarded.infer)
    assert (refused.returncode, "has not the scope" in refused.stderr) == (1, True), refused
    promoted = run("promote", "release:2", key=stack.key)
    assert promoted.returncode == 0, promoted
    alias = registry.load_alias("release", "champion")
    assert (alias.version, alias.by) == (2, "operator")
    rolled_back = run("rollback", "release", key=stack.key)
    assert rolled_back.returncode == 0, rolled_back
    assert registry.load_alias("release", "champion").version == 1


def test_a_tenant_is_metered_and_locked_out_by_his_stack(guarded: Guarded) -> None:
    stack = guarded.stack
    assert stack.get("/v2/models/double", key=guarded.acme).status_code == 200
    given = {"Tenant": "acme", "Api": stack.outputs["ApiId"]}
    template = ROOT / "infra" / "tenant.yaml"
    sam_deploy(template, TENANT_STACK, **given, RateLimit="1", BurstLimit="1")
    answers = [stack.get("/v2/models/double", key=guarded.acme) for _ in range(8)]
    told = [(one.headers["retry-after"], one.json()) for one in answers if one.status_code == 429]
    assert told[:1] == [("1", {"message": "Too Many Requests"})]
    assert stack.get("/v2/models/double", key=guarded.infer).status_code == 200
    sam_deploy(template, TENANT_STACK, **given, Enabled="false")
    locked = stack.get("/v2/models/double", key=guarded.acme)
    assert (locked.status_code, "disabled" in locked.json()["message"]) == (403, True)


def test_the_doctor_passes_a_stack_with_keys(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = guarded.stack
    monkeypatch.setenv("PILOTLIGHT_KEY", stack.key)
    found = {one.check: one for one in check_server(stack.url, stack.store_url, deep=True)}
    assert {name for name, one in found.items() if one.state == "fails"} == set(), found
    monkeypatch.delenv("PILOTLIGHT_KEY")
    without = {one.check: one for one in check_server(stack.url, None, deep=False)}
    assert without["live"].state == "fails"
    assert "PILOTLIGHT_KEY" in without["live"].said


def test_revoked_and_rotated_keys_open_nothing_after_a_minute(guarded: Guarded) -> None:
    """The last of the keys' tests, since the others take most of that minute. Other keys go on all the time."""
    stack = guarded.stack

    def are_dead() -> bool:
        for key in (guarded.infer, guarded.successor):
            assert stack.get("/v2/models/double", key=key).status_code == 200
        former = (guarded.revoked, guarded.rotated)
        return {stack.get("/v2/models/double", key=key).status_code for key in former} == {401}

    fakes.eventually(are_dead, FORGOTTEN_S)


@pytest.fixture(scope="module")
def other(deploy: Callable[..., DeployedStack]) -> DeployedStack:
    """A stack with Auth=open, and a model."""
    stack = deploy("pilotlight-three", Auth="open")
    fakes.publish(Registry(stack.store))
    return stack


def test_open_lets_anybody_call_models_and_nothing_else(other: DeployedStack) -> None:
    assert ask_triton(other.url, {}) == [2, 0, 2]
    for path in ("/registry/models", "/v1/files", "/v1/trainings"):
        assert other.get(path).status_code == 401
        assert other.get(path, key=other.key).status_code != 401
    found = {one.check: one for one in check_server(other.url, None, deep=False)}
    assert {name for name, one in found.items() if one.state == "fails"} == set(), found


@dataclass(frozen=True)
class User:
    """An IAM user who may call models and nothing else."""

    key_id: str
    secret: str

    def set_environment(self, monkeypatch: pytest.MonkeyPatch, secret: str | None = None) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", self.key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret or self.secret)


@pytest.fixture(scope="module")
def signed(other: DeployedStack) -> DeployedStack:
    """That stack after its update to Auth=iam, by the name of its API, which signatures cover."""
    sam_deploy(BUILT, other.name, AccessLogs="off", Auth="iam")
    stack = DeployedStack(other.name)
    assert stack.outputs == other.outputs
    port = httpx2.URL(os.environ["AWS_ENDPOINT_URL"]).port
    stack.url = f"http://{stack.outputs['ApiId']}.execute-api.localhost:{port}/prod"
    return stack


@pytest.fixture(scope="module")
def user(signed: DeployedStack) -> User:
    iam = boto3.client("iam")
    iam.create_user(UserName="caller")
    routes = f"arn:aws:execute-api:*:*:{signed.outputs['ApiId']}/prod/*/v2/*"
    statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": routes}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="caller", PolicyName="models", PolicyDocument=policy)
    made = iam.create_access_key(UserName="caller")["AccessKey"]
    return User(made["AccessKeyId"], made["SecretAccessKey"])


@pytest.fixture(autouse=True)
def localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names below .localhost are this machine (RFC 6761), which not every resolver knows."""
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *more: Any, **options: Any) -> Any:  # noqa: ANN401 - socket's own
        return resolve("127.0.0.1" if str(host).endswith(".localhost") else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)


def ask_signed(stack: DeployedStack) -> list[float]:
    """Ask by our client, which signs once the server says that it wants that."""
    with Client(stack.url, auth=OfferedIamAuth(stack.url)) as client:
        return list(client.infer("double", [X]).get_output("y").data)


@needs_iam
def test_iam_wants_signatures_and_our_client_signs(
    signed: DeployedStack, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/v2/models/double", "/registry/models", "/v1/files"):
        unsigned = signed.get(path)
        assert (unsigned.status_code, unsigned.headers["www-authenticate"]) == (404, "AWS4-HMAC-SHA256")
        assert signed.get(path, key=f"plk_{'a' * 12}_{'A' * 43}").status_code in (401, 403)
    user.set_environment(monkeypatch)
    assert ask_signed(signed) == [2, 0, 2]


@needs_iam
def test_what_botocore_signs_by_itself_is_taken(signed: DeployedStack, user: User) -> None:
    """As any client of AWS signs, which knows nothing of Pilotlight."""
    url, body = f"{signed.url}{INFER}", json.dumps(callers.X)
    asked = AWSRequest("POST", url, data=body, headers={"content-type": "application/json"})
    SigV4Auth(Credentials(user.key_id, user.secret), "execute-api", "us-east-1").add_auth(asked)
    answered = httpx2.post(url, content=body, headers=dict(asked.headers), timeout=60)
    assert answered.json()["outputs"][0]["data"] == [2, 0, 2]
    changed = httpx2.post(url, content=body.replace("1", "2"), headers=dict(asked.headers), timeout=60)
    assert changed.status_code == 403


@needs_iam
def test_iam_refuses_what_no_policy_allows_and_a_wrong_secret(
    signed: DeployedStack, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.set_environment(monkeypatch)
    with (
        Client(signed.url, auth=OfferedIamAuth(signed.url)) as client,
        pytest.raises(PilotlightError, match=r"not authorized to perform: execute-api:Invoke"),
    ):
        client.registry.list_models()
    user.set_environment(monkeypatch, secret="x" * 40)
    with pytest.raises(PilotlightError, match="The request signature we calculated does not match"):
        ask_signed(signed)
