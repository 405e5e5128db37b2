"""CloudFormation: nested SAM templates, resources that are only recorded, and numbers that arrive as text."""

import sys
from typing import Any

from ministack.services.cloudformation import _stacks, engine, provisioners

from tests.emulator.replacement import replace_everywhere

ACCOUNT, REGION = "000000000000", "us-east-1"
# What ministack does not know. They are recorded, so that a stack that has them deploys, and nothing of them works.
PLACEHOLDERS = (
    "AWS::CodeDeploy::Application",
    "AWS::CodeDeploy::DeploymentGroup",
    "AWS::Logs::QueryDefinition",
    "AWS::WAFv2::WebACLAssociation",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
)
MAPPING_NUMBERS = ("BatchSize", "MaximumBatchingWindowInSeconds")
COMPUTED = {"Fn::Join", "Fn::FindInMap", "Fn::Split", "Fn::Sub"}
Created = tuple[str, dict[str, Any]]


def extend() -> None:
    """Add all of this to the running ministack."""
    kinds = provisioners._RESOURCE_HANDLERS
    for kind in PLACEHOLDERS:
        kinds.setdefault(kind, {"create": record_only, "delete": lambda *_, **__: None})
    mapping = kinds["AWS::Lambda::EventSourceMapping"]
    mapping["create"] = _create_mapping_with(mapping["create"])
    nested = kinds["AWS::CloudFormation::Stack"]
    nested["delete"] = _delete_nested_with(nested["delete"])
    provisioners._update_resource = _update_with(provisioners._update_resource)
    engine._parse_template = _parse_with(engine._parse_template)
    replace_everywhere("_evaluate_conditions", engine._evaluate_conditions, _evaluate_with(engine._evaluate_conditions))


def record_only(logical_id: str, props: dict[str, Any], stack_name: str) -> Created:
    """Create nothing, and answer with an ARN."""
    arn = f"arn:aws:placeholder:{REGION}:{ACCOUNT}:{stack_name}/{logical_id}"
    return f"{stack_name}-{logical_id}", {"Arn": arn}


def _create_mapping_with(create: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Read the numbers of an event source mapping, which parameters of a template pass on as text."""

    def create_mapping(logical_id: str, props: dict[str, Any], stack_name: str) -> Created:
        numbers = {name: int(props[name]) for name in MAPPING_NUMBERS if name in props}
        scaling = {name: int(value) for name, value in props.get("ScalingConfig", {}).items()}
        read = {**props, **numbers, **({"ScalingConfig": scaling} if scaling else {})}
        made: Created = create(logical_id, read, stack_name)
        return made

    return create_mapping


def _update_with(update: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Remember the attributes of a nested stack's resource that an update leaves as it is; ministack forgets them."""

    def update_resource(kind: str, pid: str, old: Any, new: Any, stack: str, name: str, attrs: Any = None) -> Created:  # noqa: ANN401
        known = _stacks.get(stack, {}).get("_resources", {}).get(name, {})
        made: Created = update(kind, pid, old, new, stack, name, known.get("Attributes") if attrs is None else attrs)
        return made

    return update_resource


def _delete_nested_with(delete: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Keep what a nested stack retains when it is deleted, as CloudFormation does; ministack deletes everything."""

    def delete_nested(physical_id: str, props: dict[str, Any]) -> None:
        child = _stacks.get(provisioners._nested_stack_lookup_name(physical_id)) or {}
        defined = (child.get("_template") or {}).get("Resources", {})
        for name in list(child.get("_resources", {})):
            if defined.get(name, {}).get("DeletionPolicy") in provisioners._RETAINING_POLICIES:
                del child["_resources"][name]
        delete(physical_id, props)

    return delete_nested


def _parse_with(parse: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Apply SAM's transform to nested stacks too, as CloudFormation does; ministack's own asks for it elsewhere."""

    def parse_template(body: str, *more: Any, **options: Any) -> Any:  # noqa: ANN401 - ministack has no types
        template = parse(body, *more, **options)
        nested = sys._getframe(1).f_code.co_filename.endswith("provisioners.py")
        return engine._apply_transforms(template) if nested else template

    return parse_template


def _evaluate_with(evaluate: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Evaluate functions in conditions other than the logical ones; ministack compares their JSON."""

    def evaluate_conditions(template: dict[str, Any], params: dict[str, Any]) -> Any:  # noqa: ANN401 - ministack's own
        def compute(value: Any) -> Any:  # noqa: ANN401 - a part of a template
            if isinstance(value, list):
                return [compute(one) for one in value]
            if not isinstance(value, dict):
                return value
            if COMPUTED & value.keys():
                return engine._resolve_refs(value, {}, params, {}, template.get("Mappings", {}), "", "")
            return {name: compute(one) for name, one in value.items()}

        return evaluate({**template, "Conditions": compute(template.get("Conditions", {}))}, params)

    return evaluate_conditions
