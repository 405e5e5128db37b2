"""Routes that stream, on a deployed stack: by our runtime client in AWS's Runtime Interface Emulator.

It takes the streamed answers and gives them whole, so this shows the wrapper, the layers and the form of the answers.
"""

from tests.e2e.deploy.conftest import DeployedStack


def test_an_answer_comes_through_with_its_status_and_headers(stacks: tuple[DeployedStack, DeployedStack]) -> None:
    listed = stacks[0].call("GET", "/v1/models")
    assert (listed.status_code, listed.json()["object"]) == (200, "list")
    assert listed.headers["content-type"] == "application/json"
    assert listed.headers["x-correlation-id"]


def test_a_refusal_comes_in_openais_form(stacks: tuple[DeployedStack, DeployedStack]) -> None:
    body = {"model": "absent", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    refused = stacks[0].call("POST", "/v1/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
