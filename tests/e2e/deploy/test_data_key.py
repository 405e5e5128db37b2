"""Every function that writes reads and writes under the key of `DataKey`, and who sends again is answered once."""

import json
from typing import Any

import pytest

from pilotlight.gate.verdict import verdict_path
from pilotlight.registry.registry import Registry
from tests import fakes
from tests.e2e.deploy.conftest import DeployedStack
from tests.language_model_versions import publish_scripted

MODEL = "keyed"
RESULT = f"outbox/{MODEL}/again.jsonl"


def line(number: int) -> bytes:
    x = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [number, 0, 1]}
    return json.dumps({"inputs": [x]}).encode() + b"\n"


@pytest.fixture(scope="module")
def judged(captured: DeployedStack) -> DeployedStack:
    """The stack, once its gate has judged the second version of a model."""
    for _ in range(2):
        fakes.publish(Registry(captured.store), MODEL)
    fakes.eventually(lambda: captured.has(verdict_path(MODEL, 2)), 180)
    return captured


def test_the_registry_reads_and_writes_under_the_key(judged: DeployedStack) -> None:
    version = f"/registry/models/{MODEL}/versions/2"
    assert judged.call("GET", f"{version}/verdict").json()["passed"] is True
    approval: dict[str, Any] = {"state": "approved", "why": "good"}
    assert judged.call("PUT", f"{version}/approval", json=approval).status_code == 200


def test_a_language_model_is_read_under_the_key(judged: DeployedStack) -> None:
    publish_scripted(Registry(judged.store), name="chat")
    body = {"model": "chat", "messages": [{"role": "user", "content": "Capital?"}], "temperature": 0}
    answer = judged.call("POST", "/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "Paris is the capital."


def test_a_file_that_is_sent_again_is_one_file(judged: DeployedStack) -> None:
    def upload(content: bytes) -> Any:  # noqa: ANN401 - JSON
        form = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", content)}}
        key = {"authorization": f"Bearer {judged.key}", "idempotency-key": "monday"}
        return judged.call("POST", "/v1/files", headers=key, **form)

    first, again, other = upload(line(1)), upload(line(1)), upload(line(2))
    assert (first.status_code, again.json()["id"]) == (200, first.json()["id"]), first.text
    assert other.status_code == 409, other.text
    content = judged.call("GET", f"/v1/files/{first.json()['id']}/content")
    assert content.content == line(1)


def test_a_file_of_the_inbox_that_is_replaced_is_answered_anew(judged: DeployedStack) -> None:
    path = f"inbox/{MODEL}/again.jsonl"
    judged.store.put(path, line(1))
    fakes.eventually(lambda: read_results(judged) == [[2, 0, 2]], 180)
    judged.store.put(path, line(2) + line(3))
    fakes.eventually(lambda: read_results(judged) == [[4, 0, 2], [6, 0, 2]], 180)


def read_results(stack: DeployedStack) -> list[list[float]]:
    """Read what the lines of the file are answered with; nothing while there is no result."""
    if not stack.has(RESULT):
        return []
    lines = stack.store.get(RESULT).data.splitlines()
    return [json.loads(text)["outputs"][0]["data"] for text in lines]
