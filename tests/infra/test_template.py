"""What the template promises, checked without deploying it."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from functions.authorize.handler import STORE_PATIENCE_S
from pilotlight.api.routes import ROUTES, SCOPES
from pilotlight.local import intrinsics, template

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
SHARED: dict[str, Any] = cfn_yaml.load(str(ROOT / "template.yaml"))["Globals"]["Function"]


def variables_of(body: dict[str, Any]) -> dict[str, Any]:
    """The variables of a function, those of Globals among them."""
    own = dict(body["Properties"].get("Environment", {}).get("Variables", {}))
    return own if "Environment" in body.get("IgnoreGlobals", ()) else {**SHARED["Environment"]["Variables"], **own}


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


@pytest.mark.parametrize("name", ["PredictFunction", "GenerateFunction", "PromoteFunction"])
def test_functions_that_open_models_have_the_disk_for_their_weights(name: str) -> None:
    """The gate opens what the others serve; its error names this parameter."""
    assert FUNCTIONS[name]["Properties"]["EphemeralStorage"] == {"Size": {"Ref": "ModelDisk"}}


@pytest.mark.parametrize("name", sorted({route.function for route in ROUTES}))
def test_every_function_answers_its_verbs_of_the_table_and_no_others(name: str) -> None:
    module, function = STACK.functions[name].handler.rsplit(".", 1)
    answered = getattr(importlib.import_module(module), function)._routes
    expected = {(route.path, route.verb) for route in ROUTES if route.function == name}
    assert {(path, verb) for path, verbs in answered.items() for verb in verbs} == expected


def test_the_gateway_sends_every_verb_of_a_path_to_its_function() -> None:
    """A function answers a wrong verb with 405 and the right one; the gateway would call it a missing token."""
    assert {(route.method, route.resource, route.function) for route in STACK.routes} == {
        ("ANY", route.path, route.function) for route in ROUTES
    }


def test_every_route_of_a_path_has_one_function_and_one_scope() -> None:
    assert len({(route.path, route.function, route.scope) for route in ROUTES}) == len({route.path for route in ROUTES})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_a_log_group_that_forgets(name: str) -> None:
    groups = [body["Properties"] for body in RESOURCES.values() if body["Type"] == "AWS::Logs::LogGroup"]
    name_of_group = {"Fn::Sub": f"/aws/lambda/${{{name}}}"}
    assert len([group["RetentionInDays"] for group in groups if group.get("LogGroupName") == name_of_group]) == 1


def test_the_authorizer_is_asked_before_every_route_and_in_its_mode_alone() -> None:
    assert STACK.authorizer is not None
    assert STACK.authorizer.resources == {route.resource for route in STACK.routes}
    assert STACK.authorizer.pattern is not None
    assert re.search(STACK.authorizer.pattern, "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln-_A")
    assert not re.search(STACK.authorizer.pattern, "Bearer a.b.c d")
    assert template.load_stack(ROOT / "template.yaml", {"Auth": "iam"}).authorizer is None


def test_keys_are_asked_for_by_default_and_come_in_either_header() -> None:
    authorizer = template.load_stack(ROOT / "template.yaml").authorizer
    assert authorizer is not None
    assert (authorizer.function, authorizer.pattern) == ("AuthorizeFunction", None)
    assert authorizer.resources == set(SCOPES)
    # API Gateway keeps answers by all its sources together, and refuses what lacks one.
    assert (authorizer.ttl_s, authorizer.identity_headers) == (0, ())


def test_the_gateway_may_keep_answers_by_the_one_header(tmp_path: Path) -> None:
    copy = tmp_path / "template.yaml"
    shutil.copytree(ROOT / "infra", tmp_path / "infra")
    text = (ROOT / "template.yaml").read_text()
    copy.write_text(text.replace('GatewayCache: &GatewayCache "off"', 'GatewayCache: &GatewayCache "on"'))
    authorizer = template.load_stack(copy).authorizer
    assert authorizer is not None
    assert (authorizer.ttl_s, authorizer.identity_headers) == (60, ("authorization",))


def test_open_is_about_inference_alone() -> None:
    authorizer = template.load_stack(ROOT / "template.yaml", {"Auth": "open"}).authorizer
    assert authorizer is not None
    assert authorizer.resources == {path for path, scope in SCOPES.items() if scope != "infer"}


def test_the_authorizer_reads_the_variables_that_it_has() -> None:
    properties = FUNCTIONS["AuthorizeFunction"]["Properties"]
    assert properties["Timeout"] < 29
    assert properties["Timeout"] / 2 > STORE_PATIENCE_S
    read = "".join((ROOT / "functions/authorize" / f"{name}.py").read_text() for name in ("issuer", "handler"))
    assert set(properties["Environment"]["Variables"]) | {"PILOTLIGHT_STORE"} == set(
        re.findall(r'"(PILOTLIGHT_\w+)"', read)
    )


def test_the_authorizer_starts_without_what_it_does_not_need() -> None:
    """In the mode of keys: neither PyJWT with cryptography, nor numpy, boto3, pydantic."""
    seen = "import sys, functions.authorize.handler; print({name.partition('.')[0] for name in sys.modules})"
    variables = {**os.environ, "PILOTLIGHT_AUTH_MODE": "keys", "PILOTLIGHT_STORE": "memory://"}
    variables["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'layers/core'}"
    done = subprocess.run([sys.executable, "-c", seen], env=variables, capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"'(\w+)'", done.stdout))
    assert {"obstore", "msgspec"} <= loaded
    assert not loaded & {
        "jwt",
        "cryptography",
        "numpy",
        "boto3",
        "botocore",
        "pydantic",
        "yaml",
        "aws_lambda_powertools",
    }


def test_functions_give_up_before_the_gateway_does() -> None:
    """After 29 s, or after 15 minutes for an answer that it passes on."""
    assert all(STACK.functions[route.function].timeout_s < (900 if route.streams else 29) for route in STACK.routes)


def test_errors_of_the_gateway_are_readable_by_v2_and_openai_clients() -> None:
    for response in STACK.gateway_responses.values():
        said = json.loads(re.sub(r"\$context\.\S*?(?=[,}])", '"text"', response.body or ""))
        assert set(said) == {"message"}


def test_the_environment_file_for_sam_names_real_functions_and_variables() -> None:
    known = FUNCTIONS | functions(resources("infra/events.yaml"))
    for name, variables in json.loads((ROOT / "infra" / "local.json").read_text()).items():
        assert set(variables) <= set(variables_of(known[name]))


def test_telemetry_is_off_before_any_import() -> None:
    assert {"Ref": "DepsLayer"} in SHARED["Layers"]
    for body in FUNCTIONS.values():
        if "Layers" not in body.get("IgnoreGlobals", ()):
            assert variables_of(body)["ORT_DISABLE_TELEMETRY"] == "1"
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
    assert rule["Condition"] == right["Condition"] == RESOURCES["Training"]["Condition"] == "TrainingEnabled"


def test_a_stack_that_does_not_train_says_so_to_the_function() -> None:
    variables = RESOURCES["StartTrainingFunction"]["Properties"]["Environment"]["Variables"]
    known = {"QUEUE": "Queue", "JOB": "Job"}
    for name, output in known.items():
        for prefix, of in (("TRAINING", output), ("NODES", f"Nodes{output}")):
            where = {"Fn::GetAtt": ["Training", f"Outputs.{of}"]}
            assert variables[f"PILOTLIGHT_{prefix}_{name}"] == {"Fn::If": ["TrainingEnabled", where, "none"]}
    outputs = cfn_yaml.load(str(ROOT / "infra/training.yaml"))["Outputs"]
    assert {"Queue", "NodesQueue", "Job", "NodesJob", "LogGroup"} <= set(outputs)
    assert "PILOTLIGHT_TRAINING_QUEUE" not in STACK.functions["StartTrainingFunction"].environment  # so: this machine


def test_jobs_are_told_their_region() -> None:
    """ECS tells no container on EC2, and both obstore and botocore would look for the bucket in us-east-1."""
    resources = cfn_yaml.load(str(ROOT / "infra/training.yaml"))["Resources"]
    (nodes,) = resources["NodesJob"]["Properties"]["NodeProperties"]["NodeRangeProperties"]
    for container in (resources["Job"]["Properties"]["ContainerProperties"], nodes["Container"]):
        assert {"Name": "AWS_DEFAULT_REGION", "Value": {"Ref": "AWS::Region"}} in container["Environment"]


def test_a_guided_deploy_asks_few_questions_in_groups() -> None:
    document = cfn_yaml.load(str(ROOT / "template.yaml"))
    groups = document["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert grouped == list(document["Parameters"])
    assert len(grouped) <= 28  # a second function that holds models has its own size
    assert groups[-1]["Label"] == {"default": "Advanced"}


def test_every_setting_is_used() -> None:
    """The mapping holds what few stacks change; CloudFormation does not say which of it nothing looks up."""
    text = (ROOT / "template.yaml").read_text()
    document = json.dumps(intrinsics.load_raw_template(ROOT / "template.yaml"))
    settings = cfn_yaml.load(str(ROOT / "template.yaml"))["Mappings"]["Settings"]
    for group, values in settings.items():
        for name in values:
            is_in_condition = f" {name}: &{name} " in text and f"*{name}," in text
            assert is_in_condition or json.dumps({"Fn::FindInMap": ["Settings", group, name]}) in document


def test_the_template_stays_short() -> None:
    assert len((ROOT / "template.yaml").read_text().splitlines()) < 1000
