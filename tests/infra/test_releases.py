"""A deploy publishes a version of a function with an alias for whatever callers shall meet: `live` leads to versions.

SAM names the version by a hash of properties as the template has them, in which another value of a parameter, a setting
or a layer is the same text. CloudFormation publishes anew where the description of a version is another.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.infra.cloud import FILES, ROOT, translated

PREDICT = translated("api", {})["Resources"]
FUNCTIONS = ("Predict", "Generate")  # with an alias
# What Lambda keeps of the function itself, whatever its versions say, and what is the same as long as the stack is.
OF_THE_FUNCTION = {"Code", "Role", "Tags", "ReservedConcurrentExecutions"}
OF_THE_STACK = {"ModelBucket", "AWS::NoValue", "HasDataKey"}


def find_names(node: Any) -> Iterator[str]:  # noqa: ANN401 - any part of a template
    """Find the parameters, resources, conditions and settings that this part of a template depends on."""
    if isinstance(node, list):
        for item in node:
            yield from find_names(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "Ref":
                yield value
            elif key == "Fn::Sub":
                text, values = value if isinstance(value, list) else (value, {})
                yield from {part.partition("}")[0] for part in text.split("${")[1:]} - values.keys()
                yield from find_names(values)
            elif key == "Fn::FindInMap":
                yield ".".join(value)
            elif key == "Fn::If":
                yield value[0]
                yield from find_names(value[1:])
            else:
                yield from find_names(value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_version_depends_on_all_that_the_function_is_given(name: str) -> None:
    function = PREDICT[f"{name}Function"]["Properties"]
    given = set(find_names({key: value for key, value in function.items() if key not in OF_THE_FUNCTION}))
    assert {f"{'Model' if name == 'Predict' else name}Memory", "CoreLayer", "Settings.Serving.AliasSeconds"} <= {
        name[: len("CoreLayer")] if name.startswith("CoreLayer") else name for name in given
    }
    assert given - OF_THE_STACK <= set(find_names(PREDICT[f"{name}Settings"]["Properties"]["Content"]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_it_depends_on_is_in_its_description(name: str) -> None:
    version = PREDICT[find_version(PREDICT, name)]
    assert version["Properties"]["Description"] == {"Fn::Sub": f"settings ${{{name}Settings}}"}
    policies = ("DeletionPolicy", "UpdateReplacePolicy")  # former versions stay, for the alias to go back to
    assert [version[policy] for policy in policies] == ["Retain", "Retain"]
    assert PREDICT[f"{name}Settings"]["Type"] == "AWS::AppConfig::HostedConfigurationVersion"


def test_a_version_depends_on_each_property_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the time that a call may take, which has neither parameter nor setting."""
    shutil.copytree(ROOT / "infra", tmp_path / "infra", ignore=shutil.ignore_patterns("decisions", "docs"))
    changed = FILES["api"].read_text().replace("    Timeout: 28  # s", "    Timeout: 27  # s")
    (tmp_path / "template.yaml").write_text(changed)
    monkeypatch.setitem(FILES, "api", tmp_path / "template.yaml")
    others = translated("api", {"Timeout": "27"})["Resources"]  # named for translated() alone, which remembers
    assert others["PredictFunction"]["Properties"]["Timeout"] == 27
    assert find_version(others) != find_version(PREDICT)
    assert find_version(PREDICT) in PREDICT


def find_version(resources: dict[str, Any], function: str = "Predict") -> str:
    (name,) = (
        name for name, one in resources.items() if one["Type"] == "AWS::Lambda::Version" and name.startswith(function)
    )
    return name
