"""The stack keeps a distance from AWS's limits, and deploy.md says how far it is from them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra import quotas
from tests.infra.cloud import FILES, Template
from tests.infra.quotas import LongestValues, Usage

PAGE = Path(__file__).parents[2] / "infra" / "docs" / "deploy.md"
STALE_SHARE = 0.15  # of a limit's use, by which the page may differ from the templates


@pytest.fixture(scope="module", autouse=True)
def region() -> Iterator[None]:
    """SAM's translator asks boto3 for the region, as it does on a machine with credentials."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield


@pytest.fixture(scope="module")
def usages() -> list[Usage]:
    return quotas.measure()


def test_nothing_is_near_its_limit(usages: list[Usage]) -> None:
    """The body without a bucket is told, not demanded: `sam deploy` always sends templates by S3."""
    near = [
        quotas.format_usage(usage)
        for usage in usages
        if usage.share > quotas.ALLOWED_SHARE and usage.what != quotas.INLINE
    ]
    assert near == []


def test_every_template_and_every_kind_of_limit_is_measured(usages: list[Usage]) -> None:
    """A type of resource that disappears from the templates takes its row along, and fails here."""
    sized = {usage.where for usage in usages if usage.what == "template in S3, bytes"}
    assert sized == {str(path.relative_to(quotas.ROOT)) for path in FILES.values()}
    kinds = {usage.what for usage in usages}
    for kind in quotas.MEASURES:
        assert any(kind == resource["Type"] for name in FILES for resource in resources(name)), kind
    assert {f"{section} of a template" for section in ("resources", "parameters", "outputs", "mappings")} <= kinds
    roles = {usage.where for usage in usages if usage.what.startswith("inline policies")}
    assert {"PredictFunctionRole", "BatchFunctionRole", "TrainerRole"} <= roles


def resources(name: str) -> list[Template]:
    return list(quotas.load(name, "x86_64")["Resources"].values())


def test_a_stack_s_longest_name_is_the_documented_one() -> None:
    assert f"at most {quotas.find_longest_stack_name()} characters" in PAGE.read_text().replace("\n", " ")


def test_the_page_has_the_table_of_the_tool(usages: list[Usage]) -> None:
    """Its numbers may be a little old; `python -m tests.infra.quotas --markdown` prints new ones."""
    rows = re.findall(r"^\| ([^|]+) \| `[^`]+` \| ([\d,]+) \| ([\d,]+) \|$", PAGE.read_text(), re.MULTILINE)
    told = {what: (int(used.replace(",", "")), int(limit.replace(",", ""))) for what, used, limit in rows}
    measured = {usage.what: usage for usage in quotas.find_largest(usages)}
    if not any(what.startswith("code of") for what in measured):  # `make package` has built nothing here
        told = {what: numbers for what, numbers in told.items() if not what.startswith("code of")}
    assert told.keys() == measured.keys()
    stale = [
        quotas.format_usage(usage)
        for what, usage in measured.items()
        if told[what][1] != usage.limit or abs(told[what][0] - usage.used) > STALE_SHARE * usage.used
    ]
    assert stale == []


def test_values_are_as_long_as_they_get() -> None:
    """The longer branch of a condition, the longest allowed value, the longest ARN, a list that is joined."""
    template: Template = {
        "Parameters": {"Level": {"AllowedValues": ["basic", "complete", "full"], "Default": "full"}},
        "Resources": {"Store": {"Type": "AWS::S3::Bucket"}, "Role": {"Type": "AWS::IAM::Role"}},
    }
    values = LongestValues(template)
    assert values.expand({"Ref": "Level"}) == "complete"
    assert values.expand({"Fn::If": ["Yes", "ab", {"Fn::Sub": "${Level}!"}]}) == "complete!"
    assert values.expand([{"Fn::If": ["Yes", {"Ref": "AWS::NoValue"}, {"Ref": "AWS::NoValue"}]}]) == []
    assert len(values.expand({"Fn::GetAtt": ["Store", "Arn"]})) == len("arn:aws-us-gov:s3:::") + 63
    assert values.expand({"Fn::GetAtt": "Role.Arn"}) == quotas.ARN
    assert values.expand({"Fn::Join": ["-", ["a", {"Ref": "Level"}]]}) == "a-complete"
    assert values.expand({"Fn::Sub": ["${Own}", {"Own": {"Ref": "Level"}}]}) == "complete"
    with pytest.raises(AssertionError, match="The longest value of Fn::Cidr is not known"):
        values.expand({"Fn::Cidr": []})


def test_parts_of_paths_are_resources_of_an_api() -> None:
    api: Template = {"Body": {"paths": {"/": {}, "/v2": {}, "/v2/models/{name}": {}, "/v2/models/{name}/ready": {}}}}
    (found,) = [usage for usage in quotas.measure_api("Api", api) if usage.limit == 300]
    assert found.used == len({"/", "/v2", "/v2/models", "/v2/models/{name}", "/v2/models/{name}/ready"})


def test_subscriptions_are_counted_by_their_log_group() -> None:
    """CloudWatch takes two of a group; that of the predict function has the promote function's alone."""
    counted = {usage.where: usage.used for usage in quotas.measure_subscriptions(quotas.load("api", "x86_64"))}
    assert counted == {"PredictLogs": 1, "GenerateLogs": 1}


def test_a_role_of_many_rights_is_told_with_its_number() -> None:
    """What would fail on AWS as LimitExceeded: maximum policy size of 10240 bytes exceeded."""
    role: Template = {"AssumeRolePolicyDocument": {}, "Policies": [{"PolicyDocument": {"Statement": ["x" * 5000]}}] * 2}
    inline = next(iter(quotas.measure_role("Role", role)))
    assert inline.share > quotas.ALLOWED_SHARE
    assert quotas.format_usage(inline).endswith("10,036 of      10,240  inline policies of a role, characters: Role")
