"""Properties of CloudFormation as requests to Batch, by the model of its API, which botocore has.

`MaxvCpus: "32"` is `maxvCpus: 32`. What the API does not take, as `ReplaceComputeEnvironment`, is left out.
"""

from typing import Any

from botocore.session import get_session

from tests.emulator.batch_jobs import Document

CHOSEN_BY_CALLER = ("ComputeEnvironmentName", "JobQueueName", "JobDefinitionName", "Tags")


def to_request(operation: str, props: Document) -> Document:
    """Turn a resource's properties into the request that creates it."""
    shape = get_session().get_service_model("batch").operation_model(operation).input_shape
    own = {name: value for name, value in props.items() if name not in CHOSEN_BY_CALLER}
    request: Document = convert_value(own, shape)
    return request


def convert_value(value: Any, shape: Any) -> Any:  # noqa: ANN401 - any value, by botocore's shape of it
    """Turn a property into what the API takes: names begin small, numbers are numbers, keys of maps stay."""
    if shape.type_name == "structure":
        return {
            small: convert_value(one, shape.members[small])
            for name, one in value.items()
            if (small := name[0].lower() + name[1:]) in shape.members
        }
    if shape.type_name == "list":
        return [convert_value(one, shape.member) for one in value]
    if shape.type_name in ("integer", "long"):
        return int(value)
    if shape.type_name == "boolean":
        return str(value).lower() == "true"
    return str(value) if shape.type_name == "string" else value
