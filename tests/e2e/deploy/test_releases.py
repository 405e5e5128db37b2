"""From a published version to the champion, by events alone: gate, signature of KMS, canary, approval.

The stack signs what passes the gate with a key of KMS, and tries it on half of the requests. The canary's time is a
second, and the clock that ends it is set from five minutes to one, the shortest that EventBridge has.
"""

import base64
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import boto3
import httpx2
import pytest

from pilotlight.contracts.alias import AliasDocument
from pilotlight.gate.verdict import verdict_path
from pilotlight.registry.kms import KmsSigner
from pilotlight.registry.registry import Registry
from tests import fakes
from tests.e2e.deploy.conftest import BUILT, PILOTLIGHT, DeployedStack, read_alarm, sam_deploy, set_schedule
from tests.language_model_versions import publish_scripted

NAN_INPUT = [-1.0, -1.0, -1.0]  # of which the model `logarithm` gives NaN, and `double` numbers
FOLLOWED_S = 90  # within which a warm function follows an alias, on a busy machine


@dataclass(frozen=True)
class Signing:
    """A stack that serves signed versions alone, and its parameters."""

    stack: DeployedStack
    parameters: dict[str, str]

    @property
    def registry(self) -> Registry:
        """Its registry, as a publisher reaches it."""
        return Registry(self.stack.store)

    def load_champion(self, name: str) -> AliasDocument:
        """Load what the champion of a model is now."""
        return self.registry.load_alias(name, "champion")

    def find_canary(self, name: str) -> int | None:
        """Find which version is tried on the callers of a model's champion; None without one."""
        canary = self.load_champion(name).canary
        return canary.version if canary else None

    def infer(self, name: str, row: list[float], version: int | None = None) -> httpx2.Response:
        """Ask a model over HTTP."""
        x = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": row}
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "")
        return self.stack.call("POST", f"{path}/infer", json={"inputs": [x]})

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command against its URL."""
        environment = {**os.environ, "PILOTLIGHT_KEY": self.stack.key}
        command = [str(PILOTLIGHT), *words, "--url", self.stack.url]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def signing(deploy: Callable[..., DeployedStack]) -> Signing:
    key, public_key = create_key()
    signed = {"SigningKey": key, "SigningPublicKey": public_key}
    parameters = {**signed, "Promotion": "canary:50:1s", "MonitoringLevel": "full"}
    return Signing(deploy("pilotlight-releases", **parameters), parameters)


def create_key() -> tuple[str, str]:
    """Create an RSA key of KMS, and return its ARN and its public key."""
    kms = boto3.client("kms")
    key = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    return key, base64.b64encode(kms.get_public_key(KeyId=key)["PublicKey"]).decode()


def test_what_the_gate_passes_is_signed_and_served(signing: Signing) -> None:
    fakes.publish(signing.registry)
    fakes.eventually(lambda: signing.stack.has("signatures/double/1.json"), 180)
    signature = json.loads(signing.stack.store.get("signatures/double/1.json").data)
    assert (signature["key"], signature["by"]) == (signing.parameters["SigningKey"], "functions/promote")
    answer = signing.infer("double", [1, 0, 1])
    assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [2, 0, 2])


def test_a_language_model_that_the_gate_passes_is_signed_and_served(signing: Signing) -> None:
    """By its golden prompts, which the promote function has asked too."""
    publish_scripted(signing.registry, name="chat")
    fakes.eventually(lambda: signing.stack.has("signatures/chat/1.json"), 180)
    body = {"model": "chat", "messages": [{"role": "user", "content": "Capital?"}], "temperature": 0}
    answer = signing.stack.call("POST", "/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "Paris is the capital."


def test_what_is_not_signed_or_by_another_key_is_not_served(signing: Signing) -> None:
    """A first version is champion at once; that its golden requests are wrong, the gate says."""
    fakes.publish(signing.registry, "unsigned", golden=fakes.golden([1, 0, 1], [9, 9, 9]))
    fakes.eventually(lambda: signing.stack.has(verdict_path("unsigned", 1)), 180)
    unsigned = signing.infer("unsigned", [1, 0, 1])
    other, _ = create_key()
    signing.registry.sign_manifest("unsigned", 1, KmsSigner(other), actor="mallory")
    foreign = signing.infer("unsigned", [1, 0, 1])
    assert (unsigned.status_code, foreign.status_code) == (503, 503)
    assert "is refused: it is not signed" in unsigned.text, unsigned.text
    assert "is refused: its signature was not made" in foreign.text, foreign.text
    fakes.eventually(lambda: read_alarm(signing.stack, "Refused") == "ALARM", 60)


def test_a_canary_that_held_is_promoted_by_the_clock(signing: Signing) -> None:
    set_schedule(signing.stack, "Promote", "rate(1 minute)")
    try:
        fakes.publish(signing.registry)
        fakes.eventually(lambda: signing.load_champion("double").version == 2, 240)
    finally:
        set_schedule(signing.stack, "Promote", "rate(5 minutes)")
    history = signing.stack.call("GET", "/registry/models/double/aliases/champion/history").json()
    tried, promoted = history[-2:]
    assert (tried["version"], tried["canary"]["version"], tried["by"]) == (1, 2, "functions/promote")
    assert (promoted["version"], promoted.get("canary"), promoted["by"]) == (2, None, "functions/promote")


def test_a_canary_that_fails_is_stopped_for_all_of_them(signing: Signing) -> None:
    """By a line in the log of one environment, which a filter brings to the promote function; it was signed by hand."""
    fakes.publish(signing.registry, of="logarithm")
    fakes.eventually(lambda: signing.stack.has(verdict_path("double", 3)), 180)
    signing.registry.sign_manifest("double", 3, KmsSigner(signing.parameters["SigningKey"]), actor="ann")
    canary = {"version": "3", "percent": 50, "bake": "1h", "why": "a trial"}
    started = signing.stack.call("POST", "/registry/models/double/aliases/champion/canary", json=canary)
    assert started.status_code == 200, started.text

    def is_stopped() -> bool:
        answers = [signing.infer("double", NAN_INPUT) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        assert {tuple(answer.json()["outputs"][0]["data"]) for answer in answers} == {(-2, -2, -2)}
        return signing.find_canary("double") is None

    fakes.eventually(is_stopped, FOLLOWED_S)
    document = signing.load_champion("double")
    assert (document.version, document.by) == (2, "functions/promote")
    assert document.reason.startswith("canary 3 failed:")
    fakes.eventually(lambda: read_alarm(signing.stack, "RolledBack") == "ALARM", 60)
    said = signing.run("history", "double")
    assert (said.returncode, "canary 3 failed" in said.stdout) == (0, True), said


def test_a_stack_without_training_says_what_to_do(signing: Signing) -> None:
    recipe = {"recipe": "digits", "run": "first"}
    refused = signing.stack.call("POST", "/v1/trainings", json=recipe)
    assert (refused.status_code, "TrainingSubnets" in refused.json()["error"]["message"]) == (501, True), refused.text


@pytest.fixture
def approving(signing: Signing) -> Signing:
    """The stack after its update to Approval=required."""
    sam_deploy(BUILT, signing.stack.name, AccessLogs="off", Approval="required", **signing.parameters)
    return signing


def test_what_nobody_approved_is_not_promoted(approving: Signing) -> None:
    fakes.publish(approving.registry)
    refused = approving.run("promote", "double:4")
    assert refused.returncode == 1
    assert "approv" in refused.stderr, refused
    version = "/registry/models/double/versions/4"
    approved = approving.stack.call("PUT", f"{version}/approval", json={"state": "approved", "why": "good"})
    assert approved.status_code == 200
    promoted = approving.run("promote", "double:4")
    assert promoted.returncode == 0, promoted
    assert approving.load_champion("double").version == 4
