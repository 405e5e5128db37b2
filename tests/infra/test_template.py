"""What the template promises, checked without deploying it."""

import importlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from pilotlight.api.routes import SCOPES
from pilotlight.local import template
from pilotlight.openapi import OPERATIONS

ROOT = Path(__file__).parents[2]
TOKENS = {"Auth": "jwt", "JwtIssuer": "https://issuer.example.com", "JwtAudience": "pilotlight"}
STACK = template.load_stack(ROOT / "template.yaml", TOKENS)  # the mode that has all functions


def resources(file: str) -> dict[str, Any]:
    """What a template makes, by name."""
    return dict(cfn_yaml.load(str(ROOT / file))["Resources"])


def functions(made: dict[str, Any]) -> dict[str, Any]:
    """The functions among it."""
    return {name: body for name, body in made.items() if body["Type"] == "AWS::Serverless::Function"}


RESOURCES = resources("template.yaml")
FUNCTIONS = functions(RESOURCES)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_handler_imports_from_the_checkout(name: str) -> None:
    module, function = STACK.functions[name].handler.rsplit(".", 1)
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_packaged_under_its_own_name(name: str) -> None:
    body = FUNCTIONS[name]
    package = ".".join(Path(body["Properties"]["CodeUri"]).parts)
    built = body["Metadata"]["BuildProperties"]
    assert built == {"ParentPackageMode": "explicit", "ParentPackages": package}
    assert body["Properties"]["Handler"] == f"{package}.handler.handle"


@pytest.mark.parametrize("name", sorted({route.function for route in STACK.routes}))
def test_every_function_answers_the_routes_of_the_template(name: str) -> None:
    module, function = STACK.functions[name].handler.rsplit(".", 1)
    answered = getattr(importlib.import_module(module), function)._routes
    assert {route.resource for route in STACK.routes if route.function == name} == set(answered)
    assert {route.method for route in STACK.routes} == {"ANY"}


def test_every_route_has_a_scope() -> None:
    assert {route.resource for route in STACK.routes} == set(SCOPES)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_a_log_group_that_forgets(name: str) -> None:
    groups = [body["Properties"] for body in RESOURCES.values() if body["Type"] == "AWS::Logs::LogGroup"]
    name_of_group = {"Fn::Sub": f"/aws/lambda/${{{name}}}"}
    assert len([group["RetentionInDays"] for group in groups if group.get("LogGroupName") == name_of_group]) == 1


def test_the_openapi_document_names_every_verb_of_every_route() -> None:
    handlers = [STACK.functions[name].handler.rsplit(".", 1) for name in {route.function for route in STACK.routes}]
    tables = [getattr(importlib.import_module(module), function)._routes for module, function in handlers]
    answered = {(route, verb) for table in tables for route, verbs in table.items() for verb in verbs}
    assert {(operation.path, operation.verb.upper()) for operation in OPERATIONS} == answered


def test_the_authorizer_is_asked_before_every_route_and_in_its_mode_alone() -> None:
    assert STACK.authorizer is not None
    assert STACK.authorizer.resources == {route.resource for route in STACK.routes}
    assert re.search(STACK.authorizer.pattern, "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln-_A")
    assert not re.search(STACK.authorizer.pattern, "Bearer a.b.c d")
    for mode in ("admin-key", "key", "iam"):
        assert template.load_stack(ROOT / "template.yaml", {"Auth": mode}).authorizer is None


def test_the_authorizer_carries_no_model_code() -> None:
    properties = FUNCTIONS["AuthorizeFunction"]["Properties"]
    assert properties["Layers"] == [{"Ref": "CoreLayer"}]
    assert properties["Timeout"] < 29
    variables = set(properties["Environment"]["Variables"])
    assert variables == set(re.findall(r'"(PILOTLIGHT_\w+)"', (ROOT / "functions/authorize/issuer.py").read_text()))


def test_functions_give_up_before_the_gateway_does() -> None:
    assert all(STACK.functions[name].timeout_s < 29 for name in {route.function for route in STACK.routes})


def test_errors_of_the_gateway_are_readable_by_v2_and_openai_clients() -> None:
    responses = RESOURCES["Api"]["Properties"]["GatewayResponses"]
    for response in responses.values():
        body = response["ResponseTemplates"]["application/json"]
        said = json.loads(re.sub(r"\$context\.\S*?(?=[,}])", '"text"', body))
        assert set(said) == {"error", "message"}


def test_the_environment_file_for_sam_names_real_functions_and_variables() -> None:
    known = FUNCTIONS | functions(resources("infra/events.yaml"))
    for name, variables in json.loads((ROOT / "infra" / "local.json").read_text()).items():
        assert set(variables) <= set(known[name]["Properties"]["Environment"]["Variables"])


def test_telemetry_is_off_before_any_import() -> None:
    for body in FUNCTIONS.values():
        if {"Ref": "DepsLayer"} in body["Properties"]["Layers"]:
            assert body["Properties"]["Environment"]["Variables"]["ORT_DISABLE_TELEMETRY"] == "1"
    assert os.environ.get("ORT_DISABLE_TELEMETRY") == "1"


def test_the_ends_of_jobs_of_both_queues_reach_the_function_that_keeps_them() -> None:
    rule, right = RESOURCES["TrainingEnded"], RESOURCES["TrainingEndedPermission"]
    pattern = rule["Properties"]["EventPattern"]
    queues = [{"Fn::GetAtt": ["Training", f"Outputs.{name}"]} for name in ("Queue", "NodesQueue")]
    assert pattern["detail"] == {"status": ["SUCCEEDED", "FAILED"], "jobQueue": queues}
    assert (pattern["source"], pattern["detail-type"]) == (["aws.batch"], ["Batch Job State Change"])
    assert [target["Arn"] for target in rule["Properties"]["Targets"]] == [
        {"Fn::GetAtt": ["StartTrainingFunction", "Arn"]}
    ]
    assert right["Properties"]["SourceArn"] == {"Fn::GetAtt": ["TrainingEnded", "Arn"]}
    assert rule["Condition"] == right["Condition"] == RESOURCES["Training"]["Condition"] == "Trains"


def test_a_stack_that_does_not_train_says_so_to_the_function() -> None:
    variables = RESOURCES["StartTrainingFunction"]["Properties"]["Environment"]["Variables"]
    known = {"QUEUE": "Queue", "JOB": "Job"}
    for name, output in known.items():
        for prefix, of in (("TRAINING", output), ("NODES", f"Nodes{output}")):
            where = {"Fn::GetAtt": ["Training", f"Outputs.{of}"]}
            assert variables[f"PILOTLIGHT_{prefix}_{name}"] == {"Fn::If": ["Trains", where, "none"]}
    outputs = cfn_yaml.load(str(ROOT / "infra/training.yaml"))["Outputs"]
    assert {"Queue", "NodesQueue", "Job", "NodesJob", "LogGroup"} <= set(outputs)
    assert "PILOTLIGHT_TRAINING_QUEUE" not in STACK.functions["StartTrainingFunction"].environment  # so: this machine
