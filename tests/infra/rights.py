"""Who may do what, read from the templates: rules, and for each a change of the templates that breaks it."""

import itertools
from collections.abc import Iterator
from fnmatch import fnmatchcase

from pilotlight.aws.eventbridge import INFERENCE_DETAIL_TYPE
from tests.infra.templates import (
    Change,
    Rule,
    Templates,
    allowed,
    changed,
    conditional,
    keys,
    listed,
    may,
    roles,
    statements,
    unconditional,
)

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
PUBLISHERS = {"TrainerRole", "ModelsFunction"}  # who trains, and who signs uploads for holders of the scope admin
MOVERS = {"PromoteFunction", "ModelsFunction"}  # the promoter, and who holds a key with the scope admin


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
        if (condition, list(keys(one))) in [("CaptureEnabled", ["captures/*"]), ("StoresLargeAnswers", ["answers/*"])]:
            beyond -= {"s3:PutObject"}
        if condition in {"CaptureUsesDataKey", "StoresLargeAnswersWithDataKey"}:
            beyond -= {"kms:GenerateDataKey"}
        if beyond:
            yield f"PredictFunction may do {beyond}"


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
                or told.get("events:detail-type") != INFERENCE_DETAIL_TYPE
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


def aliases_are_moved_by_few(templates: Templates) -> Iterator[str]:
    for name, resource in roles(templates):
        for action in ("s3:PutObject", "s3:DeleteObject"):
            if may(resource, action, ALIAS) and (name not in MOVERS or action == "s3:DeleteObject"):
                yield f"{name} may do {action} to {ALIAS}"


def weights_are_written_by_few(templates: Templates) -> Iterator[str]:
    for name, resource in roles(templates):
        if name not in PUBLISHERS and may(resource, "s3:PutObject", WEIGHTS):
            yield f"{name} may write {WEIGHTS}"


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
        if conditions != {"CaptureEnabled"}:
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


RULES: list[Rule] = [
    rights_are_named, objects_are_reached_below_a_folder, who_predicts_writes_nothing,
    who_orders_batches_reaches_no_model, who_answers_writes_no_order, words_on_the_bus_are_ours,
    the_machine_reaches_its_own_things, aliases_are_moved_by_few,
    weights_are_written_by_few,
    what_runs_say_is_written_by_the_trainer_alone, who_starts_trainings_writes_orders_alone,
    who_starts_trainings_does_so_in_its_stack, captures_are_only_ever_added, captures_are_read_by_few,
    who_looks_for_drift_writes_reports_alone,
]  # fmt: skip


# --- and each rule, broken on purpose ---------------------------------------------------------------------------------

PREDICTS = "api.Resources.PredictFunction.Properties.Policies.0.Statement"
TRAINS = "training.Resources.TrainerRole.Properties.Policies.0.PolicyDocument.Statement"
ORDERS = "api.Resources.BatchesFunction.Properties.Policies.0.Statement"
SPREADS = "events.Resources.SpreadRole.Properties.Policies.0.PolicyDocument.Statement"
TRUST = "events.Resources.SpreadRole.Properties.AssumeRolePolicyDocument.Statement"
ASKS = "api.Resources.AuthorizeFunction.Properties"
STARTER = "StartTrainingFunction"
STARTS = f"api.Resources.{STARTER}.Properties.Policies.0.Statement"

MUTATIONS: list[tuple[Rule, Change]] = [
    (rights_are_named, changed(f"{PREDICTS}.0.Action", "s3:*")),
    (rights_are_named, changed(f"{PREDICTS}.0.Resource", "*")),
    (rights_are_named, allowed("training", "TrainerRole", "s3:Put*", "models/*/versions/*")),
    (objects_are_reached_below_a_folder, allowed("api", "PredictFunction", "s3:GetObject", "*")),
    (objects_are_reached_below_a_folder, changed(f"{TRAINS}.9.Condition", None)),
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
    (aliases_are_moved_by_few, allowed("training", "TrainerRole", "s3:PutObject", "models/*/aliases/*")),
    (aliases_are_moved_by_few, allowed("training", "TrainerRole", "s3:PutObject", "models/*")),
    (aliases_are_moved_by_few, allowed("training", "TrainerRole", "s3:DeleteObject", "models/*")),
    (aliases_are_moved_by_few, allowed("training", "PullRole", "s3:PutObject", "*/champion.json")),
    (aliases_are_moved_by_few, allowed("api", "ModelsFunction", "s3:DeleteObject", "models/*/aliases/*")),
    (weights_are_written_by_few, allowed("api", "DriftFunction", "s3:PutObject", "models/*")),
    (
        weights_are_written_by_few,
        allowed("api", "PromoteFunction", "s3:PutObject", "models/*/versions/*"),
    ),
    (what_runs_say_is_written_by_the_trainer_alone, allowed("api", "ModelsFunction", "s3:PutObject", "runs/*")),
    (what_runs_say_is_written_by_the_trainer_alone, allowed("api", STARTER, "s3:DeleteObject", "runs/*")),
    (who_starts_trainings_writes_orders_alone, allowed("api", STARTER, "s3:PutObject", "runs/*/metrics.jsonl")),
    (who_starts_trainings_writes_orders_alone, allowed("api", STARTER, "s3:PutObject", "data/*")),
    (aliases_are_moved_by_few, allowed("api", STARTER, "s3:PutObject", "models/*/aliases/*")),
    (weights_are_written_by_few, allowed("api", STARTER, "s3:PutObject", "models/*/versions/*")),
    (who_starts_trainings_does_so_in_its_stack, changed(f"{STARTS}.2.Fn::If.1.Resource", "*")),
    (who_starts_trainings_does_so_in_its_stack, changed(f"{STARTS}.3.Fn::If.1.Condition", None)),
    (who_starts_trainings_does_so_in_its_stack, changed(f"{STARTS}.4.Fn::If.1.Condition", None)),
    (who_starts_trainings_does_so_in_its_stack, changed(f"{PREDICTS}.0.Action", "batch:SubmitJob")),
    (rights_are_named, changed(f"{STARTS}.6.Fn::If.1.Action", "logs:*")),
    (who_predicts_writes_nothing, unconditional("api", "PredictFunction", "s3:PutObject")),
    (who_predicts_writes_nothing, unconditional("api", "PredictFunction", "kms:GenerateDataKey")),
    (who_predicts_writes_nothing, allowed("api", "PredictFunction", "s3:PutObject", "captures/*")),
    (captures_are_only_ever_added, unconditional("api", "PredictFunction", "s3:PutObject", "Deny")),
    (captures_are_only_ever_added, unconditional("events", "BatchFunction", "s3:PutObject", "Deny")),
    (captures_are_only_ever_added, unconditional("events", "BatchFunction", "s3:PutObject")),
    (captures_are_only_ever_added, allowed("api", "PromoteFunction", "s3:PutObject", "captures/*")),
    (captures_are_read_by_few, allowed("api", "PredictFunction", "s3:GetObject", "captures/*")),
    (captures_are_read_by_few, allowed("api", "ModelsFunction", "s3:GetObject", "secrets/*")),
    (captures_are_read_by_few, allowed("api", "PredictFunction", "s3:PutObject", "secrets/capture-key")),
    (who_looks_for_drift_writes_reports_alone, allowed("api", "DriftFunction", "s3:PutObject", "captures/*")),
    (who_looks_for_drift_writes_reports_alone, allowed("api", "DriftFunction", "s3:DeleteObject", "captures/*")),
]


# --- keys -------------------------------------------------------------------------------------------------------------

KEY_DOCUMENT = "keys/aaaaaaaaaaaa.json"
KEY_READER = "AuthorizeFunction"


def keys_are_read_by_the_authorizer_alone(templates: Templates) -> Iterator[str]:
    for name, resource in roles(templates):
        if name != KEY_READER and may(resource, "s3:GetObject", KEY_DOCUMENT):
            yield f"{name} may read {KEY_DOCUMENT}"
        for action in ("s3:PutObject", "s3:DeleteObject"):
            if may(resource, action, KEY_DOCUMENT):
                yield f"{name} may do {action} to {KEY_DOCUMENT}"


def the_authorizer_reads_keys_alone(templates: Templates) -> Iterator[str]:
    authorizer = templates["api"]["Resources"][KEY_READER]
    for one in statements(authorizer):
        if beyond := set(listed(one["Action"])) - READS:
            yield f"{KEY_READER} may do {beyond}"
        if "s3:GetObject" in listed(one["Action"]) and set(keys(one)) != {"keys/*"}:
            yield f"{KEY_READER} reads {set(keys(one))}"
        if "s3:ListBucket" in listed(one["Action"]) and "'keys/*'" not in str(one.get("Condition")):
            yield f"{KEY_READER} lists more than keys"
    if authorizer["Properties"].get("Tracing") != "Disabled":
        yield f"{KEY_READER} may send traces"


RULES += [keys_are_read_by_the_authorizer_alone, the_authorizer_reads_keys_alone]
MUTATIONS += [
    (keys_are_read_by_the_authorizer_alone, allowed("api", "PredictFunction", "s3:GetObject", "keys/*")),
    (keys_are_read_by_the_authorizer_alone, allowed("api", "ModelsFunction", "s3:PutObject", "keys/*")),
    (keys_are_read_by_the_authorizer_alone, allowed("api", KEY_READER, "s3:PutObject", "keys/*")),
    (keys_are_read_by_the_authorizer_alone, allowed("api", "BatchesFunction", "s3:DeleteObject", "k*")),
    (keys_are_read_by_the_authorizer_alone, allowed("training", "TrainerRole", "s3:GetObject", "*.json")),
    (the_authorizer_reads_keys_alone, allowed("api", KEY_READER, "s3:GetObject", "models/*")),
    (the_authorizer_reads_keys_alone, allowed("api", KEY_READER, "s3:DeleteObject", "models/*")),
    (the_authorizer_reads_keys_alone, changed(f"{ASKS}.Tracing", "Active")),
    (the_authorizer_reads_keys_alone, changed(f"{ASKS}.Policies.0.Statement.2.Condition", None)),
]
