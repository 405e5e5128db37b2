"""Who may do what, read from the templates: each rule holds for them, and breaks for a copy that breaks it."""

import copy
import itertools
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotlight.api.scopes import SCOPES
from pilotlight.bus import INFERENCE
from pilotlight.local import intrinsics

ROOT = Path(__file__).parents[2]
Template = dict[str, Any]
Templates = dict[str, Template]  # by name: api, training, events

SILENT = {"AuthorizeFunction"}  # that may do nothing but write their log, which SAM's own policy lets every function do
PUBLIC = {"PILOTLIGHT_SIGNING_KEY"}  # the public half
READS = {"s3:GetObject", "s3:ListBucket", "kms:Decrypt"}
NO_RESOURCES = {
    "ecr:GetAuthorizationToken",
    "batch:DescribeJobs",
    "batch:ListJobs",
}  # actions that know no resources, and so must be allowed on *
ALIAS = "models/digits/aliases/champion.json"
WEIGHTS = "models/digits/versions/1/model.onnx"
CAPTURE = "captures/digits/1/2026-11-25/02/environment-0.jsonl.gz"
CAPTURE_KEY = "secrets/capture-key"
HASHERS = {"PredictFunction", "BatchFunction", "DriftFunction"}
MANIFEST = "models/digits/versions/1/manifest.json"
SPREAD_REACHES = {  # by the service of the action
    "lambda": ("BatchFunction.Arn",),
    "s3": ("/outbox/*/spans.json",),
    "states": ("${AWS::StackName}-spread",),
    "sqs": ("DeadLetters.Arn",),
    "kms": ("DataKey",),
}
PUBLISHED = "runs/monday/published.json"
ORDERED = {"runs/monday/recipe.yaml", "runs/monday/job.json"}  # what whoever starts trainings writes
OWN_JOBS = {"pilotlight-stack": {"Ref": "AWS::StackName"}}  # the tag of a stack's jobs
QUEUES = ("Queue", "Job", "NodesQueue", "NodesJob")
MOVERS = {"PromoteFunction", "ModelsFunction"}  # the promoter, and those who hold the API key
LOGGED = {
    "requestId", "xrayTraceId", "requestTimeEpoch", "identity.sourceIp", "identity.apiKeyId", "identity.userArn",
    "authorizer.tenant",
    "httpMethod", "path", "resourcePath", "status", "responseLatency", "integrationLatency", "responseLength",
    "error.responseType", "integration.error",
}  # fmt: skip


def load(path: str) -> Template:
    """A template with its intrinsic functions as they are written."""
    loaded: Template = yaml.load((ROOT / path).read_bytes(), Loader=intrinsics.TemplateLoader)  # noqa: S506 - a SafeLoader
    return loaded


FILES = {"api": "template.yaml", "training": "infra/training.yaml", "events": "infra/events.yaml"}
TEMPLATES: Templates = {name: load(path) for name, path in FILES.items()}


# --- reading ----------------------------------------------------------------------------------------------------------


def statements(resource: Template) -> Iterator[Template]:
    """The statements of a function or a role, those under a condition as well."""
    return (one for _, one in conditional(resource))


def conditional(resource: Template) -> Iterator[tuple[str, Template]]:
    """The same, each with the name of its condition; empty where it has none."""
    for policy in resource["Properties"].get("Policies", []):
        for one in policy.get("PolicyDocument", policy)["Statement"]:
            yield (one["Fn::If"][0], one["Fn::If"][1]) if "Fn::If" in one else ("", one)


def roles(templates: Templates) -> Iterator[tuple[str, Template]]:
    """Everything that has rights, by its name."""
    for template in templates.values():
        for name, resource in template["Resources"].items():
            if resource["Type"] in ("AWS::Serverless::Function", "AWS::IAM::Role"):
                yield name, resource


def listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def keys(statement: Template) -> Iterator[str]:
    """The keys of the model bucket that a statement is about, as patterns."""
    for resource in listed(statement["Resource"]):
        text = resource.get("Fn::Sub", "") if isinstance(resource, dict) else str(resource)
        for bucket in ("${ModelBucket.Arn}/", "${ModelBucket}/"):
            if bucket in text:
                yield text.partition(bucket)[2]


def may(resource: Template, action: str, key: str) -> bool:
    """Whether a role may do this to this key of the bucket."""
    return any(
        action in listed(one["Action"]) and any(fnmatchcase(key, pattern) for pattern in keys(one))
        for one in statements(resource)
        if one["Effect"] == "Allow"
    )


# --- rules ------------------------------------------------------------------------------------------------------------


def rights_are_named(templates: Templates) -> Iterator[str]:
    for name, resource in roles(templates):
        for one in statements(resource):
            actions = set(listed(one["Action"]))
            if any("*" in action for action in actions):
                yield f"{name} may do {actions}"
            if "*" in listed(one["Resource"]) and not actions <= NO_RESOURCES:
                yield f"{name} may do {actions} to everything"


def objects_are_reached_below_a_folder(templates: Templates) -> Iterator[str]:
    for name, resource in roles(templates):
        for one in statements(resource):
            of_objects = any(action.endswith("Object") for action in listed(one["Action"]))
            if of_objects and not all(pattern.partition("/")[0].isalpha() for pattern in keys(one)):
                yield f"{name} reaches the whole bucket"
            if "s3:ListBucket" in listed(one["Action"]) and "s3:prefix" not in str(one.get("Condition")):
                yield f"{name} lists the whole bucket"


def who_predicts_writes_nothing(templates: Templates) -> Iterator[str]:
    """But captures and answers that cannot be sent, where those are on; the bucket's encryption key comes with them."""
    if templates["api"]["Parameters"]["LargeAnswers"]["Default"] != "off":
        yield "PredictFunction writes answers without being told to"
    for condition, one in conditional(templates["api"]["Resources"]["PredictFunction"]):
        beyond = set(listed(one["Action"])) - READS
        if (condition, list(keys(one))) in [("Captures", ["captures/*"]), ("KeepsAnswers", ["answers/*"])]:
            beyond -= {"s3:PutObject"}
        if condition in {"CapturesWithKey", "KeepsAnswersByKey"}:
            beyond -= {"kms:GenerateDataKey"}
        if beyond:
            yield f"PredictFunction may do {beyond}"


def captures_are_off_unless_asked_for(templates: Templates) -> Iterator[str]:
    for name in ("api", "events"):
        if templates[name]["Parameters"]["CaptureRate"]["Default"] != 0:
            yield f"{name} keeps requests though nobody asked for it"
        if templates[name]["Conditions"]["Captures"] != {"Fn::Not": [{"Fn::Equals": [{"Ref": "CaptureRate"}, 0]}]}:
            yield f"the condition Captures of {name} is another than that CaptureRate is above 0"


def captures_are_only_ever_added(templates: Templates) -> Iterator[str]:
    for name, resource in roles(templates):
        if not may(resource, "s3:PutObject", CAPTURE):
            continue
        added = [
            one
            for one in statements(resource)
            if one["Effect"] == "Deny" and one.get("Condition") == {"Null": {"s3:if-none-match": "true"}}
        ]
        if not any(fnmatchcase(CAPTURE, pattern) for one in added for pattern in keys(one)):
            yield f"{name} may replace {CAPTURE}"
        conditions = {condition for condition, one in conditional(resource) if "captures/*" in keys(one)}
        if conditions != {"Captures"}:
            yield f"{name} may write {CAPTURE} where nothing is to be kept"


def captures_are_read_by_few(templates: Templates) -> Iterator[str]:
    for name, resource in roles(templates):
        if name != "DriftFunction" and may(resource, "s3:GetObject", CAPTURE):
            yield f"{name} may read {CAPTURE}"
        if name != "DriftFunction" and may(resource, "s3:PutObject", CAPTURE_KEY):
            yield f"{name} may write {CAPTURE_KEY}"
        if name not in HASHERS and may(resource, "s3:GetObject", CAPTURE_KEY):
            yield f"{name} may read {CAPTURE_KEY}"


def who_looks_for_drift_writes_reports_alone(templates: Templates) -> Iterator[str]:
    for one in statements(templates["api"]["Resources"]["DriftFunction"]):
        if one["Effect"] == "Allow" and "s3:PutObject" in listed(one["Action"]):
            if beyond := set(keys(one)) - {"drift/*", CAPTURE_KEY}:
                yield f"DriftFunction may write {beyond}"
        elif one["Effect"] == "Allow" and (beyond := set(listed(one["Action"])) - READS - {"kms:GenerateDataKey"}):
            yield f"DriftFunction may do {beyond}"


def captures_are_forgotten(templates: Templates) -> Iterator[str]:
    rules = templates["api"]["Resources"]["ModelBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    found = [rule for rule in rules if rule.get("Prefix") == "captures/" and rule["Status"] == "Enabled"]
    if not any("ExpirationInDays" in rule and "NoncurrentVersionExpiration" in rule for rule in found):
        yield "what was kept of requests is kept for ever"


def who_orders_batches_reaches_no_model(templates: Templates) -> Iterator[str]:
    function = templates["api"]["Resources"]["BatchesFunction"]
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        for key in (WEIGHTS, ALIAS, "inbox/a.jsonl", "outbox/messages/a.json", "runs/a/metrics.jsonl"):
            if may(function, action, key):
                yield f"BatchesFunction, and whoever holds what it signs, may do {action} to {key}"
    if may(function, "s3:PutObject", "outbox/batches/1/manifest.json"):
        yield "BatchesFunction may write results"


def who_answers_writes_no_order(templates: Templates) -> Iterator[str]:
    function = templates["events"]["Resources"]["BatchFunction"]
    for key in ("batches/1/order.json", "batches/1/cancel.json", "uploads/1/content", "inbox/a.jsonl", WEIGHTS):
        for action in ("s3:PutObject", "s3:DeleteObject"):
            if may(function, action, key):
                yield f"BatchFunction may do {action} to {key}"


def words_on_the_bus_are_ours(templates: Templates) -> Iterator[str]:
    for name, resource in roles(templates):
        for one in statements(resource):
            told = one.get("Condition", {}).get("StringEquals", {})
            if "events:PutEvents" in listed(one["Action"]) and (
                not str(told.get("events:source")).startswith("pilotlight.")
                or told.get("events:detail-type") != INFERENCE
            ):
                yield f"{name} may put any event on the bus"


def the_machine_reaches_its_own_things(templates: Templates) -> Iterator[str]:
    for one in statements(templates["events"]["Resources"]["SpreadRole"]):
        for action, resource in itertools.product(listed(one["Action"]), listed(one["Resource"])):
            if not any(text in str(resource) for text in SPREAD_REACHES[action.partition(":")[0]]):
                yield f"the state machine may do {action} to {resource}"
    trust = templates["events"]["Resources"]["SpreadRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]
    if "aws:SourceAccount" not in str(trust.get("Condition")):
        yield "the state machine's role may be taken for another account"


def uploads_are_forgotten(templates: Templates) -> Iterator[str]:
    rules = templates["api"]["Resources"]["ModelBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    forgotten = {rule.get("Prefix") for rule in rules if "ExpirationInDays" in rule}
    for prefix in {"uploads/", "answers/", "idempotency/"} - forgotten:
        yield f"what lies below {prefix} is kept for ever"


def who_checks_tokens_may_do_nothing_else(templates: Templates) -> Iterator[str]:
    for name in SILENT:
        properties = templates["api"]["Resources"][name]["Properties"]
        if "Policies" in properties or properties.get("Tracing") != "Disabled":
            yield f"{name} has rights"
        if properties["Layers"] != [{"Ref": "CoreLayer"}]:
            yield f"{name} carries more code than it runs"


def aliases_are_moved_by_few(templates: Templates) -> Iterator[str]:
    for name, resource in roles(templates):
        for action in ("s3:PutObject", "s3:DeleteObject"):
            if may(resource, action, ALIAS) and (name not in MOVERS or action == "s3:DeleteObject"):
                yield f"{name} may do {action} to {ALIAS}"


def weights_are_written_by_the_trainer_alone(templates: Templates) -> Iterator[str]:
    for name, resource in roles(templates):
        if name != "TrainerRole" and may(resource, "s3:PutObject", WEIGHTS):
            yield f"{name} may write {WEIGHTS}"


def manifests_are_never_replaced(templates: Templates) -> Iterator[str]:
    denied = [
        one
        for one in statements(templates["training"]["Resources"]["TrainerRole"])
        if one["Effect"] == "Deny" and one.get("Condition") == {"Null": {"s3:if-none-match": "true"}}
    ]
    for key in (MANIFEST, MANIFEST.replace("manifest", "claim")):
        if not any(fnmatchcase(key, pattern) for one in denied for pattern in keys(one)):
            yield f"TrainerRole may replace {key}"


def what_runs_say_is_written_by_the_trainer_alone(templates: Templates) -> Iterator[str]:
    for name, resource in roles(templates):
        for action in ("s3:PutObject", "s3:DeleteObject"):
            if name != "TrainerRole" and may(resource, action, PUBLISHED):
                yield f"{name} may do {action} to {PUBLISHED}"


def who_starts_trainings_writes_orders_alone(templates: Templates) -> Iterator[str]:
    for one in statements(templates["api"]["Resources"]["StartTrainingFunction"]):
        if "s3:PutObject" in listed(one["Action"]):
            for pattern in keys(one):
                if not any(fnmatchcase(key, pattern) for key in ORDERED) or pattern.count("*") > 1:
                    yield f"StartTrainingFunction writes {pattern}"


def who_starts_trainings_does_so_in_its_stack(templates: Templates) -> Iterator[str]:
    known = [{"Fn::GetAtt": f"Training.Outputs.{name}"} for name in QUEUES]
    tagged = {"batch:TerminateJob": "aws:ResourceTag", "batch:TagResource": "aws:RequestTag"}
    for name, resource in roles(templates):
        for one in statements(resource):
            actions = set(listed(one["Action"]))
            if "batch:SubmitJob" in actions and (name != "StartTrainingFunction" or one["Resource"] != known):
                yield f"{name} submits jobs to {one['Resource']}"
            for action in actions & tagged.keys():
                wanted = {f"{tagged[action]}/{key}": value for key, value in OWN_JOBS.items()}
                if one.get("Condition") != {"StringEquals": wanted}:
                    yield f"{name} may do {action} to jobs of others"


def the_bucket_is_private_and_kept(templates: Templates) -> Iterator[str]:
    bucket = templates["api"]["Resources"]["ModelBucket"]
    if {bucket.get("DeletionPolicy"), bucket.get("UpdateReplacePolicy")} != {"Retain"}:
        yield "the bucket goes with the stack"
    properties = bucket["Properties"]
    if list(properties.get("PublicAccessBlockConfiguration", {}).values()) != [True] * 4:
        yield "the bucket may be made public"
    if "BucketEncryption" not in properties or properties.get("VersioningConfiguration") != {"Status": "Enabled"}:
        yield "the bucket is not encrypted, or forgets at once"


def the_bucket_asks_for_tls(templates: Templates) -> Iterator[str]:
    policy = templates["api"]["Resources"]["ModelBucketPolicy"]["Properties"]["PolicyDocument"]
    over_tls = {"Bool": {"aws:SecureTransport": "false"}}
    if not any(one["Effect"] == "Deny" and one.get("Condition") == over_tls for one in policy["Statement"]):
        yield "the bucket answers without TLS"


def api(templates: Templates) -> Template:
    properties: Template = templates["api"]["Resources"]["Api"]["Properties"]
    return properties


def no_body_is_logged(templates: Templates) -> Iterator[str]:
    for settings in api(templates)["MethodSettings"]:
        if settings["DataTraceEnabled"] is not False or settings["LoggingLevel"] != "OFF":
            yield "the gateway logs bodies"
    told = api(templates)["AccessLogSetting"]["Fn::If"][1]["Format"]
    said = {word.strip('",}') for word in told.replace("$context.", "\n$").split("\n") if word.startswith("$")}
    if beyond := {word[1:].split('"')[0] for word in said} - LOGGED:
        yield f"the gateway logs {beyond}"


def routes(templates: Templates) -> dict[str, str]:
    """Each path of the functions' events with the function."""
    return {
        event["Properties"]["Path"]: name
        for name, resource in templates["api"]["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
        for event in resource["Properties"].get("Events", {}).values()
        if event["Type"] == "Api"
    }


def every_route_asks_for_what_the_mode_says(templates: Templates) -> Iterator[str]:
    paths = api(templates)["DefinitionBody"]["paths"]
    if strays := routes(templates).keys() ^ paths.keys():
        yield f"events of the functions and paths of the Api differ in {sorted(strays)}; each stands in both"
    key: list[Template] = [{"api_key": []}]
    signed: list[Template] = [{"signature": []}]
    token = {"Fn::If": ["CountsTokens", [{"token": [], "api_key": []}], [{"token": []}]]}
    infer = {
        "Fn::If": [
            "AsksForKey", key, {"Fn::If": ["AsksForSignature", signed, {"Fn::If": ["AsksForToken", token, []]}]}
        ]
    }  # fmt: skip
    decide = {"Fn::If": ["AsksForSignature", signed, {"Fn::If": ["AsksForToken", token, key]}]}
    for path, item in paths.items():
        if item["x-amazon-apigateway-any-method"]["security"] != (infer if SCOPES.get(path) == "infer" else decide):
            yield f"{path} asks for something else than its scope does"


def every_route_leads_to_its_function(templates: Templates) -> Iterator[str]:
    for path, name in routes(templates).items():
        item = api(templates)["DefinitionBody"]["paths"].get(path, {}).get("x-amazon-apigateway-any-method", {})
        uri = item.get("x-amazon-apigateway-integration", {}).get("uri", {}).get("Fn::Sub", "")
        if f"functions/${{{name}." not in uri:
            yield f"{path} does not lead to {name}"


def tokens_are_checked_before_they_count(templates: Templates) -> Iterator[str]:
    schemes = api(templates)["DefinitionBody"]["components"]["securitySchemes"]
    condition, scheme, otherwise = schemes.get("token", {}).get("Fn::If", (None, {}, None))
    authorizer = scheme.get("x-amazon-apigateway-authorizer", {})
    if condition != "AsksForToken" or otherwise != {"Ref": "AWS::NoValue"} or authorizer.get("type") != "token":
        yield "there is no authorizer where tokens are asked for"
    if "${AuthorizeFunction.Arn}" not in authorizer.get("authorizerUri", {}).get("Fn::Sub", ""):
        yield "somebody else checks the tokens"
    if authorizer.get("authorizerResultTtlInSeconds", 300) > 60:
        yield "a token goes on for more than a minute after it has expired"
    rules = templates["api"]["Rules"].get("TokensHaveAnIssuer", {}).get("Assertions", [])
    needed = {name for name in ("JwtIssuer", "JwtAudience") if f"'{name}'" in str(rules)}
    if needed != {"JwtIssuer", "JwtAudience"}:
        yield f"of issuer and audience only {needed or 'nothing'} must be given"
    for name in ("JwtIssuer", "JwtKeys"):
        if templates["api"]["Parameters"][name].get("AllowedPattern") != "(https://.+)?":
            yield f"{name} may be read without TLS"


def a_private_api_answers_its_endpoint_alone(templates: Templates) -> Iterator[str]:
    policy = api(templates)["DefinitionBody"].get("x-amazon-apigateway-policy", {"Fn::If": ["", {}]})["Fn::If"]
    denied = [one for one in policy[1].get("Statement", []) if one["Effect"] == "Deny"]
    if policy[0] != "IsPrivate" or not any("aws:SourceVpce" in str(one.get("Condition")) for one in denied):
        yield "a private API answers every network"


def machines_are_closed(templates: Templates) -> Iterator[str]:
    resources = templates["training"]["Resources"]
    metadata = resources["MachineTemplate"]["Properties"]["LaunchTemplateData"]["MetadataOptions"]
    if metadata != {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}:
        yield "a container may take the machine's role"
    if "SecurityGroupIngress" in resources["MachineGroup"]["Properties"]:
        yield "machines let others in"
    if "SourceSecurityGroupId" not in resources["MachinesIn"]["Properties"]:
        yield "machines let more in than each other"
    if resources["Job"]["Properties"]["ContainerProperties"]["Privileged"] is not False:
        yield "a job may do everything to its machine"


def logs_are_forgotten(templates: Templates) -> Iterator[str]:
    for template in templates.values():
        for name, resource in template["Resources"].items():
            if resource["Type"] == "AWS::Logs::LogGroup" and "RetentionInDays" not in resource["Properties"]:
                yield f"{name} is kept for ever"


def no_secret_is_a_variable(templates: Templates) -> Iterator[str]:
    for template in templates.values():
        hidden = {name for name, parameter in template["Parameters"].items() if parameter.get("NoEcho")}
        for name, resource in template["Resources"].items():
            variables = resource.get("Properties", {}).get("Environment", {}).get("Variables", {})
            for variable, value in variables.items():
                if re.search(r"SECRET|PASSWORD|CREDENTIAL|TOKEN|_KEY$", variable) and variable not in PUBLIC:
                    yield f"{name} has the variable {variable}"
                if "{{resolve:" in str(value) or any(f"'{one}'" in str(value) for one in hidden):
                    yield f"{name} has a secret in {variable}"


def payloads_are_kept_where_that_is_asked_for_alone(templates: Templates) -> Iterator[str]:
    for template in templates.values():
        for name, parameter in template["Parameters"].items():
            if re.search(r"(Capture|Sample)(Rate|Percent)?$", name) and parameter.get("Default") not in (0, "0", "off"):
                yield f"{name} is on by default"


Rule = Callable[[Templates], Iterator[str]]
RULES: list[Rule] = [
    rights_are_named, objects_are_reached_below_a_folder, who_predicts_writes_nothing,
    who_orders_batches_reaches_no_model, who_answers_writes_no_order, words_on_the_bus_are_ours,
    the_machine_reaches_its_own_things, uploads_are_forgotten,
    who_checks_tokens_may_do_nothing_else, aliases_are_moved_by_few, tokens_are_checked_before_they_count,
    weights_are_written_by_the_trainer_alone, manifests_are_never_replaced,
    what_runs_say_is_written_by_the_trainer_alone, who_starts_trainings_writes_orders_alone,
    who_starts_trainings_does_so_in_its_stack, the_bucket_is_private_and_kept,
    the_bucket_asks_for_tls, no_body_is_logged, every_route_asks_for_what_the_mode_says,
    every_route_leads_to_its_function, a_private_api_answers_its_endpoint_alone, machines_are_closed,
    logs_are_forgotten, no_secret_is_a_variable, payloads_are_kept_where_that_is_asked_for_alone,
    captures_are_off_unless_asked_for, captures_are_only_ever_added, captures_are_read_by_few,
    who_looks_for_drift_writes_reports_alone, captures_are_forgotten,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_templates_keep_the_rule(rule: Rule) -> None:
    assert list(rule(TEMPLATES)) == []


# --- and each rule, broken on purpose ---------------------------------------------------------------------------------


def changed(at: str, to: object) -> Callable[[Templates], None]:
    """A change of one value; None takes it away. `at` is a path of keys with dots between them."""

    def change(templates: Templates) -> None:
        *way, last = [int(step) if step.isdecimal() else step for step in at.split(".")]
        node: Any = templates
        for step in way:
            node = node[step]
        if to is None:
            del node[last]
        else:
            node[last] = to

    change.__doc__ = f"{at} -> {'(nothing)' if to is None else to}"
    return change


def allowed(file: str, name: str, action: str, key: str) -> Callable[[Templates], None]:
    """One more right."""

    def change(templates: Templates) -> None:
        resource = templates[file]["Resources"][name]
        bucket = "${ModelBucket.Arn}" if file == "api" else "arn:${AWS::Partition}:s3:::${ModelBucket}"
        policy = resource["Properties"]["Policies"][0]
        policy.get("PolicyDocument", policy)["Statement"].append(
            {"Effect": "Allow", "Action": action, "Resource": {"Fn::Sub": f"{bucket}/{key}"}}
        )

    change.__doc__ = f"{file}.{name} may {action} {key}"
    return change


def unconditional(file: str, name: str, action: str, effect: str = "Allow") -> Callable[[Templates], None]:
    """A right under the condition Captures becomes one that is always there; a Deny there becomes an Allow."""

    def change(templates: Templates) -> None:
        listing = templates[file]["Resources"][name]["Properties"]["Policies"][0]["Statement"]
        for place, one in enumerate(listing):
            inner = one.get("Fn::If", ["", {}, {}])[1]
            if inner.get("Action") == action and inner.get("Effect") == effect:
                listing[place] = {**inner, "Effect": "Allow"}

    return change


API, JOB = "api.Resources.Api.Properties", "training.Resources.Job.Properties.ContainerProperties"
BUCKET = "api.Resources.ModelBucket"
PATHS = f"{API}.DefinitionBody.paths"
MACHINES = "training.Resources.MachineTemplate.Properties.LaunchTemplateData.MetadataOptions"
PREDICTS = "api.Resources.PredictFunction.Properties.Policies.0.Statement"
TRAINS = "training.Resources.TrainerRole.Properties.Policies.0.PolicyDocument.Statement"
FORMAT = f"{API}.AccessLogSetting.Fn::If.1.Format"
ORDERS = "api.Resources.BatchesFunction.Properties.Policies.0.Statement"
SPREADS = "events.Resources.SpreadRole.Properties.Policies.0.PolicyDocument.Statement"
TRUST = "events.Resources.SpreadRole.Properties.AssumeRolePolicyDocument.Statement"
ASKS = "api.Resources.AuthorizeFunction.Properties"
VARIABLES = "api.Resources.PredictFunction.Properties.Environment.Variables"
SCHEMES, CHECKS = f"{API}.DefinitionBody.components.securitySchemes", "x-amazon-apigateway-authorizer"
LOAD = "/v2/repository/models/{model}/load.x-amazon-apigateway-any-method"

STARTER = "StartTrainingFunction"
STARTS = f"api.Resources.{STARTER}.Properties.Policies.0.Statement"
START = "/v1/trainings.x-amazon-apigateway-any-method"

MUTATIONS: list[tuple[Rule, Callable[[Templates], None]]] = [
    (rights_are_named, changed(f"{PREDICTS}.0.Action", "s3:*")),
    (rights_are_named, changed(f"{PREDICTS}.0.Resource", "*")),
    (rights_are_named, allowed("training", "TrainerRole", "s3:Put*", "models/*/versions/*")),
    (objects_are_reached_below_a_folder, allowed("api", "PredictFunction", "s3:GetObject", "*")),
    (objects_are_reached_below_a_folder, changed(f"{TRAINS}.5.Condition", None)),
    (who_predicts_writes_nothing, allowed("api", "PredictFunction", "s3:PutObject", "outbox/*")),
    (who_predicts_writes_nothing, allowed("api", "PredictFunction", "s3:DeleteObject", "models/*")),
    (who_predicts_writes_nothing, changed("api.Parameters.LargeAnswers.Default", "on")),
    (who_predicts_writes_nothing, allowed("api", "PredictFunction", "s3:PutObject", "answers/*")),
    (who_predicts_writes_nothing, changed(f"{PREDICTS}.1.Fn::If.1.Resource.Fn::Sub", "${ModelBucket.Arn}/models/*")),
    (who_predicts_writes_nothing, changed(f"{PREDICTS}.1.Fn::If.0", "HasDataKey")),
    (who_orders_batches_reaches_no_model, allowed("api", "BatchesFunction", "s3:GetObject", "*")),
    (who_orders_batches_reaches_no_model, allowed("api", "BatchesFunction", "s3:PutObject", "inbox/*")),
    (who_orders_batches_reaches_no_model, allowed("api", "BatchesFunction", "s3:PutObject", "outbox/batches/*")),
    (who_answers_writes_no_order, allowed("events", "BatchFunction", "s3:PutObject", "batches/*")),
    (who_answers_writes_no_order, allowed("events", "BatchFunction", "s3:DeleteObject", "uploads/*")),
    (words_on_the_bus_are_ours, changed(f"{ORDERS}.3.Condition", None)),
    (words_on_the_bus_are_ours, changed(f"{ORDERS}.3.Condition.StringEquals.events:source", "aws.s3")),
    (the_machine_reaches_its_own_things, changed(f"{SPREADS}.0.Resource.Fn::GetAtt", "QueueFunction.Arn")),
    (the_machine_reaches_its_own_things, changed(f"{SPREADS}.1.Resource.Fn::Sub", "arn:aws:s3:::${ModelBucket}/*")),
    (the_machine_reaches_its_own_things, changed(f"{SPREADS}.2.Resource.Fn::Sub", "arn:aws:states:::stateMachine:x")),
    (the_machine_reaches_its_own_things, changed(f"{TRUST}.0.Condition", None)),
    (uploads_are_forgotten, changed(f"{BUCKET}.Properties.LifecycleConfiguration.Rules.4.Prefix", "uploaded/")),
    (who_checks_tokens_may_do_nothing_else, changed(f"{ASKS}.Policies", [])),
    (who_checks_tokens_may_do_nothing_else, changed(f"{ASKS}.Tracing", "Active")),
    (who_checks_tokens_may_do_nothing_else, changed(f"{ASKS}.Layers", [{"Ref": "DepsLayer"}])),
    (tokens_are_checked_before_they_count, changed(f"{SCHEMES}.token.Fn::If.0", "AsksForKey")),
    (tokens_are_checked_before_they_count, changed(f"{SCHEMES}.token.Fn::If.1.{CHECKS}", {})),
    (
        tokens_are_checked_before_they_count,
        changed(f"{SCHEMES}.token.Fn::If.1.{CHECKS}.authorizerResultTtlInSeconds", 3600),
    ),
    (tokens_are_checked_before_they_count, changed("api.Rules.TokensHaveAnIssuer.Assertions.1", {})),
    (tokens_are_checked_before_they_count, changed("api.Parameters.JwtKeys.AllowedPattern", "https?://.+")),
    (aliases_are_moved_by_few, allowed("training", "TrainerRole", "s3:PutObject", "models/*/aliases/*")),
    (aliases_are_moved_by_few, allowed("training", "TrainerRole", "s3:PutObject", "models/*")),
    (aliases_are_moved_by_few, allowed("training", "TrainerRole", "s3:DeleteObject", "models/*")),
    (aliases_are_moved_by_few, allowed("training", "PullRole", "s3:PutObject", "*/champion.json")),
    (aliases_are_moved_by_few, allowed("api", "ModelsFunction", "s3:DeleteObject", "models/*/aliases/*")),
    (weights_are_written_by_the_trainer_alone, allowed("api", "ModelsFunction", "s3:PutObject", "models/*")),
    (
        weights_are_written_by_the_trainer_alone,
        allowed("api", "PromoteFunction", "s3:PutObject", "models/*/versions/*"),
    ),
    (manifests_are_never_replaced, changed(f"{TRAINS}.3.Effect", "Allow")),
    (manifests_are_never_replaced, changed(f"{TRAINS}.3.Condition", {"Null": {"s3:if-none-match": "false"}})),
    (what_runs_say_is_written_by_the_trainer_alone, allowed("api", "ModelsFunction", "s3:PutObject", "runs/*")),
    (what_runs_say_is_written_by_the_trainer_alone, allowed("api", STARTER, "s3:DeleteObject", "runs/*")),
    (who_starts_trainings_writes_orders_alone, allowed("api", STARTER, "s3:PutObject", "runs/*/metrics.jsonl")),
    (who_starts_trainings_writes_orders_alone, allowed("api", STARTER, "s3:PutObject", "data/*")),
    (aliases_are_moved_by_few, allowed("api", STARTER, "s3:PutObject", "models/*/aliases/*")),
    (weights_are_written_by_the_trainer_alone, allowed("api", STARTER, "s3:PutObject", "models/*/versions/*")),
    (who_starts_trainings_does_so_in_its_stack, changed(f"{STARTS}.2.Fn::If.1.Resource", "*")),
    (who_starts_trainings_does_so_in_its_stack, changed(f"{STARTS}.3.Fn::If.1.Condition", None)),
    (who_starts_trainings_does_so_in_its_stack, changed(f"{STARTS}.4.Fn::If.1.Condition", None)),
    (who_starts_trainings_does_so_in_its_stack, changed(f"{PREDICTS}.0.Action", "batch:SubmitJob")),
    (rights_are_named, changed(f"{STARTS}.6.Fn::If.1.Action", "logs:*")),
    (every_route_asks_for_what_the_mode_says, changed(f"{PATHS}.{START}.security", [])),
    (the_bucket_is_private_and_kept, changed(f"{BUCKET}.DeletionPolicy", "Delete")),
    (
        the_bucket_is_private_and_kept,
        changed(f"{BUCKET}.Properties.PublicAccessBlockConfiguration.BlockPublicAcls", False),
    ),
    (the_bucket_is_private_and_kept, changed(f"{BUCKET}.Properties.BucketEncryption", None)),
    (the_bucket_asks_for_tls, changed("api.Resources.ModelBucketPolicy.Properties.PolicyDocument.Statement", [])),
    (no_body_is_logged, changed(f"{API}.MethodSettings.0.DataTraceEnabled", True)),
    (no_body_is_logged, changed(FORMAT, '{"body":"$context.authorizer.claims"}')),
    (every_route_asks_for_what_the_mode_says, changed(f"{PATHS}.{LOAD}.security", [])),
    (every_route_asks_for_what_the_mode_says, changed(f"{PATHS}./invocations", None)),
    (every_route_asks_for_what_the_mode_says, changed(f"{PATHS}./v2.x-amazon-apigateway-any-method.security", [])),
    (every_route_leads_to_its_function, changed(f"{PATHS}.{LOAD}.x-amazon-apigateway-integration", {})),
    (a_private_api_answers_its_endpoint_alone, changed(f"{API}.DefinitionBody.x-amazon-apigateway-policy", None)),
    (machines_are_closed, changed(f"{MACHINES}.HttpTokens", "optional")),
    (machines_are_closed, changed(f"{MACHINES}.HttpPutResponseHopLimit", 2)),
    (machines_are_closed, changed("training.Resources.MachinesIn.Properties.SourceSecurityGroupId", None)),
    (machines_are_closed, changed(f"{JOB}.Privileged", True)),
    (who_predicts_writes_nothing, unconditional("api", "PredictFunction", "s3:PutObject")),
    (who_predicts_writes_nothing, unconditional("api", "PredictFunction", "kms:GenerateDataKey")),
    (who_predicts_writes_nothing, allowed("api", "PredictFunction", "s3:PutObject", "captures/*")),
    (captures_are_off_unless_asked_for, changed("api.Parameters.CaptureRate.Default", 0.01)),
    (captures_are_off_unless_asked_for, changed("events.Conditions.Captures", {"Fn::Not": [{"Ref": "CaptureRate"}]})),
    (captures_are_only_ever_added, unconditional("api", "PredictFunction", "s3:PutObject", "Deny")),
    (captures_are_only_ever_added, unconditional("events", "BatchFunction", "s3:PutObject", "Deny")),
    (captures_are_only_ever_added, unconditional("events", "BatchFunction", "s3:PutObject")),
    (captures_are_only_ever_added, allowed("api", "PromoteFunction", "s3:PutObject", "captures/*")),
    (captures_are_read_by_few, allowed("api", "PredictFunction", "s3:GetObject", "captures/*")),
    (captures_are_read_by_few, allowed("api", "ModelsFunction", "s3:GetObject", "secrets/*")),
    (captures_are_read_by_few, allowed("api", "PredictFunction", "s3:PutObject", "secrets/capture-key")),
    (who_looks_for_drift_writes_reports_alone, allowed("api", "DriftFunction", "s3:PutObject", "captures/*")),
    (who_looks_for_drift_writes_reports_alone, allowed("api", "DriftFunction", "s3:DeleteObject", "captures/*")),
    (captures_are_forgotten, changed(f"{BUCKET}.Properties.LifecycleConfiguration.Rules", [])),
    (logs_are_forgotten, changed("api.Resources.PredictLogs.Properties.RetentionInDays", None)),
    (no_secret_is_a_variable, changed(f"{VARIABLES}.API_KEY", "x")),
    (no_secret_is_a_variable, changed(f"{VARIABLES}.PILOTLIGHT_MODEL", "{{resolve:secretsmanager:x}}")),
    (no_secret_is_a_variable, changed("api.Parameters.InvocationsModel.NoEcho", True)),
    (payloads_are_kept_where_that_is_asked_for_alone, changed("api.Parameters.CaptureRate", {"Default": 1})),
]


@pytest.mark.parametrize("number", range(len(MUTATIONS)))
def test_a_template_that_breaks_the_rule_is_found(number: int) -> None:
    rule, change = MUTATIONS[number]
    broken = copy.deepcopy(TEMPLATES)
    change(broken)
    assert list(rule(broken)) != []


def test_every_rule_is_broken_once_at_least() -> None:
    assert {rule.__name__ for rule, _ in MUTATIONS} == {rule.__name__ for rule in RULES}
