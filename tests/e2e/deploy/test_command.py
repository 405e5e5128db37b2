"""`pilotlight deploy`, `logs`, `open` and `destroy` from this checkout, by the real SAM CLI.

The URL that the stack gives itself, https://ID.execute-api..., leads to AWS and not to the emulator; so the command is
given another one, as for a domain of one's own, of a proxy that knows the API's id once there is one. The seconds are
printed at the end of each test that measures some (`pytest -rP` shows them).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest

from pilotlight.api_keys.key_store import KeyStore
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.doctor.broken_servers import Asked, Next, Told, running
from tests.e2e.deploy.conftest import PILOTLIGHT, ROOT, USAGE, read_outputs

NAME = "pilotlight-command"
# A shell has what it starts in the background ignore Ctrl-C, and so everything below that, these tests too.
LISTENING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "pilotlight"
from pilotlight.cli import app
app()
"""
ROW = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 0, 1]}]}


class StackDoor:
    """Passes requests on to the API of the stack, whose id is known once it is deployed."""

    def __call__(self, asked: Asked, onward: Next) -> Told:
        return onward(asked._replace(path=f"/_aws/execute-api/{self._api}{asked.path}"))

    @cached_property
    def _api(self) -> str:
        return read_outputs(NAME)["ApiId"]


@dataclass(frozen=True)
class Command:
    """The command in this checkout, with a configuration folder of the test's own."""

    url: str
    environment: dict[str, str]

    def run(self, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(PILOTLIGHT), *words]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, input=typed, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def command(emulator: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    folder = tmp_path_factory.mktemp("config")
    hidden = ("PILOTLIGHT_KEY", "PILOTLIGHT_TOKEN", "PILOTLIGHT_AUTH", "PILOTLIGHT_URL", "PILOTLIGHT_STORE")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    with running(emulator, StackDoor()) as (url, _):
        yield Command(f"{url}/prod", {**kept, "XDG_CONFIG_HOME": str(folder)})


@pytest.fixture(scope="module")
def deployed(command: Command, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What `pilotlight deploy` says of a stack that it has made."""
    began = time.monotonic()
    ran = command.run("deploy", "--stack-name", NAME, "--url", command.url, "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    print(f"pilotlight deploy: {time.monotonic() - began:.0f} s\n{ran.stderr}")  # noqa: T201 - the measure
    request.config.stash[USAGE][1].add(NAME)
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def test_a_deploy_ends_with_a_stack_that_the_doctor_passes(deployed: dict[str, Any], command: Command) -> None:
    states = {one["check"]: one["state"] for one in deployed["checks"]}
    assert "fails" not in states.values()
    assert states["keys"] == states["registry"] == states["routes"] == states["live"] == "passes"
    assert (deployed["url"], deployed["region"]) == (command.url, "us-east-1")
    file = Path(command.environment["XDG_CONFIG_HOME"], "pilotlight", "stacks.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["current"] == NAME


def test_what_it_prints_next_works_by_the_stacks_name(
    deployed: dict[str, Any], command: Command, tmp_path: Path
) -> None:
    fakes.publish(Registry(open_store(f"s3://{deployed['bucket']}")))
    (tmp_path / "row.json").write_text(json.dumps(ROW))
    words = ("predict", "double", "--input", str(tmp_path / "row.json"), "--url", NAME)
    # On a busy machine containers may take longer to start than the client waits.
    fakes.eventually(lambda: command.run(*words).returncode == 0, 180)
    assert command.run(*words).stdout == "double:1\ny FP32 [1, 3]: 2, 0, 2\n"


def test_another_deploy_updates_and_creates_no_second_key(deployed: dict[str, Any], command: Command) -> None:
    began = time.monotonic()
    ran = command.run("deploy", "--no-build", "--parameter", "RateLimit=30", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    print(f"pilotlight deploy --no-build: {time.monotonic() - began:.0f} s")  # noqa: T201 - the measure
    again = json.loads(ran.stdout)
    assert (again["stack"], again["key"], again["url"]) == (NAME, None, command.url)
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=NAME)["Stacks"]
    values = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
    assert (values["RateLimit"], values["AccessLogs"], values["Auth"]) == ("30", "off", "keys")
    keys, broken = KeyStore(open_store(f"s3://{again['bucket']}")).list_keys()
    assert (len(keys), broken) == (1, [])


def test_what_it_cannot_do_is_refused_before_anything_is_touched(deployed: dict[str, Any], command: Command) -> None:
    ran = command.run("deploy", "--parameter", "RateLmit=30", "--parameter", "AccessLogs=account")
    assert ran.returncode == 1
    assert "'RateLmit' is no parameter; did you mean RateLimit?" in ran.stderr
    assert "API Gateway has no role for logs here; say create, or off" in ran.stderr
    assert "Nothing was built or deployed: see parameters, access logs." in ran.stderr


def test_logs_are_shown_and_followed(deployed: dict[str, Any], command: Command, tmp_path: Path) -> None:
    shown = command.run("logs", "predict", "--since", "1h")
    assert (shown.returncode, "  Predict  INFO   " in shown.stdout) == (0, True), shown
    assert "model=double" in shown.stdout
    with (tmp_path / "followed").open("w") as output:
        words = ["logs", "predict", "--follow", "--since", "1s", "--grep", "followed-call"]
        program = [sys.executable, "-c", LISTENING, *words]
        process = subprocess.Popen(program, cwd=ROOT, env=command.environment, stdout=output)
    try:
        fakes.eventually(lambda: call_with_id(command, "followed-call") and "followed-call" in read(output.name), 60)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT


def call_with_id(command: Command, correlation_id: str) -> bool:
    """Call the predict function, which notes the caller's own id in its log; true, so that it can be called again."""
    key = json.loads(Path(command.environment["XDG_CONFIG_HOME"], "pilotlight", "stacks.json").read_text())
    headers = {"authorization": f"Bearer {key['stacks'][0]['key']}", "x-correlation-id": correlation_id}
    answer = httpx2.post(f"{command.url}/v2/models/double/infer", json=ROW, headers=headers, timeout=60)
    return answer.status_code == 200


def read(path: str) -> str:
    return Path(path).read_text()


def test_a_page_is_named_where_no_browser_is(deployed: dict[str, Any], command: Command) -> None:
    ran = command.run("open", "logs")
    assert ran.returncode == 0, ran
    assert ran.stdout.strip().endswith(f"logGroupNameFilter$3D{NAME}")


def test_destroy_removes_the_stack_and_at_a_word_everything(deployed: dict[str, Any], command: Command) -> None:
    """The last test of this file."""
    refused = command.run("destroy", typed="n\n")
    assert (refused.returncode, "Delete the stack?" in refused.stderr) == (1, True), refused
    assert deployed["bucket"] in refused.stderr
    began = time.monotonic()
    ran = command.run("destroy", "--everything", "--json", typed=f"{NAME}\n")
    assert ran.returncode == 0, ran
    print(f"pilotlight destroy --everything: {time.monotonic() - began:.0f} s")  # noqa: T201 - the measure
    assert json.loads(ran.stdout)["left"] == []
    cloudformation = boto3.client("cloudformation")
    with pytest.raises(cloudformation.exceptions.ClientError, match="does not exist"):
        cloudformation.describe_stacks(StackName=NAME)
    assert deployed["bucket"] not in [one["Name"] for one in boto3.client("s3").list_buckets()["Buckets"]]
    gone = command.run("destroy", "--stack-name", NAME)
    assert (gone.returncode, f"There is no stack '{NAME}'" in gone.stderr) == (1, True), gone
