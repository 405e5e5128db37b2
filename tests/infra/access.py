"""The matrix of rights: who may do what, told once here, and asked of an evaluator of IAM that nobody here wrote.

The evaluator is that of ministack (MIT), an emulator of AWS, of which this imports one module. The table in
infra/decisions/0047 is printed by `python -m tests.infra.access`. A stack is asked with every option on, which gives
the most rights.
"""

import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ministack.core import iam_evaluator

from pilotlight.local import intrinsics
from pilotlight.local.intrinsics import UnresolvedValue
from tests.infra.templates import Change, Rule, Template, Templates, changed, listed, roles

BUCKET, ACCOUNT, REGION = "models-of-this-stack", "123456789012", "eu-central-1"
VALUES = {  # of parameters and resources that policies name
    "AWS::Partition": "aws", "AWS::AccountId": ACCOUNT, "AWS::Region": REGION, "AWS::StackName": "this",
    "ModelBucket": BUCKET, "ModelBucket.Arn": f"arn:aws:s3:::{BUCKET}",
    "SigningKey": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/sign", "DataKey": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/data",
    "ReplyQueues": [f"arn:aws:sqs:{REGION}:{ACCOUNT}:replies"],
}  # fmt: skip
BUS = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default"
JOB = f"arn:aws:batch:{REGION}:{ACCOUNT}:job/1"
CREATED = {"s3:if-none-match": "*", "s3:objectcreationoperation": "true"}
WRITTEN = {"s3:objectcreationoperation": "true"}
PART = {"s3:objectcreationoperation": "false"}

ACTORS = {  # by the words of the table; the last two hold no role of the stack
    "caller": "PredictFunction", "generator": "GenerateFunction", "batch caller": "BatchesFunction",
    "batch worker": "BatchFunction",
    "starter": "StartTrainingFunction", "trainer": "TrainerRole", "promoter": "PromoteFunction",
    "registry": "ModelsFunction", "drift": "DriftFunction", "authorizer": "AuthorizeFunction",
    "administrator": "", "anybody": "",
}  # fmt: skip
ADMINISTRATOR = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}  # of the account


@dataclass(frozen=True)
class Deed:
    """Something that one may do or not: a call of AWS, and who may make it besides the account's administrator."""

    name: str
    action: str
    resource: str  # a key of the bucket, or an ARN
    who: str = ""  # actors, with commas between them
    context: Mapping[str, str] = field(default_factory=dict)
    guarded: bool = False  # the bucket's policy refuses it to everybody, the administrator too
    twice: bool = True  # who may not would not either without the bucket's policy

    @property
    def arn(self) -> str:
        """What it is done to."""
        return self.resource if self.resource.startswith(("arn:", "!")) else f"arn:aws:s3:::{BUCKET}/{self.resource}"

    @property
    def actors(self) -> set[str]:
        """Who may do it."""
        return {name.strip() for name in self.who.split(",") if name} | (set() if self.guarded else {"administrator"})


def put(name: str, key: str, who: str = "", context: Mapping[str, str] = WRITTEN, **more: bool) -> Deed:
    return Deed(name, "s3:PutObject", key, who, context, **more)


def get(name: str, key: str, who: str = "") -> Deed:
    return Deed(name, "s3:GetObject", key, who)


def delete(name: str, key: str, who: str = "") -> Deed:
    return Deed(name, "s3:DeleteObject", key, who)


VERSION = "models/digits/versions/1"
DEEDS = (
    get("read weights", f"{VERSION}/model.onnx", "caller, generator, batch worker, trainer, promoter, registry, drift"),
    put("write a file of a new version", f"{VERSION}/model.onnx", "trainer, registry", CREATED),
    put("upload a part of such a file", f"{VERSION}/model.onnx", "trainer", PART),
    put("overwrite weights", f"{VERSION}/model.onnx", guarded=True),
    put("commit a version, or restore its manifest", f"{VERSION}/manifest.json", "trainer, registry", CREATED),
    put("overwrite a manifest", f"{VERSION}/manifest.json", guarded=True),
    put("claim a number", f"{VERSION}/claim.json", "trainer, registry", CREATED),
    put("announce what is uploaded", f"{VERSION}/upload.json", "trainer, registry", CREATED),
    put("replace what was announced", f"{VERSION}/upload.json", guarded=True),
    delete("delete a version", f"{VERSION}/manifest.json", "registry"),
    delete("delete a claim, so that its number comes again", f"{VERSION}/claim.json"),
    put("approve", "approvals/digits/1.json", "registry"),
    put("approve beside the version", f"{VERSION}/approval.json", "", CREATED),
    put("write a verdict", "verdicts/digits/1.json", "promoter"),
    put("write a verdict beside the version", f"{VERSION}/verdict.json", "", CREATED),
    put("store a signature", "signatures/digits/1.json", "promoter"),
    put("store a signature beside the version", f"{VERSION}/signature.json", "", CREATED),
    Deed("sign", "kms:Sign", str(VALUES["SigningKey"]), "promoter"),
    delete("delete a verdict, with its version", "verdicts/digits/1.json", "registry"),
    put("move an alias", "models/digits/aliases/champion.json", "promoter, registry"),
    delete("delete an alias", "models/digits/aliases/champion.json"),
    put("add to the history of an alias", "models/digits/history/champion/1.json", "promoter, registry", CREATED),
    put("rewrite the history of an alias", "models/digits/history/champion/1.json", guarded=True, twice=False),
    put("ask for a promotion, or answer that", "models/digits/promotions/a.json", "promoter, registry"),
    get("read a recipe", "runs/monday/recipe.yaml", "starter, trainer"),
    put("write a recipe", "runs/monday/recipe.yaml", "starter, trainer", CREATED),
    put("replace a recipe", "runs/monday/recipe.yaml", "starter"),
    put("write a run's job", "runs/monday/job.json", "starter"),
    put("write what a run says of itself", "runs/monday/metrics.jsonl", "trainer"),
    delete("remove a checkpoint", "runs/monday/checkpoints/step-1/manifest.json", "trainer"),
    delete("delete a recipe", "runs/monday/recipe.yaml"),
    delete("delete what a run says of itself", "runs/monday/published.json"),
    get("read training data", "data/digits.csv", "trainer"),
    put("write training data", "data/digits.csv"),
    get("read captures", "captures/digits/1/a.jsonl.gz", "drift"),
    put("add captures", "captures/digits/1/a.jsonl.gz", "caller, batch worker", CREATED),
    put("replace captures", "captures/digits/1/a.jsonl.gz"),
    get("read the key of captures' hashes", "secrets/capture-key", "caller, batch worker, drift"),
    put("create the key of captures' hashes", "secrets/capture-key", "drift", CREATED),
    put("replace the key of captures' hashes", "secrets/capture-key"),
    get("read callers' keys", "keys/acme.json", "authorizer"),
    put("write callers' keys", "keys/acme.json"),
    put("write a drift report", "drift/digits/1.json", "drift"),
    put("order or cancel a batch", "batches/1/order.json", "batch caller"),
    put("put answers of a batch", "outbox/batches/1/output.jsonl", "batch worker"),
    put("put an answer that is too large to send", "answers/1/0", "caller"),
    get("read answers of a batch", "outbox/batches/1/output.jsonl", "batch caller, batch worker"),
    put("upload a file", "uploads/1/content", "batch caller"),
    get("read an upload", "uploads/1/content", "caller, batch caller, batch worker"),
    put("put a file into the inbox", "inbox/a.jsonl"),
    get("read a file of the inbox", "inbox/a.jsonl", "batch worker"),
    Deed("tell the batch worker of a batch", "events:PutEvents", BUS, "batch caller",
         {"events:source": "pilotlight.batches", "events:detail-type": "Pilotlight Inference"}),
    Deed("tell the batch worker to go on", "events:PutEvents", BUS, "batch worker",
         {"events:source": "pilotlight.batch", "events:detail-type": "Pilotlight Inference"}),
    Deed("send other events", "events:PutEvents", BUS, "",
         {"events:source": "x", "events:detail-type": "Object Created"}),
    Deed("ask the promoter", "lambda:InvokeFunction", "!GetAtt PromoteFunction.Arn", "registry"),
    Deed("end a job of this stack", "batch:TerminateJob", JOB, "starter", {"aws:resourcetag/pilotlight-stack": "this"}),
    Deed("end a job of another stack", "batch:TerminateJob", JOB, "", {"aws:resourcetag/pilotlight-stack": "other"}),
)  # fmt: skip


# --- asking -----------------------------------------------------------------------------------------------------------


class EverythingOn(dict[str, bool]):
    """Conditions of a template, all of which hold."""

    def __bool__(self) -> bool:
        return True

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> bool:
        return True


def resolved(node: Any) -> Any:  # noqa: ANN401 - a YAML tree
    """A part of a template with values for its functions; what only AWS knows stays as the template writes it."""
    return flattened(intrinsics.resolve_intrinsics(node, VALUES, EverythingOn()))


def flattened(node: Any) -> Any:  # noqa: ANN401 - a YAML tree
    if isinstance(node, UnresolvedValue):
        return node.text
    if isinstance(node, dict):
        return {key: flattened(value) for key, value in node.items()}
    return [flattened(value) for value in node] if isinstance(node, list) else node


def documents(resource: Template) -> list[Template]:
    """The policies of a function or a role."""
    policies = resource["Properties"].get("Policies", [])
    return [resolved(policy.get("PolicyDocument", policy)) for policy in policies]


def is_allowed(deed: Deed, policies: list[Template], bucket_policy: Template | None) -> bool:
    """What the evaluator says of who has these policies."""
    request = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/role/session", principal_type="AssumedRole",
        principal_account=ACCOUNT, action=deed.action, resource_arn=deed.arn, region=REGION, secure_transport=True,
        service_context=dict(deed.context),
    )  # fmt: skip
    verdict = iam_evaluator.evaluate(request, [iam_evaluator.parse_policy_document(each) for each in policies])
    if bucket_policy is not None and deed.arn.startswith("arn:aws:s3:::"):
        verdict = iam_evaluator.combine_resource_policy(verdict, request, bucket_policy, ACCOUNT)
    return bool(verdict.decision == "Allow")


def rights_are_those_of_the_matrix(templates: Templates) -> Iterator[str]:
    """Every role, also one that the matrix does not know; with the bucket's policy, and by the role's own alone."""
    known = {logical: actor for actor, logical in ACTORS.items() if logical}
    bucket_policy = resolved(templates["api"]["Resources"]["ModelBucketPolicy"]["Properties"]["PolicyDocument"])
    holders = {known.get(name, name): documents(resource) for name, resource in roles(templates)}
    for actor in (*holders, "administrator", "anybody"):
        policies = [ADMINISTRATOR] if actor == "administrator" else holders.get(actor, [])
        for deed in DEEDS:
            may, should = is_allowed(deed, policies, bucket_policy), actor in deed.actors
            if may != should:
                yield f"{actor} {'may' if may else 'may not'} {deed.name}"
            elif not should and deed.twice and actor != "administrator" and is_allowed(deed, policies, None):
                yield f"{actor} would {deed.name}, were it not for the bucket's policy"


# --- and each cell, broken on purpose ---------------------------------------------------------------------------------


@cache
def logical_file(templates_of: str) -> str:
    """The template in which a role of that name stands."""
    from tests.infra.templates import TEMPLATES

    return next(file for file, template in TEMPLATES.items() if templates_of in template["Resources"])


def granted(actor: str, deed: Deed) -> Change:
    """One more right, without what forbids it."""

    def change(templates: Templates) -> None:
        logical = ACTORS[actor]
        resource = templates[logical_file(logical)]["Resources"][logical]
        policy = resource["Properties"].setdefault("Policies", [{"Statement": []}])[0]
        right = {"Effect": "Allow", "Action": deed.action, "Resource": deed.arn}
        document = policy.get("PolicyDocument", policy)
        document["Statement"] = [*without_denials(document["Statement"], deed), right]
        guard = templates["api"]["Resources"]["ModelBucketPolicy"]["Properties"]["PolicyDocument"]
        guard["Statement"] = without_denials(guard["Statement"], deed)

    change.__doc__ = f"{actor} may {deed.name}"
    return change


def without_denials(statements: list[Template], deed: Deed) -> list[Template]:
    return [
        one
        for one in statements
        if not (resolved([one])[0]["Effect"] == "Deny" and deed.action in listed(resolved([one])[0]["Action"]))
    ]


def forbidden_cells() -> Iterator[tuple[str, Deed]]:
    """Every role of the stack with each thing that it may not do."""
    return ((actor, deed) for actor, logical in ACTORS.items() if logical for deed in DEEDS if actor not in deed.actors)


def lightly_copied(templates: Templates, logical: str) -> Templates:
    """A copy in which one role and the bucket's policy can be changed, and the rest is shared."""
    own = {logical_file(logical): logical, "api": "ModelBucketPolicy"}
    copied = {file: {**template, "Resources": dict(template["Resources"])} for file, template in templates.items()}
    for file, name in (*own.items(), (logical_file(logical), logical)):
        copied[file]["Resources"][name] = copy.deepcopy(templates[file]["Resources"][name])
    return copied


def is_noticed(templates: Templates, actor: str, deed: Deed) -> bool:
    """Whether the rule says so when a cell is broken; asked of that cell alone, since there are hundreds."""
    broken = lightly_copied(templates, ACTORS[actor])
    granted(actor, deed)(broken)
    bucket_policy = resolved(broken["api"]["Resources"]["ModelBucketPolicy"]["Properties"]["PolicyDocument"])
    resource = broken[logical_file(ACTORS[actor])]["Resources"][ACTORS[actor]]
    return is_allowed(deed, documents(resource), bucket_policy)


# --- the table --------------------------------------------------------------------------------------------------------


def table() -> str:
    """The matrix in Markdown."""
    head = ["", *ACTORS]
    rows = [[deed.name, *("x" if actor in deed.actors else "" for actor in ACTORS)] for deed in DEEDS]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)) + "\n"


GUARD = "api.Resources.ModelBucketPolicy.Properties.PolicyDocument.Statement"
TRAINS = "training.Resources.TrainerRole.Properties.Policies.0.PolicyDocument.Statement"
REGISTERS = "api.Resources.ModelsFunction.Properties.Policies.0.Statement"
RULES: list[Rule] = [rights_are_those_of_the_matrix]
MUTATIONS: list[tuple[Rule, Change]] = [
    (rights_are_those_of_the_matrix, changed(f"{GUARD}.1", None)),
    (rights_are_those_of_the_matrix, changed(f"{GUARD}.1.Condition.Null", None)),
    (rights_are_those_of_the_matrix, changed(f"{GUARD}.1.Condition.Bool", None)),
    (rights_are_those_of_the_matrix, changed(f"{GUARD}.1.Resource.1", None)),
    (rights_are_those_of_the_matrix, changed(f"{TRAINS}.3.Effect", "Allow")),
    (rights_are_those_of_the_matrix, changed(f"{TRAINS}.4.Effect", "Allow")),
    (rights_are_those_of_the_matrix, changed(f"{TRAINS}.6.Effect", "Allow")),
    (rights_are_those_of_the_matrix, changed(f"{TRAINS}.7.Resource.0", None)),
    (rights_are_those_of_the_matrix, changed(f"{TRAINS}.7.Resource.1", None)),
    (rights_are_those_of_the_matrix, changed(f"{TRAINS}.7.Resource.2", None)),
    (rights_are_those_of_the_matrix, changed(f"{TRAINS}.2.Resource", f"arn:aws:s3:::{BUCKET}/runs/*")),
    (rights_are_those_of_the_matrix, changed(f"{REGISTERS}.2", None)),
    (rights_are_those_of_the_matrix, changed(f"{REGISTERS}.3.Resource.0", None)),
    (rights_are_those_of_the_matrix, changed(f"{REGISTERS}.3.Resource.1", None)),
    (rights_are_those_of_the_matrix, changed(f"{REGISTERS}.3.Resource.2", None)),
    (rights_are_those_of_the_matrix, changed(f"{REGISTERS}.5", None)),
]  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(table())
