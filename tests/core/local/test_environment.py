"""How an environment is started; what becomes of it is told by the tests of the gateway."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pilotlight.local.environment import AWS_CLIENT, OWN_CLIENT, Environment, EnvironmentSpec, find_runtime_client
from pilotlight.local.template import FunctionSpec, GatewayLimits

FUNCTION = FunctionSpec(
    "F", "handlers.handle", 512, 3, {"A": "template", "B": "template"}, (Path("/task"), Path("/layer"))
)
LAUNCH = EnvironmentSpec(FUNCTION, Path("/task"), "template.yaml", AWS_CLIENT, {"B": "caller"}, GatewayLimits())


def variables(launch: EnvironmentSpec = LAUNCH) -> dict[str, str]:
    return launch.build_variables("127.0.0.1:1", "/its/tmp")


def test_handlers_see_what_lambda_gives_them() -> None:
    given = variables()
    assert given["AWS_LAMBDA_RUNTIME_API"] == "127.0.0.1:1"
    assert given["PYTHONPATH"] == "/task:/layer"
    assert (given["A"], given["B"]) == ("template", "caller")
    assert given["TMPDIR"] == "/its/tmp"
    assert given["AWS_EXECUTION_ENV"] == "AWS_Lambda_python3.13"  # by which AWS's client does not escape "ü"


def test_little_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = {"AWS_PROFILE": "me", "PILOTLIGHT_STORE": "file:///store", "LC_ALL": "C", "HOME": "/home/me"}
    private = {
        "SECRET": "x",
        "PYTHONPATH": "/mine",
        "AWS_LAMBDA_FUNCTION_NAME": "outer",
        "AWS_LAMBDA_MAX_CONCURRENCY": "2",
    }
    for name, value in (inherited | private).items():
        monkeypatch.setenv(name, value)
    given = variables()
    assert given.items() >= inherited.items()
    assert not given.items() & private.items()


def test_the_shell_goes_over_the_template_and_the_command_line_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"PILOTLIGHT_MODEL": "", "PILOTLIGHT_STORE": "s3://template", "A": "template"}
    launch = replace(LAUNCH, function=replace(FUNCTION, environment=said), overrides={"PILOTLIGHT_STORE": "option"})
    for name in said:
        monkeypatch.setenv(name, "shell")
    assert (
        variables(launch).items()
        >= {
            "PILOTLIGHT_MODEL": "shell",
            "PILOTLIGHT_STORE": "option",
            "A": "template",  # no name of ours, so nothing of the shell's
        }.items()
    )


def test_region_is_kept_or_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert variables()["AWS_REGION"] == "us-east-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert variables()["AWS_REGION"] == "eu-west-1"
    assert LAUNCH.arn == "arn:aws:lambda:eu-west-1:123456789012:function:F"


def test_our_runtime_client_is_found_without_a_layer() -> None:
    path = variables(replace(LAUNCH, client=OWN_CLIENT))["PYTHONPATH"].split(":")
    assert path[:2] == ["/task", "/layer"]
    assert (Path(path[2]) / "pilotlight/runtime_client/__main__.py").exists()


def test_awss_client_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert find_runtime_client() == AWS_CLIENT
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert find_runtime_client() == OWN_CLIENT


def test_process_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    launch = replace(LAUNCH, root=tmp_path / "gone")

    async def run() -> str:
        return await Environment(launch, lambda _: None).run()

    assert asyncio.run(run()).startswith("F could not be started: ")


def test_environment_that_is_being_killed_takes_no_new_work() -> None:
    freed: list[Environment] = []
    environment = Environment(LAUNCH, freed.append)
    environment.on_next()
    assert freed == [environment]
    environment.end("timed out")
    environment.on_done()  # its answer was still on the way
    assert freed == [environment]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_environment_that_is_ended_before_it_has_begun(tmp_path: Path) -> None:
    async def run() -> str:
        environment = Environment(replace(LAUNCH, root=tmp_path, client=OWN_CLIENT), lambda _: None)
        environment.end("was not wanted")
        return await environment.run()

    assert asyncio.run(run()) == "F was not wanted"


def test_boto3_finds_the_gateway_and_credentials_are_made_up_only_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PILOTLIGHT_STORE", "file:///store")
    monkeypatch.setenv("HOME", str(tmp_path))
    near = replace(LAUNCH, gateway_url="http://127.0.0.1:8080")
    assert "AWS_ENDPOINT_URL_LAMBDA" not in variables()
    assert variables(near)["AWS_ENDPOINT_URL_LAMBDA"] == "http://127.0.0.1:8080"
    assert variables(near)["AWS_ACCESS_KEY_ID"] == "local"
    assert "AWS_ACCESS_KEY_ID" not in variables(replace(near, overrides={"PILOTLIGHT_STORE": "s3://models"}))
    assert "AWS_ACCESS_KEY_ID" not in variables(replace(near, overrides={"AWS_PROFILE": "me"}))
    (tmp_path / ".aws").mkdir()
    assert "AWS_ACCESS_KEY_ID" not in variables(near)


def test_operators_secret_is_no_variable_of_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTLIGHT_CONTROL_SECRET", "0123456789abcdef")
    assert "0123456789abcdef" not in variables().values()
