"""Publishing over HTTP onto a deployed stack: by who has a key, and no rights in the account.

The emulator's S3 checks the hash that a presigned URL carries, as S3 does, and not the signature itself: that S3
refuses a changed URL is for AWS to show.
"""

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pilotlight.client import Client
from pilotlight.errors import ConflictError, UnavailableError
from pilotlight.registry.registry import Registry
from tests import fakes
from tests.e2e.deploy.conftest import PILOTLIGHT, DeployedStack

DOUBLE = Path(__file__).parents[2] / "models" / "double.onnx"
GRAPH = fakes.graph("double")
CARD = b"# laptop\n"
FILES: Mapping[str, bytes] = {"model.onnx": GRAPH, "card.md": CARD}
GATE_S = 180  # in which the event of a version has reached the gate, and the gate has ended, on a busy machine


@pytest.fixture(scope="module")
def stack(stacks: tuple[DeployedStack, DeployedStack]) -> DeployedStack:
    return stacks[0]


@pytest.fixture(scope="module")
def publisher(stack: DeployedStack) -> str:
    """The key of a publisher."""
    return stack.create_key("laptop", "admin")


@pytest.fixture
def client(stack: DeployedStack, publisher: str) -> Iterator[Client]:
    with Client(stack.url, key=publisher, timeout_s=60) as opened:
        yield opened


def without_credentials(key: str) -> dict[str, str]:
    """The variables of a machine that knows a key, and nothing of AWS."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**own, "PILOTLIGHT_KEY": key, "AWS_EC2_METADATA_DISABLED": "true"}


def run_publish(stack: DeployedStack, name: str, key: str) -> subprocess.CompletedProcess[str]:
    command = [str(PILOTLIGHT), "publish", str(DOUBLE), "--name", name, "--url", stack.url]
    return subprocess.run(command, env=without_credentials(key), capture_output=True, text=True, check=False)


def announce(client: Client, name: str) -> Any:  # noqa: ANN401 - VersionUpload, whose presigned may be None
    return client.registry.announce_version(fakes.draft(name), FILES)


def put(signed: Any, data: bytes, **headers: str) -> int:  # noqa: ANN401 - PresignedUpload
    return httpx2.put(signed.url, content=data, headers={**signed.headers, **headers}, timeout=60).status_code


def test_a_laptop_with_a_key_publishes_and_the_gate_hears_of_it(stack: DeployedStack, publisher: str) -> None:
    """From the command to a verdict and a prediction; the machine has no credentials of AWS."""
    ran = run_publish(stack, "laptop", publisher)
    assert (ran.returncode, ran.stdout) == (0, "laptop:1\n"), ran.stderr
    manifest = Registry(stack.store).load_manifest("laptop", 1)
    assert manifest.by == "laptop"
    verdict = "/registry/models/laptop/versions/1/verdict"
    fakes.eventually(lambda: stack.call("GET", verdict).status_code == 200, GATE_S)
    assert stack.call("GET", verdict).json()["passed"] is True
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 1]}]}
    answer = stack.call("POST", "/v2/models/laptop/infer", json=body)
    assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [2.0, 0.0, 2.0])


def test_the_files_are_those_of_a_publisher_with_rights_in_the_bucket(stack: DeployedStack, client: Client) -> None:
    over_http = client.registry.publish(fakes.draft("twice"), FILES)
    direct = Registry(stack.store).publish_version(fakes.draft("twice"), FILES)
    assert over_http.files == direct.files
    listed = {path.partition("/versions/")[2] for path in stack.store.list_paths("models/twice/versions")}
    expected = {"claim.json", "manifest.json", *FILES}
    assert listed == {f"{version}/{name}" for version in (1, 2) for name in expected}
    assert client.registry.get_alias("twice", "candidate").version == 2


def test_nothing_but_what_was_announced_goes_through_a_url(stack: DeployedStack, client: Client) -> None:
    upload = announce(client, "guarded")
    card, graph = (file.presigned for file in upload.files)
    assert put(graph, GRAPH[:-1] + b"!") == 400
    with pytest.raises(ConflictError, match=r"guarded:1 is not complete: card\.md, model\.onnx of its 2 files"):
        client.registry.commit_version("guarded", 1)
    assert put(graph, GRAPH) == 200
    assert put(graph, GRAPH) == 412
    assert put(card, CARD) == 200
    assert stack.call("GET", "/registry/models/guarded/versions/1").status_code == 404
    with ThreadPoolExecutor(2) as threads:
        racing = list(threads.map(lambda _: client.registry.commit_version("guarded", 1), range(2)))
    assert racing[0] == racing[1] == client.registry.commit_version("guarded", 1)
    assert [file.sha256 for file in racing[0].files] == [hashlib.sha256(data).hexdigest() for data in (CARD, GRAPH)]


def test_a_url_without_the_header_that_keeps_it_from_replacing_is_refused(client: Client) -> None:
    """By the bucket's policy and the role's, whoever signs."""
    graph = announce(client, "replaced").files[1].presigned
    bare = {name: value for name, value in graph.headers.items() if name != "if-none-match"}
    assert httpx2.put(graph.url, content=GRAPH, headers=bare, timeout=60).status_code == 403


@pytest.mark.parametrize(("scopes", "options"), [("infer,batch,train", ()), ("infer,batch", ("--tenant", "acme"))])
def test_other_keys_publish_nothing(stack: DeployedStack, scopes: str, options: tuple[str, ...]) -> None:
    meter = ("--plan", stack.outputs["UsagePlan"]) if options else ()
    key = stack.create_key(f"no-publisher-{len(options)}", scopes, *options, *meter)
    with Client(stack.url, key=key, timeout_s=60) as other:
        with pytest.raises(UnavailableError, match="has not the scope"):
            announce(other, "forbidden")
        with pytest.raises(UnavailableError, match="has not the scope"):
            other.registry.commit_version("laptop", 1)
    ran = run_publish(stack, "forbidden", key)
    assert (ran.returncode, "has not the scope" in ran.stderr) == (1, True)
    assert not list(stack.store.list_paths("models/forbidden"))


def test_a_publisher_does_not_approve_his_own_version(stack: DeployedStack, client: Client, publisher: str) -> None:
    client.registry.publish(fakes.draft("judged"), FILES)
    path, body = "/registry/models/judged/versions/1/approval", {"state": "approved", "why": "it is mine"}
    sent = {"authorization": f"Bearer {publisher}"}
    assert httpx2.put(f"{stack.url}{path}", json=body, headers=sent, timeout=60).status_code == 409
    assert stack.call("PUT", path, json=body).status_code == 200  # by the operator's key
