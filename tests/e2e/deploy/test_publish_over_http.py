"""Publishing over HTTP onto a deployed stack: by who has a key, and no rights in the account.

The emulator's S3 checks signature, size and hash of a presigned request as S3 does. Its URLs name this machine as the
containers of functions call it, and S3 has one name for all; so that name is resolved here too.
"""

import hashlib
import os
import socket
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
CONTAINERS_NAME = "host.docker.internal"  # of this machine, in the containers whose functions presign URLs
RESOLVER = f"""
import socket

resolve = socket.getaddrinfo


def getaddrinfo(host, *more, **named):
    return resolve("127.0.0.1" if host in ({CONTAINERS_NAME!r}, b{CONTAINERS_NAME!r}) else host, *more, **named)


socket.getaddrinfo = getaddrinfo
"""
GATE_S = 180  # in which the event of a version has reached the gate, and the gate has ended, on a busy machine


@pytest.fixture(scope="module")
def stack(stacks: tuple[DeployedStack, DeployedStack]) -> DeployedStack:
    return stacks[0]


@pytest.fixture(scope="module")
def publisher(stack: DeployedStack) -> str:
    """The key of a publisher."""
    return stack.create_key("laptop", "admin")


@pytest.fixture(scope="module", autouse=True)
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Resolve the containers' name of this machine, here and in the commands that have this folder on their path."""
    folder = tmp_path_factory.mktemp("resolver")
    (folder / "sitecustomize.py").write_text(RESOLVER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.getaddrinfo", socket.getaddrinfo)  # what it is now is put back
        exec(RESOLVER, {})  # noqa: S102 - the same as in the commands
        yield folder


@pytest.fixture
def client(stack: DeployedStack, publisher: str) -> Iterator[Client]:
    with Client(stack.url, key=publisher, timeout_s=60) as opened:
        yield opened


def run_publish(stack: DeployedStack, name: str, key: str, resolver: Path) -> subprocess.CompletedProcess[str]:
    """Run the command on a machine that knows a key, and nothing of AWS."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    variables = {**own, "PILOTLIGHT_KEY": key, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONPATH": str(resolver)}
    command = [str(PILOTLIGHT), "publish", str(DOUBLE), "--name", name, "--url", stack.url]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def announce(client: Client, name: str) -> Any:  # noqa: ANN401 - VersionUpload, whose presigned may be None
    return client.registry.announce_version(fakes.draft(name), FILES)


def put(signed: Any, data: bytes, **headers: str) -> int:  # noqa: ANN401 - PresignedUpload
    return httpx2.put(signed.url, content=data, headers={**signed.headers, **headers}, timeout=60).status_code


def test_a_laptop_with_a_key_publishes_and_the_gate_hears_of_it(
    stack: DeployedStack, publisher: str, resolver: Path
) -> None:
    """The first version answers at once, the second when the gate has passed it; the laptop knows nothing of AWS."""
    for version in (1, 2):
        ran = run_publish(stack, "laptop", publisher, resolver)
        assert (ran.returncode, ran.stdout) == (0, f"laptop:{version}\n"), ran.stderr
    assert Registry(stack.store).load_manifest("laptop", 2).by == "laptop"
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 1]}]}
    answer = stack.call("POST", "/v2/models/laptop/infer", json=body)
    assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [2.0, 0.0, 2.0])
    verdict = "/registry/models/laptop/versions/2/verdict"
    fakes.eventually(lambda: stack.call("GET", verdict).status_code == 200, GATE_S)
    assert stack.call("GET", verdict).json()["passed"] is True


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


def test_a_url_cannot_be_used_for_another_place(client: Client) -> None:
    graph = announce(client, "moved").files[1].presigned
    for other in ("versions/1/card.md", "versions/2/model.onnx", "versions/1/approval.json"):
        moved = type(graph)(
            url=graph.url.replace("versions/1/model.onnx", other), headers=graph.headers, expires_at=graph.expires_at
        )
        assert put(moved, GRAPH) == 403


def test_a_url_without_the_header_that_keeps_it_from_replacing_is_refused(client: Client) -> None:
    """By the bucket's policy and the role's, whoever signs."""
    graph = announce(client, "replaced").files[1].presigned
    bare = {name: value for name, value in graph.headers.items() if name != "if-none-match"}
    assert httpx2.put(graph.url, content=GRAPH, headers=bare, timeout=60).status_code == 403


@pytest.mark.parametrize(("scopes", "options"), [("infer,batch,train", ()), ("infer,batch", ("--tenant", "acme"))])
def test_other_keys_publish_nothing(
    stack: DeployedStack, resolver: Path, scopes: str, options: tuple[str, ...]
) -> None:
    meter = ("--plan", stack.outputs["UsagePlan"]) if options else ()
    key = stack.create_key(f"no-publisher-{len(options)}", scopes, *options, *meter)
    with Client(stack.url, key=key, timeout_s=60) as other:
        with pytest.raises(UnavailableError, match="has not the scope"):
            announce(other, "forbidden")
        with pytest.raises(UnavailableError, match="has not the scope"):
            other.registry.commit_version("laptop", 1)
    ran = run_publish(stack, "forbidden", key, resolver)
    assert (ran.returncode, "has not the scope" in ran.stderr) == (1, True)
    assert not list(stack.store.list_paths("models/forbidden"))


def test_a_publisher_does_not_approve_his_own_version(stack: DeployedStack, client: Client, publisher: str) -> None:
    client.registry.publish(fakes.draft("judged"), FILES)
    path, body = "/registry/models/judged/versions/1/approval", {"state": "approved", "why": "it is mine"}
    sent = {"authorization": f"Bearer {publisher}"}
    assert httpx2.put(f"{stack.url}{path}", json=body, headers=sent, timeout=60).status_code == 409
    assert stack.call("PUT", path, json=body).status_code == 200  # by the operator's key
