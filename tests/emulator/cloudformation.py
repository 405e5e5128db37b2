"""CloudFormation: nested SAM templates, resources that are only recorded, and numbers that arrive as text."""

import sys
from typing import Any

from ministack.services.cloudformation import engine, provisioners

ACCOUNT, REGION = "000000000000", "us-east-1"
# What ministack does not know. They are recorded, so that a stack that has them deploys, and nothing of them works.
PLACEHOLDERS = (
    "AWS::CodeDeploy::Application",
    "AWS::CodeDeploy::DeploymentGroup",
    "AWS::Logs::QueryDefinition",
    "AWS::WAFv2::WebACLAssociation",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::Batch::ComputeEnvironment",
    "AWS::Batch::JobDefinition",
    "AWS::Batch::JobQueue",
)
MAPPING_NUMBERS = ("BatchSize", "MaximumBatchingWindowInSeconds")
Created = tuple[str, dict[str, Any]]


def extend() -> None:
    """Add all of this to the running ministack."""
    handlers = provisioners._RESOURCE_HANDLERS
    for kind in PLACEHOLDERS:
        handlers.setdefault(kind, {"create": record_only, "delete": lambda *_, **__: None})
    mapping = handlers["AWS::Lambda::EventSourceMapping"]
    mapping["create"] = _create_mapping_with(mapping["create"])
    engine._parse_template = _parse_with(engine._parse_template)
    evaluate = engine._evaluate_conditions
    for module in list(sys.modules.values()):  # it is imported by name elsewhere
        if getattr(module, "_evaluate_conditions", None) is evaluate:
            module._evaluate_conditions = _evaluate_with(evaluate)  # type: ignore[attr-defined] # of whichever module


def record_only(logical_id: str, props: dict[str, Any], stack_name: str) -> Created:
    """Create nothing, and answer with an ARN in every attribute that our templates read."""
    arn = f"arn:aws:placeholder:{REGION}:{ACCOUNT}:{stack_name}/{logical_id}"
    names = ("Arn", "ComputeEnvironmentArn", "JobDefinitionArn", "JobQueueArn")
    return f"{stack_name}-{logical_id}", dict.fromkeys(names, arn)


def _create_mapping_with(create: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Read the numbers of an event source mapping, which parameters of a template pass on as text."""

    def create_mapping(logical_id: str, props: dict[str, Any], stack_name: str) -> Created:
        numbers = {name: int(props[name]) for name in MAPPING_NUMBERS if name in props}
        scaling = {name: int(value) for name, value in props.get("ScalingConfig", {}).items()}
        read = {**props, **numbers, **({"ScalingConfig": scaling} if scaling else {})}
        made: Created = create(logical_id, read, stack_name)
        return made

    return create_mapping


def _parse_with(parse: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Apply SAM's transform to nested stacks too, as CloudFormation does; ministack's own asks for it elsewhere."""

    def parse_template(body: str, *more: Any, **options: Any) -> Any:  # noqa: ANN401 - ministack has no types
        template = parse(body, *more, **options)
        nested = sys._getframe(1).f_code.co_filename.endswith("provisioners.py")
        return engine._apply_transforms(template) if nested else template

    return parse_template


def _evaluate_with(evaluate: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Join the parts of lists in conditions, which ministack compares unjoined, so that no list is ever empty."""

    def evaluate_conditions(template: dict[str, Any], parameters: dict[str, Any]) -> dict[str, bool]:
        joined = join_lists(template.get("Conditions", {}), parameters)
        found: dict[str, bool] = evaluate({**template, "Conditions": joined}, parameters)
        return found

    return evaluate_conditions


def join_lists(node: Any, parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - any part of a template
    """Replace `Fn::Join` over a parameter that is a list, the only one in our conditions, by the text."""
    if isinstance(node, list):
        return [join_lists(each, parameters) for each in node]
    if not isinstance(node, dict):
        return node
    if "Fn::Join" in node:
        separator, reference = node["Fn::Join"]
        return separator.join(parameters[reference["Ref"]]["Value"].split(","))
    return {name: join_lists(value, parameters) for name, value in node.items()}
